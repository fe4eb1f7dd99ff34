"""Annotated scans → a JSONL data set in the folder that they lie in.

    questions.jsonl         (dataset.index) questions, in the fields of SpaceR-151k
    cognitive_map.jsonl     (dataset.maps) a map a video
    scenes.jsonl            the scenes as the questions take them: upright boxes, floor, video
    .curate/*.jsonl         what was posed, before any of it was chosen

Each of the files is replaced as a whole, the questions last.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.choices import OnBad
from spacer.data.samples import DataError, Fault
from spacer.files import write_rows
from spacer.scenes.balance import Posed, place_letters, spread_answers
from spacer.scenes.candidates import pose_all
from spacer.scenes.lines import data_line
from spacer.scenes.questions import QUESTION_TYPES
from spacer.scenes.scans import Scan, read_scans
from spacer.settings import ScansSettings


@dataclass(frozen=True)
class Curated:
    """What was made: the scans and the questions asked of them, the faults of what was not read, what was left out.

    `left_out` counts by reason, `unposed` the scenes in which nothing of a type could be asked without ambiguity;
    `files` are those written, by what is in them.
    """

    scans: tuple[Scan, ...]
    posed: tuple[Posed, ...]
    faults: tuple[Fault, ...]
    left_out: dict[str, int]
    unposed: dict[str, int]
    files: dict[str, Path]


def curate_scans(settings: ScansSettings) -> Curated:
    """Makes the data set from its annotations.

    Raises:
        DataError: some scenes are faulty and `settings.on_bad` is stop, or no question can be asked of any.
    """
    root = Path(settings.root).expanduser()
    scans, faults = read_scans(settings)
    if faults and settings.on_bad == OnBad.stop:
        raise DataError(root, faults, "scene")
    questions = pose_all(scans, settings) if scans else {}
    posed = [
        Posed(f"{scan.source}_{scan.scene.name}_{number:02d}", scan, question)
        for scan in scans
        for number, question in enumerate(questions[scan.name])
    ]
    if not posed:
        raise DataError(root, [*faults, Fault("all scenes", "no question", "none can be asked of any scene")], "scene")
    kept = place_letters(spread_answers(posed, settings.max_answer_share, settings.seed), settings.seed)
    files = _write(settings, root, scans, kept)
    left_out = _left_out(scans, len(posed) - len(kept))
    return Curated(tuple(scans), tuple(kept), tuple(faults), left_out, _unposed(scans, posed), files)


def _write(settings: ScansSettings, root: Path, scans: list[Scan], kept: list[Posed]) -> dict[str, Path]:
    files = {"scenes": root / "scenes.jsonl"}
    write_rows(files["scenes"], map(_scene_row, scans))
    if settings.maps is not None:
        files["maps"] = root / settings.maps
        write_rows(files["maps"], map(_map_row, scans))
    files["questions"] = root / settings.index
    write_rows(
        files["questions"],
        (data_line(item.question, item.id, item.scan.scene.name, item.scan.video, item.scan.source) for item in kept),
    )
    return files


def _scene_row(scan: Scan) -> dict[str, Any]:
    return dataclasses.asdict(scan.scene) | {"path": scan.video, "data_source": scan.source}


def _map_row(scan: Scan) -> dict[str, Any]:
    return {
        "video_id": Path(scan.video).stem,
        "cognitive_map": scan.scene.cognitive_map(),
        "object_list": scan.scene.categories(),
    }


def _left_out(scans: list[Scan], too_common: int) -> dict[str, int]:
    """How much was not asked about or not kept, by reason; what never happened is not there."""
    reasons = {
        "categories with other boxes than object_counts": sum(len(scan.miscounted) for scan in scans),
        "categories that the video shows in part": sum(len(scan.unseen) for scan in scans),
        "lone objects too tilted for their extent": sum(
            item.category in scan.tilted for scan in scans for item in scan.scene.unique_objects()
        ),
        "scenes without first_seen (no orders)": sum(not scan.timed for scan in scans),
        "questions whose answer was too common": too_common,
    }
    return {reason: count for reason, count in reasons.items() if count}


def _unposed(scans: list[Scan], posed: list[Posed]) -> dict[str, int]:
    asked = {(item.scan.name, item.question.question_type) for item in posed}
    return {kind: sum((scan.name, kind) not in asked for scan in scans) for kind in QUESTION_TYPES}
