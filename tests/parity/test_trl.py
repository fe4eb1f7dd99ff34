"""The shipped objectives beside TRL's own loss, under the settings that docs/rewards.md names as the same."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from spacer.config.choices import LossMean, Surrogate
from spacer.config.settings import ObjectiveSettings
from spacer.objective.loss import PolicyBatch, policy_loss
from tests.unit.test_objective import VARIANTS, shipped

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="TRL comes with the extra speed")

B, C = 12, 7
LENGTHS = torch.tensor([7, 1, 3, 7, 5, 2, 6, 4, 7, 1, 2, 7])
LOSSES = {LossMean.completion: "grpo", LossMean.token: "dapo", LossMean.budget: "dr_grpo"}


def case(drift: float) -> PolicyBatch:
    """Completions that moved by `drift` since they were sampled; of those of full length some never ended."""
    generator = torch.Generator().manual_seed(3)
    logp_BC, moved_BC, ref_BC = -torch.rand(3, B, C, generator=generator, dtype=torch.float64) * 3
    mask_BC = torch.arange(C) < LENGTHS[:, None]
    return PolicyBatch(
        logp_BC=logp_BC.requires_grad_(),
        advantages_B=torch.randn(B, generator=generator, dtype=torch.float64),
        mask_BC=mask_BC,
        old_logp_BC=logp_BC.detach() + drift * (moved_BC + 1.5) if drift else None,
        ref_logp_BC=ref_BC,
        truncated_B=(LENGTHS == C) & (torch.arange(B) % 2 == 0),
        zero_variance_B=torch.zeros(B, dtype=torch.bool),
    )


def of_trl(batch: PolicyBatch, settings: ObjectiveSettings, folder: Path) -> Tensor:
    """The loss of TRL's GRPOTrainer on the same log-probabilities, by a stand-in with what its loss asks a trainer."""
    from trl import GRPOConfig, GRPOTrainer

    cispo, sapo = settings.surrogate == Surrogate.cispo, settings.surrogate == Surrogate.sapo
    low, high = (math.inf if bound is None else bound for bound in (settings.clip_low, settings.clip_high))
    args = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=B,
        num_generations=4,
        use_cpu=True,
        bf16=False,
        report_to=[],
        beta=settings.beta,
        use_bias_correction_kl=False,
        loss_type=str(settings.surrogate) if cispo or sapo else LOSSES[settings.loss_mean],
        importance_sampling_level=str(settings.ratio),
        epsilon=low,
        epsilon_high=1 + high if cispo else high,
        sapo_temperature_pos=settings.sapo_tau_positive,
        sapo_temperature_neg=settings.sapo_tau_negative,
        max_completion_length=settings.max_completion_length,
    )
    names = ("beta", "loss_type", "importance_sampling_level", "max_completion_length", "epsilon_high")
    trainer: Any = SimpleNamespace(
        **{name: getattr(args, name) for name in (*names, "off_policy_mask_threshold", "top_entropy_quantile")},
        args=args,
        epsilon_low=args.epsilon,
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (batch.logp_BC, torch.zeros(B, C), None),
    )
    mask_BC = batch.mask_BC.clone()
    if settings.mask_truncated:  # as TRL does, before its loss
        assert batch.truncated_B is not None
        mask_BC[batch.truncated_B] = False
    inputs = {
        **{"prompt_ids": torch.zeros(B, 1), "prompt_mask": torch.ones(B, 1), "completion_ids": torch.zeros(B, C)},
        **{"completion_mask": mask_BC.long(), "num_items_in_batch": mask_BC.sum(), "advantages": batch.advantages_B},
        **{"old_per_token_logps": batch.old_logp_BC, "ref_per_token_logps": batch.ref_logp_BC},
    }
    loss: Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("drift", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_are_those_of_trl(name: str, drift: float, beta: float, tmp_path: Path) -> None:
    batch, settings = case(drift), replace(shipped(name), beta=beta)
    ours = policy_loss(batch, settings)
    theirs = of_trl(batch, settings, tmp_path)
    found, expected = (torch.autograd.grad(loss, batch.logp_BC)[0] for loss in (ours.loss, theirs))
    near = 1e-6 if name == "sapo" else 1e-12  # TRL has SAPO's temperatures in float32
    assert abs(ours.loss - theirs) < near and float((found - expected).norm()) < near * float(expected.norm())
    if drift == 1.5 and settings.clip_high is not None:
        assert ours.metrics["clip_fraction"] > 0
