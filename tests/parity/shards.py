"""A small module that is spread over processes, and its runs: `python -m tests.parity.shards FOLDER STEPS [START]`.

Lightning's variables (`LOCAL_RANK`, `WORLD_SIZE`, …) say which process it is. Goes on from the checkpoint START, if
given, up to STEPS steps, with a checkpoint after each; leaves the whole state as it began and ended, and how much of it
each process had.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from spacer.config.choices import OptimizerKind
from spacer.config.settings import OptimizerSettings
from spacer.distributed.strategies import Sharded
from spacer.models.trainable import without_frozen
from spacer.training.checkpoints import Checkpoints, WholeFiles
from spacer.training.optimizer import configure_optimizer
from spacer.training.preemption import SignalWatcher

BATCHES = 8


class Policy(nn.Module):
    """Tied weights, a frozen part, a buffer, and parameters with fewer rows than processes, or not a multiple."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.norm = nn.LayerNorm(width)
        self.one = nn.Linear(width, 1)
        self.head = nn.Linear(width, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.counted: Tensor
        self.register_buffer("counted", torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        self.counted += 1
        x = self.norm(self.frozen(self.embedding(ids)).relu())
        logits: Tensor = self.head(x) * self.one(x)
        return logits


class Spread(pl.LightningModule):
    """Trains a policy on batches that are the same in all processes."""

    def __init__(self, policy: Policy | None = None, vision_scale: float = 1.0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.policy = policy or Policy()
        self.vision_scale = vision_scale
        self.held: dict[str, int] = {}  # of what was last saved: numbers in this process's tensors, and in all

    def configure_model(self) -> None:
        if not isinstance(self.policy.norm.weight, DTensor):
            strategy: Any = self.trainer.strategy
            fully_shard(self.policy, mesh=strategy.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        settings = OptimizerSettings(OptimizerKind.adamw, 1e-2, warmup_steps=3, vision_scale=self.vision_scale)
        return configure_optimizer(self, settings, BATCHES, self.policy.one.parameters())

    def steps_now(self, batch_idx: int) -> bool:
        return True

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        self.manual_backward(self.policy(batch).square().mean())
        optimizer.step()
        optimizer.zero_grad()
        scheduler: Any = self.lr_schedulers()
        scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = without_frozen(self, checkpoint["state_dict"])
        checkpoint["sharded"] = True
        (optimizer,) = checkpoint["optimizer_states"]
        tensors = [*checkpoint["state_dict"].values(), *(x for s in optimizer["state"].values() for x in s.values())]
        mine = [x.to_local() if isinstance(x, DTensor) else x for x in tensors]
        self.held = {"mine": sum(x.numel() for x in mine), "all": sum(x.numel() for x in tensors)}


class Batches(torch.utils.data.DataLoader[Tensor]):
    """Numbered batches, which go on where a checkpoint was."""

    def __init__(self) -> None:
        super().__init__(range(BATCHES))  # type: ignore[arg-type]
        self._given = 0

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        for number in range(self._given, BATCHES):
            self._given += 1
            yield torch.randint(0, 7, (4,), generator=torch.Generator().manual_seed(number))

    def state_dict(self) -> dict[str, int]:
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._given = state["given"]


def whole(module: pl.LightningModule) -> dict[str, Tensor]:
    """All of a module and its optimiser, whole, in every process."""
    optimizer: Any = module.trainer.optimizers[0]
    numbered = optimizer.state_dict()["state"]
    states = {f"{number}.{name}": value for number, one in numbered.items() for name, value in one.items()}
    rates = {f"rate {n}": torch.tensor(group["lr"]) for n, group in enumerate(optimizer.param_groups)}
    found = {**module.state_dict(), **states, **rates}
    return {name: (x.full_tensor() if isinstance(x, DTensor) else x).clone() for name, x in found.items()}


class Notes(pl.Callback):
    """The whole state as training began and ended."""

    def __init__(self) -> None:
        self.began: dict[str, Tensor] = {}
        self.ended: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = whole(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ended = whole(pl_module)


def train(folder: Path, world: int, steps: int, start: Path | None = None, module: Spread | None = None) -> Notes:
    """Up to `steps` steps, with `folder`/last.ckpt after each."""
    notes = Notes()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=Sharded(world),
        max_steps=steps,
        logger=False,
        callbacks=[Checkpoints(folder, 1, SignalWatcher(None)), notes],
        plugins=[WholeFiles()],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module or Spread(), Batches(), ckpt_path=start, weights_only=True)
    return notes


def main() -> None:
    """Trains, and writes what it came to."""
    folder, steps, *start = sys.argv[1:]
    world, rank = int(os.environ["WORLD_SIZE"]), os.environ["LOCAL_RANK"]
    torch.set_num_threads(1)
    module = Spread()
    notes = train(Path(folder), world, int(steps), Path(*start) if start else None, module)
    (Path(folder) / f"held.{rank}.json").write_text(json.dumps(module.held))
    torch.save({"began": notes.began, "ended": notes.ended}, Path(folder) / f"states.{rank}.pt")


if __name__ == "__main__":
    main()
