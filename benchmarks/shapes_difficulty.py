"""How hard is `shapes`? Raw pixels must fail on it, and a small supervised network must succeed.

Two accuracies on the same 4,000 training and 1,000 test images: of a cosine kNN on the centered
pixels, and of a small supervised ResNet after its last epoch. A self-supervised encoder is expected
to lie between them.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/shapes_difficulty.py --seeds 3 --epochs 40
"""

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional

from noneg.images.shapes import CLASSES, Shapes, draw_shapes

RESULTS = Path(__file__).parent / "results" / "shapes_difficulty.csv"
TRAINING_IMAGES, TEST_IMAGES = 4_000, 1_000
IMAGE_SEED, TEST_IMAGE_SEED = 0, 1
BATCH = 64
PEAK_LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05


def raw_pixel_accuracy(training: Shapes, test: Shapes) -> float:
    """Accuracy of the cosine kNN (k = 20, votes weighted with exp(cosine / 0.07))."""
    train_pixels = training.pixels.reshape(len(training.labels), -1).astype(np.float32)
    mean = train_pixels.mean(axis=0)
    keys = functional.normalize(torch.from_numpy(train_pixels - mean))
    test_pixels = test.pixels.reshape(len(test.labels), -1).astype(np.float32)
    queries = functional.normalize(torch.from_numpy(test_pixels - mean))
    cosines, neighbors = (queries @ keys.T).topk(20)
    votes = functional.one_hot(torch.from_numpy(training.labels)[neighbors], len(CLASSES))
    predicted = ((cosines / 0.07).exp()[..., None] * votes).sum(dim=1).argmax(dim=1)
    return float((predicted == torch.from_numpy(test.labels)).float().mean())


def small_network() -> nn.Module:
    """A ResNet with one block per stage, whose stem halves the resolution once instead of twice."""
    network = ResNet(
        BasicBlock, [1, 1, 1, 1], channels=(32, 64, 128, 256), num_classes=len(CLASSES)
    )
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network.to(memory_format=torch.channels_last)


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, mirror, zoom, shift and recolor each image independently.

    Args:
        images: float [B, 3, S, S] in [-1, 1].
        generator: of the random numbers.
    """
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    angle, zoom = uniform(0, 2 * torch.pi), uniform(0.8, 1.15)
    mirror = torch.where(uniform(-1, 1) < 0, -1.0, 1.0)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    shift_x, shift_y = uniform(-0.1, 0.1), uniform(-0.1, 0.1)
    matrix = torch.stack([mirror * cosine, -sine, shift_x, mirror * sine, cosine, shift_y], dim=1)
    where = functional.affine_grid(
        matrix.view(count, 2, 3), list(images.shape), align_corners=False
    )
    turned = functional.grid_sample(images, where, padding_mode="border", align_corners=False)
    # Half of the images swap light and dark: the outline stays the same.
    gain = torch.where(uniform(-1, 1, 1, 1, 1) < 0, -1.0, 1.0) * uniform(0.7, 1.3, 1, 1, 1)
    mixed = turned * gain + uniform(-0.2, 0.2, 3, 1, 1)
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    return mixed.gather(1, order[:, :, None, None].expand_as(mixed))


def supervised_accuracy(training: Shapes, test: Shapes, seed: int, epochs: int) -> float:
    """Train the small network and return its test accuracy after the last epoch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = small_network()
    steps = epochs * (TRAINING_IMAGES // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, steps, pct_start=0.15
    )
    images = torch.from_numpy(training.pixels).float() / 127.5 - 1
    labels = torch.from_numpy(training.labels)
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for batch in order.split(BATCH)[: TRAINING_IMAGES // BATCH]:
            views = augmented(images[batch], generator).contiguous(
                memory_format=torch.channels_last
            )
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(views)
            loss = functional.cross_entropy(logits.float(), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"  epoch {epoch + 1}: loss {total / (TRAINING_IMAGES // BATCH):.3f}", flush=True)
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.from_numpy(test.pixels).float() / 127.5 - 1)
    return float((logits.argmax(dim=1) == torch.from_numpy(test.labels)).float().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both accuracies and write them to `RESULTS`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="training runs, with seeds 0, 1, ...")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    draw_shapes(5_000, IMAGE_SEED)
    print(f"drawing 5,000 images: {time.perf_counter() - start:.2f} s")
    training = draw_shapes(TRAINING_IMAGES, IMAGE_SEED)
    test = draw_shapes(TEST_IMAGES, TEST_IMAGE_SEED)
    rows: list[tuple[str, str, str, str, str]] = []
    accuracy = raw_pixel_accuracy(training, test)
    print(f"raw-pixel kNN: {accuracy:.1%}")
    rows.append(("raw-pixel kNN", "", "", f"{accuracy:.4f}", ""))
    for seed in range(options.seeds):
        start = time.perf_counter()
        accuracy = supervised_accuracy(training, test, seed, options.epochs)
        seconds = time.perf_counter() - start
        print(f"supervised, seed {seed}: {accuracy:.1%} in {seconds:.0f} s")
        rows.append(
            ("supervised", str(seed), str(options.epochs), f"{accuracy:.4f}", f"{seconds:.0f}")
        )
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("what", "training_seed", "epochs", "test_accuracy", "seconds"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
