"""`run=DIR`: the model and settings of an earlier run, for stage=evaluate; what the command line says comes first."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from spacer.errors import UserError
from spacer.files import parse_yaml, read_ordinary
from spacer.sweeping.record import read

_SECTIONS = ("model", "dataset", "reward")
_VALUES = ("seed", "trainer.precision")  # by which the run's own evaluations were computed too
_TRAINS = ("train", "sft", "vision")


def of_earlier(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composed configuration, with the model, data, prompts, rewards, seed and precision of the run in `cfg.run`.

    Of a run that has trained, the model is the one that it saved. A group or a value that the overrides name is as they
    say.

    Args:
        cfg: the composition; unchanged.
        overrides: those of the command line, by which it was composed.

    Raises:
        UserError: the folder holds no run, or one that has trained and saved no model.
    """
    named = cfg.get("run")
    if named is None or OmegaConf.select(cfg, "stage.name") != "evaluate":  # a rule refuses it in other stages
        return cfg
    before = _settings_of(str(named))
    found = copy.deepcopy(cfg)
    sections = taken(overrides)
    for section in sections:
        found[section] = OmegaConf.create(before[section])
    for key in _VALUES:
        OmegaConf.update(found, key, OmegaConf.select(OmegaConf.create(before), key))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group.replace("/", ".")  # of a group within: dataset/prompts
        if key in _VALUES or (key.partition(".")[0] in sections and not override.is_delete()):
            OmegaConf.update(found, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return found


def taken(overrides: Sequence[str]) -> tuple[str, ...]:
    """The sections that are the earlier run's: those of which the overrides choose no option."""
    said = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))}
    return tuple(section for section in _SECTIONS if section not in said)


def options_of(run: str, sections: Sequence[str]) -> dict[str, str]:
    """Section → the option that an earlier run chose for it, as Hydra has written it; empty where it has not."""
    try:
        values = parse_yaml(read_ordinary(Path(run).expanduser() / ".hydra" / "hydra.yaml").decode())
        choices = values["hydra"]["runtime"]["choices"]
        return {section: str(choices[section]) for section in sections if section in choices}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _settings_of(run: str) -> dict[str, Any]:
    """The settings of the run in a folder, whose model is what it came to."""
    folder = Path(run).expanduser().resolve()
    record = read(folder)
    if record is None or not {*_SECTIONS, "stage", "seed", "trainer"} <= record.settings.keys():
        raise UserError(
            f"run={run} is not the folder of a run: it has no run.json with settings. Name a folder in which a run has "
            "ended, such as outputs/DATE/TIME; of a sweep, that of one of its jobs"
        )
    settings = {name: dict(record.settings[name]) for name in (*_SECTIONS, "trainer")}
    if record.settings["stage"]["name"] in _TRAINS:
        if not (folder / "model" / "config.json").is_file():
            raise UserError(
                f"run={run} has saved no model: finish it with ckpt_path=last hydra.run.dir={run}, or export its "
                "checkpoint with stage=export and evaluate that, model.name_or_path=FOLDER"
            )
        # adapters are merged into what is saved
        settings["model"] |= {"name_or_path": str(folder / "model"), "revision": None, "fresh": False, "lora": None}
    for dataset in (settings["dataset"], *dict(settings["dataset"].get("parts") or {}).values()):
        if "prompts" in dataset:
            dataset["prompts_file"] = None  # its templates are the prompts
    return settings | {"seed": record.settings["seed"]}
