"""Data that cannot be intended are reported before training, with counts; files of one name are not confused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.config.choices import OnBad
from spacer.data.index import is_fresh
from spacer.data.meaning import meaning_faults
from spacer.data.prepare.build import build_index
from spacer.data.samples import PROBLEM_TYPES, DataError, examined
from spacer.data.sources import load_train
from spacer.rewards import answer_reward
from tests.unit.data.test_leakage import only, settings_of
from tests.unit.data.written import jsonl, row, write

pytestmark = pytest.mark.usefixtures("unopened")
LETTERED = ["A. 3.2m", "B. 4.1m"]


def kinds(**changes: Any) -> list[str]:
    line = row(1, **changes)
    solution = line["solution"].removeprefix("<answer>").removesuffix("</answer>").strip()
    return [kind for kind, _ in meaning_faults(line, solution)]


@pytest.mark.parametrize(
    ("problem_type", "options", "solution", "expected"),
    [
        ("multiple choice", LETTERED, "B", []),
        ("multiple choice", LETTERED, "B. 4.1m", []),
        ("multiple choice", ["(A) left", "(B) right"], "(a)", []),
        ("multiple choice", ["A", "B", "C"], "C", []),  # pictures
        ("multiple choice", ["B. left", "C. right"], "C", []),
        ("multiple choice", LETTERED, "4.1m", ["solution is no letter"]),
        ("multiple choice", LETTERED, "left", ["solution is no letter"]),
        ("multiple choice", LETTERED, "C", ["solution is no option"]),
        ("multiple choice", ["left", "right"], "A", ["options without letters"]),
        ("multiple choice", ["A. left", "A chair"], "A", ["options without letters"]),
        ("multiple choice", ["A. left", "A. right"], "A", ["options of one letter"]),
        ("multiple choice", LETTERED, "", ["empty solution"]),
        ("numerical", [], "three", []),
        ("numerical", [], "3.2 meters", []),
        ("numerical", [], "many", ["no number"]),
        ("numerical", [], "9" * 400, ["no number"]),  # which no float holds
        ("regression", [], "-0.5", []),
        ("regression", [], "B", ["no number"]),
        ("regression", [], " ", ["empty solution"]),
        ("OCR", [], "出口", []),
        ("OCR", [], "", ["empty solution"]),
        ("free-form", [], "a red chair", []),
        ("free-form", [], "出口", ["nothing to compare"]),
        ("free-form", [], "…", ["nothing to compare"]),
    ],
)
def test_what_no_answer_could_earn(problem_type: str, options: list[str], solution: str, expected: list[str]) -> None:
    wrapped = f"<answer>{solution}</answer>"
    assert kinds(problem_type=problem_type, options=options, solution=wrapped) == expected


@given(
    problem_type=st.sampled_from([kind for kind in PROBLEM_TYPES if kind not in ("OCR", "free-form")]),
    solution=st.sampled_from(["A", "(b)", "C", "B. 4.1m", "3", "-0", "two", "1e400", "x", "A chair", "٣"]) | st.text(),
)
def test_what_is_let_through_can_be_earned(problem_type: str, solution: str) -> None:
    solution = solution.strip()
    if "</answer>" in solution or kinds(problem_type=problem_type, options=LETTERED, solution=solution):
        return
    perfect = [f"<answer>{answer}</answer>" for answer in ("A", "B", solution)]
    assert max(answer_reward(answer, solution, problem_type) for answer in perfect) == 1.0


@pytest.fixture
def muddled(root: Path) -> Path:
    choice = {"problem_type": "multiple choice", "options": LETTERED}
    write(
        root / "i.jsonl",
        row(1),
        row(2, **choice, solution="left"),
        row(3, **choice, solution="E"),
        row(4, solution="<answer></answer>"),
        row(5, solution="many"),
        row(6, solution="several"),
        row(7, problem_type="multiple choice", options=["left", "right"], solution="A"),
    )
    return root


COUNTS = ("solution is no letter: 1", "solution is no option: 1", "empty solution: 1", "no number: 2")


@pytest.mark.parametrize("ready", [False, True])
def test_they_stop_a_run_or_are_left_out_with_counts(ready: bool, muddled: Path) -> None:
    if ready:
        assert build_index(jsonl(muddled)).excluded == {
            **{"solution is no letter": 1, "solution is no option": 1, "empty solution": 1, "no number": 2},
            "options without letters": 1,
        }
    assert is_fresh(jsonl(muddled)) == ready
    with pytest.raises(DataError) as raised:
        load_train(jsonl(muddled))
    for told in (
        *COUNTS,
        "options without letters: 1",
        "line 5: the solution of a numerical question must be a number",
        "6 faulty lines",
    ):
        assert told in str(raised.value)
    split = load_train(jsonl(muddled, on_bad=OnBad.skip))
    assert [sample.id for sample in split.samples] == ["1"] and len(split.faults) == 6


# maps and files


def mapped(root: Path, *names: str) -> None:
    """A map of each name, with as many beds as its place among them."""
    points = {name: [[n, n]] * n for n, name in enumerate(names, 1)}
    write(root / "m.jsonl", *({"video_id": name, "cognitive_map": {"bed": points[name]}} for name in names))


@pytest.fixture
def alike(root: Path) -> Path:
    """Two scenes whose videos are called the same, and one more with a picture of it."""
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "scene.mp4").write_bytes(folder.encode())
    (root / "a/other.mp4").write_bytes(b"other")
    (root / "a/other.png").write_bytes(b"other")
    picture = row(4, path="a/other.png", data_type="image")
    write(
        root / "i.jsonl",
        *(row(1, path="a/scene.mp4"), row(2, path="b/scene.mp4"), row(3, path="a/other.mp4"), picture),
    )
    return root


def test_maps_under_paths_are_told_apart(alike: Path) -> None:
    mapped(alike, "a/scene", "b/scene.mp4", "other")
    settings = jsonl(alike, maps="m.jsonl")
    read = load_train(settings).samples
    assert [len((sample.true_map or {})["bed"]) for sample in read] == [1, 2, 3, 3]
    assert [sample.scene for sample in read] == ["a/scene", "b/scene", "other", "other"]
    assert build_index(settings).with_map == 4
    assert is_fresh(settings) and load_train(settings).samples == read


@pytest.mark.parametrize("ready", [False, True])
def test_a_map_under_a_name_that_two_files_have_is_a_fault_of_their_lines(ready: bool, alike: Path) -> None:
    mapped(alike, "scene", "other")
    if ready:
        build_index(jsonl(alike, maps="m.jsonl"))
    with pytest.raises(DataError, match=r"ambiguous map: 2\n    line 1: 'scene' may be any of a/scene, b/scene: use"):
        load_train(jsonl(alike, maps="m.jsonl"))
    split = load_train(jsonl(alike, maps="m.jsonl", on_bad=OnBad.skip))
    assert [sample.id for sample in split.samples] == ["3", "4"]
    assert [fault.kind for fault in split.faults] == ["ambiguous map"] * 2
    assert len(load_train(jsonl(alike)).samples) == 4  # without maps nothing is in doubt


@pytest.mark.parametrize("ready", [False, True])
def test_maps_that_match_no_file_are_told(ready: bool, alike: Path) -> None:
    mapped(alike, "scene0011_00", "scene0012_00")
    settings, skipping = (jsonl(alike, maps="m.jsonl", on_bad=on_bad) for on_bad in (OnBad.stop, OnBad.skip))
    if ready:
        faults = build_index(settings).faults
        assert [fault.kind for fault in faults] == ["maps match nothing"]
    with pytest.raises(DataError, match=r"none of the 2 video_ids, such as 'scene0011_00', .* such as 'a/scene'"):
        load_train(settings)
    split = load_train(skipping)
    assert len(split.samples) == 4 and [fault.kind for fault in split.faults] == ["maps match nothing"]


def test_maps_of_other_sources_than_the_wanted_are_no_fault(alike: Path) -> None:
    mapped(alike, "other")
    write(alike / "i.jsonl", row(1, path="a/scene.mp4", data_source="general"), row(2, path="a/other.mp4"))
    for _ in range(2):
        split = load_train(jsonl(alike, maps="m.jsonl", data_sources=("general",)))
        assert len(split.samples) == 1 and not split.faults
        build_index(jsonl(alike, maps="m.jsonl"))


@pytest.mark.parametrize("ready", [False, True])
def test_a_file_of_the_same_name_as_a_held_out_one_is_trained_on_unless_it_is_the_same(
    ready: bool, alike: Path
) -> None:
    (alike / "copies").mkdir()
    (alike / "copies/scene.mp4").write_bytes((alike / "b/scene.mp4").read_bytes())
    write(alike / "i.jsonl", *(row(n, path=f"{place}/scene.mp4") for n, place in enumerate(["a", "b", "copies"])))
    write(alike / "h.jsonl", row(9, path="b/scene.mp4"))
    settings = jsonl(alike, heldout="h.jsonl")
    if ready:
        build_index(settings)
    piece = only(settings_of(settings))
    assert [sample.id for sample in piece.train.samples] == ["0"]
    assert (piece.train.withheld.videos, piece.train.withheld.questions) == (2, 2)


@pytest.mark.parametrize("ready", [False, True])
def test_a_benchmarks_bare_name_withholds_every_file_of_that_name(ready: bool, alike: Path, tmp_path: Path) -> None:
    named = tmp_path / "bench.txt"
    named.write_text("scene\n")
    settings = jsonl(alike, exclude=(str(named),))
    if ready:
        build_index(settings, [named])
    assert [sample.id for sample in only(settings_of(settings)).train.samples] == ["3", "4"]


def test_every_fault_of_a_line_is_told(root: Path) -> None:
    options = ["A. left", "A. right"]
    write(root / "i.jsonl", row(1, problem_type="multiple choice", options=options, solution="C"))
    (line,) = examined(root / "i.jsonl", root)
    assert [fault.kind for fault in line.faults] == ["options of one letter", "solution is no option"]
