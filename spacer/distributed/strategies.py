"""How a run's processes share its work: `cluster.strategy` as a strategy of Lightning."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from spacer.config.settings import ClusterSettings, SlurmSettings
from spacer.distributed.checkpoint_parts import PARTS, check, forget_but, join, load, new_folder, places, split, write
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
    """Models spread over the processes, by FSDP2; checkpoints as of `spacer.distributed.checkpoint_parts`.

    Each process writes and reads its own shards, and any number of processes goes on from them.
    """

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1)

    # What is told of states is as of one process: they are named and numbered alike, and hold a process's shards.

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The parameters themselves, so that two names of one are told from two parameters."""
        assert self.lightning_module is not None
        return dict(self.lightning_module.state_dict(keep_vars=True))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """What is not sharded, such as buffers; of the rest `load_checkpoint` has filled the parameters."""
        super(ModelParallelStrategy, self).load_model_state_dict(checkpoint, strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The optimiser's own."""
        return super(ModelParallelStrategy, self).optimizer_state(optimizer)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Into the optimiser."""
        super(ModelParallelStrategy, self).load_optimizer_state_dict(checkpoint)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes, from what `load_checkpoint` returns."""
        return True

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes the shards to a new folder, then the file that names it, and removes the folder of the one before."""
        path = Path(self.broadcast(filepath))
        folder = self.broadcast(new_folder(path) if self.is_global_zero else path)
        sharded, rest = split(checkpoint)
        rest[PARTS] = write(sharded, folder, self.root_device)
        super(ModelParallelStrategy, self).save_checkpoint(rest, path, storage_options)  # in the first process
        if self.is_global_zero:
            forget_but(path, folder)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Fills the module's parameters; returns the checkpoint with this process's shards.

        Raises:
            UserError: as of `check_written_by`, `check_trained` and `checkpoint_parts.check`, or it is of an earlier
                version, of another model or of other trained parts.
        """
        path, module = Path(self.broadcast(checkpoint_path)), self.lightning_module
        assert module is not None
        held: dict[str, Any] = self.checkpoint_io.load_checkpoint(path, weights_only=True)
        check_written_by(held, sharded=True)
        check_trained(module, held["state_dict"])  # before it is filled
        if PARTS not in held:
            raise UserError(
                f"{path} was written by an earlier version, as one file: go on with that version, or take its weights "
                "alone, with stage=export and model.name_or_path"
            )
        into = _shards_for(path, held, module.state_dict(), self.optimizers)
        check(path, held, self.root_device)
        load(path, held, into)
        return join(held, into)


def _shards_for(
    path: Path, checkpoint: Mapping[str, Any], state: Mapping[str, Any], optimizers: Sequence[Optimizer]
) -> dict[str, Tensor]:
    """A module's parameters and new states of its optimisers, by their places in the checkpoint.

    Raises:
        UserError: shapes differ, or the parameters are grouped otherwise.
    """
    like = {f"state_dict.{name}": value for name, value in state.items()}
    same = True
    for number, (optimizer, saved) in enumerate(zip(optimizers, checkpoint["optimizer_states"], strict=True)):
        now, then = optimizer.param_groups, saved["param_groups"]
        same &= [len(group["params"]) for group in now] == [len(group["params"]) for group in then]
        parameters = [parameter for group in now for parameter in group["params"]]
        for place, states in saved["state"].items():
            for name, value in states.items():
                if same and value.is_meta:
                    empty = torch.empty_like(parameters[place], dtype=value.dtype, requires_grad=False)
                    like[f"optimizer_states.{number}.state.{place}.{name}"] = empty
    wanted = {place: value for place, value in places(checkpoint).items() if place in like}
    other = [place for place, value in wanted.items() if like[place].shape != value.shape]
    if other or not same:
        what = f"its {other[0]} has another shape" if other else "its optimizer has other groups of parameters"
        raise UserError(
            f"{path} was written under other settings of the model or the optimizer ({what}): go on with those that "
            "it was written under, as .hydra/config.yaml beside it has them, or begin anew in another run folder"
        )
    return {place: like[place] for place in wanted}


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
