"""A sweep's folder as one page: its jobs, the settings that differ between them, and which of them share all but the
seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacer.config.faults import SWEEP
from spacer.report.html.contents import RunFolder
from spacer.report.html.lines import Line, read_object

_DONE, _SEED = "done", "seed"


@dataclass(frozen=True)
class SweepJob:
    """A job: the values that its sweep gave it, by key, how it ended, and its duration in seconds."""

    values: dict[str, str]
    status: str
    reason: str
    seconds: float | None
    folder: Path

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """What the job shares with those that differ from it by seed alone."""
        return tuple((key, value) for key, value in self.values.items() if key != _SEED)


@dataclass(frozen=True)
class SweepFolder:
    """A sweep: its name, and its jobs, best first as in its table."""

    name: str
    jobs: tuple[SweepJob, ...]

    @property
    def done(self) -> list[Path]:
        """The folders of the finished jobs."""
        return [job.folder for job in self.jobs if job.status == _DONE]


def read_sweep(folder: Path) -> SweepFolder | None:
    """The sweep in a folder; None if it holds none.

    Raises:
        UserError: `sweep.json` cannot be read, or is not what a sweep writes; the message names it.
    """
    path = folder / SWEEP
    found = read_object(path)
    if found is None:
        return None
    jobs = Line(str(path), found).lines("jobs")
    return SweepFolder(Line(str(path), found).text("name") or folder.name, tuple(_job(folder, job) for job in jobs))


def _job(folder: Path, line: Line) -> SweepJob:
    pairs = (override.partition("=") for override in line.texts("overrides"))
    place = Path(line.identity("folder"))
    return SweepJob(
        values={key: value for key, _, value in pairs},
        status=line.identity("status"),
        reason=line.text("reason").partition("\n")[0],
        seconds=line.number("seconds"),
        folder=place if place.is_dir() else folder / place.name,  # the sweep's folder may have moved since
    )


def last_answers(run: RunFolder) -> RunFolder:
    """A job's run with the answers after training alone, where there are some before: jobs are told apart by what they
    ended with."""
    last = {evaluation.subject: evaluation for evaluation in run.evaluations}
    return replace(run, evaluations=tuple(replace(evaluation, phase="") for evaluation in last.values()))


def sweep_entry(sweep: SweepFolder, runs: Sequence[RunFolder]) -> dict[str, Any]:
    """The sweep in the page's format: `keys` that differ, `jobs` with their values and the place of their run among
    `runs`, null where it is not done, and `settings` with the places of the runs that differ by seed alone."""
    places = {run.folder.resolve(): place for place, run in enumerate(runs)}
    keys = list(dict.fromkeys(key for job in sweep.jobs for key in job.values))
    jobs = []
    settings: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for job in sweep.jobs:
        place = places.get(job.folder.resolve()) if job.status == _DONE else None
        told = {"status": job.status, "reason": job.reason, "seconds": job.seconds, "run": place}
        jobs.append({"values": [job.values.get(key, "") for key in keys], **told})
        if place is not None:
            settings.setdefault(job.setting, []).append(place)
    return {
        "name": sweep.name,
        "keys": keys,
        "jobs": jobs,
        "settings": [
            {"label": ", ".join(f"{key}={value}" for key, value in setting) or "all jobs", "runs": found}
            for setting, found in settings.items()
        ],
    }
