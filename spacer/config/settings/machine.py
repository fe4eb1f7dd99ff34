"""Settings of where a run computes and what it reports: cluster, logger, report."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Tag
from pydantic.dataclasses import dataclass

from spacer.config.settings.section import CONFIG, Section, kind

DeviceNames = Annotated[
    str,
    Field(
        pattern=r"^(auto|[1-9]\d*|\d+(,\d+)+|\d+,)$", description="auto for all, or the devices' numbers, such as '0,2'"
    ),
]


@dataclass(frozen=True, config=CONFIG)
class ClusterSettings(Section):
    """Where a run computes: accelerator, devices and nodes of `pytorch_lightning.Trainer`, and the strategy, see
    `spacer.distributed.strategies`."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"  # auto takes a GPU if there is one
    devices: PositiveInt | DeviceNames = 1  # per machine: a number, auto for all, or indices ('0,2')
    num_nodes: PositiveInt = 1  # machines
    strategy: Literal["auto", "ddp", "fsdp", "deepspeed_zero3"] = "auto"  # auto: ddp with several devices
    kind: Literal["local", "slurm"] = "local"  # of cluster, which decides what else can be set

    @property
    def shards(self) -> bool:
        """Whether the strategy shards the model's parameters."""
        return self.strategy in ("fsdp", "deepspeed_zero3")


@dataclass(frozen=True, config=CONFIG)
class SlurmSettings(ClusterSettings):
    """One SLURM job per run, with a process per device. Fields are `sbatch` options by name, except these:

    `devices` are per node. `timeout_min` is the time limit, `signal_delay_s` how long before it the run is signalled to
    write a checkpoint and be requeued, which may happen `max_timeouts` times on time limits.
    """

    gpus_per_node: NonNegativeInt | None = None
    gres: str | None = None
    cpus_per_task: PositiveInt | None = None
    mem_gb: PositiveInt | None = None  # per node
    timeout_min: PositiveInt = 240
    signal_delay_s: Annotated[int, Field(ge=30, description="in which a step ends and a checkpoint is written")] = 120
    max_timeouts: NonNegativeInt = 100
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()  # shell commands before the run
    additional_parameters: dict[str, str | int | float | bool] = field(default_factory=dict)
    array_parallelism: PositiveInt = 256  # concurrent jobs of a sweep
    kind: Literal["slurm"] = "slurm"


Cluster = Annotated[
    Annotated[ClusterSettings, Tag("local")] | Annotated[SlurmSettings, Tag("slurm")], Discriminator(kind)
]


@dataclass(frozen=True, config=CONFIG)
class LoggerSettings(Section):
    """Experiment tracking. `wandb` is online if logged in and otherwise offline, and never prompts.

    Rollouts are logged every `rollouts_every_n_steps` steps, 0 for never: prompts of the step's batch with all their
    completions, and held-out prompts, the same ones throughout a run, decoded greedily.
    """

    kind: Literal["wandb", "tensorboard", "csv", "none"] = "wandb"
    project: str = "spacer"
    entity: str | None = None  # W&B: the team; null: yours
    group: str | None = None  # W&B: the group of the runs
    name: str | None = None  # W&B: the run's name; null: its folder's
    rollouts_every_n_steps: NonNegativeInt = 20
    rollout_prompts: NonNegativeInt = 2
    heldout_prompts: NonNegativeInt = 4
    upload_mb: NonNegativeInt = 100  # larger checkpoints and models are not uploaded to W&B, which refers to their path


@dataclass(frozen=True, config=CONFIG)
class ReportSettings(Section):
    """The contents of `report.html` besides texts and figures; limits keep it small enough to open and to send."""

    max_megabytes: PositiveInt = 50  # of the whole file; texts come first, then frames, then videos
    strips: NonNegativeInt = 300  # videos with frames shown, most interesting first; 0 decodes none
    frames: Annotated[int, Field(ge=2, multiple_of=2, description="frames are read in pairs")] = 8  # per video
    frame_height: Annotated[int, Field(ge=16, le=1080)] = 120  # pixels
    video_megabytes: NonNegativeFloat = 2.0  # videos up to this size are embedded, to be played; 0: none
