"""The fields of a row, checked as they are taken: all that is wrong with a row is told at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacer.benchmarks.answers import letters, option_letter
from spacer.benchmarks.question import Question
from spacer.data.samples import Fault
from spacer.rewards.extract import read_number


class Row:
    """A row of a benchmark's file. What is taken from a faulty field is empty, and `faults` says what is wrong."""

    def __init__(self, file: str, number: int, values: Any, at: str = "") -> None:
        """`at` is the part of the file where rows are numbered from 0."""
        self.file = file
        self.number_in_file = number
        self.where = f"{file}, {at}row {number}"
        self.faults: list[Fault] = []
        self._values: Mapping[str, Any] = values if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            self.faults.append(Fault(self.where, "not an object", f"a row must be an object, not {values!r}"))

    def fail(self, name: str, message: str) -> None:
        """Notes that a field is wrong: `message` says what it must be."""
        self.faults.append(Fault(self.where, "wrong field", f"{name!r} {message}"))

    def get(self, name: str) -> Any:
        """The field as it is, None where it is not there."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """A field of text that is not blank."""
        value = self.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.fail(name, f"must be text, not {value!r}")
        return ""

    def identity(self, name: str) -> str:
        """An id, as text."""
        value = self.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)

    def one_of(self, name: str, valid: Collection[str]) -> str:
        """A field of text that is one of those."""
        value = self.text(name)
        if value and value not in valid:
            self.fail(name, f"is {value!r}, not one of {', '.join(valid)}")
            return ""
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number; null is `default` where that is given."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        self.fail(name, f"must be a number, not {value!r}")
        return 0.0

    def number_text(self, name: str) -> str:
        """A number as text, as it stands in the file."""
        raw = self.get(name)
        value = str(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else self.text(name)
        if value and read_number(value) is None:
            self.fail(name, f"must be a number, not {raw!r}")
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
        self.fail(name, f"must be a list of two or more texts, not {value!r}")
        return ()

    def letter(self, name: str, options: Sequence[str]) -> str:
        """The letter of one of the options."""
        value = self.text(name)
        letter = option_letter(value, options)
        if value and letter is None:
            self.fail(name, f"is {value!r}, not the letter of an option ({', '.join(letters(options))})")
        return letter or ""

    def media(self, name: str, found: Path | Fault) -> Path:
        """The place of a media file, which must lie inside the root."""
        if isinstance(found, Fault):
            self.fail(name, f"names a file {found.kind}: {found.detail}")
            return Path()
        return found


def unique(asked: Sequence[tuple[Row, Question]], faults: list[Fault]) -> list[Question]:
    """The questions of the rows without a fault. The faults of others go to `faults`; an id that comes again is one."""
    seen: dict[str, str] = {}
    kept: list[Question] = []
    for row, question in asked:
        if not row.faults and question.id in seen:
            row.faults.append(Fault(row.where, "duplicate id", f"{question.id!r} is that of {seen[question.id]} too"))
        faults += row.faults
        if not row.faults:
            seen[question.id] = row.where
            kept.append(question)
    return kept
