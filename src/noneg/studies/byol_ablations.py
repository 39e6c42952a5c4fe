"""BYOL with one part removed at a time, compared with the paper's tables."""

from typing import Any

from noneg.experiments.figures import bar_panels
from noneg.experiments.judge import collapses, every, higher, survives
from noneg.experiments.study import Claim, Study, Variant


def _variant(name: str, quick: bool = True, **options: Any) -> Variant:
    return Variant(name, {"method": "byol", "options": options}, quick)


STUDY = Study(
    name="byol-ablations",
    chapter=3,
    title="BYOL with parts removed",
    question="BYOL's online network predicts the output of a target network, which is a moving "
    "average of the online network and receives no gradient. Which of predictor, stop-gradient, "
    "moving average and weight decay does BYOL need? When it fails, does it collapse, or does it "
    "only learn nothing?",
    variants=(
        _variant("byol"),
        _variant("predictor linear", predictor="linear"),
        _variant("predictor none", predictor="none"),
        _variant("predictor frozen", predictor="fixed"),
        _variant("no stop-gradient", stop_gradient=False),
        _variant("no predictor, no stop-gradient", predictor="none", stop_gradient=False),
        _variant("no predictor, target copy", predictor="none", target="copy"),
        _variant("target frozen (random)", target="frozen"),
        _variant("tau 0.999, constant", False, tau=0.999, tau_constant=True),
        _variant("tau 0.99, constant", False, tau=0.99, tau_constant=True),
        _variant("tau 0.9, constant", False, tau=0.9, tau_constant=True),
        _variant("copy, predictor rate x 0", target="copy", predictor_rate=0.0),
        _variant("copy, predictor rate x 1", False, target="copy", predictor_rate=1.0),
        _variant("copy, predictor rate x 2", False, target="copy", predictor_rate=2.0),
        _variant("copy, predictor rate x 10", target="copy", predictor_rate=10.0),
        Variant("weight decay 0", {"method": "byol", "weight_decay": 0.0}, False),
    ),
    claims=(
        Claim("BYOL does not collapse.", survives("byol")),
        Claim("Without a predictor it collapses.", collapses("predictor none")),
        Claim(
            "Without a stop-gradient it collapses, with or without a predictor.",
            collapses("no stop-gradient", "no predictor, no stop-gradient"),
        ),
        Claim(
            "A frozen random predictor fails without collapsing.",
            every(survives("predictor frozen"), higher("byol", "predictor frozen")),
        ),
        Claim(
            "With a frozen random target it learns something: it is better than without a "
            "predictor, and worse than BYOL.",
            every(
                higher("target frozen (random)", "predictor none"),
                higher("byol", "target frozen (random)"),
            ),
        ),
        Claim(
            "Without a moving average, a predictor with 10 times the learning rate of the rest is "
            "better than one with the same learning rate.",
            higher("copy, predictor rate x 10", "copy, predictor rate x 1"),
        ),
        Claim(
            "Without a moving average, a predictor that does not learn is worse than one with 10 "
            "times the learning rate.",
            higher("copy, predictor rate x 10", "copy, predictor rate x 0"),
        ),
        Claim("A linear predictor also prevents collapse.", survives("predictor linear")),
        Claim(
            "Without weight decay it does not collapse in a short run.", survives("weight decay 0")
        ),
    ),
    papers=(
        "BYOL, ImageNet, 300 epochs, linear (2006.07733): with predictor and moving average 72.5; "
        "with predictor and a copy as target 5.5; with predictor and a gradient into the target "
        "0.3; without predictor 0.2 (moving average) and 0.1 (copy).",
        "Constant tau: 1 (a frozen random target) 18.8, 0.999 69.8, 0.99 72.5, 0.9 68.4.",
        "No moving average, predictor's learning rate x 0, 1, 2, 10, 20: 0.01, 5.5, 62.8, 66.6, "
        "66.3 (appendix I). This is a copied target with a multiple of the learning rate; it is "
        "sometimes misread as a target with scaled weights.",
        "Without weight decay it diverges. A linear predictor trained by SGD with a moving "
        "average: 74.5 on STL-10 (Tian et al., 2102.06810).",
        "'No predictor or no stop-gradient: collapse' is incomplete: a frozen random predictor "
        "fails without collapsing, and a fast predictor without a moving average works.",
    ),
    draw=bar_panels("knn", "std_z", "effective_rank_z"),
    settings={"options": {"predictor_rate": 1.0, "tau": 0.98}},
)
