"""Composes a run's configuration, checks it, and hands it to its stage. `python run.py --help` tells what there is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig

from spacer.checks import NEED_NO_MODEL
from spacer.config import forgiving, load_settings
from spacer.errors import UserError
from spacer.settings import Settings
from spacer.sweeping.extras import missing_plugin
from spacer.sweeping.record import recorded
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
        return recorded(settings, run_stage)
    except UserError as error:
        sys.exit(str(error))


def run_stage(settings: Settings) -> float:
    """Runs the stage of checked settings, once the model is found to be there."""
    if settings.stage.name not in NEED_NO_MODEL and not settings.model.fresh:
        settings = replace(settings, model=replace(settings.model, name_or_path=str(check_model(settings.model))))
    return stage_of(settings.stage.name)(settings, Path(settings.output_dir))


def stage_of(name: str) -> Callable[[Settings, Path], float]:
    """The function of a stage; torch and transformers are loaded only here, and only for those that need them."""
    if name == "score":
        from spacer.report_runs import with_report
        from spacer.score import score

        return with_report(score)
    if name == "prepare":
        from spacer.preparing.prepare import prepare

        return prepare
    if name == "curate":
        from spacer.curate import curate

        return curate
    if name == "compare":
        from spacer.compare import compare

        return compare
    if name == "report":
        from spacer.report_runs import report_runs

        return report_runs
    if name == "dashboard":
        from spacer.dashboard import dashboard

        return dashboard
    if name == "export":
        from spacer.export import export

        return export
    if name == "plan":
        from spacer.plan import plan

        return plan
    from spacer import stages

    return stages.run


if __name__ == "__main__":
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} | {"experiments", "sweeps"}
    if missing := missing_plugin(sys.argv[1:], (ROOT, ROOT / "conf")):
        sys.exit(missing)
    sys.argv[1:] = forgiving(sys.argv[1:], groups)
    main()
