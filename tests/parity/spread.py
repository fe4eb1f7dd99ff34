"""One of the processes that train together, or one alone: `python -m tests.parity.spread FOLDER ROOMS STRATEGY…`.

Lightning's variables (`LOCAL_RANK`, `WORLD_SIZE`, …) say which it is. Writes what was logged at each step, the rollouts
and the weights at the end, of every case and strategy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from torch.distributed.tensor import DTensor

from spacer.config.choices import LossMean, Schedule
from spacer.config.settings import ClusterSettings, LoraSettings, ModelSettings, OptimizerSettings, Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Fault
from spacer.data.sources import load_train
from spacer.distributed.sharding import whole_state
from spacer.distributed.strategies import Place, loads_weights, make_strategy, place_of
from spacer.distributed.zero3 import Zero3
from spacer.models import logps as logps_module
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import probe_model
from spacer.rewards import Scorer
from spacer.training.callbacks import FaultRecorder
from spacer.training.grpo import GrpoModule
from spacer.training.sft import SftModule
from spacer.training.tree_module import Training, TreeModule
from spacer.tree.mrope import PositionRule
from tests.parity.conftest import prompts_of, small

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
    logits: int = logps_module.LOGITS


class Zero3OnCpu(Zero3):
    """ZeRO-3 where Lightning has none of it: DeepSpeed itself has an accelerator for CPUs, named by DS_ACCELERATOR."""

    @property
    def root_device(self) -> torch.device:
        """With a number."""
        return torch.device("cpu", 0)

    def setup_environment(self) -> None:
        """Without a look at the accelerator."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Without a look at the devices' numbers."""
        self.set_world_ranks()
        self._init_deepspeed_distributed()


KEPT = 10**5  # numbers: a parameter that has no more is whole at all times under DeepSpeed
CHUNKED = 2**13  # logits of 8 tokens at once: the processes' rows are of unequal numbers of chunks
BAD, WORSE = 6, 7  # the places of items at fault
# prompts of unequal lengths, some about one video; the first half of a batch is the first process's
STEPS = ((0, 1, 2, 3), (4, 3, 0, 1), (5, 2, 1, 4))
CASES = {
    "grpo": Case(STEPS),
    "faults": Case(((0, BAD, 2, 3), (BAD, WORSE, 5, 1), (BAD, BAD, BAD, BAD), (1, 4, WORSE, 2))),
    "accumulated": Case((*STEPS, (2, 4, BAD, BAD)), training={"accumulate": 2, "clip": 0.05}),
    "updates": Case(
        STEPS[:2],
        objective={"updates_per_rollout": 2, "clip_low": 0.2, "clip_high": 0.2, "loss_mean": LossMean.token},
        logits=CHUNKED,
    ),
    "parts": Case(
        ((0, 1, 2, 3), (4, BAD, 0, 1), (BAD, WORSE, 5, 2)),
        objective={"rollout_parts": 2, "clip_low": 0.2, "clip_high": 0.2},
    ),
    "dynamic": Case(
        (*STEPS, (2, 4, BAD, BAD), (5, 0, 3, 1)),
        objective={"drop_zero_variance": True, "dynamic_sampling": 3},
        training={"accumulate": 1},
    ),
    "lora": Case(STEPS[:2], model={"lora": LoraSettings(rank=4), "gradient_checkpointing": "all"}),
    "frozen": Case(STEPS[:2], model={"freeze_vision": True}, objective={"group_size": 3}),
    "sft": Case((*STEPS, (BAD, BAD, 0, 2)), sft=True, training={"clip": 0.5}),
    "recomputed": Case(STEPS, sft=True, model={"gradient_checkpointing": "all"}, vision_again=True),
    "double": Case(STEPS[:2], model={"dtype": "float64"}),
    "narrow": Case(STEPS[:2], sft=True, precision="bf16-mixed"),
}

# strategies that write a checkpoint, and that go on from it
RESUMED = (("deepspeed_zero3", "deepspeed_zero3"), ("deepspeed_zero3", "ddp"), ("ddp", "deepspeed_zero3"))


@dataclass
class Handed:
    """A loader that gives this process its part of each batch."""

    items: Sequence[Item]
    batches: Sequence[Sequence[int]]
    place: Place
    start: int = 0  # the first batch to be handed out
    parts: int = 1

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        for batch in self.batches[self.start :]:
            parts = [batch[n * len(batch) // self.parts :][: len(batch) // self.parts] for n in range(self.parts)]
            each = len(parts[0]) // self.place.world
            mine = [i for part in parts for i in part[each * self.place.rank :][:each]]
            yield collate([self.items[i] for i in mine], self.parts)


class Notes(pl.Callback):
    """What was logged after each batch, what this process has sampled, and whether each parameter is in parts then."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.in_parts: set[bool] = set()
        self.texts: list[tuple[str, ...]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        for parameter in pl_module.policy.parameters():
            if getattr(parameter, "ds_numel", parameter.numel()) > KEPT:
                self.in_parts.add(isinstance(parameter, DTensor) or not parameter.numel())
        if isinstance(pl_module, GrpoModule) and pl_module.last_rollout is not None:
            self.texts.append(pl_module.last_rollout[1].rollout.texts)
            pl_module.last_rollout = None


def items_of(settings: Settings) -> list[Item]:
    """Questions about rooms with completions to imitate, all of unequal lengths, and two that are at fault."""
    processor = probe_model(settings.model).processor
    data = PromptDataset(
        load_train(settings.dataset).samples,
        processor,
        settings.dataset,
        rule=PositionRule(2, 2.0, split_frames=False),
    )
    prompts = prompts_of(data, 0, 1, 4, 8, 9, 12)
    assert len({len(prompt.ids_L) for prompt in prompts}) > 2
    # what the model might write: of nonsense gradients are so large that steps tear two trainings apart
    ids = torch.tensor(
        processor.tokenizer('<think><map>{"bed":[[1,2]],"sofa":[[3,7]],"lamp":[[0,2]]}</map>')["input_ids"]
    )
    imitated = [replace(prompt, target_ids=ids[: 5 + 3 * n]) for n, prompt in enumerate(prompts)]
    return [*imitated, *(Fault(name, "unreadable media", f"{name} is gone") for name in ("bad", "worse"))]


def build(case: Case, settings: Settings, devices: int, empty: bool) -> TreeModule:
    """The module of a case, for one of so many processes, without weights if it is to be sent them; some completions
    do not end in time."""
    model: ModelSettings = replace(settings.model, **case.model)
    optimizer = OptimizerSettings(learning_rate=3e-4, schedule=Schedule.constant)
    plan = Training(optimizer, batch_size=len(case.batches[0]) // devices, **{"clip": 5.0, **case.training})
    compute = ComputeOptions("blocks", case.row_tokens, case.vision_again)
    policy = load_policy(model, empty=empty)
    policy.train()
    if case.sft:
        return SftModule(policy, compute, plan)
    changes = {"group_size": 4, "max_completion_length": 80, **case.objective}
    objective = replace(settings.objective, **changes)
    reference = load_reference(model, empty=empty) if model.lora is None else None
    return GrpoModule(policy, reference, probe_model(model), objective, Scorer(settings.reward), compute, plan, seed=5)


class Saves(pl.Callback):
    """Writes a checkpoint after the first batches."""

    def __init__(self, path: Path, after: int) -> None:
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, out: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.after:
            trainer.save_checkpoint(self.path)


def run(
    case: Case,
    settings: Settings,
    strategy: str,
    devices: int,
    faults: Path,
    saves: Saves | None = None,
    start: Saves | None = None,
) -> dict[str, Any]:
    """Trains, and returns what it came to; faults are recorded in a file. Goes on from what `start` has saved."""
    pl.seed_everything(3, verbose=False)  # adapters begin at random
    logps_module.LOGITS = case.logits
    zero = strategy == "deepspeed_zero3"
    cluster = ClusterSettings("cpu", devices, 1, "ddp" if zero else strategy)
    module, notes = build(case, settings, devices, empty=not loads_weights(cluster)), Notes()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=Zero3OnCpu(case.precision) if zero else make_strategy(cluster, case.precision, trains=True),
        precision=case.precision,
        max_epochs=1,
        logger=False,
        callbacks=[notes, FaultRecorder(faults), *([saves] if saves else [])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    parts = case.objective.get("rollout_parts", 1)
    handed = Handed(items_of(settings), case.batches, place_of(cluster), start.after if start else 0, parts)
    trainer.fit(module, handed, ckpt_path=start and start.path, weights_only=True)
    weights = whole_state(module.policy)
    return {
        "steps": notes.steps,
        "texts": notes.texts,
        "weights": weights,
        "took": trainer.global_step,
        "in_parts": sorted(notes.in_parts),
    }


def main() -> None:
    """Runs every case with every strategy, and writes FOLDER/STRATEGY.RANK.pt of each."""
    folder, settings = Path(sys.argv[1]), small(sys.argv[2])
    world, rank = int(os.environ["WORLD_SIZE"]), os.environ["LOCAL_RANK"]
    torch.set_num_threads(1)
    for strategy in sys.argv[3:]:
        zero = strategy == "deepspeed_zero3"
        cases = {name: case for name, case in CASES.items() if not (zero and name == "double")}  # float32 is all it has
        faults = {name: folder / f"{strategy}.{name}.jsonl" for name in cases}
        found = {name: run(case, settings, strategy, world, faults[name]) for name, case in cases.items()}
        if zero:
            faults_again = folder / f"{strategy}.again.{rank}.jsonl"
            for first, then in RESUMED:
                saved = Saves(folder / f"{first}.{then}.ckpt", 2)
                run(CASES["sft"], settings, first, world, faults_again, saves=saved)
                found[first + then] = run(CASES["sft"], settings, then, world, faults_again, start=saved)
        torch.save(found, folder / f"{strategy}.{rank}.pt")


if __name__ == "__main__":
    main()
