"""Evaluates a model behind a server on benchmarks; no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spacer.config.choices import Control
from spacer.config.settings import Settings
from spacer.data.samples import Sample
from spacer.evaluation.asked import media_settings
from spacer.evaluation.conditions import endpoint_conditions
from spacer.evaluation.endpoint import Asking, ask_all
from spacer.evaluation.messages import Messages
from spacer.stages.outside import Answered, Pathway, Refused, evaluate_outside


def evaluate_endpoint(settings: Settings, folder: Path) -> float:
    """Asks the benchmark, or each that has a root. Returns the (mean) official overall score."""
    return evaluate_outside(settings, folder, Pathway(_conditions, _ask))


def _conditions(settings: Settings) -> Mapping[str, Any]:
    assert settings.benchmark is not None
    return endpoint_conditions(settings.model, settings.benchmark, settings.seed)


def _ask(
    settings: Settings, left: Sequence[Sample], control: Control | None, answered: Answered, refused: Refused
) -> None:
    asked, model = settings.benchmark, settings.model
    assert asked is not None and model.endpoint is not None
    messages = Messages(media_settings(asked), model.endpoint.video, control)
    asking = Asking(messages, lambda item, answer, usage: answered(item, answer, usage.prompt_tokens), refused)
    ask_all(left, asking, model, asked, settings.seed)
