"""Each objective is its loss with the method's own options, every one in its place.

The losses have oracles of their own; here they are called by hand with the options spelled out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from test_contract import build
from torch import Tensor
from torch.nn.functional import normalize

from noneg import losses
from noneg.methods import find_method, list_methods
from noneg.methods.base import Embeddings, Method, random_order

VIEWS, LARGE, BATCH, WIDTH = 4, 2, 15, 6
IMAGES = 3 * torch.arange(BATCH) + 2

Terms = Mapping[str, Tensor]
# The terms of a step, after earlier steps; the method is there for what it does not get from them.
ByHand = Callable[[Embeddings, list[Embeddings], Method], Terms]


def random_embeddings(seed: int) -> Embeddings:
    """Of large and small crops, all independent, so that none can stand for another."""
    generator = torch.Generator().manual_seed(seed)
    z, p, t = (
        # Less spread than the hinges ask for, and nearer than the margins.
        torch.randn(count, BATCH, WIDTH, generator=generator, dtype=torch.float64) / 2
        for count in (VIEWS, VIEWS, LARGE)
    )
    return Embeddings(h=z, z=z, p=p, t=t, index=IMAGES)


def corinfomax(e: Embeddings, earlier: list[Embeddings], _: Method) -> Terms:
    means = [torch.zeros(WIDTH, dtype=torch.float64)] * 2
    covariances = [torch.eye(WIDTH, dtype=torch.float64)] * 2
    for each in (*earlier, e):
        unit = normalize(each.z, dim=2)
        for branch in (0, 1):
            rows = unit[branch::2].flatten(0, 1)
            means[branch], covariances[branch] = losses.running_covariance(
                rows, means[branch], covariances[branch], decay=0.4
            )
    return losses.corinfomax(unit, torch.stack(covariances), invariance=30.0, epsilon=0.02)


def dino(e: Embeddings, earlier: list[Embeddings], _: Method) -> Terms:
    center = torch.zeros(WIDTH, dtype=torch.float64)
    for each in earlier:
        center = 0.7 * center + 0.3 * each.t.mean(dim=(0, 1))
    return losses.dino(e.p, e.t, center, temperature=0.5, target_temperature=0.2)


def distill(e: Embeddings, _: list[Embeddings], method: Method) -> Terms:
    t = method.targets[IMAGES]
    return {
        "distance": losses.distance_to_target(e.z, t, "smooth_l1"),
        "relational": 3.0 * losses.relational_distance(e.z, t),
    }


def lejepa_on_the_sphere(e: Embeddings, *_: object) -> Terms:
    z = normalize(e.z, dim=2) * WIDTH**0.5
    return {
        "invariance": 0.7 * losses.distance_to_mean(z, large=LARGE),
        "sphere": 3.0 * losses.sphere_discrepancy(z),
    }


def moco(e: Embeddings, earlier: list[Embeddings], _: Method) -> Terms:
    """The queue holds the two steps before, the newer one first; own keys do not count."""
    queue = torch.cat([each.t.flatten(0, 1) for each in earlier[::-1]])
    own = IMAGES[:, None] == IMAGES.repeat(2 * LARGE)
    return losses.info_nce(e.z, e.t, normalize(queue, dim=1), temperature=0.3, excluded=own)


def swav(e: Embeddings, earlier: list[Embeddings], method: Method) -> Terms:
    rows = torch.cat([each.z[:LARGE].flatten(0, 1) for each in earlier[::-1]])
    scores = normalize(rows, dim=1) @ normalize(method.prototypes.weight, dim=1).T
    return losses.swav(e.p, e.t, temperature=0.3, epsilon=0.2, iterations=5, queue=scores)


def tico(e: Embeddings, earlier: list[Embeddings], _: Method) -> Terms:
    covariance = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for each in (*earlier, e):
        covariance = 0.6 * covariance + 0.4 * losses.second_moment(each.z)
    return losses.tico(e.z, e.t, covariance, rho=3.0)


def triplet_of_a_cycle(e: Embeddings, *_: object) -> Terms:
    cycle = random_order(e).tolist()
    following = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    negatives = torch.tensor([following[image] for image in range(BATCH)])
    return losses.triplet(e.z, margin=0.7, negatives=negatives)


def w_mse(e: Embeddings, *_: object) -> Terms:
    """Two groups of 8 and 7 images, divided three times."""
    values = [
        losses.w_mse(e.z, epsilon=0.05, per_view=True, groups=2, order=random_order(e))["w_mse"]
        for _shuffle in range(3)
    ]
    return {"w_mse": torch.stack(values).mean()}


WIRINGS: list[tuple[str, dict[str, Any], ByHand]] = [
    (
        "barlow_twins",
        {"invariance": 0.6, "redundancy": 0.02},
        lambda e, *_: losses.barlow_twins(e.z, invariance=0.6, redundancy=0.02),
    ),
    (
        "byol",
        {"variance": 9.0},
        lambda e, *_: {
            "prediction": 4 * (1 + losses.negative_cosine(e.p, e.t)),
            "variance": 9.0 * losses.variance_hinge(e.z),
        },
    ),
    ("contrastive", {"margin": 2.0}, lambda e, *_: losses.contrastive(e.z, margin=2.0)),
    ("corinfomax", {"invariance": 30.0, "decay": 0.4, "epsilon": 0.02}, corinfomax),
    (
        "dino",
        {
            "prototypes": WIDTH,
            "temperature": 0.5,
            "target_temperature": 0.2,
            "center_momentum": 0.7,
        },
        dino,
    ),
    ("distill", {"loss": "smooth_l1", "relational": 3.0}, distill),
    (
        "emp_ssl",
        {"invariance": 3.0, "distortion": 0.4},
        lambda e, *_: losses.emp_ssl(e.z, invariance=3.0, distortion=0.4),
    ),
    ("frossl", {"invariance": 2.5}, lambda e, *_: losses.frossl(e.z, invariance=2.5)),
    (
        "lejepa",
        {"invariance": 0.7, "sigreg": 3.0},
        lambda e, *_: {
            "invariance": 0.7 * losses.distance_to_mean(e.z, large=LARGE),
            "sigreg": 3.0 * losses.sigreg(e.z),
        },
    ),
    (
        "lejepa",
        {"invariance": 0.7, "sigreg": 3.0, "slices": 5},
        lambda e, *_: {
            "invariance": 0.7 * losses.distance_to_mean(e.z, large=LARGE),
            "sigreg": 3.0 * losses.sigreg(e.z, slices=5),
        },
    ),
    ("lejepa", {"invariance": 0.7, "sigreg": 3.0, "statistic": "sphere"}, lejepa_on_the_sphere),
    ("mmcr", {"local": 0.3}, lambda e, *_: losses.mmcr(e.z, local=0.3)),
    ("moco", {"temperature": 0.3, "queue": 70}, moco),
    ("simclr", {"temperature": 0.4}, lambda e, *_: losses.nt_xent(e.z, temperature=0.4)),
    ("simdino", {"distortion": 0.7}, lambda e, *_: losses.simdino(e.z, e.t, distortion=0.7)),
    (
        "simsiam",
        {"variance": 9.0},
        lambda e, *_: {
            "negative_cosine": losses.negative_cosine(e.p, e.t),
            "variance": 9.0 * losses.variance_hinge(e.z),
        },
    ),
    (
        "ssl_hsic",
        {"gamma": 2.0, "scale": 0.5},
        lambda e, *_: losses.hsic(normalize(torch.cat([e.p, e.t]), dim=2), gamma=2.0, scale=0.5),
    ),
    (
        "swav",
        {
            "prototypes": WIDTH,
            "temperature": 0.3,
            "epsilon": 0.2,
            "iterations": 5,
            "queue": 70,
            "queue_from": 0.0,
        },
        swav,
    ),
    ("tico", {"rho": 3.0, "beta": 0.6}, tico),
    ("triplet", {"margin": 0.7, "negatives": "random"}, triplet_of_a_cycle),
    (
        "triplet",
        {"margin": 0.7, "negatives": "hardest"},
        lambda e, *_: losses.triplet(e.z, margin=0.7, negatives="hardest"),
    ),
    (
        "two_networks",
        {"objective": "barlow_twins"},
        lambda e, *_: losses.barlow_twins(e.z),
    ),
    (
        "vibcreg",
        {"invariance": 3.0, "variance": 5.0, "covariance": 7.0},
        lambda e, *_: losses.vibcreg(e.z, invariance=3.0, variance=5.0, covariance=7.0),
    ),
    (
        "vicreg",
        {"invariance": 3.0, "variance": 5.0, "covariance": 7.0, "radial": 11.0},
        lambda e, *_: {
            **losses.vicreg(e.z, invariance=3.0, variance=5.0, covariance=7.0),
            "radial": 11.0 * losses.radial_divergence(e.z),
        },
    ),
    (
        "visreg",
        {"invariance": 0.2, "center": 0.3, "scale": 0.5, "shape": 0.7, "slices": 9},
        lambda e, *_: losses.visreg(
            e.z, invariance=0.2, center=0.3, scale=0.5, shape=0.7, slices=9, large=LARGE
        ),
    ),
    ("w_mse", {"group": 7, "shuffles": 3, "epsilon": 0.05}, w_mse),
]

# Their losses have no options, or the tests of the method have them.
WITHOUT_WEIGHTS = {"directpred", "fastsiam", "i_jepa", "siamese", "simsiam_em"}


def test_every_method_is_here() -> None:
    assert {name for name, _, _ in WIRINGS} == set(list_methods()) - WITHOUT_WEIGHTS


@pytest.mark.parametrize(
    ("name", "options", "by_hand"),
    WIRINGS,
    ids=["-".join([name, *map(str, options.values())]) for name, options, _ in WIRINGS],
)
def test_the_terms_are_those_of_the_loss_with_these_options(
    name: str, options: dict[str, Any], by_hand: ByHand
) -> None:
    # None may be left out, or exchanged for another, unseen.
    defaults = find_method(name).options()
    assert all(getattr(defaults, key) != value for key, value in options.items())
    assert len(set(options.values())) == len(options)

    method = build(name, projector=(8, WIDTH), **options).double()
    # Running averages and queues are not those of the start.
    earlier = [random_embeddings(seed) for seed in (1, 2)]
    for each in earlier:
        method.objective(each)
    e = random_embeddings(3)
    torch.manual_seed(4)
    expected = by_hand(e, earlier, method)
    torch.manual_seed(4)
    loss = method.objective(e)
    torch.testing.assert_close(dict(loss.terms), dict(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.value, torch.stack(list(expected.values())).sum())
