"""Experiments of the same model that would fit one GPU, for a plan that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig

from spacer.config.load import ConfigError, load_settings
from spacer.config.paths import ROOT
from spacer.config.settings import PlanSettings, Settings
from spacer.files import parse_yaml
from spacer.planning.limits import GIB, case_of

_MODEL = "override /model"  # in the defaults of an experiment


@dataclass(frozen=True)
class Alternative:
    """An experiment in place of the chosen model, with all else that the command line says: peak bytes of a GPU."""

    experiment: str
    model: str
    peak: int

    def __str__(self) -> str:
        return f"experiments={self.experiment} in place of model={self.model}: {self.peak / GIB:.1f} GiB"


def alternatives(settings: Settings, speeds: PlanSettings) -> list[Alternative]:
    """The experiments of the run's model that fit its one GPU, as the rest of its command line has them; none for
    several GPUs, and where Hydra did not compose the settings."""
    if (settings.cluster.devices, settings.cluster.num_nodes) != (1, 1) or not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    chosen = str(hydra.runtime.choices["model"])
    words = [word for word in hydra.overrides.task if word.partition("=")[0] not in ("model", "experiments")]
    found = []
    for name in _of_model(chosen, ROOT / "experiments"):
        try:
            composed = compose("config", [f"experiments={name}", *words, f"++output_dir={settings.output_dir}"])
            case = case_of(load_settings(composed), speeds)
        except ConfigError:  # what else is said does not go with it
            continue
        if case.fits:
            found.append(Alternative(name, chosen, case.peak))
    return found


def _of_model(option: str, folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.yaml")):
        defaults = parse_yaml(path.read_text(encoding="utf-8")).get("defaults", ())
        if {_MODEL: option} in defaults:
            yield path.stem
