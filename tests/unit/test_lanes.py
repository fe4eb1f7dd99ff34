"""Parts computed side by side: the results of an ordinary map, and a process left as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from spacer.cpu.lanes import at_once, side_by_side, train_side_by_side


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As on a machine of two cores; tests run with one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items_whichever_is_first() -> None:
    second_done = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            assert second_done.wait(60)  # which needs a thread of its own
        elif item == 1:
            second_done.set()
        return item * item

    assert side_by_side(slow_first, range(5), 2) == [0, 1, 4, 9, 16]
    assert side_by_side(lambda item: item, [], 2) == []


@pytest.mark.parametrize("lanes", [1, 2])
def test_modes_of_the_caller_hold_in_each_part(lanes: int) -> None:
    weight = torch.ones(1, requires_grad=True)

    def tracked(item: int) -> tuple[bool, bool]:
        product = weight * item
        return product.requires_grad, product.is_inference()

    assert side_by_side(tracked, range(3), lanes) == [(True, False)] * 3
    with torch.no_grad():
        assert side_by_side(tracked, range(3), lanes) == [(False, False)] * 3
    with torch.inference_mode():
        assert side_by_side(tracked, range(3), lanes) == [(False, True)] * 3


def test_cores_are_shared_out_and_given_back() -> None:
    assert at_once() == 2
    inside = side_by_side(lambda _: (torch.get_num_threads(), at_once()), range(2), 2)
    assert inside == [(1, 1), (1, 1)]
    assert torch.get_num_threads() == 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert at_once() == 1
    torch.set_num_threads(1)
    assert at_once() == 1


@pytest.mark.parametrize("faulty", [0, 1])  # of the caller's own lane, and of the other
def test_an_error_of_a_part_is_the_callers_and_cores_are_given_back(faulty: int) -> None:
    done = []

    def fail(item: int) -> None:
        if item == faulty:
            raise ValueError(f"item {item}")
        done.append(item)

    with pytest.raises(ValueError, match=f"item {faulty}"):
        side_by_side(fail, range(4), 2)
    assert sorted(done) == [item for item in range(4) if item % 2 != faulty]
    assert torch.get_num_threads() == 2 == at_once()


class Tied(torch.nn.Module):
    """Two names of one weight, a weight that is frozen, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.second = torch.nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.second(self.first(x).tanh()) * self.frozen + self.shift).sum()


def test_gradients_of_all_lanes_are_added_to_what_the_model_has() -> None:
    torch.manual_seed(0)
    model, items = Tied(), list(torch.randn(5, 3))
    seen: dict[int, tuple[int, int]] = {}

    def train(policy: Tied, item: torch.Tensor) -> float:
        seen[id(policy)] = policy.first.weight.data_ptr(), policy.shift.data_ptr()
        loss = policy(item)
        loss.backward()
        return loss.item()

    expected = [train(model, item) for item in items]
    wanted = 2 * model.first.weight.grad  # once more is added to it
    seen.clear()
    assert train_side_by_side(train, model, items, 2) == expected
    assert len(seen) == 2 and len(set(seen.values())) == 1  # two models, one memory
    torch.testing.assert_close(model.first.weight.grad, wanted)
    assert model.first.weight.grad is model.second.weight.grad
    assert model.frozen.grad is None


def test_one_lane_trains_the_model_itself() -> None:
    model = Tied()
    assert train_side_by_side(lambda policy, _: policy is model, model, range(3), 1) == [True] * 3
    assert train_side_by_side(lambda policy, _: policy is model, model, range(1), 2) == [True]
    assert train_side_by_side(lambda policy, _: policy is model, model, [], 2) == []
