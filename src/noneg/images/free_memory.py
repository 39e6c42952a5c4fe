"""How much memory is free."""

import os
from pathlib import Path

_UNKNOWN = 4 * 2**30


def available_memory() -> int:
    """Bytes that this process can allocate without swapping, in its machine and its container."""
    limits = [_machine(Path("/proc/meminfo")), _container(Path("/sys/fs/cgroup"))]
    return min((limit for limit in limits if limit is not None), default=_UNKNOWN)


def _machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        # Other systems only tell the total; half of it is a cautious guess.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _container(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        return None if limit == "max" else max(0, int(limit) - used)
    except (OSError, ValueError):
        return None
