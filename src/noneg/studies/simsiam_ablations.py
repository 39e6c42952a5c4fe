"""SimSiam with one part removed at a time."""

from typing import Any

from matplotlib.figure import Figure

from noneg.experiments.figures import bars, curves
from noneg.experiments.judge import collapses, every, higher, survives
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Study, Variant


def _variant(name: str, quick: bool = True, **options: Any) -> Variant:
    return Variant(name, {"method": "simsiam", "options": options}, quick)


def _draw(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    curves(left, results, "std_z")
    bars(right, results, "knn")


STUDY = Study(
    name="simsiam-ablations",
    chapter=4,
    title="SimSiam with parts removed",
    question="SimSiam has a predictor and a stop-gradient, but no moving average. Which of them "
    "prevents collapse, and what does the BatchNorm in its heads contribute?",
    variants=(
        _variant("simsiam"),
        _variant("no stop-gradient", stop_gradient=False),
        _variant("predictor none", predictor="none"),
        _variant("predictor frozen", predictor="fixed"),
        _variant("predictor's rate decays", False, predictor_constant=False),
        _variant("BatchNorm nowhere in the heads", norm="none"),
        _variant("BatchNorm between layers alone", norm="hidden"),
        _variant("BatchNorm everywhere", False, norm="all"),
    ),
    claims=(
        Claim("SimSiam does not collapse.", survives("simsiam")),
        Claim("Without a stop-gradient it collapses.", collapses("no stop-gradient")),
        Claim("Without a predictor it collapses.", collapses("predictor none")),
        Claim(
            "With a frozen random predictor it fails without collapsing: the loss stays above "
            "SimSiam's.",
            every(survives("predictor frozen"), higher("predictor frozen", "simsiam", "loss")),
        ),
        Claim(
            "Without BatchNorm in its heads it is worse, but does not collapse.",
            every(
                survives("BatchNorm nowhere in the heads"),
                higher("simsiam", "BatchNorm nowhere in the heads"),
            ),
            "without BatchNorm nothing fixes the scale of the heads, which are narrow here and "
            "take large steps under AdamW; the paper's are 2,048 wide and trained by SGD.",
        ),
    ),
    papers=(
        "SimSiam, ImageNet, 100 epochs, linear (2011.10566): 67.7; without stop-gradient 0.1; "
        "without predictor it collapses (the stop-gradient then only halves the gradient of the "
        "symmetric loss); with a frozen random predictor the loss stays high without collapse.",
        "BatchNorm in the heads: none 34.6, hidden layers 67.4, default 68.1, all layers unstable.",
        "VICReg's table 4 (2105.04906): SimSiam without BatchNorm 35.1, with a variance term 67.3.",
    ),
    draw=_draw,
)
