"""Modules of training as the tests make them, and a few steps with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import attrs
import pytorch_lightning as pl
import torch
from torch import Tensor

from spacer.config.choices import Schedule
from spacer.config.settings import ModelSettings, Settings
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import probe_model
from spacer.rewards import Scorer
from spacer.training.grpo import GrpoModule
from spacer.training.tree_module import Training, TreeModule
from tests.parity.test_grpo import Capture, Repeated

COMPUTE = ComputeOptions("blocks", 700)
GROUP, LENGTH, STEPS, SEED = 4, 80, 3, 5


def fit(module: TreeModule, batch: PromptBatch, batches: int = 1, **options: Any) -> dict[str, Tensor]:
    """Trains on one batch again and again, and returns the gradients of the last step."""
    capture = Capture()
    callbacks = [capture, *options.pop("callbacks", [])]
    trainer = pl.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "devices": 1, "precision": "32-true", "logger": False} | options,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.policy.train()
    trainer.fit(module, Repeated(batch, batches))
    return capture.gradients


def training(settings: Settings, **changes: Any) -> Training:
    assert settings.stage.optimizer is not None
    optimizer = replace(settings.stage.optimizer, learning_rate=3e-4, schedule=Schedule.constant)
    return Training(optimizer, **changes)


def grpo(
    settings: Settings, model: ModelSettings, plan: Training, compute: ComputeOptions = COMPUTE, **changes: Any
) -> GrpoModule:
    objective = replace(settings.objective, group_size=GROUP, max_completion_length=LENGTH, **changes)
    reference = load_reference(model) if model.lora is None and objective.beta else None
    return GrpoModule(
        load_policy(model), reference, probe_model(model), objective, Scorer(settings.reward), compute, plan, SEED
    )


def doubled(batch: PromptBatch) -> PromptBatch:
    assert batch.pictures.video_pixels is not None
    return attrs.evolve(batch, pictures=replace(batch.pictures, video_pixels=batch.pictures.video_pixels.double()))


def imitated(prompts: list[Prompt], text: str) -> PromptBatch:
    """The prompts with completions to imitate, of different lengths."""
    ids = torch.arange(10, 10 + len(text))
    return collate([replace(prompt, target_ids=ids[: 5 + 3 * n]) for n, prompt in enumerate(prompts)])
