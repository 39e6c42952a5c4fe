"""The strongest baseline without training: whitened patches and k-means.

Coates, Ng and Lee 2011, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning"
(AISTATS, PMLR 15), with their "triangle" activation.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from noneg.errors import NonegError
from noneg.evaluation.pixels import resized

CENTROIDS, SAMPLED_PATCHES, PATCHES_PER_IMAGE = 400, 100_000, 50
LARGEST_PATCH_SIDE = 6
VARIANCE_KEPT = 0.99
"""On CIFAR-10 45 of 108 directions: a third of the time, and the same accuracy (docs/log.md)."""

# The paper's constants: 10 for pixels in 0 ... 255, and 0.1 for the whitening.
_LEAST_VARIANCE, _REGULARIZATION = 10 / 255**2, 0.1
_BLOCK = 2**20
# Below this share of the largest variance, float32 leaves only rounding errors.
_ROUNDING = 1e-6


@final
@dataclass(frozen=True, eq=False)
class Patches:
    """What was learned from patches of images; it turns images into features.

    Attributes:
        image_side: side to which images are resized, in pixels.
        patch_side: side of the patches, in pixels.
        mean: [P], mean of the normalized patches; P is channels * patch_side^2.
        whitening: [P, W], see `whitening`.
        centroids: [K, W], the centers of the clusters of whitened patches.
    """

    image_side: int
    patch_side: int
    mean: Float[Tensor, " patch"]
    whitening: Float[Tensor, "patch white"]
    centroids: Float[Tensor, "centroids white"]

    def features(
        self, pixels: UInt8[np.ndarray, "images channels stored stored"]
    ) -> Float32[np.ndarray, "images width"]:
        """The triangle activations of all patches of each image, averaged over its quadrants.

        The distances d_k of a whitened patch to all centroids become max(0, mean(d) - d_k): 0 for
        the farther ones, about half of them (section 3.2.2 of the paper). The quadrants overlap by
        one row or column if the number of positions is odd.

        Args:
            pixels: uint8 [N, C, S, S], with the channels that the patches were learned from.

        Returns:
            float32 [N, 4 K], quadrant by quadrant. Memory beyond the result does not grow with N.
        """
        positions = self.image_side - self.patch_side + 1
        each = torch.eye(positions**2).reshape(-1, 1, positions, positions)
        pooling = adaptive_avg_pool2d(each, 2).flatten(1).T.contiguous()
        squares = self.centroids.square().sum(dim=1)
        # Blocks that stay in the cache are several times as fast.
        size = max(1, _BLOCK // (positions**2 * len(self.centroids)))
        features = np.empty((len(pixels), 4 * len(self.centroids)), dtype=np.float32)
        for start in range(0, len(pixels), size):
            images = resized(pixels[start : start + size], self.image_side)
            patches = normalized(_all_patches(images, self.patch_side).flatten(3).flatten(0, 2))
            white = (patches - self.mean) @ self.whitening
            distances = torch.addmm(squares, white, self.centroids.T, alpha=-2)
            distances.add_(white.square().sum(dim=1, keepdim=True)).clamp_(min=0).sqrt_()
            # The negative of the activations, in place.
            distances.sub_(distances.mean(dim=1, keepdim=True)).clamp_(max=0)
            pooled = pooling @ distances.reshape(len(images), positions**2, -1)
            features[start : start + size] = -pooled.flatten(1)
        return features


def learn_patches(
    pixels: UInt8[np.ndarray, "images channels stored stored"],
    image_side: int,
    *,
    centroids: int = CENTROIDS,
    seed: int = 0,
) -> Patches:
    """Whiten and cluster random patches of images; no labels are used.

    Patches are at most 6 x 6, and at most half as wide as the image. Of each image 50 patches are
    taken on average, but not more than 100,000 in all.

    Args:
        pixels: uint8 [N, C, S, S], with any number of channels.
        image_side: side to which images are resized, in pixels.
        centroids: number of clusters K; fewer if there are fewer patches.
        seed: decides the patches and the clusters.

    Raises:
        NonegError: there are no images.
    """
    # scikit-learn takes a second to import.
    from sklearn.cluster import MiniBatchKMeans

    if len(pixels) == 0:
        raise NonegError("Patches cannot be learned from no images; add images.")
    patch_side = min(image_side, LARGEST_PATCH_SIDE, max(2, image_side // 2))
    generator = np.random.default_rng(seed)
    patches = normalized(_random_patches(pixels, image_side, patch_side, generator))
    mean, matrix = whitening(patches)
    white = ((patches - mean) @ matrix).numpy()
    clusters = MiniBatchKMeans(
        min(centroids, len(white)),
        batch_size=4096,
        max_iter=10,
        n_init=1,
        random_state=int(generator.integers(2**31)),
    ).fit(white)
    return Patches(
        image_side, patch_side, mean, matrix, torch.from_numpy(clusters.cluster_centers_)
    )


def patch_features(
    bank: UInt8[np.ndarray, "bank channels stored stored"],
    test: UInt8[np.ndarray, "test channels stored stored"],
    image_side: int,
    *,
    seed: int = 0,
) -> tuple[Float32[np.ndarray, "bank width"], Float32[np.ndarray, "test width"]]:
    """Features of both parts, learned from the bank without labels; see `learn_patches`.

    Raises:
        NonegError: the bank is empty.
    """
    learned = learn_patches(bank, image_side, seed=seed)
    return learned.features(bank), learned.features(test)


def normalized(patches: Float[Tensor, "patches patch"]) -> Float[Tensor, "patches patch"]:
    """Each patch minus its mean, divided by sqrt(variance + 10 / 255^2), for pixels in [0, 1].

    So brightness does not matter, and contrast only in patches that have almost none.
    """
    centered = patches - patches.mean(dim=1, keepdim=True)
    return centered / (centered.square().mean(dim=1, keepdim=True) + _LEAST_VARIANCE).sqrt()


def whitening(
    rows: Float[Tensor, "rows width"],
    *,
    regularization: float = _REGULARIZATION,
    kept: float = VARIANCE_KEPT,
) -> tuple[Float[Tensor, " width"], Float[Tensor, "width white"]]:
    """Mean m and matrix M, so that (x - m) M has a covariance close to the identity.

    The columns of M are eigenvectors of the covariance, divided by sqrt(eigenvalue +
    regularization). ZCA whitening rotates this back, which changes no distance. Of the directions,
    the fewest are kept that hold a share `kept` of the variance.
    """
    mean, variances, directions = principal_directions(rows)
    enough = int((variances.cumsum(0) < kept * variances.sum()).sum()) + 1
    matrix = directions[:, :enough] / (variances[:enough] + regularization).sqrt()
    return mean, matrix.to(rows.dtype)


def first_components(
    bank: Float32[np.ndarray, "bank width"], test: Float32[np.ndarray, "test width"], most: int
) -> tuple[Float32[np.ndarray, "bank components"], Float32[np.ndarray, "test components"]]:
    """Both parts in the bank's principal directions: at most `most`, those without variance not.

    If all features are constant, one constant component is left.
    """
    mean, variances, directions = principal_directions(torch.from_numpy(bank))
    real = int((variances > _ROUNDING * variances[0]).sum())
    kept = directions[:, : max(1, min(most, real, len(bank) - 1))].float()
    first, second = ((torch.from_numpy(part) - mean) @ kept for part in (bank, test))
    return first.numpy(), second.numpy()


def principal_directions(
    rows: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, " width"], Float64[Tensor, " found"], Float64[Tensor, "width found"]]:
    """Mean, and eigenvalues and eigenvectors (in columns) of the covariance, largest first.

    There are as many as rows or columns, whichever are fewer; the other eigenvalues are 0.
    """
    mean = rows.mean(dim=0, dtype=torch.float64).to(rows.dtype)
    centered = rows - mean
    if len(rows) < rows.shape[1]:
        _, deviations, transposed = torch.linalg.svd(centered.double(), full_matrices=False)
        return mean, deviations.square() / len(rows), transposed.T
    covariance = (centered.T @ centered).double() / len(rows)
    variances, directions = torch.linalg.eigh(covariance)
    return mean, variances.flip(0).clamp(min=0), directions.flip(1)


def _all_patches(
    images: Float[Tensor, "images channels side side"], side: int
) -> Float[Tensor, "images rows columns channels patch patch"]:
    """A view of every patch; no copy."""
    return images.unfold(2, side, 1).unfold(3, side, 1).movedim(1, 3)


def _random_patches(
    pixels: UInt8[np.ndarray, "images channels stored stored"],
    image_side: int,
    patch_side: int,
    generator: np.random.Generator,
) -> Float[Tensor, "patches patch"]:
    count = min(SAMPLED_PATCHES, PATCHES_PER_IMAGE * len(pixels))
    positions = image_side - patch_side + 1
    image = np.sort(generator.integers(len(pixels), size=count))
    row, column = generator.integers(positions, size=(2, count))
    found = []
    for start in range(0, len(pixels), 1_000):
        here = (image >= start) & (image < start + 1_000)
        patches = _all_patches(resized(pixels[start : start + 1_000], image_side), patch_side)
        chosen = patches[image[here] - start, row[here], column[here]]
        found.append(chosen.flatten(1))
    return torch.cat(found)
