"""DeepSpeed's strategy, as far as it goes without its engine: for that see `tests/parity/test_spread.py`."""

from __future__ import annotations

import pytest
import torch

from spacer.config.settings import ClusterSettings
from spacer.distributed.strategies import Replicas, make_strategy
from spacer.distributed.zero3 import own_part, zero3_config
from spacer.errors import UserError


@pytest.mark.parametrize(("shape", "world"), [((3, 5), 2), ((4, 4), 4), ((2,), 3)])
def test_parts_side_by_side_are_the_whole(shape: tuple[int, ...], world: int) -> None:
    whole = torch.randn(shape)
    parts = [own_part(whole, rank, world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    joined = torch.cat(parts)
    assert torch.equal(joined[: whole.numel()].view(shape), whole) and not joined[whole.numel() :].any()


def test_what_deepspeed_is_told() -> None:
    assert zero3_config("32-true")["managed_gradient_accumulation"] is False
    assert [zero3_config(name)["torch_autocast"]["enabled"] for name in ("32-true", "bf16-mixed")] == [False, True]


def test_it_takes_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = ClusterSettings(strategy="deepspeed_zero3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for trains in (True, False):  # before the first question is asked, too
        with pytest.raises(UserError, match="choose cluster=fsdp"):
            make_strategy(cluster, "32-true", trains)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert isinstance(make_strategy(cluster, "32-true", trains=False), Replicas)
