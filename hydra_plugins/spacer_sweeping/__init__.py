"""What Hydra loads of Spacer when it starts: how sweeps are launched and searched. All else is in `spacer.sweeping`."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from spacer.errors import UserError
from spacer.sweeping.naming import resolve_sweep_name

if TYPE_CHECKING:
    from spacer.sweeping.sweep import Job

OmegaConf.register_new_resolver("sweep_name", resolve_sweep_name, replace=True)


class _SweepLauncher(Launcher):
    """Runs those jobs of a sweep that are not done, as `_run` has it."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what the sweep is made of."""
        from spacer.sweeping.sweep import Sweep  # here, so that only a sweep waits for it to load

        self._config = config
        self._sweep = Sweep(config, hydra_context.config_loader)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch. Ctrl-C ends the sweep with the table of what there is, and exit status 130."""
        from spacer.sweeping.callback import tell

        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        jobs = self._sweep.add(job_overrides, initial_job_idx)
        try:
            self._run(self._sweep.to_run(jobs))
        except KeyboardInterrupt:
            tell(self._sweep.folder)
            sys.exit(130)
        except UserError as error:
            tell(self._sweep.folder)
            sys.exit(str(error))
        return [self._sweep.returned(job) for job in jobs]

    @abstractmethod
    def _run(self, jobs: Sequence[Job]) -> None: ...

    def _run_here(self, jobs: Sequence[Job]) -> None:
        from spacer.sweeping.processes import run_all

        options = [word for word in self._config.hydra.overrides.hydra if not word.startswith("hydra.mode=")]
        run_all(self._sweep, jobs, Path(sys.argv[0]).absolute(), options)


class ProcessLauncher(_SweepLauncher):
    """On this machine, one after the other, each a process of its own."""

    def _run(self, jobs: Sequence[Job]) -> None:
        self._run_here(jobs)


class SlurmLauncher(_SweepLauncher):
    """On a SLURM cluster, by hydra-submitit-launcher, whose parameters it takes; plans of runs are made here."""

    def __init__(self, **parameters: Any) -> None:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Submitit

        self._submitit = Submitit(**parameters)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what the sweep is made of."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._submitit.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _run(self, jobs: Sequence[Job]) -> None:
        from spacer.sweeping.slurm import run_all

        plans = [job for job in jobs if job.plans]
        if plans:
            self._run_here(plans)
        if submitted := [job for job in jobs if job not in plans]:
            run_all(self._sweep, submitted, self._submitit)


class TrialSweeper(Sweeper):
    """hydra-optuna-sweeper's, with its trials kept in the sweep's folder: `n_trials` is how many there are in all."""

    def __init__(self, **options: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

        self._inner = OptunaSweeper(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Has the sampler keep its trials."""
        from optuna.samplers import BaseSampler

        from spacer.sweeping.trials import KeptTrials

        self._folder = Path(config.hydra.sweep.dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._inner.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        sampler = self._inner.sweeper.sampler
        if isinstance(sampler, BaseSampler):  # and no grid, which is made once the space is known
            self._inner.sweeper.sampler = KeptTrials(sampler, self._folder / "trials.jsonl")

    def sweep(self, arguments: list[str]) -> Any:
        """Searches."""
        from spacer.sweeping.table import read_sweep

        try:
            return self._inner.sweep(arguments)
        except UserError as error:
            sys.exit(str(error))
        except ValueError:  # also where no trial has a score, which the table tells better
            if read_sweep(self._folder)["best"] is not None:
                raise
