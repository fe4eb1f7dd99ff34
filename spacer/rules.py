"""What must not be combined, though each value is fine alone. `spacer.config` applies it, after `spacer.checks`."""

from __future__ import annotations

from collections.abc import Callable
from glob import glob
from importlib.util import find_spec
from math import inf
from os import environ
from os.path import expanduser, isdir, isfile, join  # unlike Path, never raise: what is unreadable is not there
from typing import Any

from spacer.benchmarks import names
from spacer.checks import NEED_NO_DATA, NEED_NO_MODEL
from spacer.choices import OptimizerKind
from spacer.implied import (
    HUB_ID,
    SHARDED,
    asked_benchmarks,
    asks_files,
    computes_in_16_bits,
    holds_out,
    in_zero,
    sections,
    trains,
)
from spacer.settings import (
    ArchivedSettings,
    DatasetSettings,
    JsonlSettings,
    MixSettings,
    RoomsSettings,
    ScansSettings,
    Settings,
    SlurmSettings,
)

_NARROW = ("bf16-true", "16-true")


def _lacks(d: DatasetSettings, s: Settings, field: str) -> bool:
    """Whether a file that the data set names is not in its folder, which exists."""
    if (
        not isinstance(d, JsonlSettings)
        or s.stage.name in (*NEED_NO_MODEL, *NEED_NO_DATA)
        or (name := getattr(d, field)) is None
    ):
        return False
    root = expanduser(d.root)
    return isdir(root) and not isfile(join(root, name))


def _lacks_annotations(d: DatasetSettings, s: Settings) -> bool:
    """Whether no file is there to curate, in a folder that exists."""
    if not isinstance(d, ScansSettings) or s.stage.name != "curate":
        return False
    root = expanduser(d.root)
    return isdir(root) and not any(isfile(path) for path in glob(join(root, expanduser(d.meta_info))))


def _no_checkpoint(path: str) -> bool:
    return path != "last" and not isfile(path)


# As RULES, of each data set `d` of a run, at the path `at`
DATASET_RULES: tuple[tuple[Callable[[Any, Settings], bool], str], ...] = (
    (
        lambda d, s: isinstance(d, RoomsSettings) and d.stills and s.stage.name != "sft",
        "{at}.stills holds pictures to draw, not questions to answer, and is for stage=sft: set {at}.stills=false",
    ),
    (
        lambda d, s: isinstance(d, RoomsSettings) and d.min_objects > d.max_objects,
        "{at}.min_objects={d.min_objects} exceeds {at}.max_objects={d.max_objects}: swap them",
    ),
    (
        lambda d, s: (
            isinstance(d, JsonlSettings)
            and s.stage.name not in ("prepare", *NEED_NO_DATA)
            and not isdir(expanduser(d.root))
        ),
        "{at}.root={d.root} is not an existing folder: set {at}.root=/path/to/the/data "
        "(stage=prepare makes it from a distributed archive), or choose dataset=rooms, which needs no files",
    ),
    (
        lambda d, s: isinstance(d, ScansSettings) and (_lacks(d, s, "index") or _lacks(d, s, "maps")),
        "{at}.index={d.index} and {at}.maps={d.maps} are not both files in {at}.root={d.root}: "
        "make them with stage=curate first",
    ),
    (
        _lacks_annotations,
        "{at}.meta_info={d.meta_info} matches no file in {at}.root={d.root}: "
        "put the scans' annotations there, or correct the pattern",
    ),
    (
        lambda d, s: isinstance(d, ScansSettings) and d.videos.count("{scene}") == 0,
        "{at}.videos={d.videos} names the same video for every scene: have {{scene}} in it, "
        "as in 'videos/{{dataset}}/{{scene}}.mp4'",
    ),
    (
        lambda d, s: not isinstance(d, ScansSettings) and _lacks(d, s, "index"),
        "{at}.index={d.index} is not a file in {at}.root={d.root}: "
        "set {at}.index to the questions' JSONL file, relative to the root",
    ),
    (
        lambda d, s: not isinstance(d, ScansSettings) and _lacks(d, s, "maps"),
        "{at}.maps={d.maps} is not a file in {at}.root={d.root}: correct it, or set {at}.maps=null",
    ),
    (
        lambda d, s: _lacks(d, s, "heldout"),
        "{at}.heldout={d.heldout} is not a file in {at}.root={d.root}: correct it, or set {at}.heldout=null",
    ),
    (
        lambda d, s: isinstance(d, JsonlSettings) and not all(isfile(expanduser(name)) for name in d.exclude),
        "{at}.exclude={d.exclude} names a file that is not there: each is a list of videos, a name a line, or a "
        "benchmark's own annotation file (.parquet, .json, .jsonl)",
    ),
    (
        lambda d, s: (
            isinstance(d, ArchivedSettings)
            and s.stage.name == "prepare"
            and d.source is not None
            and not isdir(expanduser(d.source))
            and HUB_ID.fullmatch(d.source) is None
        ),
        "{at}.source={d.source} is neither an existing folder nor the id of a data set on the hub, such as "
        "RUBBISHLIKE/SpaceR-151k: correct it, or set {at}.source=null where the parts lie in {at}.root",
    ),
)


# Values that are fine alone and not together: (whether this is so, the problem and its remedy)
RULES: tuple[tuple[Callable[[Settings], bool], str], ...] = (
    (
        lambda s: (
            isinstance(s.dataset, MixSettings)
            and (not s.dataset.parts or set(s.dataset.parts) != set(s.dataset.weights))
        ),
        "dataset.parts and dataset.weights must name the same data sets, at least one: "
        "give each part its share of an epoch",
    ),
    (
        lambda s: isinstance(s.dataset, MixSettings) and not all(0 < w < inf for w in s.dataset.weights.values()),
        "dataset.weights={s.dataset.weights}: each must be finite and greater than 0: "
        "leave a part out of dataset.parts instead",
    ),
    (
        lambda s: any(
            (part.workers, part.questions_per_video) != (s.dataset.workers, s.dataset.questions_per_video)
            for _, part in sections(s)
        ),
        "dataset.parts: workers and questions_per_video are those of the whole mix: set dataset.workers and "
        "dataset.questions_per_video",
    ),
    (
        lambda s: s.logger.kind == "tensorboard" and find_spec("tensorboard") is None,
        "logger.kind=tensorboard needs a package that is not installed: pip install tensorboard, or choose logger=csv",
    ),
    (
        lambda s: s.stage.name == "dashboard" and find_spec("wandb_workspaces") is None,
        "stage.name=dashboard needs a package that is not installed: pip install wandb-workspaces",
    ),
    (
        lambda s: s.stage.name == "dashboard" and s.logger.kind != "wandb",
        "stage.name=dashboard shows a W&B project: leave logger.kind={s.logger.kind} out, or choose logger=wandb",
    ),
    (
        lambda s: s.stage.name == "curate" and not isinstance(s.dataset, ScansSettings),
        "stage.name=curate makes questions from annotated scans: choose dataset=scans dataset.root=DIR",
    ),
    (
        lambda s: s.stage.name == "prepare" and not any(isinstance(part, JsonlSettings) for _, part in sections(s)),
        "stage.name=prepare unpacks and indexes files of yours, and dataset=rooms makes its own: "
        "choose dataset=spacer_151k or dataset=jsonl",
    ),
    (
        lambda s: s.stage.name == "evaluate" and not asks_files(s) and not s.benchmarks and not holds_out(s),
        "stage.name=evaluate asks held-out questions, and the data has none: set dataset.heldout to a JSONL file of "
        "them, or choose dataset=rooms",
    ),
    (
        lambda s: s.stage.name == "score" and s.benchmark.name not in names(),
        "stage.name=score reads the questions of a benchmark from its files, and benchmark.name={s.benchmark.name} has "
        "none: choose benchmark=NAME, one of " + ", ".join(names()),
    ),
    (
        lambda s: s.stage.name == "evaluate" and bool(s.benchmarks) and not asked_benchmarks(s),
        "benchmark=all asks benchmarks whose root is set, and none is: set benchmarks.vsi_bench.root=DIR or another",
    ),
    (
        lambda s: s.stage.name == "score" and (s.predictions is None or not isfile(expanduser(s.predictions))),
        "predictions={s.predictions} is not an existing file: set predictions=FILE, which has one "
        '{{"id": …, "prediction": …}} a line',
    ),
    (
        lambda s: s.benchmark.index is not None and not isfile(expanduser(s.benchmark.index)),
        "benchmark.index={s.benchmark.index} is no file: set it to the benchmark's own annotation file, or to null",
    ),
    (
        lambda s: s.model.fresh and not isinstance(s.dataset, RoomsSettings),
        "model.fresh makes a tokenizer from the questions of dataset=rooms: choose that",
    ),
    (
        lambda s: s.model.completion.bonus_min > s.model.completion.bonus_max,
        "model.completion.bonus_min={s.model.completion.bonus_min} exceeds "
        "model.completion.bonus_max={s.model.completion.bonus_max}: swap them",
    ),
    (
        lambda s: trains(s) and True in (s.stage.evaluate_before, s.stage.evaluate_after) and not holds_out(s),
        "the data holds no questions out to evaluate on: set stage.evaluate_before=false stage.evaluate_after=false, "
        "or dataset.heldout to a JSONL file of them",
    ),
    (
        lambda s: s.reward.length is not None and s.reward.length.min_tokens > s.reward.length.max_tokens,
        "reward.length.min_tokens={s.reward.length.min_tokens} exceeds "
        "reward.length.max_tokens={s.reward.length.max_tokens}, so that no completion earns the bonus: "
        "swap them, or set reward.length=null",
    ),
    (
        lambda s: (
            s.reward.length is not None
            and max(s.reward.length.min_tokens, s.reward.length.max_tokens) > s.objective.max_completion_length
        ),
        "reward.length pays for {s.reward.length.min_tokens} to {s.reward.length.max_tokens} tokens, but completions "
        "end at objective.max_completion_length={s.objective.max_completion_length}: raise that, lower the two, "
        "or set reward.length=null",
    ),
    (
        lambda s: s.reward.temporal is not None and s.objective.group_size % 2 == 1,
        "reward.temporal answers half as many shuffled videos as objective.group_size={s.objective.group_size}, "
        "which is odd: make it even, or set reward.temporal=null",
    ),
    (
        lambda s: (s.objective.clip_low is None) != (s.objective.clip_high is None),
        "objective.clip_low and objective.clip_high go together, and one of them is null: set both, or both to null",
    ),
    (
        lambda s: (
            s.objective.updates_per_rollout > 1 and s.objective.clip_low is None and s.objective.clip_high is None
        ),
        "objective.updates_per_rollout={s.objective.updates_per_rollout} learns from completions of an older policy, "
        "which takes a clipped ratio: set objective.clip_low=0.2 objective.clip_high=0.2, "
        "or objective.updates_per_rollout=1",
    ),
    (
        lambda s: (
            s.stage.name == "train" and s.objective.updates_per_rollout > 1 and s.trainer.accumulate_grad_batches > 1
        ),
        "objective.updates_per_rollout={s.objective.updates_per_rollout} takes its steps on one rollout, and "
        "trainer.accumulate_grad_batches={s.trainer.accumulate_grad_batches} would take them on several: set the "
        "latter to 1 and raise objective.prompts_per_rollout, which objective.row_tokens cuts to fit the memory",
    ),
    (
        lambda s: s.model.attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None,
        "model.attn_implementation=flash_attention_2 needs the package flash-attn, which is not installed: "
        "pip install -e '.[cuda]', or choose auto",
    ),
    (
        lambda s: s.model.attn_implementation == "flash_attention_2" and not computes_in_16_bits(s),
        "model.attn_implementation=flash_attention_2 computes in 16 bits only, and "
        "trainer.precision={s.trainer.precision} does not: set trainer.precision=bf16-mixed, or choose auto",
    ),
    (
        lambda s: trains(s) and s.trainer.precision in ("16-mixed", "16"),
        "trainer.precision={s.trainer.precision} scales its losses, which training on trees does not: "
        "choose bf16-mixed",
    ),
    (
        lambda s: (
            s.stage.optimizer is not None
            and s.stage.optimizer.kind == OptimizerKind.adamw_8bit
            and find_spec("torchao") is None
        ),
        "stage.optimizer.kind=adamw_8bit needs the package torchao, which is not installed: "
        "pip install -e '.[adamw8bit]', or choose adamw",
    ),
    (
        lambda s: trains(s) and s.stage.optimizer is None,
        "stage.name={s.stage.name} trains, but stage.optimizer is null: add that section, or choose stage=evaluate",
    ),
    (
        lambda s: (
            trains(s)
            and s.trainer.max_steps == -1
            and (s.trainer.max_epochs is None or s.trainer.max_epochs == -1)
            and s.trainer.max_time is None
            and not s.trainer.fast_dev_run
        ),
        "nothing ends this run: set trainer.max_epochs=1, trainer.max_steps=1000 or trainer.max_time=00:12:00:00",
    ),
    (
        lambda s: s.cluster.strategy == "fsdp" and s.trainer.precision in ("64-true", "64", "16-mixed", "16"),
        "cluster.strategy=fsdp does not compute in trainer.precision={s.trainer.precision}: "
        "choose 32-true or bf16-mixed, or cluster=ddp",
    ),
    (
        lambda s: in_zero(s) and find_spec("deepspeed") is None,
        "cluster.strategy=deepspeed_zero3 needs a package that is not installed: pip install -e '.[deepspeed]', "
        "or choose cluster=fsdp, which spreads out the same",
    ),
    (
        lambda s: in_zero(s) and s.cluster.accelerator not in ("auto", "gpu", "cuda"),
        "cluster.strategy=deepspeed_zero3 trains on CUDA devices, and cluster.accelerator={s.cluster.accelerator} "
        "names others: set cluster.accelerator=cuda, or choose cluster=fsdp",
    ),
    (
        lambda s: in_zero(s) and s.trainer.precision not in ("32-true", "32", "bf16-mixed", "bf16"),
        "cluster.strategy=deepspeed_zero3 does not compute in trainer.precision={s.trainer.precision}: "
        "choose 32-true or bf16-mixed, or cluster=ddp",
    ),
    (
        lambda s: in_zero(s) and s.model.dtype != "float32",
        "cluster.strategy=deepspeed_zero3 spreads weights of float32, and not of model.dtype={s.model.dtype}: "
        "set model.dtype=float32, or choose cluster=fsdp",
    ),
    (
        lambda s: (
            s.cluster.strategy in SHARDED
            and s.stage.optimizer is not None
            and s.stage.optimizer.kind == OptimizerKind.adamw_8bit
        ),
        "stage.optimizer.kind=adamw_8bit under cluster.strategy={s.cluster.strategy} has no checkpoints that can be "
        "read back: set stage.optimizer.kind=adamw, or choose cluster=ddp",
    ),
    (
        lambda s: (
            s.cluster.num_nodes > 1
            and not isinstance(s.cluster, SlurmSettings)
            and s.stage.name != "plan"
            and not {"NODE_RANK", "GROUP_RANK", "SLURM_NNODES"} & environ.keys()
        ),
        "cluster.num_nodes={s.cluster.num_nodes}, and nothing here starts processes on other nodes: choose "
        "cluster=slurm, or call torchrun on each node",
    ),
    (
        lambda s: isinstance(s.cluster, SlurmSettings) and not isinstance(s.cluster.devices, int),
        "cluster.devices={s.cluster.devices} does not say how many processes SLURM has to start: "
        "set cluster.devices to a number",
    ),
    (
        lambda s: isinstance(s.cluster, SlurmSettings) and s.cluster.signal_delay_s + 60 >= 60 * s.cluster.timeout_min,
        "cluster.signal_delay_s={s.cluster.signal_delay_s} leaves nothing of cluster.timeout_min="
        "{s.cluster.timeout_min}, since SLURM may tell a job a minute earlier still: raise the latter or lower the "
        "former",
    ),
    (
        lambda s: (
            trains(s)
            and s.model.lora is None
            and (s.model.dtype in ("bfloat16", "float16") or s.trainer.precision in _NARROW)
        ),
        "model.dtype={s.model.dtype} trainer.precision={s.trainer.precision} would keep the trained weights in "
        "16 bits, where steps of a usual learning rate are rounded away: set model.dtype=float32 "
        "trainer.precision=bf16-mixed, or train adapters (model.lora)",
    ),
    (
        lambda s: s.stage.name == "plan" and (s.stage.plan is None or s.stage.optimizer is None),
        "stage.name=plan needs the sections stage.plan and stage.optimizer: choose stage=plan, which has both",
    ),
    (
        lambda s: s.stage.name == "plan" and (not isinstance(s.cluster.devices, int) or s.cluster.devices < 1),
        "cluster.devices={s.cluster.devices} names no number of GPUs to plan for: set cluster.devices=8",
    ),
    (
        lambda s: (
            s.stage.name == "plan"
            and s.stage.plan is not None
            and s.stage.plan.reserve_gib >= s.stage.plan.gpu_memory_gib
        ),
        "stage.plan.reserve_gib={s.stage.plan.reserve_gib} leaves nothing of "
        "stage.plan.gpu_memory_gib={s.stage.plan.gpu_memory_gib}: lower it",
    ),
    (
        lambda s: s.stage.name == "export" and s.ckpt_path in (None, "last"),
        "stage.name=export takes a checkpoint's file, and ckpt_path={s.ckpt_path} is none: "
        "set ckpt_path=RUN/checkpoints/last.ckpt",
    ),
    (
        lambda s: s.stage.name == "export" and s.model.fresh,
        "stage.name=export makes no untrained weights: set model=tiny model.name_or_path=RUN/untrained, "
        "where the run that began with them left them",
    ),
    (
        lambda s: s.ckpt_path is not None and _no_checkpoint(s.ckpt_path),
        "ckpt_path={s.ckpt_path} is neither 'last' nor an existing checkpoint: set ckpt_path=/path/to/file.ckpt, "
        "or ckpt_path=last for the newest one of output_dir, or ckpt_path=null to start afresh",
    ),
)
