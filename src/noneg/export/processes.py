"""Several processes that each run the same function, and what torchrun tells its processes."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from noneg.encoder import find_device
from noneg.errors import NonegError
from noneg.export.parts import Share
from noneg.images.reading import available_cores

Argument = TypeVar("Argument")


def share_by_torchrun() -> Share:
    """The share of this process, from the environment that torchrun sets; all without torchrun.

    Raises:
        NonegError: the environment contradicts itself.
    """
    if "WORLD_SIZE" not in os.environ:
        return Share()
    told = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if not all(each.isdecimal() for each in told) or int(told[0]) >= int(told[1]):
        raise NonegError(
            f"RANK is '{told[0]}' and WORLD_SIZE is '{told[1]}' in the environment, which are not "
            "the numbers of a process: unset both, or start with torchrun."
        )
    return Share(int(told[0]), int(told[1]))


def own_device(wanted: str) -> torch.device:
    """The GPU of this process, if there is one for each process of the machine."""
    device = find_device(wanted)
    if str(device) == "cuda":
        return torch.device(
            "cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()
        )
    return device


def run_in_processes(count: int, function: Callable[[Argument], None], argument: Argument) -> None:
    """Call a function in several processes at once, each with its share of the cores.

    Each finds its number in the environment, as with torchrun.

    Args:
        count: of processes.
        function: importable.
        argument: for all alike.

    Raises:
        NonegError: a process failed; the others have gone on to their ends.
    """
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_one, args=(number, count, function, argument))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        # They got the signal of the terminal as well.
        for process in processes:
            process.join()
        raise
    failed = [number for number, process in enumerate(processes) if process.exitcode]
    if failed:
        code = processes[failed[0]].exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else "failed"
        raise NonegError(
            f"process {failed[0] + 1} of {count} {how}; what is complete is kept, and the same "
            "command makes the rest"
        )


def _one(number: int, count: int, function: Callable[[Argument], None], argument: Argument) -> None:
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    torch.set_num_threads(max(1, available_cores() // count))
    try:
        function(argument)
    except NonegError as error:
        print(f"noneg: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
