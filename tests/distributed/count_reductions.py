"""Run `noneg`, and write the number of values that data-parallel training averaged to a file.

python count_reductions.py FILE train ...
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning_fabric.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from noneg.cli import main

averaged = 0


def count(group: Any, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    global averaged
    averaged += bucket.buffer().numel()
    return allreduce_hook(group, bucket)


def with_counter(
    strategy: DDPStrategy, module: torch.nn.Module, wrap: Any = DDPStrategy.setup_module
) -> Any:
    wrapped = wrap(strategy, module)
    wrapped.register_comm_hook(None, count)
    return wrapped


if __name__ == "__main__":
    DDPStrategy.setup_module = with_counter  # type: ignore[method-assign]
    code = main(sys.argv[2:])
    if os.environ.get("LOCAL_RANK", "0") == "0":
        Path(sys.argv[1]).write_text(str(averaged))
    sys.exit(code)
