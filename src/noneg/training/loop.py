"""The training loop: step, row, checkpoint, verdict, stop."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, cast, final

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from noneg.encoder import EncoderInfo
from noneg.errors import DivergedError, NonegError
from noneg.images import Images
from noneg.methods.base import Embeddings, Loss, Method
from noneg.networks.layers import freeze_statistics_of_frozen_layers
from noneg.networks.norms import freeze_statistics
from noneg.progress import progress_bar, say_above
from noneg.randomness import hash_key
from noneg.records.directory import RunDirectory
from noneg.training.batches import batches
from noneg.training.checkpoints import (
    FORMAT,
    StopRequest,
    read_checkpoint,
    unusable,
    write_checkpoint,
)
from noneg.training.distributed import (
    is_first_process,
    load_whole_state,
    on_any_process,
    say,
    synchronize_statistics,
    whole_state,
)
from noneg.training.faults import how_to_go_on
from noneg.training.knn_monitor import KNNMonitor
from noneg.training.launch import quiet_lightning
from noneg.training.loggers import open_loggers
from noneg.training.metrics import Metrics, summarize
from noneg.training.optimizers import (
    anchors_of,
    build_optimizer,
    pull_back,
    rate_share,
    set_learning_rates,
)
from noneg.training.plan import Plan, steps_of
from noneg.training.step import Views, compute_gradient, compute_gradient_in_chunks
from noneg.training.watchdog import Action, Rows, Watchdog
from noneg.views import draw_views


class Observer(ABC):
    """Watches a run on the first process during training, and changes nothing."""

    @abstractmethod
    def begin(self, step: int, total_steps: int) -> None:
        """Training starts or resumes after `step` steps: drop rows of later steps."""

    @abstractmethod
    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Called after each step, without gradient. Steps count from 1, epochs from 0."""


def train_method(
    fabric: Fabric,
    method: Method,
    images: Images,
    plan: Plan,
    info: EncoderInfo,
    run: RunDirectory,
    *,
    parts: tuple[Images, Images] | None = None,
    start_rows: Rows = (),
    observers: Sequence[Observer] = (),
    progress: bool = True,
) -> Watchdog:
    """Train the method's weights in place, from the last checkpoint if there is one.

    Args:
        fabric: launched, with all processes.
        method: the method to train.
        images: the images to train on.
        plan: the plan of the run.
        info: describes the encoder, with the mean and std of the images.
        run: the directory for rows, checkpoints and the verdict.
        parts: labeled images for `--knn-every`: to learn from and to test on.
        start_rows: of a continued run: the first rows of the run that began with untrained weights.
        observers: called at every step.
        progress: show a progress bar.

    Returns:
        The watchdog of the run, with the last verdict.

    Raises:
        NonegError: the loss or the weights are not finite, or the checkpoint cannot be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    config, steps = plan.config, steps_of(plan, len(images.pixels))
    is_first = is_first_process()
    metrics = Metrics(run, plan, steps)
    watchdog = Watchdog(run, config, metrics, say_above, start_rows)
    state = State(fabric, method, plan, info, metrics, watchdog)
    step = state.restore(run)
    knn = (
        KNNMonitor(run, parts, info, config.evaluation_images)
        if parts and config.knn_every and is_first
        else None
    )
    if is_first:
        metrics.begin(step)
        for observer in observers:
            observer.begin(step, steps.total)
    if knn:
        knn.begin(step)
    loggers = open_loggers(config.logger, run.path, run.read_config() or {}) if is_first else []
    stop_now = False
    stop = StopRequest()
    bar = progress_bar(
        total=steps.total, initial=step, desc="train", unit="steps", shown=progress and is_first
    )
    with stop.listening(), bar, quiet_lightning(), ExitStack() as ending:
        for logger in loggers:
            ending.callback(logger.close)
        for number, pixels, index in batches(
            images.pixels, plan.batch_size, config.seed,
            range(steps.before + step, steps.before + steps.total),
            rank=fabric.global_rank, ranks=fabric.world_size,
        ):  # fmt: skip
            loss, embeddings = state.take_step(number, pixels, index)
            step, epoch = number - steps.before + 1, (number - steps.before) // steps.per_epoch
            bar.update()

            if is_first:
                metrics.metering.see(embeddings)
                with torch.no_grad():
                    for observer in observers:
                        observer.observe(step, epoch, method, embeddings)
            if is_first and metrics.is_due(step):
                rate = state.raw_optimizer.param_groups[0]["lr"]
                row = metrics.write_row(step, loss, rate, method, embeddings)
                for logger in loggers:
                    logger.log(row, step)
                bar.set_postfix_str(summarize(row, loss), refresh=False)

            stop_now = on_any_process(stop.received, fabric.device)
            if stop_now or step % config.checkpoint_every == 0 or step == steps.total:
                state.save(run.last_checkpoint, step)

            if metrics.is_due(step):
                action: Action = watchdog.judge(step) if is_first else "nothing"
                action = fabric.broadcast(action)
                if action == "rollback":
                    state.roll_back(run, step)
                if action == "stop":
                    state.save(run.last_checkpoint, step)
                    watchdog.stopped = stop_now = True

            if knn and step % (config.knn_every * steps.per_epoch) == 0 and not stop_now:
                shown = step * plan.batch_size * len(plan.policy)
                knn.measure(step, epoch + 1, shown, method, fabric.device)
            if stop_now:
                break
    if stop_now and not watchdog.stopped and step < steps.total:
        raise KeyboardInterrupt(how_to_go_on(run))
    return watchdog


@final
class _EmbedInForward(nn.Module):
    """A method for data-parallel training, which wraps `forward`: here it embeds."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Views, key: int, index: Tensor) -> dict[str, Tensor]:
        e = self.method.embed_in_step(views, key, index)
        named = {"h": e.h, "z": e.z, "p": e.p, "t": e.t}
        return {name: value for name, value in named.items() if value is not None}


@final
class State:
    """The state in a checkpoint: weights, optimizer, meters, and the history of verdicts."""

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        plan: Plan,
        info: EncoderInfo,
        metrics: Metrics,
        watchdog: Watchdog,
    ) -> None:
        """Set up network and optimizer on all processes; the arguments are `train_method`'s."""
        self.fabric, self.method, self.plan, self.info = fabric, method, plan, info
        self.metrics, self.watchdog = metrics, watchdog
        self.views: Views | None = None
        self.rate_factor = 1.0
        self.is_sharded = plan.config.strategy == "fsdp"
        if fabric.world_size > 1:
            share = plan.batch_size // fabric.world_size
            say(f"{fabric.world_size} processes, {share} images of each batch on each")
            synchronize_statistics(method, on_gpus=fabric.device.type == "cuda")
        with quiet_lightning():
            self.network = fabric.setup_module(_EmbedInForward(method).train())
        self.raw_optimizer = build_optimizer(method, plan.config, plan.batch_size)
        self.optimizer = cast(Optimizer, fabric.setup_optimizers(self.raw_optimizer))
        # Before a checkpoint is restored, the weights are those that the run began with.
        self.anchors = anchors_of(method.backbone) if plan.config.pull else {}

    def take_step(self, number: int, pixels: Tensor, index: Tensor) -> tuple[Loss, Embeddings]:
        """Draw the views of a batch, and change the weights by one step of the optimizer.

        Args:
            number: of the step, as `batches` counts.
            pixels: this process's images, uint8 [B, C, H, W].
            index: their numbers in the data set, int64 [B].

        Returns:
            The loss and the embeddings of the whole batch, with the weights before the step.

        Raises:
            DivergedError: the loss is not finite.
        """
        plan, steps = self.plan, self.metrics.steps
        done, epoch = number - steps.before, number // steps.per_epoch
        pixels = pixels.to(self.fabric.device, non_blocking=True)

        def draw(part: slice) -> Views:
            # Reuse the tensors of the previous step: allocated memory causes no page faults.
            self.views = draw_views(
                pixels[part], index[part], plan.policy, size=plan.size, seed=plan.config.seed,
                epoch=epoch, mean=self.info.mean, std=self.info.std, out=self.views,
            )  # fmt: skip
            return self.views

        self.optimizer.zero_grad()
        loss, embeddings = self._gradient(draw, index, seed=hash_key(plan.config.seed, number))
        _stop_if_not_finite(loss, done, plan)
        share = rate_share(done, steps.total, steps.warmup)
        moved = done - steps.heads_first
        backbone_share = (
            rate_share(moved, steps.total - steps.heads_first, steps.warmup) if moved >= 0 else 0.0
        )
        set_learning_rates(self.raw_optimizer, share, self.rate_factor, backbone_share)
        self.optimizer.step()
        pull_back(self.raw_optimizer, self.anchors, plan.config.pull)
        self.method.after_step((done + 1) / steps.total)
        if (done + 1) % steps.per_epoch == 0:
            self.method.after_epoch()
        return loss, embeddings

    def _gradient(
        self, draw: Callable[[slice], Views], index: Tensor, seed: int
    ) -> tuple[Loss, Embeddings]:
        """Images -> views -> embeddings -> whole batch -> loss -> gradient."""
        if self.plan.config.norm == "frozen":
            # `.train()` has switched their updates on again.
            freeze_statistics(self.method)
        elif self.plan.config.freeze:
            freeze_statistics_of_frozen_layers(self.method.backbone)
        method, backward = self.method, self.fabric.backward
        which = index.to(self.fabric.device)
        chunk_size = self.plan.config.chunk_size or len(index)

        def embed(views: Views, key: int, index: Tensor) -> Embeddings:
            return Embeddings(**self.network(views, key, index))

        if chunk_size >= len(index):
            views = draw(slice(None))
            return compute_gradient(method, views, which, backward, embed=embed, seed=seed)
        return compute_gradient_in_chunks(
            method,
            draw,
            which,
            chunk_size,
            backward,
            embed=embed,
            seed=seed,
            without_averaging=(lambda: self.fabric.no_backward_sync(self.network))
            if self.fabric.world_size > 1
            else nullcontext,
        )

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint; all processes must call it."""
        weights, optimizer = whole_state(
            self.network.module, self.raw_optimizer, is_sharded=self.is_sharded
        )
        fault: Exception | None = None
        if is_first_process():
            try:
                write_checkpoint(path, self._content(step, weights, optimizer))
            except NonegError as error:
                fault = error
        # The others wait here until the file is written, and end if it cannot be.
        if on_any_process(fault is not None, self.fabric.device):
            if fault is None:
                fault = NonegError("the first process cannot write a checkpoint")
                fault.is_reported = True
            raise fault

    def _content(
        self, step: int, weights: dict[str, Any], optimizer: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "global_step": step,
            "state_dict": weights,
            "optimizer_states": [optimizer],
            "rate_factor": self.rate_factor,
            "precision": self.fabric.strategy.precision.state_dict(),
            "metering": self.metrics.metering.state_dict(),
            "watchdog": self.watchdog.state_dict(),
        }

    def restore(self, run: RunDirectory) -> int:
        """Continue from the last checkpoint, if there is one; returns the number of steps done."""
        self.metrics.metering.set_precision(self.plan.config.precision)
        run.last_checkpoint.parent.mkdir(exist_ok=True)
        step = 0
        if run.last_checkpoint.exists():
            checkpoint = read_checkpoint(run.last_checkpoint)
            try:
                self._load(checkpoint)
                self.rate_factor = checkpoint.get("rate_factor", 1.0)
                self.fabric.strategy.precision.load_state_dict(checkpoint["precision"])
                self.metrics.metering.load_state_dict(checkpoint["metering"])
                self.watchdog.load_state_dict(checkpoint["watchdog"])
                step = int(checkpoint["global_step"])
            except (
                *(RuntimeError, LookupError, ValueError, TypeError, AttributeError),
                *(ArithmeticError, AssertionError),
            ) as error:
                raise unusable(run.last_checkpoint, error) from error
        if self.plan.config.on_collapse == "rollback" and not run.healthy_checkpoint.exists():
            # A rollback may have to go back to the untrained weights.
            self.save(run.healthy_checkpoint, step)
        return step

    def _load(self, checkpoint: dict[str, Any]) -> None:
        load_whole_state(
            self.network.module,
            self.raw_optimizer,
            checkpoint["state_dict"],
            checkpoint["optimizer_states"][0],
            is_sharded=self.is_sharded,
        )

    def roll_back(self, run: RunDirectory, step: int) -> None:
        """Continue from the last healthy weights, at half the learning rate."""
        checkpoint = read_checkpoint(run.healthy_checkpoint)
        self._load(checkpoint)
        self.rate_factor /= 2
        self.metrics.metering.forget()
        to_step = int(checkpoint["global_step"])
        if is_first_process():
            self.watchdog.rolled_back(step, to_step=to_step, rate_factor=self.rate_factor)


def _stop_if_not_finite(loss: Loss, step: int, plan: Plan) -> None:
    value = float(loss.value.detach())
    if math.isfinite(value):
        return
    terms = ", ".join(f"{name} {float(each.detach()):.4g}" for name, each in loss.terms.items())
    error = DivergedError(
        f"the loss is {value} at step {step} ({terms}): lower --learning-rate (now "
        f"{plan.config.learning_rate:g}) or use --precision 32-true; the last good checkpoint is "
        "kept"
    )
    error.is_reported = not is_first_process()
    raise error
