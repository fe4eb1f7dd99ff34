"""Every shipped objective learns a bandit of two tokens."""

from __future__ import annotations

import pytest
import torch

from spacer.models.token_logps import token_logps
from spacer.objective.advantages import group_advantages, zero_variance
from spacer.objective.loss import PolicyBatch, policy_loss
from spacer.rollout.endings import completion_mask, truncated
from tests.unit.test_objective import EOS, VARIANTS, shipped


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bandit_learns(name: str) -> None:
    """Two tokens from a table of logits; the reward is for token 2 and then the end."""
    settings = shipped(name)
    generator = torch.Generator().manual_seed(0)
    logits_CV = torch.zeros(2, 4, requires_grad=True)
    reference_CV = logits_CV.detach().clone()
    optimizer = torch.optim.Adam([logits_CV], lr=0.1)

    def probability() -> float:
        p_CV = logits_CV.detach().softmax(-1)
        return float(p_CV[0, 2] * p_CV[1, EOS])

    before = probability()
    for _ in range(60):
        probs_CV = logits_CV.detach().softmax(-1)
        ids_BC = torch.stack([torch.multinomial(p, 16, replacement=True, generator=generator) for p in probs_CV], 1)
        rewards_NG = ((ids_BC[:, 0] == 2) & (ids_BC[:, 1] == EOS)).float().view(2, 8)
        old_logp_BC = token_logps(logits_CV.detach().expand(16, 2, 4), ids_BC)
        for _ in range(settings.updates_per_rollout):
            batch = PolicyBatch(
                logp_BC=token_logps(logits_CV.expand(16, 2, 4), ids_BC),
                advantages_B=group_advantages(rewards_NG, kind=settings.advantage).flatten(),
                mask_BC=completion_mask(ids_BC, [EOS]),
                old_logp_BC=old_logp_BC,
                ref_logp_BC=token_logps(reference_CV.expand(16, 2, 4), ids_BC) if settings.beta else None,
                truncated_B=truncated(ids_BC, [EOS]),
                zero_variance_B=zero_variance(rewards_NG),
            )
            optimizer.zero_grad()
            policy_loss(batch, settings).loss.backward()
            optimizer.step()
    assert before == 1 / 16
    assert probability() > 0.5
