"""Validated access to the fields of a row; all faults of a row are collected."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacer.benchmarks.answers import letters
from spacer.benchmarks.question import UNREADABLE, Question
from spacer.data.samples import Fault
from spacer.rewards.extract import read_number
from spacer.rewards.options import read_choice

_SHOWN = 200  # characters of a value in a message


class RowFault(Fault):
    """A fault of a single row; the other rows can still be scored."""


class BenchmarkRow:
    """A row of a benchmark's file. Faulty fields are read as empty, and `faults` says what is wrong."""

    def __init__(self, file: str, number: int, values: Any, at: str = "") -> None:
        """`at` is the part of the file in which rows are numbered from 0."""
        self.file = file
        self.number_in_file = number
        self.where = f"{file}, {at}row {number}"
        self.faults: list[Fault] = []
        self._whole = isinstance(values, dict)
        self._values: Mapping[str, Any] = values if self._whole else {}
        if not self._whole:
            self.faults.append(RowFault(self.where, "not an object", f"a row must be an object, not {_show(values)}"))

    def fail(self, name: str, message: str) -> None:
        """Records a faulty field: `message` says what it must be. A row without fields is faulty as a whole."""
        if self._whole:
            self.faults.append(RowFault(self.where, "wrong field", f"{name!r} {message}"))

    def get(self, name: str) -> Any:
        """The raw field, None if absent."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """A text field that is not blank."""
        value = self.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.fail(name, f"must be text, not {_show(value)}")
        return ""

    def identity(self, name: str) -> str:
        """An id, as text."""
        value = self.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)

    def one_of(self, name: str, valid: Collection[str]) -> str:
        """A text field with one of the valid values."""
        value = self.text(name)
        if value and value not in valid:
            self.fail(name, f"is {_show(value)}, not one of {', '.join(valid)}")
            return ""
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number; null becomes `default` if that is given."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        self.fail(name, f"must be a number, not {_show(value)}")
        return 0.0

    def number_text(self, name: str) -> str:
        """A number as text, as it appears in the file."""
        raw = self.get(name)
        value = str(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else self.text(name)
        if value and read_number(value) is None:
            self.fail(name, f"must be a number, not {_show(raw)}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of at least two options."""
        value = self.get(name)
        if (
            isinstance(value, list)
            and len(value) >= 2
            and all(isinstance(item, str) and item.strip() for item in value)
        ):
            return tuple(item.strip() for item in value)
        self.fail(name, f"must be a list of two or more texts, not {_show(value)}")
        return ()

    def paths(self, name: str, empty: bool = False) -> tuple[str, ...]:
        """A list of paths as text, with one at least unless it may be `empty`."""
        value = self.get(name)
        if isinstance(value, list) and (value or empty) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        if value is not None or not empty:
            self.fail(name, f"must be a list of paths, not {_show(value)}")
        return ()

    def position(self, name: str, count: int) -> int:
        """The position of one of `count` options, from 0."""
        value = self.get(name)
        if type(value) is int and 0 <= value < (count or value + 1):
            return value
        self.fail(name, f"must be the position of an option, not {_show(value)}")
        return 0

    def letter(self, name: str, options: Sequence[str]) -> str:
        """The letter of one of the options."""
        value = self.text(name)
        letter = read_choice(value, options)
        if value and letter is None:
            self.fail(name, f"is {_show(value)}, not the letter of an option ({', '.join(letters(options))})")
        return letter or ""

    def media(self, name: str, found: Path | Fault) -> Path:
        """The path of a media file, which must be inside the root."""
        if isinstance(found, Fault):
            self.fail(name, f"names a file {found.kind}: {found.detail}")
            return Path()
        return found


def unique(
    asked: Sequence[tuple[BenchmarkRow, Question]], faults: list[Fault], key: Callable[[Question], str] | None = None
) -> list[Question]:
    """The questions of all rows, with unique ids. Faults of rows are appended to `faults`.

    A faulty row's question has its `fault`. If an id is repeated with the same question, the first is kept; with
    different questions, all are renamed to their `key` if they have one, and otherwise the second to `ID#2`, and so on.
    """
    found: list[
        tuple[str, BenchmarkRow, Question, BenchmarkRow | None]
    ] = []  # the last is the index of the row that has the same question
    distinct: dict[str, list[tuple[BenchmarkRow, Question]]] = {}
    for row, question in asked:
        own = question.id or row.where
        others = distinct.setdefault(own, [])
        same = None if row.faults else next((at for at, other in others if _same(other, question)), None)
        if same is None:
            others.append((row, question))
        found.append((own, row, question, same))
    kept: dict[str, Question] = {}
    for own, row, question, same in found:
        if same is not None:
            detail = f"{own!r} is the question of {same.where} again, and is asked once"
            faults.append(RowFault(row.where, "repeated question", detail))
            continue
        named = own if key is None or row.faults or len(distinct[own]) == 1 else key(question)
        turn = 1
        while named in kept:
            turn += 1
            named = f"{own}#{turn}"
        if named != own:
            faults.append(RowFault(row.where, "repeated id", f"{own!r} is of several questions: this one is {named!r}"))
        faults += row.faults
        fault = "; ".join(fault.detail for fault in row.faults) or None
        kept[named] = replace(question, id=named, task=question.task or UNREADABLE, fault=fault)
    return list(kept.values())


def _same(one: Question, other: Question) -> bool:
    """Whether two questions with one id are the same, images included."""
    return replace(one, images=()) == replace(other, images=()) and list(one.images) == list(other.images)


def _show(value: Any) -> str:
    """A value in a message, truncated if long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
