"""The encoder in use: how fast search is, and how good duplicates and choices are.

    python benchmarks/use.py --quick
    python benchmarks/use.py --parts search duplicates --photos AERIAL --encoder ENCODER
    python benchmarks/use.py --parts select --photos AERIAL --encoder timm:resnet18
    python benchmarks/use.py --parts embed --photos AERIAL --encoder ENCODER

Parts: `embed` (images a second: decoding and resizing alone, the network alone, both as `noneg
embed` does them, and the command with one and two processes), `export` (how far ONNX Runtime's
features are from noneg's), `search` (a million random vectors), `index` (a million vectors in
clusters, approximately and exactly), `duplicates` (copies of photographs, made by edits that the
threshold is not measured with; beside a perceptual hash), `many` (all near-duplicates of 60,000
vectors), `select` (a linear probe on images that were chosen, and on random ones). The last line is
JSON.
"""

import argparse
import copy
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.fx.experimental.optimization import fuse

import noneg
from noneg.collection.approximate import build_index
from noneg.collection.duplicates import find_duplicates, group, measure_threshold
from noneg.collection.embedded import embed_collection
from noneg.collection.neighbors import nearest, unit
from noneg.collection.selection import select
from noneg.encoder import normalized_images
from noneg.evaluation.standardize import standardized
from noneg.images import ImageSource, Skipped, images_on_demand, stream_images
from noneg.images.find import find_source
from noneg.images.shapes import draw_shapes

PARTS = ("search", "index", "many", "embed", "export", "duplicates", "select")


def vectors(count: int, width: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32))


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """The median; one run comes before."""
    run()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measure_search(quick: bool) -> dict[str, Any]:
    bank = vectors(100_000 if quick else 1_000_000, 256)
    queries = vectors(100 if quick else 1_000, 256, seed=1)
    one = seconds(lambda: nearest(queries[:1], bank, 10))
    began = time.perf_counter()
    found = nearest(queries, bank, 10)
    many = time.perf_counter() - began
    some = np.arange(0, len(queries), 50)
    exact = np.argsort(-(queries[some].astype(np.float64) @ bank.T), axis=1)[:, :10]
    return {
        "vectors": len(bank),
        "one_query_ms": 1000 * one,
        "queries": len(queries),
        "all_queries_s": many,
        "queries_per_s": len(queries) / many,
        "recall": float((found.index[some] == exact).mean()),
    }


def measure_index(quick: bool) -> dict[str, Any]:
    """Vectors around centers, as images of classes are; those at random would have no cells."""
    count, width = (50_000, 64) if quick else (1_000_000, 256)
    random = np.random.default_rng(0)
    centers = vectors(count // 500, width)
    bank, queries = (
        unit(centers[random.integers(len(centers), size=size)] + 0.7 * vectors(size, width, seed))
        for size, seed in ((count, 2), (1_000, 3))
    )
    began = time.perf_counter()
    index = build_index(bank)
    built = time.perf_counter() - began
    found, exact = index.nearest(queries, 10).index, nearest(queries, bank, 10).index
    return {
        "vectors": count,
        "build_s": built,
        "recall": statistics.mean(
            np.isin(one, two).mean() for one, two in zip(found, exact, strict=True)
        ),
        "one_query_ms": 1000 * seconds(lambda: index.nearest(queries[:1], 10)),
        "one_query_exact_ms": 1000 * seconds(lambda: nearest(queries[:1], bank, 10)),
        "all_queries_s": seconds(lambda: index.nearest(queries, 10), 3),
        "all_queries_exact_s": seconds(lambda: nearest(queries, bank, 10), 1),
    }


def measure_many(quick: bool) -> dict[str, Any]:
    """All near-duplicates among many vectors: 5 % are noisy copies."""
    count, width = (10_000, 128) if quick else (60_000, 256)
    random = np.random.default_rng(0)
    images = vectors(count, width)
    copies = random.permutation(count)[: count // 20]
    noise = random.standard_normal((len(copies), width), dtype=np.float32)
    images = np.concatenate([images, unit(images[copies] + 0.2 * width**-0.5 * noise)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    around = nearest(images, images, 16, same=True)
    truth = (images[copies] * images[count:]).sum(axis=1)
    cut = measure_threshold(truth, around.cosine[:, 0])
    groups = group(images, around, cut.cosine)
    taken = time.perf_counter() - began
    found = {each.members for each in groups}
    expected = {(int(one), count + number) for number, one in enumerate(copies)}
    return {
        "vectors": len(images),
        "seconds": taken,
        "images_per_s": len(images) / taken,
        "more_memory_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "precision": len(found & expected) / max(1, len(found)),
        "recall": len(found & expected) / len(expected),
    }


# Edits that noneg does not measure its threshold with, or stronger than there.
def _recompressed(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=int(random.integers(15, 40)))
    return Image.open(data).convert("RGB")


def _resized(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    share = random.uniform(0.3, 0.7)
    return picture.resize((round(picture.width * share), round(picture.height * share)))


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    part = random.uniform(0.75, 0.9)
    width, height = round(picture.width * part), round(picture.height * part)
    left = int(random.integers(0, picture.width - width + 1))
    top = int(random.integers(0, picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def _rotated(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    angle = float(random.choice([-1, 1]) * random.uniform(2, 8))
    return picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))


def _recolored(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    picture = ImageEnhance.Color(picture).enhance(float(random.uniform(0.2, 1.8)))
    return ImageEnhance.Brightness(picture).enhance(float(random.uniform(0.7, 1.3)))


EDITS = (_recompressed, _resized, _cropped, _rotated, _recolored)


def measure_duplicates(photos: np.ndarray, encoder: noneg.Encoder, name: str) -> dict[str, Any]:
    """Precision and recall of pairs, for copies of a fifth of the photographs, uint8 [N, H, W, C].

    Photographs that truly were near-duplicates of each other count as errors, for all alike.
    """
    random = np.random.default_rng(0)
    originals = np.sort(random.permutation(len(photos))[: len(photos) // 5])
    side = photos.shape[1]
    copies, kinds = [], []
    for number, original in enumerate(originals):
        edit = EDITS[number % len(EDITS)]
        copy = edit(Image.fromarray(photos[original]), random).resize((side, side))
        copies.append(np.asarray(copy))
        kinds.append(edit.__name__[1:])
    images = np.concatenate([photos, np.stack(copies)])
    expected = {(int(one), len(photos) + number) for number, one in enumerate(originals)}
    began = time.perf_counter()
    collection = embed_collection(encoder, images)
    embedded = time.perf_counter()
    groups, cut = find_duplicates(encoder, collection)
    taken = time.perf_counter() - embedded
    pairs = {
        (one, two) for each in groups for one in each.members for two in each.members if one < two
    }
    result = {
        "encoder": name,
        "images": len(images),
        "embed_s": embedded - began,
        "find_s": taken,
        "threshold": cut.cosine,
        "stated_found": cut.found,
        "stated_false": cut.false,
        **_rates(pairs, expected),
    }
    for kind in sorted(set(kinds)):
        these = {pair for pair, each in zip(sorted(expected), kinds, strict=True) if each == kind}
        result[f"recall_{kind}"] = len(pairs & these) / len(these)
    return result | _hash_rates(images, expected)


def _rates(pairs: set[tuple[int, int]], expected: set[tuple[int, int]]) -> dict[str, float]:
    right = len(pairs & expected)
    return {"precision": right / max(1, len(pairs)), "recall": right / len(expected)}


def _hash_rates(images: np.ndarray, expected: set[tuple[int, int]]) -> dict[str, Any]:
    """Of a perceptual hash of 64 bits: at the usual distances, and the best F1 of any."""
    try:
        import imagehash
    except ImportError:
        return {"hash": "imagehash is not installed"}
    bits = np.stack([imagehash.phash(Image.fromarray(each)).hash.ravel() for each in images])
    sign = bits.astype(np.float32) * 2 - 1
    distance = (64 - sign @ sign.T) / 2
    upper = np.triu_indices(len(images), 1)
    found: dict[str, Any] = {}
    best = (-1.0, 0)
    for most in range(0, 21, 2):
        near = distance[upper] <= most
        pairs = set(zip(upper[0][near].tolist(), upper[1][near].tolist(), strict=True))
        rates = _rates(pairs, expected)
        total = rates["precision"] + rates["recall"]
        best = max(best, (2 * rates["precision"] * rates["recall"] / max(total, 1e-9), most))
        if most in (4, 10):
            found |= {f"hash{most}_{key}": value for key, value in rates.items()}
    return found | {"hash_best_f1": best[0], "hash_best_distance": best[1]}


def measure_embedding(
    data: Path | np.ndarray, encoder: noneg.Encoder, saved: str, rounds: int
) -> dict[str, Any]:
    """Images a second of each stage alone, and of `noneg embed`, one after the other, medians.

    `share` is the speed of `noneg embed` as a share of the slower stage's. `network_share` is that
    of embedding decoded pictures, as a share of the network's own, with BatchNorm folded into the
    convolutions where torch.fx can do that and where it is faster.
    """
    source = find_source(data)
    info, count = encoder.info, len(source)
    pixels = np.stack(
        [source.read(index, info.channels, info.stored_size) for index in range(min(count, 512))]
    )
    batch = normalized_images(torch.from_numpy(pixels[:256]), info)
    networks = {"network": encoder.module, "folded": _folded(encoder.module)}
    coarse = encoder.in_precision("bfloat16")

    def read() -> int:
        batches = stream_images(
            source,
            channels=info.channels,
            size=info.stored_size,
            batch_size=256,
            on_skip=lambda _: None,
        )
        return sum(len(each) for each, _ in batches)

    def forward(module: torch.nn.Module, fast: bool = False) -> int:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            for _ in range(2):
                module(batch)
        return 2 * len(batch)

    stages: dict[str, Callable[[], int]] = {
        "read": read,
        "embed": lambda: sum(len(each) for _, each in encoder.embed_source(*_how(source))),
        "embed_pixels": lambda: len(encoder.embed_pixels(pixels)),
        **{name: partial(forward, module) for name, module in networks.items()},
        "bfloat16": partial(forward, encoder.module, True),
        "embed_pixels_bfloat16": lambda: len(coarse.embed_pixels(pixels)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(rounds + 1):
        for name, stage in stages.items():
            began = time.perf_counter()
            images = stage()
            # The first round warms up.
            if turn:
                speeds[name].append(images / (time.perf_counter() - began))
    found = {f"{name}_per_s": statistics.median(each) for name, each in speeds.items()}
    slower = min(found["read_per_s"], found["network_per_s"])
    fastest = max(found["network_per_s"], found["folded_per_s"])
    exact, other = encoder.embed_pixels(pixels), coarse.embed_pixels(pixels)
    return {
        "images": count,
        "side": info.size,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        **found,
        "share": found["embed_per_s"] / slower,
        "network_share": found["embed_pixels_per_s"] / fastest,
        "network_share_bfloat16": found["embed_pixels_bfloat16_per_s"] / found["bfloat16_per_s"],
        "bfloat16_difference": float(np.linalg.norm(other - exact) / np.linalg.norm(exact)),
        **(_processes(data, saved) if isinstance(data, Path) else {}),
    }


def _how(source: ImageSource) -> tuple[ImageSource, int, str, bool, bool, list[Skipped]]:
    return source, 256, "cpu", False, False, []


def _folded(module: torch.nn.Module) -> torch.nn.Module:
    """BatchNorm as part of the convolutions before it; the module itself if it cannot be traced."""
    try:
        return fuse(copy.deepcopy(module).eval())
    except Exception as error:
        print(f"BatchNorm cannot be folded: {error}")
        return module


def _processes(photos: Path, saved: str) -> dict[str, float]:
    """The whole command with one and with two processes, starting Python included."""
    found = {}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            subprocess.run(
                [
                    *(sys.executable, "-m", "noneg", "embed", saved, str(photos)),
                    *("--out", f"{folder}/parts", "--devices", str(processes)),
                ],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            found[f"command_{processes}_s"] = time.perf_counter() - began
    return found


def measure_export(encoder: noneg.Encoder) -> dict[str, Any]:
    from noneg.export.onnx import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        return {"onnx_largest_error": export_onnx(encoder, Path(folder) / "encoder.onnx")}


def measure_selection(h: np.ndarray, labels: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
    """Accuracy of a linear probe on the chosen of two thirds, tested on the last third."""
    from sklearn.linear_model import LogisticRegression

    pool = np.arange(len(h)) % 3 > 0
    bank, test = standardized(h[pool], h[~pool])
    result: dict[str, Any] = {}
    for each in (1, 5, 10, 50):
        count = each * len(np.unique(labels))
        if count > pool.sum() // 2:
            continue
        for strategy in ("random", "typical", "herding"):
            accuracies = []
            for seed in seeds:
                chosen = select(h[pool], count, strategy=strategy, seed=seed)
                model = LogisticRegression(C=0.1, max_iter=1_000)
                model.fit(bank[chosen], labels[pool][chosen])
                accuracies.append(float((model.predict(test) == labels[~pool]).mean()))
            result[f"{strategy}_{each}"] = [
                statistics.mean(accuracies),
                statistics.stdev(accuracies),
            ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--photos", type=Path, help="a folder of class folders; default: shapes")
    parser.add_argument("--encoder", help="what noneg.load takes; default: a short run on shapes")
    parser.add_argument("--images", type=int, default=1_000, help="of the photographs")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    found: dict[str, Any] = {}
    if "search" in chosen.parts:
        found["search"] = measure_search(chosen.quick)
        print(found["search"], flush=True)
    if "index" in chosen.parts:
        found["index"] = measure_index(chosen.quick)
        print(found["index"], flush=True)
    if "many" in chosen.parts:
        found["many"] = measure_many(chosen.quick)
        print(found["many"], flush=True)
    if {"duplicates", "select", "embed", "export"} & set(chosen.parts):
        if chosen.photos is None or chosen.encoder is None:
            shapes = draw_shapes(600 if chosen.quick else 2_000, 0)
            photos, labels = shapes.pixels.transpose(0, 2, 3, 1), shapes.labels
            encoder = noneg.train(photos, minutes=0.5, report=False, evaluate=False).encoder
        else:
            encoder = noneg.load(chosen.encoder)
            source = find_source(chosen.photos)
            images = images_on_demand(source, channels=3, size=max(encoder.info.size, 128))
            index = np.sort(np.random.default_rng(0).permutation(len(source))[: chosen.images])
            photos = images.pixels[index].transpose(0, 2, 3, 1)
            labels = None if source.labels is None else source.labels[index]
        if "embed" in chosen.parts:
            with tempfile.TemporaryDirectory() as folder:
                encoder.save(f"{folder}/encoder")
                found["embed"] = measure_embedding(
                    chosen.photos or photos,
                    encoder,
                    f"{folder}/encoder",
                    2 if chosen.quick else 5,
                )
            print(found["embed"], flush=True)
        if "export" in chosen.parts:
            found["export"] = measure_export(encoder)
            print(found["export"], flush=True)
        if "duplicates" in chosen.parts:
            found["duplicates"] = measure_duplicates(photos, encoder, str(chosen.encoder))
            print(found["duplicates"], flush=True)
        if "select" in chosen.parts and labels is not None:
            found["select"] = measure_selection(encoder.embed(photos), labels, range(5))
            print(found["select"], flush=True)
    print(json.dumps(found, default=lambda value: round(float(value), 4)))


if __name__ == "__main__":
    main()
