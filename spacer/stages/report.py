"""The stage that writes `report.html` for finished runs, also called at the end of every run; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.config.settings import Settings
from spacer.errors import UserError
from spacer.report.html.build import NAME, write_report
from spacer.report.html.sweep import read_sweep
from spacer.terminal.screen import screen


def report_runs(settings: Settings, folder: Path) -> float:
    """Writes the report of `runs`, or of a sweep, into the run's folder. Returns its size in megabytes.

    Raises:
        UserError: a run's files cannot be read; all are listed.
    """
    runs = run_folders(settings.runs)
    # a sweep beside other runs is some runs more
    sweep = read_sweep(_folder(settings.runs[0])) if len(settings.runs) == 1 else None
    path = write_report(folder / NAME, runs, settings.report, settings.evaluation.resamples, settings.seed, sweep)
    _tell(f"report: {path}")
    return path.stat().st_size / 1e6


def report_at_end(settings: Settings, folder: Path, runs: Sequence[Path] = ()) -> None:
    """Writes the report at the end of a run, on its own folder or on the runs that it compared, beside its other files.

    A faulty report does not fail the run: the fault is printed.
    """
    try:
        path = write_report(
            folder / NAME, runs or [folder], settings.report, settings.evaluation.resamples, settings.seed
        )
    except (UserError, OSError) as error:
        _tell(f"no report, for it cannot be made:\n{error}")
        return
    _tell(f"report: {path}")


def run_folders(named: Sequence[str]) -> list[Path]:
    """The folders of runs, where that of a sweep stands for its finished jobs, in the order of its table.

    Raises:
        UserError: a sweep has no finished job.
    """
    found: list[Path] = []
    for name in named:
        folder = _folder(name)
        sweep = read_sweep(folder)
        if sweep is not None and not sweep.done:
            raise UserError(f"{folder}: no job of this sweep is done: run it again, which goes on with what is missing")
        found += [folder] if sweep is None else sweep.done
    return list(dict.fromkeys(found))


def _folder(name: str) -> Path:
    return Path(name).expanduser().resolve()


def _tell(words: str) -> None:
    screen().print(f"  {words}", soft_wrap=True)
