"""Lightning's loggers, each with one continuous history: steps that a resumed run repeats are kept once.

A killed run has logged steps after its last checkpoint, and repeats them when it resumes. `history.jsonl` drops the old
rows when the first step is logged after resuming; the other loggers do likewise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from spacer.report.history import Repeats, read_history

Row = dict[str, Any]


def earlier(history: Path, first: int, step: int) -> Iterator[tuple[Row, int]]:
    """Yields the metrics of steps from `first` up to but excluding `step`, each with its step."""
    for row in read_history(history):
        if first <= row["step"] < step:
            yield {name: value for name, value in row.items() if name != "step"}, int(row["step"])


class CsvHistory(CSVLogger):
    """`csv/metrics.csv` in the run folder. Lightning's logger starts a new file, so older rows are written back."""

    def __init__(self, folder: Path, history: Path) -> None:
        super().__init__(save_dir=folder, name="", version="csv", flush_logs_every_n_steps=1)
        self._history = history
        self._begun = False
        self._repeats = Repeats()

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, but never an empty one over existing rows when a resumed run has no step left."""
        if self._begun:
            super().save()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        if self._repeats(metrics, step):
            return
        if not self._begun and step is not None:
            self._begun = True
            for row, made in earlier(self._history, 0, step):
                super().log_metrics(dict(row), made)
        super().log_metrics(dict(metrics), step)


class TensorBoardHistory(TensorBoardLogger):
    """Event files in `tensorboard/` of the run folder; steps that a resumed run repeats are hidden."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="tensorboard", default_hp_metric=False)
        self._begun = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Adds the metrics of a step."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if not self._begun and step is not None:
            self._begun = True
            # what `SummaryWriter(purge_step=…)` writes, but that needs the step at construction
            restart = Event(step=step, session_log=SessionLog(status=SessionLog.START))
            self.experiment.file_writer.add_event(restart, step)
        super().log_metrics(dict(metrics), step)


class WandbHistory(WandbLogger):
    """A W&B run whose own step is the optimiser step, so that each step is logged once.

    `held` is the first step that the run does not hold yet. A resumed run skips steps that it repeats, and adds from
    the history any that W&B had not written when the run was killed.

    W&B never changes a step that it holds. The evaluation before a step and the step's own metrics come apart, and a
    run that fails in between would leave it half filled for ever: a step is given to W&B once it is made.
    """

    def __init__(self, run: Any, history: Path, held: int) -> None:
        super().__init__(experiment=run)
        self._history = history
        self._held = held
        self._begun = False
        self._repeats = Repeats()
        self._waiting: Row = {}  # what is known of a step that is not made yet
        self._waiting_step = -1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs the metrics, tables or pictures of a step; without a step, at the run's last one."""
        if self._repeats(metrics, step):
            return
        if not self._begun:
            self._begun = True
            for row, made in earlier(self._history, self._held, sys.maxsize if step is None else step):
                self.experiment.log(row, step=made)
        if step is None:
            self._give()
            self.experiment.log(dict(metrics), step=max(self._held, self.experiment.step))
        elif step >= self._held:
            if step != self._waiting_step:
                self._give()
            self._waiting, self._waiting_step = self._waiting | dict(metrics), step
            if "train/loss" in metrics:
                self._give()

    def _give(self) -> None:
        if self._waiting:
            self.experiment.log(self._waiting, step=self._waiting_step)
            self._waiting = {}
