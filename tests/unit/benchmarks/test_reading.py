"""Questions as read from files as distributed, and every fault of these, named by file, row and field."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spacer import benchmarks
from spacer.benchmarks import benchmark, read_questions
from spacer.benchmarks.fields import RowFault
from spacer.benchmarks.question import Kind, Question
from spacer.config.choices import BENCHMARKS
from spacer.errors import UserError
from spacer.evaluation.scoring import score_predictions
from tests import benchmarks_as_distributed as made
from tests.written_files import as_json, parquet, picture

# whose questions are about images
PICTURES = (
    *("spar_bench", "mmsi_bench", "mindcube", "viewspatial", "blink", "threedsrbench", "embspatial", "omnispatial"),
    "mmsi_video",
)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"video{number}" for number in range(2)]
    for path in paths:
        path.write_bytes(b"a video")
    return paths


def read(name: str, root: Path) -> dict[str, Question]:
    questions, faults = benchmark(name).read(root)
    assert not faults, faults
    return {question.id: question for question in questions}


def test_each_benchmark_is_a_module_and_a_file_of_the_configuration() -> None:
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    found = [name for name in modules if hasattr(import_module(f"spacer.benchmarks.{name}"), "grade")]
    assert tuple(found) == BENCHMARKS
    assert all((ROOT / f"conf/benchmark/{name}.yaml").is_file() for name in BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_questions_are_complete_with_and_without_their_videos(name: str, tmp_path: Path, videos: list[Path]) -> None:
    made.MAKERS[name](tmp_path / "bare")
    made.MAKERS[name](tmp_path / "whole", videos)
    for folder in ("bare", "whole"):
        questions = read(name, tmp_path / folder)
        assert len(questions) >= 6 and len({question.cluster for question in questions.values()}) >= 2
        for question in questions.values():
            assert question.text and question.truth and question.task
            assert (question.video is None) == bool(question.images) == (name in PICTURES or "image/" in question.id)
            assert all(path.is_relative_to(tmp_path / folder) for path in question.files)
            if question.video is not None:
                assert question.video.is_absolute() and question.video.is_relative_to(tmp_path / folder)
                assert question.video.exists() == (folder == "whole" and question.video.stem != "missing_one")
            if question.options and question.kind is Kind.choice:
                assert question.truth in [option[0] for option in question.options]


def test_vsi_bench(tmp_path: Path) -> None:
    made.vsi_bench(tmp_path)
    questions = read("vsi_bench", tmp_path)
    assert questions["0"].options == ("A. the lamp", "B. the chair", "C. the table", "D. the bed")
    assert (questions["7"].options, questions["7"].kind, questions["7"].truth) == ((), Kind.number, "4")
    assert questions["1"].video == tmp_path / "scannet/scene0011_00.mp4"
    assert questions["1"].cluster == "scannet/scene0011_00"


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("folder", ["video", "videos"])
def test_sti_bench(as_text: bool, folder: str, tmp_path: Path, videos: list[Path]) -> None:
    made.sti_bench(tmp_path, videos, as_text=as_text, folder=folder)
    questions = read("sti_bench", tmp_path)
    assert questions["1"].options == ("A. 1 m", "B. 2 m", "C. 3.5 m", "D. 4 m", "E. 5 m")
    assert questions["9"].options == ("A. 1 m", "B. 2 m", "C. 3.5 m", "D. 4 m")
    assert (questions["1"].span, questions["1"].video) == ((0.5, 2.0), tmp_path / folder / "camera_07.mp4")
    assert "0.5 s" in questions["1"].text and "2 s" in questions["1"].text and "Question 1?" in questions["1"].text


def test_spar_bench_reads_the_pictures_of_a_question_when_it_is_asked(tmp_path: Path) -> None:
    made.spar_bench(tmp_path)
    questions = read("spar_bench", tmp_path)
    assert len(questions) == 20
    shade = 0
    for question in questions.values():  # in the order in which they were made, through four files and their row groups
        assert list(question.images) == [picture(shade + i) for i in range(len(question.images))]
        assert question.images[0] == picture(shade)
        shade += len(question.images)
    kinds = {question.id: question.kind for question in questions.values()}
    assert kinds["view_change_infer"] is Kind.text
    assert kinds["position_matching"] is Kind.choice
    assert kinds["depth_prediction_oo_mv"] is Kind.number


def test_video_mme(tmp_path: Path, videos: list[Path]) -> None:
    made.video_mme(tmp_path, videos)
    questions = read("video_mme", tmp_path)
    found = [questions[f"00{number}-1"] for number in (1, 2, 3)]
    expected = ["fFjv93ACGo8.mp4", "N1cdUjctpG8.MP4", "missing_one.mp4"]
    assert [question.video for question in found] == [tmp_path / "data" / name for name in expected]
    assert [question.subtitles for question in found] == [None, tmp_path / "subtitle/N1cdUjctpG8.srt", None]
    (tmp_path / "data/missing_one.mkv").touch()
    assert read("video_mme", tmp_path)["003-1"].video == tmp_path / "data/missing_one.mkv"


def test_longvideobench(tmp_path: Path) -> None:
    made.longvideobench(tmp_path)
    questions = read("longvideobench", tmp_path)
    first, last = questions["86CxyhFV9MI_0"], questions["86CxyhFV9MI_16"]
    assert first.options == ("A. a red car", "B. a blue car", "C. two cars", "D. B")
    assert (len(last.options), first.truth, first.groups["level"]) == (5, "C", "perception")
    assert (first.subtitles, first.subtitles_from) == (tmp_path / "subtitles/86CxyhFV9MI_en.json", 10.0)


@pytest.mark.parametrize("captioning", [False, True])
def test_tempcompass(captioning: bool, tmp_path: Path) -> None:
    made.tempcompass(tmp_path, captioning=captioning)
    questions = read("tempcompass", tmp_path)
    assert len(questions) == 11
    choice = questions["multi-choice/101/speed/0"]
    assert (choice.text, choice.truth) == ("What happens?", "B")
    assert choice.options == ("A. running", "B. walking slowly", "C. Both", "D. away from the screen")
    matching = questions["caption_matching/102/order/0"]
    assert matching.options == ("Caption A: A man runs.", "Caption B: A man walks.")
    assert (matching.truth, matching.kind) == ("Caption B: A man walks.", Kind.text)
    assert questions["yes_no/101/action/1"].truth == "no"
    assert choice.video == tmp_path / "videos/101.mp4"


# what is wrong with files


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    questions, faults = benchmark(name).read(tmp_path)
    assert not questions and {fault.kind for fault in faults} == {"missing file"}
    assert len(faults) == {"tempcompass": 3, "site_bench": 2}.get(name, 1)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = made.MAKERS[name](tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    _, faults = benchmark(name).read(tmp_path)
    assert [(fault.where, fault.kind) for fault in faults] == [
        (path.relative_to(tmp_path).as_posix(), "unreadable file")
    ]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    made.spar_bench(tmp_path)
    (tmp_path / "data/test-00002-of-00004.parquet").unlink()
    questions, (fault,) = benchmark("spar_bench").read(tmp_path)
    assert len(questions) == 15
    assert (fault.where, fault.kind) == ("data/test-00002-of-00004.parquet", "missing file")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = made.vsi_bench(tmp_path)
    pq.write_table(pq.read_table(path).drop_columns(["options"]), path)
    _, (fault,) = benchmark("vsi_bench").read(tmp_path)
    assert fault.kind == "missing column" and fault.detail.startswith("options")


def spoil(path: Path, change: Callable[[Any], None]) -> None:
    """Changes the rows of a file."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        as_json(path, content)
    else:
        rows = pq.read_table(path).to_pylist()
        change(rows)
        parquet(path, rows)


@pytest.mark.parametrize(
    ("name", "row", "field", "value", "said"),
    [
        ("vsi_bench", 0, "question_type", "object_colour", "'object_colour', not one of"),
        ("vsi_bench", 0, "ground_truth", "E", "not the letter of an option (A, B, C, D)"),
        ("vsi_bench", 0, "options", None, "list of two or more texts"),
        ("vsi_bench", 7, "ground_truth", "many", "must be a number"),
        ("vsi_bench", 0, "question", " ", "must be text"),
        ("vsi_bench", 0, "scene_name", "../../../etc/passwd", "outside the data root"),
        ("sti_bench", 0, "Task", "Cooking", "'Cooking', not one of"),
        ("sti_bench", 0, "time_end", None, "must be a number"),
        ("spar_bench", 0, "answer", "far", "must be a number"),
        ("spar_bench", 0, "task", "depth", "'depth', not one of"),
        ("video_mme", 0, "duration", "endless", "not one of short, medium, long"),
        ("video_mme", 0, "answer", "F", "not the letter of an option"),
        ("longvideobench", 0, "correct_choice", 4, "position of an option"),
        ("longvideobench", 0, "question_category", "X2Y", "'X2Y', not one of"),
        ("longvideobench", 0, "candidates", ["one"], "list of two or more texts"),
        ("longvideobench", 0, "starting_timestamp_for_subtitles", "soon", "must be a number"),
    ],
)
def test_a_faulty_field(name: str, row: int, field: str, value: Any, said: str, tmp_path: Path) -> None:
    path = made.MAKERS[name](tmp_path)
    before = benchmark(name).read(tmp_path)[0]
    spoil(path, lambda rows: rows[row].update({field: value}))
    questions, faults = benchmark(name).read(tmp_path)
    assert [question.fault is not None for question in questions] == [n == row for n in range(len(before))]
    assert [question.id for question in questions] == [question.id for question in before]
    assert all(isinstance(fault, RowFault) for fault in faults) and said in str(questions[row].fault)
    (fault,) = {fault.where: fault for fault in faults}.values()
    assert fault.where == f"{path.relative_to(tmp_path).as_posix()}, row {row}"
    assert fault.kind == "wrong field" and repr(field) in fault.detail and said in fault.detail


@pytest.mark.parametrize("value", ["{", '["A", "B"]', '{"A": "1"}', '{"A": "1", "C": "2"}', '{"A": 1, "B": 2}'])
def test_faulty_candidates(value: str, tmp_path: Path) -> None:
    spoil(made.sti_bench(tmp_path, as_text=True), lambda rows: rows[0].update(Candidates=value))
    _, faults = benchmark("sti_bench").read(tmp_path)
    assert faults and {fault.where for fault in faults} == {"qa.parquet, row 0"}
    assert "'Candidates'" in faults[0].detail


def test_all_faults_of_a_row_and_of_all_rows_are_told(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0].update(question="", question_type="?")
        rows[2].update(id=None)

    spoil(made.vsi_bench(tmp_path), change)
    questions, faults = benchmark("vsi_bench").read(tmp_path)
    assert [question.fault is None for question in questions] == [False, True, False, *[True] * 7]
    assert [fault.where.rpartition(" ")[2] for fault in faults] == ["0", "0", "2"]
    assert (questions[0].id, questions[0].task) == ("0", "unreadable")
    assert questions[2].id == "test-00000-of-00001.parquet, row 2"
    metrics = benchmark("vsi_bench").official(questions)
    assert "task/unreadable" not in {metric.name for metric in metrics}


def edit(*changes: tuple[int, dict[str, Any]], again: int | None = None) -> Callable[[Any], None]:
    """Changes some rows of a file, and has one a second time at its end."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row, fields in changes:
            rows[row].update(fields)
        if again is not None:
            rows.append(dict(rows[again]))

    return change


@pytest.mark.parametrize("name", ["sti_bench", "video_mme", "longvideobench"])
def test_a_row_that_comes_again_is_asked_once(name: str, tmp_path: Path) -> None:
    path = made.MAKERS[name](tmp_path)
    before = benchmark(name).read(tmp_path)[0]
    spoil(path, edit(again=0))
    questions, (fault,) = benchmark(name).read(tmp_path)
    assert questions == before
    assert (fault.kind, fault.where) == ("repeated question", f"{path.relative_to(tmp_path)}, row {len(before)}")
    assert repr(before[0].id) in fault.detail and "row 0" in fault.detail


def test_sti_bench_tells_equal_ids_apart_by_video_and_times(tmp_path: Path) -> None:
    spoil(made.sti_bench(tmp_path), edit((1, {"ID": 1}), (2, {"ID": 1, "Video": "camera_07.mp4", "time_end": 2.5})))
    questions, faults = benchmark("sti_bench").read(tmp_path)
    keys = ["camera_07.mp4/1/0.5-2", "scene0011_00.mp4/1/0.5-2", "camera_07.mp4/1/0.5-2.5"]
    assert [question.id for question in questions] == [*keys, *"456789"]
    assert [fault.kind for fault in faults] == ["repeated id"] * 3
    assert all(question.fault is None for question in questions)
    assert [key in fault.detail for key, fault in zip(keys, faults, strict=True)] == [True] * 3


def test_other_questions_with_one_id_are_numbered(tmp_path: Path) -> None:
    spoil(made.video_mme(tmp_path), edit((2, {"question_id": "001-1"}), (3, {"question_id": "001-1"})))
    questions, faults = benchmark("video_mme").read(tmp_path)
    assert [question.id for question in questions] == ["001-1", "001-2", "001-1#2", "001-1#3", "003-1", "003-2"]
    assert [fault.kind for fault in faults] == ["repeated id"] * 2 and not any(q.fault for q in questions)


def test_pictures_tell_questions_apart(tmp_path: Path) -> None:
    path = made.spar_bench(tmp_path)
    rows = pq.read_table(path).to_pylist()
    other = rows[0] | {"image": [{"bytes": picture(99), "path": None}]}
    parquet(path, [*rows, rows[0], other])
    questions, faults = benchmark("spar_bench").read(tmp_path)
    assert len(questions) == 21 and questions[5].id == f"{rows[0]['id']}#2"
    assert [fault.kind for fault in faults] == ["repeated question", "repeated id"]


# VSI-Bench in the files of today


@pytest.mark.parametrize(
    ("forms", "knows"),
    [(("halves",), True), (("lines",), False), (("lines", "ids"), True), (("halves", "lines", "ids"), True)],
)
def test_vsi_bench_of_today(forms: tuple[str, ...], knows: bool, tmp_path: Path) -> None:
    made.vsi_bench(tmp_path / "old")
    debiased = made.vsi_bench_of_today(tmp_path / "new", forms)
    questions, faults = benchmark("vsi_bench").read(tmp_path / "new")
    assert [fault.kind for fault in faults] == ["repeated id"]
    before, after = read("vsi_bench", tmp_path / "old"), {question.id: question for question in questions}
    assert len(questions) == len(after) == 10 and after.keys() == before.keys()
    assert {(q.text, q.options, q.truth, q.cluster) for q in questions} == {
        (q.text, q.options, q.truth, q.cluster) for q in before.values()
    }
    halves = {identity: question.groups.get("half") for identity, question in after.items()}
    told = {identity: "debiased" if identity in debiased else "pruned" for identity in after}
    assert halves == (told if knows else dict.fromkeys(after))


def test_vsi_bench_of_both_times(tmp_path: Path) -> None:
    debiased = made.vsi_bench_of_today(tmp_path, ("halves", "lines", "ids"))
    made.vsi_bench(tmp_path)
    questions = read("vsi_bench", tmp_path)
    assert {q.id for q in questions.values() if q.groups["half"] == "debiased"} == debiased


@pytest.mark.parametrize("name", ["test_debiased.parquet", "test_pruned.parquet"])
def test_half_of_vsi_bench_is_a_missing_file(name: str, tmp_path: Path) -> None:
    made.vsi_bench_of_today(tmp_path, ("halves",))
    (tmp_path / name).unlink()
    questions, faults = benchmark("vsi_bench").read(tmp_path)
    assert not questions and [(fault.where, fault.kind) for fault in faults] == [(name, "missing file")]


def test_lines_of_vsi_bench_that_are_no_json(tmp_path: Path) -> None:
    made.vsi_bench_of_today(tmp_path, ("lines",))
    lines = (tmp_path / "test.jsonl").read_text().splitlines()
    (tmp_path / "test.jsonl").write_text("\n".join([lines[0], "{", *lines[2:10], ""]))
    questions, (fault,) = benchmark("vsi_bench").read(tmp_path)
    assert (len(questions), fault.where, fault.kind) == (10, "test.jsonl, row 1", "not an object")
    assert isinstance(fault, RowFault)
    (tmp_path / "test.jsonl").write_text("\n".join(lines[:5])[:-3])
    _, (fault,) = benchmark("vsi_bench").read(tmp_path)
    assert (fault.where, fault.kind) == ("test.jsonl", "unreadable file") and not isinstance(fault, RowFault)


# what is refused, and what counts as wrong


@pytest.mark.parametrize(
    ("rounds", "malformed", "refused"), [(1, 1, False), (1, 2, True), (10, 2, False), (10, 3, True)]
)
def test_a_small_share_of_malformed_rows_is_scored(rounds: int, malformed: int, refused: bool, tmp_path: Path) -> None:
    spoil(
        made.vsi_bench(tmp_path, rounds=rounds), edit(*((row, {"options": ["all in one"]}) for row in range(malformed)))
    )
    if refused:
        with pytest.raises(UserError, match=rf"{malformed} faults in the files of vsi_bench(.|\n)*up to 2% of them"):
            read_questions("vsi_bench", tmp_path)
        return
    questions, faults = read_questions("vsi_bench", tmp_path)
    assert len(questions) == 10 * rounds and len(faults) == malformed
    made_of = score_predictions("vsi_bench", questions, {question.id: question.truth for question in questions})
    assert (made_of.malformed, sum(made_of.answered)) == (malformed, 10 * rounds - malformed)
    easy = 1 - 1 / rounds  # the first of each ten
    assert made_of.official_values["task/object_rel_direction"] == pytest.approx(
        (easy + (easy if malformed > 1 else 1) + 1) / 3
    )


def test_a_missing_file_is_refused_whatever_the_share(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 fault in the files of vsi_bench"):
        read_questions("vsi_bench", tmp_path)


@pytest.mark.parametrize(
    ("format", "question", "answer"),
    [
        ("multi-choice", "What?", "A. one"),
        ("multi-choice", "What?\nA. one\nB. two", "C. three"),
        ("caption_matching", "Which?\nCaption A: one", "Caption A: one"),
        ("caption_matching", "Which?\nCaption A: one\nCaption B: two", "Caption C: three"),
        ("yes_no", "Is it?", "perhaps"),
    ],
)
def test_faults_of_tempcompass(format: str, question: str, answer: str, tmp_path: Path) -> None:
    made.tempcompass(tmp_path)
    content = {"7": {"order": [{"question": question, "answer": answer}, "nothing"]}, "8": {"smell": ["x"]}, "9": []}
    as_json(tmp_path / f"questions/{format}.json", content)
    questions, faults = benchmark("tempcompass").read(tmp_path)
    told = {fault.where for fault in faults}
    places = ("'7', order, row 0", "'7', order, row 1", "'8', smell, row 0", "'9', row 0")
    assert told == {f"questions/{format}.json, {place}" for place in places}
    assert sum(question.fault is not None for question in questions) == 4
    assert benchmark("tempcompass").official(questions)[0].name == "overall"
