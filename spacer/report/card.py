"""The model card written beside exported weights: how they were trained, on what, for how long, and their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spacer.config.derived import HUB_ID
from spacer.errors import UserError
from spacer.terminal.printable import code, code_block, markdown

SHOWN = ("seed", "stage", "model", "dataset", "reward", "objective", "trainer")  # sections of the settings


@dataclass(frozen=True)
class Origin:
    """Where exported weights come from. `recorded` is the training run's own settings, None where unknown."""

    model: str
    checkpoint: Path
    steps: int
    recorded: Mapping[str, Any] | None

    @property
    def base(self) -> str:
        """What training started from: a hub id or a folder."""
        model = (self.recorded or {}).get("model") or {}
        return str(model.get("name_or_path") or self.model)


@dataclass(frozen=True)
class Score:
    """A metric of an evaluated run, in the unit of the file that it was read from."""

    benchmark: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None


def read_scores(run: Path) -> list[Score]:
    """The metrics in a run's `scores.json`, or else its `summary.json`.

    Raises:
        UserError: the file cannot be read, or has no metrics.
    """
    path = run / ("scores.json" if (run / "scores.json").is_file() else "summary.json")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"runs: {path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"runs: {path} must hold an object {{…}}")
    if path.name == "scores.json":
        name, metrics = str(found.get("benchmark", run.name)), found.get("official")
    else:
        # measured by a stage=train run after training, or by a stage=evaluate run
        after = {metric: entry["after"] for metric, entry in (found.get("metrics") or {}).items()}
        name, metrics = f"held-out questions of {run.name}", found.get("scores") or after
    scores = list(_flat(name, metrics or {}))
    if not scores:
        raise UserError(f"runs: {path} has no scores: name a run that was evaluated")
    return scores


def _flat(benchmark: str, metrics: Mapping[str, Any], before: str = "") -> Iterator[Score]:
    """Flattens metrics as the files nest them: numbers, numbers with an interval, or sections of either."""
    for name, entry in metrics.items():
        label = f"{before}{name}"
        if isinstance(entry, int | float) and not isinstance(entry, bool):
            yield Score(benchmark, label, float(entry))
        elif isinstance(entry, Mapping):
            value = entry.get("value", entry.get("mean"))
            if isinstance(value, int | float):
                yield Score(benchmark, label, float(value), entry.get("low"), entry.get("high"))
            else:
                yield from _flat(benchmark, entry, f"{label}/")


def model_card(origin: Origin, scores: Sequence[Score]) -> str:
    """The text of `README.md`, including the YAML header that the hub reads."""
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "video-text-to-text"}
    if HUB_ID.fullmatch(origin.base) and not Path(origin.base).exists():
        head["base_model"] = origin.base
    if non_commercial(origin):
        head["license"] = "cc-by-nc-4.0"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {markdown(head.get('base_model', Path(origin.base).name).rpartition('/')[2])}, trained with Spacer\n",
        _what(origin),
        _scores(scores) if scores else "## Scores\n\nNone were given.\n",
        _licence(origin),
        _settings(origin),
    ]
    return "\n".join(parts)


def non_commercial(origin: Origin) -> bool:
    """Whether the weights derive from SpaceR's data or its published weights, which are CC BY-NC 4.0."""
    dataset = (origin.recorded or {}).get("dataset") or {}
    parts = dataset["parts"].values() if dataset.get("parts") else [dataset]
    files = [str(part.get(field) or "") for part in parts for field in ("source", "archive", "index", "root")]
    return any("spacer-151k" in name.lower() for name in files) or origin.base.lower().rstrip("/").endswith("/spacer")


def _what(origin: Origin) -> str:
    recorded = origin.recorded or {}
    stage = (recorded.get("stage") or {}).get("name")
    ways = {"train": "by group-relative policy optimisation (stage=train)", "sft": "supervised (stage=sft)"}
    ways["vision"] = "in its vision tower, by read-outs of pictures (stage=vision)"
    how = ways.get(str(stage), "")
    lora = (recorded.get("model") or {}).get("lora")
    lines = [
        f"- Base model: {code(origin.base)}",
        f"- Trained for {origin.steps} optimiser step{'' if origin.steps == 1 else 's'}{f', {how}' if how else ''}"
        + (f", with adapters of rank {lora['rank']}, which are merged into the weights" if lora else ""),
        f"- Exported from the checkpoint {code(origin.checkpoint.name)}",
    ]
    use = (
        "```python\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        'model = AutoModelForImageTextToText.from_pretrained("FOLDER", dtype="auto")\n'
        'processor = AutoProcessor.from_pretrained("FOLDER")\n```\n'
    )
    return "\n".join(lines) + "\n\n" + use


def _scores(scores: Sequence[Score]) -> str:
    rows = ["## Scores\n", "| benchmark | metric | score | 95 % interval |", "| --- | --- | --- | --- |"]
    for score in scores:
        interval = "" if score.low is None or score.high is None else f"{score.low:.4g} to {score.high:.4g}"
        rows.append(f"| {markdown(score.benchmark)} | {markdown(score.metric)} | {score.value:.4g} | {interval} |")
    return "\n".join(rows) + "\n"


def _licence(origin: Origin) -> str:
    if non_commercial(origin):
        said = "SpaceR's data or weights went into these weights; they are CC BY-NC 4.0: no commercial use."
    elif origin.recorded is None:
        said = (
            "What they were trained on is not known here: that of the base model and of the training data holds. "
            "SpaceR-151k is CC BY-NC 4.0."
        )
    else:
        said = "That of the base model and of the training data holds."
    return f"## Licence\n\n{said}\n"


def _settings(origin: Origin) -> str:
    if origin.recorded is None:
        return "## Settings\n\nThe training run's configuration was not beside the checkpoint.\n"
    shown = {name: origin.recorded[name] for name in SHOWN if name in origin.recorded}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110)
    return f"## Settings\n\n{code_block(text, 'yaml')}\n"
