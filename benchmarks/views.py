"""BYOL's two views of an image: images per second, in one process and one thread.

noneg draws a batch at once from uint8 pixels. torchvision and lightly work image by image, on a
uint8 tensor and on a PIL image. kornia takes a float batch with parameters for each image. The
sides take turns, and medians of CPU time are printed; on an idle machine CPU time is wall time.
The case "jpeg" also decodes files of about 500 x 375 pixels: noneg to 256 px, and draws views from
these; a run decodes once, not once per epoch. The process keeps freed memory, as in training, which
makes all sides faster.

    pip install 'noneg[bench]'
    python benchmarks/views.py            about five minutes
    python benchmarks/views.py --quick    under two minutes
"""

import argparse
import csv
import gc
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg, read_file

from noneg.images import find_source
from noneg.training.hardware import keep_freed_memory
from noneg.views import draw_views
from peers import MEAN, STD, byol_views, kornia_views, lightly_views, require, torchvision_views

# Case -> side of the view, side of the source, batch of noneg and kornia, and number of images for
# torchvision and lightly, which take them one by one.
CASES = {
    "32": (32, 32, 256, 64),
    "96": (96, 128, 64, 32),
    "224": (224, 256, 32, 12),
    "jpeg": (224, 256, 32, 12),
}
# The least time of a round; it is at least one call.
SECONDS = 0.1
SIDES = ("noneg", "torchvision", "lightly", "kornia")


def photographs(count: int, height: int, width: int) -> np.ndarray:
    """Smooth colors with edges and some noise: uint8 [N, height, width, 3]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 9, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    edges = torch.nn.functional.interpolate(coarse.flip(0), (height, width), mode="nearest")
    noise = torch.rand(count, 3, height, width, generator=generator)
    mixed = (0.6 * smooth + 0.3 * edges + 0.1 * noise).clamp(0, 1)
    return (255 * mixed).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def jpeg_files(folder: Path, count: int) -> list[Path]:
    files = []
    for number, pixels in enumerate(photographs(count, 375, 500)):
        files.append(folder / f"{number:03}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


def make_round(side: str, case: str, folder: Path) -> tuple[Callable[[int], object], int]:
    """A function that runs one round of a side, given its number, and its number of images."""
    size, source_size, batch, few = CASES[case]
    count = batch if side in ("noneg", "kornia") else few
    files = jpeg_files(folder, count) if case == "jpeg" else []
    stored = photographs(count, source_size, source_size)
    tensors = torch.from_numpy(stored).permute(0, 3, 1, 2).contiguous()

    if side == "noneg":
        source = find_source(folder) if files else None
        index, policy = torch.arange(count), byol_views(size)
        kept: dict[str, tuple[Tensor, ...]] = {}

        def noneg_round(number: int) -> object:
            pixels = tensors
            if source is not None:
                read = [source.read(each, 3, source_size) for each in range(count)]
                pixels = torch.from_numpy(np.stack(read))
            kept["views"] = draw_views(
                pixels,
                index,
                policy,
                size=size,
                seed=0,
                epoch=number,
                mean=MEAN,
                std=STD,
                out=kept.get("views"),
            )
            return kept

        return noneg_round, count

    if side == "kornia":
        views = kornia_views(size)
        resize = torch.nn.functional.interpolate

        def kornia_round(_number: int) -> object:
            pixels = tensors.float() / 255
            if files:
                decoded = [decode_jpeg(read_file(str(file)))[None].float() / 255 for file in files]
                pixels = torch.cat([resize(each, (256, 256), mode="bilinear") for each in decoded])
            return [view(pixels) for view in views]

        return kornia_round, count

    if side == "torchvision":
        transforms = torchvision_views(size)

        def torchvision_round(_number: int) -> object:
            images = [decode_jpeg(read_file(str(file))) for file in files] or list(tensors)
            return [torch.stack([view(image) for image in images]) for view in transforms]

        return torchvision_round, count

    transform = lightly_views(size)

    def lightly_round(_number: int) -> object:
        images = (
            [Image.open(io.BytesIO(file.read_bytes())).convert("RGB") for file in files]
            if files
            else [Image.fromarray(pixels) for pixels in stored]
        )
        return [torch.stack(views) for views in zip(*map(transform, images), strict=True)]

    return lightly_round, count


def measure_speed(case: str, rounds: int) -> dict[str, list[float]]:
    """Images per second of each side, round by round."""
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as temporary:
        sides = {}
        for side in SIDES:
            folder = Path(temporary) / side
            folder.mkdir()
            sides[side] = make_round(side, case, folder)
        for number in range(rounds + 1):
            for side, (run, count) in sides.items():
                gc.collect()
                images, started = 0, time.process_time()
                while (seconds := time.process_time() - started) < SECONDS:
                    run(number)
                    images += count
                # The first round of each is a warm-up.
                if number:
                    speeds[side].append(images / seconds)
    return speeds


def measure_memory(case: str) -> float:
    """Peak memory of drawing a batch with noneg over the memory of its views, of this process."""
    size, source_size, _, _ = CASES[case]
    images = max(64, 2**28 // (2 * 12 * size * size))
    pixels = torch.zeros(images, 3, source_size, source_size, dtype=torch.uint8)
    arguments = {"size": size, "seed": 0, "epoch": 0, "mean": MEAN, "std": STD}
    draw_views(pixels[:4], torch.arange(4), byol_views(size), **arguments)
    # Reset the peak, which may come from the imports.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    views = draw_views(pixels, torch.arange(images), byol_views(size), **arguments)
    return (peak_bytes() - before) / sum(view.nbytes for view in views)


def peak_bytes() -> int:
    """The peak resident memory of this process since its last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument(
        "--out", default=None, help="table of a full run; --quick only writes one if this is given"
    )
    parser.add_argument("--memory", choices=list(CASES), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    warnings.filterwarnings("ignore")
    if chosen.memory:
        print(measure_memory(chosen.memory))
        return
    require("lightly", "kornia")
    rounds = chosen.rounds or (7 if chosen.quick else 15)
    rows = []
    speedup, memory = {}, {}
    for case in chosen.cases:
        speeds = measure_speed(case, rounds)
        for side, measured in speeds.items():
            rows += [[case, side, number, f"{each:.1f}"] for number, each in enumerate(measured)]
        middle = {side: statistics.median(measured) for side, measured in speeds.items()}
        best = max(SIDES[1:], key=lambda side: middle[side])
        # Within a round, because a slow minute then slows both sides of the ratio.
        ratios = [ours / theirs for ours, theirs in zip(speeds["noneg"], speeds[best], strict=True)]
        speedup[case] = round(statistics.median(ratios), 1)
        listed = ", ".join(f"{side} {speed:.0f}" for side, speed in middle.items())
        print(f"{case}: {listed} images/s; {speedup[case]} times {best}, n = {rounds}", flush=True)
        if case != "jpeg":
            peak = subprocess.run(
                [sys.executable, __file__, "--memory", case], capture_output=True, check=True
            )
            memory[case] = round(float(peak.stdout), 2)
            print(f"{case}: peak memory {memory[case]} times the output's", flush=True)
    out = chosen.out or (None if chosen.quick else "benchmarks/results/views.csv")
    if out is not None:
        with open(out, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "side", "round", "images_per_second"])
            writer.writerows(rows)
    print(json.dumps({"speedup": speedup, "memory": memory}))


if __name__ == "__main__":
    main()
