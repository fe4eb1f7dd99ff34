"""Rules about rewards, the objective and the optimiser's steps."""

from __future__ import annotations

import math

from spacer.config.choices import Shown, Surrogate
from spacer.config.derived import sections, trains
from spacer.config.rules.rule import Rule
from spacer.config.settings import Settings


def bonus_range_of_the_model(s: Settings) -> str | None:
    if s.model.completion.bonus_min > s.model.completion.bonus_max:
        return (
            f"model.completion.bonus_min={s.model.completion.bonus_min} exceeds "
            f"model.completion.bonus_max={s.model.completion.bonus_max}: swap them"
        )
    return None


def range_of_the_length_bonus(s: Settings) -> str | None:
    if s.reward.length is not None and s.reward.length.min_tokens > s.reward.length.max_tokens:
        return (
            f"reward.length.min_tokens={s.reward.length.min_tokens} exceeds "
            f"reward.length.max_tokens={s.reward.length.max_tokens}, so that no completion earns the bonus: "
            "swap them, or set reward.length=null"
        )
    return None


def length_bonus_within_completions(s: Settings) -> str | None:
    if (
        s.reward.length is not None
        and max(s.reward.length.min_tokens, s.reward.length.max_tokens) > s.objective.max_completion_length
    ):
        return (
            f"reward.length pays for {s.reward.length.min_tokens} to {s.reward.length.max_tokens} tokens, but "
            f"completions end at objective.max_completion_length={s.objective.max_completion_length}: raise that, "
            "lower the two, or set reward.length=null"
        )
    return None


def temporal_bonus_takes_videos(s: Settings) -> str | None:
    if s.reward.temporal is not None and any(d.video.shown != Shown.video for _, d in sections(s)):
        return (
            "reward.temporal shuffles the frames of a video, and dataset.video.shown=pictures shows single images: set "
            "it to video, or reward.temporal=null"
        )
    return None


def temporal_bonus_halves_groups(s: Settings) -> str | None:
    if s.reward.temporal is not None and s.objective.group_size % 2 == 1:
        return (
            f"reward.temporal answers half as many shuffled videos as objective.group_size={s.objective.group_size}, "
            "which is odd: make it even, or set reward.temporal=null"
        )
    return None


def clip_bounds_together(s: Settings) -> str | None:
    one_sided = (s.objective.clip_low is None) != (s.objective.clip_high is None)
    if s.objective.surrogate == Surrogate.ppo and one_sided:
        return (
            "objective.clip_low and objective.clip_high go together, and one of them is null: set both, or both to null"
        )
    return None


def reused_rollouts_are_clipped(s: Settings) -> str | None:
    clipped = s.objective.clip_low is not None or s.objective.clip_high is not None
    several = _several_steps(s)
    if several is not None and s.objective.surrogate != Surrogate.sapo and not clipped:
        setting, value = several
        return (
            f"{setting}={value} learns from completions of an older policy, which takes a clipped ratio: set "
            f"objective.clip_low=0.2 objective.clip_high=0.2, or {setting}=1"
        )
    return None


def reused_rollouts_accumulate_nothing(s: Settings) -> str | None:
    several = _several_steps(s)
    if s.stage.name == "train" and several is not None and s.trainer.accumulate_grad_batches > 1:
        setting, value = several
        return (
            f"{setting}={value} takes its steps on one rollout, and "
            f"trainer.accumulate_grad_batches={s.trainer.accumulate_grad_batches} would take them on several: set the "
            "latter to 1 and raise objective.prompts_per_rollout, which objective.row_tokens cuts to fit the memory"
        )
    return None


def dynamic_sampling_drops_groups(s: Settings) -> str | None:
    if s.objective.dynamic_sampling is not None and not s.objective.drop_zero_variance:
        return (
            f"objective.dynamic_sampling={s.objective.dynamic_sampling} replaces groups of equal rewards, which "
            "objective.drop_zero_variance=false counts in the loss: set it to true, as objective=dapo does"
        )
    return None


def dynamic_sampling_reuses_no_rollout(s: Settings) -> str | None:
    several = _several_steps(s)
    if s.objective.dynamic_sampling is not None and several is not None:
        setting, value = several
        return (
            f"objective.dynamic_sampling={s.objective.dynamic_sampling} gathers rollouts for one step, and "
            f"{setting}={value} takes several on each: set the latter to 1, or objective.dynamic_sampling=null"
        )
    return None


def rollout_parts_are_even(s: Settings) -> str | None:
    prompts, parts = s.objective.prompts_per_rollout, s.objective.rollout_parts
    if prompts % parts:
        return (
            f"objective.rollout_parts={parts} does not divide objective.prompts_per_rollout={prompts}, and parts "
            f"are equal: set objective.prompts_per_rollout={math.ceil(prompts / parts) * parts}"
        )
    return None


def _several_steps(s: Settings) -> tuple[str, int] | None:
    """The setting by which a rollout makes several optimizer steps, with its value."""
    for name in ("rollout_parts", "updates_per_rollout"):
        if (value := getattr(s.objective, name)) > 1:
            return f"objective.{name}", value
    return None


def dynamic_sampling_counts_steps(s: Settings) -> str | None:
    if s.stage.name == "train" and s.objective.dynamic_sampling is not None and s.trainer.max_steps == -1:
        return (
            f"objective.dynamic_sampling={s.objective.dynamic_sampling} makes an unknown number of steps in an epoch, "
            "and the learning rate's schedule has to know it: set trainer.max_steps=1000, and trainer.max_epochs=-1 to "
            "make them all"
        )
    return None


def penalty_within_completions(s: Settings) -> str | None:
    if s.reward.overlong is not None and s.reward.overlong.max_tokens > s.objective.max_completion_length:
        return (
            f"reward.overlong.max_tokens={s.reward.overlong.max_tokens} is never reached: completions end at "
            f"objective.max_completion_length={s.objective.max_completion_length}: lower the former to that"
        )
    return None


def training_ends(s: Settings) -> str | None:
    if (
        trains(s)
        and s.trainer.max_steps == -1
        and (s.trainer.max_epochs is None or s.trainer.max_epochs == -1)
        and s.trainer.max_time is None
        and not s.trainer.fast_dev_run
    ):
        return "nothing ends this run: set trainer.max_epochs=1, trainer.max_steps=1000 or trainer.max_time=00:12:00:00"
    return None


RULES: tuple[Rule, ...] = (
    bonus_range_of_the_model,
    range_of_the_length_bonus,
    length_bonus_within_completions,
    temporal_bonus_takes_videos,
    temporal_bonus_halves_groups,
    clip_bounds_together,
    reused_rollouts_are_clipped,
    reused_rollouts_accumulate_nothing,
    dynamic_sampling_drops_groups,
    dynamic_sampling_reuses_no_rollout,
    rollout_parts_are_even,
    dynamic_sampling_counts_steps,
    penalty_within_completions,
    training_ends,
)
