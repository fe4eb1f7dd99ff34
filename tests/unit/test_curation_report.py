"""The report on a curated data set: samples of every type, a frame or a plan for each, numbers that add up."""

from __future__ import annotations

import io
import os
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spacer.config.settings import ScansSettings
from spacer.data.scenes.curating import Curated, curate_scans
from spacer.data.scenes.questions import QUESTION_TYPES
from spacer.report import contact_sheet
from spacer.report.curation import by_type, curation_table, histograms, print_places, summary_of
from spacer.terminal.screen import screen
from tests.unit.data.annotations import entries, write


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ScansSettings:
    return write(tmp_path_factory.mktemp("some scans"), entries(30), workers=1)


@pytest.fixture(scope="module")
def made(settings: ScansSettings) -> Curated:
    return curate_scans(settings)


def decoded(path: Path) -> np.ndarray | None:
    """Stands for a decoder that the first scene's video brings down and that cannot read the second's."""
    number = int(path.stem[-4:])
    if number == 0:
        os._exit(9)
    return None if number == 1 else np.full((4, 6, 3), number, dtype=np.uint8)


def test_a_video_that_brings_the_decoder_down_costs_its_own_frame_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "_middle_frame", decoded)
    paths = [Path(f"scene{number:04d}.mp4") for number in (2, 0, 1, 3)]
    frames = list(contact_sheet._middle_frames(paths))
    assert [None if frame is None else int(frame.max()) for frame in frames] == [2, None, None, 3]


def test_samples_are_of_every_type_and_of_many_scenes(made: Curated) -> None:
    shown = contact_sheet.samples(made.posed)
    assert len(shown) == contact_sheet.SHOWN == len({item.id for item in shown})
    assert {item.question.question_type for item in shown} == set(QUESTION_TYPES)
    assert len({item.scan.name for item in shown}) == len(shown)
    assert contact_sheet.samples(made.posed[:3]) != [] and len(contact_sheet.samples(made.posed[:3])) == 3


def test_a_sheet_shows_the_question_and_marks_the_right_answer(
    made: Curated, settings: ScansSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "_middle_frames", lambda paths: iter([None] * len(paths)))
    figure = contact_sheet.contact_sheet(made, Path(settings.root))
    texts = [(text.get_text(), text.get_fontweight()) for text in figure.texts]
    said = " ".join(text for text, _ in texts)
    for item in contact_sheet.samples(made.posed):
        assert item.id in said
        assert item.question.text in said.replace("  ", " ")
        right = f"{item.question.answer}. " if item.question.options else f"Answer: {item.question.answer}"
        assert any(text.startswith(right) and weight == "bold" for text, weight in texts)
    # nothing is written over anything else
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    edge = figure.bbox
    assert all(box.x0 >= 0 and box.x1 <= edge.x1 and box.y0 >= 0 and box.y1 <= edge.y1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_numbers_add_up(made: Curated, tmp_path: Path) -> None:
    summary = summary_of(made)
    assert sum(by_type(made).values()) == summary["questions"] == len(made.posed)
    letters = Counter(item.question.answer for item in made.posed if item.question.options)
    assert summary["right_letters"] == letters
    assert curation_table(made).row_count == len(QUESTION_TYPES)
    figure = histograms(made, tmp_path / "h.png")
    assert (tmp_path / "h.png").stat().st_size > 1000
    first, right, counts, *_ = figure.axes
    assert sorted(bar.get_width() for bar in first.patches) == sorted(by_type(made).values())
    assert sum(bar.get_height() for bar in right.patches) == letters.total()
    assert sum(bar.get_height() for bar in counts.patches) == by_type(made)["object_counting"]


def test_the_command_to_train_can_be_pasted(made: Curated, settings: ScansSettings, tmp_path: Path) -> None:
    console = screen(file=io.StringIO(), width=80)
    print_places(console, made, settings, tmp_path)
    assert isinstance(console.file, io.StringIO)
    last = shlex.split(console.file.getvalue().splitlines()[-1])
    assert last[:4] == ["python", "run.py", "dataset=scans", f"dataset.root='{settings.root}'"]
    assert " " in settings.root
