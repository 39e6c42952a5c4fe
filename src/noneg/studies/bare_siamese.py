"""Two views should embed alike, and nothing else is asked for: does it collapse, and how soon?"""

from matplotlib.figure import Figure

from noneg.experiments.figures import bars, curves
from noneg.experiments.judge import COLLAPSED_DISTANCE, collapses, every, survives
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Outcome, Study, Variant

_OTHER_BACKBONES = ("test_byobnet", "test_efficientnet")
_BARE = ("siamese", *(f"siamese, {name}" for name in _OTHER_BACKBONES))
_NEGATIVES = ("contrastive (hinge)", "triplet", "simclr (InfoNCE)")
_HEAD = {"method": "siamese", "learning_rate": 0.012}


def _steps_to_collapse(results: Results) -> Outcome:
    """Within how many steps the squared distance between images is gone, for good."""
    parts, all_fell, few = [], True, False
    for variant in _BARE:
        steps = []
        for row in results.of(variant):
            at, norm = row.curve("norm_h")
            cosine = row.curve("mean_cosine_h")[1]
            left = [length**2 * (1 - each) for length, each in zip(norm, cosine, strict=True)]
            apart = [
                step
                for step, value in zip(at, left, strict=True)
                if value >= COLLAPSED_DISTANCE * left[0]
            ]
            if row.diverged is None and apart and apart[-1] < at[-1]:
                steps.append(next(step for step in at if step > apart[-1]))
            else:
                all_fell = False
        few = few or len(results.of(variant)) < 2
        shown = ", ".join(str(step) for step in sorted(steps)) or "never"
        parts.append(f"{variant}: step {shown}")
    return Outcome(None if few else all_fell, "; ".join(parts))


def _draw(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    shown = (*_BARE, "triplet", "simclr (InfoNCE)")
    curves(left, results, "std_z", shown)
    bars(right, results, "std_z")


STUDY = Study(
    name="bare-siamese",
    title="The bare siamese network",
    question="Two views of an image go through one network, and the mean squared error between "
    "them is all that is minimized. A constant has error 0. Is that where it goes, on three "
    "backbones, and in how many steps? Does a head with BatchNorm change it? Do negatives?",
    variants=(
        Variant("siamese", {"method": "siamese"}),
        *(Variant(f"siamese, {n}", {"method": "siamese", "backbone": n}) for n in _OTHER_BACKBONES),
        Variant("head", {**_HEAD, "options": {"head": [256, 128], "head_norm": "none"}}),
        Variant(
            "head, BatchNorm inside",
            {**_HEAD, "options": {"head": [256, 128], "head_norm": "hidden"}},
        ),
        Variant(
            "head, BatchNorm at its end",
            {**_HEAD, "options": {"head": [256, 128], "head_norm": "output"}},
        ),
        Variant("contrastive (hinge)", {"method": "contrastive"}),
        Variant("triplet", {"method": "triplet"}),
        Variant("simclr (InfoNCE)", {"method": "simclr"}),
    ),
    claims=(
        Claim("Agreement alone collapses, on each of three backbones.", collapses(*_BARE)),
        Claim(
            "The squared distance between different images' features falls below 2 % of the "
            "start's within the run, and stays there.",
            _steps_to_collapse,
        ),
        Claim(
            "A head collapses as well, with BatchNorm or without.",
            every(
                collapses("head"),
                collapses("head, BatchNorm inside"),
                collapses("head, BatchNorm at its end"),
            ),
            "BatchNorm at a head's end fixes the variance of each coordinate, so that `z` cannot "
            "shrink to a point; it is left with few directions instead.",
        ),
        Claim(
            "With negatives (a hinge, triplets, InfoNCE) it does not collapse.",
            survives(*_NEGATIVES),
        ),
    ),
    papers=(
        "A constant output is a trivial solution of a siamese network without negatives (Chen and "
        "He, 2011.10566, section 1); VICReg with its invariance term alone collapses (Bardes et "
        "al., 2105.04906, 100 epochs on ImageNet).",
        "SimSiam without stop-gradient collapses with BatchNorm in its heads: 0.1 % against 67.7 % "
        "(2011.10566, section 4.1). A chance accuracy alone does not prove collapse (their "
        "footnote).",
    ),
    draw=_draw,
    columns=("knn", "linear", "std_h", "std_z", "effective_rank_z", "loss"),
)
