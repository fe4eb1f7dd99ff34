"""What each stage needs, and what it has no use for."""

from __future__ import annotations

from os.path import expanduser, isfile  # unlike Path, never raise: unreadable counts as absent

from spacer.config.choices import BENCHMARKS
from spacer.config.derived import (
    asked_benchmarks,
    holds_out,
    imitated,
    names_benchmarks,
    sections,
    trains,
)
from spacer.config.faults import RUNS_WANTED
from spacer.config.rules.rule import Rule
from spacer.config.settings import (
    JsonlSettings,
    PlanStage,
    ScansSettings,
    Settings,
    SftStage,
)

# training and prepare have rules below
_NO_BENCHMARK = ("generate", "curate", "compare", "report", "dashboard", "export", "plan")


def _takes_checkpoint(s: Settings) -> bool:
    return trains(s) or s.stage.name == "export"


def _no_checkpoint(path: str) -> bool:
    return path != "last" and not isfile(path)


def vision_trains_the_tower(s: Settings) -> str | None:
    if s.stage.name == "vision" and (s.model.lora is not None or s.model.freeze_vision):
        return "stage.name=vision trains the whole vision tower: set model.lora=null model.freeze_vision=false"
    return None


def vision_is_not_sharded(s: Settings) -> str | None:
    if s.stage.name == "vision" and s.cluster.shards:
        return (
            f"stage.name=vision does not spread the model over processes as cluster.strategy={s.cluster.strategy} "
            "does: choose cluster=local or cluster=ddp"
        )
    return None


def dashboard_of_wandb(s: Settings) -> str | None:
    if s.stage.name == "dashboard" and s.logger.kind != "wandb":
        return (
            f"stage.name=dashboard shows a W&B project: leave logger.kind={s.logger.kind} out, or choose logger=wandb"
        )
    return None


def curate_takes_scans(s: Settings) -> str | None:
    if s.stage.name == "curate" and not isinstance(s.dataset, ScansSettings):
        return "stage.name=curate makes questions from annotated scans: choose dataset=scans dataset.root=DIR"
    return None


def imitates_what_is_named(s: Settings) -> str | None:
    if imitated(s) and s.dataset.generated is None:
        return (
            "stage.targets=generated imitates completions, and none are named: set "
            "dataset.generated=RUN/generated.jsonl, which stage=generate writes"
        )
    if imitated(s) and isinstance(s.stage, SftStage) and s.stage.guesses is not None:
        return "stage.guesses stand in place of worked completions: leave them out, or set stage.targets=worked"
    if isinstance(s.stage, SftStage) and s.stage.best > 1 and not imitated(s):
        return (
            f"stage.best={s.stage.best} is of generated completions, and worked ones are imitated: set "
            "stage.targets=generated, or leave it out"
        )
    return None


def prepare_takes_files(s: Settings) -> str | None:
    if s.stage.name == "prepare" and not any(isinstance(part, JsonlSettings) for _, part in sections(s)):
        return (
            "stage.name=prepare unpacks and indexes files of yours, and dataset=rooms makes its own: "
            "choose dataset=spacer_151k or dataset=jsonl"
        )
    return None


def evaluate_has_questions(s: Settings) -> str | None:
    if s.stage.name == "evaluate" and not names_benchmarks(s) and not holds_out(s):
        return (
            "stage.name=evaluate asks held-out questions, and the data has none: set dataset.heldout to a JSONL file "
            "of them, choose dataset=rooms, or ask a benchmark: benchmark=vsi_bench benchmark.root=DIR"
        )
    return None


def score_has_a_benchmark(s: Settings) -> str | None:
    if s.stage.name == "score" and not names_benchmarks(s):
        return (
            "stage.name=score reads the questions of a benchmark from its files, and none is chosen: "
            "choose benchmark=NAME, one of " + ", ".join(BENCHMARKS)
        )
    return None


def benchmark_is_known(s: Settings) -> str | None:
    if s.benchmark is not None and s.benchmark.name not in BENCHMARKS:
        return f"benchmark.name={s.benchmark.name} is no benchmark: choose benchmark=NAME, one of " + ", ".join(
            BENCHMARKS
        )
    return None


def training_asks_no_benchmark(s: Settings) -> str | None:
    if (trains(s) or s.stage.name == "prepare") and s.benchmark is not None:
        return (
            f"stage.name={s.stage.name} asks no benchmark: to keep the videos of {s.benchmark.name} out of training, "
            f"set dataset.guard.{s.benchmark.name}=DIR instead of benchmark={s.benchmark.name}; to ask its questions, "
            "take stage=evaluate"
        )
    return None


def training_asks_no_benchmarks(s: Settings) -> str | None:
    if (trains(s) or s.stage.name == "prepare") and bool(s.benchmarks):
        return (
            f"stage.name={s.stage.name} asks no benchmarks: leave benchmark=all to stage=evaluate; to keep a "
            "benchmark's videos out of training, set dataset.guard.vsi_bench=DIR"
        )
    return None


def all_benchmarks_have_no_root(s: Settings) -> str | None:
    if s.stage.name == "evaluate" and bool(s.benchmarks) and not asked_benchmarks(s):
        return (
            "benchmark=all asks benchmarks whose root is set, and none is: set benchmarks.vsi_bench.root=DIR or another"
        )
    return None


def benchmark_is_asked_or_scored(s: Settings) -> str | None:
    if names_benchmarks(s) and s.stage.name in _NO_BENCHMARK:
        return (
            f"benchmark is for stage=evaluate, which asks its questions, and stage=score: leave it out of "
            f"stage={s.stage.name}"
        )
    return None


def score_has_one_benchmark(s: Settings) -> str | None:
    if s.stage.name == "score" and bool(s.benchmarks):
        return "stage=score scores a file of one benchmark: choose benchmark=NAME, and leave several to stage=evaluate"
    return None


def run_is_evaluated(s: Settings) -> str | None:
    if s.run is not None and s.stage.name != "evaluate":
        others = "runs=[FOLDER,…]" if s.stage.name in RUNS_WANTED else "stage=evaluate"
        return f"run={s.run} is for stage=evaluate, which takes a run's model and settings: choose {others}"
    return None


def predictions_are_scored(s: Settings) -> str | None:
    if s.predictions is not None and s.stage.name != "score":
        return (
            f"predictions={s.predictions} is for stage=score, and stage={s.stage.name} reads no answers from a file: "
            "choose stage=score, or leave it out"
        )
    return None


def checkpoint_is_taken(s: Settings) -> str | None:
    # `last` is allowed everywhere, as cluster=slurm sets it: it is the newest one of this run, if there is any
    if s.ckpt_path not in (None, "last") and not _takes_checkpoint(s):
        return (
            f"ckpt_path={s.ckpt_path} is for stages that train and for stage=export, and stage={s.stage.name} takes no "
            "checkpoint: export it as a model with stage=export first, and set model.name_or_path=RUN/model"
        )
    return None


def predictions_are_there(s: Settings) -> str | None:
    if s.stage.name == "score" and (s.predictions is None or not isfile(expanduser(s.predictions))):
        return (
            f"predictions={s.predictions} is not an existing file: set predictions=FILE, which has one "
            f'{{"id": …, "prediction": …}} a line'
        )
    return None


def plan_for_a_number_of_gpus(s: Settings) -> str | None:
    if s.stage.name == "plan" and (not isinstance(s.cluster.devices, int) or s.cluster.devices < 1):
        return f"cluster.devices={s.cluster.devices} names no number of GPUs to plan for: set cluster.devices=8"
    return None


def plan_leaves_memory(s: Settings) -> str | None:
    if isinstance(s.stage, PlanStage) and s.stage.plan.reserve_gib >= s.stage.plan.gpu_memory_gib:
        return (
            f"stage.plan.reserve_gib={s.stage.plan.reserve_gib} leaves nothing of "
            f"stage.plan.gpu_memory_gib={s.stage.plan.gpu_memory_gib}: lower it"
        )
    return None


def export_takes_a_checkpoint(s: Settings) -> str | None:
    if s.stage.name == "export" and s.ckpt_path in (None, "last"):
        return (
            f"stage.name=export takes a checkpoint's file, and ckpt_path={s.ckpt_path} is none: "
            "set ckpt_path=RUN/checkpoints/last.ckpt"
        )
    return None


def export_of_trained_weights(s: Settings) -> str | None:
    if s.stage.name == "export" and s.model.fresh:
        return (
            "stage.name=export makes no untrained weights: set model=tiny model.name_or_path=RUN/untrained, "
            "where the run that began with them left them"
        )
    return None


def overwrite_or_go_on(s: Settings) -> str | None:
    if s.overwrite and s.ckpt_path == "last":
        return "overwrite=true starts over and ckpt_path=last resumes: choose one of the two"
    return None


def checkpoint_is_there(s: Settings) -> str | None:
    if s.ckpt_path is not None and _takes_checkpoint(s) and _no_checkpoint(s.ckpt_path):
        return (
            f"ckpt_path={s.ckpt_path} is neither 'last' nor an existing checkpoint: set ckpt_path=/path/to/file.ckpt, "
            "or ckpt_path=last for the newest one of output_dir, or ckpt_path=null to start over"
        )
    return None


RULES: tuple[Rule, ...] = (
    vision_trains_the_tower,
    vision_is_not_sharded,
    dashboard_of_wandb,
    curate_takes_scans,
    imitates_what_is_named,
    prepare_takes_files,
    evaluate_has_questions,
    score_has_a_benchmark,
    benchmark_is_known,
    training_asks_no_benchmark,
    training_asks_no_benchmarks,
    all_benchmarks_have_no_root,
    benchmark_is_asked_or_scored,
    score_has_one_benchmark,
    run_is_evaluated,
    predictions_are_scored,
    checkpoint_is_taken,
    predictions_are_there,
    plan_for_a_number_of_gpus,
    plan_leaves_memory,
    export_takes_a_checkpoint,
    export_of_trained_weights,
    overwrite_or_go_on,
    checkpoint_is_there,
)
