"""`shapes`: a labeled image set that noneg draws itself, to check every claim offline.

Each image shows four copies of one of ten silhouettes. Everything else is random and independent of
the class: the position, size and rotation of each copy, colors, textures, clutter, light and noise.
So only the outline tells the class: color does not help, and raw pixels hardly help. There are four
copies so that two crops of an image show the same outline at different positions, sizes and
rotations. A network can learn this without labels. `FACTORS` lists what varies, with units.

All random numbers are the raw 64-bit output of Philox, which NumPy promises never to change. Image
i only depends on (seed, i, size), so a smaller set is the beginning of a larger one. Platforms may
round a sine differently. Then a pixel may differ by one level of 255, but no label and no factor.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Num, UInt8, UInt64

from noneg.errors import NonegError
from noneg.images.silhouettes import (
    CLASSES,
    Column,
    PerImage,
    Plane,
    coverage,
    draw_silhouettes,
    length,
    per_pixel,
    pixel_centers,
    rotate_axes,
)

Image = Float32[np.ndarray, "n 3 side side"]
Pixels = UInt8[np.ndarray, "n 3 side side"]
Factors = dict[str, Num[np.ndarray, " n"]]

TEXTURES: Final = ("plain", "gradient", "stripes", "checks", "dots")


class Factor(NamedTuple):
    """What an entry of `Shapes.factors` means.

    Integers are uniform in low, ..., high; real numbers are uniform in [low, high].
    """

    low: float
    high: float
    unit: str
    integer: bool = False


# The centers of the four quarters of the image, one for each copy: image sides right of the image's
# center, and below it.
_QUARTER_CENTERS: Final = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
# Copies may touch, and a tip may be outside the image, but the outline stays recognizable.
_MAX_SHIFT: Final = 0.1


def _copy(number: int) -> dict[str, Factor]:
    low, high = -_MAX_SHIFT, _MAX_SHIFT
    x, y = _QUARTER_CENTERS[number - 1]
    return {
        f"size_{number}": Factor(0.34, 0.5, "image sides; diameter of the circle around a copy"),
        f"position_x_{number}": Factor(x + low, x + high, "image sides right of the center"),
        f"position_y_{number}": Factor(y + low, y + high, "image sides below the center"),
        f"rotation_{number}": Factor(0, 360, "degrees clockwise"),
    }


def _surface(name: str) -> dict[str, Factor]:
    return {
        f"{name}_hue": Factor(0, 360, "degrees around the gray axis"),
        f"{name}_saturation": Factor(0.1, 0.9, "fraction of the maximum at this luminance"),
        f"{name}_texture": Factor(0, len(TEXTURES) - 1, "index into TEXTURES", integer=True),
        f"{name}_period": Factor(0.2, 0.5, "image sides; stripes, checks, dots"),
        f"{name}_angle": Factor(0, 360, "degrees; direction of the texture"),
        f"{name}_phase": Factor(0, 1, "periods"),
        f"{name}_depth": Factor(0, 0.2, "amplitude of the texture; fraction of half the contrast"),
        f"{name}_hue_shift": Factor(-30, 30, "degrees from the first color to the second"),
    }


FACTORS: Final[dict[str, Factor]] = {
    **_copy(1),
    **_copy(2),
    **_copy(3),
    **_copy(4),
    "lighter": Factor(0, 1, "1 if the silhouettes are lighter than the background", integer=True),
    "luminance": Factor(0.45, 0.55, "midway between foreground and background; white is 1"),
    "contrast": Factor(0.4, 0.6, "difference in luminance between foreground and background"),
    **_surface("foreground"),
    **_surface("background"),
    "clutter_behind": Factor(0, 1, "strokes behind the silhouettes", integer=True),
    "clutter_over": Factor(0, 1, "strokes over the silhouettes", integer=True),
    "light_direction": Factor(0, 360, "degrees; direction in which the image gets lighter"),
    "light_strength": Factor(0, 0.35, "gain at the image's edge, minus one"),
    "noise": Factor(0, 0.05, "standard deviation; white is 1"),
}

_STROKES_BEHIND: Final = int(FACTORS["clutter_behind"].high)
_STROKES_OVER: Final = int(FACTORS["clutter_over"].high)
_STROKES: Final = _STROKES_BEHIND + _STROKES_OVER
_NUMBERS_PER_STROKE: Final = 8
_LUMINANCE_WEIGHTS: Final = np.array([0.299, 0.587, 0.114])
# The second word of Philox's key, so that the three uses of a seed have independent numbers.
_LABEL_STREAM, _FACTOR_STREAM, _NOISE_STREAM = range(3)


@dataclass(frozen=True)
class Shapes:
    """Drawn images with their classes and all factors.

    Attributes:
        pixels: uint8 [N, 3, S, S], red, green, blue.
        labels: int64 [N], index into `CLASSES`; the counts of any two classes differ by at most 1.
        factors: for each name in `FACTORS`, an array [N] (int64 if `integer`, else float64).
    """

    pixels: UInt8[np.ndarray, "N 3 S S"]
    labels: Int64[np.ndarray, " N"]
    factors: dict[str, Num[np.ndarray, " N"]]


def draw_shapes(count: int, seed: int, size: int = 32) -> Shapes:
    """Draw `count` images of `size` x `size` pixels; the same arguments give the same images.

    The labels come in groups of ten, each a permutation of all classes. The factors do not depend
    on `size`: another size shows the same scenes, with different noise.

    Args:
        count: number of images, at least 1.
        seed: 0 to 2**64 - 1; seeds are independent, so two seeds give a training and a test set.
        size: the image side in pixels, at least 8.

    Raises:
        NonegError: an argument is out of its range.
    """
    if count < 1:
        raise NonegError(f"shapes: {count} images were asked for; ask for at least 1.")
    if size < 8:
        raise NonegError(f"shapes: an image side of {size} pixels is too small; give at least 8.")
    if not 0 <= seed < 2**64:
        raise NonegError(f"shapes: the seed {seed} is not between 0 and 2**64 - 1.")
    labels = _balanced_labels(count, seed)
    numbers = _uniform(seed, _FACTOR_STREAM, count, len(FACTORS) + _STROKES * _NUMBERS_PER_STROKE)
    factors = _scale_factors(numbers[:, : len(FACTORS)])
    strokes = numbers[:, len(FACTORS) :].reshape(count, _STROKES, _NUMBERS_PER_STROKE)
    noise_stream = _stream(seed, _NOISE_STREAM)
    pixels = np.empty((count, 3, size, size), dtype=np.uint8)
    # About 1 MB per color plane: small enough for the cache, large enough to hide the overhead of
    # Python.
    at_once = max(1, 2**17 // size**2)
    for start in range(0, count, at_once):
        rows = slice(start, start + at_once)
        scene = {name: values[rows] for name, values in factors.items()}
        pixels[rows] = _draw(labels[rows], scene, strokes[rows], noise_stream, size)
    return Shapes(pixels, labels, factors)


def _draw(
    labels: Int64[np.ndarray, " n"],
    scene: Factors,
    strokes: Float64[np.ndarray, "n strokes numbers"],
    noise_stream: np.random.Philox,
    size: int,
) -> Pixels:
    """Draw from back to front: background, strokes, silhouettes, strokes, light, noise."""
    image = _surface_colors("background", scene, size)
    for index in range(_STROKES_BEHIND):
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
        for number in range(1, len(_QUARTER_CENTERS) + 1)
    ]
    covered: Plane = np.maximum.reduce(copies)
    image += covered[:, None] * (_surface_colors("foreground", scene, size) - image)
    for index in range(_STROKES_OVER):
        _paint_stroke(image, strokes[:, _STROKES_BEHIND + index], scene["clutter_over"] > index)
    along, _ = rotate_axes(*pixel_centers(size), scene["light_direction"])
    image *= (1 + per_pixel(2 * scene["light_strength"]) * along)[:, None]
    image += per_pixel(scene["noise"])[:, None] * _standard_noise(noise_stream, len(labels), size)
    rounded: Pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return rounded


def _surface_colors(surface: str, scene: Factors, size: int) -> Image:
    """The whole image covered with the texture of one surface.

    The amplitudes of the textures are fractions below 1 of half the contrast. So, before clutter
    and light, the foreground is everywhere lighter (or everywhere darker) than the background, also
    in grayscale.
    """
    names = ("hue", "saturation", "texture", "period", "angle", "phase", "depth", "hue_shift")
    hue, saturation, texture, period, angle, phase, depth, hue_shift = (
        scene[f"{surface}_{name}"] for name in names
    )
    lighter = (scene["lighter"] == 1) == (surface == "foreground")
    offset = np.where(lighter, 0.5, -0.5) * scene["contrast"]
    # A plain surface only shows the first color, which must then be the middle one.
    amplitude = np.where(texture == TEXTURES.index("plain"), 0, offset * depth)
    first = _color(scene["luminance"] + offset - amplitude, hue, saturation)
    second = _color(scene["luminance"] + offset + amplitude, hue + hue_shift, saturation)
    along, across = rotate_axes(*pixel_centers(size), angle)
    share = np.empty_like(along)
    for index, name in enumerate(TEXTURES):
        rows = np.flatnonzero(texture == index)
        columns = per_pixel(period[rows]), per_pixel(phase[rows])
        share[rows] = _texture(name, along[rows], across[rows], *columns)
    colors: Image = first[:, :, None, None] + share[:, None] * (second - first)[:, :, None, None]
    return colors


def _texture(name: str, along: Plane, across: Plane, period: Column, phase: Column) -> Plane:
    """The share of the second color in each pixel, in [0, 1]."""
    if name == "plain":
        return np.zeros_like(along)
    if name == "gradient":
        # 0 and 1 are reached at the image's corners, half a diagonal from the center.
        gradient: Plane = np.clip(along * 0.5**0.5 + 0.5, 0, 1)
        return gradient
    u, v = along / period + phase, across / period + phase
    # Distances from the middle of a period, so that edges are antialiased over one pixel.
    u, v = np.abs(u - np.floor(u) - 0.5), np.abs(v - np.floor(v) - 0.5)
    if name == "dots":
        return coverage((length(u, v) - 0.33) * period)
    stripes = coverage((u - 0.25) * period)
    if name == "stripes":
        return stripes
    crossing = coverage((v - 0.25) * period)
    checks: Plane = stripes + crossing - 2 * stripes * crossing
    return checks


def _paint_stroke(
    image: Image, numbers: Float64[np.ndarray, "n numbers"], present: Bool[np.ndarray, " n"]
) -> None:
    """Paint one stroke (anything from a dot to a line) into the images in which it is present."""
    rows = np.flatnonzero(present)
    center_x, center_y, angle, stroke_length, width, luminance, hue, saturation = numbers[rows].T
    x, y = pixel_centers(image.shape[-1])
    x, y = x - per_pixel(center_x - 0.5), y - per_pixel(center_y - 0.5)
    x, y = rotate_axes(x, y, 360 * angle)
    beyond_end = np.maximum(np.abs(x) - per_pixel(0.15 * stroke_length), 0)
    covered = coverage(length(beyond_end, y) - per_pixel(0.015 + 0.03 * width))
    color = _color(0.1 + 0.8 * luminance, 360 * hue, saturation)
    image[rows] += covered[:, None] * (color[:, :, None, None] - image[rows])


def _color(luminance: PerImage, hue: PerImage, saturation: PerImage) -> Float32[np.ndarray, "n 3"]:
    """Red, green and blue with exactly this luminance, always in [0, 1]."""
    direction = np.cos(np.deg2rad(hue[:, None] - np.array([0, 120, 240])))
    direction -= (direction @ _LUMINANCE_WEIGHTS)[:, None]
    gray = luminance[:, None]
    room = np.where(direction > 0, 1 - gray, gray) / np.maximum(np.abs(direction), 1e-9)
    chroma = saturation[:, None] * room.min(axis=1, keepdims=True) * direction
    color: Float32[np.ndarray, "n 3"] = (gray + chroma).astype(np.float32)
    return color


def _stream(seed: int, use: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, use], dtype=np.uint64))


def _uniform(seed: int, use: int, rows: int, columns: int) -> Float64[np.ndarray, "rows columns"]:
    """Uniform numbers in [0, 1), with 53 random bits each."""
    raw: UInt64[np.ndarray, " n"] = _stream(seed, use).random_raw(rows * columns)
    uniform: Float64[np.ndarray, " n"] = (raw >> np.uint64(11)) * 2.0**-53
    return uniform.reshape(rows, columns)


def _balanced_labels(count: int, seed: int) -> Int64[np.ndarray, " N"]:
    groups = -(-count // len(CLASSES))
    numbers = _uniform(seed, _LABEL_STREAM, groups, len(CLASSES))
    return numbers.argsort(axis=1, kind="stable").ravel()[:count].astype(np.int64)


def _scale_factors(
    numbers: Float64[np.ndarray, "N factors"],
) -> dict[str, Num[np.ndarray, " N"]]:
    """From uniform numbers in [0, 1) to the range of each factor."""
    factors: dict[str, Num[np.ndarray, " N"]] = {}
    for (name, factor), number in zip(FACTORS.items(), numbers.T, strict=True):
        if factor.integer:
            levels = factor.high - factor.low + 1
            factors[name] = np.floor(factor.low + number * levels).astype(np.int64)
        else:
            factors[name] = factor.low + number * (factor.high - factor.low)
    return factors


def _standard_noise(stream: np.random.Philox, count: int, size: int) -> Image:
    """Mean 0 and standard deviation 1: sums of four random bytes, approximately normal.

    Each image uses whole raw numbers, so that its noise does not depend on how many images are
    drawn at once.
    """
    values = 3 * size**2
    raw_per_image = -(-values // 2)
    raw: UInt64[np.ndarray, " n"] = stream.random_raw(count * raw_per_image)
    octets = raw.astype("<u8").view(np.uint8).reshape(count, -1, 4)[:, :values]
    total = octets[..., 0].astype(np.float32)
    for index in range(1, 4):
        total += octets[..., index]
    standard_deviation = ((256**2 - 1) / 3) ** 0.5
    noise: Image = ((total - 4 * 127.5) / standard_deviation).reshape(count, 3, size, size)
    return noise
