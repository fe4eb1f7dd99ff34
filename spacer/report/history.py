"""The metrics of a run as a JSONL file: one line per logged step, appended as it is logged."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from spacer.files import append_rows, drop_torn_line, read_rows, write_rows
from spacer.report.steps import by_step


class Repeats:
    """Recognises a step's metrics that come again: Lightning logs them anew after a batch that made no step."""

    def __init__(self) -> None:
        self._last: tuple[int | None, dict[str, Any]] = (None, {})

    def __call__(self, metrics: Mapping[str, Any], step: int | None) -> bool:
        """Whether these are the metrics of the step before them.

        >>> repeats = Repeats()
        >>> [repeats(row, 3) for row in ({"train/loss": 1.0}, {"eval/during/reward/total": 1.0}, {"train/loss": 1.0})]
        [False, False, True]
        """
        if "train/loss" not in metrics:
            return False
        again = self._last == (step, metrics)
        self._last = (step, dict(metrics))
        return again


class HistoryLogger(Logger):
    """Appends `{"step": …, metric: value, …}` lines; a run resumed after a crash continues the same file.

    Steps that a resumed run repeats, those after its checkpoint, are dropped when it logs its first step.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._begun = False
        self._repeats = Repeats()
        drop_torn_line(path)

    @property
    def name(self) -> str:
        """The file's stem."""
        return self._path.stem

    @property
    def version(self) -> int:
        """Always 0: a run has a single history."""
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends a line."""
        if self._repeats(metrics, step):
            return
        if not self._begun and step is not None:
            self._begun = True
            rows = read_rows(self._path)
            kept = [row for row in rows if row["step"] < step]
            if len(kept) < len(rows):
                write_rows(self._path, kept)
        append_rows(self._path, [{"step": step, **metrics}])

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's configuration is already saved beside the history."""


def read_history(path: Path) -> list[dict[str, float]]:
    """One row per step, in order. Of steps repeated after resuming from a crash, the last row counts."""
    return by_step(read_rows(path))
