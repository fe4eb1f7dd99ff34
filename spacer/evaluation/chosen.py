"""The questions of a benchmark that the settings select."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path

from spacer.benchmarks import read_questions
from spacer.benchmarks.question import Question
from spacer.config.settings import BenchmarkSettings
from spacer.data.samples import Fault, describe
from spacer.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The selected questions, the ids of the benchmark's other ones, and the faults of rows."""

    questions: tuple[Question, ...]
    others: frozenset[str]
    faults: tuple[Fault, ...]

    def warn(self) -> None:
        """Logs the faults of rows in the benchmark's files, if any."""
        if self.faults:
            wrong = sum(question.fault is not None for question in self.questions)
            log.warning(
                "the benchmark's files have faulty rows; %d of the questions are malformed and count as wrong\n%s",
                wrong,
                describe(list(self.faults)),
            )


def choose_questions(settings: BenchmarkSettings) -> Chosen:
    """Selects the questions of the wanted tasks from the benchmark's files, up to the limit.

    Raises:
        UserError: a file is faulty or too many rows are (all are listed), or a task does not exist.
    """
    assert settings.root is not None  # ensured by a config rule
    root = Path(settings.root).expanduser().resolve()
    questions, faults = read_questions(settings.name, root)
    wanted = questions
    if settings.tasks is not None:
        tasks = sorted({question.task for question in questions})
        for task in settings.tasks:
            if task not in tasks:
                close = difflib.get_close_matches(task, tasks, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise UserError(f"benchmark.tasks: no question is of {task!r}{hint}. Valid here: {', '.join(tasks)}")
        wanted = [question for question in questions if question.task in settings.tasks]
        if not wanted:
            raise UserError("benchmark.tasks is empty: name tasks, or set it to null for all")
    wanted = wanted[: settings.limit]
    return Chosen(tuple(wanted), frozenset(q.id for q in questions) - {q.id for q in wanted}, tuple(faults))
