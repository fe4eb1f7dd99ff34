"""`index.parquet`: the validated questions of a data set, so that a run need not validate them again.

One row per line of the data files. `excluded` is null for a valid question; otherwise it gives the reason, as
`kind: detail`. The file's metadata record its source files; if one of them has changed, the index is stale and ignored.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spacer.config.settings import JsonlSettings
from spacer.data.companions import UNMATCHED, name_files, unmatched
from spacer.data.layout import media_kinds
from spacer.data.samples import (
    DATA_TYPES,
    PROBLEM_TYPES,
    TEXT_ALONE,
    CognitiveMap,
    Fault,
    Line,
    Medium,
    Sample,
    find_media,
    find_place,
    read_maps,
    to_sample,
)
from spacer.errors import UserError

NAME = "index.parquet"
VERSION = "4"  # incremented when the columns or their meaning change
ROWS = 10_000  # rows per row group, which are buffered in memory while writing
UNREADABLE = "unreadable media"  # the kind of fault that concerns a file, not a line
LEAKS = "in a benchmark"  # the kind of exclusion that is not a fault

_SEVERAL = "\0"  # between the paths of a question about several files; no path has it
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
    """The rows of one split: valid samples, faults, and the videos of questions withheld because of a benchmark."""

    samples: tuple[Sample, ...]
    faults: tuple[Fault, ...]
    withheld: tuple[str, ...]


def named_file(settings: JsonlSettings, name: str) -> Path:
    """The path of a file named in the settings, relative to the data root.

    Raises:
        UserError: it is a link inside the root that leads out of it. Data may come from anybody, and a link in it must
            not decide which files of this machine are read.
    """
    root = Path(settings.root).expanduser()
    path, real_root = root / name, root.resolve()
    inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))
    if inside and not (real := path.resolve()).is_relative_to(real_root):
        raise UserError(
            f"{path} is a link to {real}, outside the data root {real_root}: put the file itself there, or give its "
            "real path"
        )
    return path


def sources_of(settings: JsonlSettings) -> dict[str, Path]:
    """Split → its JSONL file of questions. Raises what `named_file` raises."""
    named = {"train": settings.index, "heldout": settings.heldout}
    return {split: named_file(settings, name) for split, name in named.items() if name is not None}


def maps_of(settings: JsonlSettings) -> dict[str, CognitiveMap]:
    """The cognitive maps that the settings name. Raises what `named_file` and `read_maps` raise."""
    return {} if settings.maps is None else read_maps(named_file(settings, settings.maps))


def fingerprint(settings: JsonlSettings) -> dict[str, str]:
    """The index's dependencies: each source file with its size and modification time."""
    root = Path(settings.root).expanduser()
    files = dict(sources_of(settings))
    if settings.maps is not None:
        files["maps"] = named_file(settings, settings.maps)
    found = {"version": VERSION}
    for role, path in files.items():
        status = path.stat()
        found[role] = f"{os.path.relpath(path, root)} {status.st_size} {status.st_mtime_ns}"
    return found


class IndexWriter:
    """Writes the index to a temporary file and renames it once complete: `with IndexWriter(…) as index: …`."""

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


def row_of(
    split: str, line: Line, root: Path, has_map: bool, excluded: str | None, scene: str | None = None
) -> dict[str, Any]:
    """The row of a line; faulty fields are null. `scene` is the scene that its file shows."""
    if line.faults:
        row: dict[str, Any] = {
            name: value for name, value in line.row.items() if name in _TEXTS and isinstance(value, str)
        }
        identity = line.row.get("problem_id")
        row["problem_id"] = None if identity is None else str(identity)
    else:
        sample = to_sample(line.row, line.files, None, scene)
        row = {
            "problem_id": sample.id,
            "problem": sample.problem,
            "problem_type": sample.problem_type,
            "data_type": sample.data_type,
            "data_source": sample.source,
            "solution": sample.solution,
            "path": _SEVERAL.join(os.path.relpath(file.path, root) for file in sample.files),
            "scene": sample.scene,
            "question_type": sample.question_type,
            "reasoning": sample.reasoning,
            "options": list(sample.options),
        }
    return row | {"split": split, "line": line.number, "has_map": has_map, "excluded": excluded}


def is_fresh(settings: JsonlSettings) -> bool:
    """Whether there is a valid index of the current files."""
    path = Path(settings.root).expanduser() / NAME
    if path.is_symlink() or not path.is_file():
        return False
    try:
        schema = pq.read_schema(path)
        made_from = json.loads((schema.metadata or {}).get(b"made_from", b"{}"))
    # truncated, or written by something else: fall back to the lines
    except (pa.ArrowException, OSError, ValueError, RecursionError):
        return False
    return bool(schema.remove_metadata().equals(SCHEMA)) and bool(made_from == fingerprint(settings))


def count_questions(settings: JsonlSettings) -> int | None:
    """The number of training questions in the index; None if there is no fresh one."""
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
) -> Indexed | None:
    """The rows of a split as samples, faults and withheld videos, restricted to the `wanted` data sources.

    None if the rows could not come from valid lines, or maps are ambiguous: the caller then reads the lines, which
    tells what is wrong. Media files are looked up again, since they may have been removed since.
    """
    root = Path(settings.root).expanduser().resolve()
    table = pq.read_table(root / NAME, filters=[("split", "=", split)])
    every = table.filter(pc.is_null(table["excluded"]))
    if not _could_be_lines(every):
        return None
    named_paths = dict.fromkeys(
        path for several in pc.unique(every["path"]).to_pylist() if several for path in several.split(_SEVERAL)
    )
    files = _find_files(named_paths, root)
    naming = name_files((file for file in files.values() if isinstance(file, Path)), root, maps)
    if naming.ambiguous:
        return None
    faults: list[Fault] = []
    if split == "train" and (detail := unmatched(naming, maps)) is not None:
        faults.append(Fault("maps", UNMATCHED, detail))
    if wanted is not None:
        named = pc.is_in(table["data_source"], value_set=pa.array(wanted, pa.string()))
        table = table.filter(pc.or_(named, pc.is_null(table["data_source"])))  # keep faulty lines without a source
    sound = table.filter(pc.is_null(table["excluded"]))
    # column by column: several times faster than by row
    columns = {field: sound[column].to_pylist() for field, column in _FIELDS.items()}
    columns["options"] = [tuple(options) for options in columns["options"]]
    paths = [path.split(_SEVERAL) if path else [] for path in columns["path"]]
    columns["media"] = [
        _several(*values, files)
        for values in zip(paths, columns["data_type"], columns["problem"], columns["options"], strict=True)
    ]
    columns["path"] = [
        next((files[path] for path in several if isinstance(files[path], Fault)), files[several[0]])
        if several
        else Path(identity)  # as `to_sample` has it
        for several, identity in zip(paths, columns["id"], strict=True)
    ]
    found_maps = {file: maps[key] for file, key in naming.maps.items()}
    columns["true_map"] = [found_maps.get(path) for path in columns["path"]]
    samples = []
    for line, values in zip(sound["line"].to_pylist(), zip(*columns.values(), strict=True), strict=True):
        sample = Sample(**dict(zip(columns, values, strict=True)))
        if isinstance(sample.path, Fault):
            faults.append(replace(sample.path, where=f"line {line}"))
        else:
            samples.append(sample)
    withheld: list[str] = []
    rest = table.filter(pc.is_valid(table["excluded"]))
    for line, path, reason in zip(*(rest[name].to_pylist() for name in ("line", "path", "excluded")), strict=True):
        kind, _, detail = reason.partition(": ")
        if kind == LEAKS:
            withheld.append(path)
        else:
            faults.append(Fault(f"line {line}", kind, detail))
    return Indexed(tuple(samples), tuple(faults), tuple(withheld))


def _several(
    paths: Sequence[str], data_type: str, problem: str, options: Sequence[str], files: Mapping[str, Path | Fault]
) -> tuple[Medium, ...]:
    """The media of a question about several files, of which the missing ones are left out: it is a fault as a whole."""
    if len(paths) < 2:
        return ()
    kinds = media_kinds({"path": list(paths), "data_type": data_type, "problem": problem, "options": options})
    found = [(kind, files[path]) for kind, path in zip(kinds, paths, strict=True)]
    return tuple(Medium(kind, file) for kind, file in found if isinstance(file, Path))


def _could_be_lines(sound: pa.Table) -> bool:
    """Whether rows marked as valid could come from valid lines."""
    needed = ("line", "problem_id", "problem", "problem_type", "data_type", "solution", "path", "options")
    allowed = {"problem_type": PROBLEM_TYPES, "data_type": DATA_TYPES}
    return (
        not any(sound[name].null_count for name in needed)
        and all(set(pc.unique(sound[name]).to_pylist()) <= set(values) for name, values in allowed.items())
        and pc.count_distinct(sound["problem_id"]).as_py() == len(sound)
        and not pc.list_flatten(sound["options"]).null_count
        and pc.equal(sound["path"], "").equals(pc.equal(sound["data_type"], TEXT_ALONE))  # only these have no file
    )


def _find_files(paths: Iterable[str], real_root: Path) -> dict[str, Path | Fault]:
    """The files of `paths`, each under the resolved data root. Each folder is resolved only once."""
    folders: dict[str, Path | None] = {}
    found: dict[str, Path | Fault] = {}
    for path in paths:
        above, _, name = path.rpartition("/")
        if above not in folders:
            folder = find_place(above, real_root)
            folders[above] = None if isinstance(folder, Fault) else folder
        place = folders[above]
        if place is not None and name not in ("", ".", "..") and "\0" not in name:
            try:
                if stat.S_ISREG(os.lstat(place / name).st_mode):
                    found[path] = place / name
                    continue
            except OSError:
                pass
        found[path] = find_media(path, real_root)  # a link, or missing: returns the reason
    return found


def excluded_by(faults: Iterable[Fault]) -> str | None:
    """The faults of a line as stored in the index; None if there are none."""
    return "; ".join(f"{fault.kind}: {fault.detail}" for fault in faults) or None
