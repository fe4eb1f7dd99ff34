"""From a prepared folder to models, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Command, Kill, fails, succeeds
from tests.cli.test_train import rows
from tests.distributed import LINES, Folder

SMALL = (
    *("dataset.workers=1", "dataset.questions_per_video=2", "logger=none"),
    *("model.prompts_per_rollout=4", "objective.group_size=2", "objective.max_completion_length=48"),
    *("model.completion.bonus_min=4", "model.completion.bonus_max=16", "evaluation.max_new_tokens=48"),
    *("evaluation.resamples=50", "trainer.checkpoint_every_n_steps=1"),
)
MEDIA = (
    "video.max_pixels=8192",
    "video.min_pixels=null",
    "video.max_frames=4",
    "image_max_pixels=8192",
    "heldout=heldout.jsonl",
)
STEPS = 8  # of nine in an epoch


def using(root: Path, out: Path, *words: str, dataset: str = "spacer_151k") -> list[str]:
    named = [f"dataset={dataset}", f"dataset.root={root}", *(f"dataset.{word}" for word in MEDIA)]
    return [*named, *SMALL, *words, f"hydra.run.dir={out}"]


@pytest.fixture(scope="module")
def tuned(command: Command, whole: tuple[Folder, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a supervised run that was left in peace."""
    out = tmp_path_factory.mktemp("tuned")
    succeeds(command(*tuning(whole[0].root, out)))
    return out


def tuning(root: Path, out: Path) -> list[str]:
    return using(
        root, out, "stage=sft", "stage.batch_size=4", f"trainer.max_steps={STEPS}", "stage.evaluate_after=false"
    )


@pytest.mark.long
def test_from_prepared_to_tuned_to_trained_to_evaluated(
    command: Command, whole: tuple[Folder, str], tuned: Path, tmp_path: Path
) -> None:
    root = whole[0].root
    asked = {row["problem_id"]: row for row in rows(root / "heldout.jsonl")}
    maps = {row["video_id"]: row["cognitive_map"] for row in rows(root / "annotation/cognitive_map.jsonl")}
    model = f"model.name_or_path={tuned / 'model'}"
    said = succeeds(command(*using(root, tmp_path / "train", "stage=train", model, "trainer.max_steps=2")))
    summary = json.loads((tmp_path / "train/summary.json").read_text())
    assert summary["withheld"] == {"videos": 1, "questions": 4} and summary["faults"] == 0
    assert 0 <= summary["data_wait_share"] < 1 and f"{summary['data_wait_share']:.1%}" in said
    assert "Waiting for data: " in said and "a benchmark asks about them: 1 videos, 4 questions" in said
    assert summary["metrics"]["reward/total"].keys() >= {"before", "after", "delta"}
    model = f"model.name_or_path={tmp_path / 'train/model'}"
    succeeds(command(*using(root, tmp_path / "evaluate", "stage=evaluate", model)))
    after = rows(tmp_path / "train/predictions/after.jsonl")
    assert after == rows(
        tmp_path / "evaluate/predictions/heldout.jsonl"
    )  # by the model that was saved as by the one that was trained
    for row in after:
        line = asked[row["id"]]
        assert (row["question"], row["problem_type"]) == (line["problem"], line["problem_type"])
        assert row["true_map"] == maps.get(Path(line["path"]).stem)
        assert "error" not in row and row["completion_tokens"] > 0
    assert {row["id"] for row in after} == set(asked) and len({row["problem_type"] for row in after}) == 5
    assert {Path(row["video"]).suffix for row in after} == {".mp4", ".png"}
    assert {row["true_map"] is None for row in after if row["video"].endswith(".mp4")} == {True, False}


@pytest.mark.long
def test_killed_in_an_epoch_and_resumed_with_other_workers_ends_with_the_same_weights(
    command: Command, kill: Kill, whole: tuple[Folder, str], tuned: Path, tmp_path: Path
) -> None:
    words, history = tuning(whole[0].root, tmp_path), tmp_path / "history.jsonl"
    kill(words, lambda: history.exists() and len(rows(history)) >= 3)
    assert not (tmp_path / "model").exists()
    succeeds(command(*words, "ckpt_path=last", "dataset.workers=2"))
    assert len({row["step"] for row in rows(history)}) == STEPS
    untouched, mended = (load_file(folder / "model/model.safetensors") for folder in (tuned, tmp_path))
    assert untouched.keys() == mended.keys()
    assert all(torch.equal(untouched[name], mended[name]) for name in untouched)


def damage(folder: Folder, whole: Folder) -> None:
    """Five bad lines, a sixth among those held out, and two videos that do not open."""
    lines = (folder.source / LINES).read_text().splitlines()
    row = json.loads(lines[30])
    changes = ({"path": "images/gone.png"}, {"problem_type": "essay"}, {"path": "../x.png"}, {"problem_id": 0})
    lines[30:35] = ["{broken", *(json.dumps(row | {"problem_id": f"bad {i}"} | c) for i, c in enumerate(changes))]
    (folder.source / LINES).write_text("\n".join(lines))
    lines = (folder.source / "heldout.jsonl").read_text().splitlines()
    lines[1] = json.dumps({k: v for k, v in json.loads(lines[1]).items() if k != "solution"})
    (folder.source / "heldout.jsonl").write_text("\n".join(lines))
    broken = folder.source / "broken.mp4"
    broken.write_bytes(b"this is no video" * 100)
    folder.pack(whole, {"videos/train_00001.mp4": broken, "videos/heldout_00001.mp4": broken})


BAD = {
    *("line 31: Expecting", "not JSON: 1", "line 32: 'images/gone.png'", "missing file: 1", "line 33: 'problem_type'"),
    *("wrong field: 1", "line 34: '../x.png'", "outside the data root: 1", "line 35: 0", "duplicate problem_id: 1"),
}


@pytest.mark.long
def test_bad_lines_stop_or_are_left_out_and_videos_that_do_not_open_never_stop(
    command: Command, whole: tuple[Folder, str], copied: Folder, tmp_path: Path
) -> None:
    damage(copied, whole[0])
    tune = using(copied.root, tmp_path / "tune", "stage=sft", "stage.batch_size=4", "trainer.max_steps=1")
    said = fails(command(*copied.words), *BAD, "heldout.jsonl, line 2: 'solution'", "6 faulty lines", "on_bad=skip")
    assert (copied.root / "index.parquet").exists()
    for words in (("heldout.jsonl: 1 faulty line", "line 2: 'solution'"), (f"{LINES}: 5 faulty lines", *BAD)):
        fails(command(*tune), *words, "on_bad=skip")
        (copied.root / "heldout.jsonl").write_bytes((whole[0].root / "heldout.jsonl").read_bytes())
    assert not (tmp_path / "tune/model").exists()

    (copied.root / "heldout.jsonl").write_bytes((copied.source / "heldout.jsonl").read_bytes())
    said = succeeds(command(*copied.words, "dataset.on_bad=skip"))
    assert "1 files missing, 2 do not open" in said and "left out, unreadable media: 4 questions" in said
    said = succeeds(command(*tune, "dataset.on_bad=skip"))
    assert all(word in " ".join(said.split()) for word in (*BAD, "unreadable media: 8")), said
    assert json.loads((tmp_path / "tune/summary.json").read_text())["faults"] == 14  # four of them held-out questions
    asked = rows(tmp_path / "tune/predictions/after.jsonl")  # a video that does not open counts as wrong
    assert len(asked) == len(rows(whole[0].root / "heldout.jsonl")) - 1
    wrong = [row for row in asked if "error" in row]
    assert len(wrong) == 4 and all(row["scene"] == "heldout_00001" and not row["reward"]["total"] for row in wrong)

    for name in (LINES, "heldout.jsonl"):
        shutil.copyfile(whole[0].root / name, copied.root / name)
    said = succeeds(command(*copied.words))
    assert "0 files missing, 2 do not open" in said and "unreadable media: 8" in said
    succeeds(command(*tune[:-1], "stage.evaluate_after=false", f"hydra.run.dir={tmp_path / 'mended'}"))
    assert json.loads((tmp_path / "mended/summary.json").read_text())["faults"] == 4


@pytest.mark.long
def test_spacer_and_rooms_in_one_epoch(command: Command, whole: tuple[Folder, str], tmp_path: Path) -> None:
    rooms = ("train_scenes=4", "heldout_scenes=2", "heldout_questions_per_scene=2", "size_px=96")
    parts = [f"dataset.parts.spacer.{word}" for word in (f"root={whole[0].root}", *MEDIA)]
    parts += [f"dataset.parts.rooms.{word}" for word in rooms]
    shares = ("dataset.weights.spacer=0.5", "dataset.weights.rooms=0.5", "stage.evaluate_before=false")
    words = ["stage=train", "dataset=mix", *parts, *SMALL, *shares, "trainer.max_steps=2"]
    succeeds(command(*words, f"hydra.run.dir={tmp_path}"))
    asked = [row["id"].partition("/") for row in rows(tmp_path / "predictions/after.jsonl")]
    assert len(rows(tmp_path / "history.jsonl")) == 2
    assert {name for part, _, name in asked if part == "spacer"} == {
        row["problem_id"] for row in rows(whole[0].root / "heldout.jsonl")
    }
    assert sum(part == "rooms" for part, _, _ in asked) == 4 and {part for part, _, _ in asked} == {"spacer", "rooms"}
    assert json.loads((tmp_path / "summary.json").read_text())["withheld"] == {"videos": 1, "questions": 4}


def test_sr_91k_trains_on_the_spatial_questions_alone(
    command: Command, whole: tuple[Folder, str], tmp_path: Path
) -> None:
    once = ("stage=sft", "stage.batch_size=1", "dataset.questions_per_video=1", "stage.evaluate_after=false")
    words = using(whole[0].root, tmp_path, *once, "trainer.checkpoint_every_n_steps=100", dataset="sr_91k")
    succeeds(command(*words))
    spatial = [row for row in rows(whole[0].root / LINES) if row["data_source"] == "SR_dataset"]
    assert len(rows(tmp_path / "history.jsonl")) == len(spatial) < len(rows(whole[0].root / LINES))
