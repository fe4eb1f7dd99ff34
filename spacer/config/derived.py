"""Values derived from settings alone: what a run reads, trains on and asks."""

from __future__ import annotations

import re

from spacer.config.choices import Control, Targets
from spacer.config.settings import (
    BenchmarkSettings,
    DatasetSettings,
    LayoutsSettings,
    MixSettings,
    OptimizerSettings,
    PlanStage,
    RenderedSettings,
    RoomsSettings,
    Settings,
    SftStage,
    TrainingStage,
    TrainStage,
)

FEW_ROOMS = 4  # fewer may leave questions about a single room, and no other room's video
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name


def computes_in_16_bits(s: Settings) -> bool:
    """Whether matrix products are computed in 16 bits, which flash-attn needs."""
    if s.trainer.precision in ("32-true", "32", "64-true", "64"):
        return s.trainer.precision in ("32-true", "32") and s.model.dtype in ("bfloat16", "float16")
    return True


def trains(s: Settings) -> bool:
    """Whether the stage trains weights."""
    return s.stage.name in ("train", "sft", "vision")


def optimizer_of(s: Settings) -> OptimizerSettings | None:
    """The optimizer of a stage that trains, or plans training."""
    return s.stage.optimizer if isinstance(s.stage, TrainingStage | PlanStage) else None


def evaluates_heldout(s: Settings) -> tuple[bool | None, bool | None]:
    """Whether a training run asks the held-out questions before and after it; None: if there are any."""
    if isinstance(s.stage, TrainStage | SftStage):
        return s.stage.evaluate_before, s.stage.evaluate_after
    return False, False


def names_benchmarks(s: Settings) -> bool:
    """Whether a benchmark, or several, are among the settings."""
    return s.benchmark is not None or bool(s.benchmarks)


def controls_of(s: Settings) -> tuple[Control, ...]:
    """The controls under which a run asks its questions again: those that are named, and for held-out questions about
    rendered rooms, which cost little, another room's video and the priors of the training split."""
    if s.evaluation.controls is not None:
        return s.evaluation.controls
    if isinstance(s.dataset, RoomsSettings) and s.dataset.heldout_scenes >= FEW_ROOMS and not names_benchmarks(s):
        return (Control.other_video, Control.prior)
    return ()


def in_zero(s: Settings) -> bool:
    """Whether DeepSpeed's ZeRO-3 trains them."""
    return trains(s) and s.cluster.strategy == "deepspeed_zero3"


def sections(s: Settings) -> list[tuple[str, DatasetSettings]]:
    """The data sets of a run with the paths of their settings: one, or the parts of a mix."""
    if isinstance(s.dataset, MixSettings):
        return [(f"dataset.parts.{name}", part) for name, part in s.dataset.parts.items()]
    return [("dataset", s.dataset)]


def holds_out(s: Settings) -> bool:
    """Whether the data include held-out questions."""
    return any(
        isinstance(d, RenderedSettings | LayoutsSettings) or getattr(d, "heldout", None) is not None
        for _, d in sections(s)
    )


def imitated(s: Settings) -> int:
    """How many generated completions of a question are imitated; 0 if worked ones are, or none."""
    return s.stage.best if isinstance(s.stage, SftStage) and s.stage.targets == Targets.generated else 0


def heldout_name(s: Settings) -> str:
    """The name of the held-out questions in tables and logs: never a benchmark's, which they are not."""
    return "rooms" if all(isinstance(dataset, RenderedSettings) for _, dataset in sections(s)) else "heldout"


def comes_to_score(s: Settings) -> bool:
    """Whether a training run evaluates held-out questions afterwards, the score by which a sweep compares jobs."""
    return not trains(s) or (holds_out(s) and evaluates_heldout(s)[1] is not False)


def asked_benchmarks(s: Settings) -> list[tuple[str, BenchmarkSettings]]:
    """The benchmarks that a run evaluates or scores, with the paths of their settings."""
    if s.stage.name == "evaluate" and s.benchmarks:
        return [(f"benchmarks.{name}", part) for name, part in s.benchmarks.items() if part.root is not None]
    return [("benchmark", s.benchmark)] if s.stage.name in ("evaluate", "score") and s.benchmark is not None else []
