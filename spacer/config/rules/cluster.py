"""Rules about devices, processes and how a model is spread over them."""

from __future__ import annotations

from os import environ

from spacer.config.choices import OptimizerKind
from spacer.config.derived import (
    in_zero,
    optimizer_of,
)
from spacer.config.rules.rule import Rule
from spacer.config.settings import (
    Settings,
    SlurmSettings,
)


def precision_under_fsdp(s: Settings) -> str | None:
    if s.cluster.strategy == "fsdp" and s.trainer.precision in ("64-true", "64", "16-mixed", "16"):
        return (
            f"cluster.strategy=fsdp does not compute in trainer.precision={s.trainer.precision}: "
            "choose 32-true or bf16-mixed, or cluster=ddp"
        )
    return None


def accelerator_of_zero3(s: Settings) -> str | None:
    if in_zero(s) and s.cluster.accelerator not in ("auto", "gpu", "cuda"):
        return (
            f"cluster.strategy=deepspeed_zero3 trains on CUDA devices, and cluster.accelerator={s.cluster.accelerator} "
            "names others: set cluster.accelerator=cuda, or choose cluster=fsdp"
        )
    return None


def precision_under_zero3(s: Settings) -> str | None:
    if in_zero(s) and s.trainer.precision not in ("32-true", "32", "bf16-mixed", "bf16"):
        return (
            f"cluster.strategy=deepspeed_zero3 does not compute in trainer.precision={s.trainer.precision}: "
            "choose 32-true or bf16-mixed, or cluster=ddp"
        )
    return None


def weights_under_zero3(s: Settings) -> str | None:
    if in_zero(s) and s.model.dtype != "float32":
        return (
            f"cluster.strategy=deepspeed_zero3 spreads weights of float32, and not of model.dtype={s.model.dtype}: "
            "set model.dtype=float32, or choose cluster=fsdp"
        )
    return None


def adamw_8bit_sharded(s: Settings) -> str | None:
    if s.cluster.shards and (optimizer := optimizer_of(s)) is not None and optimizer.kind == OptimizerKind.adamw_8bit:
        return (
            f"stage.optimizer.kind=adamw_8bit under cluster.strategy={s.cluster.strategy} has no checkpoints that can "
            "be read back: set stage.optimizer.kind=adamw, or choose cluster=ddp"
        )
    return None


def muon_sharded(s: Settings) -> str | None:
    if s.cluster.shards and (optimizer := optimizer_of(s)) is not None and optimizer.kind == OptimizerKind.muon:
        return (
            f"stage.optimizer.kind=muon takes its steps on whole matrices, and cluster.strategy={s.cluster.strategy} "
            "keeps parts of them: set stage.optimizer.kind=adamw, or choose cluster=ddp"
        )
    return None


def vision_scale_under_zero3(s: Settings) -> str | None:
    if in_zero(s) and (optimizer := optimizer_of(s)) is not None and optimizer.vision_scale != 1:
        return (
            f"stage.optimizer.vision_scale={optimizer.vision_scale} is not supported under "
            "cluster.strategy=deepspeed_zero3: set it to 1, or choose cluster=ddp or cluster=fsdp"
        )
    return None


def nodes_without_launcher(s: Settings) -> str | None:
    if (
        s.cluster.num_nodes > 1
        and not isinstance(s.cluster, SlurmSettings)
        and s.stage.name != "plan"
        and not {"NODE_RANK", "GROUP_RANK", "SLURM_NNODES"} & environ.keys()
    ):
        return (
            f"cluster.num_nodes={s.cluster.num_nodes}, and nothing here starts processes on other nodes: choose "
            "cluster=slurm, or call torchrun on each node"
        )
    return None


def processes_for_slurm(s: Settings) -> str | None:
    if isinstance(s.cluster, SlurmSettings) and not isinstance(s.cluster.devices, int):
        return (
            f"cluster.devices={s.cluster.devices} does not say how many processes SLURM has to start: "
            "set cluster.devices to a number"
        )
    return None


def signal_before_time_limit(s: Settings) -> str | None:
    if isinstance(s.cluster, SlurmSettings) and s.cluster.signal_delay_s + 60 >= 60 * s.cluster.timeout_min:
        return (
            f"cluster.signal_delay_s={s.cluster.signal_delay_s} leaves nothing of "
            f"cluster.timeout_min={s.cluster.timeout_min}, since SLURM may tell a job a minute earlier still: raise "
            "the latter or lower the former"
        )
    return None


RULES: tuple[Rule, ...] = (
    precision_under_fsdp,
    accelerator_of_zero3,
    precision_under_zero3,
    weights_under_zero3,
    adamw_8bit_sharded,
    muon_sharded,
    vision_scale_under_zero3,
    nodes_without_launcher,
    processes_for_slurm,
    signal_before_time_limit,
)
