"""Questions as data files hold them → `Sample`s, with every fault named by line and kind.

The fields are those of SpaceR-151k (`problem_id problem data_type problem_type options solution path data_source`);
rooms adds `scene`, `question_type` and `reasoning`, which other data may leave out. The draft of March 2025 is read
too: `question_type` in place of `problem_type`, `video` in place of `path` and `data_type`, the bare solution.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.data.captions import Caption
from spacer.errors import UserError

PROBLEM_TYPES = ("multiple choice", "numerical", "OCR", "free-form", "regression")
DATA_TYPES = ("image", "video")
SHOWN_PER_KIND = 5  # faults of one kind that an error lists before it only counts

CognitiveMap = Mapping[str, list[list[int]]]


@dataclass(frozen=True)
class Sample:
    """One question about one video or image. `path` is absolute and inside the data root."""

    id: str
    problem: str
    problem_type: str
    options: tuple[str, ...]
    solution: str
    data_type: str
    path: Path
    source: str
    scene: str
    question_type: str
    reasoning: str | None
    true_map: CognitiveMap | None
    images: Sequence[bytes] = ()  # encoded; they take the place of the file, whose `path` then only names them
    captions: tuple[Caption, ...] = ()  # of the video, whose frames then are pictures with what is said between them


@dataclass(frozen=True)
class Line:
    """A line of a data file: its fields, where it is a JSON object, its media file and all that is wrong with it."""

    number: int
    row: Mapping[str, Any]
    media: Path | None
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Fault:
    """Something wrong with the data: `where` is a line or a file, `kind` a short class, `detail` the whole story."""

    where: str
    kind: str
    detail: str


class DataError(UserError):
    """Raised with every fault of a data set at once; `unit` is what its files are made up of."""

    def __init__(self, index: Path, faults: list[Fault], unit: str = "line") -> None:
        self.faults = faults
        self.index = index
        self.unit = unit
        super().__init__(index, faults, unit)  # not the text: a pickled error is made again from these arguments

    def __str__(self) -> str:
        return (
            f"{self.index}: {len(self.faults)} faulty {self.unit}{'s' if len(self.faults) > 1 else ''}\n"
            f"{describe(self.faults)}\n"
            f"Mend the {self.unit}s, or leave them out and count them with dataset.on_bad=skip."
        )


def describe(faults: list[Fault]) -> str:
    """The faults, counted by kind, with the first few of each."""
    lines = []
    for kind, count in Counter(fault.kind for fault in faults).most_common():
        lines.append(f"  {kind}: {count}")
        shown = [fault for fault in faults if fault.kind == kind][:SHOWN_PER_KIND]
        lines += [f"    {fault.where}: {fault.detail}" for fault in shown]
        if count > len(shown):
            lines.append(f"    … and {count - len(shown)} more")
    return "\n".join(lines)


def read_maps(path: Path) -> dict[str, CognitiveMap]:
    """Video id → cognitive map, from lines of {"video_id", "cognitive_map"}.

    Raises:
        UserError: a line is not of that form, named by its number.
    """
    maps: dict[str, CognitiveMap] = {}
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
            if not isinstance(entry["video_id"], str):
                raise ValueError(f"'video_id' must be text, not {entry['video_id']!r}")
            maps[entry["video_id"]] = _checked_map(entry["cognitive_map"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path}:{number}: expected {{'video_id': …, 'cognitive_map': {{category: [[x, y], …]}}}}: {error}"
            ) from error
    return maps


def _checked_map(raw: Any) -> CognitiveMap:
    if not isinstance(raw, dict):
        raise ValueError(f"the map is {type(raw).__name__}, not a mapping")
    checked = {}
    for category, points in raw.items():
        if not isinstance(points, list):
            raise ValueError(f"{category!r} has no list of points")
        for point in points:
            if not (
                isinstance(point, list)
                and len(point) == 2
                and all(type(v) in (int, float) and math.isfinite(v) for v in point)
            ):
                raise ValueError(f"{category!r} has the point {point!r}, not [x, y]")
        checked[str(category)] = points
    return checked


def read_samples(
    index: Path, root: Path, maps: Mapping[str, CognitiveMap], wanted: Sequence[str] | None = None
) -> tuple[list[Sample], list[Fault]]:
    """All sound samples of a JSONL index, and the faults of the other lines.

    `maps` is keyed by the stem of the media file. A path must stay inside `root` and exist. Where only some data
    sources are `wanted`, lines of others are passed over, faulty ones too; one that names no source stays a fault.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    for line in examined(index, root):
        source = line.row.get("data_source", None if line.faults else "")
        if wanted is not None and isinstance(source, str) and source not in wanted:
            continue
        faults += line.faults
        if not line.faults:
            assert line.media is not None
            samples.append(to_sample(line.row, line.media, maps.get(line.media.stem)))
    return samples, faults


def examined(index: Path, root: Path) -> Iterator[Line]:
    """Every line of a JSONL index that is not blank, with what is wrong with it."""
    seen: set[str] = set()
    real_root = root.resolve()
    exists: dict[str, Fault | Path] = {}  # many questions share a video; its file is looked up once
    for number, text in _lines(index):
        where = f"line {number}"
        try:
            row = json.loads(text)
            json.dumps(row, ensure_ascii=False).encode()  # JSON can spell half a character, which no text holds
        except (ValueError, RecursionError) as error:  # a line that is not UTF-8 and a number of too many digits too
            yield Line(number, {}, None, (Fault(where, "not JSON", str(error)),))
            continue
        row = _of_today(row)
        problems = tuple(Fault(where, kind, detail) for kind, detail in _field_faults(row))
        if problems:
            yield Line(number, row if isinstance(row, dict) else {}, None, problems)
            continue
        if row["path"] not in exists:
            exists[row["path"]] = find_media(row["path"], real_root)
        media = exists[row["path"]]
        identity = str(row["problem_id"])
        if isinstance(media, Fault):
            yield Line(number, row, None, (Fault(where, media.kind, media.detail),))
        elif identity in seen:
            yield Line(number, row, media, (Fault(where, "duplicate problem_id", repr(row["problem_id"])),))
        else:
            seen.add(identity)
            yield Line(number, row, media, ())


def _of_today(row: Any) -> Any:
    """A line of the draft of March 2025 in the fields of the release; others as they are."""
    if not isinstance(row, dict) or "problem_type" in row or row.get("question_type") not in PROBLEM_TYPES:
        return row
    row = dict(row)
    row["problem_type"] = row.pop("question_type")
    if "path" not in row and "video" in row:
        row["path"] = row.pop("video")
    return {"data_type": "video", "options": [], **row}


def to_sample(row: Mapping[str, Any], media: Path, true_map: CognitiveMap | None) -> Sample:
    """The sample of a sound line."""
    return Sample(
        id=str(row["problem_id"]),
        problem=row["problem"],
        problem_type=row["problem_type"],
        options=tuple(row["options"]),
        solution=_bare(row["solution"]),
        data_type=row["data_type"],
        path=media,
        source=str(row.get("data_source", "")),
        scene=row.get("scene", media.stem),
        question_type=row.get("question_type", row["problem_type"]),
        reasoning=row.get("reasoning"),
        true_map=true_map,
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:  # decoded line by line, so that one bad line is one fault
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _bare(solution: str) -> str:
    match = re.search(r"<answer>(.*?)</answer>", solution, re.DOTALL)
    return (match.group(1) if match else solution).strip()


def _field_faults(row: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(row, dict):
        yield "not an object", f"a line must be a JSON object, this one is {type(row).__name__}"
        return
    for name in ("problem", "problem_type", "data_type", "solution", "path"):
        if name not in row:
            yield "missing field", f"{name!r} is not there"
        elif not isinstance(row[name], str) or not row[name].strip():
            yield "wrong field", f"{name!r} must be text, not {row[name]!r}"
    for name in ("problem_id", "options"):
        if name not in row:
            yield "missing field", f"{name!r} is not there"
    for name in ("data_source", "scene", "question_type", "reasoning"):
        if not isinstance(row.get(name, ""), str):
            yield "wrong field", f"{name!r} must be text or left out, not {row[name]!r}"
    if "problem_id" in row and (not isinstance(row["problem_id"], int | str) or isinstance(row["problem_id"], bool)):
        yield "wrong field", f"'problem_id' must be a whole number or text, not {row.get('problem_id')!r}"
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        yield "wrong field", f"'options' must be a list of texts, not {options!r}"
    elif "options" in row and row.get("problem_type") == "multiple choice" and len(options) < 2:
        yield "wrong field", f"a multiple choice needs at least two 'options', not {len(options)}"
    for name, valid in (("problem_type", PROBLEM_TYPES), ("data_type", DATA_TYPES)):
        if isinstance(row.get(name), str) and row[name].strip() and row[name] not in valid:
            yield "wrong field", f"{name!r} is {row[name]!r}, not one of {', '.join(valid)}"


def find_media(path: str, real_root: Path) -> Fault | Path:
    """The file that a data file's path names: it must exist under the resolved data root."""
    try:
        resolved = (real_root / path).resolve()
        if not resolved.is_relative_to(real_root):
            return Fault(path, "outside the data root", f"{path!r} leads to {resolved}, which is not under {real_root}")
        if not resolved.is_file():
            return Fault(path, "missing file", f"{path!r} is not under {real_root}")
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a character no path has
        return Fault(path, "unusable path", f"{path!r}: {error}")
    return resolved
