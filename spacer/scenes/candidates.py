"""Questions posed of each scan, in parallel; what was posed is kept, so that a run that was killed goes on.

What is posed of a scan depends on the seed and on that scan alone, so neither the order of the work nor an interruption
changes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spacer.files import append_rows, drop_torn_line
from spacer.progress import progress_bar
from spacer.scenes.lines import Question
from spacer.scenes.questions import QUESTION_TYPES
from spacer.scenes.scans import Scan, annotation_files
from spacer.settings import ScansSettings

VERSION = 1  # raised when the same annotations give other candidates
TRIES = 3  # draws for each question that is wanted, since some are drawn again


def pose_all(scans: Sequence[Scan], settings: ScansSettings) -> dict[str, list[Question]]:
    """Scan's name → questions posed of it, for every scan.

    They are appended, scan by scan as they come, to `.curate/DIGEST.jsonl` in the data root, where the digest stands
    for the settings and the annotations; scans that are there already are not posed again.
    """
    path = Path(settings.root).expanduser() / ".curate" / f"{_digest(settings)}.jsonl"
    path.parent.mkdir(exist_ok=True)
    drop_torn_line(path)
    posed = {str(row["scan"]): row["questions"] for row in _kept(path)}
    missing = [scan for scan in scans if scan.name not in posed]
    if missing:
        # spawned, not forked: the caller may hold threads
        with multiprocessing.get_context("spawn").Pool(min(settings.workers, len(missing))) as pool:
            tasks = ((scan, settings.seed, settings.questions_per_type) for scan in missing)
            for row in progress_bar(pool.imap_unordered(_row, tasks), total=len(missing), desc="posing questions"):
                append_rows(path, [row])
                posed[str(row["scan"])] = row["questions"]
    return {
        scan.name: [Question(**(fields | {"options": tuple(fields["options"])})) for fields in posed[scan.name]]
        for scan in scans
    }


def pose_some(scan: Scan, seed: int, questions_per_type: int) -> list[Question]:
    """Up to so many questions of each type, each drawn from a stream of its own; none is asked twice.

    Directions are asked in the same words at each level, and a question that one level has is none for the next.
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
            # the objects of an order are listed in a random one, which makes no other question
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
    """The lines that are whole; of two that wrote at once, one may have cut into the other's, and is posed again."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
