"""Evaluation while a run trains, from the command line: what it leaves, and that training is the same with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import BRIEF, Command, Kill, fails, succeeds, together
from tests.cli.test_train import rows

DURING = (*[word for word in BRIEF if not word.startswith(("evaluation.limit", "logger"))], "logger=csv")
EVERY = ("evaluation.every_n_steps=1", "evaluation.subset=5")


def training(folder: Path) -> list[dict]:
    """The history, without evaluations and times."""
    left = ("eval/", "speed/")
    found = [{key: x for key, x in row.items() if not key.startswith(left)} for row in rows(folder / "history.jsonl")]
    return [row for row in found if "train/loss" in row]


def evaluations(folder: Path) -> list[dict]:
    """Step and metrics of each evaluation in the history."""
    found = [
        {key: x for key, x in row.items() if key == "step" or "eval/" in key} for row in rows(folder / "history.jsonl")
    ]
    return [row for row in found if len(row) > 1]


@pytest.fixture(scope="module")
def evaluated(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run that was evaluated before each step and after the last, and what it said."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = [word for word in DURING if word != "stage.evaluate_before=false"]
    return folder, succeeds(command(*words, *EVERY, f"hydra.run.dir={folder}"))


def test_curves_with_intervals_and_the_best_checkpoint(evaluated: tuple[Path, str]) -> None:
    folder, said = evaluated
    found = evaluations(folder)
    assert [row["step"] for row in found] == [0, 1, 2, 3]
    asked = [rows(folder / f"predictions/during/{step}.jsonl") for step in range(4)]
    assert all([row["id"] for row in each] == [row["id"] for row in asked[0]] for each in asked)
    assert len(asked[0]) == 5 and len({row["scene"] for row in asked[0]}) == 2
    for row, each in zip(found, asked, strict=True):
        total = sum(entry["reward"]["total"] for entry in each) / 5
        assert row["eval/during/reward/total"] == pytest.approx(total)
        assert not [name for name in row if name.endswith("/low")]  # two scenes are too few for an interval
    # sampled from the same random numbers, so that they are among the answers of the whole evaluation
    whole = {row["id"]: row["completion"] for row in rows(folder / "predictions/before.jsonl")}
    assert [row["completion"] for row in asked[0]] == [whole[row["id"]] for row in asked[0]]
    best = json.loads((folder / "summary.json").read_text())["best"]
    totals = {row["step"]: row["eval/during/reward/total"] for row in found}
    assert best["start"] == totals.pop(0)
    assert best["value"] == max(totals.values()) and totals[best["step"]] == best["value"]
    held = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert held["global_step"] == best["step"]
    told = f"evaluating 5 of {len(whole)} held-out questions every 1 steps, 4 times: at most 480 tokens each time"
    assert told in said
    assert f"{folder}/checkpoints/best.ckpt" in said.replace("\n", "")
    assert '"eval/during/reward/total"' in (folder / "report.html").read_text()
    assert "eval/during/reward/total" in (folder / "csv/metrics.csv").read_text().splitlines()[0].split(",")


@pytest.mark.long
def test_training_is_the_same_without_it(evaluated: tuple[Path, str], command: Command, tmp_path: Path) -> None:
    succeeds(command(*DURING, f"hydra.run.dir={tmp_path}"))
    assert training(tmp_path) == training(evaluated[0]) and len(training(tmp_path)) == 3
    assert not evaluations(tmp_path) and not (tmp_path / "checkpoints/best.ckpt").exists()
    models = [load_file(folder / "model/model.safetensors") for folder in (evaluated[0], tmp_path)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.long
@pytest.mark.parametrize("checkpoints", [1, 2])
def test_killed_and_resumed_it_is_neither_repeated_nor_lost(
    evaluated: tuple[Path, str], command: Command, kill: Kill, tmp_path: Path, checkpoints: int
) -> None:
    """Killed after the evaluation after a step and about its checkpoint, of which there is none after step 3 yet."""
    every = f"trainer.checkpoint_every_n_steps={checkpoints}"
    words = [*DURING, *EVERY, every, f"hydra.run.dir={tmp_path}"]
    kill(words, lambda: (tmp_path / f"predictions/during/{checkpoints + 1}.jsonl").exists())
    succeeds(command(*words, "ckpt_path=last"))
    assert evaluations(tmp_path) == evaluations(evaluated[0])
    assert training(tmp_path) == training(evaluated[0])
    for step in range(4):
        name = f"predictions/during/{step}.jsonl"
        assert (tmp_path / name).read_bytes() == (evaluated[0] / name).read_bytes()
    held = [torch.load(folder / "checkpoints/best.ckpt", weights_only=True) for folder in (tmp_path, evaluated[0])]
    assert held[0]["global_step"] == held[1]["global_step"]
    assert all(torch.equal(value, held[1]["state_dict"][name]) for name, value in held[0]["state_dict"].items())
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (tmp_path, evaluated[0])]
    assert summaries[0]["best"] == summaries[1]["best"]


@pytest.mark.long
def test_early_stopping_and_what_cannot_be_counted(command: Command, tmp_path: Path) -> None:
    # weights that do not change answer alike: nothing is better than the start
    still = ("stage.optimizer.learning_rate=0.0", "trainer.max_steps=9", "stage.evaluate_after=false")
    words = [*DURING, *EVERY, *still, "evaluation.patience=2", f"hydra.run.dir={tmp_path / 'still'}"]
    unknown = [*DURING, *EVERY, "evaluation.metric=answer/colour", f"hydra.run.dir={tmp_path / 'unknown'}"]
    stopped, refused = together(command, [words, unknown])
    assert "2 evaluations brought no better reward/total" in succeeds(stopped)
    fails(refused, "evaluation.metric=answer/colour is not measured", "reward/total")
    assert len(training(tmp_path / "still")) == 2
    before = rows(tmp_path / "still/history.jsonl")
    succeeds(command(*words, "ckpt_path=last"))  # as one that was killed in a later phase: it trains no further
    assert rows(tmp_path / "still/history.jsonl") == before


@pytest.mark.long
def test_supervised_training_is_evaluated_too(command: Command, tmp_path: Path) -> None:
    words = [word for word in DURING if not word.startswith("objective")]
    succeeds(command(*words, *EVERY, "stage=sft", "evaluation.keep_best=false", f"hydra.run.dir={tmp_path}"))
    assert [row["step"] for row in evaluations(tmp_path)] == [0, 1, 2, 3]
    assert not (tmp_path / "checkpoints/best.ckpt").exists()
