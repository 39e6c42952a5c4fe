"""The ceiling: the same network trained with labels, in the same CPU seconds of one core.

DATA holds train/ and test/ with a subfolder per class, or is "shapes". The scores are of 5,000
training images that are held out, or a tenth if that is fewer. The test set is only read with
--open-test COMMIT. Printed are the accuracy of the classifier that was trained, and those of
noneg's probes on the backbone's features.

    OMP_NUM_THREADS=1 python benchmarks/supervised.py DATA --seconds 600
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from budget import Budget, train_within
from noneg.encoder import Encoder
from noneg.evaluation.scores import evaluate_features, matched_labels, sample_images
from noneg.views import draw_views
from noneg.views.policy import resolve_policy
from same_network import SameNetwork
from speedrun_data import Parts, load_dev, open_test

SETTINGS: dict[str, Any] = {
    "views": [{"crop_scale": [0.4, 1.0], "jitter": 0.0, "grayscale": 0.0}],
    "batch_size": 128,
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "warmup": 0.1,
}
"""Crops and flips; AdamW with a cosine schedule, at this rate per step."""


@final
@dataclass(frozen=True)
class Supervised:
    """A network trained with labels.

    Attributes:
        encoder: its backbone.
        head: from features [N, D] to logits [N, classes].
        steps: training steps, of `batch_size` images.
        seconds: CPU seconds that they took.
    """

    encoder: Encoder
    head: nn.Linear
    steps: int
    seconds: float

    @torch.no_grad()
    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Share of the images [N, D] that the classifier itself gets right."""
        return float(np.mean(self.head(torch.from_numpy(features)).argmax(1).numpy() == labels))


def train_supervised(
    network: SameNetwork, budget: Budget, settings: dict[str, Any] | None = None
) -> Supervised:
    """Cross entropy on single views; the number of steps is fixed by timing a few."""
    chosen = {**SETTINGS, **(settings or {})}
    images, plan = network.images, network.plan
    assert images.labels is not None
    labels = torch.from_numpy(images.labels)
    policy = resolve_policy(chosen["views"], plan.size, 1)
    trained: list[tuple[nn.Module, nn.Linear]] = []

    def train(steps: int) -> Iterator[None]:
        backbone, width = network.build()
        head = nn.Linear(width, int(labels.max()) + 1)
        trained[:] = [(backbone.train(), head)]
        optimizer = _optimizer(backbone, head, chosen)
        batches = network.batches(min(chosen["batch_size"], len(labels)))
        for step, (epoch, index) in zip(range(steps), batches, strict=False):
            (view,) = draw_views(
                torch.from_numpy(network.pixels[index]),
                torch.from_numpy(index),
                policy,
                size=plan.size,
                seed=network.seed,
                epoch=epoch,
                mean=network.info.mean,
                std=network.info.std,
            )
            with network.autocast():
                logits = head(backbone(view.contiguous(memory_format=torch.channels_last)))
            loss = cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = chosen["learning_rate"] * rate(step, steps, chosen["warmup"])
            optimizer.step()
            yield

    steps, seconds = train_within(budget, train)
    backbone, head = trained[0]
    return Supervised(network.encoder(backbone), head.eval(), steps, seconds)


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: linear warm-up over a share of the steps, then a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2


def _optimizer(
    backbone: nn.Module, head: nn.Module, settings: dict[str, Any]
) -> torch.optim.Optimizer:
    parameters = [*backbone.parameters(), *head.parameters()]
    groups = [
        {
            "params": [each for each in parameters if each.ndim > 1],
            "weight_decay": settings["weight_decay"],
        },
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings["learning_rate"], fused=True)


def score(result: Supervised, parts: Parts, seed: int) -> dict[str, Any]:
    """The classifier's accuracy, and noneg's probes on the features, with 10,000 labels."""
    bank, scored = (sample_images(part, 10_000, seed=seed) for part in (parts.train, parts.scored))
    bank_labels, labels = matched_labels(bank, scored)
    features = result.encoder.embed_pixels(np.asarray(scored.pixels))
    probes = evaluate_features(
        "supervised",
        result.encoder.embed_pixels(np.asarray(bank.pixels)),
        bank_labels,
        features,
        labels,
        seed=seed,
    )
    return {"accuracy": result.accuracy(features, labels), **vars(probes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--backbone", default="auto", help="a name from noneg list backbones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", help="a policy of noneg; default: crops and flips")
    parser.add_argument("--learning-rate", type=float, help="per step")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--open-test", metavar="COMMIT", help="score on the test set, once")
    chosen = parser.parse_args()
    # One core: CPU time is the budget.
    torch.set_num_threads(1)
    place = Path(chosen.data)
    name, place = (place.name, place) if place.is_dir() else (chosen.data, None)
    if chosen.open_test is None:
        parts = load_dev(name, place)
    else:
        parts = open_test(name, place, chosen.open_test)
    settings = {
        name: value
        for name in SETTINGS
        if (value := vars(chosen).get(name)) is not None
    }  # fmt: skip
    network = SameNetwork(parts.train, chosen.seed, backbone=chosen.backbone)
    result = train_supervised(network, Budget(chosen.seconds), settings)
    scores = score(result, parts, chosen.seed)
    batch = settings.get("batch_size", SETTINGS["batch_size"])
    print(
        f"{network.plan.backbone}, {network.precision}: {result.steps} steps of {batch} images in "
        f"{result.seconds:.0f} CPU seconds\n"
        f"its own classifier {scores['accuracy']:.1%}\n"
        f"kNN of its features {scores['knn']:.1%}\n"
        f"linear probe of its features {scores['linear']:.1%}\n"
        f"({'test set' if chosen.open_test else 'held-out training images'}, "
        f"{len(parts.scored.pixels)} images)"
    )


if __name__ == "__main__":
    main()
