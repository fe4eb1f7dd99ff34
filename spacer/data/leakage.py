"""Which videos must not be trained on, because a benchmark asks about them.

A video is known by its file's stem (`scene0011_00` for `videos/scene0011_00.mp4`), which is how the benchmarks and the
training sets that are made of the same scans name them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spacer import benchmarks
from spacer.data.samples import Sample
from spacer.errors import UserError
from spacer.settings import BenchmarkSettings

# what benchmarks call the column that names the video, in the order of preference
VIDEO_COLUMNS = ("scene_name", "video_path", "Video", "videoID", "video_id", "video", "path")


@dataclass(frozen=True)
class Withheld:
    """What the guard has left out of training."""

    videos: int = 0
    questions: int = 0


NOTHING = Withheld()


def video_names(path: Path) -> frozenset[str]:
    """The videos that a file names, as they stand there and without their folder and ending.

    The file is a list, a name a line (any ending but those that follow), or a benchmark's own annotation: `.parquet`,
    `.jsonl` or `.json` whose rows have one of `VIDEO_COLUMNS`, or a `.json` object keyed by video (TempCompass).

    Raises:
        UserError: the file cannot be read so, or names no video.
    """
    try:
        named = {PurePosixPath(name.strip()) for name in _named(path) if name.strip()}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of videos or a benchmark's annotation: {error}") from error
    if not named:
        raise UserError(f"{path}: names no video")
    # what follows a dot may be an ending or belong to the name: to guard one video too many does no harm
    return frozenset(name for path in named for name in (path.name, path.stem))


def _named(path: Path) -> Iterable[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        columns = pq.read_schema(path).names
        found = _column(columns)
        return [str(value) for value in pq.read_table(path, columns=[found])[found].to_pylist() if value is not None]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return _of_rows([json.loads(line) for line in text.split("\n") if line.strip()])  # U+2028 ends no line
    if path.suffix == ".json":
        content = json.loads(text)
        if not isinstance(content, dict):
            return _of_rows(content)
        if not all(isinstance(value, dict) for value in content.values()):  # {"data": […]} is keyed by no video
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


def guard(samples: Iterable[Sample], names: Container[str]) -> tuple[tuple[Sample, ...], Withheld]:
    """The samples whose video is none of `names`, and how many were left out. Images are not compared."""
    kept: list[Sample] = []
    videos: set[Path] = set()
    questions = 0
    for sample in samples:
        if sample.data_type == "video" and sample.path.stem in names:
            videos.add(sample.path)
            questions += 1
        else:
            kept.append(sample)
    return tuple(kept), Withheld(len(videos), questions)


def forbidden(
    heldout: Iterable[Sample], files: Iterable[Path], benchmark: BenchmarkSettings | None = None
) -> Mapping[str, str]:
    """Video → why it must not be trained on.

    It is asked about in evaluation, or one of the files names it, or the configured benchmark does: its `index` file,
    or its own questions where its `root` is set.
    """
    found = {sample.path.stem: "held out" for sample in heldout if sample.data_type == "video"}
    indices = [] if benchmark is None or benchmark.index is None else [Path(benchmark.index).expanduser()]
    for path in (*indices, *files):
        found |= dict.fromkeys(video_names(path), f"in {path.name}")
    if benchmark is not None and benchmark.root is not None and benchmark.name in benchmarks.names():
        questions, _ = benchmarks.benchmark(benchmark.name).read(Path(benchmark.root).expanduser())
        found |= {question.video.stem: f"in {benchmark.name}" for question in questions if question.video is not None}
    return found
