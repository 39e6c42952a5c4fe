"""How far predicted patches are from the patches of a second network (I-JEPA, 2301.08243)."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from noneg.losses.inputs import in_full_precision


@in_full_precision
def patch_prediction(
    p: Float[Tensor, "*batch width"], t: Float[Tensor, "*batch width"]
) -> Float[Tensor, ""]:
    """Smooth L1 distance of predictions from normalized targets, averaged over all numbers.

    Convention: the authors' code. Each target is normalized over its width to mean 0 and variance 1
    (epsilon 1e-5), without gradient; predictions are not. The distance is quadratic up to 1, and
    linear beyond. The paper (section 3) has the squared L2 distance from targets as they are,
    averaged over blocks and added up over patches. Range [0, inf); a prediction of 0 has at most
    1/2.

    Args:
        p: predictions of patches.
        t: outputs of the target network for these patches.
    """
    return smooth_l1_loss(p, layer_norm(t.detach(), t.shape[-1:]))
