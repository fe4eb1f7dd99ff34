"""JSON files of run folders; faults are reported with file and line, or noted for the reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.files import read_ordinary


class Line:
    """A line's fields, validated on access; UserError names file, line and field."""

    def __init__(self, where: str, row: dict[str, Any]) -> None:
        self.where = where
        self.row = row

    def text(self, name: str) -> str:
        """A text field, or a number as text; empty if it is optional and absent."""
        value = self.row.get(name, "")
        if value is None:
            return ""
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
        raise self._wrong(name, "text", value)

    def identity(self, name: str = "id") -> str:
        """A required text field."""
        if self.row.get(name) in (None, ""):
            raise UserError(f"{self.where}: lacks {name!r}: the file is not one of a run, or was edited; redo the run")
        return self.text(name)

    def number(self, name: str) -> float | None:
        """A number, None if absent."""
        value = self.row.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self._wrong(name, "a number", value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.row.get(name) or []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise self._wrong(name, "a list of texts", value)

    def numbers(self, name: str) -> dict[str, float]:
        """A mapping from names to numbers."""
        value = self.row.get(name) or {}
        if isinstance(value, dict) and all(isinstance(item, int | float) for item in value.values()):
            return value
        raise self._wrong(name, "an object of numbers", value)

    def object(self, name: str) -> Line:
        """An object, validated as a line is; without fields if absent."""
        value = self.row.get(name) or {}
        if isinstance(value, dict):
            return Line(f"{self.where}: {name}", value)
        raise self._wrong(name, "an object", value)

    def lines(self, name: str) -> list[Line]:
        """A list of objects, each validated as a line is; empty if absent."""
        value = self.row.get(name) or []
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return [Line(f"{self.where}: {name}: {place}", item) for place, item in enumerate(value)]
        raise self._wrong(name, "a list of objects", value)

    def grid(self, name: str) -> dict[str, list[list[float]]] | None:
        """A cognitive map, None if absent."""
        value = self.row.get(name)
        if value is None:
            return None
        if isinstance(value, dict) and all(_is_points(points) for points in value.values()):
            return value
        raise self._wrong(name, "a map {category: [[x, y], …]}", value)

    def _wrong(self, name: str, what: str, value: Any) -> UserError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "…"
        return UserError(f"{self.where}: {name!r} must be {what}, not {shown}: redo the run, or fix the line")


def _is_points(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and all(isinstance(v, int | float) for v in point)
        for point in value
    )


def read_lines(path: Path, notes: list[str]) -> list[Line]:
    """The lines of a JSONL file, empty if there is no file; a torn last line, as left by a crash, is noted.

    Raises:
        UserError: the file cannot be read, or another line is not a JSON object; the message names it.
    """
    try:
        texts = read_ordinary(path).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    found = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number == len(texts):  # the truncated last line
                notes.append(
                    f"{path.name}: its last line was cut off and is left out: the run was killed or is still running"
                )
                continue
            raise UserError(f"{path}:{number}: is not JSON ({error}): fix the line, or redo the run") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: must be an object {{…}}: fix the line, or redo the run")
        found.append(Line(f"{path}:{number}", row))
    return found


def read_object(path: Path) -> dict[str, Any] | None:
    """Reads a JSON file that holds an object; None if there is no file.

    Raises:
        UserError: it cannot be read, or is not an object.
    """
    try:
        value = json.loads(read_ordinary(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}: fix it, or redo the run") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold an object {{…}}: fix it, or redo the run")
    return value


def latest(lines: Sequence[Line], *names: str) -> list[Line]:
    """The last of the lines that agree in the named fields: steps repeated after resuming replace earlier ones."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        found[tuple(str(line.row.get(name)) for name in names)] = line
    return list(found.values())
