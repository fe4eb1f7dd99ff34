"""`index.parquet`: the questions of a data set, examined once, so that a run starts without examining them again.

A row a line of the data files. `excluded` is null for a sound question and otherwise says why it is left out, as
`kind: detail`. The file's metadata say which files it was made from; where one of them has changed, it is not used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spacer.data.samples import CognitiveMap, Fault, Line, Sample, to_sample
from spacer.settings import JsonlSettings

NAME = "index.parquet"
VERSION = "1"  # raised when the columns or what they mean change
ROWS = 10_000  # a row group; what is held in memory while writing
UNREADABLE = "unreadable media"  # the kind of fault that concerns a file, not a line
LEAKS = "in a benchmark"  # the kind of exclusion that is no fault

_TEXTS = ("problem", "problem_type", "data_type", "data_source", "solution", "path", "scene", "question_type")
SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("line", pa.int64()),
        ("problem_id", pa.string()),
        *((name, pa.string()) for name in _TEXTS),
        ("reasoning", pa.string()),
        ("options", pa.list_(pa.string())),
        ("has_map", pa.bool_()),
        ("excluded", pa.string()),
    ]
)
# field of a sample → its column
_FIELDS = {"id": "problem_id", "source": "data_source", "options": "options", "reasoning": "reasoning"}
_FIELDS |= {name: name for name in _TEXTS if name != "data_source"}


@dataclass(frozen=True)
class Indexed:
    """The rows of one split: sound samples, faults, and the questions withheld for a benchmark with their videos."""

    samples: tuple[Sample, ...]
    faults: tuple[Fault, ...]
    withheld: tuple[str, ...]


def sources_of(settings: JsonlSettings) -> dict[str, Path]:
    """Split → the JSONL file of its questions."""
    root = Path(settings.root).expanduser()
    named = {"train": settings.index, "heldout": settings.heldout}
    return {split: root / name for split, name in named.items() if name is not None}


def fingerprint(settings: JsonlSettings) -> dict[str, str]:
    """What the index depends on: each file that it is made from with its size and time of change."""
    root = Path(settings.root).expanduser()
    files = dict(sources_of(settings))
    if settings.maps is not None:
        files["maps"] = root / settings.maps
    found = {"version": VERSION}
    for role, path in files.items():
        status = path.stat()
        found[role] = f"{os.path.relpath(path, root)} {status.st_size} {status.st_mtime_ns}"
    return found


class IndexWriter:
    """Writes the index under another name and renames it when it is whole: `with IndexWriter(…) as index: …`."""

    def __init__(self, root: Path, made_from: Mapping[str, str]) -> None:
        self._path = root / NAME
        self._work = root / f".{NAME}.{os.getpid()}"
        self._rows: list[dict[str, Any]] = []
        self._writer = pq.ParquetWriter(self._work, SCHEMA.with_metadata({"made_from": json.dumps(dict(made_from))}))

    def __enter__(self) -> IndexWriter:
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, made by `row_of`."""
        self._rows.append(row)
        if len(self._rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows.clear()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                self._work.replace(self._path)
        finally:
            self._work.unlink(missing_ok=True)


def row_of(split: str, line: Line, root: Path, has_map: bool, excluded: str | None) -> dict[str, Any]:
    """The row of a line; fields that are faulty are null."""
    if line.faults or line.media is None:
        row: dict[str, Any] = {
            name: value for name, value in line.row.items() if name in _TEXTS and isinstance(value, str)
        }
        identity = line.row.get("problem_id")
        row["problem_id"] = None if identity is None else str(identity)
    else:
        sample = to_sample(line.row, line.media, None)
        row = {
            "problem_id": sample.id,
            "problem": sample.problem,
            "problem_type": sample.problem_type,
            "data_type": sample.data_type,
            "data_source": sample.source,
            "solution": sample.solution,
            "path": os.path.relpath(sample.path, root),
            "scene": sample.scene,
            "question_type": sample.question_type,
            "reasoning": sample.reasoning,
            "options": list(sample.options),
        }
    return row | {"split": split, "line": line.number, "has_map": has_map, "excluded": excluded}


def is_fresh(settings: JsonlSettings) -> bool:
    """Whether there is an index, made from the files as they are now."""
    path = Path(settings.root).expanduser() / NAME
    if not path.is_file():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:  # a copy that was cut short: the lines are read in its place
        return False
    return bool(json.loads(metadata.get(b"made_from", b"{}")) == fingerprint(settings))


def count_questions(settings: JsonlSettings) -> int | None:
    """How many questions the index holds to train on; None where there is none of the files as they are now."""
    if not all(path.is_file() for path in sources_of(settings).values()) or not is_fresh(settings):
        return None
    path = Path(settings.root).expanduser() / NAME
    table = pq.read_table(path, columns=["data_source", "excluded"], filters=[("split", "=", "train")])
    sound = table.filter(pc.is_null(table["excluded"]))["data_source"]
    if settings.data_sources is None:
        return len(sound)
    return int(pc.sum(pc.is_in(sound, value_set=pa.array(settings.data_sources, pa.string()))).as_py() or 0)


def read_index(
    settings: JsonlSettings, split: str, maps: Mapping[str, CognitiveMap], wanted: Sequence[str] | None = None
) -> Indexed:
    """The rows of a split as samples, faults and withheld videos, of the `wanted` data sources alone."""
    root = Path(settings.root).expanduser().resolve()
    table = pq.read_table(root / NAME, filters=[("split", "=", split)])
    if wanted is not None:
        named = pc.is_in(table["data_source"], value_set=pa.array(wanted, pa.string()))
        table = table.filter(pc.or_(named, pc.is_null(table["data_source"])))  # a line without one may be anything
    sound = table.filter(pc.is_null(table["excluded"]))
    paths = {path: root / path for path in pc.unique(sound["path"]).to_pylist()}
    # column by column: row by row it would take several times as long
    columns = {field: sound[column].to_pylist() for field, column in _FIELDS.items()}
    columns["path"] = [paths[path] for path in columns["path"]]
    columns["options"] = [tuple(options) for options in columns["options"]]
    columns["true_map"] = [maps.get(path.stem) for path in columns["path"]]
    samples = tuple(Sample(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))
    faults: list[Fault] = []
    withheld: list[str] = []
    rest = table.filter(pc.is_valid(table["excluded"]))
    for line, path, reason in zip(*(rest[name].to_pylist() for name in ("line", "path", "excluded")), strict=True):
        kind, _, detail = reason.partition(": ")
        if kind == LEAKS:
            withheld.append(path)
        else:
            faults.append(Fault(f"line {line}", kind, detail))
    return Indexed(samples, tuple(faults), tuple(withheld))


def excluded_by(faults: Iterable[Fault]) -> str | None:
    """The faults of a line as its index holds them."""
    return "; ".join(f"{fault.kind}: {fault.detail}" for fault in faults) or None
