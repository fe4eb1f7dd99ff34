"""The stage that makes `report.html` of finished runs, and what every run calls at its end; without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from spacer.errors import UserError
from spacer.report.html.build import NAME, write_report
from spacer.settings import Settings


def report_runs(settings: Settings, folder: Path) -> float:
    """Writes the report of `runs` into the run's folder. Returns how many megabytes it takes.

    Raises:
        UserError: files of a run cannot be read; all are named.
    """
    runs = [Path(name).expanduser() for name in settings.runs]
    path = write_report(folder / NAME, runs, settings.report, settings.benchmark.resamples, settings.seed)
    _tell(f"report: {path}")
    return path.stat().st_size / 1e6


def report_at_end(settings: Settings, folder: Path, runs: Sequence[Path] = ()) -> None:
    """Writes the report of a run that ends, of its own folder or of those that it compared, beside its other files.

    A run is not lost for its report: what is wrong with that is printed, and the run ends well.
    """
    try:
        path = write_report(
            folder / NAME, runs or [folder], settings.report, settings.benchmark.resamples, settings.seed
        )
    except (UserError, OSError) as error:
        _tell(f"no report, for it cannot be made:\n{error}")
        return
    _tell(f"report: {path}")


def with_report(stage: Callable[[Settings, Path], float]) -> Callable[[Settings, Path], float]:
    """The stage, with a report at its end."""

    def run(settings: Settings, folder: Path) -> float:
        figure = stage(settings, folder)
        report_at_end(settings, folder)
        return figure

    return run


def _tell(words: str) -> None:
    Console().print(f"  {words}", markup=False, highlight=False, soft_wrap=True)
