"""stage=prepare: files as they are distributed → a folder to train from.

    source (folder or hub) → parts → unpacked media, questions, maps → index.parquet → what is there

Every step finds what an earlier call has done and goes on from there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spacer.choices import OnBad
from spacer.data.index import LEAKS, UNREADABLE, IndexWriter, excluded_by, fingerprint, row_of, sources_of
from spacer.data.leakage import forbidden
from spacer.data.samples import DataError, Fault, Line, describe, examined, read_maps, to_sample
from spacer.errors import UserError
from spacer.files import append_rows, write_text
from spacer.implied import sections
from spacer.preparing.archive import FULL, is_unpacked, unpack
from spacer.preparing.media import Media, survey
from spacer.preparing.parts import find_parts
from spacer.progress import progress_bar
from spacer.settings import ArchivedSettings, BenchmarkSettings, JsonlSettings, Settings

log = logging.getLogger(__name__)
DOWNLOADS = ".download"  # in the data's root, where files from the hub wait to be unpacked


@dataclass(frozen=True)
class Contents:
    """What a prepared folder holds. `questions` counts those to train on or to ask, by (data source, problem type)."""

    questions: Mapping[tuple[str, str], int]
    excluded: Mapping[str, int]
    videos: int
    images: int
    hours: float
    missing_files: int
    unreadable_files: int
    with_map: int
    faults: tuple[Fault, ...]


def prepare(settings: Settings, folder: Path) -> float:
    """Prepares every data set of the run that comes as files, and returns how many questions are there.

    Raises:
        UserError: what is needed is not there, is damaged, or finds no room; or lines are faulty and `on_bad` is stop.
    """
    total = 0
    summary = {}
    for at, dataset in sections(settings):
        if not isinstance(dataset, JsonlSettings):
            continue
        lists = [Path(name).expanduser() for name in dataset.exclude]
        try:
            if isinstance(dataset, ArchivedSettings):
                gather(dataset)
            contents = build_index(dataset, lists, settings.benchmark)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"the disk of {dataset.root} became full ({error}): make room and run the same command again: "
                "it goes on from there"
            ) from error
        _show(dataset, contents)
        append_rows(folder / "faults.jsonl", [asdict(fault) for fault in contents.faults])
        summary[at] = _plain(contents)
        total += sum(contents.questions.values())
        write_text(folder / "summary.json", [json.dumps(summary, indent=2), "\n"])
        lines = [fault for fault in contents.faults if fault.kind != UNREADABLE]
        if lines and dataset.on_bad == OnBad.stop:
            root = Path(dataset.root).expanduser()
            raise DataError(root / dataset.index if all(_of_index(fault) for fault in lines) else root, lines)
    return float(total)


def gather(settings: ArchivedSettings) -> None:
    """Brings the data set's files into its root: fetches and unpacks the archive, copies questions and maps.

    Raises:
        UserError: a part is missing or damaged, the hub cannot be reached, or the disk is full.
    """
    root = Path(settings.root).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    lacking = _lacking(settings, root)
    unpacked = is_unpacked(root)
    if unpacked and not lacking:
        log.info("%s is unpacked already", root)
        return
    source = _source(settings, root, lacking if unpacked else [f"{settings.archive}*", "SHA256SUMS", *_names(settings)])
    if not unpacked and (source != root or any(source.glob(f"{settings.archive}[0-9]*"))):
        done = unpack(find_parts(source, settings.archive, settings.archive_parts), root)
        log.info("unpacked %d files, %d were there", done.written, done.kept)
    for name in _lacking(settings, root):
        if (source / name).is_file():
            _copy(source / name, root / name)
    if lacking := _lacking(settings, root):
        raise UserError(
            f"{', '.join(lacking)}: neither in the archive nor beside it in {source}: fetch what is missing into "
            f"{source}, or name the files as they are called there (dataset.index, dataset.maps, dataset.heldout)"
        )


def _names(settings: JsonlSettings) -> list[str]:
    """The files that the settings name, relative to the root."""
    return [name for name in (settings.index, settings.maps, settings.heldout) if name is not None]


def _lacking(settings: JsonlSettings, root: Path) -> list[str]:
    return [name for name in _names(settings) if not (root / name).is_file()]


def _source(settings: ArchivedSettings, root: Path, wanted: list[str]) -> Path:
    """The folder with the data set's files; of those on the hub the wanted ones are fetched into one."""
    if settings.source is None:
        return root
    folder = Path(settings.source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # the bases are those of the HTTP client's own errors, which differs by version: a connection that breaks, a timeout
    failures: Any = (*HfHubHTTPError.__bases__, EntryNotFoundError, OSError)
    try:
        # goes on where an earlier call stopped, and checks sizes
        fetched = snapshot_download(
            settings.source,
            repo_type="dataset",
            revision=settings.revision,
            local_dir=root / DOWNLOADS,
            allow_patterns=wanted,
        )
    except failures as error:
        raise UserError(
            f"dataset.source={settings.source}: cannot be fetched from the hub: {error}\n"
            "Run the same command again to go on where it stopped; `hf auth login` for a gated data set; or fetch the "
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
    settings: JsonlSettings, lists: Iterable[Path] = (), benchmark: BenchmarkSettings | None = None
) -> Contents:
    """Examines every line and opens every file, writes `index.parquet` and says what is there.

    `lists` and `benchmark` name videos that must not be trained on, beside those that `settings.heldout` asks about.
    """
    root = Path(settings.root).expanduser()
    if lacking := _lacking(settings, root):
        raise UserError(
            f"{', '.join(lacking)}: not there in dataset.root={root}: name the files as they are called there "
            "(dataset.index, dataset.maps, dataset.heldout)"
        )
    made_from = fingerprint(settings)
    maps = read_maps(root / settings.maps) if settings.maps is not None else {}
    lines = {
        split: list(progress_bar(examined(path, root), desc=f"reading {path.name}", unit=" lines", mininterval=1))
        for split, path in sources_of(settings).items()
    }
    real_root = root.resolve()  # once: it would be looked up on the disk for each of the lines
    files = {
        _relative(line, real_root): line.row["data_type"] for split in lines.values() for line in split if line.media
    }
    media = survey(root, files)
    asked = [to_sample(line.row, line.media, None) for line in lines.get("heldout", ()) if line.media]
    withheld = forbidden(asked, lists, benchmark)
    questions: Counter[tuple[str, str]] = Counter()
    excluded: Counter[str] = Counter()
    faults: list[Fault] = []
    with_map = 0
    with IndexWriter(root, made_from) as index:
        for split, rows in lines.items():
            file = "" if split == "train" else f"{settings.heldout}, "
            for line in rows:
                unreadable = _unreadable(line, media, real_root)
                # a question that is asked counts as wrong where its file does not open
                reason = excluded_by((*line.faults, *unreadable) if split == "train" else line.faults)
                if reason is None and split == "train":
                    reason = _leak(line, withheld)
                has_map = line.media is not None and line.media.stem in maps
                index.add(row_of(split, line, real_root, has_map, reason))
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


def _relative(line: Line, real_root: Path) -> str:
    return os.path.relpath(str(line.media), real_root)


def _unreadable(line: Line, media: Mapping[str, Media], real_root: Path) -> tuple[Fault, ...]:
    error = media[_relative(line, real_root)].error if line.media is not None else None
    return () if error is None else (Fault(f"line {line.number}", UNREADABLE, error),)


def _of_index(fault: Fault) -> bool:
    return fault.where.startswith("line ")  # those of the held-out lines begin with their file


def _leak(line: Line, withheld: Mapping[str, str]) -> str | None:
    stem = line.media.stem if line.media is not None and line.row["data_type"] == "video" else ""
    return f"{LEAKS}: {stem} is {withheld[stem]}" if stem in withheld else None


def _plain(contents: Contents) -> dict[str, object]:
    values = {name: value for name, value in vars(contents).items() if name not in ("questions", "faults")}
    named = [
        {"data_source": source, "problem_type": kind, "questions": count}
        for (source, kind), count in sorted(contents.questions.items())
    ]
    return {"questions": named, "faults": len(contents.faults), **values}


def _show(settings: JsonlSettings, contents: Contents) -> None:
    console = Console(markup=False, emoji=False, highlight=False)  # names are shown as they are
    sources = sorted({source for source, _ in contents.questions})
    table = Table(title=f"{settings.root}: {sum(contents.questions.values()):,} questions")
    table.add_column("problem type")
    for source in sources:
        table.add_column(source or "(no data_source)", justify="right")
    for kind in sorted({kind for _, kind in contents.questions}):
        table.add_row(kind, *(f"{contents.questions[source, kind]:,}" for source in sources))
    console.print(table)
    console.print(
        f"{contents.videos:,} videos of {contents.hours:,.2f} hours, {contents.images:,} images; "
        f"{contents.with_map:,} questions have a cognitive map",
    )
    console.print(f"{contents.missing_files:,} files missing, {contents.unreadable_files:,} do not open")
    for reason, count in sorted(contents.excluded.items()):
        console.print(f"  left out, {reason}: {count:,} questions")
    unreadable = [fault for fault in contents.faults if fault.kind == UNREADABLE]
    if unreadable:
        console.print(describe(unreadable))
    console.print("Train on it with the same dataset and dataset.root, and stage=train or stage=sft.")
