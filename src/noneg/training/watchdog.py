"""Says it as it happens when a run's embeddings collapse, and acts on it if asked to."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from noneg.diagnostics import Verdict, judge, judge_end
from noneg.evaluation.label_free import VIEWS, Meters
from noneg.files import save_json, whole_or_not_at_all
from noneg.training.causes import likely_causes
from noneg.training.config import TrainConfig
from noneg.training.engine import Engine
from noneg.training.metrics import Reporting

MOST_ROLLBACKS = 3

PROBATION = 5
"""Rows that weights must stay healthy for, since a collapse begins before it shows."""

Action = Literal["nothing", "stop", "rollback"]


@final
class Watchdog(Callback):
    """Judges every new row of metrics, and keeps verdict.json: what it says, and said before.

    It stands after `Reporting` and `Checkpoints` among the callbacks: it judges the one's rows, and
    keeps a checkpoint of the other's as checkpoints/healthy.ckpt where all stays well after it.
    """

    def __init__(self, directory: Path, config: TrainConfig, reporting: Reporting) -> None:
        """Watch the run in `directory`."""
        self.path = directory / "verdict.json"
        self.last = directory / "checkpoints" / "last.ckpt"
        self.healthy = directory / "checkpoints" / "healthy.ckpt"
        self.candidate = directory / "checkpoints" / "candidate.ckpt"
        self.rows_on_probation: int | None = None
        self.config = config
        self.reporting = reporting
        self.verdict: Verdict | None = None
        self.history: list[dict[str, Any]] = []
        self.rollbacks: list[int] = []
        self.stopped = False

    def conclude(self, meters: tuple[Meters, Meters] | None, images: int) -> Verdict:
        """The verdict on the whole run, with the meters of its end and its start where measured.

        Args:
            meters: of the trained network and of the random start.
            images: that they were measured on.
        """
        rows = self.reporting.rows()
        verdict = judge(self._considered(rows), total_steps=self.reporting.total_steps)
        if meters is not None:
            h = [each["h"] for each in meters]
            verdict = judge_end(verdict, *h, searches=images * (VIEWS - 1))
        self.verdict = verdict
        if not self.history or self.history[-1]["state"] != verdict.state:
            self._note(int(rows[-1]["step"]), verdict)
        self.write()
        return verdict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights at the start, where a rollback may have to go back as far."""
        if self.config.on_collapse == "rollback" and not self.healthy.exists():
            trainer.save_checkpoint(self.healthy)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Judge where there is a new row; all processes then do the same."""
        assert isinstance(pl_module, Engine)
        step = trainer.global_step
        if not self.reporting.is_due(step):
            return
        action: Action = "nothing"
        if trainer.is_global_zero:
            action = self._judge(step)
            if action == "nothing":
                self._keep_healthy(step)
        action = trainer.strategy.broadcast(action)
        if action == "rollback":
            self._roll_back(trainer, pl_module, step)
        if action == "stop":
            trainer.save_checkpoint(self.last)
            trainer.should_stop = True
            self.stopped = True

    def _judge(self, step: int) -> Action:
        rows = self._considered(self.reporting.history)
        verdict = judge(rows, total_steps=self.reporting.total_steps)
        self.verdict = verdict
        if not self.history or self.history[-1]["state"] != verdict.state:
            self._note(step, verdict)
            if verdict.is_alarm:
                self._say(f"step {step}: {verdict.state}. {verdict.sentence}")
                for cause in likely_causes(verdict.state, self.config):
                    self._say(f"  likely: {cause}")
        self.write()
        if not verdict.needs_action or self.config.on_collapse == "warn":
            return "nothing"
        if self.config.on_collapse == "stop" or len(self.rollbacks) == MOST_ROLLBACKS:
            return "stop"
        return "rollback"

    def _considered(self, rows: list[dict[str, float]]) -> list[dict[str, float]]:
        """Those since the last rollback; and the first, which is of the network at its start."""
        since = self.rollbacks[-1] if self.rollbacks else 0
        return rows[:1] + [row for row in rows[1:] if row["step"] > since]

    def _note(self, step: int, verdict: Verdict) -> None:
        self.history.append({"step": step, "state": verdict.state, "sentence": verdict.sentence})

    def _keep_healthy(self, step: int) -> None:
        if self.config.on_collapse != "rollback":
            return
        assert self.verdict is not None
        if self.verdict.state != "healthy":
            self.rows_on_probation = None
            return
        if self.rows_on_probation is not None:
            self.rows_on_probation += 1
            if self.rows_on_probation >= PROBATION:
                os.replace(self.candidate, self.healthy)
                self.rows_on_probation = None
        if self.rows_on_probation is None and step % self.config.checkpoint_every == 0:
            with whole_or_not_at_all(self.candidate) as unfinished:
                try:
                    # Checkpoints are replaced, never changed: a second name costs nothing.
                    os.link(self.last, unfinished)
                except OSError:
                    shutil.copyfile(self.last, unfinished)
            self.rows_on_probation = 0

    def _roll_back(self, trainer: Trainer, engine: Engine, step: int) -> None:
        state = torch.load(self.healthy, map_location="cpu", weights_only=True)
        engine.load_state_dict(state["state_dict"])
        optimizer = trainer.optimizers[0]
        optimizer.load_state_dict(state["optimizer_states"][0])
        engine.rate_factor /= 2
        self.rows_on_probation = None
        self.reporting.metering.forget()
        self.rollbacks.append(step)
        if trainer.is_global_zero:
            self._say(
                f"  back to the weights of step {state['global_step']}, and on from there at "
                f"{engine.rate_factor:g} of the learning rate "
                f"({len(self.rollbacks)} of {MOST_ROLLBACKS} rollbacks)"
            )
            entry = f"back to the weights of step {state['global_step']}"
            self.history.append({"step": step, "state": "rolled back", "sentence": entry})
            self.write()

    def write(self) -> None:
        """verdict.json, whole."""
        if self.verdict is None:
            return
        fields = asdict(self.verdict) | {
            "causes": likely_causes(self.verdict.state, self.config),
            "history": self.history,
        }
        save_json(self.path, fields)

    def _say(self, sentence: str) -> None:
        # Not print, which the progress bar would be drawn over.
        tqdm.write(sentence, file=None)

    def state_dict(self) -> dict[str, Any]:
        """What was said and done so far."""
        return {"history": list(self.history), "rollbacks": list(self.rollbacks)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.history = list(state_dict["history"])
        self.rollbacks = list(state_dict["rollbacks"])
