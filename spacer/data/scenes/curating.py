"""Annotated scans → a JSONL data set in the same folder.

    questions.jsonl         (dataset.index) questions, in the fields of SpaceR-151k
    cognitive_map.jsonl     (dataset.maps) one map per video
    scenes.jsonl            the scenes as used for the questions: upright boxes, floor, video
    .curate/*.jsonl         all candidate questions, before selection

Each file is replaced atomically, the questions last.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.config.choices import OnBad
from spacer.config.settings import ScansSettings
from spacer.data.samples import DataError, Fault
from spacer.data.scenes.balance import Posed, place_letters, spread_answers
from spacer.data.scenes.candidates import pose_all
from spacer.data.scenes.lines import data_line
from spacer.data.scenes.questions import QUESTION_TYPES
from spacer.data.scenes.scans import Scan, read_scans
from spacer.files import write_rows


@dataclass(frozen=True)
class Curated:
    """The result of curation: the scans, their questions, the faults of skipped scans, and counts of what was left out.

    `left_out` counts by reason, `unposed` the scenes without an unambiguous question, by type; `files` maps contents to
    the files written.
    """

    scans: tuple[Scan, ...]
    posed: tuple[Posed, ...]
    faults: tuple[Fault, ...]
    left_out: dict[str, int]
    unposed: dict[str, int]
    files: dict[str, Path]


def curate_scans(settings: ScansSettings) -> Curated:
    """Builds the data set from the annotations.

    Raises:
        DataError: some scenes are faulty and `settings.on_bad` is stop, or no scene has an unambiguous question.
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
        raise DataError(root, [*faults, Fault("all scenes", "no question", "no scene has an unambiguous one")], "scene")
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
    """Counts of what was not asked about or not kept, by reason; zeros are omitted."""
    reasons = {
        "categories whose boxes differ from object_counts": sum(len(scan.miscounted) for scan in scans),
        "categories that the video shows only in part": sum(len(scan.unseen) for scan in scans),
        "single objects too tilted for their extent": sum(
            item.category in scan.tilted for scan in scans for item in scan.scene.unique_objects()
        ),
        "scenes without first_seen (no orders)": sum(not scan.timed for scan in scans),
        "questions whose answer was too common": too_common,
    }
    return {reason: count for reason, count in reasons.items() if count}


def _unposed(scans: list[Scan], posed: list[Posed]) -> dict[str, int]:
    asked = {(item.scan.name, item.question.question_type) for item in posed}
    return {kind: sum((scan.name, kind) not in asked for scan in scans) for kind in QUESTION_TYPES}
