"""Rollouts logged during a run: one line each in `rollouts.jsonl`, pictures beside it, and a W&B table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spacer.data.samples import Sample
from spacer.files import append_rows, drop_torn_line, read_rows, write_rows
from spacer.report.small_maps import map_pair
from spacer.rewards import RewardParts, answer_text, has_map, thinking_text
from spacer.rewards.maps import written_map

if TYPE_CHECKING:
    import wandb

_SHOWINGS = 10  # of the held-out prompts, shown side by side in a table during a run
_MOST_ROWS = 2_000  # in the table at the end of a run

Row = dict[str, Any]


@dataclass(frozen=True)
class ShownCompletion:
    """A completion to show, the `n`-th of its prompt, with its reward; `strip_HWC` is a strip of video frames.

    `split` is train for a prompt of the step's batch, or heldout for a repeated held-out prompt, which has no
    advantage.
    """

    split: str
    sample: Sample
    strip_HWC: NDArray[np.uint8]
    n: int
    completion: str
    tokens: int
    parts: RewardParts
    advantage: float | None


def show_rollouts(folder: Path, step: int, prompts_seen: int, shown: Sequence[ShownCompletion]) -> None:
    """Draws the rollouts of a step and appends a line for each to `rollouts.jsonl` in the run folder."""
    (folder / "rollouts").mkdir(exist_ok=True)
    append_rows(folder / "rollouts.jsonl", [_row(folder, step, prompts_seen, item) for item in shown])


def read_rollouts(folder: Path) -> list[Row]:
    """All logged rows, in order."""
    return read_rows(folder / "rollouts.jsonl")


def begin_rollouts(folder: Path, step: int) -> None:
    """Drops rows later than `step`, from which training resumes, or all rows where it starts over."""
    path = folder / "rollouts.jsonl"
    drop_torn_line(path)
    rows = read_rows(path)
    kept = [row for row in rows if row["step"] <= step] if step else []
    if len(kept) < len(rows):
        write_rows(path, kept)


def latest_rows(rows: Sequence[Row], step: int) -> list[Row]:
    """The rows of the table after a step: that step's rollouts, and recent answers to the held-out prompts."""
    steps = sorted({row["step"] for row in rows if row["split"] == "heldout"})
    recent = {steps[0], *steps[-_SHOWINGS:]} if steps else set()
    return [row for row in rows if row["step"] == step or (row["split"] == "heldout" and row["step"] in recent)]


def last_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of the table at the end: everything, or the last rows where that is too much."""
    return list(rows[-_MOST_ROWS:])


def rollout_table(rows: Sequence[Row], folder: Path) -> wandb.Table:
    """A `wandb.Table` of the rows of `rollouts.jsonl`: frames, texts, rewards, advantage and maps. Needs no run.

    When logged offline, W&B keeps the pictures in its data folder (`WANDB_DATA_DIR`), not in the run's, until
    `wandb sync`.
    """
    import wandb

    def picture(name: str | None) -> wandb.Image | None:
        return None if name is None else wandb.Image(str(folder / name))

    texts = ("question", "completion", "thinking", "answer", "solution")
    rewards = list(dict.fromkeys(name for row in rows for name in row["reward"]))
    columns = [f"reward/{name}" for name in rewards]
    table = wandb.Table(columns=["step", "split", "id", "frames", *texts, "maps", *columns, "advantage", "tokens"])
    for row in rows:
        question = "\n".join((row["question"], *row["options"]))
        table.add_data(
            row["step"],
            row["split"],
            row["id"],
            picture(row["frames"]),
            question,
            *(row[name] for name in texts[1:]),
            picture(row["map"]),
            *(float(row["reward"].get(name, math.nan)) for name in rewards),
            row["advantage"],
            row["tokens"],
        )
    return table


def _row(folder: Path, step: int, prompts_seen: int, item: ShownCompletion) -> Row:
    sample = item.sample
    strip = None if sample.file is None else f"rollouts/{_digest(str(sample.file))}.jpg"
    if strip is not None and not (folder / strip).exists():
        beside = folder / f"{strip}.tmp"  # a kill must not leave half a picture that later rows would show
        Image.fromarray(item.strip_HWC).save(beside, "JPEG", quality=85)
        beside.replace(folder / strip)
    true, drawn = dict(sample.true_map or {}), has_map(item.completion)
    predicted = written_map(item.completion, true) if drawn else {}
    drawing = None
    if true or drawn:
        drawing = f"rollouts/{step:06d}-{_digest(f'{item.split} {sample.id} {item.n}')}.png"
        map_pair(true, predicted).save(folder / drawing)
    return {
        "step": step,
        "prompts_seen": prompts_seen,
        "split": item.split,
        "id": sample.id,
        "n": item.n,
        "task": sample.question_type,
        "media": None if sample.file is None else str(sample.file),
        "frames": strip,
        "question": sample.problem,
        "options": list(sample.options),
        "solution": sample.solution,
        "completion": item.completion,
        "thinking": thinking_text(item.completion),
        "answer": answer_text(item.completion),
        "tokens": item.tokens,
        "true_map": sample.true_map,
        "predicted_map": predicted,
        "map": drawing,
        "reward": item.parts.as_row(),
        "advantage": item.advantage,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
