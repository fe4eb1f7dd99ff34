"""Lines of data files, sound and faulty, and the settings to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spacer.config.settings import JsonlSettings

SOUND: dict[str, Any] = {
    "problem_id": 1,
    "problem": "How many chairs are there?",
    "data_type": "video",
    "problem_type": "numerical",
    "options": [],
    "solution": "<answer>3</answer>",
    "path": "videos/a.mp4",
    "data_source": "SR_dataset",
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {**SOUND, "problem_id": number, **changes}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in row(2).items() if key != name}


def write(path: Path, *lines: Any) -> Path:
    """JSON lines; text stands as it is."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


# (the second of three lines, the kinds of fault that it has)
FAULTY: dict[str, tuple[Any, list[str]]] = {
    "missing file": (row(2, path="videos/none.mp4"), ["missing file"]),
    "folder for a file": (row(2, path="videos"), ["missing file"]),
    "file for a folder": (row(2, path="videos/a.mp4/x.mp4"), ["missing file"]),
    "parent": (row(2, path="../secret.mp4"), ["outside the data root"]),
    "parent and absent": (row(2, path="../none.mp4"), ["outside the data root"]),
    "hidden parent": (row(2, path="videos/../../secret.mp4"), ["outside the data root"]),
    "sibling of like name": (row(2, path="../data2/a.mp4"), ["outside the data root"]),
    "absolute": (row(2, path="/etc/hostname"), ["outside the data root"]),
    "link out": (row(2, path="out.mp4"), ["outside the data root"]),
    "link of a folder out": (row(2, path="outdir/c.mp4"), ["outside the data root"]),
    "not JSON": ("{'problem_id': 2}", ["not JSON"]),
    "half a line": (json.dumps(row(2))[:-9], ["not JSON"]),
    "a list": ([1, 2], ["not an object"]),
    "null": ("null", ["not an object"]),
    "no problem": (without("problem"), ["missing field"]),
    "no solution": (without("solution"), ["missing field"]),
    "no path": (without("path"), ["missing field"]),
    "no data_type": (without("data_type"), ["missing field"]),
    "no problem_type": (without("problem_type"), ["missing field"]),
    "number for text": (row(2, problem=5), ["wrong field"]),
    "number for solution": (row(2, solution=3), ["wrong field"]),
    "null for text": (row(2, path=None), ["wrong field"]),
    "blank text": (row(2, problem="  "), ["wrong field"]),
    "float for id": (row(2, problem_id=2.0), ["wrong field"]),
    "bool for id": (row(2, problem_id=True), ["wrong field"]),
    "text for options": (row(2, options="A. 1"), ["wrong field"]),
    "numbers for options": (row(2, options=[1, 2]), ["wrong field"]),
    "unknown problem_type": (row(2, problem_type="essay"), ["wrong field"]),
    "problem_type in another case": (row(2, problem_type="Numerical"), ["wrong field"]),
    "unknown data_type": (row(2, data_type="audio"), ["wrong field"]),
    "file of a text": (row(2, data_type="text"), ["wrong field"]),
    "no choice": (row(2, problem_type="multiple choice"), ["wrong field"]),
    "one choice": (row(2, problem_type="multiple choice", options=["A. 1"]), ["wrong field"]),
    "duplicate id": (row(1), ["duplicate problem_id"]),
    "duplicate id as text": (row(2, problem_id="1"), ["duplicate problem_id"]),
    "two faults": (row(2, problem=5, options="A"), ["wrong field", "wrong field"]),
}


def jsonl(root: Path, **changes: Any) -> JsonlSettings:
    return JsonlSettings(**{"root": str(root), "index": "i.jsonl", **changes})
