"""Generates candidate questions for each scan, in parallel and resumable: finished scans are cached on disk.

The questions of a scan depend only on the seed and on the scan, not on the order of the work or on interruptions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spacer.config.settings import ScansSettings
from spacer.data.scenes.lines import Question
from spacer.data.scenes.questions import QUESTION_TYPES
from spacer.data.scenes.scans import Scan, annotation_files
from spacer.files import append_rows, drop_torn_line
from spacer.process.pool import in_workers
from spacer.terminal.progress import progress_bar

VERSION = 1  # incremented when the same annotations give other candidates
TRIES = 3  # draws per requested question, since some draws are duplicates


def pose_all(scans: Sequence[Scan], settings: ScansSettings) -> dict[str, list[Question]]:
    """Name of each scan → its candidate questions.

    They are appended, scan by scan, to `.curate/DIGEST.jsonl` in the data root, where the digest is of the settings and
    the annotations; scans that are already there are not processed again.
    """
    path = Path(settings.root).expanduser() / ".curate" / f"{_digest(settings)}.jsonl"
    path.parent.mkdir(exist_ok=True)
    drop_torn_line(path)
    posed = {str(row["scan"]): row["questions"] for row in _kept(path)}
    missing = [scan for scan in scans if scan.name not in posed]
    if missing:
        tasks = [(scan, settings.seed, settings.questions_per_type) for scan in missing]
        with in_workers(_row, tasks, min(settings.workers, len(missing)), ordered=False) as made:
            for row in progress_bar(made, total=len(missing), desc="generating questions"):
                append_rows(path, [row])
                posed[str(row["scan"])] = row["questions"]
    return {
        scan.name: [
            Question(**(fields | {name: tuple(fields.get(name, ())) for name in ("options", "about")}))
            for fields in posed[scan.name]
        ]
        for scan in scans
    }


def pose_some(scan: Scan, seed: int, questions_per_type: int) -> list[Question]:
    """Up to `questions_per_type` questions of each type, each from its own random stream, without duplicates.

    Directions have the same wording at each level; a question of one level is a duplicate for the next.
    """
    found: list[Question] = []
    for number, (kind, ask) in enumerate(QUESTION_TYPES.items()):
        scene = scan.for_type(kind)
        asked = {question.text for question in found}
        new: dict[str, Question] = {}
        for draw in range(TRIES * questions_per_type):
            question = ask(scene, np.random.default_rng([seed, zlib.crc32(scan.name.encode()), number, draw]))
            if question is None or len(new) == questions_per_type:
                break
            # appearance-order questions list objects in random order: compare their answers, not their texts
            same = question.content() if kind == "obj_appearance_order" else question.text
            if same not in asked:
                new.setdefault(same, question)
        found += new.values()
    return found


def _row(task: tuple[Scan, int, int]) -> dict[str, Any]:
    scan, seed, questions_per_type = task
    questions = pose_some(scan, seed, questions_per_type)
    return {"scan": scan.name, "questions": [dataclasses.asdict(question) for question in questions]}


def _digest(settings: ScansSettings) -> str:
    named = {"version": VERSION, "seed": settings.seed, "questions_per_type": settings.questions_per_type}
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in annotation_files(settings)]
    return hashlib.sha256(json.dumps([named, contents], sort_keys=True).encode()).hexdigest()[:12]


def _kept(path: Path) -> list[dict[str, Any]]:
    """The valid lines. Two processes that write at once may corrupt a line; its scan is then processed again."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
