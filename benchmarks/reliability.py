"""Whether noneg keeps what it promises in docs/reliability.md: kills, damaged files, a soak.

Kills: a run is killed with `kill -9` at a random moment, of loading, training (with a checkpoint at
every step), measuring and scoring, and resumed, or started again if it had not begun. Its weights
and its table of metrics are compared with those of a run that nobody disturbed. Every method takes
its turn, on one process and on two; of two, sometimes only one is killed, and the other one has to
end within a minute with one sentence. On one process the ends must be bit-identical, on two equal
to rounding.

Damaged files: see fuzzing.py.

Soak: a run of two processes, with a fault after each minute of training: all or one of them killed,
stopped for some seconds, SIGTERM, images that are taken away and put back, a full disk and a
read-only one (these two if a disk may be mounted). Whatever ends is resumed. Memory and open files
of every process are read from the system every second.

    python benchmarks/reliability.py --quick
    python benchmarks/reliability.py --kills 100 --fuzz 10000 --soak 120

The last line of the output is JSON.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from fuzzing import fuzz
from noneg.encoder import Encoder, EncoderInfo
from noneg.methods import list_methods
from noneg.networks.backbones import build_backbone
from noneg.records.directory import RunDirectory

STEPS, BATCH, SIDE = 24, 8, 16
MINUTE = 60
UNHURRIED = 600
"""Seconds for what takes a few, on a machine that has other things to do."""

CLOCKS = ("seconds", "images_per_second")


@dataclass
class Kills:
    """Kills, and how the runs ended."""

    kills: int = 0
    bit_identical: int = 0
    equal_to_rounding: int = 0
    different: list[str] = field(default_factory=list)
    not_resumed: list[str] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)
    largest_difference: float = 0.0
    one_of_two: int = 0


def write_images(folder: Path, count: int = 40) -> None:
    """Colored noise in two classes, as files."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for number, each in enumerate(pixels):
        place = folder / f"class-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(place / f"{number:03}.png")


def write_teacher(place: Path) -> None:
    """An untrained encoder, for the method that needs a teacher."""
    torch.manual_seed(0)
    module = build_backbone("small_convnet", channels=3, size=SIDE)
    mean, std = (0.5,) * 3, (0.25,) * 3
    info = EncoderInfo("small_convnet", 3, SIDE, SIDE, mean, std, 256, "none")
    Encoder(module, info).save(place)


def command(method: str, images: Path, out: Path, processes: int, **more: object) -> list[str]:
    """`noneg train`, with a checkpoint at every step."""
    settings: dict[str, object] = {
        "method": method,
        "out": out,
        "backbone": "small_convnet",
        "size": SIDE,
        "batch_size": BATCH,
        "steps": STEPS,
        "checkpoint_every": 1,
        "log_every": 2,
        "precision": "32-true",
        "accelerator": "cpu",
        "devices": processes,
        "report": False,
        **more,
    }
    if processes > 1:
        settings["strategy"] = "ddp"
    if method == "distill":
        settings["options.teacher"] = images.parent / "teacher"
    if method == "w_mse":
        # Fewer images than coordinates.
        settings["options.epsilon"] = 0.1
    if method == "i_jepa":
        # A transformer, with patches to hide.
        settings |= {"backbone": "test_vit2", "size": 64}
    return ["train", str(images), *(f"--{name}={value}" for name, value in settings.items())]


def begin(arguments: list[str]) -> subprocess.Popen[str]:
    """Start noneg in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "noneg", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str], patience: float = UNHURRIED) -> str | None:
    """What the process said until its end; None if it does not end, and is killed."""
    try:
        return process.communicate(timeout=patience)[0]
    except subprocess.TimeoutExpired:
        kill_all(process)
        process.communicate()
        return None


def kill_all(process: subprocess.Popen[str]) -> None:
    """`kill -9` for the process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The training processes, the first one first."""
    found = [process.pid]
    with suppress(OSError):
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            for each in (task / "children").read_text().split():
                line = Path(f"/proc/{each}/cmdline").read_bytes()
                if b"noneg" in line and b"tracker" not in line:
                    found.append(int(each))
    return found


def wait_until_begun(process: subprocess.Popen[str], run: RunDirectory) -> None:
    """Until the run has its directory; most of the time before is Python's."""
    while process.poll() is None and not run.lock_file.exists():
        time.sleep(0.005)


def moment_of(run: RunDirectory) -> str:
    """What a run was doing, by the files that it has."""
    if not run.config_file.exists():
        return "loading"
    if not run.last_checkpoint.exists():
        return "before the first checkpoint"
    if not run.encoder.exists():
        unfinished = list(run.last_checkpoint.parent.glob("*.partial"))
        return "writing a checkpoint" if unfinished else "training"
    return "measuring and scoring"


def differences(run: Path, whole: Path) -> float:
    """The largest difference of two runs, of the largest weight; infinite if their rows differ."""
    one, other = (load_file(each / "encoder" / "encoder.safetensors") for each in (run, whole))
    if one.keys() != other.keys():
        return float("inf")
    rows = [_rows(RunDirectory(each)) for each in (run, whole)]
    if [row["step"] for row in rows[0]] != [row["step"] for row in rows[1]]:
        return float("inf")
    largest = max(float(value.abs().max()) for value in other.values())
    weights = max(
        float((value.double() - other[name].double()).abs().max()) for name, value in one.items()
    )
    if weights == 0 and rows[0] != rows[1]:
        return float("inf")
    return weights / largest


def _rows(run: RunDirectory) -> list[dict[str, str]]:
    with run.metrics.path.open(newline="") as file:
        return [
            {name: cell for name, cell in row.items() if name not in CLOCKS}
            for row in csv.DictReader(file)
        ]


def measure_kills(count: int, methods: list[str], place: Path, seed: int) -> Kills:
    """Kill and resume `count` runs; each method and number of processes in turn."""
    generator = random.Random(seed)
    images = place / "images"
    write_images(images)
    write_teacher(place / "teacher")
    kinds = [(method, processes) for method in methods for processes in (1, 2)]
    whole: dict[tuple[str, int], tuple[Path, float]] = {}
    found = Kills()
    number = 0
    while found.kills < count:
        method, processes = kind = kinds[number % len(kinds)]
        number += 1
        if kind not in whole:
            whole[kind] = _undisturbed(method, images, place / f"{method}-{processes}", processes)
        reference, seconds = whole[kind]
        run = RunDirectory(place / f"killed-{number}")
        arguments = command(method, images, run.path, processes)
        process = begin(arguments)
        wait_until_begun(process, run)
        # The same moments on a machine that is busier now.
        time.sleep(generator.uniform(0, seconds))
        ranks = ranks_of(process)
        if process.poll() is not None:
            process.communicate()
            shutil.rmtree(run.path)
            continue
        found.moments[moment_of(run)] += 1
        what = f"{method} on {processes}, kill {found.kills}"
        if processes == 2 and len(ranks) == 2 and generator.random() < 0.5:
            os.kill(ranks[1], signal.SIGKILL)
            found.one_of_two += 1
            said = end(process, patience=MINUTE)
            if said is None or "Traceback" in said or process.returncode not in (0, 2):
                found.not_resumed.append(f"{what}: the other one said {said}")
        else:
            kill_all(process)
            process.communicate()
        found.kills += 1
        exists = run.config_file.exists()
        process = begin(["train", "--resume", str(run.path)] if exists else arguments)
        said = end(process)
        if process.returncode != 0:
            found.not_resumed.append(f"{what}: {said}")
            continue
        difference = differences(run.path, reference)
        found.largest_difference = max(found.largest_difference, difference)
        if difference == 0:
            found.bit_identical += 1
        elif processes == 2 and difference < 1e-4:
            found.equal_to_rounding += 1
        else:
            found.different.append(f"{what}: {difference}")
        left = [*run.path.rglob("*.partial"), *run.path.rglob("*.unfinished"), run.lock_file]
        if any(each.exists() for each in left):
            found.different.append(f"{what}: left files behind")
        shutil.rmtree(run.path)
        print(
            f"{what}: {run_moment(found)}; {found.bit_identical} bit-identical, "
            f"{found.equal_to_rounding} to rounding",
            flush=True,
        )
    return found


def run_moment(found: Kills) -> str:
    """How often each moment was met so far."""
    return ", ".join(f"{name} {times}" for name, times in sorted(found.moments.items()))


def _undisturbed(method: str, images: Path, out: Path, processes: int) -> tuple[Path, float]:
    """A whole run, and its seconds since its directory was there."""
    process = begin(command(method, images, out, processes))
    wait_until_begun(process, RunDirectory(out))
    started = time.monotonic()
    said = end(process)
    if process.returncode != 0:
        sys.exit(f"{method} on {processes} processes does not run: {said}")
    return out, time.monotonic() - started


@dataclass
class Soak:
    """What happened in a soak."""

    minutes: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)
    steps: int = 0
    memory_slopes: list[float] = field(default_factory=list)
    most_open_files: int = 0
    open_files_growth: int = 0


@contextmanager
def disk(place: Path) -> Iterator[bool]:
    """A disk of its own at `place`, if this user may mount one; says whether it is."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    try:
        is_own = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_own = False
    try:
        yield is_own
    finally:
        if is_own:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


def measure_soak(minutes: float, between: float, place: Path, seed: int) -> Soak:
    """Train on two processes, with a fault after each `between` seconds of training."""
    found = Soak()
    generator = random.Random(seed)
    images = place / "soak-images"
    write_images(images)
    with disk(place / "disk") as is_own:
        out = place / "disk" / "run"
        run = RunDirectory(out)
        more: dict[str, object] = {"cache": "none", "steps": 10**7, "checkpoint_every": 20}
        first = command("byol", images, out, 2, log_every=50, **more)
        faults: dict[str, Callable[[subprocess.Popen[str]], bool]] = {
            "all killed": lambda process: _signal(ranks_of(process), signal.SIGKILL),
            "one killed": lambda process: _signal(ranks_of(process)[-1:], signal.SIGKILL),
            "SIGTERM": lambda process: _signal(ranks_of(process), signal.SIGTERM),
            "suspended": lambda process: _suspend(ranks_of(process)),
            "images away": lambda process: _take_away(images, process),
        }
        if is_own:
            faults["disk full"] = lambda process: _fill(place / "disk", process)
            faults["read-only"] = lambda process: _read_only(place / "disk", process)
        started = time.monotonic()
        order: list[str] = []
        process = begin(first)
        while time.monotonic() - started < MINUTE * minutes:
            _watch(process, run, between, found)
            name = (order := order or generator.sample(sorted(faults), len(faults))).pop()
            if process.poll() is None:
                found.faults[name] += 1
                if not faults[name](process):
                    continue
            said = end(process, patience=2 * MINUTE)
            if said is None:
                found.wrong.append(f"{name}: did not end")
            elif "Traceback" in said or process.returncode not in (2, 130, -signal.SIGKILL):
                found.wrong.append(f"{name}: exit code {process.returncode} {said[-2000:]}")
            process = begin(["train", "--resume", str(out)] if run.config_file.exists() else first)
            found.resumed += 1
        _watch(process, run, between, found)
        _signal(ranks_of(process), signal.SIGTERM)
        said = end(process, patience=2 * MINUTE)
        if process.returncode != 130:
            found.wrong.append(f"at the end: exit code {process.returncode} {said}")
        steps = [int(row["step"]) for row in _rows(run)] if run.metrics.path.exists() else []
        if steps != sorted(set(steps)):
            found.wrong.append("metrics.csv has a step twice")
        found.steps = steps[-1] if steps else 0
        found.minutes = (time.monotonic() - started) / MINUTE
    return found


def _watch(process: subprocess.Popen[str], run: RunDirectory, seconds: float, found: Soak) -> None:
    """Memory and open files of each process, once a second of training but for the first third."""
    rows = _size(run.metrics.path)
    while process.poll() is None and _size(run.metrics.path) <= rows:
        time.sleep(0.1)
    memory: dict[int, list[tuple[float, float]]] = {}
    files: dict[int, list[int]] = {}
    started = time.monotonic()
    while time.monotonic() - started < seconds and process.poll() is None:
        for rank in ranks_of(process):
            with suppress(OSError, ValueError, IndexError):
                pages = int(Path(f"/proc/{rank}/statm").read_text().split()[1])
                mebibytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
                minute = (time.monotonic() - started) / MINUTE
                memory.setdefault(rank, []).append((minute, mebibytes))
                files.setdefault(rank, []).append(len(os.listdir(f"/proc/{rank}/fd")))
        time.sleep(1)
    for rank, points in memory.items():
        later = points[len(points) // 3 :]
        if len(later) >= 10:
            found.memory_slopes.append(
                statistics.linear_regression(*zip(*later, strict=True)).slope
            )
            opened = files[rank][len(points) // 3 :]
            found.most_open_files = max(found.most_open_files, *opened)
            found.open_files_growth = max(found.open_files_growth, opened[-1] - opened[0])


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _signal(ranks: list[int], number: signal.Signals) -> bool:
    for rank in ranks:
        with suppress(ProcessLookupError):
            os.kill(rank, number)
    return True


def _suspend(ranks: list[int]) -> bool:
    """Stopped for ten seconds; the run goes on by itself."""
    _signal(ranks, signal.SIGSTOP)
    time.sleep(10)
    _signal(ranks, signal.SIGCONT)
    return False


def _take_away(images: Path, process: subprocess.Popen[str]) -> bool:
    aside = images.with_name("aside")
    images.rename(aside)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=MINUTE)
    aside.rename(images)
    return True


def _fill(place: Path, process: subprocess.Popen[str]) -> bool:
    filler = place / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
    _wait_for_a_write(process)
    filler.unlink()
    return True


def _read_only(place: Path, process: subprocess.Popen[str]) -> bool:
    def remount(how: str) -> bool:
        given = ["mount", "-o", f"remount,{how}", str(place)]
        return subprocess.run(given, capture_output=True, check=False).returncode == 0

    # The disk is busy while a file is written.
    deadline = time.monotonic() + MINUTE
    while not remount("ro") and time.monotonic() < deadline:
        pass
    _wait_for_a_write(process)
    remount("rw")
    return True


def _wait_for_a_write(process: subprocess.Popen[str]) -> None:
    """Until the run meets the fault: between two checkpoints it writes nothing, and goes on."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=UNHURRIED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 kills, 330 files, no soak")
    parser.add_argument("--kills", type=int, default=0, metavar="N")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="damaged images")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES")
    parser.add_argument(
        "--between", type=float, default=MINUTE, help="seconds of training between faults"
    )
    parser.add_argument("--methods", nargs="+", default=None, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.kills, chosen.fuzz = chosen.kills or 4, chosen.fuzz or 300
        chosen.methods = chosen.methods or ["byol", "moco"]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if chosen.kills:
            methods = chosen.methods or list_methods()
            kills = measure_kills(chosen.kills, methods, place, chosen.seed)
            result |= {
                "kills": kills.kills,
                "bit_identical_ends": kills.bit_identical,
                "ends_equal_to_rounding": kills.equal_to_rounding,
                "other_ends": kills.different,
                "not_resumed": kills.not_resumed,
                "moments": dict(kills.moments),
                "kills_of_one_of_two": kills.one_of_two,
                "largest_difference": kills.largest_difference,
                "methods": methods,
            }
        if chosen.fuzz:
            outcomes = [
                fuzz("images", chosen.fuzz, first=chosen.seed * chosen.fuzz),
                fuzz("artifacts", chosen.fuzz // 10, first=chosen.seed * chosen.fuzz),
            ]
            result |= {
                "fuzzed_files": sum(each.files for each in outcomes),
                "read": sum(each.read for each in outcomes),
                "refused": sum(each.refused for each in outcomes),
                "crashes": len(crashes := [line for each in outcomes for line in each.crashes]),
                "hangs": len(hangs := [line for each in outcomes for line in each.hangs]),
            }
            for line in (*crashes, *hangs):
                print(line)
        if chosen.soak:
            soak = measure_soak(chosen.soak, chosen.between, place, chosen.seed)
            result["soak"] = {
                "minutes": round(soak.minutes, 1),
                "faults": dict(soak.faults),
                "resumed": soak.resumed,
                "wrong": soak.wrong,
                "steps": soak.steps,
                "mebibytes_per_minute": round(statistics.median(soak.memory_slopes or [0.0]), 3),
                "most_open_files": soak.most_open_files,
                "open_files_growth": soak.open_files_growth,
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
