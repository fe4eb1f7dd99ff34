"""Completions logged during training (`rollouts.jsonl`) → entries of the page: the same questions, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spacer.data.samples import Fault, find_media
from spacer.report.html.contents import RunFolder
from spacer.report.html.evaluations import within_grid
from spacer.report.html.lines import Line
from spacer.report.html.media import data_uri
from spacer.report.html.texts import COMPLETION, plain_json

_FIELDS = ("step", "split", "id", "n", "task", "question", "options", "solution", "tokens", "reward", "advantage")


def rollout_entries(runs: Sequence[RunFolder], room: int) -> tuple[list[dict[str, Any]], int]:
    """For each run its questions, held-out ones first, with their completions by step; and the number left out.

    The newest completions go into `room` characters first, those to held-out questions before those of training.
    """
    found, left_out = [], 0
    for run in runs:
        questions: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in sorted(run.rollouts, key=_order):
            shown = {name: row.get(name) for name in _FIELDS}
            shown |= {
                "completion": str(row.get("completion") or "")[:COMPLETION],
                "map": within_grid(Line(str(run.folder / "rollouts.jsonl"), dict(row)).grid("predicted_map") or {}),
            }
            key = tuple(str(row.get(name)) for name in ("split", "id", "question"))
            common = {} if key in questions else _common(run.folder, row)
            size = len(plain_json(shown)) + len(plain_json(common))
            if size > room:
                left_out += 1
                continue
            room -= size
            question = questions.setdefault((key[0], key[1], key[2]), {**common, "shown": []})
            question["shown"].append(shown)
        for question in questions.values():
            question["shown"].sort(key=lambda shown: (shown["step"], shown["n"] or 0))
        found.append({"questions": list(questions.values())})
    return found, left_out


def _order(row: Mapping[str, Any]) -> tuple[bool, int]:
    return row.get("split") != "heldout", -int(row.get("step") or 0)


def _common(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """What all completions of a question share: its strip of frames and its true map."""
    return {"true_map": row.get("true_map"), "strip": _picture(folder, row.get("frames"))}


def _picture(folder: Path, name: Any) -> str | None:
    """A picture in the run's folder; None if it no longer exists."""
    if not isinstance(name, str):
        return None
    found = find_media(name, folder.resolve())
    return None if isinstance(found, Fault) or found.suffix != ".jpg" else data_uri("image/jpeg", found.read_bytes())
