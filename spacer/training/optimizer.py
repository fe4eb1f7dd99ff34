"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from spacer.config.choices import OptimizerKind, Schedule
from spacer.config.settings import OptimizerSettings
from spacer.models.trainable import decaying
from spacer.training.muon import MuonWithAdamW, hidden_matrices


def configure_optimizer(
    module: pl.LightningModule,
    settings: OptimizerSettings,
    total_steps: int | None,
    vision: Iterable[nn.Parameter] = (),
) -> Mapping[str, Any]:
    """The optimizer of the trainable parameters; linear warm-up, then the schedule over the rest of `total_steps`.

    `vision` are the vision tower's parameters, whose learning rate is multiplied by `vision_scale`.

    `total_steps` is passed in because `Trainer.estimated_stepping_batches` would set up the loader before a resumed run
    has restored its state.
    """
    make = _muon if settings.kind == OptimizerKind.muon else _adamw_alone
    optimizer = make(module, settings, set(vision))

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == Schedule.constant or total_steps is None:
            return 1.0
        done = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
        if settings.schedule == Schedule.linear:
            return 1.0 - min(1.0, done)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _adamw_alone(module: nn.Module, settings: OptimizerSettings, vision: set[nn.Parameter]) -> torch.optim.Optimizer:
    groups = _groups(module, settings, vision, settings.learning_rate, lambda parameter: True)
    made: torch.optim.Optimizer = _adamw(settings.kind)(
        groups, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    return made


def _muon(module: nn.Module, settings: OptimizerSettings, vision: set[nn.Parameter]) -> torch.optim.Optimizer:
    """Muon at `muon_learning_rate` for hidden matrices, AdamW at `learning_rate` for the rest."""
    hidden = hidden_matrices(module)
    matrices = _groups(module, settings, vision, settings.muon_learning_rate, hidden.__contains__)
    rest = _groups(module, settings, vision, settings.learning_rate, lambda parameter: parameter not in hidden)
    return MuonWithAdamW(
        torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay),
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay),
    )


def _groups(
    module: nn.Module,
    settings: OptimizerSettings,
    vision: set[nn.Parameter],
    learning_rate: float,
    belongs: Callable[[Tensor], bool],
) -> list[dict[str, Any]]:
    """Parameter groups of the trainable parameters for which `belongs` is true: those with weight decay, then norms and
    biases, without. If `vision_scale` is not 1, the vision tower's parameters get groups of their own."""
    scaled = vision if settings.vision_scale != 1 else ()
    groups = []
    for rate, of_vision in ((learning_rate, False), (learning_rate * settings.vision_scale, True)):
        for parameters, decay in zip(decaying(module), (settings.weight_decay, 0.0), strict=True):
            if found := [p for p in parameters if belongs(p) and (p in scaled) == of_vision]:
                groups.append({"params": found, "lr": rate, "weight_decay": decay})
    return groups


def _adamw(kind: OptimizerKind) -> Any:
    if kind != OptimizerKind.adamw_8bit:
        return torch.optim.AdamW
    # 8-bit block-wise quantized states (Dettmers et al., arXiv 2110.02861); torchao's implementation supports sharding
    from torchao.optim import AdamW8bit

    return AdamW8bit


def allow_states(kind: OptimizerKind) -> None:
    """Makes the optimizer's checkpoints loadable with weights_only: importing torchao registers its tensor classes."""
    _adamw(kind)
