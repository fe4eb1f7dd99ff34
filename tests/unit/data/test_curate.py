"""Curated questions follow from their annotation, are balanced and the same after a crash."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.config.settings import ScansSettings
from spacer.data.scenes import candidates
from spacer.data.scenes.balance import FEW_ANSWERS
from spacer.data.scenes.curating import Curated, curate_scans
from spacer.data.scenes.scans import annotation_files, read_scans, upright
from spacer.data.scenes.scene import SceneObject
from spacer.data.sources import load_train
from tests.unit.data import rederive
from tests.unit.data.annotations import about, box_of, entries, write

SCENES = 1000
FILES = ("questions.jsonl", "cognitive_map.jsonl", "scenes.jsonl")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def spoil(annotations: dict[str, dict[str, Any]]) -> Counter[str]:
    """Has some scenes annotated as real ones are: counts that contradict boxes, no times, objects never shown."""
    done: Counter[str] = Counter()
    for number, entry in enumerate(annotations.values()):
        boxes = next(iter(entry["object_bbox"].items()))
        if number % 40 == 0:
            entry["object_counts"][boxes[0]] += 1
            done["miscounted"] += 1
        elif number % 40 == 10:
            boxes[1][0]["first_seen"] = None
            done["unseen"] += 1
        elif number % 40 == 20:
            del boxes[1][0]["first_seen"]
            done["untimed"] += 1
    return done


@dataclasses.dataclass
class Made:
    annotations: dict[str, dict[str, Any]]
    spoilt: Counter[str]
    settings: ScansSettings
    curated: Curated
    root: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        return rows(self.root / "questions.jsonl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A thousand rooms, annotated and curated."""
    root = tmp_path_factory.mktemp("scans")
    annotations = entries(SCENES, tilted_share=0.03)
    spoilt = spoil(annotations)
    settings = write(root, annotations, seed=7)
    return Made(annotations, spoilt, settings, curate_scans(settings), root)


# ---- what is asked


@pytest.mark.parametrize("kind", rederive.CHECKS)
def test_every_answer_follows_from_the_annotation(made: Made, kind: str) -> None:
    lines = [line for line in made.lines if line["question_type"] == kind]
    assert len(lines) >= 0.02 * len(made.lines)
    for line in lines:
        rederive.check(made.annotations[line["scene"]], line)


def test_maps_are_those_of_the_boxes(made: Made) -> None:
    maps = rows(made.root / "cognitive_map.jsonl")
    assert [entry["video_id"] for entry in maps] == sorted(made.annotations)
    for entry in maps:
        assert entry["cognitive_map"] == rederive.cells(made.annotations[entry["video_id"]])
        assert entry["object_list"] == sorted(made.annotations[entry["video_id"]]["object_bbox"])


def test_the_data_set_is_one_to_train_on(made: Made) -> None:
    split = load_train(made.settings)
    assert not split.faults
    assert len(split.samples) == len(made.lines) == len(made.curated.posed)
    assert all(sample.true_map and sample.source == "made" and sample.reasoning for sample in split.samples)
    assert {sample.path.stem for sample in split.samples} <= set(made.annotations)


def test_no_question_is_asked_twice_of_a_scene(made: Made) -> None:
    asked = Counter((line["scene"], line["problem"]) for line in made.lines)
    assert max(asked.values()) == 1
    for kinds in Counter((line["scene"], line["question_type"]) for line in made.lines).values():
        assert kinds <= made.settings.questions_per_type


def test_letters_are_right_equally_often(made: Made) -> None:
    letters: dict[Any, Counter[str]] = defaultdict(Counter)
    places: dict[int, Counter[str]] = defaultdict(Counter)
    for line in made.lines:
        if line["options"]:
            letter = rederive.solution(line)
            letters[line["question_type"], len(line["options"])][letter] += 1
            places[len(line["options"])][letter] += 1
            assert line["reasoning"].endswith(f"That is {letter}.")
    for (_, count), found in letters.items():
        every = [found[letter] for letter in "ABCD"[:count]]
        assert max(every) - min(every) <= 1 and sum(every) == found.total()
    for count, found in places.items():
        for letter in "ABCD"[:count]:
            assert abs(found[letter] / found.total() - 1 / count) <= 0.05


def test_no_answer_is_too_common(made: Made) -> None:
    for kind in FEW_ANSWERS:
        answers = Counter(rederive.content(line) for line in made.lines if line["question_type"] == kind)
        limit = max(made.settings.max_answer_share, 1 / len(answers))
        assert len(answers) >= 2
        assert max(answers.values()) <= limit * answers.total() + 1e-6


def test_what_was_left_out_is_counted(made: Made) -> None:
    told = made.curated.left_out
    assert told["categories whose boxes differ from object_counts"] == made.spoilt["miscounted"]
    assert told["categories that the video shows only in part"] == made.spoilt["unseen"]
    assert told["scenes without first_seen (no orders)"] == made.spoilt["untimed"]
    tilted = 0
    for entry in made.annotations.values():
        for boxes in entry["object_bbox"].values():
            tilted += len(boxes) == 1 and max(abs(value) for value in boxes[0]["normalizedAxes"][2::3]) < 0.98
    assert told["single objects too tilted for their extent"] == tilted > 0
    posed = sum(len(row["questions"]) for row in rows(next((made.root / ".curate").iterdir())))
    assert told["questions whose answer was too common"] == posed - len(made.lines)
    for kind, count in made.curated.unposed.items():
        asked = {line["scene"] for line in made.lines if line["question_type"] == kind}
        assert count <= SCENES - len(asked)


# ---- boxes


@given(
    st.floats(-math.pi, math.pi),
    st.floats(0, 9.9) | st.floats(10.1, 44),
    st.tuples(*[st.floats(0.1, 3)] * 3),
    st.integers(0, 2**31),
)
def test_a_box_is_made_upright_whatever_the_order_of_its_axes(
    yaw: float, tilt: float, size: tuple[float, float, float], seed: int
) -> None:
    item = SceneObject("bed", (1.0, 2.0, 0.5), size, 0.0, 3.5)
    moved = np.array([4.0, -1.0, 0.25])
    box = box_of(item, yaw, moved, np.random.default_rng(seed), tilt)
    found, off = upright("bed", box)
    assert off == pytest.approx(tilt, abs=1e-4)
    assert found.centre == pytest.approx(about(2, yaw) @ np.array(item.centre) + moved)
    assert (found.category, found.first_seen) == ("bed", 3.5)
    assert found.size[2] == pytest.approx(size[2])
    assert sorted(found.size[:2]) == pytest.approx(sorted(size[:2]))
    untilted = SceneObject("bed", found.centre, size, yaw, 3.5)
    for corner in untilted.footprint():
        assert min(math.dist(corner, other) for other in found.footprint()) < 1e-6


# ---- the same again, after an interruption, in any order


@pytest.fixture
def small(tmp_path: Path) -> ScansSettings:
    return write(tmp_path, entries(12), workers=1)


def written(settings: ScansSettings) -> dict[str, bytes]:
    return {name: (Path(settings.root) / name).read_bytes() for name in FILES}


def test_an_interrupted_run_ends_with_the_same_files(small: ScansSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    curate_scans(small)
    whole = written(small)
    (log,) = (Path(small.root) / ".curate").iterdir()
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 12
    # five scenes in another order, a line that another writer cut into, and one that a crash tore off
    log.write_bytes(b"".join(reversed(lines[3:8])) + b'{"scan": "ma{"scan"\n' + lines[0][:-20])
    for name in FILES:
        (Path(small.root) / name).unlink()
    asked: list[str] = []
    append = candidates.append_rows

    def spy(path: Path, made: list[dict[str, Any]]) -> None:
        asked.extend(row["scan"] for row in made)
        append(path, made)

    monkeypatch.setattr(candidates, "append_rows", spy)
    curate_scans(small)
    assert written(small) == whole
    assert len(asked) == 7 and len(set(asked)) == 7
    asked.clear()
    curate_scans(small)
    assert written(small) == whole and not asked


def test_a_killed_run_keeps_what_it_posed(small: ScansSettings) -> None:
    program = (
        "import os, signal, sys\n"
        "from spacer.data.scenes import candidates, curating\n"
        "from spacer.config.settings import ScansSettings\n"
        "append, done = candidates.append_rows, []\n"
        "def die(path, rows):\n"
        "    append(path, rows); done.append(1)\n"
        "    if len(done) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "candidates.append_rows = die\n"
        "if __name__ == '__main__':\n"
        "    curating.curate_scans(ScansSettings(sys.argv[1], workers=1))\n"
    )
    script = Path(small.root) / "killed.py"
    script.write_text(program)
    repository = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, str(script), small.root], env=environment, timeout=60, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (log,) = (Path(small.root) / ".curate").iterdir()
    assert len(rows(log)) == 4
    assert not (Path(small.root) / "questions.jsonl").exists()
    curate_scans(small)
    resumed = written(small)
    log.unlink()
    curate_scans(small)
    assert written(small) == resumed


def test_what_shapes_the_candidates_names_their_file(small: ScansSettings) -> None:
    named = {candidates._digest(small)}
    for change in ({"seed": 1}, {"questions_per_type": 3}):
        named.add(candidates._digest(dataclasses.replace(small, **change)))
    (path,) = annotation_files(small)
    path.write_text(path.read_text() + " ")
    named.add(candidates._digest(small))
    assert len(named) == 4
    assert candidates._digest(dataclasses.replace(small, workers=9, max_answer_share=0.9)) in named


def test_a_scan_is_asked_the_same_whatever_others_there_are(tmp_path: Path) -> None:
    annotations = entries(4)
    alone = write(tmp_path / "a", {"scene0002": annotations["scene0002"]})
    beside = write(tmp_path / "b", annotations)
    (scan,) = read_scans(alone)[0]
    assert candidates.pose_some(scan, 0, 2) == candidates.pose_some(read_scans(beside)[0][2], 0, 2)
    assert candidates.pose_some(scan, 0, 2) != candidates.pose_some(scan, 1, 2)
