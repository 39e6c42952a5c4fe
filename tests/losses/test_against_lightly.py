"""docs/conventions.md on lightly 1.6.0: where its losses are noneg's, and where they differ.

The page describes this version alone, so others are skipped.
"""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses import (
    dino,
    distance_to_mean,
    emp_ssl,
    frossl,
    lejepa_weights,
    mmcr,
    second_moment,
    sigreg,
    swav,
    tico,
    visreg,
    w_mse,
)

lightly = pytest.importorskip("lightly", reason="lightly is not installed (extra bench)")
if lightly.__version__ != "1.6.0":
    pytest.skip(
        f"the page describes lightly 1.6.0, not {lightly.__version__}", allow_module_level=True
    )

from lightly import loss as theirs  # noqa: E402
from lightly.models.modules import SwaVPrototypes  # noqa: E402

IMAGES, WIDTH = 12, 5


def random_views(views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, IMAGES, WIDTH, generator=generator, dtype=torch.float64)


def total(terms: dict[str, Tensor]) -> float:
    return float(sum(terms.values()))


@pytest.mark.parametrize("views", [2, 4])
def test_frossl_is_the_same(views: int) -> None:
    z = random_views(views)
    other = theirs.FroSSLLoss(invariance_weight=0.7)([*z])
    assert float(other) == pytest.approx(total(frossl(z, invariance=0.7)), rel=1e-10)


def test_tico_is_the_same_for_one_direction() -> None:
    """One view's matrix, and one view's agreement; its matrix is in no checkpoint."""
    a, b = random_views()
    other = theirs.TiCoLoss(beta=0.9, rho=3.0)
    z, t = torch.stack([a, a]), torch.stack([b, b])
    covariance = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for _ in range(2):
        covariance = 0.9 * covariance + 0.1 * second_moment(z)
        value = float(other(a, b))
        assert value == pytest.approx(total(tico(z, t, covariance, rho=3.0)), rel=1e-10)
    assert not other.state_dict()


def test_w_mse_is_the_same_for_one_group() -> None:
    z = random_views().float()
    other = theirs.WMSELoss(embedding_dim=WIDTH, w_size=IMAGES, num_samples=2)(z.flatten(0, 1))
    assert float(other.detach()) == pytest.approx(total(w_mse(z, per_view=True)), rel=1e-5)


def test_swav_is_the_same_but_prototypes_have_a_bias() -> None:
    scores = random_views(4).tanh()
    other = theirs.SwaVLoss()([*scores[:2]], [*scores[2:]])
    assert float(other) == pytest.approx(total(swav(scores, scores[:2])), rel=1e-10)
    queue = random_views(1, seed=1)[0].tanh()
    other = theirs.SwaVLoss()([*scores[:2]], [*scores[2:]], [queue, queue])
    expected = total(swav(scores, scores[:2], queue=queue))
    assert float(other) == pytest.approx(expected, rel=1e-10)
    assert SwaVPrototypes(WIDTH, 3).heads[0].bias is not None


def test_dino_is_the_same_but_the_caller_detaches_the_teacher() -> None:
    scores, targets = random_views(4), random_views(2, seed=1).requires_grad_()
    other = theirs.DINOLoss(output_dim=WIDTH)([*targets], [*scores])
    center = torch.zeros(WIDTH, dtype=torch.float64)
    ours = total(dino(scores, targets.detach(), center))
    assert float(other.detach()) == pytest.approx(ours, rel=1e-6)
    assert torch.autograd.grad(other, targets)[0].abs().max() > 0.01


def test_visreg_is_the_same_up_to_an_epsilon() -> None:
    z = random_views(4)
    other = theirs.VISRegLoss(lambda_param=0.6, num_slices=7)
    torch.manual_seed(1)
    value = float(other(local_proj=z[2:], global_proj=z[:2]))
    torch.manual_seed(1)
    weights = {"invariance": 0.4, "center": 0.6, "scale": 0.6, "shape": 0.6}
    assert value == pytest.approx(total(visreg(z, **weights, slices=7, large=2)), rel=1e-3)


def test_lejepa_is_the_same() -> None:
    z = random_views(4).float()
    other = theirs.LeJEPALoss(lambda_param=0.1, sigreg_num_vectors=7)
    torch.manual_seed(1)
    value = float(other(local_proj=z[2:], global_proj=z[:2]))
    torch.manual_seed(1)
    ours = lejepa_weights("lightly", weight=0.1, batch=IMAGES)
    statistic = sigreg(z, slices=7, reach=3.0)
    expected = ours.invariance * distance_to_mean(z, large=2) + ours.sigreg * statistic
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_emp_ssl_has_the_coding_rate_with_the_other_sign() -> None:
    unit = normalize(random_views(4), dim=2)
    terms = emp_ssl(unit, invariance=2.0)
    other = theirs.EMPSSLLoss(inv_coef=2.0)
    expected = float(terms["invariance"] - terms["coding_rate"])
    assert float(other([*unit])) == pytest.approx(expected, rel=1e-6)
    # The length of embeddings counts, too.
    assert float(other([*(2 * unit)])) > expected + 0.1


def test_mmcr_is_the_same_on_the_sphere_but_has_no_bound() -> None:
    views = random_views(4)
    other = theirs.MMCRLoss(lmda=0.3)

    def value(each: Tensor) -> float:
        online, momentum = each.transpose(0, 1).split(2, dim=1)
        return float(other(online, momentum))

    assert value(normalize(views, dim=2)) == pytest.approx(total(mmcr(views, local=0.3)))
    assert value(10 * views) == pytest.approx(10 * value(views))
