"""The ten silhouettes of the built-in shapes: their outlines, and how they cover the pixels.

Coordinates are in image sides from the image's center, x to the right and y downwards. Angles are
in degrees clockwise. `n` is the number of images.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float32, Int64, Num

Plane = Float32[np.ndarray, "n side side"]
Column = Float32[np.ndarray, "n 1 1"]
PerImage = Num[np.ndarray, " n"]


def draw_silhouettes(
    labels: Int64[np.ndarray, " n"],
    position_x: PerImage,
    position_y: PerImage,
    diameter: PerImage,
    rotation: PerImage,
    size: int,
) -> Plane:
    """The fraction of each pixel that the silhouette covers: float32 [n, size, size] in [0, 1].

    Args:
        labels: index into `CLASSES`.
        position_x: image sides right of the center.
        position_y: image sides below the center.
        diameter: of the circle around the silhouette, in image sides.
        rotation: degrees clockwise.
        size: the image side in pixels.
    """
    x, y = pixel_centers(size)
    x, y = rotate_axes(x - per_pixel(position_x), y - per_pixel(position_y), rotation)
    x, y = x * per_pixel(2 / diameter), y * per_pixel(2 / diameter)
    distance = np.empty_like(x)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        distance[rows] = _SIGNED_DISTANCES[CLASSES[label]](x[rows], y[rows])
    return coverage(distance * per_pixel(diameter / 2))


def pixel_centers(size: int) -> tuple[Plane, Plane]:
    """The coordinates x and y of the pixels' centers, each [1, size, size]."""
    line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return x[None], y[None]


def per_pixel(values: PerImage) -> Column:
    """One number per image, in a shape that broadcasts over its pixels."""
    column: Column = values.astype(np.float32)[:, None, None]
    return column


def rotate_axes(
    x: Float32[np.ndarray, "_ side side"], y: Float32[np.ndarray, "_ side side"], degrees: PerImage
) -> tuple[Plane, Plane]:
    """The coordinates along axes that are rotated clockwise by `degrees`."""
    radians = np.deg2rad(degrees)
    cosine, sine = per_pixel(np.cos(radians)), per_pixel(np.sin(radians))
    return x * cosine + y * sine, y * cosine - x * sine


def coverage(distance: Plane) -> Plane:
    """Antialiasing: 1 inside, 0 outside, a ramp of one pixel around distance 0 (in image sides)."""
    covered: Plane = np.clip(0.5 - distance * distance.shape[-1], 0, 1)
    return covered


def length(x: Plane, y: Plane) -> Plane:
    """The length of the vectors (x, y)."""
    result: Plane = np.sqrt(x**2 + y**2)
    return result


# Signed distances from the outlines, negative inside, before rotation. The unit is the radius of
# the circle around the silhouette.

SignedDistance = Callable[[Plane, Plane], Plane]


def _crescent(x: Plane, y: Plane) -> Plane:
    distance: Plane = np.maximum(length(x, y) - 1, 0.8 - length(x - 0.5, y))
    return distance


def _heart(x: Plane, y: Plane) -> Plane:
    # Half of a heart is half of a square that stands on its corner, with half a disc on its upper
    # side.
    half, height = np.abs(x) * 0.64, 0.63 - y * 0.64
    lobe = length(half - 0.25, height - 0.75) - 2**0.5 / 4
    on_axis = np.maximum(half + height, 0) / 2
    edge = np.minimum(length(half, height - 1), length(half - on_axis, height - on_axis))
    distance: Plane = np.where(half + height > 1, lobe, edge * np.sign(half - height)) / 0.64
    return distance


def _polygon(*corners: tuple[float, float]) -> SignedDistance:
    """The signed distance from a closed polygon."""

    def signed_distance(x: Plane, y: Plane) -> Plane:
        nearest = np.full_like(x, np.inf)
        sign = np.ones_like(x)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            edge_x, edge_y, from_x, from_y = x1 - x0, y1 - y0, x - x0, y - y0
            # The nearest point on the edge, as a fraction of the edge.
            t = (from_x * edge_x + from_y * edge_y) / (edge_x**2 + edge_y**2)
            t = np.clip(t, 0, 1)
            nearest = np.minimum(nearest, length(from_x - t * edge_x, from_y - t * edge_y))
            # A point is inside if a ray to the right crosses the edges an odd number of times.
            spans = (y >= y0) != (y >= y1)
            left_of_edge = (edge_x * from_y > edge_y * from_x) == (edge_y > 0)
            sign = np.where(spans & left_of_edge, -sign, sign)
        distance: Plane = sign * nearest
        return distance

    return signed_distance


def _spokes(*radii: float) -> tuple[tuple[float, float], ...]:
    """Corners at equal angles around the center, clockwise from the top."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    pairs = zip(radii, angles, strict=True)
    return tuple(
        (radius * float(np.sin(angle)), -radius * float(np.cos(angle))) for radius, angle in pairs
    )


def _mirrored(*right: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """The corners of the right half, from top to bottom, and their mirror images on the left."""
    return right + tuple((-x, y) for x, y in reversed(right))


_SIGNED_DISTANCES: Final[dict[str, SignedDistance]] = {
    "disc": lambda x, y: length(x, y) - 0.9,
    "ring": lambda x, y: np.abs(length(x, y) - 0.72) - 0.2,
    "crescent": _crescent,
    "heart": _heart,
    "square": _polygon(*_mirrored((0.7, -0.7), (0.7, 0.7))),
    "triangle": _polygon(*_spokes(1.0, 1.0, 1.0)),
    "star": _polygon(*_spokes(*(1.0, 0.4) * 5)),
    "cross": _polygon(
        *_mirrored(
            *((0.25, -0.95), (0.25, -0.25), (0.95, -0.25)),
            *((0.95, 0.25), (0.25, 0.25), (0.25, 0.95)),
        )
    ),
    "arrow": _polygon(*_mirrored((0.02, -1.0), (0.75, -0.1), (0.28, -0.1), (0.28, 0.92))),
    "hourglass": _polygon(*_mirrored((0.68, -0.73), (0.12, 0.0), (0.68, 0.73))),
}

CLASSES: Final[tuple[str, ...]] = tuple(_SIGNED_DISTANCES)
