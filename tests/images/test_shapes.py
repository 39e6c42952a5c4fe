"""`shapes`: reproducible images, balanced and independent factors, hard for raw pixels."""

import hashlib
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from noneg.errors import NonegError
from noneg.images.shapes import FACTORS, TEXTURES, Shapes, draw_shapes
from noneg.images.silhouettes import CLASSES, draw_silhouettes

Array = np.ndarray


@pytest.fixture(scope="module")
def many() -> Shapes:
    return draw_shapes(5_000, seed=0)


def silhouettes(
    labels: Array,
    position: tuple[float, float] = (0.0, 0.0),
    diameter: float = 0.7,
    rotation: float = 0.0,
    size: int = 32,
) -> Array:
    def each(value: float) -> Array:
        return np.full(len(labels), value)

    return draw_silhouettes(
        labels, each(position[0]), each(position[1]), each(diameter), each(rotation), size
    )


def drawn_masks(shapes: Shapes) -> Array:
    """The fraction of each pixel that the four copies cover."""
    names = ("position_x", "position_y", "size", "rotation")
    copies = [
        draw_silhouettes(shapes.labels, *(shapes.factors[f"{name}_{number}"] for name in names), 32)
        for number in (1, 2, 3, 4)
    ]
    return np.maximum.reduce(copies)


ALL_CLASSES = np.arange(len(CLASSES))


def center_of_mass(masks: Array) -> Array:
    """In image sides from the center: [n, 2], x then y."""
    line = (np.arange(masks.shape[-1]) + 0.5) / masks.shape[-1] - 0.5
    weights = masks / masks.sum(axis=(1, 2), keepdims=True)
    return np.stack(
        [(weights.sum(axis=1) * line).sum(axis=1), (weights.sum(axis=2) * line).sum(axis=1)], axis=1
    )


def test_the_same_seed_gives_the_same_images() -> None:
    first, second = draw_shapes(300, seed=7), draw_shapes(300, seed=7)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.labels, second.labels)
    for name in FACTORS:
        np.testing.assert_array_equal(first.factors[name], second.factors[name])


def test_labels_and_factors_never_change_so_published_figures_stay_comparable() -> None:
    drawn = draw_shapes(50, seed=3)
    digest = hashlib.sha256(drawn.labels.astype("<i8").tobytes())
    for values in drawn.factors.values():
        digest.update(np.round(values * 1e6).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "4b888a32d53306f8"


def test_numpys_global_state_is_neither_read_nor_changed() -> None:
    np.random.seed(0)  # noqa: NPY002
    first = draw_shapes(10, seed=1)
    after = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert np.random.random() == after  # noqa: NPY002
    np.testing.assert_array_equal(draw_shapes(10, seed=1).pixels, first.pixels)


def test_different_seeds_give_different_images() -> None:
    sets = [draw_shapes(50, seed) for seed in (0, 1, 2**64 - 1)]
    for one, other in combinations(sets, 2):
        assert not np.array_equal(one.labels, other.labels)
        # Every image of one set differs clearly from every image of the other set.
        difference = one.pixels[:, None].astype(int) - other.pixels[None].astype(int)
        assert np.abs(difference).mean(axis=(2, 3, 4)).min() > 10


@pytest.mark.parametrize("count", [1, 13, 200])
def test_a_smaller_set_is_the_beginning_of_a_larger_one(many: Shapes, count: int) -> None:
    few = draw_shapes(count, seed=0)
    np.testing.assert_array_equal(few.labels, many.labels[:count])
    np.testing.assert_array_equal(few.pixels, many.pixels[:count])
    for name in FACTORS:
        np.testing.assert_array_equal(few.factors[name], many.factors[name][:count])


@pytest.mark.parametrize("count", [1, 7, 10, 123, 1_000])
def test_classes_are_balanced(count: int) -> None:
    counts = np.bincount(draw_shapes(count, seed=5).labels, minlength=len(CLASSES))
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1


def test_labels_are_shuffled(many: Shapes) -> None:
    places = np.arange(len(many.labels)) % len(CLASSES)
    table = np.histogram2d(places, many.labels, bins=len(CLASSES))[0]
    assert chi_square_z(table) < 4


def test_factors_keep_their_documented_ranges(many: Shapes) -> None:
    assert set(many.factors) == set(FACTORS)
    for name, factor in FACTORS.items():
        values = many.factors[name]
        assert values.shape == (5_000,), name
        assert factor.low <= values.min(), name
        assert values.max() <= factor.high, name
        if factor.integer:
            assert values.dtype == np.int64, name
            assert set(values) == set(range(int(factor.low), int(factor.high) + 1)), name
        else:
            # A uniform factor: all ten bins have similar counts.
            counts = np.histogram(values, bins=10, range=(factor.low, factor.high))[0]
            assert chi_square_z(counts[None]) < 5, name


def chi_square_z(table: Array) -> float:
    """How many standard deviations the chi-square statistic lies above its mean.

    One row is compared with equal counts, several rows with independence of rows and columns.
    """
    rows, columns = table.shape
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    freedom = (rows - 1) * (columns - 1)
    if rows == 1:
        expected, freedom = np.full(table.shape, table.mean()), columns - 1
    statistic = ((table - expected) ** 2 / expected).sum()
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def test_no_factor_depends_on_the_class(many: Shapes) -> None:
    for name, values in many.factors.items():
        bins = len(set(values)) if FACTORS[name].integer else 8
        assert chi_square_z(np.histogram2d(many.labels, values, bins=(10, bins))[0]) < 5, name


def test_no_factor_depends_on_another(many: Shapes) -> None:
    correlations = np.corrcoef(np.stack(list(many.factors.values())))
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(5_000)


def test_raw_pixels_hardly_help(many: Shapes) -> None:
    pixels = many.pixels.reshape(5_000, -1).astype(np.float32)
    pixels -= pixels[:4_000].mean(axis=0)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    cosines = pixels[4_000:] @ pixels[:4_000].T
    neighbors = np.argpartition(-cosines, 20, axis=1)[:, :20]
    weights = np.exp(np.take_along_axis(cosines, neighbors, axis=1) / 0.07)
    is_class = many.labels[neighbors][..., None] == ALL_CLASSES
    predicted = (weights[..., None] * is_class).sum(axis=1).argmax(axis=1)
    accuracy = (predicted == many.labels[4_000:]).mean()
    assert 0.12 < accuracy < 0.40


def test_any_two_silhouettes_differ_at_all_rotations_and_mirrored() -> None:
    """At every relative rotation, the intersection is less than 0.85 of the union."""
    upright = silhouettes(ALL_CLASSES)
    for degrees in range(0, 360, 15):
        turned = silhouettes(ALL_CLASSES, rotation=degrees)
        for view in (turned, turned[:, :, ::-1]):
            for one, other in combinations(range(len(CLASSES)), 2):
                union = np.maximum(upright[one], view[other]).sum()
                intersection = np.minimum(upright[one], view[other]).sum()
                assert intersection / union < 0.85, (CLASSES[one], CLASSES[other], degrees)


def test_silhouettes_are_filled_antialiased_and_inside_their_circle() -> None:
    masks = silhouettes(ALL_CLASSES, size=64)
    assert masks.min() == 0
    assert masks.max() == 1
    for name, mask in zip(CLASSES, masks, strict=True):
        # The circle has a diameter of 0.7 image sides. The silhouette is not tiny, and not larger.
        assert 0.1 < mask.mean() < np.pi * 0.35**2, name
        assert ((mask > 0) & (mask < 1)).any(), name
    line = (np.arange(64) + 0.5) / 64 - 0.5
    outside = np.hypot(line[:, None], line) > 0.35 + 1 / 64
    assert masks[:, outside].max() == 0


def test_coverage_does_not_depend_on_the_resolution() -> None:
    areas = [silhouettes(ALL_CLASSES, size=size).mean(axis=(1, 2)) for size in (16, 32, 256)]
    np.testing.assert_allclose(areas[0], areas[2], rtol=0.04)
    np.testing.assert_allclose(areas[1], areas[2], rtol=0.015)


def test_position_moves_right_and_down() -> None:
    moved = center_of_mass(silhouettes(ALL_CLASSES, position=(0.1, -0.05), diameter=0.5))
    still = center_of_mass(silhouettes(ALL_CLASSES, diameter=0.5))
    np.testing.assert_allclose(moved - still, np.tile([0.1, -0.05], (10, 1)), atol=2e-3)


def test_size_scales_the_area() -> None:
    small = silhouettes(ALL_CLASSES, diameter=0.4, size=128).sum(axis=(1, 2))
    large = silhouettes(ALL_CLASSES, diameter=0.8, size=128).sum(axis=(1, 2))
    np.testing.assert_allclose(large / small, 4, rtol=0.02)


def test_rotation_turns_clockwise() -> None:
    upright = silhouettes(ALL_CLASSES)
    np.testing.assert_allclose(
        silhouettes(ALL_CLASSES, rotation=90), np.rot90(upright, -1, axes=(1, 2)), atol=1e-4
    )
    a_little = silhouettes(ALL_CLASSES, rotation=20)
    changed = np.abs(a_little - upright).mean(axis=(1, 2))
    for name, change in zip(CLASSES, changed, strict=True):
        assert (change < 1e-3) == (name in ("disc", "ring")), name


def test_the_silhouette_stands_out_in_grayscale() -> None:
    few = draw_shapes(500, seed=0, size=32)
    masks = drawn_masks(few)
    gray = np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], few.pixels / 255)
    inside, outside = masks == 1, masks == 0
    gaps = np.array(
        [np.median(g[i]) - np.median(g[o]) for g, i, o in zip(gray, inside, outside, strict=True)]
    )
    # The light may brighten only one of the two, so a few differences are smaller than drawn.
    agrees = np.where(few.factors["lighter"] == 1, gaps, -gaps)
    assert np.quantile(agrees, 0.01) > 0.1
    assert agrees.min() > 0


@pytest.mark.parametrize("name", ["light_strength", "noise"])
def test_light_and_noise_change_the_pixels(many: Shapes, name: str) -> None:
    gray = many.pixels.mean(axis=1)
    if name == "noise":
        effect = np.abs(np.diff(gray, n=2, axis=2)).mean(axis=(1, 2))
    else:
        direction = np.deg2rad(many.factors["light_direction"])
        line = (np.arange(32) + 0.5) / 32 - 0.5
        toward_x = (gray * line).mean(axis=(1, 2)) * np.cos(direction)
        effect = toward_x + (gray * line[:, None]).mean(axis=(1, 2)) * np.sin(direction)
    assert np.corrcoef(effect, many.factors[name])[0, 1] > 0.2


def test_a_striped_background_varies_more_than_a_plain_one(many: Shapes) -> None:
    quiet = (many.factors["clutter_behind"] == 0) & (many.factors["light_strength"] < 0.1)
    quiet &= many.factors["background_depth"] > 0.1
    gray, behind = many.pixels.mean(axis=1), drawn_masks(many) == 0
    spread = np.array([image[mask].std() for image, mask in zip(gray, behind, strict=True)])
    kinds = many.factors["background_texture"]
    plain, stripes = (
        np.median(spread[quiet & (kinds == TEXTURES.index(name))]) for name in ("plain", "stripes")
    )
    assert stripes > 1.3 * plain


@pytest.mark.parametrize("size", [8, 16, 33, 64])
def test_other_image_sides(size: int) -> None:
    drawn = draw_shapes(23, seed=0, size=size)
    assert drawn.pixels.shape == (23, 3, size, size)
    assert drawn.pixels.dtype == np.uint8
    usual = draw_shapes(23, seed=0)
    for name in FACTORS:
        np.testing.assert_array_equal(drawn.factors[name], usual.factors[name])
    np.testing.assert_array_equal(drawn.labels, usual.labels)


def test_a_larger_side_shows_the_same_scene() -> None:
    usual, large = draw_shapes(100, seed=0).pixels, draw_shapes(100, seed=0, size=64).pixels
    shrunk = large.reshape(100, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    assert np.abs(shrunk - usual).mean() < 10


@pytest.mark.parametrize(
    ("count", "seed", "size", "named"),
    [
        (0, 0, 32, "0 images"),
        (-3, 0, 32, "-3"),
        (5, -1, 32, "-1"),
        (5, 2**64, 32, "seed"),
        (5, 0, 4, "4"),
    ],
)
def test_bad_arguments_are_named(count: int, seed: int, size: int, named: str) -> None:
    with pytest.raises(NonegError, match=named):
        draw_shapes(count, seed, size)


def test_drawing_needs_no_torch() -> None:
    # The stand-in package avoids the imports of noneg.images: the test is about one module.
    code = """
import sys, types, noneg
package = types.ModuleType("noneg.images")
package.__path__ = [noneg.__path__[0] + "/images"]
sys.modules["noneg.images"] = package
from noneg.images.shapes import draw_shapes
draw_shapes(10, 0)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
