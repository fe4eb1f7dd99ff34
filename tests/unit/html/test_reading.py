"""Run folders as a report reads them: what is there, what is noted, what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacer.errors import UserError
from spacer.report.html.added import added_entries
from spacer.report.html.contents import Added
from spacer.report.html.folders import read_run, read_runs
from spacer.report.html.index import curves, differences, subjects
from spacer.report.html.pass_rates import pass_rate_entries
from tests.benchmarks_as_distributed import MAKERS
from tests.run_folders import heldout_row, lines, recorded, sampled_run, scored_run, steps, training_run, with_controls


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return training_run(tmp_path / "run", [False] * 8, [number < 4 for number in range(8)])


@pytest.mark.parametrize("config", [{"dataset": {"kind": "jsonl"}}, {}, {"dataset": {"kind": "mix", "parts": {}}}])
def test_data_of_ones_own_are_never_called_rooms(config: dict, trained: Path) -> None:
    recorded(trained, config)
    assert {evaluation.subject for evaluation in read_run(trained).evaluations} == {"heldout"}


def test_a_training_run(trained: Path) -> None:
    run = read_run(trained)
    assert (run.name, run.stage, run.overrides, run.notes) == ("run", "train", ("seed=0",), ())
    assert [(evaluation.subject, evaluation.phase) for evaluation in run.evaluations] == [
        ("rooms", "before"),
        ("rooms", "after"),
    ]
    before, after = run.evaluations
    assert list(before.questions) == list(after.questions)
    key = next(iter(after.questions))
    asked, answer = after.questions[key], after.answers[key]
    assert (asked.id, asked.task, asked.truth, asked.cluster) == ("q00000", "object_counting", "3", "scene0000")
    assert (answer.score, answer.read, answer.tokens, answer.error) == (1.0, "3", 20, None)
    assert answer.drawn_map == {"sofa": [[2.0, 4.0]], "unicorn": [[9.0, 9.0]]}
    assert answer.values["reward/total"] == 2.0 and answer.values["map/quality"] == 0.5
    assert before.answers[key].score == 0.0
    assert run.seconds == {"train": 12.0}


def test_a_resumed_run_has_one_history(trained: Path) -> None:
    """Steps that were made twice, the cut-off line of the first start still between them."""
    again = steps(25, start=20, **{"train/kl": 0.5})
    lines(trained / "history.jsonl", [*steps(30), *again])
    run = read_run(trained)
    assert [row["step"] for row in run.history] == list(range(45))
    points = next(entry["points"] for entry in curves(run.history) if entry["name"] == "train/kl")
    assert [step for step, _ in points] == list(range(45))
    assert [value for _, value in points] == [0.01] * 20 + [0.5] * 25


def test_an_interval_is_of_its_metric_and_no_curve_of_its_own() -> None:
    metric = "eval/during/reward/total"
    history = [{"step": n, metric: 1.0, f"{metric}/low": 0.5, f"{metric}/high": 1.5, "kl/low": 2.0} for n in range(2)]
    found = {entry["name"]: entry for entry in curves(history)}
    assert list(found) == [metric, "kl/low"]
    assert found[metric]["ends"] == [[0, 0.5, 1.5], [1, 0.5, 1.5]] and found[metric]["label"] == "total"
    assert "ends" not in found["kl/low"]


def test_a_line_that_was_cut_off_at_the_end_is_noted_and_another_is_named(trained: Path) -> None:
    history = trained / "history.jsonl"
    history.write_text(history.read_text() + '{"step": 30, "rew')
    run = read_run(trained)
    assert len(run.history) == 30 and "history.jsonl: its last line was cut off" in run.notes[0]
    texts = history.read_text().splitlines()
    texts[3] = texts[3][:20]
    history.write_text("\n".join(texts))
    with pytest.raises(UserError, match=r"history\.jsonl:4: is not JSON"):
        read_run(trained)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": None}, "lacks 'id'"),
        ({"question": ["a"]}, "'question' must be text"),
        ({"options": "A. sofa"}, "'options' must be a list of texts"),
        ({"true_map": {"sofa": [[1, 2, 3]]}}, "'true_map' must be a map"),
        ({"reward": {"total": "much"}}, "'reward' must be an object of numbers"),
        ({"reward": {"total": 1.0}}, "'reward' lacks 'answer'"),
        ({"completion_tokens": "many"}, "'completion_tokens' must be a number"),
    ],
)
def test_a_faulty_line_is_named(changes: dict, said: str, trained: Path) -> None:
    lines(trained / "predictions/after.jsonl", [heldout_row(0, True), heldout_row(1, True) | changes])
    with pytest.raises(UserError) as caught:
        read_run(trained)
    assert f"{trained / 'predictions/after.jsonl'}:2: " in str(caught.value) and said in str(caught.value)


def test_everything_that_is_wrong_with_all_runs_is_told_at_once(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (trained / "summary.json").write_text("{")
    with pytest.raises(UserError) as caught:
        read_runs([tmp_path / "empty", trained, tmp_path / "none"])
    for said in (
        f"{tmp_path / 'empty'} holds no answers",
        "summary.json cannot be read as JSON",
        "not an existing folder",
    ):
        assert said in str(caught.value)


def test_a_run_that_sampled_completions_has_its_pass_rates(tmp_path: Path) -> None:
    run = read_run(sampled_run(tmp_path / "run", [0.0, 0.5, 1.0, 0.5] * 10))
    assert run.stage == "generate" and not run.evaluations
    entries = pass_rate_entries(run.pass_rates)
    assert [entry["label"] for entry in entries] == ["all questions", "object count", "rel. direction, easy"]
    every, _, direction = entries
    counts = ("never", "sometimes", "always", "teaching")
    assert [every[name] for name in counts] == [10, 20, 10, 20] and every["cell"]["questions"] == 40
    assert every["cell"]["low"] < every["cell"]["value"] == 0.5 < every["cell"]["high"]
    assert [direction[name] for name in counts] == [0, 20, 0, 20]
    assert (direction["cell"]["low"], direction["cell"]["why"]) == (None, "no spread")


def test_pass_rates_that_lack_something_are_told_with_the_remedy(tmp_path: Path) -> None:
    folder = sampled_run(tmp_path / "run", [0.0, 1.0])
    summary = json.loads((folder / "summary.json").read_text())
    del summary["pass_rates"]["all"]["teaching"]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"pass_rates: all: lacks 'teaching': call the run once more"):
        read_run(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match="stage=generate that has ended"):
        read_run(folder)


def test_what_is_missing_or_under_way_is_noted(trained: Path) -> None:
    (trained / "summary.json").unlink()
    (trained / ".hydra/config.yaml").unlink()
    (trained / "predictions/after.jsonl").rename(trained / "predictions/after.0.part.jsonl")
    lines(trained / "predictions/vsi_bench.jsonl", [{"id": "1", "prediction": "B"}])
    (trained / "predictions/vsi_bench.conditions.json").write_text("{}")
    run = read_run(trained)
    assert "vsi_bench.jsonl: these answers are not scored" in " ".join(run.notes)
    told = " ".join(run.notes)
    for said in (
        "summary.json is not there",
        "config.yaml is not there",
        "after.0.part.jsonl: these answers are being",
    ):
        assert said in told
    assert [evaluation.phase for evaluation in run.evaluations] == ["before"] and run.stage is None


def test_a_benchmark_with_its_files_has_texts_and_videos(tmp_path: Path) -> None:
    root = tmp_path / "files"
    MAKERS["vsi_bench"](root)
    graded = [
        {"id": str(n), "task": "x", "truth": "B", "answer": None, "score": 0.0, "cluster": "c"} for n in range(10)
    ]
    lines(tmp_path / "run/per_question.jsonl", graded)
    given = [{"id": str(n), "prediction": f"<answer>{n}</answer>"} for n in range(9)]
    scores = {"benchmark": "vsi_bench", "official": {"overall": 0.0}, "settings": {"root": str(root)}}
    scores["settings"]["predictions"] = str(lines(tmp_path / "given.jsonl", given))
    (tmp_path / "run/scores.json").write_text(json.dumps(scores))
    (evaluation,) = read_run(tmp_path / "run").evaluations
    asked = evaluation.questions["6"]
    assert asked.text == "Question 6 of object_abs_distance?" and asked.task == "object_abs_distance"
    assert asked.media == root / "arkitscenes/41069021.mp4" and evaluation.questions["0"].options[1] == "B. the chair"
    assert evaluation.answers["6"].completion == "<answer>6</answer>" and evaluation.answers["9"].completion is None
    assert set(evaluation.graded) == {str(n) for n in range(10)}


def test_a_benchmark_whose_files_are_gone_keeps_its_texts(tmp_path: Path) -> None:
    scored_run(tmp_path / "run", 20, 0.5, 0)
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    scores["settings"]["root"] = str(tmp_path / "gone")
    (tmp_path / "run/scores.json").write_text(json.dumps(scores))
    run = read_run(tmp_path / "run")
    assert "are not at" in run.notes[0] and "videos are not shown" in run.notes[0]
    assert run.evaluations[0].questions["q3"].text.startswith("Question 3:") and not run.evaluations[0].graded


def test_several_benchmarks_under_one_run_and_runs_that_were_compared(tmp_path: Path) -> None:
    for name in ("first", "second"):
        scored_run(tmp_path / "all" / name, 12, 0.5, 0)
    scores = tmp_path / "all/second/scores.json"
    scores.write_text(scores.read_text().replace("vsi_bench", "my_bench"))
    answers = tmp_path / "all/second/predictions/vsi_bench.jsonl"
    answers.rename(answers.with_name("my_bench.jsonl"))
    runs = read_runs([tmp_path / "all"])
    assert [evaluation.subject for evaluation in runs[0].evaluations] == ["vsi_bench", "my_bench"]
    compared = {"runs": {"A": {"folder": str(tmp_path / "all/first")}, "B": {"folder": str(tmp_path / "all/second")}}}
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared/comparison.json").write_text(json.dumps(compared))
    assert [run.name for run in read_runs([tmp_path / "compared", tmp_path / "all/first"])] == ["first", "second"]


def test_questions_of_the_same_id_about_other_rooms_are_not_the_same(tmp_path: Path) -> None:
    one = training_run(tmp_path / "one", [True] * 4, [True] * 4)
    other = training_run(tmp_path / "other", [True] * 4, [True] * 4, changes={0: {"true_map": {"sofa": [[5, 5]]}}})
    (subject,) = subjects(read_runs([one, other]))
    assert [column.label for column in subject.columns] == ["A before", "A after", "B before", "B after"]
    assert len(subject.questions.asked) == 5
    absent = [answer is None for answer in subject.questions.answers(subject.questions.asked[-1])]
    assert absent == [True, True, True, False]


def test_settings_that_differ_are_told(tmp_path: Path) -> None:
    runs = [training_run(tmp_path / name, [True], [True]) for name in "ab"]
    recorded(
        runs[1], {"seed": 0, "stage": {"name": "train"}, "dataset": {"kind": "rooms"}, "model": {"lora": {"rank": 8}}}
    )
    told = differences(read_runs(runs))
    assert told == [
        {"key": "model.lora", "values": ["None", "—"]},
        {"key": "model.lora.rank", "values": ["—", "8"]},
    ]


def test_what_the_video_adds_is_that_of_the_last_answers(trained: Path) -> None:
    before, after = read_run(with_controls(trained, {"none": 0.3, "grey": 0.1})).evaluations
    assert before.adds == {} and list(after.adds) == ["none", "grey"]
    assert after.adds["none"]["reward/answer"] == Added(0.2, 0.5, 0.3, pytest.approx(0.2), 0.4, 40, 20)
    nearest, _ = added_entries(after)
    assert (nearest["control"], [entry["label"] for entry in nearest["metrics"]]) == (
        "grey",
        ["answer accuracy", "object count"],
    )


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        ([], "'controls' must be an object, not \\[1\\]"),
        ({"grey": [1]}, "summary.json: controls: 'grey' must be an object"),
        ({"grey": {"reward/answer": {"before": 0.5}}}, "controls: grey: reward/answer: lacks 'questions'"),
    ],
)
def test_controls_that_no_run_writes_are_refused(trained: Path, controls: object, said: str) -> None:
    (trained / "summary.json").write_text(json.dumps({"controls": controls or [1]}))
    with pytest.raises(UserError, match=said):
        read_run(trained)
