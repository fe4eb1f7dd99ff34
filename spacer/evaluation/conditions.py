"""The conditions under which answers were produced, and the check that all answers of a file share them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spacer
from spacer.config.derived import sections
from spacer.config.settings import (
    AskingSettings,
    BenchmarkSettings,
    DatasetSettings,
    GenerateStage,
    ModelSettings,
    Settings,
)
from spacer.errors import UserError
from spacer.files import write_text
from spacer.models.digests import model_digest

LIBRARIES = ("torch", "transformers", "av", "pillow")
# benchmark settings that change no answer
FREE = ("limit", "tasks", "batch_size", "batch_tokens", "workers", "root", "max_missing")

log = logging.getLogger(__name__)


def conditions(
    model: ModelSettings, benchmark: BenchmarkSettings, seed: int, precision: str, attention: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that a benchmark's answers depend on, as JSON: model, prompts, frames, decoding, libraries; not batch
    sizes."""
    asked = asdict(benchmark)
    for free in FREE:
        asked.pop(free)
    return _answering(model, seed, precision, attention) | {"benchmark": asked}


def endpoint_conditions(model: ModelSettings, benchmark: BenchmarkSettings, seed: int) -> dict[str, Any]:
    """The same for a model behind a server, of which the name alone is known; not where the server is."""
    assert model.endpoint is not None
    asked = asdict(benchmark)
    for free in FREE:
        asked.pop(free)
    return {
        "model": {"name_or_path": model.name, "pathway": f"endpoint, videos as {model.endpoint.video}"},
        "seed": seed,
        "libraries": {"spacer": spacer.__version__, **{name: version(name) for name in ("openai", "av", "pillow")}},
        "benchmark": asked,
    }


@dataclass(frozen=True)
class Protocol:
    """How a benchmark was asked: the preset's name, and the digest of all that it and other settings came to."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {self.digest}"


def protocol_of(benchmark: BenchmarkSettings, model: ModelSettings) -> Protocol:
    """The protocol of answers: frames and how they are shown, prompts and decoding, of any benchmark and model."""
    asked = asdict(benchmark)
    for other in (*FREE, "name", "protocol"):
        asked.pop(other)
    if model.endpoint is not None:
        asked["video"]["shown"] = {"frames": "pictures"}.get(model.endpoint.video, str(model.endpoint.video))
    return Protocol(benchmark.protocol, digest_of(asked)[:8])


def heldout_conditions(
    settings: Settings, attention: Mapping[str, str], trained: Trained | None = None
) -> dict[str, Any]:
    """Everything that the rewards of held-out questions depend on, as JSON, except the questions themselves.

    `trained` are the weights that answer, where they differ from those in the model's folder.
    """
    found = _questions_conditions(settings, settings.evaluation, attention)
    if trained is not None:
        found["model"] |= asdict(trained)
    return found


def generated_conditions(settings: Settings, attention: Mapping[str, str]) -> dict[str, Any]:
    """The same of the completions of training questions, by `stage=generate`."""
    stage = settings.stage
    assert isinstance(stage, GenerateStage)
    return _questions_conditions(settings, stage, attention) | {"completions": stage.completions}


def _questions_conditions(settings: Settings, how: AskingSettings, attention: Mapping[str, str]) -> dict[str, Any]:
    found = _answering(settings.model, settings.seed, settings.trainer.precision, attention)
    found["decoding"] = {"temperature": how.temperature, "top_p": how.top_p, "max_new_tokens": how.max_new_tokens}
    found["data"] = {at: _processing(dataset) for at, dataset in sections(settings)}
    found["reward"] = asdict(settings.reward)
    for function, held in zip(found["reward"]["functions"], settings.reward.functions, strict=True):
        function["code"] = hashlib.sha256(held.file.read_bytes()).hexdigest()[:16]
    return found


def _answering(model: ModelSettings, seed: int, precision: str, attention: Mapping[str, str]) -> dict[str, Any]:
    return {
        "model": {
            "name_or_path": model.name_or_path,
            "weights": model_digest(model),
            "revision": model.revision,
            "dtype": model.dtype,
            "positions": str(model.positions),
            "frame_times": str(model.frame_times),
            "precision": precision,
            "attention": dict(attention),
        },
        "seed": seed,
        "libraries": {"spacer": spacer.__version__, **{name: version(name) for name in LIBRARIES}},
    }


@dataclass(frozen=True)
class Trained:
    """Weights trained by a run: their digest, and the number of optimiser steps."""

    weights: str
    trained_steps: int


def _processing(dataset: DatasetSettings) -> dict[str, Any]:
    """The settings of a data set that determine a question's prompt and frames."""
    named = ("video", "image_max_pixels", "max_prompt_length", "too_long", "prompts")
    values = asdict(dataset)
    return {name: values[name] for name in named}


def digest_of(found: Mapping[str, Any]) -> str:
    """The digest of conditions, stored with each answer."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def require_same_conditions(path: Path, found: Mapping[str, Any]) -> None:
    """Writes the conditions if there are none yet; raises UserError listing the differences if they differ."""
    if changes := _changes(path, found):
        raise UserError(
            f"{path.parent} holds answers that were given under other conditions:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nGo on with the same ones, evaluate into another run folder (hydra.run.dir=…), or begin this one anew "
            "with overwrite=true."
        )
    _write(path, found)


def renew(path: Path, found: Mapping[str, Any]) -> None:
    """Replaces the conditions and logs the differences; earlier answers are then asked again."""
    if changes := _changes(path, found):
        log.warning("answers in %s are of other conditions and asked for again: %s", path.parent, "; ".join(changes))
    _write(path, found)


def _changes(path: Path, found: Mapping[str, Any]) -> list[str]:
    if not path.exists():
        return []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and the answers beside it are asked for anew"
        ) from None
    return differences("", before, json.loads(json.dumps(found)))


def _write(path: Path, found: Mapping[str, Any]) -> None:
    write_text(path, [json.dumps(found, indent=2, ensure_ascii=False), "\n"])


def differences(at: str, before: Any, now: Any) -> list[str]:
    """The differences between two JSON values, one line each, with paths below `at`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        inner = (differences(f"{at}.{key}" if at else key, before.get(key), now.get(key)) for key in keys)
        return [change for changes in inner for change in changes]
    return [] if before == now else [f"{at}: {before!r} then, {now!r} now"]
