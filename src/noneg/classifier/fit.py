"""Fit a classifier: a linear probe, and fine-tuning of the whole network that begins with it.

Fine-tuning from a random head distorts the features before the head knows what to ask for; from the
probe it does not (LP-FT: Kumar et al. 2022, arXiv 2202.10054).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noneg.classifier.classifier import Classifier
from noneg.encoder import Encoder, find_device
from noneg.errors import NonegError
from noneg.evaluation.splits import every_fifth
from noneg.evaluation.standardize import moments
from noneg.images import Images
from noneg.networks.norms import freeze_statistics
from noneg.progress import progress_bar
from noneg.randomness import hash_key
from noneg.views import draw_views
from noneg.views.policy import View

REGULARIZATIONS = (1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C of the probe: the best one on the held-out images is taken."""

PROBE_REGULARIZATION = 0.1
"""With few labels nothing can be held out to choose it: the middle of the usual range."""

_VIEW = (View(crop_scale=(0.5, 1.0), jitter=0.0, grayscale=0.0),)
# Customary ones for adapting known weights: see the recipe `adapt`.
_HEAD_RATE, _BACKBONE_RATE, _WEIGHT_DECAY, _BATCH = 1e-3, 1e-4, 0.01, 32


@final
@dataclass(frozen=True)
class Fitted:
    """The classifiers of a fit, which differ only if the network was fine-tuned.

    Attributes:
        best: the one with the best accuracy on the held-out images, the probe included.
        last: after the last epoch.
    """

    best: Classifier
    last: Classifier


def fit_classifier(
    encoder: Encoder,
    images: Images,
    *,
    epochs: int = 10,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Fitted:
    """Fit a linear probe on four fifths of the images, then fine-tune, and judge on the last fifth.

    Classes count alike, however many images they have: the loss of an image is weighted by one over
    the number of images of its class. BatchNorm keeps its statistics. The temperature is fitted on
    the held-out images, so their confidence is a little too good.

    Args:
        encoder: is not changed.
        images: with labels of at least two classes, at least two images of each.
        epochs: of fine-tuning; 0 keeps the encoder as it is.
        seed: decides which images are held out, and the views.
        device: for the network; "auto" is a GPU if there is one.
        progress: show a progress bar on stderr.

    Raises:
        NonegError: there are no labels, or too few images.
    """
    if images.labels is None:
        raise NonegError(
            f"the {images.description} has no labels: put the images of each class into a folder "
            "of its own, or give --labels"
        )
    classes, targets = np.unique(images.labels, return_inverse=True)
    held_out = every_fifth(images.labels, seed=seed)
    if len(classes) < 2 or len(np.unique(targets[~held_out])) < len(classes) or not held_out.any():
        raise NonegError(
            f"the {images.description} has {len(targets)} images of {len(classes)} classes: a "
            "classifier needs two classes and a few images of each"
        )
    names = tuple(
        images.classes[int(each)] if images.classes is not None else str(each) for each in classes
    )
    pixels = np.asarray(images.pixels)
    features = encoder.embed_pixels(pixels, device=device)
    probe = _probe(encoder, features, targets, held_out, names)
    if epochs == 0:
        return Fitted(probe, probe)
    return _fine_tune(probe, pixels, targets, held_out, epochs, seed, device, progress)


def fit_probe(
    features: Float32[np.ndarray, "images width"],
    targets: Int64[np.ndarray, " images"],
    regularization: float,
) -> tuple[Float32[Tensor, "classes width"], Float32[Tensor, " classes"]]:
    """Multinomial logistic regression on standardized features, in which classes count alike.

    Returns:
        Weight and bias for the features as they are.
    """
    from sklearn.linear_model import LogisticRegression

    mean, std = moments(features)
    scale = 1 / std
    model = LogisticRegression(C=regularization, max_iter=500, class_weight="balanced")
    model.fit((features - mean) * scale, targets)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        # Of two classes, scikit-learn has the difference only.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.array([-bias[0], bias[0]]) / 2
    weight = weight * scale
    bias = bias - weight @ mean
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def accuracy(
    weight: Float32[Tensor, "classes width"],
    bias: Float32[Tensor, " classes"],
    features: Float32[np.ndarray, "images width"],
    wanted: Int64[np.ndarray, " images"],
) -> float:
    """The share of images for which a linear classifier says the wanted class, in [0, 1]."""
    logits = torch.from_numpy(features) @ weight.T + bias
    return float((logits.argmax(dim=1).numpy() == wanted).mean())


def _probe(
    encoder: Encoder,
    features: Float32[np.ndarray, "images width"],
    targets: Int64[np.ndarray, " images"],
    held_out: Bool[np.ndarray, " images"],
    names: tuple[str, ...],
) -> Classifier:
    best: Classifier | None = None
    for regularization in REGULARIZATIONS:
        weight, bias = fit_probe(features[~held_out], targets[~held_out], regularization)
        found = _judged(
            Classifier(encoder, weight, bias, names),
            features[held_out],
            targets[held_out],
            {"regularization": regularization, "epoch": 0},
        )
        # Among equal ones the most regularized.
        if best is None or found.validation["accuracy"] > best.validation["accuracy"]:
            best = found
    assert best is not None
    return best


def _judged(
    classifier: Classifier,
    features: Float32[np.ndarray, "images width"],
    targets: Int64[np.ndarray, " images"],
    facts: dict[str, Any],
) -> Classifier:
    """The classifier with its temperature, and what the held-out images say."""
    logits = torch.from_numpy(features) @ classifier.weight.T + classifier.bias
    wanted = torch.from_numpy(targets)
    # A grid is enough: the loss has one minimum in the logarithm of the temperature.
    grid = torch.logspace(-1.5, 1.5, 121)
    losses = torch.stack([cross_entropy(logits / each, wanted) for each in grid])
    temperature = float(grid[int(losses.argmin())])
    right = (logits.argmax(dim=1) == wanted).float()
    each_class = [float(right[wanted == k].mean()) for k in sorted(set(wanted.tolist()))]
    confidence = (logits / temperature).softmax(dim=1).amax(dim=1)
    validation = {
        "images": len(targets),
        "accuracy": float(right.mean()),
        "accuracy_of_classes": float(np.mean(each_class)),
        "mean_confidence": float(confidence.mean()),
        "calibration_error": calibration_error(confidence, right),
        "calibration_error_before": calibration_error(logits.softmax(dim=1).amax(dim=1), right),
        **facts,
    }
    return replace(classifier, temperature=temperature, validation=validation)


def calibration_error(
    confidence: Float32[Tensor, " images"], right: Float32[Tensor, " images"], bins: int = 10
) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, section 2).

    The mean, over equal bins of confidence, of |share of right ones - mean confidence|, weighted by
    the number of images.
    """
    place = (confidence * bins).long().clamp(0, bins - 1)
    total = 0.0
    for each in sorted(set(place.tolist())):
        inside = place == each
        gap = float((right[inside].mean() - confidence[inside].mean()).abs())
        total += gap * int(inside.sum()) / len(confidence)
    return total


def _fine_tune(
    probe: Classifier,
    pixels: np.ndarray,
    targets: Int64[np.ndarray, " images"],
    held_out: Bool[np.ndarray, " images"],
    epochs: int,
    seed: int,
    device: str,
    progress: bool,
) -> Fitted:
    """The probe, or the network of the best epoch on the held-out images; and of the last epoch."""
    best = last = probe
    networks = fine_tune(
        probe,
        pixels[~held_out],
        targets[~held_out],
        epochs=epochs,
        seed=seed,
        device=device,
        progress=progress,
    )
    for epoch, (backbone, head) in enumerate(networks, start=1):
        now = _classifier_of(probe, backbone, head)
        found = _judged(
            now,
            now.encoder.embed_pixels(pixels[held_out], device=device),
            targets[held_out],
            {"epoch": epoch, "probe_accuracy": probe.validation["accuracy"]},
        )
        # Among equal ones the first, which moved least.
        is_best = found.validation["accuracy"] > best.validation["accuracy"]
        if is_best or epoch == epochs:
            # Training goes on with the network, and a classifier stays.
            encoder = Encoder(copy.deepcopy(backbone).cpu(), probe.encoder.info)
            last = replace(found, encoder=encoder)
            best = last if is_best else best
    return Fitted(best, last)


def fine_tune(
    probe: Classifier,
    pixels: UInt8[np.ndarray, "images channels side side"],
    targets: Int64[np.ndarray, " images"],
    *,
    epochs: int,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Iterator[tuple[nn.Module, nn.Linear]]:
    """Train the whole network from a probe, and yield it and its head after each epoch.

    They are the same two objects each time, in training mode or not, on the device.

    Args:
        probe: is not changed.
        pixels: uint8 [N, C, S, S].
        targets: of each, from 0 [N].
        epochs: in all; the rates follow a cosine to 0.
        seed: of the order and the views.
        device: "auto" is a GPU if there is one.
        progress: show a progress bar on stderr.
    """
    target_device, info = find_device(device), probe.encoder.info
    backbone = copy.deepcopy(probe.encoder.module).to(target_device)
    head = nn.Linear(*probe.weight.shape[::-1]).to(target_device)
    head.load_state_dict({"weight": probe.weight, "bias": probe.bias})
    rates = [(backbone, _BACKBONE_RATE), (head, _HEAD_RATE)]
    optimizer = torch.optim.AdamW(
        [{"params": list(part.parameters()), "lr": rate} for part, rate in rates],
        weight_decay=_WEIGHT_DECAY,
    )
    counts = np.bincount(targets)
    weights = torch.from_numpy(len(targets) / (len(counts) * counts)).float().to(target_device)
    steps_per_epoch = math.ceil(len(targets) / _BATCH)
    total = epochs * steps_per_epoch
    with progress_bar(total=total, desc="fine-tuning", unit="steps", shown=progress) as bar:
        for epoch in range(epochs):
            order = np.random.default_rng(hash_key(seed, epoch)).permutation(len(targets))
            backbone.train()
            freeze_statistics(backbone)
            for step in range(steps_per_epoch):
                share = (epoch * steps_per_epoch + step) / total
                for group, (_, rate) in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * (1 + math.cos(math.pi * share)) / 2
                chosen = order[step * _BATCH : (step + 1) * _BATCH]
                views = draw_views(
                    torch.from_numpy(pixels[chosen]).to(target_device),
                    torch.from_numpy(chosen),
                    _VIEW,
                    size=info.size,
                    seed=seed,
                    epoch=epoch,
                    mean=info.mean,
                    std=info.std,
                )
                logits = head(backbone(views[0]))
                wanted = torch.from_numpy(targets[chosen]).to(target_device)
                loss = cross_entropy(logits, wanted, weight=weights)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                bar.update()
            yield backbone, head


def _classifier_of(probe: Classifier, backbone: nn.Module, head: nn.Linear) -> Classifier:
    """The network as it is now, which is not copied."""
    weight, bias = (each.detach().cpu().clone() for each in (head.weight, head.bias))
    return Classifier(Encoder(backbone, probe.encoder.info), weight, bias, probe.classes)


def fine_tuned_accuracy(
    encoder: Encoder,
    train: tuple[UInt8[np.ndarray, "images channels side side"], Int64[np.ndarray, " images"]],
    test: tuple[UInt8[np.ndarray, "test channels side side"], Int64[np.ndarray, " test"]],
    *,
    epochs: int,
    seed: int = 0,
) -> float:
    """Accuracy after LP-FT on all of the training images, of the last epoch.

    Args:
        encoder: is not changed.
        train: pixels and classes, from 0.
        test: pixels and classes; those that are not in `train` are never right.
        epochs: of fine-tuning, at least 1.
        seed: of the order and the views.
    """
    pixels, targets = train
    weight, bias = fit_probe(encoder.embed_pixels(pixels), targets, PROBE_REGULARIZATION)
    classes = tuple(str(each) for each in range(len(weight)))
    probe = Classifier(encoder, weight, bias, classes)
    for backbone, head in fine_tune(probe, pixels, targets, epochs=epochs, seed=seed):
        network = backbone, head
    found = _classifier_of(probe, *network)
    return accuracy(found.weight, found.bias, found.encoder.embed_pixels(test[0]), test[1])
