"""The optimisers, and what a checkpoint keeps of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from spacer.choices import OptimizerKind, Schedule
from spacer.errors import UserError
from spacer.optimizer import allow_states, check_trained, configure_adamw, without_frozen
from spacer.settings import OptimizerSettings
from tests.unit.configs import only_problem


class Small(pl.LightningModule):
    """A tied, a frozen and a trained part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(128, 128).requires_grad_(False)
        self.trained = nn.Linear(128, 128, bias=False)
        self.tied = nn.Linear(128, 128, bias=False)
        self.tied.weight = self.trained.weight
        self.register_buffer("counted", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.frozen(x).relu() + self.trained(x))


@pytest.fixture
def eager() -> Iterator[None]:
    """torchao's step as it is written, not compiled, which takes half a minute."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def trained(kind: OptimizerKind, steps: int, file: Path | None = None) -> tuple[Small, list[float], dict]:
    """A module after so many steps, going on from a file's optimiser state where there is one."""
    module = Small()
    made = configure_adamw(module, OptimizerSettings(kind, 1e-2, schedule=Schedule.constant), None)
    optimizer, start = made["optimizer"], 0
    if file is not None:
        found = torch.load(file, weights_only=True)
        module.load_state_dict(found["module"])
        optimizer.load_state_dict(found["optimizer"])
        start = found["steps"]
    losses = []
    for step in range(start, steps):
        x = torch.randn(64, 128, generator=torch.Generator().manual_seed(step))
        loss = (module(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return module, losses, {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "steps": steps}


def test_eight_bits_train_as_thirty_two_do_and_go_on_from_a_file(eager: None, tmp_path: Path) -> None:
    _, exact, _ = trained(OptimizerKind.adamw, 30)
    whole, losses, state = trained(OptimizerKind.adamw_8bit, 30)
    assert losses == pytest.approx(exact, rel=0.05) and losses[-1] < 0.5 * losses[0]
    (moments,) = state["optimizer"]["state"].values()  # one trained parameter, which has two names
    bytes_held = sum(part.nbytes for name in ("exp_avg", "exp_avg_sq") for part in (moments[name].codes,))
    assert bytes_held == 2 * 128 * 128
    _, _, half = trained(OptimizerKind.adamw_8bit, 12)
    torch.save(half, tmp_path / "half.pt")
    allow_states(OptimizerKind.adamw_8bit)
    again, _, _ = trained(OptimizerKind.adamw_8bit, 30, tmp_path / "half.pt")
    assert torch.equal(again.trained.weight, whole.trained.weight)


def test_a_checkpoint_keeps_what_is_trained_and_says_what_it_lacks() -> None:
    module = Small()
    kept = without_frozen(module, module.state_dict())
    assert set(kept) == {"trained.weight", "tied.weight", "counted"}
    check_trained(module, kept)
    del kept["tied.weight"]
    with pytest.raises(UserError, match=r"lacks 1 of the parameters that are trained, such as tied\.weight"):
        check_trained(module, kept)


def test_eight_bits_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacer.rules.find_spec", lambda name: None)
    told = only_problem(stage__optimizer__kind="adamw_8bit")
    assert "needs the package torchao" in told and "pip install -e '.[adamw8bit]'" in told
