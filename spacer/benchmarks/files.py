"""Benchmarks' files as distributed: rows of parquet shards and JSON, and media under one of several names."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from os import SEEK_END
from pathlib import Path
from typing import Any

from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.question import Question
from spacer.data.samples import Fault, find_media
from spacer.data.stored import TsvImages, tsv_records
from spacer.files import read_ordinary

VIDEO_ENDINGS = (".mp4", ".MP4", ".mkv")
MOST_SHARDS = 1000  # of one file; each missing shard is listed
_SHARD = re.compile(r"(.*-)(\d+)(-of-)(\d+)(\.parquet)")


def parquet_rows(
    root: Path, pattern: str, columns: Sequence[str], faults: list[Fault], beside: Sequence[str] = ()
) -> Iterator[BenchmarkRow]:
    """The rows of the files that match a pattern relative to `root`, shard after shard; faults go to `faults`.

    Columns `beside` those read must exist too. A missing shard (`…-00002-of-00004.parquet`) is a fault, since its
    questions would be missing from the denominator.
    """
    import pyarrow.parquet as pq

    paths = sorted(root.glob(pattern))
    if not paths:
        faults.append(Fault(pattern, "missing file", f"no file matches it in {root}"))
    faults += _missing_shards(paths, root)
    for path in paths:
        name = path.relative_to(root).as_posix()
        if not path.is_file():
            faults.append(Fault(name, "unreadable file", "it is no ordinary file, but a folder, a pipe or a device"))
            continue
        try:
            found = set(pq.read_schema(path).names)
            if lacking := [column for column in (*columns, *beside) if column not in found]:
                faults.append(Fault(name, "missing column", f"{', '.join(lacking)}: the file has {', '.join(found)}"))
                continue
            rows = pq.read_table(path, columns=list(columns)).to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            faults.append(Fault(name, "unreadable file", str(error)))
            continue
        for number, row in enumerate(rows):
            yield BenchmarkRow(name, number, row)


def _missing_shards(paths: list[Path], root: Path) -> Iterator[Fault]:
    named = [(path, found) for path in paths if (found := _SHARD.fullmatch(path.name))]
    for path, found in {match.expand(r"\1\4"): (path, match) for path, match in named}.values():
        start, digits, of, total, ending = found.groups()
        if int(total) > MOST_SHARDS:
            what = f"it says that {total} shards belong together, and no benchmark has more than {MOST_SHARDS:,}"
            yield Fault(path.relative_to(root).as_posix(), "unusable name", what)
            continue
        for index in range(int(total)):
            shard = path.with_name(f"{start}{index:0{len(digits)}d}{of}{total}{ending}")
            if shard not in paths:
                yield Fault(shard.relative_to(root).as_posix(), "missing file", f"{total} shards belong together")


def jsonl_rows(root: Path, name: str, faults: list[Fault]) -> Iterator[BenchmarkRow]:
    """The rows of a JSONL file under `root`; a line that is not JSON is a faulty row, if more lines follow.

    A truncated last line is a fault of the file, which may have lost any number of rows.
    """
    try:
        lines = (root / name).read_bytes().split(b"\n")
    except OSError as error:
        faults.append(Fault(name, "unreadable file", str(error)))
        return
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        values: Any
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) - 1:
                faults.append(Fault(name, "unreadable file", f"its last line breaks off: {error}"))
                return
            values = line.decode(errors="replace")
        yield BenchmarkRow(name, number, values)


def json_file(root: Path, name: str, kind: type, faults: list[Fault]) -> Any:
    """The contents of a JSON file under `root`, which must be of type `kind`; else an empty `kind`, and a fault."""
    path = root / name
    try:
        content = json.loads(read_ordinary(path))
    except FileNotFoundError:
        faults.append(Fault(name, "missing file", f"it is not in {root}"))
    except (OSError, ValueError, RecursionError) as error:
        faults.append(Fault(name, "unreadable file", str(error)))
    else:
        if isinstance(content, kind):
            return content
        faults.append(Fault(name, "wrong field", f"it must hold a {kind.__name__}, not a {type(content).__name__}"))
    return kind()


def json_questions(
    root: Path, name: str, question_of: Callable[[BenchmarkRow], Question]
) -> tuple[list[Question], list[Fault]]:
    """The questions of a JSON file under `root` that is a list of rows, and the faults of it and of its rows."""
    faults: list[Fault] = []
    rows = [BenchmarkRow(name, index, row) for index, row in enumerate(json_file(root, name, list, faults))]
    return unique([(row, question_of(row)) for row in rows], faults), faults


class Media:
    """Locates a benchmark's media under a root. Files are looked up once, and may be absent."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._known: dict[tuple[str, ...], Path | Fault] = {}

    def find(self, *candidates: str) -> Path | Fault:
        """The first of the paths, relative to the root, that is a file; the first path if none is.

        A path that leads out of the root, or that is invalid as a file name, is a fault.
        """
        if candidates not in self._known:
            self._known[candidates] = self._look_up(candidates)
        return self._known[candidates]

    def video(self, folders: Sequence[str], stem: str, endings: Sequence[str] = VIDEO_ENDINGS) -> Path | Fault:
        """The video with that stem in the first of the folders that has it."""
        return self.find(*(f"{folder}/{stem}{ending}" for folder in folders for ending in endings))

    def existing(self, candidate: str) -> Path | None:
        """The path if it is a file, for media that a question can do without."""
        found = find_media(candidate, self._root)
        return None if isinstance(found, Fault) else found

    def _look_up(self, candidates: tuple[str, ...]) -> Path | Fault:
        for candidate in candidates:
            found = find_media(candidate, self._root)
            if not isinstance(found, Fault) or found.kind != "missing file":
                return found
        return self._root / candidates[0]


def tsv_rows(
    root: Path, name: str, columns: Sequence[str], image: str, faults: list[Fault]
) -> Iterator[tuple[BenchmarkRow, TsvImages]]:
    """The rows of a tab-separated file with a header, and their images, which stay in the file; faults go to `faults`.

    Empty cells are null. A row with another number of cells than the header is a faulty row.
    """
    path = root / name
    try:
        with open(path, "rb") as file:
            file.seek(-1, SEEK_END)
            if file.read(1) != b"\n":
                faults.append(Fault(name, "unreadable file", "its last line breaks off"))
                return
            file.seek(0)
            records = tsv_records(file)
            header = next(records, (0, []))[1]
            if lacking := [column for column in (*columns, image) if column not in header]:
                faults.append(Fault(name, "missing column", f"{', '.join(lacking)}: the file has {', '.join(header)}"))
                return
            place = header.index(image)
            for number, (offset, record) in enumerate(records):
                values: Any = f"{len(record)} cells"
                if len(record) == len(header):
                    values = {
                        column: cell or None for column, cell in zip(header, record, strict=True) if column in columns
                    }
                yield BenchmarkRow(name, number, values), TsvImages(path, offset, place)
    except FileNotFoundError:
        faults.append(Fault(name, "missing file", f"it is not in {root}"))
    except (OSError, ValueError, csv.Error) as error:
        faults.append(Fault(name, "unreadable file", str(error)))
