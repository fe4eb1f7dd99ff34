"""Folders of evaluated runs, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("object_counting", "object_rel_direction_medium", "obj_appearance_order", "room_size_estimation")


def made_rows(
    seed: int, right: float, videos: int = 30, per_video: int = 8, graded: bool = False
) -> list[dict[str, Any]]:
    """Lines of `per_question.jsonl`; equal numbers of videos and questions give the same questions."""
    rng = np.random.default_rng(seed)
    rows = []
    for place in range(videos * per_video):
        hit = float(rng.random() < right)
        rows.append(
            {
                "id": f"q{place}",
                "task": TASKS[place % len(TASKS)],
                "truth": "ABCD"[place % 4],
                "answer": "A" if hit else None,
                "score": 0.5 * hit if graded else hit,
                "extracted": bool(hit),
                "cluster": f"video{place // per_video}",
            }
        )
    return rows


def write_run(folder: Path, rows: list[dict[str, Any]], benchmark: str | None = "vsi_bench") -> Path:
    """A run's folder with these lines."""
    folder.mkdir(parents=True)
    (folder / "per_question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if benchmark:
        scores = {"benchmark": benchmark, "questions": len(rows), "answered": len(rows), "official": {"overall": 0.5}}
        (folder / "scores.json").write_text(json.dumps(scores))
    return folder
