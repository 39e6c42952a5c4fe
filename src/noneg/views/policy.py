"""How views are made from an image: plain data, one `View` per view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from noneg.errors import NonegError

Interpolation = Literal["bilinear", "bicubic"]

_FRACTIONS = (
    *("flip", "vertical_flip", "transpose", "jitter", "grayscale", "blur", "solarize"),
    *("brightness", "contrast", "saturation"),
)


@dataclass(frozen=True)
class View:
    """The random operations that make one view, in the order in which they are applied.

    Probabilities and strengths are in [0, 1]; 0 switches an operation off.

    Args:
        size: side of the view in pixels; None for the run's size.
        crop_scale: area of the crop as a fraction of the image's area, sampled uniformly.
        crop_ratio: width over height of the crop, sampled uniformly on a log scale.
        interpolation: for resizing the crop, with antialiasing.
        flip: probability of a left-right flip.
        vertical_flip: probability of an upside-down flip.
        transpose: probability of exchanging rows and columns. If both flips have probability 0.5
            too, all eight orientations of a square are equally likely: for images that have no
            upright orientation.
        jitter: probability of color jitter (the next four operations), in random order.
        brightness: factor sampled from [1 - brightness, 1 + brightness].
        contrast: the same, relative to the mean gray.
        saturation: the same, relative to the pixel's gray; three channels only.
        hue: rotation sampled from [-hue, hue] turns, at most 0.5; three channels only.
        grayscale: probability of grayscale; three channels only.
        blur: probability of a Gaussian blur.
        blur_sigma: its standard deviation in output pixels, sampled uniformly.
        solarize: probability of solarization, min(x, 1 - x).
    """

    size: int | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    flip: float = 0.5
    vertical_flip: float = 0.0
    transpose: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self) -> None:
        """Raise NonegError for the first impossible setting."""
        if self.size is not None and self.size < 1:
            raise NonegError(f"views: size must be at least 1 pixel, but it is {self.size}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise NonegError(
                f"views: interpolation must be bilinear or bicubic, but it is {self.interpolation}"
            )
        for name in _FRACTIONS:
            if not 0 <= getattr(self, name) <= 1:
                raise NonegError(
                    f"views: {name} must be in [0, 1], but it is {getattr(self, name)}"
                )
        if not 0 <= self.hue <= 0.5:
            raise NonegError(f"views: hue must be in [0, 0.5] turns, but it is {self.hue}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise NonegError(
                "views: crop_scale must be low, high with 0 < low <= high <= 1, but it is "
                f"{self.crop_scale}"
            )
        for name in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise NonegError(
                    f"views: {name} must be low, high with 0 < low <= high, but it is {(low, high)}"
                )


Policy = tuple[View, ...]


def _blur_for(size: int, probability: float) -> float:
    # The papers blur at 224 px. Small images are not blurred: nothing would be left to learn from.
    return probability if size > 64 else 0.0


def byol_policy(size: int) -> Policy:
    """BYOL, appendix B, table 6: blur and solarize differ between the two views."""
    base = View(crop_scale=(0.08, 1.0), interpolation="bicubic", saturation=0.2)
    return (
        replace(base, blur=_blur_for(size, 1.0)),
        replace(base, blur=_blur_for(size, 0.1), solarize=0.2),
    )


def barlow_twins_policy(size: int) -> Policy:
    """Barlow Twins, section 2.2: the same as BYOL."""
    return byol_policy(size)


def vicreg_policy(size: int) -> Policy:
    """VICReg, appendix C.1: the strengths of BYOL, the same for both views."""
    view = View(
        crop_scale=(0.2, 1.0),
        interpolation="bicubic",
        saturation=0.2,
        blur=_blur_for(size, 0.5),
        solarize=0.1,
    )
    return (view,) * 2


def simclr_policy(size: int) -> Policy:
    """SimCLR, appendix A (strength 1), and appendix B.9 for small images (strength 0.5)."""
    strength = 1.0 if size > 64 else 0.5
    view = View(
        crop_scale=(0.08, 1.0),
        interpolation="bicubic",
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        blur=_blur_for(size, 0.5),
    )
    return (view,) * 2


def simsiam_policy(size: int) -> Policy:
    """SimSiam, section 3 and appendix A: MoCo v2's augmentations, symmetric."""
    return (View(blur=_blur_for(size, 0.5)),) * 2


def multi_crop_policy(size: int) -> Policy:
    """Two large crops, six small ones with 3/7 of the side (SwAV, section 3.2; DINO's areas)."""
    base = View(saturation=0.2, interpolation="bicubic")
    small_size = max(8, round(size * 96 / 224 / 8) * 8)
    large = replace(base, crop_scale=(0.4, 1.0), blur=_blur_for(size, 0.5))
    small = replace(base, size=small_size, crop_scale=(0.05, 0.4), blur=_blur_for(small_size, 0.5))
    return (large,) * 2 + (small,) * 6


def emp_ssl_policy(size: int) -> Policy:
    """EMP-SSL's 20 crops of a quarter of the image (authors' code; 2304.03977)."""
    return (
        View(
            crop_scale=(0.25, 0.25),
            crop_ratio=(1.0, 1.0),
            saturation=0.4,
            hue=0.2,
            blur=_blur_for(size, 0.1),
            solarize=0.1,
        ),
    ) * 20


def gentle_policy(size: int) -> Policy:
    """Larger crops and weaker color jitter, symmetric: for small images and short runs."""
    return (View(crop_scale=(0.3, 1.0), saturation=0.2, blur=_blur_for(size, 0.2)),) * 2


def outline_policy(size: int) -> Policy:
    """All hues and vertical flips, symmetric: for images in which only outlines matter."""
    colors = View(crop_scale=(0.3, 1.0), jitter=1.0, saturation=0.8, hue=0.5, grayscale=0.3)
    return (replace(colors, vertical_flip=0.5, blur=_blur_for(size, 0.2)),) * 2


def dihedral_policy(size: int) -> Policy:
    """The gentle views in all eight orientations: for microscopes, telescopes, satellites."""
    return tuple(replace(view, vertical_flip=0.5, transpose=0.5) for view in gentle_policy(size))


def weak_policy(_size: int) -> Policy:
    """Only crop and flip: safe for every image set."""
    return (View(jitter=0.0, grayscale=0.0),) * 2


def crops_policy(_size: int) -> Policy:
    """I-JEPA's crops (2301.08243, authors' code), two of them, without flips or colors."""
    return (View(crop_scale=(0.3, 1.0), flip=0.0, jitter=0.0, grayscale=0.0),) * 2


POLICIES: dict[str, Callable[[int], Policy]] = {
    "byol": byol_policy,
    "barlow_twins": barlow_twins_policy,
    "vicreg": vicreg_policy,
    "simclr": simclr_policy,
    "simsiam": simsiam_policy,
    "multi_crop": multi_crop_policy,
    "emp_ssl": emp_ssl_policy,
    "gentle": gentle_policy,
    "outline": outline_policy,
    "dihedral": dihedral_policy,
    "weak": weak_policy,
    "crops": crops_policy,
}

# Version 0.1.0 has other names for these.
_OLDER_NAMES = {"grey": "grayscale"}


def resolve_policy(
    views: object, size: int, num_views: int | None = None, view_size: int | None = None
) -> Policy:
    """The views of an image that a run's settings of these names ask for.

    Args:
        views: a name of `POLICIES`, or a list of views, each a `View` or a mapping of its settings.
        size: side of the encoder's images in pixels, and of the views without a size of their own.
        num_views: the first views of the list, which is repeated as needed; by default all of it.
        view_size: side of the views in pixels, if it is not `size`.

    Raises:
        NonegError: there is no such policy or setting, or a value is impossible.
    """
    if size < 1:
        raise NonegError(f"views: size is at least 1 pixel: {size}")
    if isinstance(views, str):
        if views not in POLICIES:
            raise NonegError(f"no views '{views}'; there are: {', '.join(POLICIES)}")
        policy = POLICIES[views](view_size or size)
    elif isinstance(views, Sequence) and views:
        policy = tuple(view_from_settings(view) for view in views)
    else:
        raise NonegError(f"views is the name of a policy or a list of views: {views!r}")
    count = len(policy) if num_views is None else num_views
    if count < 1:
        raise NonegError(f"num_views is at least 1: {count}")
    if view_size not in (None, size):
        policy = tuple(replace(view, size=view.size or view_size) for view in policy)
    return tuple(policy[number % len(policy)] for number in range(count))


def view_from_settings(settings: object) -> View:
    """A view from its settings as plain values, which YAML holds.

    Args:
        settings: a mapping of some of the fields of `View`; or a `View`, which is returned.

    Raises:
        NonegError: a setting does not exist, or cannot have this value.
    """
    if isinstance(settings, View):
        return settings
    if not isinstance(settings, Mapping):
        raise NonegError(f"views: a view is a table of settings, not {settings!r}")
    known = [field.name for field in fields(View)]
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        name = _OLDER_NAMES.get(name, name)
        if name not in known:
            raise NonegError(f"views: no setting '{name}'; there are: {', '.join(known)}")
        if isinstance(value, list | tuple):
            value = tuple(float(each) if isinstance(each, int) else each for each in value)
        elif isinstance(value, int) and name != "size":
            value = float(value)
        plain[name] = value
    try:
        return View(**plain)
    except (TypeError, IndexError):
        raise NonegError(f"views: one of these values is of the wrong kind: {plain}") from None
