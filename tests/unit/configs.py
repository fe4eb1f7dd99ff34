"""A valid configuration, changes to it, and the messages about them."""

from __future__ import annotations

import dataclasses
import typing
from enum import Enum
from typing import Any

import pytest
from omegaconf import OmegaConf

from spacer.config import faults
from spacer.config.describe import options
from spacer.config.load import ConfigError, load_settings
from spacer.config.settings import (
    ClusterSettings,
    LengthBonusSettings,
    RoomsSettings,
    Settings,
    TemporalBonusSettings,
    TrainStage,
)
from spacer.config.settings.stages import STAGES

PROMPTS = {name: "$question" if name in ("map", "plain") else "Answer." for name in faults.PROMPTS}
REQUIRED: dict[str, dict[str, Any]] = {
    "": {"seed": 42, "output_dir": "outputs/test"},
    "model": {"name_or_path": "./tiny"},
    "dataset": {"root": "data", "prompts": PROMPTS},
    "reward": {"length": LengthBonusSettings(), "temporal": TemporalBonusSettings()},
}


def plain(value: Any) -> Any:
    """What a YAML file of these values would hold."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    return [plain(entry) for entry in value] if isinstance(value, tuple) else value


def valid(dataset: type = RoomsSettings) -> dict[str, Any]:
    """A valid config: every group with every field, as the shipped YAML files state them."""
    groups: dict[str, Any] = {**REQUIRED[""], "ckpt_path": None}
    for name, hint in typing.get_type_hints(Settings).items():
        cls = {"dataset": dataset, "cluster": ClusterSettings, "stage": TrainStage}.get(name, hint)
        if dataclasses.is_dataclass(cls):
            groups[name] = plain(cls(**REQUIRED.get(name, {})))
    return groups


def load(**changes: Any) -> Settings:
    """Loads the valid config with `changes`, whose names have __ for the dots; `stage` may name another stage."""
    cfg = OmegaConf.create(valid())
    if changes.get("stage") in tuple(STAGES):
        cfg["stage"] = plain(STAGES[changes.pop("stage")]())
    for path, value in changes.items():
        OmegaConf.update(cfg, path.replace("__", "."), value, merge=False, force_add=True)
    return load_settings(cfg)


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    return caught.value.problems


def only_problem(**changes: Any) -> str:
    found = problems(**changes)
    assert len(found) == 1, found
    return found[0]


def hints_of(hint: Any, path: str = "") -> dict[str, Any]:
    """The annotation of each setting, by path."""
    found = {path: hint}
    for option, _ in options(hint):
        if dataclasses.is_dataclass(option):
            hints = typing.get_type_hints(option, include_extras=True)
            for field in dataclasses.fields(option):
                found |= hints_of(hints[field.name], f"{path}.{field.name}" if path else field.name)
    return found
