"""From annotated scans to a model trained on them, as a user does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spacer.config.settings import RoomsSettings
from spacer.data.scenes import rooms
from tests.cli.conftest import Command, succeeds
from tests.cli.test_faults import jsonl
from tests.cli.test_train import rows
from tests.unit.data.annotations import entry_of, write

TEN_TYPES = 10


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five annotated scenes with their videos, one of which is broken and one missing."""
    root = tmp_path_factory.mktemp("scans")
    settings = RoomsSettings(str(root), seed=2, size_px=96, seconds=4.0, video_fps=4)
    (root / "films").mkdir()
    scenes = [rooms.make_scene(settings, "train", index, root / "films") for index in range(5)]
    annotations = {f"room{i}": entry_of(scene, np.random.default_rng(i)) for i, scene in enumerate(scenes)}
    write(root, annotations)
    for index, scene in enumerate(scenes):
        shutil.move(root / f"films/{scene.name}.mp4", root / f"videos/made/room{index}.mp4")
    (root / "videos/made/room3.mp4").write_bytes(b"this is no video" * 100)
    (root / "videos/made/room4.mp4").unlink()
    return root


def test_a_missing_video_stops_it_and_is_told(command: Command, filmed: Path, tmp_path: Path) -> None:
    done = command("stage=curate", "dataset=scans", f"dataset.root={filmed}", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 1
    for words in ("1 faulty scene", "missing file", "room4.mp4", "dataset.on_bad=skip"):
        assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (filmed / "questions.jsonl").exists()


@pytest.mark.long
def test_scans_are_curated_and_then_trained_on(
    command: Command, without_torch: Command, filmed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "curated"
    words = ["stage=curate", "dataset=scans", f"dataset.root={filmed}", "dataset.on_bad=skip", f"hydra.run.dir={out}"]
    printed = succeeds(without_torch(*words, cwd=tmp_path))
    lines = rows(filmed / "questions.jsonl")
    assert len({line["question_type"] for line in lines}) >= 8
    assert {line["path"] for line in lines} == {f"videos/made/room{index}.mp4" for index in range(4)}
    assert {row["video_id"] for row in rows(filmed / "cognitive_map.jsonl")} == {f"room{index}" for index in range(4)}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["scenes"], summary["questions"], summary["faults"]) == (4, len(lines), 1)
    assert sum(summary["questions_by_type"].values()) == len(lines)
    assert len(summary["questions_by_type"]) == TEN_TYPES
    for words_said in (f"{len(lines)} questions about 4 scenes", "missing file: 1", str(filmed / "questions.jsonl")):
        assert words_said in printed, printed
    for name in ("curate_histograms", "curate_contact_sheet"):
        with Image.open(out / f"figures/{name}.png") as picture:
            assert picture.width > 1000 and len(picture.convert("L").getcolors() or []) > 10

    # as it says, with small settings, on the scenes whose videos can be read
    said = f"python run.py dataset=scans dataset.root={filmed}"
    assert said in printed
    small = [word for word in jsonl(filmed, tmp_path / "trained", "skip") if not word.startswith("dataset.index")]
    small = [word for word in small if word not in ("dataset=jsonl", "dataset.maps=cognitive_map.jsonl")]
    done = command("dataset=scans", *small, "trainer.max_steps=1", "dataset.image_max_pixels=13000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "trained/model/model.safetensors").exists()
    (step,) = rows(tmp_path / "trained/history.jsonl")
    assert "reward/total" in step
