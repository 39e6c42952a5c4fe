"""SimSiam as an alternation: update the network, then update one target per image."""

from typing import Any

from noneg.experiments.figures import bar_panels
from noneg.experiments.judge import collapses, every, higher, survives
from noneg.experiments.study import Claim, Study, Variant


def _held(time: str, hold: int | str, quick: bool = False) -> Variant:
    options: dict[str, Any] = {"hold": hold}
    return Variant(f"eta held for {time}", {"method": "simsiam", "options": options}, quick)


_HELD = ("eta held for 10 steps", "eta held for 100 steps", "eta held for an epoch")


STUDY = Study(
    name="em",
    chapter=5,
    title="SimSiam as expectation-maximization",
    question="SimSiam can be seen as minimizing E |F(T(x)) - eta_x|^2 alternately: over the "
    "network F, by gradient steps, and over one target eta_x per image x, by averaging over the "
    "augmentations T. Can the targets be kept fixed for many steps? Can such an average replace "
    "the predictor?",
    variants=(
        _held("1 step", 1, quick=True),
        _held("10 steps", 10, quick=True),
        _held("100 steps", 100),
        _held("an epoch", "epoch"),
        Variant(
            "no predictor, eta averaged over epochs",
            {"method": "simsiam_em", "options": {"eta": "average"}},
        ),
        Variant(
            "no predictor, eta the mean of 3 other views",
            {"method": "simsiam_em", "options": {"eta": "views"}, "num_views": 4},
        ),
        Variant(
            "no predictor, no average",
            {"method": "simsiam", "options": {"predictor": "none"}},
        ),
    ),
    claims=(
        Claim(
            "With targets held for 10 steps, 100 steps or an epoch, it does not collapse.",
            survives(*_HELD),
        ),
        Claim(
            "Held targets lose at most 2 points.",
            every(*(higher(each, "eta held for 1 step", by=-0.02) for each in _HELD)),
        ),
        Claim(
            "A moving average of eta replaces the predictor: no collapse.",
            survives("no predictor, eta averaged over epochs"),
            "each eta averages one value per epoch: few here, 100 in the paper.",
        ),
        Claim(
            "A moving average of eta is worse than the predictor.",
            higher("eta held for 1 step", "no predictor, eta averaged over epochs"),
        ),
        Claim(
            "The mean over three other views replaces the predictor: no collapse.",
            survives("no predictor, eta the mean of 3 other views"),
            "the mean of three views is still far from the mean over all augmentations.",
        ),
        Claim(
            "With neither predictor nor average it collapses.",
            collapses("no predictor, no average"),
        ),
    ),
    papers=(
        "SimSiam (2011.10566, section 5), ImageNet, 100 epochs: eta held for 1, 10, 100 steps or "
        "an epoch: 68.1, 68.7, 68.9, 67.0.",
        "A moving average of eta (0.8) without predictor: 55.0; with neither: collapse.",
        "Each image has its own eta. The authors state that the hypothesis 'does not explain why "
        "collapsing is prevented'.",
    ),
    draw=bar_panels("knn", "std_z", "effective_rank_z"),
)
