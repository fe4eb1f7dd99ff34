"""The stage that downloads, unpacks, checks and indexes data sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from spacer.benchmarks.guard import guarded_videos
from spacer.config.choices import OnBad
from spacer.config.derived import sections
from spacer.config.settings import ArchivedSettings, JsonlSettings, Settings
from spacer.data.index import UNREADABLE
from spacer.data.prepare.archive import FULL
from spacer.data.prepare.build import Contents, build_index, gather, is_of_index
from spacer.data.samples import DataError, describe
from spacer.errors import UserError
from spacer.files import append_rows, write_text
from spacer.terminal.screen import screen
from spacer.terminal.tables import plain_table


def prepare(settings: Settings, folder: Path) -> float:
    """Prepares every file-based data set of the run, and returns the number of questions.

    Raises:
        UserError: a required file is missing or damaged, the disk is full, or lines are faulty and `on_bad` is stop.
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
            contents = build_index(dataset, lists, guarded_videos(dataset.guard))
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"the disk of {dataset.root} became full ({error}): make room and run the same command again: "
                "it goes on from there"
            ) from error
        _show(dataset, contents)
        append_rows(folder / "faults.jsonl", [asdict(fault) for fault in contents.faults])
        summary[at] = _as_json(contents)
        total += sum(contents.questions.values())
        write_text(folder / "summary.json", [json.dumps(summary, indent=2), "\n"])
        lines = [fault for fault in contents.faults if fault.kind != UNREADABLE]
        if lines and dataset.on_bad == OnBad.stop:
            root = Path(dataset.root).expanduser()
            raise DataError(root / dataset.index if all(is_of_index(fault) for fault in lines) else root, lines)
        screen().print("Train on it with the same dataset and dataset.root, and stage=train or stage=sft.")
    return float(total)


def _as_json(contents: Contents) -> dict[str, object]:
    values = {name: value for name, value in vars(contents).items() if name not in ("questions", "faults")}
    named = [
        {"data_source": source, "problem_type": kind, "questions": count}
        for (source, kind), count in sorted(contents.questions.items())
    ]
    return {"questions": named, "faults": len(contents.faults), **values}


def _show(settings: JsonlSettings, contents: Contents) -> None:
    console = screen()
    sources = sorted({source for source, _ in contents.questions})
    table = plain_table(f"{settings.root}: {sum(contents.questions.values()):,} questions")
    table.add_column("Problem type")
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
