"""Reports a collapse of the embeddings when it happens, and acts as `--on-collapse` says."""

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, final

from noneg.diagnostics import Verdict, judge, judge_end
from noneg.evaluation.label_free import VIEWS
from noneg.files import whole_or_not_at_all
from noneg.methods import find_method
from noneg.methods.base import Failure
from noneg.records.contents import Meters
from noneg.records.directory import RunDirectory
from noneg.training.causes import likely_causes
from noneg.training.config import TrainConfig
from noneg.training.metrics import Metrics

MOST_ROLLBACKS = 3

PROBATION = 5
"""Weights are kept as healthy after this many more healthy rows: a collapse starts unseen."""

Action = Literal["nothing", "stop", "rollback"]
Rows = Sequence[Mapping[str, float]]


@final
class Watchdog:
    """Judges every new row of metrics, and writes verdicts with their history to verdict.json.

    Attributes:
        verdict: the last verdict.
        stopped: whether the run was stopped early.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        metrics: Metrics,
        say: Callable[[str], None],
        start_rows: Rows = (),
    ) -> None:
        """Watch the run.

        Args:
            run: where verdicts are written.
            config: of the run.
            metrics: of the run.
            say: prints a line above the progress bar.
            start_rows: of a continued run: the first rows of the run that began with untrained
                weights.
        """
        self.start_rows = start_rows
        self.run = run
        self.config = config
        self.metrics = metrics
        self.say = say
        self.verdict: Verdict | None = None
        self.history: list[dict[str, Any]] = []
        self.rollbacks: list[int] = []
        self.rows_on_probation: int | None = None
        self.stopped = False

    def judge(self, step: int) -> Action:
        """Judge the run after its newest row, and keep the checkpoint if the run is healthy."""
        rows = self._considered(self.metrics.history)
        verdict = self.verdict = self._judge(rows)
        if not self.history or self.history[-1]["state"] != verdict.state:
            self._note(step, verdict)
            if verdict.is_alarm:
                self.say(f"step {step}: {verdict.state}. {verdict.sentence}")
                for cause in likely_causes(verdict.state, self.config):
                    self.say(f"  likely: {cause}")
        self._write(verdict)
        if not verdict.needs_action or self.config.on_collapse == "warn":
            self._keep_healthy(step, verdict)
            return "nothing"
        if self.config.on_collapse == "stop" or len(self.rollbacks) == MOST_ROLLBACKS:
            return "stop"
        return "rollback"

    def rolled_back(self, step: int, *, to_step: int, rate_factor: float) -> None:
        """Record that training continues from `to_step`, at a lower learning rate."""
        self.rows_on_probation = None
        self.rollbacks.append(step)
        self.say(
            f"  back to the weights of step {to_step}; training continues at {rate_factor:g} of "
            f"the learning rate ({len(self.rollbacks)} of {MOST_ROLLBACKS} rollbacks)"
        )
        entry = f"back to the weights of step {to_step}"
        self.history.append({"step": step, "state": "rolled back", "sentence": entry})
        if self.verdict is not None:
            self._write(self.verdict)

    def conclude(self, meters: tuple[Meters, Meters] | None, images: int) -> Verdict:
        """The verdict on the whole run, with the meters at its end if they were measured.

        Args:
            meters: of the trained and of the untrained network.
            images: the number of images that were measured.
        """
        rows = self.metrics.rows()
        verdict = self._judge(self._considered(rows))
        if meters is not None:
            h = [each["h"] for each in meters]
            verdict = judge_end(verdict, *h, searches=images * (VIEWS - 1))
        self.verdict = verdict
        if not self.history or self.history[-1]["state"] != verdict.state:
            self._note(int(rows[-1]["step"]), verdict)
        self._write(verdict)
        return verdict

    def _judge(self, rows: list[dict[str, float]]) -> Verdict:
        return judge(
            rows,
            self.metrics.steps.total,
            self.start_rows,
            begins_trained=self.config.start is not None,
            own_failure=self._own_failure,
        )

    def _own_failure(self, row: Mapping[str, float]) -> Failure | None:
        failure = find_method(self.config.method).failure
        return None if failure is None else failure(row, self.config.options)

    def _considered(self, rows: list[dict[str, float]]) -> list[dict[str, float]]:
        """The first row, of the untrained network, and the rows since the last rollback."""
        since = self.rollbacks[-1] if self.rollbacks else 0
        return rows[:1] + [row for row in rows[1:] if row["step"] > since]

    def _note(self, step: int, verdict: Verdict) -> None:
        self.history.append({"step": step, "state": verdict.state, "sentence": verdict.sentence})

    def _keep_healthy(self, step: int, verdict: Verdict) -> None:
        """Keep a checkpoint as checkpoints/healthy.ckpt if the rows after it stay healthy."""
        if self.config.on_collapse != "rollback":
            return
        if verdict.state != "healthy":
            self.rows_on_probation = None
            return
        if self.rows_on_probation is not None:
            self.rows_on_probation += 1
            if self.rows_on_probation >= PROBATION:
                os.replace(self.run.candidate_checkpoint, self.run.healthy_checkpoint)
                self.rows_on_probation = None
        if self.rows_on_probation is None and step % self.config.checkpoint_every == 0:
            with whole_or_not_at_all(self.run.candidate_checkpoint) as unfinished:
                try:
                    # Checkpoints are replaced, never changed, so a hard link is enough.
                    os.link(self.run.last_checkpoint, unfinished)
                except OSError:
                    shutil.copyfile(self.run.last_checkpoint, unfinished)
            self.rows_on_probation = 0

    def _write(self, verdict: Verdict) -> None:
        causes = likely_causes(verdict.state, self.config)
        # If all embeddings are exactly equal, ratios of distances are infinite, which JSON lacks.
        numbers = {
            name: value if math.isfinite(value) else None for name, value in verdict.numbers.items()
        }
        fields = asdict(verdict) | {"numbers": numbers, "causes": causes, "history": self.history}
        self.run.write_verdict(fields)

    def state_dict(self) -> dict[str, Any]:
        """The history and the rollbacks so far."""
        return {"history": list(self.history), "rollbacks": list(self.rollbacks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.history = list(state["history"])
        self.rollbacks = list(state["rollbacks"])
