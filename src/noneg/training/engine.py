"""The engine: one training step, from top to bottom, under Lightning's Trainer."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, final

import numpy as np
import torch
from jaxtyping import UInt8
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from noneg.errors import DivergedError
from noneg.images import PixelsOnDemand
from noneg.methods.base import Embeddings, Loss, Method
from noneg.networks.norms import freeze_statistics
from noneg.randomness import hash_key
from noneg.training.batches import Batches
from noneg.training.config import TrainConfig
from noneg.training.distributed import shard
from noneg.training.optimizers import build_optimizer, rate_share, set_learning_rates
from noneg.training.step import Views, compute_gradient, compute_gradient_in_chunks
from noneg.views import draw_views


@final
class Engine(LightningModule):
    """Trains a method on uint8 pixels."""

    def __init__(
        self,
        method: Method,
        pixels: UInt8[np.ndarray, "images channels height width"] | PixelsOnDemand,
        config: TrainConfig,
        *,
        batch_size: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Keep what a step needs; mean and std are of each channel, on pixels in [0, 1]."""
        super().__init__()
        self.automatic_optimization = False
        self.method = method
        self.pixels = pixels
        self.config = config
        self.batch_size = batch_size
        self.size = size
        self.policy = config.policy(size)
        self.mean = mean
        self.std = std
        self.steps_per_epoch = len(pixels) // batch_size
        self.total_steps = config.epochs * self.steps_per_epoch
        self.is_sharded = False
        self.rate_factor = 1.0
        self.latest: tuple[Loss, Embeddings] | None = None
        self._views: Views | None = None

    def train_dataloader(self) -> Batches:
        """This rank's batches, from the current step on."""
        return Batches(
            self.pixels,
            self.batch_size,
            self.config.seed,
            lambda: self.global_step,
            self.global_rank,
            self.trainer.world_size,
        )

    def configure_model(self) -> None:
        """Spread the weights over the processes, where that was asked for."""
        if self.config.strategy == "fsdp" and not self.is_sharded:
            shard(self.method)
            self.is_sharded = True

    def configure_optimizers(self) -> Optimizer:
        """One optimizer; its learning rates are set at every step."""
        return build_optimizer(self.method, self.config, self.batch_size)

    def transfer_batch_to_device(
        self, batch: tuple[Tensor, Tensor], device: torch.device, dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        """The images alone: views are drawn by numbers that the CPU computes from the index."""
        images, index = batch
        return images.to(device, non_blocking=True), index

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Images -> views -> embeddings -> whole batch -> loss -> gradient -> new weights."""
        number = self.global_step
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        step, whole = self._compute_gradient(*batch, seed=hash_key(self.config.seed, number))
        self._stop_if_not_finite(step, number)
        share = rate_share(number, self.total_steps, self.warmup_steps)
        set_learning_rates(optimizer.optimizer, share, self.rate_factor)
        optimizer.step()
        self.method.after_step((number + 1) / self.total_steps)
        if (number + 1) % self.steps_per_epoch == 0:
            self.method.after_epoch()
        self.latest = step, whole

    def _compute_gradient(
        self, images: Tensor, index: Tensor, seed: int
    ) -> tuple[Loss, Embeddings]:
        if self.config.norm == "frozen":
            # Lightning's and our own .train() switch them on again.
            freeze_statistics(self.method)
        chunk_size = self.config.chunk_size or len(index)
        which = index.to(images.device)
        if chunk_size >= len(index):
            views = self._draw(images, index)
            return compute_gradient(self.method, views, which, self.manual_backward, seed=seed)
        strategy = self.trainer.strategy
        return compute_gradient_in_chunks(
            self.method,
            lambda part: self._draw(images[part], index[part]),
            which,
            chunk_size,
            self.manual_backward,
            seed=seed,
            without_averaging=strategy.block_backward_sync
            if isinstance(strategy, ParallelStrategy)
            else nullcontext,
        )

    def _draw(self, images: Tensor, index: Tensor) -> Views:
        """Images -> views, on the device, and outside of the network's lower precision."""
        with torch.autocast(images.device.type, enabled=False):
            self._views = draw_views(
                images,
                index,
                self.policy,
                size=self.size,
                seed=self.config.seed,
                epoch=self.global_step // self.steps_per_epoch,
                mean=self.mean,
                std=self.std,
                # Those drawn last are done with: memory at hand costs no page faults.
                out=self._views,
            )
        return self._views

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up, at most a tenth of the run."""
        asked = round(self.config.warmup_epochs * self.steps_per_epoch)
        return min(asked, self.total_steps // 10)

    def _stop_if_not_finite(self, step: Loss, number: int) -> None:
        loss = float(step.value.detach())
        if not math.isfinite(loss):
            terms = ", ".join(
                f"{name} {float(value.detach()):.4g}" for name, value in step.terms.items()
            )
            raise DivergedError(
                f"the loss is {loss} at step {number} ({terms}): lower --learning_rate "
                f"(now {self.config.learning_rate:g}) or use --precision 32-true; "
                "the last good checkpoint is kept"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on at the learning rate that a rollback left."""
        self.rate_factor = checkpoint.get("rate_factor", 1.0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to write weights that are not finite over good ones."""
        checkpoint["rate_factor"] = self.rate_factor
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise DivergedError(
                    f"the weights {name} are not finite at step {self.global_step}: lower "
                    f"--learning_rate (now {self.config.learning_rate:g}); "
                    "the last good checkpoint is kept"
                )
