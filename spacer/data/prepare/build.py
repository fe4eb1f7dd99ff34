"""Distributed files → a folder to train from.

    source (folder or hub) → parts → unpacked media, questions, maps → index.parquet → a summary

Every step resumes where an earlier call stopped.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spacer.config.settings import ArchivedSettings, JsonlSettings
from spacer.data.companions import UNMATCHED, unmatched
from spacer.data.index import LEAKS, UNREADABLE, IndexWriter, excluded_by, fingerprint, maps_of, row_of, sources_of
from spacer.data.leakage import among, forbidden
from spacer.data.prepare.archive import is_unpacked, unpack
from spacer.data.prepare.media import Media, survey
from spacer.data.prepare.parts import find_parts
from spacer.data.samples import Fault, Line, Medium, examined, named
from spacer.errors import UserError
from spacer.terminal.progress import progress_bar

log = logging.getLogger(__name__)
DOWNLOADS = ".download"  # folder in the data root for files from the hub that are to be unpacked


@dataclass(frozen=True)
class Contents:
    """The contents of a prepared folder. `questions` counts the usable ones by (data source, problem type)."""

    questions: Mapping[tuple[str, str], int]
    excluded: Mapping[str, int]
    videos: int
    images: int
    hours: float
    missing_files: int
    unreadable_files: int
    with_map: int
    faults: tuple[Fault, ...]


def gather(settings: ArchivedSettings) -> None:
    """Brings the data set's files into its root: downloads and unpacks the archive, copies questions and maps.

    Raises:
        UserError: a part is missing or damaged, the hub cannot be reached, or the disk is full.
    """
    root = Path(settings.root).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    lacking = _lacking(settings, root)
    unpacked = is_unpacked(root)
    if unpacked and not lacking:
        log.info("%s is already unpacked", root)
        return
    source = _source(settings, root, lacking if unpacked else [f"{settings.archive}*", "SHA256SUMS", *_names(settings)])
    if not unpacked and (source != root or any(source.glob(f"{settings.archive}[0-9]*"))):
        done = unpack(find_parts(source, settings.archive, settings.archive_parts), root)
        log.info("unpacked %d files, %d were already there", done.written, done.kept)
    for name in _lacking(settings, root):
        if (source / name).is_file():
            _copy(source / name, root / name)
    if lacking := _lacking(settings, root):
        raise UserError(
            f"{', '.join(lacking)}: neither in the archive nor next to it in {source}: download what is missing to "
            f"{source}, or set dataset.index, dataset.maps and dataset.heldout to the files' names there"
        )


def _names(settings: JsonlSettings) -> list[str]:
    """The files named in the settings, relative to the root."""
    return [name for name in (settings.index, settings.maps, settings.heldout) if name is not None]


def _lacking(settings: JsonlSettings, root: Path) -> list[str]:
    return [name for name in _names(settings) if not (root / name).is_file()]


def _source(settings: ArchivedSettings, root: Path, wanted: list[str]) -> Path:
    """The folder with the data set's files; if they are on the hub, the wanted ones are downloaded to one."""
    if settings.source is None:
        return root
    folder = Path(settings.source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # the base classes cover the HTTP client's own errors (broken connection, timeout); the client differs by version
    failures: Any = (*HfHubHTTPError.__bases__, EntryNotFoundError, OSError)
    try:
        # resumes an interrupted download, and checks sizes
        fetched = snapshot_download(
            settings.source,
            repo_type="dataset",
            revision=settings.revision,
            local_dir=root / DOWNLOADS,
            allow_patterns=wanted,
        )
    except failures as error:
        raise UserError(
            f"dataset.source={settings.source}: cannot be downloaded from the hub: {error}\n"
            "Run the same command again to resume; for a gated data set run `hf auth login` first; or download the "
            "files elsewhere and set dataset.source to their folder."
        ) from error
    return Path(fetched)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, work)
        work.replace(target)
    finally:
        work.unlink(missing_ok=True)


def build_index(
    settings: JsonlSettings, lists: Iterable[Path] = (), guarded: Mapping[str, str] = MappingProxyType({})
) -> Contents:
    """Validates every line, opens every media file, writes `index.parquet` and returns a summary.

    Videos that must not be trained on are those named in the files `lists`, the `guarded` ones (video → reason), and
    those of `settings.heldout`.
    """
    root = Path(settings.root).expanduser()
    if lacking := _lacking(settings, root):
        raise UserError(
            f"{', '.join(lacking)}: not found in dataset.root={root}: set dataset.index, dataset.maps and "
            "dataset.heldout to the files' names there"
        )
    made_from = fingerprint(settings)
    maps = maps_of(settings)
    real_root = root.resolve()  # once, not for each line, since it accesses the disk
    read = {
        split: named(
            progress_bar(examined(path, root), desc=f"reading {path.name}", unit=" lines", mininterval=1),
            real_root,
            maps,
        )
        for split, path in sources_of(settings).items()
    }
    lines = {split: found for split, (found, _) in read.items()}
    files = {_relative(file, real_root): file.kind for split in lines.values() for line in split for file in line.files}
    media = survey(root, files)
    withheld = {**forbidden((), lists), **guarded}
    is_heldout = among(file.path for line in lines.get("heldout", ()) for file in line.files)
    questions: Counter[tuple[str, str]] = Counter()
    excluded: Counter[str] = Counter()
    faults: list[Fault] = []
    if (detail := unmatched(read["train"][1], maps)) is not None:
        faults.append(Fault(str(settings.maps), UNMATCHED, detail))
    with_map = 0
    with IndexWriter(root, made_from) as index:
        for split, rows in lines.items():
            file = "" if split == "train" else f"{settings.heldout}, "
            for line in rows:
                unreadable = _unreadable(line, media, real_root)
                # held-out questions with unreadable media are kept, and count as wrong
                reason = excluded_by((*line.faults, *unreadable) if split == "train" else line.faults)
                if reason is None and split == "train":
                    reason = _leak(line, withheld, is_heldout)
                naming = read[split][1]
                has_map = line.media in naming.maps
                scene = None if line.media is None else naming.scenes[line.media]
                index.add(row_of(split, line, real_root, has_map, reason, scene))
                faults += (replace(fault, where=f"{file}{fault.where}") for fault in (*line.faults, *unreadable))
                if reason is None:
                    questions[str(line.row.get("data_source", "")), line.row["problem_type"]] += 1
                    with_map += has_map
                else:
                    excluded[reason.partition(": ")[0]] += 1
    return Contents(
        questions=questions,
        excluded=excluded,
        videos=sum(kind == "video" for kind in files.values()),
        images=sum(kind == "image" for kind in files.values()),
        hours=sum(entry.seconds for entry in media.values()) / 3600,
        missing_files=len({fault.detail for fault in faults if fault.kind == "missing file"}),
        unreadable_files=sum(entry.error is not None for entry in media.values()),
        with_map=with_map,
        faults=tuple(faults),
    )


def _relative(file: Medium, real_root: Path) -> str:
    return os.path.relpath(file.path, real_root)


def _unreadable(line: Line, media: Mapping[str, Media], real_root: Path) -> tuple[Fault, ...]:
    errors = [media[_relative(file, real_root)].error for file in line.files]
    return tuple(
        Fault(f"line {line.number}", UNREADABLE, error) for error in dict.fromkeys(errors) if error is not None
    )


def is_of_index(fault: Fault) -> bool:
    """Whether a fault is in the training lines, not in the held-out ones."""
    return fault.where.startswith("line ")  # faults in held-out lines start with the file's name


def _leak(line: Line, withheld: Mapping[str, str], is_heldout: Callable[[Path], bool]) -> str | None:
    for path in (file.path for file in line.files if file.kind == "video"):
        if path.stem in withheld:
            return f"{LEAKS}: {path.stem} is {withheld[path.stem]}"
        if is_heldout(path):
            return f"{LEAKS}: {path.stem} is held out"
    return None
