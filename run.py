"""Composes a run's configuration, checks it, and hands it to its stage. `python run.py --help` tells what there is."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig

from spacer.config import ConfigError, forgiving, load_settings
from spacer.data.samples import DataError
from spacer.weights import check_model

ROOT = Path(__file__).resolve().parent
os.environ.setdefault("SPACER_ROOT", str(ROOT))
# OpenMP's idle threads spin by default and starve the data workers where cores are few; going to sleep at once costs
# nearly as much, in being woken: so they spin for some ten microseconds
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Runs the stage; under a sweep, returns the figure to maximise."""
    try:
        settings = load_settings(cfg)
        if settings.stage.name == "curate":  # which needs neither a model nor torch
            from spacer.curate import curate

            return curate(settings, Path(settings.output_dir))
        if not settings.model.fresh:
            settings = replace(settings, model=replace(settings.model, name_or_path=str(check_model(settings.model))))
    except (ConfigError, DataError) as error:
        sys.exit(str(error))
    # torch and transformers are loaded only now that the configuration is sound
    from spacer import stages
    from spacer.selfcheck import TreeMismatch

    try:
        return stages.run(settings)
    except (ConfigError, DataError, TreeMismatch) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} | {"experiments", "sweeps"}
    sys.argv[1:] = forgiving(sys.argv[1:], groups)
    main()
