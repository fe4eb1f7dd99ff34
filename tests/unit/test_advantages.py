"""Advantages, statistics of groups and masks of `spacer.objective`, worked out by hand and by properties."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.config.choices import Advantage
from spacer.objective.advantages import group_advantages, group_stats, term_advantages, zero_variance
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


OF_TOTALS = [kind for kind in Advantage if kind != Advantage.terms]


def test_terms_are_normalised_each_by_itself() -> None:
    """Against the plain computation, a term and a group at a time; None is where a term does not apply."""
    terms = [
        [[1.0, 0.2, None], [0.0, 0.0, 3.0], [1.0, 0.2, 1.0], [1.0, 0.0, None]],
        [[1.0, 0.1, 2.0], [1.0, 0.1, None], [1.0, 0.1, None], [1.0, 0.3, None]],
    ]
    weights = (1.0, 0.2, 0.5)
    expected = [[0.0] * 4 for _ in terms]
    for n, group in enumerate(terms):
        for k, weight in enumerate(weights):
            held = [(g, row[k]) for g, row in enumerate(group) if row[k] is not None]
            values = [value for _, value in held]
            if len(set(values)) > 1:
                mean, std = statistics.fmean(values), statistics.stdev(values)
                for g, value in held:
                    expected[n][g] += weight * (value - mean) / (std + 1e-4)
    held = [[[math.nan if value is None else value for value in row] for row in group] for group in terms]
    terms_NGK = torch.tensor(held, dtype=torch.float64)
    found_NG = term_advantages(terms_NGK, torch.tensor(weights, dtype=torch.float64))
    close(found_NG, torch.tensor(expected, dtype=torch.float64))
    close(found_NG.sum(1), torch.zeros(2, dtype=torch.float64))


def test_terms_keep_apart_what_totals_join() -> None:
    """Right in no form, and wrong in form, come to one total: to GRPO they are alike."""
    terms_NGK = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    totals_NG = terms_NGK.sum(2)
    assert group_advantages(totals_NG)[0, 0] == group_advantages(totals_NG)[0, 1]
    found = term_advantages(terms_NGK, torch.ones(2, dtype=torch.float64))[0]
    assert found[0] != pytest.approx(float(found[1]))
    assert term_advantages(torch.full((1, 3, 2), 0.1), torch.ones(2)).eq(0).all()
    with pytest.raises(ValueError, match="inf"):
        term_advantages(torch.tensor([[[math.inf], [0.0]]]), torch.ones(1))


@pytest.mark.parametrize("kind", OF_TOTALS)
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
@given(rewards=groups, constant=eighths, kind=st.sampled_from(OF_TOTALS))
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
