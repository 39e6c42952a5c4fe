"""`shapes`: a labeled image set that noneg draws itself, so that every claim can be tried offline.

Each image shows four copies of one of ten silhouettes. Everything else (each copy's place, size and
rotation; colors, textures, clutter, light, noise) is drawn independently of the class, so only the
outline tells the class: color is never needed, and raw pixels hardly help. Four copies, because
then two crops of an image share their outlines while places, sizes and rotations differ, which is
what a network without labels can find out. `FACTORS` lists what varies, with units.

All randomness is Philox's raw 64-bit output, whose stream NumPy promises never to change. Image i
depends on (seed, i, size) alone: a smaller set is the beginning of a larger one. Where a platform
rounds a sine differently, a pixel may differ by one level of 255; labels and factors do not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Num, UInt8, UInt64

from noneg.errors import NonegError

Plane = Float32[np.ndarray, "n side side"]
Image = Float32[np.ndarray, "n 3 side side"]
Column = Float32[np.ndarray, "n 1 1"]
PerImage = Num[np.ndarray, " n"]
Pixels = UInt8[np.ndarray, "n 3 side side"]
Scene = dict[str, Num[np.ndarray, " n"]]

TEXTURES: Final = ("plain", "gradient", "stripes", "checks", "dots")


class Factor(NamedTuple):
    """What an entry of `Shapes.factors` means; integers lie in low..high, floats in [low, high]."""

    low: float
    high: float
    unit: str
    whole: bool = False


# The middles of the quarters of the image, a copy in each: right of and below the image's center.
_MIDDLES: Final = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
# Copies may touch, and a tip may leave the image, but never a telling part of the outline.
_LARGEST_SHIFT: Final = 0.1


def _copy(number: int, x: float, y: float) -> dict[str, Factor]:
    low, high = -_LARGEST_SHIFT, _LARGEST_SHIFT
    return {
        f"size_{number}": Factor(0.34, 0.5, "image sides; diameter of the circle around a copy"),
        f"position_x_{number}": Factor(x + low, x + high, "image sides right of the center"),
        f"position_y_{number}": Factor(y + low, y + high, "image sides below the center"),
        f"rotation_{number}": Factor(0, 360, "degrees clockwise"),
    }


def _surface(name: str) -> dict[str, Factor]:
    return {
        f"{name}_hue": Factor(0, 360, "degrees about the gray axis"),
        f"{name}_saturation": Factor(0.1, 0.9, "of what the luminance allows"),
        f"{name}_texture": Factor(0, len(TEXTURES) - 1, "index into TEXTURES", whole=True),
        f"{name}_period": Factor(0.2, 0.5, "image sides; stripes, checks, dots"),
        f"{name}_angle": Factor(0, 360, "degrees; the texture's direction"),
        f"{name}_phase": Factor(0, 1, "periods"),
        f"{name}_depth": Factor(0, 0.2, "the texture's swing, of half the contrast"),
        f"{name}_hue_shift": Factor(-30, 30, "degrees from the first color to the second"),
    }


FACTORS: Final[dict[str, Factor]] = {
    **_copy(1, *_MIDDLES[0]),
    **_copy(2, *_MIDDLES[1]),
    **_copy(3, *_MIDDLES[2]),
    **_copy(4, *_MIDDLES[3]),
    "lighter": Factor(0, 1, "1 where the silhouette is lighter than what is behind it", whole=True),
    "luminance": Factor(0.45, 0.55, "midway between foreground and background; white is 1"),
    "contrast": Factor(0.4, 0.6, "luminance between foreground and background"),
    **_surface("foreground"),
    **_surface("background"),
    "clutter_behind": Factor(0, 1, "strokes behind the silhouettes", whole=True),
    "clutter_over": Factor(0, 1, "strokes over the silhouettes", whole=True),
    "light_direction": Factor(0, 360, "degrees; where the image gets lighter"),
    "light_strength": Factor(0, 0.35, "gain at the image's edge, less one"),
    "noise": Factor(0, 0.05, "standard deviation; white is 1"),
}

_STROKE_DRAWS: Final = 8
_STROKES: Final = int(FACTORS["clutter_behind"].high + FACTORS["clutter_over"].high)
_LUMINANCE_WEIGHTS: Final = np.array([0.299, 0.587, 0.114])
# Philox's second key word, so that the three uses of one seed never share a number.
_LABEL_STREAM, _FACTOR_STREAM, _NOISE_STREAM = range(3)


@dataclass(frozen=True)
class Shapes:
    """Drawn images with their classes and everything that was drawn.

    Attributes:
        pixels: uint8 [N, 3, S, S], red, green, blue.
        labels: int64 [N], index into `CLASSES`; the counts of any two classes differ by at most 1.
        factors: for each name in `FACTORS`, an array [N] (int64 where `whole`, else float64).
    """

    pixels: UInt8[np.ndarray, "N 3 S S"]
    labels: Int64[np.ndarray, " N"]
    factors: dict[str, Num[np.ndarray, " N"]]


def draw_shapes(count: int, seed: int, size: int = 32) -> Shapes:
    """Draw `count` images of `size` x `size` pixels; the same arguments give the same images.

    The labels come in blocks of ten, each a shuffle of all classes. The factors do not depend on
    `size`: at another size one sees the same scenes, with other noise.

    Args:
        count: how many images, at least 1.
        seed: 0 to 2**64 - 1; seeds are independent, so two of them make a training and a test set.
        size: the image side in pixels, at least 8.

    Raises:
        NonegError: an argument is out of its range.
    """
    if count < 1:
        raise NonegError(f"shapes: asked for {count} images; ask for at least 1.")
    if size < 8:
        raise NonegError(f"shapes: an image side of {size} pixels is too small; take at least 8.")
    if not 0 <= seed < 2**64:
        raise NonegError(f"shapes: the seed {seed} does not lie between 0 and 2**64 - 1.")
    labels = _balanced_labels(count, seed)
    draws = _uniform(seed, _FACTOR_STREAM, count, len(FACTORS) + _STROKES * _STROKE_DRAWS)
    factors = _factors(draws[:, : len(FACTORS)])
    strokes = draws[:, len(FACTORS) :].reshape(count, _STROKES, _STROKE_DRAWS)
    noise_stream = _stream(seed, _NOISE_STREAM)
    pixels = np.empty((count, 3, size, size), dtype=np.uint8)
    # About 1 MB a color plane: small enough for the cache, large enough to hide Python's overhead.
    chunk = max(1, 2**17 // size**2)
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        scene = {name: values[rows] for name, values in factors.items()}
        pixels[rows] = _draw(labels[rows], scene, strokes[rows], noise_stream, size)
    return Shapes(pixels, labels, factors)


def draw_silhouettes(
    labels: Int64[np.ndarray, " n"],
    position_x: PerImage,
    position_y: PerImage,
    diameter: PerImage,
    rotation: PerImage,
    size: int,
) -> Plane:
    """How much of each pixel the silhouette covers, in [0, 1]: float32 [n, size, size].

    Args:
        labels: index into `CLASSES`.
        position_x: image sides right of the center.
        position_y: image sides below the center.
        diameter: of the circle around the silhouette, in image sides.
        rotation: degrees clockwise.
        size: the image side in pixels.
    """
    x, y = _grid(size)
    x, y = x - _column(position_x), y - _column(position_y)
    x, y = _turned(x, y, rotation)
    x, y = x * _column(2 / diameter), y * _column(2 / diameter)
    distance = np.empty_like(x)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        distance[rows] = _SILHOUETTES[CLASSES[label]](x[rows], y[rows])
    return _coverage(distance * _column(diameter / 2))


def _draw(
    labels: Int64[np.ndarray, " n"],
    scene: Scene,
    strokes: Float64[np.ndarray, "n strokes draws"],
    noise_stream: np.random.Philox,
    size: int,
) -> Pixels:
    image = _painted("background", scene, size)
    behind = int(FACTORS["clutter_behind"].high)
    for index in range(behind):
        _paint_stroke(image, strokes[:, index], scene["clutter_behind"] > index)
    copies = [
        draw_silhouettes(
            labels,
            scene[f"position_x_{number}"],
            scene[f"position_y_{number}"],
            scene[f"size_{number}"],
            scene[f"rotation_{number}"],
            size,
        )
        for number in range(1, len(_MIDDLES) + 1)
    ]
    silhouette: Plane = np.maximum.reduce(copies)
    image += silhouette[:, None] * (_painted("foreground", scene, size) - image)
    for index in range(behind, _STROKES):
        _paint_stroke(image, strokes[:, index], scene["clutter_over"] > index - behind)
    along, _ = _turned(*_grid(size), scene["light_direction"])
    image *= (1 + _column(2 * scene["light_strength"]) * along)[:, None]
    image += _column(scene["noise"])[:, None] * _bell_noise(noise_stream, len(labels), size)
    rounded: Pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return rounded


def _painted(surface: str, scene: Scene, size: int) -> Image:
    """The whole image covered with one surface's texture.

    The textures' swings are fractions below 1 of half the contrast, so the foreground is everywhere
    lighter (or everywhere darker) than the background, in grayscale too, before clutter and light.
    """
    names = ("hue", "saturation", "texture", "period", "angle", "phase", "depth", "hue_shift")
    hue, saturation, kind, period, angle, phase, depth, hue_shift = (
        scene[f"{surface}_{name}"] for name in names
    )
    lighter = (scene["lighter"] == 1) == (surface == "foreground")
    half = np.where(lighter, 0.5, -0.5) * scene["contrast"]
    # A plain surface shows only its first color, which must then lie in the middle.
    swing = np.where(kind == TEXTURES.index("plain"), 0, half * depth)
    first = _color(scene["luminance"] + half - swing, hue, saturation)
    second = _color(scene["luminance"] + half + swing, hue + hue_shift, saturation)
    along, across = _turned(*_grid(size), angle)
    share = np.empty_like(along)
    for index, name in enumerate(TEXTURES):
        rows = np.flatnonzero(kind == index)
        columns = _column(period[rows]), _column(phase[rows])
        share[rows] = _texture(name, along[rows], across[rows], *columns)
    colors: Image = first[:, :, None, None] + share[:, None] * (second - first)[:, :, None, None]
    return colors


def _texture(name: str, along: Plane, across: Plane, period: Column, phase: Column) -> Plane:
    """The second color's share at each pixel, in [0, 1]."""
    if name == "plain":
        return np.zeros_like(along)
    if name == "gradient":
        # The image's corners, half a diagonal from its center, get 0 and 1.
        gradient: Plane = np.clip(along * 0.5**0.5 + 0.5, 0, 1)
        return gradient
    u, v = along / period + phase, across / period + phase
    # Distances from the middle of a period, so that edges get one pixel of ramp.
    u, v = np.abs(u - np.floor(u) - 0.5), np.abs(v - np.floor(v) - 0.5)
    if name == "dots":
        return _coverage((_length(u, v) - 0.33) * period)
    stripe, crossing = _coverage((u - 0.25) * period), _coverage((v - 0.25) * period)
    either: Plane = stripe + crossing - 2 * stripe * crossing
    return stripe if name == "stripes" else either


def _paint_stroke(
    image: Image, draws: Float64[np.ndarray, "n draws"], present: Bool[np.ndarray, " n"]
) -> None:
    """Paint one distractor (from a dot to a line) into the images in which it is present."""
    rows = np.flatnonzero(present)
    center_x, center_y, angle, length, width, luminance, hue, saturation = draws[rows].T
    x, y = _grid(image.shape[-1])
    x, y = _turned(x - _column(center_x - 0.5), y - _column(center_y - 0.5), 360 * angle)
    beyond = np.maximum(np.abs(x) - _column(0.15 * length), 0)
    cover = _coverage(_length(beyond, y) - _column(0.015 + 0.03 * width))
    color = _color(0.1 + 0.8 * luminance, 360 * hue, saturation)
    image[rows] += cover[:, None] * (color[:, :, None, None] - image[rows])


def _color(luminance: PerImage, hue: PerImage, saturation: PerImage) -> Float32[np.ndarray, "n 3"]:
    """Red, green and blue of exactly this luminance, never outside [0, 1]."""
    direction = np.cos(np.deg2rad(hue[:, None] - np.array([0, 120, 240])))
    direction -= (direction @ _LUMINANCE_WEIGHTS)[:, None]
    gray = luminance[:, None]
    room = np.where(direction > 0, 1 - gray, gray) / np.maximum(np.abs(direction), 1e-9)
    chroma = saturation[:, None] * room.min(axis=1, keepdims=True) * direction
    color: Float32[np.ndarray, "n 3"] = (gray + chroma).astype(np.float32)
    return color


def _grid(size: int) -> tuple[Plane, Plane]:
    """The pixels' centers, in image sides from the image's center: x to the right, y downwards."""
    line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return x[None], y[None]


def _column(values: PerImage) -> Column:
    column: Column = values.astype(np.float32)[:, None, None]
    return column


def _turned(
    x: Float32[np.ndarray, "_ side side"], y: Float32[np.ndarray, "_ side side"], degrees: PerImage
) -> tuple[Plane, Plane]:
    """The coordinates along and across axes turned clockwise (y points downwards)."""
    cosine, sine = _column(np.cos(np.deg2rad(degrees))), _column(np.sin(np.deg2rad(degrees)))
    return x * cosine + y * sine, y * cosine - x * sine


def _coverage(distance: Plane) -> Plane:
    """Antialiasing: from 1 to 0 across the one pixel around distance 0 (in image sides)."""
    coverage: Plane = np.clip(0.5 - distance * distance.shape[-1], 0, 1)
    return coverage


def _length(x: Plane, y: Plane) -> Plane:
    length: Plane = np.sqrt(x**2 + y**2)
    return length


def _stream(seed: int, use: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, use], dtype=np.uint64))


def _uniform(seed: int, use: int, rows: int, columns: int) -> Float64[np.ndarray, "rows columns"]:
    """Uniform in [0, 1), 53 bits each."""
    raw: UInt64[np.ndarray, " n"] = _stream(seed, use).random_raw(rows * columns)
    uniform: Float64[np.ndarray, " n"] = (raw >> np.uint64(11)) * 2.0**-53
    return uniform.reshape(rows, columns)


def _balanced_labels(count: int, seed: int) -> Int64[np.ndarray, " N"]:
    blocks = -(-count // len(CLASSES))
    draws = _uniform(seed, _LABEL_STREAM, blocks, len(CLASSES))
    return draws.argsort(axis=1, kind="stable").ravel()[:count].astype(np.int64)


def _factors(draws: Float64[np.ndarray, "N factors"]) -> dict[str, Num[np.ndarray, " N"]]:
    factors: dict[str, Num[np.ndarray, " N"]] = {}
    for (name, factor), draw in zip(FACTORS.items(), draws.T, strict=True):
        if factor.whole:
            levels = factor.high - factor.low + 1
            factors[name] = np.floor(factor.low + draw * levels).astype(np.int64)
        else:
            factors[name] = factor.low + draw * (factor.high - factor.low)
    return factors


def _bell_noise(stream: np.random.Philox, count: int, size: int) -> Image:
    """Mean 0, standard deviation 1: sums of four random bytes, near enough to a normal law.

    Whole raw numbers for each image keep the noise independent of how images fall into chunks.
    """
    values = 3 * size**2
    raw_per_image = -(-values // 2)
    raw: UInt64[np.ndarray, " n"] = stream.random_raw(count * raw_per_image)
    octets = raw.astype("<u8").view(np.uint8).reshape(count, -1, 4)[:, :values]
    total = octets[..., 0].astype(np.float32)
    for index in range(1, 4):
        total += octets[..., index]
    spread = ((256**2 - 1) / 3) ** 0.5
    noise: Image = ((total - 4 * 127.5) / spread).reshape(count, 3, size, size)
    return noise


# The silhouettes: signed distances (negative inside) in units of the radius of the circle around
# them, before rotation. x points to the right, y downwards.


def _crescent(x: Plane, y: Plane) -> Plane:
    signed: Plane = np.maximum(_length(x, y) - 1, 0.8 - _length(x - 0.5, y))
    return signed


def _heart(x: Plane, y: Plane) -> Plane:
    # Half a heart is half a square standing on its corner, with half a disc on its upper side.
    half, height = np.abs(x) * 0.64, 0.63 - y * 0.64
    lobe = _length(half - 0.25, height - 0.75) - 2**0.5 / 4
    on_axis = np.maximum(half + height, 0) / 2
    edge = np.minimum(_length(half, height - 1), _length(half - on_axis, height - on_axis))
    signed: Plane = np.where(half + height > 1, lobe, edge * np.sign(half - height)) / 0.64
    return signed


def _polygon(*corners: tuple[float, float]) -> Callable[[Plane, Plane], Plane]:
    """The signed distance from a closed outline."""

    def distance(x: Plane, y: Plane) -> Plane:
        nearest = np.full_like(x, np.inf)
        outside = np.ones_like(x)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            edge_x, edge_y, from_x, from_y = x1 - x0, y1 - y0, x - x0, y - y0
            share = (from_x * edge_x + from_y * edge_y) / (edge_x**2 + edge_y**2)
            share = np.clip(share, 0, 1)
            nearest = np.minimum(nearest, _length(from_x - share * edge_x, from_y - share * edge_y))
            # A point is inside where a ray to the right crosses the outline an odd number of times.
            spans = (y >= y0) != (y >= y1)
            left_of_edge = (edge_x * from_y > edge_y * from_x) == (edge_y > 0)
            outside = np.where(spans & left_of_edge, -outside, outside)
        signed: Plane = outside * nearest
        return signed

    return distance


def _spokes(*radii: float) -> tuple[tuple[float, float], ...]:
    """Corners at equal angles round the center, clockwise from the top."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    pairs = zip(radii, angles, strict=True)
    return tuple(
        (radius * float(np.sin(angle)), -radius * float(np.cos(angle))) for radius, angle in pairs
    )


def _mirrored(*right: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """The right half of an outline, from top to bottom, and its mirror image on the left."""
    return right + tuple((-x, y) for x, y in reversed(right))


_SILHOUETTES: Final[dict[str, Callable[[Plane, Plane], Plane]]] = {
    "disc": lambda x, y: _length(x, y) - 0.9,
    "ring": lambda x, y: np.abs(_length(x, y) - 0.72) - 0.2,
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

CLASSES: Final[tuple[str, ...]] = tuple(_SILHOUETTES)
