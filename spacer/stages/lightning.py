"""Starts the stages that load a model: train, sft, vision, evaluate, generate."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from transformers.utils.logging import disable_progress_bar

from spacer.config.settings import Settings, SlurmSettings
from spacer.distributed.strategies import place_of
from spacer.stages.evaluate import evaluate, evaluate_all
from spacer.stages.generate import generate
from spacer.stages.running import Run
from spacer.stages.sft import sft
from spacer.stages.train import train
from spacer.stages.vision import vision
from spacer.training.preemption import SignalWatcher

# Lightning's warnings that do not apply to our runs
_AS_IT_SHOULD_BE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # its own use of torch
    "Checkpoint directory .* exists and is not empty",  # when a run resumes
    r"Found \d+ module\(s\) in eval mode",  # the reference is one
    "The `srun` command is available on your system but is not used",  # cluster=slurm uses it
    "Experiment logs directory .* exists and is not empty",  # the CSV file is rewritten from the history
    "Using ModelCheckpoint with manual optimization",  # checkpoints are written between steps, as tests check
)


def run(settings: Settings, folder: Path) -> float:
    """Runs the stage that the settings name and returns the metric that a sweep maximises."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # tips and device listings, for each trainer
    if not sys.stderr.isatty():
        disable_progress_bar()  # for loading weights: a bar is control codes in a log file
    for message in _AS_IT_SHOULD_BE:
        warnings.filterwarnings("ignore", message=message)
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        logging.getLogger("spacer").setLevel(logging.WARNING)  # rank 0 logs for all
    place_of(settings.cluster)  # reports missing devices before anything is loaded
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    watch = SignalWatcher(settings.cluster.signal_delay_s if isinstance(settings.cluster, SlurmSettings) else None)
    with watch.listening():
        if settings.stage.name == "evaluate" and settings.benchmarks:
            return evaluate_all(settings, folder, watch)
        stages = {"train": train, "sft": sft, "vision": vision, "evaluate": evaluate, "generate": generate}
        return stages[settings.stage.name](Run(settings, folder, watch))
