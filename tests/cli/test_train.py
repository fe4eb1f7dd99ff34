"""The main job through the command line: what it leaves, and that a killed run ends as one never killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import ROOT, SMALL, Command

STEPS = 5


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run that was left in peace."""
    folder = tmp_path_factory.mktemp("finished")
    done = command(*SMALL, f"trainer.max_steps={STEPS}", "logger.rollouts_every_n_steps=2", f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said.txt").write_text(done.stdout + done.stderr)
    return folder, done.stdout


def test_leaves_what_the_readme_promises(finished: tuple[Path, str]) -> None:
    folder, output = finished
    summary = json.loads((folder / "summary.json").read_text())
    total = summary["metrics"]["reward/total"]
    assert total["delta"] == pytest.approx(total["after"] - total["before"])
    assert total["delta_low"] <= total["delta"] <= total["delta_high"]
    assert set(summary["seconds"]) >= {"evaluate before", "train", "evaluate after"}
    before, after = rows(folder / "predictions/before.jsonl"), rows(folder / "predictions/after.jsonl")
    assert [row["id"] for row in before] == [row["id"] for row in after]
    assert len({row["scene"] for row in before}) == 4
    mean = sum(row["reward"]["total"] for row in after) / len(after)
    assert total["after"] == pytest.approx(mean)
    for name in ("model/config.json", "model/model.safetensors", "figures/reward_curves.png", ".hydra/config.yaml"):
        assert (folder / name).stat().st_size > 0
    assert len(rows(folder / "history.jsonl")) == STEPS
    assert "total" in output and "95 % interval" in output and f"{folder}/model" in output
    assert "wandb sync" in output
    assert all(len(line) <= 80 for line in output.splitlines() if str(folder) not in line)
    assert f"report: {folder}/report.html" in output
    report = (folder / "report.html").read_text()
    assert (
        "Content-Security-Policy" in report and report.count("data:video/mp4") == report.count("data:image/jpeg") == 4
    )


def test_a_log_file_holds_lines_and_no_control_codes(finished: tuple[Path, str]) -> None:
    said = (finished[0] / "said.txt").read_text()
    assert not [character for character in said if ord(character) < 32 and character != "\n"]
    assert "\x7f" not in said and "\x9b" not in said
    for words in ("rendering rooms: 14 of 14", f"step {STEPS}", "frames for the report: 4 of 4"):
        assert words in said
    ours = [line for line in said.splitlines() if line[2:3] == ":" or " of " in line]
    assert all(len(line) <= 80 for line in ours if str(finished[0]) not in line)


def test_wandb_offline_has_the_table_of_rollouts_with_pictures(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    tables = [json.loads(path.read_text()) for path in folder.glob("wandb/**/*.table.json")]
    assert tables
    columns = tables[0]["columns"]
    for wanted in ("step", "frame", "question", "completion", "solution", "advantage"):
        assert wanted in columns
    assert any("map" in column for column in columns) and tables[0]["data"]
    assert list((folder / "wandb").rglob("*.png"))
    assert list(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_saved_model_is_an_ordinary_hugging_face_folder(finished: tuple[Path, str]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = finished[0] / "model"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(AutoProcessor.from_pretrained(folder)).__name__ == "Qwen2_5_VLProcessor"


def test_killed_and_resumed_ends_with_the_same_weights(
    finished: tuple[Path, str], command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    overrides = [*SMALL, f"trainer.max_steps={STEPS}", "logger.rollouts_every_n_steps=2", f"hydra.run.dir={tmp_path}"]
    words = [sys.executable, str(ROOT / "run.py"), *overrides]
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    history = tmp_path / "history.jsonl"
    deadline = time.monotonic() + 240
    while not (history.exists() and history.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "summary.json").exists()

    resumed = command(*overrides, "ckpt_path=last")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    untouched, mended = (load_file(folder / "model/model.safetensors") for folder in (finished[0], tmp_path))
    assert untouched.keys() == mended.keys()
    assert all(torch.equal(untouched[name], mended[name]) for name in untouched)
    start = load_file(ROOT / "spacer/assets/tiny/model.safetensors")
    assert any(not torch.equal(start[name].float(), mended[name].float()) for name in start)
    answers = [(folder / "predictions/after.jsonl").read_text() for folder in (finished[0], tmp_path)]
    assert answers[0] == answers[1]
