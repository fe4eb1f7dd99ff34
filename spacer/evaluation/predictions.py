"""Reads a benchmark's predictions from a file, whatever wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacer.data.samples import Fault, describe
from spacer.errors import UserError


def read_predictions(path: Path) -> dict[str, str]:
    """Question id → completion, from lines of {"id", "prediction"}; a null prediction is skipped.

    Raises:
        UserError: lines are faulty, or an id is duplicated; all faults are listed.
    """
    found: dict[str, str | None] = {}
    faults: list[Fault] = []
    with open(path, "rb") as lines:  # decoded line by line, so that one bad line is one fault
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                faults.append(Fault(f"line {number}", "not JSON", str(error)))
                continue
            wrong = [Fault(f"line {number}", *fault) for fault in _faults(row)]
            if not wrong and (identity := str(row["id"])) in found:
                wrong.append(Fault(f"line {number}", "duplicate id", repr(identity)))
            elif not wrong:
                found[identity] = row["prediction"]
            faults += wrong
    if faults:
        count = len({fault.where for fault in faults})
        raise UserError(
            f"{path}: {count} faulty line{'s' if count > 1 else ''}\n{describe(faults)}\n"
            'Each line must be {"id": …, "prediction": "…"}, one for a question.'
        )
    return {identity: text for identity, text in found.items() if text is not None}


def _faults(row: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(row, dict):
        yield "not an object", f"a line must be a JSON object, this one is {type(row).__name__}"
        return
    identity = row.get("id")
    if not isinstance(identity, int | str) or isinstance(identity, bool):
        yield "wrong field", f"'id' must be text or a whole number, not {identity!r}"
    if "prediction" not in row:
        yield "missing field", "'prediction' is not there; where a model wrote nothing, it is empty text or null"
    elif not isinstance(row["prediction"], str | None):
        yield "wrong field", f"'prediction' must be text or null, not {row['prediction']!r}"
