"""When checkpoints are written, and that they are whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from spacer.training.checkpoints import LAST, Checkpoints, WholeFiles
from spacer.training.preemption import SignalWatcher

BATCHES, EVERY = 8, 3


class Small(pl.LightningModule):
    """A weight that each step adds the sum of its batches to; `tell_at` is a batch in which the process is told."""

    def __init__(self, accumulate: int = 1, tell_at: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._accumulate = accumulate
        self._tell_at = tell_at

    def steps_now(self, batch_idx: int) -> bool:
        return (batch_idx + 1) % self._accumulate == 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.manual_backward(-self.weight * batch.sum())
        if self.steps_now(batch_idx):
            optimizer: Any = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()
        if batch_idx == self._tell_at:
            os.kill(os.getpid(), signal.SIGTERM)


class Batches(DataLoader):
    """The numbers from 0, in order; resumes where it was, as the loaders of training do."""

    def __init__(self) -> None:
        super().__init__(range(BATCHES))  # type: ignore[arg-type]
        self._given = 0

    def __iter__(self) -> Any:
        for number in range(self._given, BATCHES):
            self._given += 1
            yield torch.tensor([float(number)])

    def state_dict(self) -> dict[str, int]:
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._given = state["given"]


def fit(folder: Path, module: Small, start: Path | None = None) -> Checkpoints:
    saving = Checkpoints(folder, EVERY, SignalWatcher(None))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[saving],
        plugins=[WholeFiles()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Batches(), ckpt_path=start, weights_only=True)
    return saving


def step_of(file: Path) -> int:
    return torch.load(file, weights_only=True)["global_step"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("accumulate", "tell_at", "step"), [(1, 1, 2), (1, 2, 3), (2, 2, 2), (2, 7, 4), (1, 7, 8)])
def test_told_to_end_it_stops_at_a_step_and_goes_on_to_the_same_end(
    accumulate: int, tell_at: int, step: int, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert fit(tmp_path, Small(accumulate, tell_at)).stopped
    assert signal.getsignal(signal.SIGTERM) is before
    assert step_of(tmp_path / LAST) == step
    module = Small(accumulate)
    assert not fit(tmp_path, module, tmp_path / LAST).stopped
    assert module.weight == sum(range(BATCHES))
    assert step_of(tmp_path / LAST) == BATCHES // accumulate
    assert not list(tmp_path.glob("last-v*")) and not list(tmp_path.glob(".*"))


@pytest.mark.filterwarnings("ignore")
def test_what_training_came_to_is_saved_and_not_trained_on(tmp_path: Path) -> None:
    fit(tmp_path, Small())
    assert step_of(tmp_path / LAST) == BATCHES  # which EVERY does not divide
    module = Small()
    fit(tmp_path, module, tmp_path / LAST)
    assert module.weight == sum(range(BATCHES))


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    class Fails:
        def __reduce__(self) -> Any:
            raise RuntimeError("killed here")

    file = tmp_path / "deep" / LAST
    WholeFiles().save_checkpoint({"weight": torch.ones(3)}, file)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed here"):
            WholeFiles().save_checkpoint({"weight": torch.zeros(99_999), "then": Fails()}, file)
        assert torch.equal(torch.load(file, weights_only=True)["weight"], torch.ones(3))
    WholeFiles().save_checkpoint({"weight": torch.zeros(2)}, file)  # over what the failed ones have left
    assert torch.equal(torch.load(file, weights_only=True)["weight"], torch.zeros(2))
    assert os.listdir(file.parent) == [LAST]
