"""The metrics of a run in a JSONL file: a line a logged step, appended as it comes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from spacer.files import append_rows, drop_torn_line, read_rows, write_rows
from spacer.report.steps import by_step


class HistoryLogger(Logger):
    """Writes `{"step": …, metric: value, …}` lines; survives a crash and goes on in the same file after it.

    Steps of before that come again, since they were made after the last checkpoint, are dropped when the first comes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._begun = False
        drop_torn_line(path)

    @property
    def name(self) -> str:
        """The file's stem."""
        return self._path.stem

    @property
    def version(self) -> int:
        """There is one history a run."""
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends a line."""
        if not self._begun and step is not None:
            self._begun = True
            rows = read_rows(self._path)
            kept = [row for row in rows if row["step"] < step]
            if len(kept) < len(rows):
                write_rows(self._path, kept)
        append_rows(self._path, [{"step": step, **metrics}])

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run's configuration lies beside the history already."""


def read_history(path: Path) -> list[dict[str, float]]:
    """A row a step, in order. Steps made twice, before a crash and after resuming, count as they were made last."""
    return by_step(read_rows(path))
