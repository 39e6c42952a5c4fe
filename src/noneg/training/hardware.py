"""The devices of a run, and how its process reuses memory."""

import ctypes
import os
import platform
from dataclasses import dataclass
from typing import final

import torch

from noneg.training.config import TrainConfig


@final
@dataclass(frozen=True)
class Hardware:
    """What a run computes on, in Lightning's names.

    Args:
        accelerator: "cpu", "gpu", "mps" ...; never "auto".
        devices: how many per machine, or which; "auto" only on GPUs, where Lightning resolves it.
        num_nodes: number of machines.
        strategy: "auto", "ddp", "fsdp" ...
    """

    accelerator: str
    devices: int | str
    num_nodes: int
    strategy: str

    @property
    def on_cpu(self) -> bool:
        """Whether the network runs on the CPU."""
        return self.accelerator == "cpu"

    @property
    def description(self) -> str:
        """The name of the device, for people."""
        if self.accelerator in ("gpu", "cuda") and torch.cuda.is_available():
            return torch.cuda.get_device_name()
        if self.on_cpu:
            threads = torch.get_num_threads()
            return f"cpu with {threads} thread{'s' if threads > 1 else ''}"
        return self.accelerator


def choose_hardware(config: TrainConfig) -> Hardware:
    """Resolve "auto"; with torchrun, its numbers of processes and machines are used."""
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        if accelerator == "cpu" and torch.backends.mps.is_available():
            accelerator = "mps"
    launched_here = os.environ.get("LOCAL_WORLD_SIZE")
    devices, num_nodes = config.devices, config.num_nodes
    if devices == "auto" and launched_here is not None:
        devices = int(launched_here)
    elif devices == "auto" and accelerator == "cpu":
        # One process, whose threads use all cores.
        devices = 1
    if num_nodes == 1 and launched_here is not None:
        num_nodes = int(os.environ.get("WORLD_SIZE", launched_here)) // int(launched_here)
    return Hardware(accelerator, devices, num_nodes, config.strategy)


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AMX or AVX512-BF16)."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it to the system.

    Every step frees its activations and allocates as much again. glibc returns large blocks to the
    system at once, so each step would pay for page faults on the same memory again.

    Returns:
        Whether the C library supports this.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold = -1, -3  # from malloc.h
    largest = 2**31 - 1
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, largest))
