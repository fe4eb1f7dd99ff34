"""What can be configured, as typed dataclasses: one for each file in `conf/`.

This module imports nothing heavy, so that a configuration is checked before torch is loaded. Defaults here are the
published ones (SpaceR, arXiv 2504.01805); the YAML files state every value that a run uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spacer.architecture import Architecture
from spacer.choices import (
    Advantage,
    Checkpointing,
    LossMean,
    OnBad,
    OptimizerKind,
    Positions,
    Ratio,
    Schedule,
    Subtitles,
    TooLong,
)


@dataclass(frozen=True)
class CompletionSettings:
    """How long this model's completions are, in tokens."""

    max_tokens: int = 1024
    bonus_min: int = 320  # the span that the length bonus pays for, both ends included
    bonus_max: int = 512


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on the language model's linear layers (peft)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0


@dataclass(frozen=True)
class ModelSettings:
    """A Qwen2-VL, Qwen2.5-VL or Qwen3-VL model in a Hugging Face folder or on the hub."""

    name_or_path: str
    revision: str | None = None
    dtype: str = "float32"
    attn_implementation: str = "auto"
    positions: Positions = Positions.original
    trust_remote_code: bool = False
    gradient_checkpointing: Checkpointing = Checkpointing.all
    freeze_vision: bool = False
    fresh: bool = False  # untrained weights of the embedded architecture, made in name_or_path
    learning_rate: float = 1e-6
    prompts_per_rollout: int = 1  # whose completions are written together
    row_tokens: int = 16_384  # of a packed row, which fits a device at once
    lora: LoraSettings | None = None
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    architecture: Architecture | None = None  # read by stage=plan alone, where the model's folder is not there


@dataclass(frozen=True)
class VideoSettings:
    """How videos are sampled and resized: at most `max_frames` at `fps`, `max_pixels` each, `max_side` long."""

    max_frames: int = 16
    fps: float = 2.0
    max_pixels: int = 128 * 28 * 28
    max_side: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoadingSettings:
    """How samples come to the trainer: by how many processes, and how many questions of a video together."""

    questions_per_video: int = 1  # that stand together in training and share the video's prefix
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(LoadingSettings):
    """What every data set has: the media settings, the prompts and how faults are met."""

    video: VideoSettings = field(default_factory=VideoSettings)
    image_max_pixels: int = 401_408
    max_prompt_length: int = 16_384
    too_long: TooLong = TooLong.refuse
    on_bad: OnBad = OnBad.stop
    prompts: dict[str, str] = field(default_factory=dict)
    prompts_file: str | None = None  # a YAML file of templates that takes the place of `prompts`


@dataclass(frozen=True)
class JsonlSettings(DatasetSettings):
    """Questions in a JSONL file with the fields of SpaceR-151k; media paths are relative to `root`."""

    root: str
    index: str = "index.jsonl"
    maps: str | None = None
    heldout: str | None = None  # a second file like `index`: questions that are asked and never trained on
    data_sources: tuple[str, ...] | None = None  # whose questions are trained on; null takes all
    exclude: tuple[str, ...] = ()  # lists of videos, or annotation files of benchmarks, that are not trained on


@dataclass(frozen=True)
class ArchivedSettings(JsonlSettings):
    """Questions in JSONL whose media come as a gzip tar in numbered parts; stage=prepare unpacks it into `root`."""

    source: str | None = None  # a folder with the parts, or a data set's id on the hub; null: they lie in `root`
    revision: str | None = None
    archive: str = "archive.part_"  # what the parts' names begin with, before two digits
    archive_parts: int = 1


@dataclass(frozen=True)
class ScansSettings(JsonlSettings):
    """Questions that stage=curate makes from annotated 3D scans; the rest of that stage's settings are here too."""

    index: str = "questions.jsonl"
    maps: str | None = "cognitive_map.jsonl"
    meta_info: str = "meta_info/*.json"  # the annotations: a pattern, relative to `root` or absolute
    videos: str = "videos/{dataset}/{scene}.mp4"  # a scene's video, relative to `root`
    seed: int = 0
    questions_per_type: int = 2  # posed of each scene
    max_answer_share: float = 0.4  # of the questions of a type that has few answers


@dataclass(frozen=True)
class RoomsSettings(DatasetSettings):
    """Procedural rooms rendered into video, with questions made from their annotation."""

    root: str
    seed: int = 0
    train_scenes: int = 256
    heldout_scenes: int = 96
    questions_per_scene: int = 4
    heldout_questions_per_scene: int = 4
    min_objects: int = 4
    max_objects: int = 6
    size_px: int = 224
    seconds: float = 4.0
    video_fps: int = 8
    stills: bool = False  # in place of videos and questions, a picture of each room from above, to be drawn as a map


@dataclass(frozen=True)
class MixSettings(LoadingSettings):
    """Several data sets in one. Each is decoded and prompted by its own settings; `weights` are shares of an epoch."""

    parts: dict[str, JsonlSettings | ArchivedSettings | ScansSettings | RoomsSettings]
    weights: dict[str, float]


@dataclass(frozen=True)
class LengthBonusSettings:
    """Bonus for completions of a wanted length in groups with at least two good answers."""

    bonus: float = 0.2
    min_tokens: int = 320
    max_tokens: int = 512
    min_answer: float = 0.1  # exclusive


@dataclass(frozen=True)
class TemporalBonusSettings:
    """T-GRPO: bonus when the ordered video serves at least `margin` times as well as shuffled frames."""

    bonus: float = 0.3
    margin: float = 0.8
    min_answer: float = 0.1  # exclusive


@dataclass(frozen=True)
class RewardSettings:
    """Which rewards count. `None` switches a bonus off."""

    format: bool = True
    map: bool = True
    zero_map_cancels_answer: bool = True
    map_min_answer: float = 0.5  # numerical answers must exceed it for the map to count
    strict: bool = True
    length: LengthBonusSettings | None = None
    temporal: TemporalBonusSettings | None = None


@dataclass(frozen=True)
class ObjectiveSettings:
    """Group-relative policy optimisation and its variants."""

    group_size: int = 8
    prompts_per_rollout: int = 1
    row_tokens: int = 16_384
    temperature: float = 1.0
    top_p: float = 0.95
    max_completion_length: int = 1024
    updates_per_rollout: int = 1
    beta: float = 0.04
    kl_clamp: float = 10.0
    advantage: Advantage = Advantage.std
    advantage_eps: float = 1e-4
    loss_mean: LossMean = LossMean.completion
    ratio: Ratio = Ratio.token
    clip_low: float | None = None
    clip_high: float | None = None
    drop_zero_variance: bool = False
    mask_truncated: bool = False


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a warm-up and a schedule."""

    kind: OptimizerKind = OptimizerKind.adamw
    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    schedule: Schedule = Schedule.cosine


@dataclass(frozen=True)
class BenchmarkSettings:
    """Which questions are asked, the held-out ones of the data (rooms) or those of a benchmark's files, and how."""

    name: str
    root: str | None = None  # the benchmark's files, as distributed
    index: str | None = None  # the benchmark's own annotation file, whose videos are never trained on
    tasks: tuple[str, ...] | None = None  # whose questions are taken; null takes all
    limit: int | None = None  # the first so many of them
    video: VideoSettings = field(default_factory=lambda: VideoSettings(32, 1.0, 448 * 448, 448))
    image_max_pixels: int = 448 * 448
    max_prompt_length: int = 16_384
    subtitles: Subtitles = Subtitles.none
    prompts: dict[str, str] = field(default_factory=dict)
    workers: int = 2
    max_missing: float = 0.02  # share of missing videos beyond which nothing is asked
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 1024
    batch_size: int = 64  # questions at once, at most …
    batch_tokens: int = 65_536  # … and tokens, of prompts and answers, a shared video counted once
    samples: int = 1  # answers to each question, of which the commonest counts
    resamples: int = 10_000


@dataclass(frozen=True)
class PlanSettings:
    """What stage=plan assumes of the GPUs and of the data, where null means: as the other settings have it."""

    gpu_memory_gib: float = 80.0
    flops_per_s: float = 989e12  # of one GPU, at its peak
    bytes_per_s: float = 3.35e12  # read from its memory, at its peak
    utilisation: float = 0.4  # share of both peaks that is reached
    reserve_gib: float = 4.0  # of a GPU's memory, which no tensor gets
    prompt_tokens: int | None = None
    text_tokens: int = 256  # of these, what is no video
    completion_tokens: int | None = None
    questions: int | None = None


@dataclass(frozen=True)
class StageSettings:
    """What a run does. `optimizer` is null where nothing is trained."""

    name: str
    optimizer: OptimizerSettings | None = None
    batch_size: int = 1  # questions a batch in sft; objective.prompts_per_rollout rules in train
    evaluate_before: bool | None = None  # null: where the data holds questions out
    evaluate_after: bool | None = None
    guess_share: float = 0.0  # sft: share of samples that show a bare guess in place of the worked completion …
    guess_after: int = 0  # … once so many samples have been shown
    save_dtype: str | None = None  # of the exported weights; null keeps the model's
    plan: PlanSettings | None = None  # of stage=plan


@dataclass(frozen=True)
class ClusterSettings:
    """Where a run computes: what `pytorch_lightning.Trainer` calls accelerator, devices and nodes; and how it is shared
    out, see `spacer.strategies`."""

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"  # ddp where there are several devices; or fsdp, deepspeed_zero3


@dataclass(frozen=True)
class SlurmSettings(ClusterSettings):
    """A job of SLURM a run, with a process for each device; what `sbatch` is asked for, by its names but for these.

    `devices` are those of each node. `timeout_min` is the time limit, `signal_delay_s` how long before it the run is
    told to write a checkpoint and be queued again, which time limits let it do `max_timeouts` times.
    """

    gpus_per_node: int | None = None
    gres: str | None = None
    cpus_per_task: int | None = None
    mem_gb: int | None = None  # of each node
    timeout_min: int = 240
    signal_delay_s: int = 120
    max_timeouts: int = 100
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()  # shell commands before the run
    additional_parameters: dict[str, str | int | float | bool] = field(default_factory=dict)
    array_parallelism: int = 256  # jobs of a sweep at once


@dataclass(frozen=True)
class TrainerSettings:
    """Arguments of `pytorch_lightning.Trainer`, and how often a checkpoint is written."""

    max_steps: int = -1
    max_epochs: int | None = 1
    max_time: str | None = None
    precision: str = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 5.0
    log_every_n_steps: int = 1
    checkpoint_every_n_steps: int = 50
    deterministic: bool = False
    enable_progress_bar: bool = True
    fast_dev_run: bool = False
    self_check: bool = True  # compare the first batch's log-probabilities with the plain computation


@dataclass(frozen=True)
class LoggerSettings:
    """Experiment tracking. `wandb` goes online when logged in and otherwise offline, never asking.

    Rollouts are shown every so many steps, 0 for never: prompts of the step's batch with all their completions, and
    held-out prompts, the same ones through a run, answered greedily.
    """

    kind: str = "wandb"
    project: str = "spacer"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    rollouts_every_n_steps: int = 20
    rollout_prompts: int = 2
    heldout_prompts: int = 4
    upload_mb: int = 100  # larger checkpoints and models are not uploaded to W&B, which then says where they lie


@dataclass(frozen=True)
class ReportSettings:
    """What `report.html` holds beside texts and figures, so that it stays small enough to open and to send."""

    max_megabytes: int = 50  # of the whole file; texts come first, then frames, then videos
    strips: int = 300  # videos whose frames are shown, those most worth a look first; 0 decodes none
    frames: int = 8  # of a video
    frame_height: int = 120  # pixels
    video_megabytes: float = 2.0  # a video up to this size is put in whole, to be played; 0 puts none in


@dataclass(frozen=True)
class Settings:
    """A whole run."""

    seed: int
    model: ModelSettings
    dataset: JsonlSettings | ArchivedSettings | ScansSettings | RoomsSettings | MixSettings
    reward: RewardSettings
    objective: ObjectiveSettings
    benchmark: BenchmarkSettings
    cluster: ClusterSettings | SlurmSettings
    trainer: TrainerSettings
    logger: LoggerSettings
    report: ReportSettings
    stage: StageSettings
    output_dir: str
    ckpt_path: str | None = None
    benchmarks: dict[str, BenchmarkSettings] = field(default_factory=dict)  # benchmark=all: those that have a root
    predictions: str | None = None  # of stage=score: JSON lines of {"id", "prediction"}
    runs: tuple[str, ...] = ()  # folders of runs, to be compared, reported or told of in a model card
