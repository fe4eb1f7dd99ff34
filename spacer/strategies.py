"""How a run's processes share its work: `cluster.strategy` as a strategy of Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from spacer.settings import ClusterSettings
from spacer.sharding import shard


@dataclass(frozen=True)
class Place:
    """A process's number among those of its run, and how many these are."""

    rank: int
    world: int


class Replicas(DDPStrategy):
    """The whole model in every process.

    Without torch's DistributedDataParallel, which adds gradients up within a backward pass and expects one a step that
    every parameter takes part in. Here a step has a backward pass for each packed row, as many as its process has, and
    perhaps no picture: gradients are added up after the last (`spacer.ranks.add_gradients`).
    """

    def configure_ddp(self) -> None:
        """Leaves the module unwrapped."""


def place_of(cluster: ClusterSettings) -> Place:
    """Where this process stands, or will once Lightning has started the others."""
    trainer = pl.Trainer(
        accelerator=cluster.accelerator,
        devices=cluster.devices,
        num_nodes=cluster.num_nodes,
        strategy="auto" if _is_alone(cluster) else Replicas(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return Place(trainer.global_rank, trainer.world_size)


def make_strategy(cluster: ClusterSettings) -> Strategy | str:
    """A new strategy, as each `pl.Trainer` takes its own."""
    if cluster.strategy == "fsdp":
        # one file that holds whole tensors, whatever the number of processes: read as data, and on any other number
        return ModelParallelStrategy(place_of(cluster).world, 1, save_distributed_checkpoint=False)
    return "auto" if cluster.strategy == "auto" and _is_alone(cluster) else Replicas()


def shard_for(trainer: pl.Trainer, *models: Any) -> None:
    """Spreads the models over the trainer's processes where its strategy is to; in a module's `configure_model`."""
    strategy = trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):
        computes_in = torch.bfloat16 if trainer.precision == "bf16-mixed" else None
        for model in models:
            shard(model, strategy.device_mesh["data_parallel"], computes_in)


def _is_alone(cluster: ClusterSettings) -> bool:
    return cluster.devices == 1 and cluster.num_nodes == 1
