"""Bad data through the command line: named, counted, and never in the way of what is sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from spacer.config.settings import RoomsSettings
from spacer.data.scenes import rooms
from tests.cli.conftest import SMALL, Command
from tests.cli.test_train import rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rooms data set in files."""
    root = tmp_path_factory.mktemp("made")
    settings = RoomsSettings(str(root), train_scenes=6, heldout_scenes=3, size_px=192, seconds=4.0, video_fps=4)
    return rooms.build(settings)


@pytest.fixture
def damaged(made: Path, tmp_path: Path) -> Path:
    """The same with a corrupt video, a missing file, a wrong field, a path outside the root and a broken line."""
    folder = tmp_path / "data"
    shutil.copytree(made, folder)
    (folder / "videos/train_00001.mp4").write_bytes(b"this is no video" * 100)
    (folder / "videos/train_00002.mp4").unlink()
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    (tmp_path / "elsewhere.mp4").write_bytes((folder / "videos/train_00000.mp4").read_bytes())
    lines += [lines[0] | {"problem_id": "outside", "path": "../elsewhere.mp4"}]
    lines += [lines[0] | {"problem_id": "typed", "problem_type": "essay"}]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "train.jsonl").write_text(text + "\n{broken\n")
    return folder


def jsonl(folder: Path, out: Path, on_bad: str) -> list[str]:
    return [
        *("dataset=jsonl", f"dataset.root={folder}", "dataset.index=train.jsonl", "dataset.maps=cognitive_map.jsonl"),
        *("dataset.workers=1", "dataset.video.max_pixels=8192", f"dataset.on_bad={on_bad}"),
        *("model.prompts_per_rollout=2", "objective.group_size=2", "objective.max_completion_length=16"),
        *("model.completion.bonus_min=4", "model.completion.bonus_max=16", "logger=none"),
        *("stage.evaluate_before=false", "stage.evaluate_after=false", f"hydra.run.dir={out}"),
    ]


def test_stops_before_training_and_names_every_faulty_line(command: Command, damaged: Path, tmp_path: Path) -> None:
    done = command(*jsonl(damaged, tmp_path / "out", "stop"))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    for words in ("missing file", "train_00002.mp4", "outside the data root", "essay", "not JSON", "on_bad=skip"):
        assert words in said, said
    assert "Traceback" not in said
    assert not (tmp_path / "out/model").exists()


@pytest.mark.long
def test_skips_counts_and_names_when_told_to(command: Command, damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command(*jsonl(damaged, out, "skip"))
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("missing file", "outside the data root", "wrong field", "not JSON", "unreadable media"):
        assert words in done.stdout, done.stdout
    recorded = rows(out / "faults.jsonl")
    assert recorded and all("train_00001" in row["where"] and row["kind"] == "unreadable media" for row in recorded)
    assert json.loads((out / "summary.json").read_text())["faults"] >= len(recorded) + 4
    assert (out / "model/model.safetensors").exists()


@pytest.mark.long
def test_a_corrupt_video_counts_as_wrong_in_evaluation(command: Command, made: Path, tmp_path: Path) -> None:
    root = tmp_path / "rooms"
    shutil.copytree(made.parent, root)
    (root / made.name / "videos/heldout_00001.mp4").write_bytes(b"\x00" * 4096)
    names = ("train_scenes=6", "heldout_scenes=3", "questions_per_scene=4", "heldout_questions_per_scene=4", "seed=0")
    names += ("balanced=false", "fixed_height=false", "size_spread=1.0")  # as they were made
    settings = [f"dataset.{name}" for name in names]
    done = command(*SMALL, "stage=evaluate", f"dataset.root={root}", *settings, f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stdout + done.stderr
    answers = rows(tmp_path / "out/predictions/rooms.jsonl")
    asked = rows(root / made.name / "heldout.jsonl")
    assert {row["id"] for row in answers} == {row["problem_id"] for row in asked}
    broken = [row for row in answers if row["scene"] == "heldout_00001"]
    assert broken and all(row["reward"]["total"] == 0 and "unreadable" in row["error"] for row in broken)
    assert not any("error" in row for row in answers if row["scene"] != "heldout_00001")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["faults"] == len(broken)
    total = sum(row["reward"]["total"] for row in answers) / len(answers)
    assert summary["scores"]["reward/total"]["mean"] == pytest.approx(total)
    assert "heldout_00001" in done.stdout


def status(folder: Path) -> dict[str, str]:
    return json.loads((folder / "run.json").read_text())


def test_videos_that_are_all_unreadable_end_the_run_as_failed(command: Command, made: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(made, folder)
    for video in (folder / "videos").glob("train_*.mp4"):
        video.write_bytes(b"this is no video" * 100)
    done = command(*jsonl(folder, out, "skip"))
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    said = status(out)
    assert said["status"] == "failed"
    for words in ("nothing was learned", "unreadable media", "train_0000", "faults.jsonl"):
        assert words in said["reason"] and words in done.stdout + done.stderr, said
    assert not (out / "model").exists() and not (out / "checkpoints/last.ckpt").exists()


def test_a_run_that_loses_its_numbers_fails_and_keeps_its_last_sound_checkpoint(
    command: Command, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # weights that a step multiplies by some -1e37: numbers still, of which the next products are none
    extra = ("stage.optimizer.weight_decay=1e38", "stage.optimizer.learning_rate=0.1", "trainer.max_steps=5")
    done = command(*jsonl(made, out, "skip"), *extra, "trainer.checkpoint_every_n_steps=1")
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    said = status(out)
    assert said["status"] == "failed" and "NaN or infinite" in said["reason"]
    assert "stage.optimizer.learning_rate" in done.stdout + done.stderr
    assert not (out / "model").exists()
    kept = torch.load(out / "checkpoints/last.ckpt", weights_only=True)
    assert 0 < kept["global_step"] < 5
    assert all(bool(value.isfinite().all()) for value in kept["state_dict"].values())
