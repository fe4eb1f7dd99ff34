"""Rollouts that are shown: their lines, their pictures, the W&B table, and that a resumed run shows each once."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image, ImageColor

from spacer.data.samples import Sample
from spacer.data.strips import strip_of
from spacer.report import rollouts
from spacer.report.drawing import BLUE, VERMILION
from spacer.report.rollouts import (
    ShownCompletion,
    begin_rollouts,
    last_rows,
    latest_rows,
    read_rollouts,
    rollout_table,
    show_rollouts,
)
from spacer.rewards import RewardParts

TRUE = {"chair": [[2, 3], [7, 7]], "bed": [[5, 5]]}
PARTS_OF_IT = RewardParts(answer=1.0, map=0.5, format=1.0, length=0.0, temporal=0.0, drawn=True, map_quality=0.5)


def sample(name: str = "a/1", true_map: dict | None = TRUE) -> Sample:
    path = Path("/data") / name.partition("/")[0]
    return Sample(
        name, "Which?", "multiple choice", ("A. x", "B. y"), "B", "video", path, "s", "s", "kind", None, true_map
    )


def shown(completion: str, item: Sample | None = None, split: str = "train", n: int = 0) -> ShownCompletion:
    strip = np.zeros((8, 24, 3), np.uint8)
    return ShownCompletion(
        split, item or sample(), strip, n, completion, 7, PARTS_OF_IT, 0.5 if split == "train" else None
    )


DRAWN = "<think>A bed. <map>{'chair': [[2, 4]]}</map> So B.</think><answer>B</answer>"


def test_doctests() -> None:
    assert doctest.testmod(rollouts).failed == 0


def test_a_line_says_all_there_is_to_see(tmp_path: Path) -> None:
    plain = sample("b/2", None)
    show_rollouts(tmp_path, 20, 40, [shown(DRAWN), shown("<answer>A</answer>", plain, "heldout", 1)])
    first, second = read_rollouts(tmp_path)
    assert (first["step"], first["prompts_seen"], first["split"], first["id"], first["n"]) == (
        20,
        40,
        "train",
        "a/1",
        0,
    )
    assert first["thinking"] == "A bed.  So B." and first["answer"] == "B" and first["tokens"] == 7
    assert first["true_map"] == TRUE and first["predicted_map"] == {"chair": [[2, 4]]}
    assert first["reward"] == PARTS_OF_IT.as_row() and first["advantage"] == 0.5
    assert Image.open(tmp_path / first["frames"]).size == (24, 8)
    colours = np.unique(np.asarray(Image.open(tmp_path / first["map"])).reshape(-1, 3), axis=0)
    assert all((colours == ImageColor.getrgb(colour)).all(1).any() for colour in (BLUE, VERMILION))
    assert second["map"] is None and second["advantage"] is None and second["predicted_map"] == {}
    assert second["options"] == ["A. x", "B. y"] and second["solution"] == "B"


def test_a_question_of_text_alone_has_no_frames(tmp_path: Path) -> None:
    item = Sample("w", "Why?", "free-form", (), "B", "text", Path("w"), "s", "text/w", "kind", None, None)
    show_rollouts(tmp_path, 1, 1, [shown("<answer>B</answer>", item)])
    (row,) = read_rollouts(tmp_path)
    assert row["frames"] is None and row["media"] is None and not list((tmp_path / "rollouts").iterdir())
    assert rollout_table([row], tmp_path).data[0][3] is None


def test_a_hostile_completion_is_a_line_like_another(tmp_path: Path) -> None:
    show_rollouts(tmp_path, 0, 0, [shown("<map>{'chair': [[1" + "0" * 400 + ", 2]]}</map>\u2028$x^$ \ud800")])
    (row,) = read_rollouts(tmp_path)
    assert row["completion"].endswith("\ud800") and (tmp_path / row["map"]).exists()


def test_going_on_drops_what_was_shown_later_and_beginning_drops_all(tmp_path: Path) -> None:
    for step in (0, 2, 4):
        show_rollouts(tmp_path, step, 2 * step, [shown(DRAWN)])
    with open(tmp_path / "rollouts.jsonl", "a") as file:
        file.write('{"step": 6, "torn')
    begin_rollouts(tmp_path, 3)
    assert [row["step"] for row in read_rollouts(tmp_path)] == [0, 2]
    begin_rollouts(tmp_path, 0)
    assert read_rollouts(tmp_path) == []


def test_the_table_shows_the_step_and_how_the_held_out_prompts_fared(tmp_path: Path) -> None:
    for step in range(0, 40, 2):
        show_rollouts(tmp_path, step, step, [shown(DRAWN), shown("", split="heldout")])
    rows = latest_rows(read_rollouts(tmp_path), 38)
    assert [row["step"] for row in rows if row["split"] == "train"] == [38]
    assert [row["step"] for row in rows if row["split"] == "heldout"] == [0, *range(20, 40, 2)]
    assert latest_rows([], 3) == [] and last_rows(rows) == rows


def test_the_table_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    show_rollouts(tmp_path, 2, 4, [shown(DRAWN), shown("", sample("b/2", None), "heldout")])
    table = rollout_table(read_rollouts(tmp_path), tmp_path)
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.data)
    assert isinstance(first["frames"], wandb.Image) and isinstance(first["maps"], wandb.Image)
    assert first["question"] == "Which?\nA. x\nB. y" and first["thinking"] == "A bed.  So B."
    assert {name: first[f"reward/{name}"] for name in PARTS_OF_IT.as_row()} == PARTS_OF_IT.as_row()
    assert (first["advantage"], second["advantage"], second["maps"]) == (0.5, None, None)

    run = wandb.init(mode="offline", dir=tmp_path, project="test")
    run.log({"rollout/table": table})
    run.finish()
    written = next(tmp_path.glob("wandb/offline-run-*/files/media/table/rollout/*.json"))
    assert json.loads(written.read_text(encoding="utf-8"))["columns"] == table.columns


def test_a_strip_is_a_few_frames_side_by_side() -> None:
    frames = np.stack([np.full((224, 448, 3), 10 * n, np.uint8) for n in range(10)])
    strip = strip_of(frames)
    assert strip.shape == (112, 4 * 224 + 3 * 2, 3)
    assert [int(strip[5, 226 * n + 100, 0]) for n in range(4)] == [0, 30, 60, 90]
    assert strip_of(frames[:1]).shape == (112, 224, 3)
    assert strip_of([Image.new("RGB", (40, 20)), Image.new("RGB", (20, 40))]).shape == (40, 62, 3)
