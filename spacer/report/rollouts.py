"""Rollouts as a W&B table: what the model saw, said and earned. Works online and offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wandb
from numpy.typing import NDArray
from PIL import Image

from spacer.report.drawing import figure_image
from spacer.report.maps import map_overlay

# Columns that every table has, so that W&B can join tables of different steps.
PARTS = ("total", "answer", "map", "map_quality", "format", "length", "temporal")
_MAP_DPI = 80  # 800 by 352 pixels: legible in a table cell, and a table stays small


@dataclass(frozen=True)
class RolloutRow:
    """One completion of a training step."""

    step: int
    frame: NDArray[np.uint8]  # RGB, (height, width, 3)
    question: str
    completion: str
    solution: str
    parts: Mapping[str, float]  # reward component, `total` among them, to its value
    advantage: float
    true_map: Mapping[str, Sequence[Any]]  # category to centres [x, y]; empty where the scene has none
    predicted_map: Mapping[str, Sequence[Any]]


def rollout_columns(rows: Sequence[RolloutRow] = ()) -> list[str]:
    """Column names in order; components outside `PARTS` that a row has come after those."""
    more = sorted({name for row in rows for name in row.parts}.difference(PARTS))
    rewards = [f"reward/{name}" for name in (*PARTS, *more)]
    return ["step", "frame", "question", "completion", "solution", *rewards, "advantage", "map"]


def rollout_table(rows: Sequence[RolloutRow]) -> wandb.Table:
    """A `wandb.Table` with a row for each completion: frame, texts, rewards, advantage and map picture.

    A component that a row lacks is empty. Needs no run. Once logged offline, W&B keeps the pictures in its data folder
    (`WANDB_DATA_DIR`), not in the run's, until `wandb sync`.
    """
    columns = rollout_columns(rows)
    rewards = [name.removeprefix("reward/") for name in columns if name.startswith("reward/")]
    table = wandb.Table(columns=list(columns))
    for row in rows:
        figure = map_overlay(row.frame, row.true_map, row.predicted_map, title=_first_line(row.question))
        figure.set_dpi(_MAP_DPI)
        table.add_data(
            row.step,
            _picture(row.frame),
            row.question,
            row.completion,
            row.solution,
            *(float(row.parts[name]) if name in row.parts else None for name in rewards),
            float(row.advantage),
            _picture(figure_image(figure)),
        )
    return table


def _picture(pixels: NDArray[np.uint8]) -> wandb.Image:
    # By way of PIL, because W&B stretches the contrast of arrays whose values happen to be small.
    return wandb.Image(Image.fromarray(pixels))


def _first_line(text: str, length: int = 110) -> str:
    """The first line of a text, cut to so many characters, as a title."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
