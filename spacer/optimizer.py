"""The optimiser and its schedule, and what of a module a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from spacer.choices import OptimizerKind, Schedule
from spacer.errors import UserError
from spacer.settings import OptimizerSettings


def configure_adamw(
    module: pl.LightningModule, settings: OptimizerSettings, total_steps: int | None
) -> Mapping[str, Any]:
    """AdamW over the trainable parameters; linear warm-up, then the schedule over the rest of `total_steps`.

    The steps are told, not asked of `Trainer.estimated_stepping_batches`: that sets the loader up before a resumed run
    has restored where it stands.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = _adamw(settings.kind)(
        trainable, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == Schedule.constant or total_steps is None:
            return 1.0
        done = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _adamw(kind: OptimizerKind) -> Any:
    if kind == OptimizerKind.adamw:
        return torch.optim.AdamW
    # states of a byte each in blocks with a scale of their own (Dettmers et al., arXiv 2110.02861); of the libraries
    # that have them, the one whose states can be sharded
    from torchao.optim import AdamW8bit

    return AdamW8bit


def allow_states(kind: OptimizerKind) -> None:
    """Lets checkpoints of the optimiser be read as data: torchao, when imported, tells torch which tensors it has."""
    _adamw(kind)


def without_frozen(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state that training can change: frozen parameters are where they came from."""
    frozen = _parameters(module, trained=False)
    return {name: value for name, value in state.items() if name not in frozen}


def check_trained(module: nn.Module, state: Mapping[str, Any]) -> None:
    """UserError where a checkpoint's state lacks parameters that are trained."""
    if missing := sorted(_parameters(module, trained=True) - state.keys()):
        raise UserError(
            f"the checkpoint lacks {len(missing)} of the parameters that are trained, such as {missing[0]}: go on with "
            "the settings that it was written under (model.lora, model.freeze_vision), as .hydra/config.yaml beside it "
            "has them, or begin anew in another run folder"
        )


def _parameters(module: nn.Module, trained: bool) -> set[str]:
    named = module.named_parameters(remove_duplicate=False)  # two names of one tensor are both in a state
    return {name for name, parameter in named if parameter.requires_grad == trained}
