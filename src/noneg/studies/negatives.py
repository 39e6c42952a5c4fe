"""Who needs large batches, and what a memory bank buys and costs."""

from matplotlib.figure import Figure

from noneg.studies.figures import LABELS
from noneg.studies.judge import close, every, higher, loses_more
from noneg.studies.results import Results
from noneg.studies.study import Claim, Study, Variant

_METHODS = ("simclr", "triplet", "byol", "simsiam", "barlow_twins", "vicreg")
_BATCHES = (16, 64, 256)
_QUEUES = (256, 1024, 4096)
# The same number of images for every batch size, so a batch 4 times as large takes a quarter of
# the steps; the rate grows with its root, as Adam's should.
_RATE, _AT = 3e-3, 64


def _settings(method: str, batch: int, **options: object) -> dict[str, object]:
    wanted = _RATE * (batch / _AT) ** 0.5
    settings: dict[str, object] = {
        "method": method,
        "batch_size": batch,
        "learning_rate": round(wanted * 256 / batch, 6),
    }
    return {**settings, "options": options} if options else settings


def _name(method: str, batch: int) -> str:
    return f"{method}, {batch}"


def _draw(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    for axis, column, factor in ((left, "knn", 100), (right, "memory_mb", 1)):
        for method in _METHODS:
            points = [
                (batch, factor * results.mean(_name(method, batch), column))
                for batch in _BATCHES
                if results.values(_name(method, batch), column)
            ]
            if points:
                axis.plot(*zip(*points, strict=True), "o-", label=method, linewidth=1, markersize=3)
        for queue in _QUEUES:
            name = f"moco, 64, queue {queue}"
            if results.values(name, column):
                mean = factor * results.mean(name, column)
                axis.plot([64], [mean], "*", label=f"moco, queue {queue}")
        axis.set_xscale("log", base=2)
        axis.set_xlabel("batch size", fontsize=8)
        axis.set_ylabel(LABELS[column], fontsize=8)
        axis.tick_params(labelsize=7)
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize=6)


STUDY = Study(
    name="negatives",
    title="Negatives, large batches and memory banks",
    question="Contrastive losses learn from the other images of the batch. How do accuracy and "
    "peak memory depend on the batch size, for losses with negatives and without, at the same "
    "number of images seen? What does a queue of earlier embeddings (MoCo) buy, and what does it "
    "cost?",
    variants=(
        *(
            Variant(
                _name(method, batch),
                _settings(method, batch),
                quick=batch == 64 and method in ("simclr", "vicreg"),
                memory=True,
            )
            for batch in _BATCHES
            for method in _METHODS
        ),
        *(
            Variant(
                f"moco, 64, queue {queue}",
                _settings("moco", 64, queue=queue),
                quick=queue == 256,
                memory=True,
            )
            for queue in _QUEUES
        ),
    ),
    claims=(
        Claim(
            "SimCLR is better with batches of 64 than of 16.",
            higher("simclr, 64", "simclr, 16"),
        ),
        Claim(
            "SimCLR loses more from batches of 64 to 16 than VICReg and Barlow Twins do.",
            every(
                *(
                    loses_more(("simclr, 64", "simclr, 16"), (f"{method}, 64", f"{method}, 16"))
                    for method in ("vicreg", "barlow_twins")
                )
            ),
        ),
        Claim(
            "BYOL and SimSiam need no batches of 256: 64 is as good or better, to 2 points.",
            every(
                higher("byol, 64", "byol, 256", by=-0.02),
                higher("simsiam, 64", "simsiam, 256", by=-0.02),
            ),
        ),
        Claim(
            "At batches of 64, a queue of 4,096 is better than one of 256.",
            higher("moco, 64, queue 4096", "moco, 64, queue 256"),
        ),
        Claim(
            "A queue of 4,096 costs less memory than SimCLR's batches of 256.",
            higher("simclr, 256", "moco, 64, queue 4096", "memory_mb"),
        ),
        Claim(
            "Barlow Twins at 64 and 256 is within 3 points.",
            close("barlow_twins, 64", "barlow_twins, 256", within=0.03),
        ),
    ),
    papers=(
        "ImageNet, linear, batch 64 / 256 / 4096: BYOL 59.7 / 71.8 / 72.5, SimCLR 59.2 / 64.3 / "
        "67.9 (300 epochs; BYOL, 2006.07733); SimSiam 66.1 / 68.1 / 64.0 (100 epochs, 2011.10566); "
        "VICReg 67.3 at 128, 68.6 at 2048 (100 epochs, learning rates tuned for each).",
        "BYOL's table accumulates gradients to 4,096, so that only BatchNorm sees the small batch; "
        "at 64 that nearly erases its lead over SimCLR.",
        "Barlow Twins is best at 1,024 and almost unaffected at 256 (2103.03230, figure 2).",
    ),
    draw=_draw,
    columns=("knn", "linear", "memory_mb", "std_z", "effective_rank_z", "seconds"),
)
