"""Batches gathered for one step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacer.errors import UserError
from spacer.training.gradients import Gathered, scale_gradients
from spacer.training.soundness import check_finite


@given(st.lists(st.tuples(st.integers(0, 5_000), st.floats(-9, 9)), min_size=1, max_size=8))
def test_sums_of_batches_become_the_mean_over_all_of_them(batches: list[tuple[int, float]]) -> None:
    gathered, gradient = Gathered(), 0.0
    for count, value in batches:
        gradient += value * count / gathered.divide_by(count)
    total = sum(count for count, _ in batches)
    mean = sum(value * count for count, value in batches) / total if total else 0.0
    assert gradient * gathered.factor == pytest.approx(mean, abs=1e-9)


def test_one_batch_is_left_as_it_is() -> None:
    gathered = Gathered()
    assert (gathered.divide_by(37), gathered.factor) == (37, 1.0)
    assert (Gathered().divide_by(0), Gathered().factor) == (1.0, 1.0)


def test_gradients_that_are_there_are_scaled() -> None:
    reached, missed = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    reached.grad = torch.tensor([2.0, 4.0])
    scale_gradients([reached, missed], 0.5)
    assert reached.grad.tolist() == [1.0, 2.0] and missed.grad is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_told_with_its_step(bad: float) -> None:
    fine = torch.ones(3)
    check_finite("the weights", 7, torch.device("cpu"), fine, fine)
    with pytest.raises(UserError, match=r"after step 7: the weights are NaN or infinite.*learning_rate"):
        check_finite("the weights", 7, torch.device("cpu"), fine, torch.tensor([1.0, bad]))
