"""The benchmarks: what they ask, and how their authors and SpaceR's release score it.

A benchmark is a module here and a YAML of the same name in `conf/benchmark/`. The module has what `Benchmark` says:

- `read(root)` takes the files as they are distributed to `Question`s, and tells every fault with file, row and field.
- `grade(question, text)` judges what a model wrote. It never raises, whatever the text.
- `official(questions)` and `released(questions)` are the figures, as weights on the questions' scores: the authors',
  and those of SpaceR's evaluation code, so that its published tables can be compared. Both have `overall`, and
  `task/NAME` where these are reported.
- `NOTE` is what a reader of the figures has to know.

What several of them need stands beside them: files and fields of rows, the reading of answers, the release's rules.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from spacer.benchmarks.question import Grade, Question
from spacer.data.samples import Fault
from spacer.errors import UserError
from spacer.evaluation.metrics import Metric


class Benchmark(Protocol):
    """What a benchmark's module has."""

    NOTE: str

    @staticmethod
    def read(root: Path) -> tuple[list[Question], list[Fault]]:
        """The questions in the files under `root`, and all that is wrong with these. Media need not be there."""

    @staticmethod
    def grade(question: Question, text: str) -> Grade:
        """What is read from a completion, and what it scores."""

    @staticmethod
    def official(questions: Sequence[Question]) -> list[Metric]:
        """The authors' figures. `questions` may be a part of the benchmark, but not empty."""

    @staticmethod
    def released(questions: Sequence[Question]) -> list[Metric]:
        """The figures of SpaceR's evaluation code, from the released scores."""


@cache
def names() -> tuple[str, ...]:
    """The benchmarks that are read from files, by their modules' names."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    return tuple(name for name in modules if hasattr(import_module(f"{__name__}.{name}"), "grade"))


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name, one of `names()`: a configuration cannot import anything else.

    Raises:
        UserError: there is none of that name.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"benchmark.name={name} is no benchmark with files{hint}. Valid here: {', '.join(names())}")
    return cast(Benchmark, import_module(f"{__name__}.{name}"))
