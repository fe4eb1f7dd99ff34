"""The supported model families: what one differs in from another, beyond what its models' configurations say.

A family is an entry of `FAMILIES` in `spacer/config/families.py`, which data and configuration read without torch, and
a module here with the name of its `model_type`, whose `FAMILY` implements `ModelFamily`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from spacer.config.choices import FrameTimes, Positions
from spacer.config.families import FAMILIES
from spacer.models.families.protocol import ModelFamily, PlanTraits
from spacer.tree.mrope import PositionRule

__all__ = ["ModelFamily", "PlanTraits", "family_of", "position_rule"]


def family_of(config: Any) -> ModelFamily:
    """The family of a model, by its configuration.

    Raises:
        KeyError: it belongs to no supported family, which `spacer.models.probe` reports before.
    """
    return _family(config.model_type)


def position_rule(
    config: Any, positions: Positions = Positions.original, frame_times: FrameTimes = FrameTimes.real
) -> PositionRule:
    """How the model of this configuration numbers the tokens of a prompt.

    Raises:
        UserError: its positions do not depend on `frame_times`, and these are not the real ones.
    """
    return family_of(config).position_rule(config, Positions(positions), FrameTimes(frame_times))


@cache
def _family(model_type: str) -> ModelFamily:
    if model_type not in FAMILIES:  # no other module is to be imported
        raise KeyError(model_type)
    found: ModelFamily = import_module(f"{__name__}.{model_type}").FAMILY
    return found
