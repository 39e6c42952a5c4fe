"""Which losses need large batches, and what a memory bank gains and costs."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noneg.experiments.figures import LABELS
from noneg.experiments.judge import close, every, higher, loses_more
from noneg.experiments.results import ACCURACIES, Results
from noneg.experiments.study import Claim, Study, Variant

_METHODS = ("simclr", "triplet", "byol", "simsiam", "barlow_twins", "vicreg")
_BATCHES = (16, 64, 256, 512)
_QUEUES = (256, 1024, 4096)
# Every batch size sees the same number of images, so 4 times larger batches take a quarter of the
# steps. The learning rate grows with the square root of the batch size, the rule for Adam.
_RATE, _AT, _EPOCHS, _WARMUP = 3e-3, 64, 4, 0.3
# The same number of steps for every batch size: those of batches of 64 in 4 epochs.
_SAME_STEPS = (16, _AT, 256)
_STEPS = ", same steps"
_FEWER_STEPS = (
    "for the same number of images, batches of 64 take a quarter of the steps that batches of 16 "
    "take, and in a short run the number of steps matters more than the number of negatives."
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


def _with_queue(queue: int, batch: int) -> str:
    return f"moco, {batch}, queue {queue}"


def _stepwise(method: str, batch: int) -> str:
    return f"{method}, {batch}" + ("" if batch == _AT else _STEPS)


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
        names = {batch: f"{method}, {batch}" for batch in _BATCHES}
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
    chapter=2,
    title="Negatives, large batches and memory banks",
    question="Contrastive losses learn from the other images of the batch. How do accuracy and "
    "peak memory depend on the batch size, for losses with and without negatives? The comparison "
    "is made twice: for the same number of images, where large batches take fewer steps, and for "
    "the same number of steps, where large batches see more images. What does a queue of earlier "
    "embeddings (MoCo) gain, and what does it cost?",
    variants=(
        *(
            Variant(
                f"{method}, {batch}",
                _settings(method, batch),
                quick=batch == 64 and method in ("simclr", "vicreg"),
                measure_memory=True,
            )
            for batch in _BATCHES
            for method in _METHODS
        ),
        *(
            Variant(
                _with_queue(queue, batch),
                _settings("moco", batch, queue=queue),
                quick=(batch, queue) == (64, 256),
                measure_memory=True,
            )
            for batch in _BATCHES
            for queue in _QUEUES
            # The queue must hold the keys of both views of a batch.
            if queue >= 2 * batch
        ),
        *(
            Variant(_stepwise(method, batch), _same_steps(method, batch), quick=False)
            for batch in _SAME_STEPS
            if batch != _AT
            for method in _METHODS
        ),
    ),
    claims=(
        Claim(
            "SimCLR is better with batches of 64 than with batches of 16.",
            higher("simclr, 64", "simclr, 16"),
            _FEWER_STEPS,
        ),
        Claim(
            "From batches of 64 to 16, SimCLR loses more than VICReg and Barlow Twins do.",
            every(
                *(
                    loses_more(("simclr, 64", "simclr, 16"), (f"{method}, 64", f"{method}, 16"))
                    for method in ("vicreg", "barlow_twins")
                )
            ),
            _FEWER_STEPS,
        ),
        Claim(
            "For the same number of steps, SimCLR gains more from batches of 16 to 256 than VICReg "
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
            "BYOL and SimSiam do not need batches of 256: with 64 they are at most 2 points worse.",
            every(
                higher("byol, 64", "byol, 256", by=-0.02),
                higher("simsiam, 64", "simsiam, 256", by=-0.02),
            ),
        ),
        Claim(
            "With batches of 64, a queue of 4,096 is better than a queue of 256.",
            higher("moco, 64, queue 4096", "moco, 64, queue 256"),
        ),
        Claim(
            "With batches of 16, MoCo with a queue of 4,096 is better than SimCLR, whose negatives "
            "come from the batch only.",
            higher("moco, 16, queue 4096", "simclr, 16"),
            "at a momentum of 0.99 the key network lags about a hundred steps behind, which is "
            "long in a short run; also, only MoCo's queries receive a gradient, but both views of "
            "SimCLR do.",
        ),
        Claim(
            "MoCo with a queue of 4,096 needs less memory than SimCLR with batches of 256.",
            higher("simclr, 256", "moco, 64, queue 4096", "memory_mb"),
        ),
        Claim(
            "With batches of 256, BYOL needs more memory than SimSiam, for its second network.",
            higher("byol, 256", "simsiam, 256", "memory_mb"),
        ),
        Claim(
            "Barlow Twins with batches of 64 and of 256 differs by at most 3 points.",
            close("barlow_twins, 64", "barlow_twins, 256", within=0.03),
        ),
    ),
    papers=(
        "ImageNet, linear, batch 64 / 256 / 4096: BYOL 59.7 / 71.8 / 72.5, SimCLR 59.2 / 64.3 / "
        "67.9 (300 epochs; BYOL, 2006.07733); SimSiam 66.1 / 68.1 / 64.0 (100 epochs, 2011.10566); "
        "VICReg 67.3 at 128, 68.6 at 2048 (100 epochs, learning rates tuned for each).",
        "In BYOL's table gradients are accumulated up to 4,096 images, so only BatchNorm sees the "
        "small batch; at 64 its lead over SimCLR nearly vanishes.",
        "Barlow Twins is best at 1,024 and hardly worse at 256 (2103.03230, figure 2).",
    ),
    draw=_draw,
    columns=("knn", "linear", "memory_mb", "std_z", "effective_rank_z", "seconds"),
)
