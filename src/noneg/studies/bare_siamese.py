"""A loss that only asks two views to agree: does the network collapse, and after how many steps?"""

from matplotlib.figure import Figure

from noneg.experiments.figures import bars, curves
from noneg.experiments.judge import COLLAPSED_DISTANCE, SEEDS_NEEDED, collapses, every, survives
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Outcome, Study, Variant

_OTHER_BACKBONES = ("test_byobnet", "test_efficientnet")
_BARE = ("siamese", *(f"siamese, {name}" for name in _OTHER_BACKBONES))
_NEGATIVES = ("contrastive (hinge)", "triplet", "simclr (InfoNCE)")
_NORMS = {"": "none", ", BatchNorm inside": "hidden", ", BatchNorm at its end": "output"}
_HEADS = {f"head{name}": norm for name, norm in _NORMS.items()}


def _with_head(name: str, norm: str) -> Variant:
    options = {"head": [256, 128], "head_norm": norm}
    return Variant(name, {"method": "siamese", "learning_rate": 0.012, "options": options})


def _steps_to_collapse(results: Results) -> Outcome:
    """The first step after which the squared distance between images stays below the limit."""
    parts, all_fell = [], True
    for variant in _BARE:
        steps = []
        for run in results.of(variant):
            at, norms = run.training_curve("norm_h")
            _, cosines = run.training_curve("mean_cosine_h")
            left = [norm**2 * (1 - cosine) for norm, cosine in zip(norms, cosines, strict=True)]
            apart = [
                step
                for step, value in zip(at, left, strict=True)
                if value >= COLLAPSED_DISTANCE * left[0]
            ]
            if run.diverged is None and apart and apart[-1] < at[-1]:
                steps.append(next(step for step in at if step > apart[-1]))
            else:
                all_fell = False
        shown = ", ".join(str(step) for step in sorted(steps)) or "never"
        parts.append(f"{variant}: step {shown}")
    few = any(len(results.of(variant)) < SEEDS_NEEDED for variant in _BARE)
    return Outcome(None if few else all_fell, "; ".join(parts))


def _draw(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    shown = (*_BARE, "triplet", "simclr (InfoNCE)")
    curves(left, results, "std_z", shown)
    bars(right, results, "std_z")


STUDY = Study(
    name="bare-siamese",
    chapter=1,
    title="The bare Siamese network",
    question="Two views of an image go through one network, and the loss is the mean squared error "
    "between the two outputs. A constant output has error 0. Does training end there, on three "
    "backbones, and after how many steps? Does a head with BatchNorm prevent it? Do negatives?",
    variants=(
        Variant("siamese", {"method": "siamese"}),
        *(Variant(f"siamese, {n}", {"method": "siamese", "backbone": n}) for n in _OTHER_BACKBONES),
        *(_with_head(name, norm) for name, norm in _HEADS.items()),
        Variant("contrastive (hinge)", {"method": "contrastive"}),
        Variant("triplet", {"method": "triplet"}),
        Variant("simclr (InfoNCE)", {"method": "simclr"}),
    ),
    claims=(
        Claim("Agreement alone leads to collapse, on each of three backbones.", collapses(*_BARE)),
        Claim(
            "During the run, the squared distance between the features of different images falls "
            "below 2 % of its initial value and stays there.",
            _steps_to_collapse,
        ),
        Claim(
            "With a head it collapses as well, whether or not the head has BatchNorm.",
            every(*map(collapses, _HEADS)),
            "BatchNorm at the end of a head fixes the variance of each coordinate, so `z` cannot "
            "shrink to a point; instead it keeps only a few directions.",
        ),
        Claim("With negatives (hinge, triplet, InfoNCE) it survives.", survives(*_NEGATIVES)),
    ),
    papers=(
        "A constant output is a trivial solution of a Siamese network without negatives (Chen and "
        "He, 2011.10566, section 1); VICReg with its invariance term alone collapses (Bardes et "
        "al., 2105.04906, 100 epochs on ImageNet).",
        "SimSiam without stop-gradient collapses although its heads have BatchNorm: 0.1 % against "
        "67.7 % (2011.10566, section 4.1). Chance accuracy by itself does not prove collapse "
        "(their footnote).",
    ),
    draw=_draw,
    columns=("knn", "linear", "std_h", "std_z", "effective_rank_z", "loss"),
)
