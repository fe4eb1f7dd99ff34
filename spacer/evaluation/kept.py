"""Answers on disk: a line for each, written when it is given, with a key of what it answers and how it came about.

Each rank appends to a file of its own, so that no two write to one, and a restart, with another number of ranks too,
asks what none of the files holds. Keys are in a file beside: a row with another key answers something else, and is
never reused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spacer.data.samples import Sample
from spacer.data.stored import FileImages
from spacer.files import append_rows, drop_torn_line, read_rows, write_rows, write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Completions of one question, each with its length in tokens, and whether it never ended."""

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    truncated: tuple[bool, ...] = ()  # empty where it is not known, as of a server


class AnswerFile:
    """The answers to some questions under some conditions: which are there, and which are left to ask."""

    def __init__(self, path: Path, conditions: str, samples: Sequence[Sample]) -> None:
        self._path, self._conditions, self._samples = path, conditions, samples
        self._order = {item.id: place for place, item in enumerate(samples)}
        self._keys = {item.id: key_of(conditions, item) for item in samples}

    def left(self) -> list[int]:
        """The places of the questions that have no answer, those about one medium together."""
        done = kept_rows(self._path, self._conditions, self._keys)
        return by_medium([place for id, place in self._order.items() if id not in done], self._samples)

    @property
    def in_parts(self) -> bool:
        """Whether answers wait to be joined, as after a run that was stopped at its last one."""
        return bool(part_files(self._path))

    def append(self, item: Sample, row: Row) -> None:
        """Writes the answer to a question, from the only process."""
        append_answers(part_file(self._path, 0), [row | {"key": self._keys[item.id]}])

    def join(self) -> None:
        """Puts the parts together, in the order of the questions."""
        join_parts(self._path, kept_rows(self._path, self._conditions, self._keys), self._order)

    def rows(self) -> list[Row]:
        """The answers in the order of the questions."""
        found = kept_rows(self._path, self._conditions, self._keys)
        return [bare(found[id]) for id in self._order if id in found]


def append_answers(file: Path, rows: Sequence[Row]) -> None:
    """Appends rows, each with its `key`, to a part file: a key without its row is none, so that it comes first."""
    if rows:
        with open(keys_of(file), "a", encoding="ascii") as keys:
            keys.writelines(key_lines(rows))
    append_rows(file, [bare(row) for row in rows])


def join_parts(path: Path, rows: Mapping[str, Row], order: Mapping[str, int]) -> None:
    """Writes all answers to `path` in the order of the questions, and removes the part files."""
    ordered = sorted(rows.values(), key=lambda row: order.get(row["id"], len(order)))
    write_text(keys_of(path), key_lines(ordered))
    write_rows(path, map(bare, ordered))
    for file in part_files(path):
        file.unlink()
        keys_of(file).unlink(missing_ok=True)


def by_medium(indices: Sequence[int], samples: Sequence[Sample]) -> list[int]:
    """Groups the indices by their samples' file, keeping the order of files and of samples."""
    first: dict[Path, int] = {}
    for index in indices:
        first.setdefault(samples[index].path, len(first))
    return sorted(indices, key=lambda index: first[samples[index].path])


def share_of(indices: Sequence[int], rank: int, world: int) -> Sequence[int]:
    """A rank's contiguous share, so that questions about one medium stay together.

    >>> share_of(range(5), 0, 2), share_of(range(5), 1, 2)
    (range(0, 2), range(2, 5))
    """
    count = len(indices)
    return indices[count * rank // world : count * (rank + 1) // world]


def part_file(path: Path, rank: int) -> Path:
    """The file to which a rank appends."""
    return path.with_name(f"{path.stem}.{rank}.part.jsonl")


def part_files(path: Path) -> list[Path]:
    """The files of all ranks."""
    return sorted(path.parent.glob(f"{path.stem}.*.part.jsonl"))


def keys_of(file: Path) -> Path:
    """The file of the keys of a file's rows."""
    return file.with_suffix(".keys")


def bare(row: Row) -> Row:
    """A row as stored, without its key: the same answer from the same weights gives the same line in any run."""
    return {name: value for name, value in row.items() if name != "key"}


def key_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Lines that pair a row's digest with its key, so that a key applies to that exact row, not just to its id."""
    return (f"{_row_digest(bare(row))} {row['key']}\n" for row in rows)


def _row_digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()[:16]


def key_of(conditions: str, item: Sample) -> str:
    """The key of an answer: the digest of its conditions, and one of the question as it is asked and scored.

    The location of the media does not matter; their size does, so that a question whose file was missing or truncated
    is asked again once the file is there.
    """
    asked = [
        *(item.id, item.problem, item.problem_type, item.options, item.solution, item.data_type, item.true_map),
        *(
            item.path.name,
            None if item.file is None else _size(item.file),
            *([file.kind, file.path.name, _size(file.path)] for file in item.media),
            *([path.name, _size(path)] for path in (item.images.paths if isinstance(item.images, FileImages) else ())),
            [asdict(caption) for caption in item.captions],
        ),
    ]
    return f"{conditions}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def kept_rows(path: Path, conditions: str, keys: Mapping[str, str]) -> dict[str, Row]:
    """Id → row, from the final file and those of ranks; only rows whose conditions and keys match.

    Rows of questions that are not asked now are kept, if they were produced under the same conditions.
    """
    found: dict[str, Row] = {}
    for file in (path, *part_files(path)):
        drop_torn_line(file)
        drop_torn_line(keys_of(file))
        lines = keys_of(file).read_text(encoding="ascii").splitlines() if keys_of(file).exists() else ()
        came_about = {tuple(line.split(" ")) for line in lines}
        by_digest: dict[str, list[str]] = {}
        for digest, key in came_about:
            if key.startswith(f"{conditions}-"):
                by_digest.setdefault(digest, []).append(key)
        for row in read_rows(file):
            under = by_digest.get(_row_digest(row), [])
            wanted = keys.get(row["id"])
            if under and (wanted is None or wanted in under):
                found[row["id"]] = row | {"key": wanted or under[0]}
    return found
