"""Benchmarks' files as they are distributed: rows of parquet shards and JSON, media under one of several names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from spacer.benchmarks.fields import Row
from spacer.data.samples import Fault, find_media

VIDEO_ENDINGS = (".mp4", ".MP4", ".mkv")
_SHARD = re.compile(r"(.*-)(\d+)(-of-)(\d+)(\.parquet)")


def parquet_rows(
    root: Path, pattern: str, columns: Sequence[str], faults: list[Fault], beside: Sequence[str] = ()
) -> Iterator[Row]:
    """The rows of the files that match a pattern relative to `root`, shard after shard; what is wrong goes to `faults`.

    Columns `beside` those that are read must be there too. A shard that is missing (`…-00002-of-00004.parquet`) is a
    fault, for its questions would leave the denominator.
    """
    import pyarrow.parquet as pq

    paths = sorted(root.glob(pattern))
    if not paths:
        faults.append(Fault(pattern, "missing file", f"no file matches it in {root}"))
    faults += _missing_shards(paths, root)
    for path in paths:
        name = path.relative_to(root).as_posix()
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
            yield Row(name, number, row)


def _missing_shards(paths: list[Path], root: Path) -> Iterator[Fault]:
    named = [(path, found) for path in paths if (found := _SHARD.fullmatch(path.name))]
    for path, found in {match.expand(r"\1\4"): (path, match) for path, match in named}.values():
        start, digits, of, total, ending = found.groups()
        for index in range(int(total)):
            shard = path.with_name(f"{start}{index:0{len(digits)}d}{of}{total}{ending}")
            if shard not in paths:
                yield Fault(shard.relative_to(root).as_posix(), "missing file", f"{total} shards belong together")


def json_file(root: Path, name: str, kind: type, faults: list[Fault]) -> Any:
    """What a JSON file under `root` holds, which must be of the type `kind`; else an empty one of it, and a fault."""
    path = root / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        faults.append(Fault(name, "missing file", f"it is not in {root}"))
    except (OSError, ValueError, RecursionError) as error:
        faults.append(Fault(name, "unreadable file", str(error)))
    else:
        if isinstance(content, kind):
            return content
        faults.append(Fault(name, "wrong field", f"it must hold a {kind.__name__}, not a {type(content).__name__}"))
    return kind()


class Media:
    """Where a benchmark's media lie under a root. Files are looked up once; they need not be there."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._known: dict[tuple[str, ...], Path | Fault] = {}

    def find(self, *candidates: str) -> Path | Fault:
        """The first of the paths, relative to the root, that is a file; the first of all where none is.

        A path that leads out of the root, or that no file can have, is a fault.
        """
        if candidates not in self._known:
            self._known[candidates] = self._look_up(candidates)
        return self._known[candidates]

    def video(self, folders: Sequence[str], stem: str, endings: Sequence[str] = VIDEO_ENDINGS) -> Path | Fault:
        """The video of that stem in the first of the folders that has it."""
        return self.find(*(f"{folder}/{stem}{ending}" for folder in folders for ending in endings))

    def existing(self, candidate: str) -> Path | None:
        """The path where it is a file, for what a question can do without."""
        found = find_media(candidate, self._root)
        return None if isinstance(found, Fault) else found

    def _look_up(self, candidates: tuple[str, ...]) -> Path | Fault:
        for candidate in candidates:
            found = find_media(candidate, self._root)
            if not isinstance(found, Fault) or found.kind != "missing file":
                return found
        return self._root / candidates[0]


@dataclass(frozen=True)
class StoredImages(Sequence[bytes]):
    """The pictures of a parquet row, encoded, read when they are asked for: those of a benchmark fill gigabytes."""

    path: Path
    row: int
    column: str

    def _all(self) -> list[bytes]:
        group, offset = _place(self.path, self.row)
        return [image["bytes"] for image in _column(self.path, group, self.column)[offset].as_py()]

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __bool__(self) -> bool:
        return True  # without reading them


def _place(path: Path, row: int) -> tuple[int, int]:
    """The row group that holds a row, and which of its rows it is."""
    for group, size in enumerate(_group_sizes(path)):
        if row < size:
            return group, row
        row -= size
    raise IndexError(f"{path} has no such row")


@lru_cache(maxsize=64)
def _group_sizes(path: Path) -> tuple[int, ...]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    return tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))


@lru_cache(maxsize=1)  # questions are asked in the file's order, so that a row group is read once
def _column(path: Path, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group, columns=[column])[column]
