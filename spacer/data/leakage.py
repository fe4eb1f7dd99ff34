"""The leakage guard: videos that must not be trained on, because a benchmark asks about them.

A video is identified by its file's stem (`scene0011_00` for `videos/scene0011_00.mp4`), which benchmarks and training
sets made from the same scans have in common. Within one data set full paths are compared: `a/video.mp4` is not
`b/video.mp4`, unless the bytes are the same.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from spacer.data.samples import Sample
from spacer.errors import UserError

# the benchmarks' names for the video column, in order of preference
VIDEO_COLUMNS = ("scene_name", "scene_id", "video_path", "Video", "videoID", "video_id", "video", "path")


@dataclass(frozen=True)
class Withheld:
    """How much the guard kept out of training."""

    videos: int = 0
    questions: int = 0


NOTHING = Withheld()


def video_names(path: Path) -> frozenset[str]:
    """The videos that a file lists: each name without its folder, with and without its extension.

    The file is a benchmark's own annotation (`.parquet`, `.jsonl` or `.json` whose rows have one of `VIDEO_COLUMNS`,
    or a `.json` object keyed by video, as TempCompass has), or, with any other extension, a list of one name per line.

    Raises:
        UserError: the file has none of these formats, or names no video.
    """
    try:
        named = {PurePosixPath(name.strip()) for name in _named(path) if name.strip()}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of videos or a benchmark's annotation: {error}") from error
    if not named:
        raise UserError(f"{path}: names no video")
    # a suffix may be an extension or part of the name: guarding one video too many does no harm
    return frozenset(name for path in named for name in (path.name, path.stem))


def _named(path: Path) -> Iterable[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        columns = pq.read_schema(path).names
        found = _column(columns)
        return [str(value) for value in pq.read_table(path, columns=[found])[found].to_pylist() if value is not None]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        # not splitlines(), which splits at U+2028 too
        return _of_rows([json.loads(line) for line in text.split("\n") if line.strip()])
    if path.suffix == ".json":
        content = json.loads(text)
        if not isinstance(content, dict):
            return _of_rows(content)
        if not all(isinstance(value, dict) for value in content.values()):  # e.g. {"data": […]}
            raise ValueError("expected a list of objects, or an object of objects keyed by video")
        return content.keys()
    return text.splitlines()


def _of_rows(rows: Any) -> list[str]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a list of objects")
    return [str(name) for row in rows if (name := row[_column(row)]) is not None]


def _column(names: Iterable[str]) -> str:
    given = list(names)
    found = next((name for name in VIDEO_COLUMNS if name in given), None)
    if found is None:
        raise ValueError(f"none of the columns {', '.join(VIDEO_COLUMNS)} among {', '.join(given)}")
    return found


def guard(
    samples: Iterable[Sample], names: Container[str], heldout: Iterable[Path] = ()
) -> tuple[tuple[Sample, ...], Withheld]:
    """The samples whose video is neither among `names` nor among the same data set's `heldout` files, and how many were
    removed. Images are not compared."""
    kept: list[Sample] = []
    videos: set[Path] = set()
    questions = 0
    is_heldout = among(heldout)
    for sample in samples:
        found = [file.path for file in sample.files if file.kind == "video"]
        if leaking := [path for path in found if path.stem in names or is_heldout(path)]:
            videos.update(leaking)
            questions += 1
        else:
            kept.append(sample)
    return tuple(kept), Withheld(len(videos), questions)


def among(files: Iterable[Path]) -> Callable[[Path], bool]:
    """A predicate: whether a file is one of `files`, or has the same stem and bytes as one of them."""
    by_stem: dict[str, set[Path]] = {}
    for file in files:
        by_stem.setdefault(file.stem, set()).add(file)

    @cache
    def is_one(file: Path) -> bool:
        alike = by_stem.get(file.stem, set())
        return file in alike or any(_same_bytes(file, other) for other in alike)

    return is_one


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)  # compares sizes first
    except OSError:
        return True  # if they cannot be compared, do not train on it


def forbidden(heldout: Iterable[Sample], files: Iterable[Path]) -> dict[str, str]:
    """Video → why it must not be trained on: it is held out in another data set, or one of the files lists it.

    Raises:
        UserError: a file cannot be read.
    """
    found = {file.path.stem: "held out" for sample in heldout for file in sample.files if file.kind == "video"}
    for path in files:
        found |= dict.fromkeys(video_names(path), f"in {path.name}")
    return found
