"""No video that a benchmark asks about is trained on, however the benchmark names it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.benchmarks import benchmark
from spacer.benchmarks.guard import guarded_videos
from spacer.config.settings import MixSettings, RoomsSettings, Settings
from spacer.data.leakage import Withheld, forbidden, guard, video_names
from spacer.data.prepare.build import build_index
from spacer.data.sources import DatasetSplits, load_splits
from spacer.errors import UserError
from tests.benchmarks_as_distributed import MAKERS
from tests.unit.configs import load
from tests.unit.data.making import sample
from tests.unit.data.written import jsonl, row, write
from tests.written_files import parquet

# ---- the names in a file


def names_in(path: Path) -> set[str]:
    """The names without those that only differ by an ending."""
    found = video_names(path)
    return {name for name in found if not Path(name).suffix}


def listing(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_has_a_name_a_line(tmp_path: Path) -> None:
    path = listing(
        tmp_path / "list.txt", "scene0011_00\n\n  videos/scene0012_00.mp4  \r\n42444946\n/a/b/-x_Y.webm\n \n"
    )
    assert names_in(path) == {"scene0011_00", "scene0012_00", "42444946", "-x_Y"}


def test_a_dot_may_belong_to_the_name(tmp_path: Path) -> None:
    """A training video `scan.v2.mp4` is known as scan.v2, which the list may hold with or without its ending."""
    for name in ("scan.v2", "scan.v2.mp4", "videos/scan.v2.mkv"):
        assert "scan.v2" in video_names(listing(tmp_path / "list.txt", name))


def test_vsi_benchs_parquet(tmp_path: Path) -> None:
    columns = {
        "id": [0, 1, 2],
        "dataset": ["scannet", "arkitscenes", "scannet"],
        "scene_name": ["scene0011_00", "41069021", "scene0011_00"],
        "question_type": ["object_counting"] * 3,
        "question": ["How many?"] * 3,
        "ground_truth": ["3", "4", "5"],
        "options": [None, ["A. 1"], None],
    }
    pq.write_table(pa.table(columns), tmp_path / "test-00000-of-00001.parquet")
    assert names_in(tmp_path / "test-00000-of-00001.parquet") == {"scene0011_00", "41069021"}


def test_a_parquet_prefers_the_name_of_the_file(tmp_path: Path) -> None:
    """Video-MME: `video_id` counts, `videoID` is what the file is called."""
    columns = {"video_id": ["001", "002"], "videoID": ["fFjv93ACGo8", None], "url": ["x", "y"]}
    pq.write_table(pa.table(columns), tmp_path / "mme.parquet")
    assert names_in(tmp_path / "mme.parquet") == {"fFjv93ACGo8"}


def test_longvideobenchs_list(tmp_path: Path) -> None:
    rows = [
        {"video_id": "86CxyhFV9MI", "video_path": "86CxyhFV9MI.mp4", "question": "What?", "correct_choice": 1},
        {"video_id": "@a-7", "video_path": "@a-7.mp4", "question": "Who?", "correct_choice": 0},
    ]
    assert names_in(listing(tmp_path / "lvb_val.json", json.dumps(rows))) == {"86CxyhFV9MI", "@a-7"}


def test_tempcompass_keys(tmp_path: Path) -> None:
    content = {"1034116": {"action": [{"question": "What?"}]}, "1021488277": {"order": []}}
    assert names_in(listing(tmp_path / "multi-choice.json", json.dumps(content))) == {"1034116", "1021488277"}


def test_json_lines(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"Video": "scannet/scene0050_00.mp4", "Question": "Où\u2028est?"},
        {"video": "b.mp4"},
        {"path": "videos/c.mp4", "problem": "x"},
        {"video": None},
    ]
    text = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in rows) + "\n\n"
    assert names_in(listing(tmp_path / "some.jsonl", text)) == {"scene0050_00", "b", "c"}


@given(st.lists(st.from_regex(r"[A-Za-z0-9_@-]{1,12}", fullmatch=True), min_size=1))
def test_every_form_names_the_same_videos(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("forms")
    rows = [{"video": f"some/{name}.mp4"} for name in names]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    forms = [
        folder / "a.parquet",
        listing(folder / "b.json", json.dumps(rows)),
        listing(folder / "c.json", json.dumps({name: {} for name in names})),
        listing(folder / "d.jsonl", "\n".join(map(json.dumps, rows))),
        listing(folder / "e.txt", "\n".join(names)),
    ]
    assert [names_in(path) for path in forms] == [set(names)] * 5


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.jsonl",
            '{"clip": "a", "question": "?"}',
            "none of the columns scene_name, scene_id, video_path, .* clip, question",
        ),
        ("a.json", '[{"clip": "a"}]', "none of the columns scene_name, .* among clip"),
        ("a.json", '[{"video": "a"}, {"clip": "a"}]', "none of the columns"),
        ("a.json", '["a", "b"]', "expected a list of objects"),
        ("a.json", '{"data": [{"video": "a"}]}', "an object of objects keyed by video"),
        ("a.json", '"a"', "expected a list of objects"),
        ("a.json", "[", "cannot be read"),
        ("a.jsonl", "a\nb\n", "cannot be read"),
        ("a.parquet", "PAR0", "cannot be read"),
        ("a.txt", "\n \n", "names no video"),
        ("a.json", "[]", "names no video"),
        ("a.json", "{}", "names no video"),
    ],
)
def test_a_file_that_names_no_video_is_an_error(name: str, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        video_names(listing(tmp_path / name, text))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_columns_of_a_parquet_and_an_absent_file_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip": ["a"], "answer": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: .*none of the columns .*videoID.* among clip, answer"):
        video_names(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"none\.txt: cannot be read"):
        video_names(tmp_path / "none.txt")


# ---- the guard


def test_the_guard_counts_videos_and_questions_and_leaves_pictures() -> None:
    video, other = Path("/v/a.mp4"), Path("/w/a.mkv")
    items = [
        *(sample(name, path=video) for name in "123"),
        sample("4", path=other),  # another file of the same name is the same scene
        sample("5", path=Path("/v/a.png"), data_type="image"),
        sample("6", path=Path("/v/b.mp4")),
        sample("7", path=Path("/a/c.mp4")),  # a folder of that name is nothing
    ]
    kept, withheld = guard(items, {"a", "unknown"})
    assert [item.id for item in kept] == ["5", "6", "7"]
    assert withheld == Withheld(videos=2, questions=4)
    assert guard(items, ()) == (tuple(items), Withheld(0, 0))


def test_why_a_video_is_forbidden(tmp_path: Path) -> None:
    heldout = [sample(path=Path("/v/a.mp4")), sample(path=Path("/v/p.png"), data_type="image")]
    found = forbidden(heldout, [listing(tmp_path / "bench.txt", "c")])
    assert dict(found) == {"a": "held out", "c": "in bench.txt"}


# ---- through a run's data


def settings_of(dataset: Any) -> Settings:
    """The settings of a run with this data set, unchecked."""
    return dataclasses.replace(load(), dataset=dataset)


def only(settings: Settings) -> DatasetSplits:
    (piece,) = load_splits(settings, True, guarded_videos)
    return piece


@pytest.fixture
def questions(root: Path) -> Path:
    """Two questions about each of two videos, one about a picture of the first one's name."""
    (root / "a.png").touch()
    picture = row(5, path="a.png", data_type="image")
    write(root / "i.jsonl", row(1), row(2), row(3, path="videos/b.mp4"), row(4, path="videos/b.mp4"), picture)
    write(root / "h.jsonl", row(9, path="videos/a.mp4"))
    return root


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("ready", ["lines", "index", "index that knows"])
@pytest.mark.parametrize("reason", ["heldout", "exclude", "guard"])
def test_each_reason_withholds_and_is_counted(reason: str, ready: str, questions: Path, tmp_path: Path) -> None:
    named = listing(tmp_path / "bench.txt", "a")
    asked = {"id": 1, "dataset": "x", "scene_name": "a", "question_type": "object_counting", "question": "How many?"}
    parquet(tmp_path / "vsi/test-00000-of-00001.parquet", [asked | {"ground_truth": "3", "options": None}])
    dataset = jsonl(
        questions,
        heldout="h.jsonl" if reason == "heldout" else None,
        exclude=(str(named),) if reason == "exclude" else (),
        guard={"vsi_bench": str(tmp_path / "vsi")} if reason == "guard" else {},
    )
    if ready != "lines":
        build_index(dataset, [named] if ready == "index that knows" else [], guarded_videos(dataset.guard))
    piece = only(settings_of(dataset))
    assert [item.id for item in piece.train.samples] == ["3", "4", "5"]
    assert piece.train.withheld == Withheld(videos=1, questions=2)
    assert [item.id for item in piece.heldout.samples] == (["9"] if reason == "heldout" else [])
    assert not piece.train.faults


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("ready", [False, True])
def test_reasons_add_up_and_none_is_counted_twice(ready: bool, questions: Path, tmp_path: Path) -> None:
    lists = [listing(tmp_path / "x.txt", "a\nc"), listing(tmp_path / "y.txt", "a\nb")]
    dataset = jsonl(questions, heldout="h.jsonl", exclude=tuple(map(str, lists)))
    if ready:
        build_index(dataset, lists[:1])
    piece = only(settings_of(dataset))
    assert [item.id for item in piece.train.samples] == ["5"]
    assert piece.train.withheld == Withheld(videos=2, questions=4)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("ready", [False, True])
def test_a_held_out_question_of_text_withholds_no_video_that_is_called_as_it_is(ready: bool, questions: Path) -> None:
    write(questions / "h.jsonl", row("a", data_type="text", path=""), row("b.mp4", data_type="text", path=""))
    dataset = jsonl(questions, heldout="h.jsonl")
    if ready:
        build_index(dataset)
    piece = only(settings_of(dataset))
    assert len(piece.train.samples) == 5 and piece.train.withheld == Withheld()
    assert [item.id for item in piece.heldout.samples] == ["a", "b.mp4"]


def test_questions_of_text_in_the_parts_of_a_mix_are_scenes_apart(questions: Path, tmp_path: Path) -> None:
    for root in (questions, tmp_path):
        write(root / "i.jsonl", *(row(n, data_type="text", path="") for n in range(3)))
        (root / "h.jsonl").write_text((root / "i.jsonl").read_text())
    mix = MixSettings(
        parts={"one": jsonl(questions, heldout="h.jsonl"), "two": jsonl(tmp_path, heldout="h.jsonl")},
        weights={"one": 1.0, "two": 1.0},
    )
    asked = [item for piece in load_splits(settings_of(mix), True, guarded_videos) for item in piece.heldout.samples]
    assert len({item.scene for item in asked}) == len({item.path for item in asked}) == len(asked) == 6


def test_nothing_is_withheld_without_a_reason(questions: Path) -> None:
    piece = only(settings_of(jsonl(questions)))
    assert len(piece.train.samples) == 5 and piece.train.withheld == Withheld()


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("ready", [False, True])
def test_all_withheld_ends_the_run(ready: bool, questions: Path, tmp_path: Path) -> None:
    write(questions / "i.jsonl", row(1), row(2))
    named = listing(tmp_path / "bench.txt", "a")
    dataset = jsonl(questions, exclude=(str(named),))
    if ready:
        build_index(dataset, [named])
    with pytest.raises(UserError, match=r"i\.jsonl: all 2 questions are about videos of a benchmark"):
        load_splits(settings_of(dataset), True, guarded_videos)


def test_evaluation_alone_reads_no_training_data(questions: Path) -> None:
    (questions / "i.jsonl").unlink()
    (piece,) = load_splits(settings_of(jsonl(questions, heldout="h.jsonl")), False, guarded_videos)
    assert piece.train.samples == () and [item.id for item in piece.heldout.samples] == ["9"]


def test_a_mix_holds_out_for_all_its_parts(questions: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "videos").mkdir(parents=True)
    for name in ("a", "c"):
        (other / f"videos/{name}.mp4").touch()
    write(other / "i.jsonl", row(1), row(2, path="videos/c.mp4"))
    parts: dict[str, Any] = {"one": jsonl(questions, heldout="h.jsonl"), "two": jsonl(other)}
    mix = MixSettings(parts=parts, weights={"two": 3.0, "one": 1.0})
    one, two = load_splits(settings_of(mix), True, guarded_videos)
    assert [item.id for item in one.train.samples] == ["one/3", "one/4", "one/5"]
    assert [item.id for item in two.train.samples] == ["two/2"]
    assert [item.id for item in one.heldout.samples] == ["one/9"]
    assert (one.train.withheld, two.train.withheld) == (Withheld(1, 2), Withheld(1, 1))
    assert (one.weight, two.weight) == (1.0, 3.0)


def test_the_rooms_own_questions_are_apart(settings: RoomsSettings) -> None:
    piece = only(settings_of(settings))
    assert piece.train.withheld == Withheld() and len(piece.train.samples) == 12


@pytest.mark.parametrize("name", ["vsi_bench", "longvideobench"])
def test_a_guarded_benchmarks_own_videos_are_forbidden(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    questions, _ = benchmark(name).read(tmp_path)
    found = guarded_videos({name: str(tmp_path)})
    assert found == {question.video.stem: f"in {name}" for question in questions if question.video is not None}
    assert len(found) > 1
    assert guarded_videos({}) == {}
    with pytest.raises(UserError, match=f"elsewhere: 1 fault in the files of {name}"):
        guarded_videos({name: str(tmp_path / "elsewhere")})
