"""What can be told of a model, with or without adapters around it."""

from __future__ import annotations

from typing import Any

import torch

from spacer.config.families import FAMILIES
from spacer.errors import UserError
from spacer.models.families import family_of


def trains_vision(model: Any) -> bool:
    """Whether the vision tower is trained."""
    return any(parameter.requires_grad for parameter in vision_tower(model).parameters())


def has_dropout(model: Any) -> bool:
    """Whether a part of the model drops activations at random, in training."""
    return any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())


def is_lent(model: Any) -> bool:
    """Whether the weights are a temporary copy of a sharded model's (`spacer.distributed.sharding.gathered`)."""
    return hasattr(unwrap(model), "lent")


def unwrap(model: Any) -> Any:
    """The transformers model inside peft's wrapper; adapters act in it too."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def vision_tower(model: Any) -> Any:
    """The vision tower with its merger; of a family without trees, what transformers calls the encoder of images.

    Raises:
        UserError: transformers has no name for it.
    """
    base = unwrap(model)
    if base.config.model_type in FAMILIES:
        return family_of(base.config).vision_tower(base)
    tower = base.get_encoder(modality="image")
    if tower is base:
        raise UserError(
            f"transformers does not tell the vision tower of {type(base).__name__}: set model.freeze_vision=false and "
            "stage.optimizer.vision_scale=1"
        )
    return tower


def text_model(model: Any) -> Any:
    """The language model without its head."""
    base = unwrap(model)
    return family_of(base.config).text_model(base)
