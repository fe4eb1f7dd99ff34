"""The benchmarks: their questions, and how their authors and SpaceR's release score them.

A benchmark is a module here, a YAML file of the same name in `conf/benchmark/`, and its name in `BENCHMARKS` of
`spacer/config/choices.py`. The module implements `Benchmark`:

- `read(root)` turns the files as distributed into `Question`s, and reports every fault with file, row and field. A
  malformed row becomes a `Question` too, with its `fault`: it counts as wrong.
- `grade(question, text)` grades a completion. It never raises, whatever the text.
- `official(questions)` are the metrics by the authors' arithmetic, as weights on the questions' scores, on answers
  read as a person would; they have `overall`, and `task/NAME` if tasks are reported.
- `released(questions)` are metrics of a second reading, for comparison with published tables, and `SECOND` is its name
  in tables and files: `spacer_eval`, SpaceR's evaluation code, if it covers the benchmark, else `authors_code`,
  answers as the authors' own code extracts them; "" if there is none, and then there are no such metrics.
- `NOTE` is what readers of the metrics need to know.

Shared code is in modules beside them: files and fields of rows, the reading of answers, the release's rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from spacer.benchmarks.fields import RowFault
from spacer.benchmarks.question import Grade, Question
from spacer.config.choices import BENCHMARKS
from spacer.data.samples import Fault, describe
from spacer.errors import UserError
from spacer.statistics.metrics import Metric

SECONDS = ("spacer_eval", "authors_code")  # the names of second readings
MAX_MALFORMED = 0.02  # share of malformed rows beyond which files count as damaged; a single one is always allowed


class Benchmark(Protocol):
    """The interface of a benchmark's module."""

    NOTE: str
    SECOND: str

    @staticmethod
    def read(root: Path) -> tuple[list[Question], list[Fault]]:
        """The questions in the files under `root`, and the faults of files and rows. Media may be absent."""

    @staticmethod
    def grade(question: Question, text: str) -> Grade:
        """Grades a completion: the answer extracted from it, and its scores."""

    @staticmethod
    def official(questions: Sequence[Question]) -> list[Metric]:
        """The authors' metrics. `questions` may be a part of the benchmark, but not empty."""

    @staticmethod
    def released(questions: Sequence[Question]) -> list[Metric]:
        """The metrics of the second reading, computed from the released scores; none if there is no second reading."""


def benchmark(name: str) -> Benchmark:
    """The module of a benchmark in `BENCHMARKS`: a configuration cannot import anything else.

    Raises:
        UserError: there is no benchmark of that name.
    """
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"benchmark.name={name} is no benchmark with files{hint}. Valid here: {', '.join(BENCHMARKS)}")
    return cast(Benchmark, import_module(f"{__name__}.{name}"))


def read_questions(name: str, root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of a benchmark's files, and the faults of single rows, whose questions have a `fault`.

    Raises:
        UserError: a file is missing or unreadable, there are no questions, or too many rows are malformed.
    """
    questions, faults = benchmark(name).read(root)
    of_files = [fault for fault in faults if not isinstance(fault, RowFault)]
    malformed = sum(question.fault is not None for question in questions)
    again = f"Fetch the files again, as the authors distribute them: conf/benchmark/{name}.yaml says which."
    if of_files or malformed > max(1, MAX_MALFORMED * len(questions)) or malformed == len(questions) > 0:
        told = of_files or faults
        count = f"{len(told)} fault{'s' if len(told) > 1 else ''}"
        raise UserError(
            f"{root}: {count} in the files of {name}\n{describe(told)}\n{again} "
            + ("" if of_files else f"A few malformed rows count as wrong, up to {MAX_MALFORMED:.0%} of them. ")
            + "Questions are not left out, for that would change the scores."
        )
    if not questions:
        raise UserError(f"{root}: the files of {name} have no question in them. {again}")
    return questions, faults
