"""The options of Lightning's trainers, from a run's settings."""

from __future__ import annotations

import math
import sys
from typing import Any

from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from spacer.attention.backends import device_type
from spacer.config.settings import Settings
from spacer.data.loading import TrainLoader
from spacer.distributed.strategies import make_strategy
from spacer.training.checkpoints import WholeFiles


def total_steps(settings: Settings, loader: TrainLoader, updates: int) -> int | None:
    """Optimiser steps until the run ends by steps or epochs, whichever is first; None if only time ends it."""
    limits = [settings.trainer.max_steps] if settings.trainer.max_steps >= 0 else []
    known = settings.stage.name != "train" or settings.objective.dynamic_sampling is None
    if known and settings.trainer.max_epochs is not None and settings.trainer.max_epochs >= 0:
        # gradients accumulated at the end of an epoch make a step of their own
        steps = math.ceil(len(loader) / settings.trainer.accumulate_grad_batches)
        limits.append(settings.trainer.max_epochs * steps * updates)
    return min(limits, default=None)


def shows_bar(settings: Settings) -> bool:
    """Bars are for terminals; log files get lines."""
    return settings.trainer.enable_progress_bar and sys.stdout.isatty()


def trainer_options(settings: Settings, trains: bool) -> dict[str, Any]:
    """Options common to every `pl.Trainer` of a run."""
    cluster, deterministic = settings.cluster, settings.trainer.deterministic
    if deterministic is None:
        deterministic = device_type(cluster.accelerator) == "cpu"
    return {
        "accelerator": cluster.accelerator,
        "devices": cluster.devices,
        "num_nodes": cluster.num_nodes,
        "strategy": make_strategy(cluster, settings.trainer.precision, trains),
        # spacer.training.preemption requeues jobs
        "plugins": [WholeFiles(), *_environment()],
        "precision": settings.trainer.precision,
        # an operation without a deterministic form (cumsum on CUDA) gives a warning, not an error
        "deterministic": "warn" if deterministic else False,
        "enable_progress_bar": shows_bar(settings),
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # the loaders shard by rank themselves
    }


def _environment() -> list[SLURMEnvironment]:
    """Tells Lightning the rank of a process started by srun; torchrun may start processes inside a job, too."""
    by_srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if by_srun else []
