"""One process of several that train together on what a test hands out: `python -m tests.parity.spread FOLDER`.

Lightning's variables (`LOCAL_RANK`, `WORLD_SIZE`, …) say which process it is. Writes what was logged at each step, the
rollouts, and the weights at the end, of every case and strategy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Fault
from spacer.grpo import GrpoModule
from spacer.modeling import Packing, load_policy, load_processor, load_reference
from spacer.module import SftModule, Training, TreeModule
from spacer.settings import (
    ClusterSettings,
    LoraSettings,
    LossMean,
    ModelSettings,
    OptimizerSettings,
    Schedule,
    Settings,
)
from spacer.sharding import whole_state
from spacer.strategies import Place, make_strategy, place_of

Item = Prompt | Fault


@dataclass(frozen=True)
class Case:
    """A run: the batches of all processes together, by places in the list of items, and what differs from the rest."""

    batches: tuple[tuple[int, ...], ...]
    sft: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    vision_again: bool = False
    row_tokens: int = 500  # a prompt with some of its completions
    precision: str = "32-true"


BAD = 6  # the place of an item at fault
# prompts of unequal lengths, some about one video; the first half of a batch is the first process's
STEPS = ((0, 1, 2, 3), (4, 3, 0, 1), (5, 2, 1, 4))
CASES = {
    "grpo": Case(STEPS),
    "faults": Case(((0, BAD, 2, 3), (BAD, BAD, 5, 1), (BAD, BAD, BAD, BAD), (1, 4, BAD, 2))),
    "accumulated": Case((*STEPS, (2, 4, BAD, BAD)), training={"accumulate": 2, "clip": 0.05}),
    "updates": Case(
        STEPS[:2],
        objective={"updates_per_rollout": 2, "clip_low": 0.2, "clip_high": 0.2, "loss_mean": LossMean.token},
    ),
    "lora": Case(STEPS[:2], model={"lora": LoraSettings(rank=4), "gradient_checkpointing": "all"}),
    "frozen": Case(STEPS[:2], model={"freeze_vision": True}, objective={"beta": 0.0}),
    "sft": Case((*STEPS, (BAD, BAD, 0, 2)), sft=True, training={"clip": 0.5}),
    "recomputed": Case(STEPS, sft=True, model={"gradient_checkpointing": "all"}, vision_again=True),
    "double": Case(STEPS, model={"dtype": "float64"}),
    "narrow": Case(STEPS[:2], sft=True, precision="bf16-mixed"),
}


@dataclass
class Handed:
    """A loader that gives this process its part of each batch."""

    items: Sequence[Item]
    batches: Sequence[Sequence[int]]
    place: Place

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        for batch in self.batches:
            each = len(batch) // self.place.world
            mine = batch[each * self.place.rank : each * (self.place.rank + 1)]
            yield collate([self.items[i] for i in mine])


class Notes(pl.Callback):
    """What was logged after each batch, and what this process has sampled."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.texts: list[tuple[str, ...]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        if isinstance(pl_module, GrpoModule) and pl_module.last_rollout is not None:
            self.texts.append(pl_module.last_rollout[1].rollout.texts)


def build(case: Case, settings: Settings) -> TreeModule:
    """The module of a case; completions are short, so that few end at the same time."""
    model: ModelSettings = replace(settings.model, **case.model)
    optimizer = OptimizerSettings(learning_rate=3e-4, schedule=Schedule.constant)
    plan = Training(optimizer, **{"clip": 5.0, **case.training})
    packing = Packing("blocks", case.row_tokens, case.vision_again)
    policy = load_policy(model)
    policy.train()
    if case.sft:
        return SftModule(policy, packing, plan)
    changes = {"group_size": 4, "max_completion_length": 40, **case.objective}
    objective = replace(settings.objective, **changes)
    reference = load_reference(model) if model.lora is None and objective.beta else None
    return GrpoModule(policy, reference, load_processor(model), objective, settings.reward, packing, plan, seed=5)


def run(case: Case, settings: Settings, items: Sequence[Item], strategy: str, devices: int) -> dict[str, Any]:
    """Trains, and returns what it came to."""
    pl.seed_everything(3, verbose=False)  # adapters begin at random
    cluster = ClusterSettings("cpu", devices, 1, strategy)
    module, notes = build(case, settings), Notes()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=make_strategy(cluster),
        precision=case.precision,
        max_epochs=1,
        logger=False,
        callbacks=[notes],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, Handed(items, case.batches, place_of(cluster)))
    weights: dict[str, Tensor] = whole_state(module.policy)
    return {"steps": notes.steps, "texts": notes.texts, "weights": weights, "took": trainer.global_step}


def main() -> None:
    """Runs every case with every strategy, and writes FOLDER/STRATEGY.RANK.pt of each."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    told = torch.load(folder / "told.pt", weights_only=False)  # written by the test itself
    for strategy in told["strategies"]:
        found = {
            name: run(CASES[name], told["settings"], told["items"], strategy, told["devices"]) for name in told["cases"]
        }
        torch.save(found, folder / f"{strategy}.{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main()
