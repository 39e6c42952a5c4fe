"""Do noneg's fused view operations cost accuracy?

Pairs of runs with the same random parameters of the views, rendered by noneg, and by torchvision
one operation after the other (clamped between operations, hue in HSV). Nothing else differs in a
pair. kNN and linear accuracy after the last epoch, for each seed.

    python benchmarks/fidelity.py cifar10/train cifar10/test    about half an hour on two cores
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import noneg
import noneg.training.loop
from noneg.images import find_source, load_images
from noneg.views import draw_views
from sequential_views import draw_sequential_views

FORMS = {"fused": draw_views, "sequential": draw_sequential_views}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", help="a folder with one subfolder per class")
    parser.add_argument("test", help="the same")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--method", default="vicreg")
    parser.add_argument("--views", default="byol")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fidelity.csv"))
    chosen = parser.parse_args()
    images = load_images(find_source(chosen.train), channels=3, size=32)
    assert images.labels is not None
    some = np.sort(np.random.default_rng(0).permutation(len(images.labels))[: chosen.images])
    pixels = np.asarray(images.pixels)[some].transpose(0, 2, 3, 1)
    rows = []
    precision = "auto"
    for seed in range(chosen.seeds):
        for form, function in FORMS.items():
            noneg.training.loop.draw_views = function
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                run = noneg.train(
                    np.ascontiguousarray(pixels),
                    labels=images.labels[some],
                    eval_data=chosen.test,
                    method=chosen.method,
                    views=chosen.views,
                    epochs=chosen.epochs,
                    batch_size=256,
                    seed=seed,
                    precision=precision,
                    out=str(Path(folder) / "run"),
                )
            seconds = time.perf_counter() - started
            # Both sides of all pairs take what the first run has found to be faster.
            precision = run.config.precision
            score = run.scores[0]
            rows.append([form, seed, f"{score.knn:.4f}", f"{score.linear:.4f}", f"{seconds:.0f}"])
            print(form, seed, score, f"{seconds:.0f} s", flush=True)
            with chosen.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["form", "seed", "knn", "linear", "seconds"])
                writer.writerows(rows)
    for column, name in ((2, "kNN"), (3, "linear")):
        gaps = [
            float(a[column]) - float(b[column]) for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
        spread = statistics.stdev(gaps) if len(gaps) > 1 else float("nan")
        print(
            f"{name}: fused minus sequential {100 * statistics.mean(gaps):+.2f} points, "
            f"standard deviation {100 * spread:.2f}, n = {len(gaps)}"
        )


if __name__ == "__main__":
    main()
