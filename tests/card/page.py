"""The page of the docs that shows what a GPU has told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = """# On a GPU

`bash tests/gpu.sh` measures on a CUDA device what only one can tell, in about half an hour, and writes JSON as it goes;
parts that are done are passed over when it is started again. `python -m tests.card --page FOLDER` makes this page of
its files.
"""
NONE = "\nIt has not been run on a GPU yet: there are no results.\n"


def page(folder: Path) -> str:
    """The page from the files of a folder; says that there are no results where none is of a device.

    Raises:
        json.JSONDecodeError: a file is no JSON.
    """
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    steps = [row for part in found for row in part.get("rows", ())]
    real = [part for part in found if not part.get("dry", True)]
    if not real and not steps:
        return HEAD + NONE
    return HEAD + "".join(_section(part) for part in real) + _steps(steps)


def _steps(rows: list[dict[str, Any]]) -> str:
    """What `tests.speed.gpu` has written."""
    if not rows:
        return ""
    lines = ["\n## step\n", f"| {' | '.join(rows[0])} |", "| --- " * len(rows[0]) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_text, row.values()))} |" for row in rows)]) + "\n"


def _section(part: dict[str, Any]) -> str:
    lines = [f"\n## {part['part']}\n", f"{part['date']}, {part['seconds']:.0f} s\n"]
    rows = part["metrics"]
    nested = {name: row for name, row in rows.items() if isinstance(row, dict)}
    if nested:
        names = list(dict.fromkeys(key for row in nested.values() for key in row))
        lines += [f"| | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(_text(row.get(key)) for key in names)} |" for name, row in nested.items()]
    else:
        lines += ["| | |", "| --- | --- |", *(f"| {name} | {_text(value)} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
