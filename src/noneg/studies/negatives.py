"""Who needs large batches, and what a memory bank buys and costs."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noneg.experiments.figures import LABELS
from noneg.experiments.judge import close, every, higher, loses_more
from noneg.experiments.results import ACCURACIES, Results
from noneg.experiments.study import Claim, Study, Variant

_METHODS = ("simclr", "triplet", "byol", "simsiam", "barlow_twins", "vicreg")
_BATCHES = (16, 64, 256, 512)
_QUEUES = (256, 1024, 4096)
# The same number of images for every batch size, so a batch 4 times as large takes a quarter of
# the steps; the rate grows with its root, as Adam's should.
_RATE, _AT, _EPOCHS, _WARMUP = 3e-3, 64, 4, 0.3
# What the batch itself does shows at the same number of steps, as of 64 images and 4 epochs.
_SAME_STEPS = (16, _AT, 256)
_STEPS = ", same steps"
_FEWER_STEPS = (
    "at the same number of images a batch of 64 takes a quarter of the steps of one of 16, and in "
    "a short run steps count for more than negatives."
)


def _settings(method: str, batch: int, **options: object) -> dict[str, object]:
    wanted = _RATE * (batch / _AT) ** 0.5
    settings: dict[str, object] = {
        "method": method,
        "batch_size": batch,
        "learning_rate": round(wanted * 256 / batch, 6),
    }
    return {**settings, "options": options} if options else settings


def _same_steps(method: str, batch: int) -> dict[str, object]:
    more = batch / _AT
    return {
        **_settings(method, batch),
        "epochs": max(1, round(_EPOCHS * more)),
        "warmup_epochs": round(_WARMUP * more, 3),
    }


def _name(method: str, batch: int) -> str:
    return f"{method}, {batch}"


def _with_queue(queue: int, batch: int) -> str:
    return f"moco, {batch}, queue {queue}"


def _stepwise(method: str, batch: int) -> str:
    return _name(method, batch) + ("" if batch == _AT else _STEPS)


def _curve(
    axis: Axes, results: Results, column: str, label: str, names: dict[int, str], style: str
) -> None:
    factor = 100 if column in ACCURACIES else 1
    points = [
        (batch, factor * results.mean(name, column))
        for batch, name in names.items()
        if results.values(name, column)
    ]
    if points:
        axis.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=3)


def _draw(results: Results, figure: Figure) -> None:
    images, steps, memory = figure.subplots(1, 3)
    for method in _METHODS:
        names = {batch: _name(method, batch) for batch in _BATCHES}
        stepwise = {batch: _stepwise(method, batch) for batch in _SAME_STEPS}
        _curve(images, results, "knn", method, names, "o-")
        _curve(steps, results, "knn", method, stepwise, "o-")
        _curve(memory, results, "memory_mb", method, names, "o-")
    for queue, style in zip(_QUEUES, ("*:", "*--", "*-."), strict=True):
        names = {batch: _with_queue(queue, batch) for batch in _BATCHES}
        for axis, column in ((images, "knn"), (memory, "memory_mb")):
            _curve(axis, results, column, f"moco, queue {queue}", names, style)
    for axis, title, column in (
        (images, "same images", "knn"),
        (steps, "same steps", "knn"),
        (memory, "memory", "memory_mb"),
    ):
        axis.set_title(title, fontsize=8)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("batch size", fontsize=8)
        axis.set_ylabel(LABELS[column], fontsize=8)
        axis.tick_params(labelsize=7)
    if memory.get_legend_handles_labels()[0]:
        memory.legend(fontsize=5)


STUDY = Study(
    name="negatives",
    title="Negatives, large batches and memory banks",
    question="Contrastive losses learn from the other images of the batch. How do accuracy and "
    "peak memory depend on the batch size, for losses with negatives and without: at the same "
    "number of images seen, where large batches have few steps, and at the same number of steps, "
    "where they see more images? What does a queue of earlier embeddings (MoCo) buy, and what does "
    "it cost?",
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
                _with_queue(queue, batch),
                _settings("moco", batch, queue=queue),
                quick=(batch, queue) == (64, 256),
                memory=True,
            )
            for batch in _BATCHES
            for queue in _QUEUES
            # Both views' keys of a batch must fit.
            if queue >= 2 * batch
        ),
        *(
            Variant(_name(method, batch) + _STEPS, _same_steps(method, batch), quick=False)
            for batch in _SAME_STEPS
            if batch != _AT
            for method in _METHODS
        ),
    ),
    claims=(
        Claim(
            "SimCLR is better with batches of 64 than of 16.",
            higher("simclr, 64", "simclr, 16"),
            _FEWER_STEPS,
        ),
        Claim(
            "SimCLR loses more from batches of 64 to 16 than VICReg and Barlow Twins do.",
            every(
                *(
                    loses_more(("simclr, 64", "simclr, 16"), (f"{method}, 64", f"{method}, 16"))
                    for method in ("vicreg", "barlow_twins")
                )
            ),
            _FEWER_STEPS,
        ),
        Claim(
            "At the same number of steps, SimCLR gains more from batches of 16 to 256 than VICReg "
            "and Barlow Twins do.",
            every(
                *(
                    loses_more(
                        (_stepwise("simclr", 256), _stepwise("simclr", 16)),
                        (_stepwise(method, 256), _stepwise(method, 16)),
                    )
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
            "At batches of 16, a queue of 4,096 is better than SimCLR, which has the batch alone.",
            higher("moco, 16, queue 4096", "simclr, 16"),
            "in a short run the keys' network lags behind, by some hundred steps at a momentum of "
            "0.99; and only queries pass on a gradient, where both views of SimCLR do.",
        ),
        Claim(
            "A queue of 4,096 costs less memory than SimCLR's batches of 256.",
            higher("simclr, 256", "moco, 64, queue 4096", "memory_mb"),
        ),
        Claim(
            "At batches of 256 BYOL, with its second network, costs more memory than SimSiam.",
            higher("byol, 256", "simsiam, 256", "memory_mb"),
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
