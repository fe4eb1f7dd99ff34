"""Readable names of metrics, and the sections that group them in tables and figures."""

from __future__ import annotations

QUESTION_TYPES = {
    "object_counting": "object count",
    "object_abs_distance": "absolute distance",
    "object_size_estimation": "object size",
    "room_size_estimation": "room size",
    "object_rel_distance": "relative distance",
    "object_rel_direction_easy": "rel. direction, easy",
    "object_rel_direction_medium": "rel. direction, medium",
    "object_rel_direction_hard": "rel. direction, hard",
    "obj_appearance_order": "appearance order",
    "route_planning": "route planning",
}
STEP_AXIS = "train/prompts_seen"  # the x axis of W&B curves
METRICS = {
    "reward/total": "total",
    "reward/answer": "answer",
    "reward/map": "map, where it counts",
    "reward/format": "format",
    "reward/length": "length bonus",
    "reward/temporal": "temporal bonus",
    "reward/overlong": "penalty for length",
    "map/quality": "quality of drawn maps",
    "map/drawn": "completions with a map",
    "completion/tokens": "tokens a completion",
    "answer/spatial": "spatial types together",
    **{f"answer/{kind}": name for kind, name in QUESTION_TYPES.items()},
}
CURVES = {  # what is logged of training steps besides the terms of the reward
    "rollout/map_drawn": "completions with a map",
    "rollout/map_quality": "quality of drawn maps",
    "rollout/length": "tokens a completion",
    "rollout/length_min": "tokens of the shortest completion",
    "rollout/length_max": "tokens of the longest completion",
    "rollout/truncated": "completions that never ended",
    "rollout/entropy": "entropy, nats a token",
    "rollout/reward_std": "std of the reward within groups",
    "rollout/pass_at_group": "groups with a right answer",
    "rollout/groups": "groups sampled",
    "rollout/filled": "groups that teach, a prompt of the step",
    "rollout/groups_all_right": "groups all right",
    "rollout/groups_all_wrong": "groups all wrong",
    "rollout/groups_teaching": "groups that teach",
    "rollout/groups_zero_variance": "groups without an advantage",
    "train/kl": "KL to the reference, nats a token",
    "train/clip_fraction": "clipped tokens",
    "train/clip_low_fraction": "tokens clipped at the lower bound",
    "train/clip_high_fraction": "tokens clipped at the upper bound",
    "train/ratio_mean": "importance ratio",
    "train/kept_share": "completions that count",
    "train/sampling_drift": "drift from sampling, nats a token",
    "speed/step_s": "seconds a step",
    "speed/rollout_s": "seconds of sampling",
    "speed/train_s": "seconds of the update",
    "speed/wait_s": "seconds of waiting for data",
    "speed/tokens_per_s": "tokens a second",
    "speed/prompts_per_s": "prompts a second",
    "speed/memory_gb": "peak memory, GB",
}
CONTROLS = {  # what is shown in place of the video, by the control's name, from the one nearest to it on
    "other_video": "another scene's video",
    "grey": "grey frames",
    "none": "the text alone",
    "prior": "priors of the training split",
}
SECTIONS = {
    "reward": "Reward",
    "map": "Map",
    "answer": "Answer accuracy",
    "completion": "Completion",
    "other": "Other",
}


def section_of(metric: str) -> str:
    """The key in `SECTIONS` of a metric such as `reward/total`."""
    prefix = metric.partition("/")[0]
    return prefix if prefix in SECTIONS else "other"


def task_name(metric: str) -> str:
    """Readable name of a benchmark's metric.

    >>> task_name("overall"), task_name("task/object_counting"), task_name("debiased/task/S2E")
    ('overall', 'object count', 'debiased/S2E')
    """
    parts = (part for part in metric.split("/") if part != "task")
    return "/".join(QUESTION_TYPES.get(part, part.replace("_", " ")) for part in parts)


def label_of(metric: str) -> str:
    """Readable name of a metric; an unknown question type or reward goes by its own name, any other metric by its key.

    >>> label_of("answer/obj_appearance_order"), label_of("answer/new_kind"), label_of("rollout/std_length")
    ('appearance order', 'new kind', 'std of length bonus')
    """
    if metric in METRICS:
        return METRICS[metric]
    if metric.startswith("eval/during/"):
        return label_of(metric.removeprefix("eval/during/"))
    if metric in CURVES:
        return CURVES[metric]
    if metric.startswith("rollout/std_"):
        return f"std of {label_of(metric.replace('rollout/std_', 'reward/'))}"
    kind, _, name = metric.partition("/")
    return name.replace("_", " ") if kind in ("answer", "reward") else metric
