"""What values may be, each by itself. `spacer.config` applies it; `spacer.rules` says what must not be combined."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# valid values of stage.name
STAGES = ("train", "sft", "evaluate", "score", "compare", "report", "dashboard", "export", "prepare", "curate", "plan")
NEED_NO_MODEL = ("score", "compare", "report", "dashboard", "prepare", "curate", "plan")  # of those
NEED_NO_DATA = ("compare", "report", "dashboard", "export", "plan")


@dataclass(frozen=True)
class Check:
    """A test of a value, and how what passes it is called ("must be …")."""

    passes: Callable[[Any], object]  # truthy when it does
    words: str
    names: tuple[str, ...] = ()  # the valid values, where they can be listed


def _one_of(*names: str) -> Check:
    return Check(names.__contains__, "one of " + ", ".join(names), names)


# check → the settings it holds for; null passes where the annotation allows it, a list passes when each element does
_CHECKED: tuple[tuple[Check, str], ...] = (
    (
        Check(lambda n: n >= 1, "at least 1"),
        "model.prompts_per_rollout model.row_tokens model.lora.rank model.lora.alpha model.completion.max_tokens "
        "model.completion.bonus_max dataset.max_prompt_length dataset.train_scenes dataset.heldout_scenes "
        "dataset.questions_per_video dataset.archive_parts dataset.questions_per_type "
        "dataset.questions_per_scene dataset.heldout_questions_per_scene dataset.min_objects dataset.video_fps "
        "reward.length.max_tokens objective.prompts_per_rollout objective.row_tokens objective.max_completion_length "
        "objective.updates_per_rollout benchmark.limit benchmark.max_new_tokens benchmark.batch_size "
        "benchmark.batch_tokens benchmark.samples benchmark.max_prompt_length "
        "benchmark.resamples trainer.accumulate_grad_batches trainer.log_every_n_steps "
        "trainer.checkpoint_every_n_steps stage.batch_size cluster.cpus_per_task cluster.mem_gb cluster.timeout_min "
        "cluster.array_parallelism cluster.num_nodes report.max_megabytes stage.plan.prompt_tokens "
        "stage.plan.text_tokens stage.plan.completion_tokens stage.plan.questions",
    ),
    (
        Check(lambda x: x >= 0, "0 or more"),
        "model.completion.bonus_min dataset.seed reward.length.bonus reward.length.min_tokens "
        "reward.temporal.bonus reward.temporal.margin objective.beta objective.advantage_eps objective.clip_high "
        "benchmark.temperature trainer.gradient_clip_val logger.rollouts_every_n_steps logger.rollout_prompts "
        "logger.heldout_prompts logger.upload_mb stage.optimizer.weight_decay stage.optimizer.warmup_steps "
        "stage.guess_after cluster.gpus_per_node cluster.max_timeouts report.strips report.video_megabytes "
        "stage.plan.reserve_gib",
    ),
    (
        Check(lambda x: 0 <= x < 1, "at least 0 and less than 1"),
        "model.learning_rate model.lora.dropout stage.optimizer.learning_rate stage.optimizer.betas",
    ),
    (
        Check(lambda x: 0 <= x <= 1, "between 0 and 1"),
        "reward.map_min_answer reward.length.min_answer reward.temporal.min_answer objective.clip_low "
        "stage.guess_share benchmark.max_missing",
    ),
    (
        Check(lambda x: 0 < x <= 1, "greater than 0 and at most 1"),
        "objective.top_p benchmark.top_p dataset.max_answer_share stage.plan.utilisation",
    ),
    (
        Check(lambda x: x > 0, "greater than 0"),
        "dataset.video.fps benchmark.video.fps dataset.seconds objective.kl_clamp stage.plan.gpu_memory_gib "
        "stage.plan.flops_per_s stage.plan.bytes_per_s",
    ),
    (Check(lambda x: x > 0, "greater than 0: greedy completions would all be equal"), "objective.temperature"),
    (Check(lambda n: n >= 2, "at least 2, to compare a group's completions, such as 8"), "objective.group_size"),
    (
        Check(lambda n: n >= 2, "at least 2: the vision tower joins frames in pairs"),
        "dataset.video.max_frames benchmark.video.max_frames",
    ),
    (Check(lambda n: n >= 2 and n % 2 == 0, "even and at least 2: frames are read in pairs"), "report.frames"),
    (Check(lambda n: 16 <= n <= 1080, "between 16 and 1080 pixels"), "report.frame_height"),
    (
        Check(lambda n: n >= 28, "at least 28, the side of a vision token"),
        "dataset.size_px dataset.video.max_side benchmark.video.max_side",
    ),
    (
        Check(lambda n: n >= 784, "at least 784 (28 * 28)"),
        "dataset.video.max_pixels dataset.image_max_pixels benchmark.video.max_pixels benchmark.image_max_pixels",
    ),
    (
        Check(lambda n: n >= 1, "at least 1: videos are never decoded in the main process"),
        "dataset.workers benchmark.workers",
    ),
    (
        Check(lambda n: n >= 30, "at least 30, in which a step ends and a checkpoint is written"),
        "cluster.signal_delay_s",
    ),
    (Check(lambda n: 1 <= n <= 8, "between 1 and 8: more would crowd a small room"), "dataset.max_objects"),
    (Check(lambda n: 0 <= n < 2**31, "between 0 and 2**31 - 1"), "seed"),
    (Check(lambda n: n == -1 or n >= 1, "at least 1, or -1 for no limit"), "trainer.max_steps trainer.max_epochs"),
    (Check(re.compile(r"\d+:\d\d:\d\d:\d\d").fullmatch, "like 00:12:00:00, from days to seconds"), "trainer.max_time"),
    (
        Check(
            lambda d: re.fullmatch(r"auto|[1-9]\d*|\d+(,\d+)+|\d+,", str(d)),
            "how many, auto for all, or the devices' numbers, such as '0,2'",
        ),
        "cluster.devices",
    ),
    (_one_of("auto", "ddp", "fsdp", "deepspeed_zero3"), "cluster.strategy"),
    (_one_of("auto", "cpu", "gpu", "cuda", "mps"), "cluster.accelerator"),
    (_one_of(*STAGES), "stage.name"),
    (_one_of("wandb", "tensorboard", "csv", "none"), "logger.kind"),
    (_one_of("auto", "sdpa", "flex_attention", "flash_attention_2"), "model.attn_implementation"),
    (_one_of("bfloat16", "float16", "float32", "float64"), "model.dtype stage.save_dtype"),
    (
        _one_of("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true", "32", "bf16", "16", "64"),
        "trainer.precision",
    ),
)
CHECKS: dict[str, Check] = {path: check for check, paths in _CHECKED for path in paths.split()}
