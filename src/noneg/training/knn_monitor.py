"""Nearest-neighbor accuracy while a run trains. Labels are looked at, and change nothing."""

import csv
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from noneg.encoder import Encoder, EncoderInfo
from noneg.evaluation.knn import knn_accuracy
from noneg.evaluation.scores import matched_labels, sample_images
from noneg.images import Images
from noneg.training.engine import Engine


@final
class NeighborMonitor(Callback):
    """A row in knn.csv every so many epochs: step, epoch, views (seen so far), knn (in [0, 1])."""

    def __init__(
        self,
        directory: Path,
        every: int,
        bank: Images,
        test: Images,
        info: EncoderInfo,
        most: int,
    ) -> None:
        """Classify `test` by `bank`, at most `most` images of each; both have labels."""
        self.path = directory / "knn.csv"
        self.every = every
        self.bank = sample_images(bank, most)
        self.test = sample_images(test, most)
        self.info = info

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the backbone as it is."""
        assert isinstance(pl_module, Engine)
        epoch = trainer.global_step // pl_module.steps_per_epoch
        if trainer.should_stop or epoch % self.every or not trainer.is_global_zero:
            return
        encoder = Encoder(pl_module.method.backbone, self.info)
        features = [
            torch.from_numpy(
                encoder.embed_pixels(np.asarray(images.pixels), device=pl_module.device)
            )
            for images in (self.bank, self.test)
        ]
        pl_module.method.to(pl_module.device).train()
        labels = [torch.from_numpy(each) for each in matched_labels(self.bank, self.test)]
        knn = knn_accuracy(features[0], labels[0], features[1], labels[1])
        step = trainer.global_step
        views = step * pl_module.batch_size * len(pl_module.policy)
        self._write({"step": step, "epoch": epoch, "views": views, "knn": f"{knn:.4f}"})

    def _write(self, row: dict[str, Any]) -> None:
        rows = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                # A resumed run passes the epochs after its checkpoint a second time.
                rows = [old for old in csv.DictReader(file) if int(old["step"]) < row["step"]]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*rows, row])
