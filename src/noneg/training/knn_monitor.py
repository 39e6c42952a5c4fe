"""Nearest-neighbor accuracy during training. Labels do not influence the training."""

from typing import final

import numpy as np
import torch

from noneg.encoder import Encoder, EncoderInfo
from noneg.evaluation.scores import matched_labels, sample_images, whitened_knn_accuracy
from noneg.images import Images
from noneg.methods.base import Method
from noneg.records.directory import RunDirectory


@final
class KNNMonitor:
    """Writes rows of knn.csv: step, epoch (from 1), views (seen so far), knn (in [0, 1]).

    knn is measured as in scores.json, on whitened features.
    """

    def __init__(
        self, run: RunDirectory, parts: tuple[Images, Images], info: EncoderInfo, most: int
    ) -> None:
        """Classify the second of `parts` by the first, with at most `most` images of each."""
        self.table = run.knn
        self.bank, self.test = (sample_images(part, most) for part in parts)
        self.info = info

    def begin(self, step: int) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint."""
        self.table.forget_after(step)

    def measure(
        self, step: int, epoch: int, views: int, method: Method, device: torch.device
    ) -> None:
        """Score the backbone as it is now; the method is in training mode afterwards."""
        encoder = Encoder(method.backbone, self.info)
        bank, test = (
            encoder.embed_pixels(np.asarray(images.pixels), device=device)
            for images in (self.bank, self.test)
        )
        method.to(device).train()
        bank_labels, test_labels = matched_labels(self.bank, self.test)
        knn = whitened_knn_accuracy(bank, bank_labels, test, test_labels)
        self.table.append({"step": step, "epoch": epoch, "views": views, "knn": f"{knn:.4f}"})
