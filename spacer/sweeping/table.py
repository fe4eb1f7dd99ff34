"""The table of a sweep: on the terminal (80 columns), as `sweep.md`, and as data in `sweep.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from spacer.files import write_text
from spacer.report.table import write_json
from spacer.sweeping.record import Status
from spacer.sweeping.rows import JobRow, OverSeeds, over_seeds, ranked, ranked_by
from spacer.terminal.printable import markdown
from spacer.terminal.tables import plain_table

DATA, PAGE = "sweep.json", "sweep.md"
_HEADINGS = ("job", "status", "score", "95 % interval", "answer", "time")


def write_sweep(folder: Path, rows: Sequence[JobRow]) -> None:
    """Writes `sweep.json` and `sweep.md`, each atomically.

    `sweep.json` is {"name", "ranked_by": score or answer, "best": the best job's overrides, "jobs": [a row each, best
    first], "over_seeds": [{"overrides", "jobs", "mean", "std", "figures": {name: [mean, std]}}]}.
    """
    by = ranked_by(rows)
    found = ranked(rows, by)
    means = over_seeds(rows, by)
    best = _name(found[0]) if found and found[0].score is not None else None
    data = {
        "name": folder.name,
        "ranked_by": by,
        "best": best,
        "jobs": [asdict(row) for row in found],
        "over_seeds": [asdict(entry) for entry in means],
    }
    write_json(folder / DATA, data)
    write_text(folder / PAGE, (line + "\n" for line in _page(data, found, means)))


def read_sweep(folder: Path) -> dict[str, Any]:
    """The contents of `sweep.json`."""
    values: dict[str, Any] = json.loads((folder / DATA).read_text(encoding="utf-8"))
    return values


def show_sweep(console: Console, folder: Path) -> int:
    """Prints the table in the folder; returns the number of unfinished jobs."""
    data = read_sweep(folder)
    rows = [JobRow(**entry | {"overrides": tuple(entry["overrides"])}) for entry in data["jobs"]]
    table = plain_table(data["name"])
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in _HEADINGS[:2] else "right", overflow="fold")
    for row in rows:
        table.add_row(_name(row).replace(",", ", "), row.status, *_cells(row))
    console.print(table)
    for entry in data["over_seeds"]:
        means = OverSeeds(**entry)
        console.print(f"  {data['ranked_by']} of {_mean(means)}", soft_wrap=True)
        if means.figures:
            console.print(
                f"    {', '.join(f'{name} {mean:.3f}' for name, (mean, _) in means.figures.items())}", soft_wrap=True
            )
    for row in rows:
        if row.reason:
            said = f"  {row.status}: {_name(row)}: {_first_line(row.reason)}"
            console.print(said, soft_wrap=True)
    if data["best"] is not None and len(rows) > 1:
        console.print(f"  {_best(data)}", soft_wrap=True)
    console.print(f"  table as data: {folder / DATA}", soft_wrap=True)
    return sum(row.status != Status.done for row in rows)


def _page(data: Mapping[str, Any], rows: Sequence[JobRow], means: Sequence[OverSeeds]) -> Iterator[str]:
    yield from (
        f"# {markdown(data['name'])}",
        "",
        f"| {' | '.join(_HEADINGS)} |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    )
    for row in rows:
        status = row.status if row.reason is None else f"{row.status}: {markdown(_first_line(row.reason))}"
        yield f"| {markdown(_name(row))} | {status} | {' | '.join(_cells(row))} |"
    if data["best"] is not None:
        yield from ("", markdown(_best(data)))
    if means:
        yield from ("", "Means over seeds ± standard deviation:", "", *_over_seeds(data["ranked_by"], means))


def _over_seeds(by: str, means: Sequence[OverSeeds]) -> Iterator[str]:
    figures = list(dict.fromkeys(name for entry in means for name in entry.figures))
    yield f"| {' | '.join(('setting', 'seeds', by, *figures))} |"
    yield f"| --- |{' ---: |' * (2 + len(figures))}"
    for entry in means:
        cells = [_spread(*entry.figures[name]) if name in entry.figures else "" for name in figures]
        named = markdown(_setting(entry))
        yield f"| {' | '.join((named, str(entry.jobs), _spread(entry.mean, entry.std), *cells))} |"


def _best(data: Mapping[str, Any]) -> str:
    why = ", by answer reward: each score is the total of a reward of its own" if data["ranked_by"] == "answer" else ""
    return f"best{why}: {data['best']}"


def _name(row: JobRow) -> str:
    return ",".join(row.overrides) or Path(row.folder).name


def _cells(row: JobRow) -> tuple[str, str, str, str]:
    interval = "" if row.score is None else "none"  # of few scenes
    if row.low is not None and row.high is not None:
        interval = f"{row.low:.3f} to {row.high:.3f}"
    score, answer = ("" if value is None else f"{value:.3f}" for value in (row.score, row.answer))
    return score, interval, answer, "" if row.seconds is None else _time(row.seconds)


def _time(seconds: float) -> str:
    """
    >>> _time(31), _time(330), _time(9000)
    ('31 s', '5.5 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _mean(entry: OverSeeds) -> str:
    seeds = f"{entry.jobs} seed{'s' if entry.jobs > 1 else ''}"
    return f"{_setting(entry)}: {_spread(entry.mean, entry.std)} over {seeds}"


def _setting(entry: OverSeeds) -> str:
    return ",".join(entry.overrides) or "all"


def _spread(mean: float, std: float | None) -> str:
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def _first_line(reason: str) -> str:
    return reason.partition("\n")[0]
