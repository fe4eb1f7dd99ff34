"""Lines of data files → `Sample`s, with every fault reported by line and kind.

The fields are those of SpaceR-151k (`problem_id problem data_type problem_type options solution path data_source`);
rooms adds `scene`, `question_type`, `reasoning`, `about` and `without_map`, which are optional elsewhere; `without_map`
means that a question is asked and answered without the scene's map even if there is one, and `about` lists categories
that its worked map ends with. The draft of March 2025 is accepted too: `question_type` for `problem_type`, `video` for
`path` and `data_type`, and solutions without tags.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacer.config.choices import Subtitles
from spacer.data.captions import Caption
from spacer.data.companions import AMBIGUOUS, UNMATCHED, Naming, name_files, unmatched
from spacer.data.layout import marks_in, media_kinds, paths_of
from spacer.data.meaning import meaning_faults
from spacer.errors import UserError, refused

PROBLEM_TYPES = ("multiple choice", "numerical", "OCR", "free-form", "regression")
TEXT_ALONE = "text"  # the data type of a question without media
DATA_TYPES = ("image", "video", TEXT_ALONE)
LARGEST = 1e9  # bound on a map's coordinates (the grid is 10x10): rejects NaN, infinity and what overflows a float
SHOWN_PER_KIND = 5  # faults of one kind that an error lists; further ones are only counted

CognitiveMap = Mapping[str, list[list[int]]]


@dataclass(frozen=True)
class Medium:
    """A file that a question is about, with others: an image or a video, as `kind` says."""

    kind: str
    path: Path


@dataclass(frozen=True)
class Sample:
    """One question about a video or an image, whose `path` is absolute and inside the data root, or about several.

    Where the text has marks `<image>` and `<video>`, as many as media and in their order, these stand in their places;
    otherwise before the text.

    A text-only question has no file: its `path` is its own id, which no other question shares.
    """

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
    images: Sequence[bytes] = ()  # encoded images that replace the file; `path` is then only an identifier
    captions: tuple[Caption, ...] = ()  # subtitles of the video
    captioned: Subtitles = Subtitles.between  # where they are placed; `between` turns frames into single images
    about: tuple[str, ...] = ()  # categories that end the map of its worked completion, in this order
    begun: str = ""  # the start of its completion, which is given with the prompt and not learned
    media: tuple[Medium, ...] = ()  # several files, in the order of their places; `path` is the first one's

    @property
    def files(self) -> tuple[Medium, ...]:
        """All media files, in the order of their places."""
        if self.data_type == TEXT_ALONE:
            return ()
        return self.media or (Medium(self.data_type, self.path),)

    @property
    def file(self) -> Path | None:
        """The path of the media file; None for a text-only question."""
        return None if self.data_type == TEXT_ALONE else self.path


@dataclass(frozen=True)
class Line:
    """A line of a data file: its fields (empty if it is not a JSON object), its media file, and all of its faults.

    A valid line has no `media` if its question is text-only; `files` are all of its media, of which `media` is the
    first.
    """

    number: int
    row: Mapping[str, Any]
    media: Path | None
    faults: tuple[Fault, ...]
    files: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class Fault:
    """A fault in the data: `where` is a line or a file, `kind` a short category, `detail` the explanation."""

    where: str
    kind: str
    detail: str


class DataError(UserError):
    """Raised with all faults of a data set at once; `unit` names an entry of its files in messages (line, scene)."""

    def __init__(self, index: Path, faults: list[Fault], unit: str = "line") -> None:
        self.faults = faults
        self.index = index
        self.unit = unit
        super().__init__(index, faults, unit)  # not the text: unpickling calls __init__ with these arguments

    def __str__(self) -> str:
        return (
            f"{self.index}: {len(self.faults)} faulty {self.unit}{'s' if len(self.faults) > 1 else ''}\n"
            f"{describe(self.faults)}\n"
            f"Fix the {self.unit}s, or skip and count them with dataset.on_bad=skip."
        )


def describe(faults: list[Fault]) -> str:
    """A listing of the faults: the count of each kind, and its first few."""
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
        UserError: a line has another form; the message gives its number.
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
                and all(type(v) in (int, float) and -LARGEST <= v <= LARGEST for v in point)
            ):
                raise ValueError(f"{category!r} has the point {point!r}, not [x, y]")
        checked[str(category)] = points
    return checked


def read_samples(
    index: Path,
    root: Path,
    maps: Mapping[str, CognitiveMap],
    wanted: Sequence[str] | None = None,
    maps_match: bool = False,
) -> tuple[list[Sample], list[Fault]]:
    """All valid samples of a JSONL index, and the faults of the other lines.

    `maps` is keyed by the stem of the media file or by its path without extension; with `maps_match`, it is a fault if
    no map matches any file. A path must exist and lie inside `root`. If only some data sources are `wanted`, lines of
    others are skipped, even faulty ones; a faulty line without a source is still reported.
    """
    samples: list[Sample] = []
    lines, naming = named(examined(index, root), root.resolve(), maps)
    faults: list[Fault] = []
    if maps_match and (detail := unmatched(naming, maps)) is not None:
        faults.append(Fault("maps", UNMATCHED, detail))
    for line in lines:
        source = line.row.get("data_source", None if line.faults else "")
        if wanted is not None and isinstance(source, str) and source not in wanted:
            continue
        faults += line.faults
        if not line.faults:
            samples.append(sample_of(line, naming, maps))
    return samples, faults


def named(lines: Iterable[Line], real_root: Path, maps: Mapping[str, CognitiveMap]) -> tuple[list[Line], Naming]:
    """The lines, with a fault added to each whose map is ambiguous, and the naming of their files."""
    found = list(lines)
    naming = name_files((line.media for line in found if line.media is not None), real_root, maps)
    for place, line in enumerate(found):
        if line.media is not None and (detail := naming.ambiguous.get(line.media)) is not None:
            told = Fault(f"line {line.number}", AMBIGUOUS, detail)
            found[place] = replace(line, faults=(*line.faults, told))
    return found, naming


def sample_of(line: Line, naming: Naming, maps: Mapping[str, CognitiveMap]) -> Sample:
    """The sample of a valid line."""
    if line.media is None:
        return to_sample(line.row, (), None)
    key = naming.maps.get(line.media)
    return to_sample(line.row, line.files, None if key is None else maps[key], naming.scenes[line.media])


def examined(index: Path, root: Path) -> Iterator[Line]:
    """Every non-blank line of a JSONL index, with its faults."""
    seen: set[str] = set()
    real_root = root.resolve()
    exists: dict[str, Fault | Path] = {}  # many questions share a video, whose file is looked up once
    for number, text in _lines(index):
        where = f"line {number}"
        try:
            row = json.loads(text)
            json.dumps(row, ensure_ascii=False).encode()  # fails on lone surrogates, which JSON can spell
        except (ValueError, RecursionError) as error:  # also for invalid UTF-8 and numbers with too many digits
            yield Line(number, {}, None, (Fault(where, "not JSON", str(error)),))
            continue
        row = _of_today(row)
        problems = tuple(Fault(where, kind, detail) for kind, detail in row_faults(row))
        if problems:
            yield Line(number, row if isinstance(row, dict) else {}, None, problems)
            continue
        files: list[Medium] = []
        lost: list[Fault] = []
        for kind, path in zip(media_kinds(row), paths_of(row), strict=True):
            if path not in exists:
                exists[path] = find_media(path, real_root)
            found = exists[path]
            if isinstance(found, Fault):
                lost.append(Fault(where, found.kind, found.detail))
            else:
                files.append(Medium(kind, found))
        media = files[0].path if files else None
        identity = str(row["problem_id"])
        if lost:
            yield Line(number, row, None, tuple(lost))
        elif identity in seen:
            repeated = Fault(where, "duplicate problem_id", repr(row["problem_id"]))
            yield Line(number, row, media, (repeated,), tuple(files))
        else:
            seen.add(identity)
            yield Line(number, row, media, (), tuple(files))


def _of_today(row: Any) -> Any:
    """Converts a line of the draft of March 2025 to the fields of the release; others are returned unchanged."""
    if not isinstance(row, dict) or "problem_type" in row or row.get("question_type") not in PROBLEM_TYPES:
        return row
    row = dict(row)
    row["problem_type"] = row.pop("question_type")
    if "path" not in row and "video" in row:
        row["path"] = row.pop("video")
    return {"data_type": "video", "options": [], **row}


def to_sample(
    row: Mapping[str, Any], files: Sequence[Medium], true_map: CognitiveMap | None, scene: str | None = None
) -> Sample:
    """The sample of a valid line; `scene` is the scene that its first file shows, by default the file's stem."""
    identity = str(row["problem_id"])
    if scene is None:
        scene = files[0].path.stem if files else text_scene(identity)
    return Sample(
        id=identity,
        problem=row["problem"],
        problem_type=row["problem_type"],
        options=tuple(row["options"]),
        solution=_bare(row["solution"]),
        data_type=row["data_type"],
        path=files[0].path if files else Path(identity),
        media=tuple(files) if len(files) > 1 else (),
        source=str(row.get("data_source", "")),
        scene=row.get("scene", scene),
        question_type=row.get("question_type", row["problem_type"]),
        reasoning=row.get("reasoning"),
        about=tuple(row.get("about", ())),
        true_map=None if row.get("without_map") is True else true_map,
    )


def text_scene(identity: str) -> str:
    """The default scene of a text-only question, which no other question shares."""
    return f"{TEXT_ALONE}/{identity}"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:  # decoded line by line, so that one bad line is one fault
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _bare(solution: str) -> str:
    match = re.search(r"<answer>(.*?)</answer>", solution, re.DOTALL)
    return (match.group(1) if match else solution).strip()


def row_faults(row: Any) -> Iterator[tuple[str, str]]:
    """Kind and detail of each fault of a line, except for its media file: of its form and, if that is valid, of its
    meaning."""
    faults = list(_field_faults(row))
    yield from faults or meaning_faults(row, _bare(row["solution"]))


def _field_faults(row: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(row, dict):
        yield "not an object", f"a line must be a JSON object, not {type(row).__name__}"
        return
    alone = row.get("data_type") == TEXT_ALONE
    listed = isinstance(row.get("path"), list) and not alone
    if alone and row.get("path") not in (None, ""):
        detail = (
            f"'path' is {row['path']!r}, but a question of text has no file: leave it out, or name another 'data_type'"
        )
        yield "wrong field", detail
    for name in ("problem", "problem_type", "data_type", "solution", *(() if alone or listed else ("path",))):
        if name not in row:
            yield "missing field", f"{name!r} is missing"
        elif not isinstance(row[name], str) or not row[name].strip():
            yield "wrong field", f"{name!r} must be text, not {row[name]!r}"
    for name in ("problem_id", "options"):
        if name not in row:
            yield "missing field", f"{name!r} is missing"
    for name in ("data_source", "scene", "question_type", "reasoning"):
        if not isinstance(row.get(name, ""), str):
            yield "wrong field", f"{name!r} must be text or left out, not {row[name]!r}"
    if "problem_id" in row and (not isinstance(row["problem_id"], int | str) or isinstance(row["problem_id"], bool)):
        yield "wrong field", f"'problem_id' must be a whole number or text, not {row.get('problem_id')!r}"
    about = row.get("about", [])
    if not isinstance(about, list) or not all(isinstance(name, str) for name in about):
        yield "wrong field", f"'about' must be a list of strings or left out, not {about!r}"
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        yield "wrong field", f"'options' must be a list of strings, not {options!r}"
    elif "options" in row and row.get("problem_type") == "multiple choice" and len(options) < 2:
        yield "wrong field", f"a multiple choice question needs at least two 'options', not {len(options)}"
    if listed and not (row["path"] and all(isinstance(path, str) and path.strip() for path in row["path"])):
        yield "wrong field", f"'path' must be text or a list of one text or more, not {row['path']!r}"
    elif listed and isinstance(row.get("problem"), str) and isinstance(options, list):
        marks = len(marks_in((row["problem"], *map(str, options))))
        if marks not in (0, len(row["path"])):
            yield (
                "wrong field",
                f"'problem' and 'options' have {marks} marks of media, and 'path' {len(row['path'])} files",
            )
    for name, valid in (("problem_type", PROBLEM_TYPES), ("data_type", DATA_TYPES)):
        if isinstance(row.get(name), str) and row[name].strip() and row[name] not in valid:
            yield "wrong field", f"{name!r} is {row[name]!r}, not one of {', '.join(valid)}"


def find_media(path: str, real_root: Path) -> Fault | Path:
    """The media file at `path`, which must exist under the resolved data root."""
    resolved = find_place(path, real_root)
    if isinstance(resolved, Path) and not resolved.is_file():  # missing, or a pipe or a device
        return Fault(path, "missing file", f"{path!r} is not under {real_root}")
    return resolved


def find_place(path: str, real_root: Path) -> Fault | Path:
    """The path with all links resolved, which must be under the resolved data root.

    Raises:
        UserError: the operating system denies access.
    """
    try:
        resolved = (real_root / path).resolve()
        if not resolved.is_relative_to(real_root):
            return Fault(
                path, "outside the data root", f"{path!r} resolves to {resolved}, which is not under {real_root}"
            )
        resolved.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, an invalid character
        if isinstance(error, OSError) and (known := refused(error, real_root / path)) is not None:
            raise known from error
        return Fault(path, "unusable path", f"{path!r}: {error}")
    return resolved
