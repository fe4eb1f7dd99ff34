"""The command line: composes a run's configuration, checks it, and hands it to its stage.

`spacer` and `python run.py` are the same; `--help` lists stages and options.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

import spacer
from spacer.config.load import ConfigError, forgiving, load_settings
from spacer.config.model_files import check_model
from spacer.config.paths import ROOT, export_paths
from spacer.config.presets import placed
from spacer.config.settings import Settings
from spacer.errors import UserError, of_the_machine
from spacer.process import ending
from spacer.process.home import keep_caches
from spacer.sweeping.earlier import of_earlier, options_of, taken
from spacer.sweeping.extras import missing_plugin
from spacer.sweeping.record import recorded
from spacer.terminal.masking import mask_files, masked_overrides, told

export_paths()
# By default, idle OpenMP threads spin and starve the data workers if there are few cores; sleeping at once costs nearly
# as much in wake-ups. So they spin for some ten microseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # otherwise W&B sends error reports, even offline

STAGES = {  # the module in spacer/stages/ and its function
    "train": ("lightning", "run"),
    "sft": ("lightning", "run"),
    "vision": ("lightning", "run"),
    "evaluate": ("lightning", "run"),
    "generate": ("lightning", "run"),
    "score": ("score", "score"),
    "prepare": ("prepare", "prepare"),
    "curate": ("curate", "curate"),
    "compare": ("compare", "compare"),
    "report": ("report", "report_runs"),
    "dashboard": ("dashboard", "dashboard"),
    "export": ("export", "export"),
    "plan": ("plan", "plan"),
}
BEHIND_A_SERVER = ("endpoint", "evaluate_endpoint")  # of stage=evaluate, where model=endpoint


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Runs the stage; under a sweep, returns the metric to maximize."""
    try:
        _check_folder(HydraConfig.get().overrides.task)
        settings = load_settings(_with_earlier(cfg))
        return recorded(settings, run_stage)
    except UserError as error:
        sys.exit(told(str(error)))
    except (KeyboardInterrupt, SystemExit) as error:
        if ending.name_of(error) == ending.CTRL_C:  # even if Lightning has turned it into exit status 1
            sys.exit(128 + signal.SIGINT)
        raise
    except Exception as error:
        known = of_the_machine(error, str(cfg.output_dir))
        if known is None:
            raise
        sys.exit(told(str(known)))


def _check_folder(words: Sequence[str]) -> None:
    """ConfigError where a command names the run's folder otherwise than Hydra, which records the settings there."""
    for word in words:
        if word.lstrip("+").startswith("output_dir="):
            folder = word.partition("=")[2]
            remedy = f"set hydra.run.dir={folder} (hydra.sweep.dir={folder} for a sweep)"
            raise ConfigError([f"{word} would leave the record of the run's settings in another folder: {remedy}"])


def _with_earlier(cfg: DictConfig) -> DictConfig:
    """The configuration with what it takes of an earlier run, in Hydra's record of the run too."""
    hydra_cfg: Any = HydraConfig.get()  # a DictConfig, of the type that it claims to be
    overrides = list(hydra_cfg.overrides.task)
    found = of_earlier(cfg, overrides)
    if found is not cfg:
        with read_write(hydra_cfg), open_dict(hydra_cfg):
            hydra_cfg.runtime.choices.update(options_of(str(cfg.run), taken(overrides)))
        if hydra_cfg.output_subdir is not None:  # None in processes that Lightning starts
            place = Path(cfg.output_dir) / hydra_cfg.output_subdir
            OmegaConf.save(found, place / "config.yaml")
            mask_files(place)
    return found


def run_stage(settings: Settings) -> float:
    """Runs the stage of validated settings, after checking that the model exists."""
    if settings.stage.name == "evaluate" and settings.model.endpoint is not None:
        return _function_of(*BEHIND_A_SERVER)(settings, Path(settings.output_dir))
    if settings.stage.needs_model and not settings.model.fresh:
        settings = replace(settings, model=replace(settings.model, name_or_path=str(check_model(settings.model))))
    return stage_of(settings.stage.name)(settings, Path(settings.output_dir))


def stage_of(name: str) -> Callable[[Settings, Path], float]:
    """The function of a stage. Its module, and torch if it needs it, is imported only here."""
    return _function_of(*STAGES[name])


def _function_of(module: str, function: str) -> Callable[[Settings, Path], float]:
    found: Callable[[Settings, Path], float] = getattr(importlib.import_module(f"spacer.stages.{module}"), function)
    return found


def run() -> None:
    """Runs the command line of this process."""
    logging.raiseExceptions = False  # report a full disk once, not in a traceback for each log line
    keep_caches()
    if "--version" in sys.argv[1:]:  # Hydra would tell its own
        print(f"spacer {spacer.__version__}")
        return
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra lists the groups of conf/ alone
        for group in ("experiments", "sweeps"):
            names = sorted(file.stem for file in (ROOT / group).glob("*.yaml"))
            os.environ[f"SPACER_{group.upper()}"] = ", ".join(names)
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} | {"experiments", "sweeps"}
    if missing := missing_plugin(sys.argv[1:], (ROOT, ROOT / "conf")):
        sys.exit(missing)
    try:
        words = placed(sys.argv[1:], ROOT / "conf")
    except UserError as error:
        sys.exit(told(str(error)))
    sys.argv[1:] = masked_overrides(forgiving(words, groups))
    main()
