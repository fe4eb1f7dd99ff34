"""Rules about how held-out questions are asked, while a run trains too."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from spacer.config.choices import Control
from spacer.config.derived import holds_out, names_benchmarks, sections, trains
from spacer.config.rules.rule import Rule
from spacer.config.settings import EvaluationSettings, LayoutsSettings, Settings

# what the held-out questions measure, besides answer/TYPE and what a run's own rewards add
METRICS = (
    *("reward/total", "reward/answer", "reward/map", "reward/format", "reward/length", "reward/temporal"),
    *("map/quality", "map/drawn", "completion/tokens"),
)
_WHILE_TRAINING = ("every_n_steps", "subset", "metric", "keep_best", "patience")
# controls that change a question's video or images
OF_MEDIA = (Control.other_video, Control.grey, Control.none)


def measured(s: Settings) -> tuple[str, ...]:
    """The metrics of the held-out questions, but for those by type."""
    absent = [f"reward/{name}" for name in ("map", "format") if not getattr(s.reward, name)]
    published = (metric for metric in METRICS if metric not in absent)
    penalty = () if s.reward.overlong is None else ("reward/overlong",)
    return (*published, *penalty, *(f"reward/{reward.function}" for reward in s.reward.functions))


def metric_is_measured(s: Settings) -> str | None:
    """Types of questions are known with the data alone, which are checked when they are there."""
    metric = s.evaluation.metric
    if not trains(s) or metric in measured(s) or (metric.startswith("answer/") and metric != "answer/"):
        return None
    near = difflib.get_close_matches(metric, measured(s), 1)
    meant = f", perhaps {near[0]}" if near else ""
    return (
        f"evaluation.metric={metric} is not measured by the held-out questions: choose one of "
        f"{', '.join(measured(s))} or answer/TYPE, by a type of question{meant}"
    )


def evaluation_while_training_needs_training(s: Settings) -> str | None:
    if trains(s) or s.stage.name == "plan":  # which plans a training
        return None
    usual = EvaluationSettings()
    changed = [name for name in _WHILE_TRAINING if getattr(s.evaluation, name) != getattr(usual, name)]
    if not changed:
        return None
    named = " ".join(f"evaluation.{name}={getattr(s.evaluation, name)}" for name in changed)
    return (
        f"{named}: of evaluations while a run trains, and stage.name={s.stage.name} trains nothing: leave it out, or "
        "choose stage=train or stage=sft"
    )


def controls_are_of_media(s: Settings) -> str | None:
    controls = [control for control in s.evaluation.controls or () if control in OF_MEDIA]
    asks_heldout = s.stage.name in ("train", "sft") or (s.stage.name == "evaluate" and not names_benchmarks(s))
    if asks_heldout and controls and all(isinstance(dataset, LayoutsSettings) for _, dataset in sections(s)):
        return text_has_no_media(controls)
    return None


def text_has_no_media(controls: Sequence[Control]) -> str:
    """The message about controls that change a question's media, where all questions are text alone."""
    return (
        f"evaluation.controls: {', '.join(controls)} change a question's video or images, and the held-out questions "
        "are text alone: leave them out; prior is for text too"
    )


def evaluation_during_training_has_questions(s: Settings) -> str | None:
    if not trains(s) or not s.evaluation.every_n_steps:
        return None
    if s.stage.name == "vision":
        return (
            f"evaluation.every_n_steps={s.evaluation.every_n_steps} asks questions, and stage.name=vision trains the "
            "vision tower alone, which answers none: set evaluation.every_n_steps=0"
        )
    if not holds_out(s):
        return (
            f"evaluation.every_n_steps={s.evaluation.every_n_steps} asks held-out questions, and the data has none: "
            "set dataset.heldout to a JSONL file of them, or evaluation.every_n_steps=0"
        )
    return None


def early_stopping_goes_by_evaluations(s: Settings) -> str | None:
    if trains(s) and s.evaluation.patience is not None and not s.evaluation.every_n_steps:
        return (
            f"evaluation.patience={s.evaluation.patience} counts evaluations during training, and "
            "evaluation.every_n_steps=0 makes none: set evaluation.every_n_steps=20, or evaluation.patience=null"
        )
    return None


RULES: tuple[Rule, ...] = (
    metric_is_measured,
    evaluation_while_training_needs_training,
    controls_are_of_media,
    evaluation_during_training_has_questions,
    early_stopping_goes_by_evaluations,
)
