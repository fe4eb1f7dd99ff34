"""A sweep's jobs: their settings, which of them still have to run, and the table of their results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict

from spacer.config.derived import comes_to_score
from spacer.config.load import ConfigError, load_settings
from spacer.config.settings import Settings
from spacer.sweeping.naming import axes, chosen, job_name
from spacer.sweeping.record import Record, Status, changes, plain, read, resumable, write
from spacer.sweeping.rows import row_of
from spacer.sweeping.table import write_sweep
from spacer.terminal.pasting import quoted

log = logging.getLogger(__name__)
SCORED_BY = "set dataset.heldout to a JSONL file of questions in dataset.root, and stage.evaluate_after to null or true"


@dataclass(frozen=True, eq=False)
class Job:
    """A run of a sweep: its number, all its overrides, those that the sweep varies, and its settings.

    `problem` says why it cannot run; `settings` is None if they could not be read.
    """

    number: int
    overrides: tuple[str, ...]
    chosen: tuple[str, ...]
    folder: Path
    settings: Settings | None
    problem: str | None = None

    @property
    def plans(self) -> bool:
        """Whether it only plans a run, which it repeats every time."""
        return self.settings is not None and self.settings.stage.name == "plan"


class Sweep:
    """The jobs of a sweep so far; its name is that of `folder`, which holds their table."""

    def __init__(self, config: DictConfig, loader: ConfigLoader) -> None:
        self.folder = Path(config.hydra.sweep.dir).expanduser().absolute()
        self._jobs_in = self.folder / config.hydra.sweep.subdir
        self._config = config
        self._loader = loader
        self._swept = axes(config.hydra.sweeper.get("params") or {}, config.hydra.overrides.task).swept
        self._searches = "TrialSweeper" in config.hydra.sweeper._target_
        self._jobs: dict[Path, Job] = {}

    def add(self, overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Adds a batch of jobs, numbered from `first`; errors in their configurations are in `problem`.

        Duplicates are one job, returned twice.
        """
        jobs = []
        for number, words in enumerate(overrides, first):
            folder = self._jobs_in / job_name(words, self._swept)
            self._jobs[folder] = self._jobs.get(folder) or self._job(number, tuple(words), folder)
            jobs.append(self._jobs[folder])
        self.write()
        return jobs

    def to_run(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that are unfinished and can run, without duplicates; reports how many are done already."""
        waiting = [job for job in dict.fromkeys(jobs) if job.problem is None and not _is_done(job)]
        done = sum(job.problem is None and _is_done(job) for job in dict.fromkeys(jobs))
        going_on = sum(resumable(job.folder) and "ckpt_path=last" in self.words(job) for job in waiting)
        if any(job.settings is not None and not comes_to_score(job.settings) for job in waiting):
            log.warning("the table will lack held-out scores: %s", SCORED_BY)
        for job in dict.fromkeys(jobs):
            if job.problem is not None:
                log.error("%s cannot run: %s", ",".join(job.chosen), job.problem)
        log.info(
            "%d job%s in %s: %d done already, %d to run%s",
            *(len(jobs), "" if len(jobs) == 1 else "s", self.folder, done, len(waiting)),
            f", {going_on} of them from a checkpoint" if going_on else "",
        )
        return waiting

    def words(self, job: Job) -> list[str]:
        """A job's overrides as started now, including the sweep's name for tracking and its last checkpoint, if any."""
        assert job.settings is not None  # checked: it can run
        words = list(job.overrides)
        logger = job.settings.logger
        words += [f"logger.group={quoted(self.folder.name)}"] if logger.group is None else []
        words += [f"logger.name={quoted(','.join(job.chosen))}"] if logger.name is None and job.chosen else []
        return [*words, "ckpt_path=last"] if resumable(job.folder) and not job.settings.overwrite else words

    def begin(self, job: Job) -> None:
        """Records that a job is being submitted."""
        assert job.settings is not None  # checked: it can run
        write(job.folder, Record(Status.queued, plain(job.settings)))
        self.write()

    def settle(self, job: Job, status: Status, reason: str) -> None:
        """Records that a job's process is gone, with `status` and `reason` as seen from outside. They count if it wrote
        no outcome itself, or if both say that it was killed. Logs the outcome.
        """
        record = read(job.folder)
        assert record is not None  # written by `begin`
        if record.status in (Status.queued, Status.running) or record.status == status == Status.killed:
            record = replace(record, status=status, reason=reason)
            write(job.folder, record)
        score = "" if record.score is None else f", {record.score:.3f}"
        took = "" if record.seconds is None else f" after {record.seconds:.0f} s"
        why = "" if record.reason is None else f": {record.reason}"
        log.info("%s: %s%s%s%s", ",".join(job.chosen) or job.folder, record.status, took, score, why)
        self.write()

    def write(self) -> None:
        """Writes the table of current results."""
        rows = [
            row_of(str(job.folder.relative_to(self.folder)), job.chosen, job.folder, read(job.folder), job.problem)
            for job in self._jobs.values()
        ]
        write_sweep(self.folder, rows)

    def returned(self, job: Job) -> JobReturn:
        """What Hydra's sweepers expect: the score, or text if there is none, which Optuna's counts as a failure.

        A failed job is not reported as failed, since the sweepers would end the sweep.
        """
        record = None if job.problem else read(job.folder)
        done = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)
        if record is not None and record.status == Status.done:
            done.return_value = "no score" if record.score is None else record.score
        else:
            done.return_value = f"{record.status}: {record.reason}" if record else job.problem or "not run"
        return done

    def _job(self, number: int, overrides: tuple[str, ...], folder: Path) -> Job:
        values = chosen(overrides, self._swept)
        config = self._loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.output_dir = str(folder)  # Hydra sets it inside the job alone
            del config["hydra"]
        try:
            settings = load_settings(config)
        except ConfigError as error:
            return Job(number, overrides, values, folder, None, "; ".join(error.problems))
        record = read(folder)
        other = changes(record.settings, plain(settings)) if record is not None and record.settings else []
        problem = None
        if other and not settings.overwrite:
            problem = (
                f"its folder holds a run with other settings ({'; '.join(other)}): remove {folder}, begin it anew with "
                "overwrite=true, or give this sweep another folder with hydra.sweep.dir=…"
            )
        elif self._searches and not comes_to_score(settings):
            problem = f"it has no held-out score to search by: {SCORED_BY}"
        return Job(number, overrides, values, folder, settings, problem)


def _is_done(job: Job) -> bool:
    anew = job.settings is not None and job.settings.overwrite
    record = read(job.folder)
    return record is not None and record.status == Status.done and not job.plans and not anew
