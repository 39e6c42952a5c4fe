"""Is what another tool computes what the encoder computes?"""

from collections.abc import Callable

import torch

from noneg.errors import NonegError
from noneg.export.graph import Exported, Output, Pixels

BATCHES = (1, 2, 5)

LARGEST_ERROR = 1e-3
"""Relative to the root mean square of the outputs."""


def check(
    source: Exported,
    run: Callable[[Pixels], Output],
    what: str,
    *,
    any_size: bool = True,
) -> float:
    """Compare outputs for random pictures, of the encoder's size and of others.

    Args:
        source: what was exported.
        run: what was written, as the other tool runs it.
        what: for the message, such as "ONNX Runtime".
        any_size: whether pictures of other sizes are taken too.

    Returns:
        The largest error of an output, relative to their root mean square.

    Raises:
        NonegError: the outputs differ.
    """
    size = source.info.size
    sides = [size, size + 5, 2 * size, max(4, size // 2)] if any_size else [size]
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for side in sides:
        for batch in BATCHES:
            # Smooth pictures with some noise: of pure noise, all features are much alike.
            coarse = torch.rand(batch, source.info.channels, 3, 3, generator=random)
            smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
            noise = 0.2 * torch.rand(smooth.shape, generator=random)
            images = (255 * (0.8 * smooth + noise)).round().to(torch.uint8)
            expected, found = source.expected(images), run(images)
            scale = float(expected.double().square().mean().sqrt())
            if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
                error = float("inf")
            else:
                error = float((found - expected).abs().max()) / max(scale, 1e-12)
            worst = max(worst, error)
            if not error <= LARGEST_ERROR:
                raise NonegError(
                    f"{what} computes other {source.output} than noneg, for {batch} images of "
                    f"{side} x {side} pixels (error {error:.1e}, {LARGEST_ERROR:g} is allowed), "
                    "so it is not kept: use another format, or other versions of the tools"
                )
    return worst
