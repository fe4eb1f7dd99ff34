"""Every faulty line is named, by line and kind, and every sound one still comes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from spacer.config.choices import OnBad
from spacer.config.settings import RoomsSettings
from spacer.data.samples import DataError, Fault, describe, read_maps, read_samples
from spacer.data.sources import load_heldout, load_train
from tests.unit.data.written import FAULTY, jsonl, row, without, write


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_named_and_its_neighbours_are_read(name: str, root: Path) -> None:
    line, kinds = FAULTY[name]
    samples, faults = read_samples(write(root / "i.jsonl", row(1), line, row(3)), root, {})
    assert [(fault.where, fault.kind) for fault in faults] == [("line 2", kind) for kind in kinds]
    assert all(fault.detail for fault in faults)
    assert [sample.id for sample in samples] == ["1", "3"]


@pytest.mark.parametrize("name", ["problem_id", "options"])
def test_a_missing_id_or_options_is_a_missing_field_too(name: str, root: Path) -> None:
    _, faults = read_samples(write(root / "i.jsonl", without(name)), root, {})
    assert [(fault.where, fault.kind) for fault in faults] == [("line 1", "missing field")]


@pytest.mark.parametrize(
    ("name", "value"), [("reasoning", ["x"]), ("reasoning", 5), ("scene", None), ("question_type", None)]
)
def test_wrong_types_of_optional_fields_are_faults(name: str, value: object, root: Path) -> None:
    """`Sample.reasoning` is text or None, and a scene of null is no scene called "None"."""
    samples, faults = read_samples(write(root / "i.jsonl", row(1, **{name: value})), root, {})
    assert [fault.kind for fault in faults] == ["wrong field"] or getattr(samples[0], name) not in (value, "None")


@pytest.mark.parametrize(
    "path",
    ["a\0.mp4", "x" * 300 + ".mp4", "loop.mp4", "loop.mp4/a.mp4", "\ud800.mp4"],
    ids=["null", "long", "loop", "in a loop", "surrogate"],
)
def test_a_path_that_the_system_refuses_is_a_fault(path: str, root: Path) -> None:
    samples, faults = read_samples(write(root / "i.jsonl", row(1), row(2, path=path), row(3)), root, {})
    assert [fault.where for fault in faults] == ["line 2"]
    assert [sample.id for sample in samples] == ["1", "3"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"problem_id": 2, "problem": "\xff\xfe"}',  # not UTF-8
        b"[" * 100_000,
        b'{"problem_id": ' + b"1" * 5000 + b"}",  # more digits than Python turns into a number
    ],
    ids=["encoding", "depth", "digits"],
)
def test_a_line_that_the_parser_refuses_is_a_fault(line: bytes, root: Path) -> None:
    index = root / "i.jsonl"
    index.write_bytes(json.dumps(row(1)).encode() + b"\n" + line + b"\n" + json.dumps(row(3)).encode() + b"\n")
    samples, faults = read_samples(index, root, {})
    assert [fault.where for fault in faults] == ["line 2"]
    assert [sample.id for sample in samples] == ["1", "3"]


def test_all_faults_come_at_once_by_their_lines(root: Path) -> None:
    lines = [line for line, _ in FAULTY.values()]
    index = write(root / "i.jsonl", row(1), "", *lines, "   ", row(99))  # blank lines count, and are no fault
    samples, faults = read_samples(index, root, {})
    expected = [(f"line {number}", kind) for number, (_, kinds) in enumerate(FAULTY.values(), 3) for kind in kinds]
    assert [(fault.where, fault.kind) for fault in faults] == expected
    assert [sample.id for sample in samples] == ["1", "99"]


def test_a_faulty_line_does_not_take_its_id(root: Path) -> None:
    samples, faults = read_samples(write(root / "i.jsonl", row(1, path="none.mp4"), row(1)), root, {})
    assert [sample.id for sample in samples] == ["1"]
    assert [fault.where for fault in faults] == ["line 1"]


def test_each_line_about_a_missing_file_is_named(root: Path) -> None:
    index = write(root / "i.jsonl", *(row(number, path="none.mp4") for number in range(3)))
    assert [fault.where for fault in read_samples(index, root, {})[1]] == ["line 1", "line 2", "line 3"]


def test_links_that_stay_inside_are_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other_name").symlink_to(root)
    index = write(root / "i.jsonl", row(1, path="in.mp4"))
    for given_root in (root, tmp_path / "other_name", tmp_path / "elsewhere" / ".." / "data"):
        samples, faults = read_samples(index, given_root, {})
        assert not faults
        assert samples[0].path == (root / "videos" / "b.mp4").resolve()


# ---- sound samples


@pytest.mark.parametrize(
    ("solution", "bare"),
    [
        ("<answer>B</answer>", "B"),
        ("B", "B"),
        ("  3.2 ", "3.2"),
        ("<answer>\n a b\n</answer>", "a b"),
        ("<think>…</think><answer>7</answer>", "7"),
    ],
)
def test_solutions_are_read_bare_and_wrapped(solution: str, bare: str, root: Path) -> None:
    samples, faults = read_samples(write(root / "i.jsonl", row(1, problem_type="OCR", solution=solution)), root, {})
    assert not faults
    assert samples[0].solution == bare


@pytest.mark.parametrize("problem_type", ["multiple choice", "numerical", "OCR", "free-form", "regression"])
@pytest.mark.parametrize("data_type", ["image", "video"])
def test_all_types_of_the_published_data_are_read(problem_type: str, data_type: str, root: Path) -> None:
    path = {"image": "picture.png", "video": "videos/a.mp4"}[data_type]
    solution = "<answer>B</answer>" if problem_type == "multiple choice" else "<answer>3</answer>"
    changes = {"problem_type": problem_type, "data_type": data_type, "path": path, "solution": solution}
    line = row(7, options=["A. 1", "B. 2"], **changes)
    (sample,), faults = read_samples(write(root / "i.jsonl", line), root, {})
    assert not faults
    assert (sample.problem_type, sample.data_type, sample.path) == (problem_type, data_type, (root / path).resolve())
    assert sample.options == ("A. 1", "B. 2")


@pytest.mark.parametrize("path", [{}, {"path": ""}, {"path": None}])
def test_a_question_of_text_has_no_file_and_a_scene_of_its_own(path: dict[str, Any], root: Path) -> None:
    text = {key: value for key, value in row("a", data_type="text").items() if key != "path"} | path
    told = text | {"problem_id": "b", "scene": "s"}
    maps = {"a": {"bed": [[1, 2]]}, "b": {"bed": [[3, 4]]}}
    found, faults = read_samples(write(root / "i.jsonl", row(1), text, told), root, maps)
    assert not faults and [sample.id for sample in found] == ["1", "a", "b"]
    video, first, second = found
    assert video.file == video.path and (first.file, second.file) == (None, None)
    assert len({sample.path for sample in found}) == 3 and not any(sample.path.is_absolute() for sample in found[1:])
    # the video is called a, too; they share neither an interval's cluster nor its map
    assert video.scene == "a" and first.scene not in ("a", second.scene) and second.scene == "s"
    assert video.true_map == maps["a"] and first.true_map is None and second.true_map is None


def test_what_other_data_leaves_out_gets_a_value(root: Path) -> None:
    line = {key: value for key, value in row(7).items() if key != "data_source"}
    (sample,), _ = read_samples(write(root / "mine.jsonl", line), root, {})
    assert (sample.source, sample.scene, sample.question_type) == ("", "a", "numerical")
    assert (sample.reasoning, sample.true_map) == (None, None)


def test_fields_of_rooms_are_kept(root: Path) -> None:
    line = row(7, scene="s", question_type="object_counting", reasoning="One, two, three.", data_source="rooms")
    (sample,), _ = read_samples(write(root / "i.jsonl", line), root, {"a": {"chair": [[1, 2]]}, "s": {}})
    assert (sample.source, sample.scene, sample.question_type) == ("rooms", "s", "object_counting")
    assert sample.reasoning == "One, two, three."
    assert sample.true_map == {"chair": [[1, 2]]}  # by the stem of the file


def test_texts_of_any_script_and_line_end_are_kept(root: Path) -> None:
    text = "Où est\u2028la 椅子?\r\nThere\u0085"  # U+2028 and U+0085 end a line to some readers, and not in JSONL
    index = root / "i.jsonl"
    index.write_text(json.dumps(row(1, problem=text), ensure_ascii=False) + "\r\n", encoding="utf-8", newline="")
    (sample,), faults = read_samples(index, root, {})
    assert not faults
    assert sample.problem == text


# ---- maps


def test_maps_are_read_by_video(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl",
        {"video_id": "a", "cognitive_map": {"chair": [[1, 2], [3, 4]], "bed": []}, "object_list": ["bed", "chair"]},
        "",
        {"video_id": "b", "cognitive_map": {}},
    )
    assert read_maps(path) == {"a": {"chair": [[1, 2], [3, 4]], "bed": []}, "b": {}}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        "5",
        {"video_id": "a"},
        {"cognitive_map": {}},
        {"video_id": ["a"], "cognitive_map": {}},
        {"video_id": "a", "cognitive_map": [[1, 2]]},
        {"video_id": "a", "cognitive_map": None},
        {"video_id": "a", "cognitive_map": {"chair": 5}},
        {"video_id": "a", "cognitive_map": {"chair": [1, 2]}},  # a bare point
        {"video_id": "a", "cognitive_map": {"chair": [[1]]}},
        {"video_id": "a", "cognitive_map": {"chair": [[1, 2, 3]]}},
        {"video_id": "a", "cognitive_map": {"chair": [["1", "2"]]}},
        {"video_id": "a", "cognitive_map": {"chair": [None]}},
        {"video_id": "a", "cognitive_map": {"chair": {"0": [1, 2]}}},
    ],
)
def test_a_map_of_another_shape_is_named_by_its_line(line: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", {"video_id": "z", "cognitive_map": {}}, line)
    with pytest.raises(ValueError, match=r"m\.jsonl:2: expected .*video_id.*cognitive_map"):
        read_maps(path)


@pytest.mark.parametrize("point", ["[true, 2]", "[NaN, 2]", "[Infinity, 2]"])
def test_a_point_of_no_finite_numbers_is_named_by_its_line(point: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", '{"video_id": "a", "cognitive_map": {"chair": [' + point + "]}}")
    with pytest.raises(ValueError, match=r"m\.jsonl:1: expected"):
        read_maps(path)


def test_a_video_id_that_is_no_text_is_named_by_its_line(tmp_path: Path) -> None:
    """It is looked up by the stem of a file, so a number would silently match nothing."""
    path = write(tmp_path / "m.jsonl", {"video_id": 5, "cognitive_map": {}})
    with pytest.raises(ValueError, match=r"m\.jsonl:1: expected"):
        read_maps(path)


# ---- sources


def test_stop_names_all_faults_and_the_remedy(root: Path) -> None:
    lines = [row(1), row(2, path="none.mp4"), row(3, problem_type="essay"), "oops", row(1), row(5, path="../x")]
    write(root / "i.jsonl", *lines)
    with pytest.raises(DataError) as caught:
        load_train(jsonl(root))
    message = str(caught.value)
    assert [fault.where for fault in caught.value.faults] == [f"line {number}" for number in (2, 3, 4, 5, 6)]
    for part in ("i.jsonl", "5 faulty lines", "dataset.on_bad=skip", "essay", "none.mp4"):
        assert part in message
    for fault in caught.value.faults:
        assert f"{fault.where}: " in message and fault.kind in message


def test_many_faults_of_a_kind_are_counted_and_a_few_shown(root: Path) -> None:
    write(root / "i.jsonl", *(row(number, path=f"none{number}.mp4") for number in range(40)), "oops")
    with pytest.raises(DataError) as caught:
        load_train(jsonl(root))
    message = str(caught.value)
    assert len(caught.value.faults) == 41
    assert "missing file: 40" in message and "35 more" in message and "not JSON: 1" in message
    assert len(message.splitlines()) < 15


def test_skip_returns_the_sound_ones_and_the_faults(root: Path) -> None:
    write(root / "i.jsonl", row(1), row(2, path="none.mp4"), "oops", row(4))
    split = load_train(jsonl(root, on_bad=OnBad.skip))
    assert [sample.id for sample in split.samples] == ["1", "4"]
    assert [(fault.where, fault.kind) for fault in split.faults] == [("line 2", "missing file"), ("line 3", "not JSON")]


def test_nothing_left_stops_also_with_skip(root: Path) -> None:
    write(root / "i.jsonl", "oops")
    with pytest.raises(DataError):
        load_train(jsonl(root, on_bad=OnBad.skip))


@pytest.mark.parametrize("on_bad", OnBad)
def test_an_empty_index_stops(on_bad: OnBad, root: Path) -> None:
    write(root / "i.jsonl", "", "  ")
    with pytest.raises(ValueError, match=r"i\.jsonl has no question"):
        load_train(jsonl(root, on_bad=on_bad))


def test_maps_of_the_settings_reach_the_samples(root: Path) -> None:
    write(root / "i.jsonl", row(1), row(2, path="videos/b.mp4"))
    write(root / "m.jsonl", {"video_id": "b", "cognitive_map": {"bed": [[0, 9]]}})
    split = load_train(jsonl(root, maps="m.jsonl"))
    assert [sample.true_map for sample in split.samples] == [None, {"bed": [[0, 9]]}]


def test_bad_maps_stop_with_their_line(root: Path) -> None:
    write(root / "i.jsonl", row(1))
    write(root / "m.jsonl", {"video_id": "b", "cognitive_map": {"bed": [[0]]}})
    with pytest.raises(ValueError, match=r"m\.jsonl:1"):
        load_train(jsonl(root, maps="m.jsonl"))


def test_plain_jsonl_holds_nothing_out(root: Path) -> None:
    write(root / "i.jsonl", row(1))
    assert load_heldout(jsonl(root)).samples == ()


def test_rooms_have_both_splits_with_maps_and_no_scene_in_common(folder: Path, settings: RoomsSettings) -> None:
    train, heldout = load_train(settings), load_heldout(settings)
    assert (len(train.samples), len(heldout.samples)) == (12, 8)
    assert not train.faults and not heldout.faults
    assert not {sample.scene for sample in train.samples} & {sample.scene for sample in heldout.samples}
    for sample in (*train.samples, *heldout.samples):
        assert sample.path.is_relative_to(folder.resolve()) and sample.path.stem == sample.scene
        assert sample.true_map and sample.reasoning
        assert "<answer>" not in sample.solution


def test_description_counts_the_commonest_first() -> None:
    faults = [Fault("line 1", "rare", "x"), Fault("line 2", "common", "y"), Fault("line 3", "common", "z")]
    assert describe(faults).splitlines() == [
        "  common: 2",
        "    line 2: y",
        "    line 3: z",
        "  rare: 1",
        "    line 1: x",
    ]


def test_data_error_survives_another_process() -> None:
    """Workers and launchers send errors pickled."""
    error = DataError(Path("i.jsonl"), [Fault("line 1", "not JSON", "x")])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.faults) == (str(error), error.faults)
