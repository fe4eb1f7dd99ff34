"""Advantages, statistics of groups and masks of `spacer.objective`, worked out by hand and by properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.config.choices import Advantage
from spacer.objective.advantages import group_advantages, group_stats, zero_variance
from spacer.rollout.endings import completion_mask, truncated
from tests.unit.test_objective import close


def test_advantages_worked_out_by_hand() -> None:
    rewards_NG = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]], dtype=torch.float64)  # stds 1 and sqrt(3)
    a, b = 1 / 1.0001, 1 / (math.sqrt(3) + 1e-4)
    expected_NG = torch.tensor([[-a, 0, a], [-b, -b, 2 * b]], dtype=torch.float64)
    close(group_advantages(rewards_NG), expected_NG)
    close(
        group_advantages(rewards_NG, kind=Advantage.mean),
        torch.tensor([[-1.0, 0, 1], [-1, -1, 2]], dtype=torch.float64),
    )
    close(group_advantages(rewards_NG, eps=1.0)[0], torch.tensor([-0.5, 0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("kind", list(Advantage))
def test_equal_rewards_have_no_advantage(kind: Advantage) -> None:
    rewards_NG = torch.tensor([[0.1] * 7, [1.7] * 7])  # float32, whose mean is not exactly 0.1
    assert group_advantages(rewards_NG, kind=kind).eq(0).all()
    assert zero_variance(rewards_NG).tolist() == [True] * 14


def test_bad_rewards_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="at least 2 completions, got 1"):
        group_advantages(torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"nan \(prompt 0, completion 1\), -inf \(prompt 1, completion 0\)"):
        group_advantages(torch.tensor([[1.0, math.nan], [-math.inf, 1.0]]))
    with pytest.raises(ValueError, match="median"):
        group_advantages(torch.ones(1, 2), kind="median")  # type: ignore[arg-type]


eighths = st.integers(-80, 80).map(lambda i: i / 8)  # exact in float64, also after adding a constant
groups = st.integers(2, 9).flatmap(
    lambda g: st.lists(st.lists(eighths, min_size=g, max_size=g), min_size=1, max_size=4)
)


@hypothesis_settings(max_examples=50, deadline=None)
@given(rewards=groups, constant=eighths, kind=st.sampled_from(Advantage))
def test_advantages_sum_to_zero_and_ignore_a_constant(
    rewards: list[list[float]], constant: float, kind: Advantage
) -> None:
    rewards_NG = torch.tensor(rewards, dtype=torch.float64)
    advantages_NG = group_advantages(rewards_NG, kind=kind)
    torch.testing.assert_close(advantages_NG.sum(1), torch.zeros_like(rewards_NG[:, 0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(group_advantages(rewards_NG + constant, kind=kind), advantages_NG, rtol=1e-9, atol=1e-9)


def test_group_stats() -> None:
    answers_NG = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.5], [0.0, 1.0]])
    rewards_NG = answers_NG + torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.5], [0.0, 0.0]])
    stats = {key: value.item() for key, value in group_stats(rewards_NG, answers_NG).items()}
    assert stats == pytest.approx(
        {
            "reward_mean": 8 / 8,
            "reward_std": 2 * math.sqrt(0.5) / 4,
            "groups_all_right": 0.25,
            "groups_all_wrong": 0.25,
            "groups_zero_variance": 0.5,
        }
    )


def test_completion_mask_and_truncated() -> None:
    ids_BC = torch.tensor([[5, 2, 5, 2], [2, 2, 2, 2], [5, 5, 5, 2], [5, 5, 5, 5], [5, 3, 2, 5]])
    assert completion_mask(ids_BC, [2, 3]).sum(1).tolist() == [2, 1, 4, 4, 2]  # of two ends the first counts
    assert completion_mask(ids_BC, [2]).int().tolist()[0] == [1, 1, 0, 0]
    assert completion_mask(ids_BC, [2]).sum(1).tolist() == [2, 1, 4, 4, 3]
    assert truncated(ids_BC, (2, 3)).tolist() == [False, False, False, True, False]
    assert completion_mask(ids_BC, [2]).dtype == torch.bool
    for function in (completion_mask, truncated):
        with pytest.raises(ValueError, match="eos_token_ids is empty"):
            function(ids_BC, [])
