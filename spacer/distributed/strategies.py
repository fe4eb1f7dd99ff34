"""How a run's processes share its work: `cluster.strategy` as a strategy of Lightning."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from spacer.config.settings import ClusterSettings, SlurmSettings
from spacer.distributed.checkpoint_files import read
from spacer.distributed.sharding import hold_twin, shard_firsts
from spacer.distributed.zero3 import Zero3, check_device
from spacer.errors import UserError
from spacer.models.trainable import check_trained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A process's number among those of its run, and how many these are."""

    rank: int
    world: int


class Replicas(DDPStrategy):
    """The whole model in every process.

    Without torch's DistributedDataParallel, which adds gradients up within a backward pass and expects one a step that
    every parameter takes part in. Here a step has a backward pass for each packed row, as many as its process has, and
    perhaps no picture: gradients are added up after the last (`spacer.distributed.collectives.add_gradients`).
    """

    def configure_ddp(self) -> None:
        """Leaves the module unwrapped."""


class Sharded(ModelParallelStrategy):
    """Models spread over the processes, by FSDP2; checkpoints are one file of whole tensors, as of a process alone.

    Such a file is read as data, and on any number of processes; a checkpoint in parts is a folder with a pickle.
    """

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """As Lightning does; UserError as of `check_written_by` and `check_trained`."""
        # mapped: of the tensors nothing is read
        held = read(Path(checkpoint_path), mmap=True)
        check_written_by(held, sharded=True)
        assert self.lightning_module is not None
        check_trained(self.lightning_module, held["state_dict"])  # which the module's own hook is not given
        return super().load_checkpoint(checkpoint_path, weights_only)


def check_written_by(checkpoint: Mapping[str, Any], sharded: bool) -> None:
    """UserError for a checkpoint of models that were sharded where they are not, or the reverse.

    Lightning numbers the states of the optimiser otherwise where parameters are frozen, and would mix them up.
    """
    if checkpoint.get("sharded", False) != sharded:
        whole = "ddp, deepspeed_zero3 or auto"
        was, now = (whole, "fsdp") if sharded else ("fsdp", whole)
        raise UserError(
            f"the checkpoint was written under cluster.strategy={was}, and this run is under {now}: go on under the "
            "same, on any number of devices; or take the weights alone, with stage=export and model.name_or_path"
        )


def place_of(cluster: ClusterSettings) -> Place:
    """Where this process stands, or will once Lightning has started the others.

    Raises:
        UserError: devices are asked for that are not there, or more or fewer processes than were started.
    """
    _check_gpus(cluster)
    try:
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
    except MisconfigurationException as error:
        asked = f"cluster.accelerator={cluster.accelerator} cluster.devices={cluster.devices}"
        raise UserError(
            f"{asked} cannot be had on this machine ({str(error).strip().rstrip('!.')}): name devices that are there, "
            "or set cluster.accelerator=auto and cluster.devices=auto"
        ) from error
    except ValueError as error:  # of SLURM's variables
        raise UserError(f"{error}: start one task a device, with srun, or choose cluster=slurm, which does") from error
    wanted, there = trainer.num_devices * trainer.num_nodes, trainer.world_size
    if _is_alone(cluster):
        there = started()
    if wanted != there:
        raise UserError(
            f"cluster.devices={cluster.devices} on cluster.num_nodes={cluster.num_nodes} are {wanted} processes, and "
            f"{there} {'was' if there == 1 else 'were'} started: start one a device (srun --ntasks-per-node, torchrun "
            "--nproc-per-node), or set cluster.devices and cluster.num_nodes to what was started"
        )
    return Place(trainer.global_rank, trainer.world_size)


def started() -> int:
    """How many processes srun or torchrun has started of this run; 1 where neither has."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment().world_size()
    # a batch script has the number of its tasks, too, and is none of them
    by_srun = SLURMEnvironment.detect() and "SLURM_STEP_ID" in os.environ
    return SLURMEnvironment(auto_requeue=False).world_size() if by_srun else 1


def _check_gpus(cluster: ClusterSettings) -> None:
    """UserError where devices of a GPU's kind are asked for and there is none; by itself Lightning takes the CPU."""
    if cluster.accelerator != "auto" or torch.cuda.is_available() or torch.backends.mps.is_available():
        return
    asked = [f"cluster.devices={cluster.devices}"] if cluster.devices not in (1, "1", "auto") else []
    if isinstance(cluster, SlurmSettings) and (cluster.gpus_per_node or cluster.gres):
        asked.append(f"cluster.gpus_per_node={cluster.gpus_per_node} cluster.gres={cluster.gres}")
    if asked:
        raise UserError(
            f"{' '.join(asked)}: torch finds no GPU here. Look at nvidia-smi and at "
            "CUDA_VISIBLE_DEVICES, and whether torch.version.cuda suits the driver; to compute on the CPU, set "
            "cluster.accelerator=cpu (under SLURM with cluster.gpus_per_node=null)"
        )
    if cluster.strategy != "auto" or cluster.devices == "auto":
        log.warning("NO GPU: torch finds none here, and the run is computed on the CPU, by one process")


def make_strategy(cluster: ClusterSettings, precision: str, trains: bool) -> Strategy | str:
    """A new strategy, as each `pl.Trainer` takes its own. UserError as of `check_device`.

    `trains` is whether it is to train; under ZeRO-3 questions are asked of the whole model in every process, since
    DeepSpeed's engine is one for training.
    """
    if cluster.strategy == "deepspeed_zero3":
        check_device()
        return Zero3(precision) if trains else Replicas()
    if cluster.strategy == "fsdp":
        return Sharded(place_of(cluster).world)
    return "auto" if cluster.strategy == "auto" and _is_alone(cluster) else Replicas()


def shard_for(trainer: pl.Trainer, *models: Any) -> None:
    """Spreads the models over the trainer's processes where its strategy is to; in a module's `configure_model`."""
    strategy = trainer.strategy
    if isinstance(strategy, Zero3):
        for model in models:
            hold_twin(model)
    if isinstance(strategy, Sharded):
        computes_in = torch.bfloat16 if trainer.precision == "bf16-mixed" else None
        for model in models:
            shard_firsts(model, strategy.device_mesh["data_parallel"], computes_in)


def in_parts(trainer: pl.Trainer) -> bool:
    """Whether the optimiser's states are of parameters that FSDP2 holds, so that checkpoints number them its way."""
    return isinstance(trainer.strategy, Sharded)


def loads_weights(cluster: ClusterSettings) -> bool:
    """Whether this process reads the model's weights: under FSDP the first alone does, and sends the others theirs."""
    return cluster.strategy != "fsdp" or place_of(cluster).rank == 0


def _is_alone(cluster: ClusterSettings) -> bool:
    return cluster.devices == 1 and cluster.num_nodes == 1
