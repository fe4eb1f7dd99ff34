"""Runs side by side: what is read, what must agree, what is reported."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from spacer.benchmarks.question import Kind, Question
from spacer.errors import UserError
from spacer.evaluation.outcomes import AFTER, BEFORE, compare_outcomes, compare_runs, read_outcomes
from spacer.evaluation.scoring import score_predictions, write_scores
from spacer.report.comparison import comparison_summary, comparison_table, forest_plot
from spacer.report.table import write_json
from spacer.stages.report import run_folders
from tests.run_folders import heldout_row, lines, training_run
from tests.unit.configs import load, problems
from tests.unit.outcomes import TASKS, made_rows, write_run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "base", made_rows(0, 0.4)), write_run(tmp_path / "trained", made_rows(1, 0.6))


def printed(table: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def compared(*folders: Path, resamples: int = 500) -> list[Any]:
    return compare_runs(folders, resamples=resamples, seed=0)


# what is computed


def test_metrics_are_means_over_questions_and_over_those_of_a_task(runs: tuple[Path, Path]) -> None:
    (found,) = compared(*runs)
    a, b = made_rows(0, 0.4), made_rows(1, 0.6)
    assert list(found.metrics) == ["overall", *(f"task/{task}" for task in TASKS)]
    for name, metric in found.metrics.items():
        of = [i for i, row in enumerate(a) if name in ("overall", f"task/{row['task']}")]
        assert metric.a == pytest.approx(np.mean([a[i]["score"] for i in of]))
        assert metric.b == pytest.approx(np.mean([b[i]["score"] for i in of]))
        assert metric.low < metric.delta < metric.high and metric.delta == pytest.approx(metric.b - metric.a)
        assert metric.wins == sum(b[i]["score"] > a[i]["score"] for i in of)
        assert metric.questions == len(of) == metric.wins + metric.losses + metric.ties
        assert metric.clusters == 30
    assert found.metrics["overall"].p < 0.01 and found.metrics["overall"].excludes_zero
    assert (found.only_a, found.only_b, found.unclustered) == (0, 0, 0)


def test_questions_are_matched_by_id_and_those_of_one_run_are_counted_and_left_out(tmp_path: Path) -> None:
    rows, better = made_rows(0, 0.4), made_rows(0, 0.4)[::-1]
    for row in better:
        row["score"] = 1.0
    a, b = write_run(tmp_path / "a", rows[:200]), write_run(tmp_path / "b", better[:230])
    (found,) = compared(a, b)
    both = rows[10:200]
    assert (found.only_a, found.only_b, found.metrics["overall"].questions) == (10, 40, 190)
    assert found.metrics["overall"].a == pytest.approx(np.mean([row["score"] for row in both]))
    assert "Left out: 10 questions of A alone, 40 of B alone" in " ".join(printed(comparison_table(found, 1)).split())


def test_questions_without_a_cluster_stand_alone_and_that_is_said(tmp_path: Path) -> None:
    rows = made_rows(0, 0.5)
    bare = [{k: v for k, v in row.items() if k != "cluster"} for row in made_rows(1, 0.5)]
    a, b, c = (write_run(tmp_path / n, lines) for n, lines in (("a", rows), ("b", bare), ("c", bare)))
    known, unknown = compare_runs([a, b], resamples=50, seed=0)[0], compare_runs([b, c], resamples=50, seed=0)[0]
    assert (known.unclustered, known.metrics["overall"].clusters) == (0, 30)  # one file knows them
    assert (unknown.unclustered, unknown.metrics["overall"].clusters) == (240, 240)
    assert "240 questions name no cluster" in " ".join(printed(comparison_table(unknown, 1)).split())
    assert "name no cluster" not in printed(comparison_table(known, 1))


def test_what_scoring_writes_is_read(tmp_path: Path) -> None:
    options, groups = ("A. bed", "B. table"), {"duration": "short"}
    questions = [
        Question(f"q{i}", "order", Kind.choice, "Which?", options, "AB"[i % 2], f"v{i // 2}", groups=groups)
        for i in range(8)
    ]
    for name, said in (("a", "A"), ("b", "B")):
        predictions = {question.id: f"<answer>{said}</answer>" for question in questions[:6]}
        write_scores(tmp_path / name, score_predictions("video_mme", questions, predictions), {}, {})
    (found,) = compared(tmp_path / "a", tmp_path / "b")
    assert found.a.benchmark == "video_mme" and found.a.questions["q1"].truth == "B"
    overall = found.metrics["overall"]
    assert (overall.questions, overall.clusters, overall.wins, overall.losses, overall.ties) == (8, 4, 3, 3, 2)


# what is wrong with files


def test_every_faulty_line_of_every_run_is_named(tmp_path: Path) -> None:
    rows = made_rows(0, 0.5, videos=2)
    rows[1]["score"], rows[2]["score"], rows[3]["task"], rows[5]["id"] = 1.5, True, None, "q4"
    a, b = write_run(tmp_path / "a", rows), write_run(tmp_path / "b", made_rows(0, 0.5, videos=2))
    with open(b / "per_question.jsonl", "a") as file:
        file.write('["no object"]\n{"id": "q')
    with pytest.raises(UserError) as error:
        compared(a, b)
    said = str(error.value)
    for words in (
        "a/per_question.jsonl:2: score is 1.5, must be a number between 0 and 1",
        "a/per_question.jsonl:3: score is True",
        "a/per_question.jsonl:4: lacks task",
        "a/per_question.jsonl:6: question 'q4' was there before",
        "b/per_question.jsonl:17: must be an object",
        "b/per_question.jsonl:18: is not JSON",
    ):
        assert words in said, said


def test_many_faults_are_counted(tmp_path: Path) -> None:
    rows = [row | {"score": "high"} for row in made_rows(0, 0.5)]
    with pytest.raises(UserError, match="and 235 more faulty lines"):
        read_outcomes(write_run(tmp_path / "a", rows))
    with pytest.raises(UserError, match="holds no questions"):
        read_outcomes(write_run(tmp_path / "b", []))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truth": "Z"}, "truth differs for 1 questions, such as 'q7': 'D' and 'Z'"),
        ({"task": "other"}, "task differs for 1 questions"),
        ({"cluster": "elsewhere"}, "cluster differs for 1 questions"),
    ],
)
def test_other_versions_of_a_question_are_refused(change: dict[str, str], words: str, tmp_path: Path) -> None:
    rows = made_rows(1, 0.5)
    rows[7] |= change
    a, b = write_run(tmp_path / "a", made_rows(0, 0.5)), write_run(tmp_path / "b", rows)
    with pytest.raises(UserError, match=words):
        compared(a, b)


def test_other_benchmarks_and_other_questions_are_refused_together(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", made_rows(0, 0.5))
    b = write_run(tmp_path / "b", made_rows(0, 0.5), benchmark="sti_bench")
    c = write_run(tmp_path / "c", [row | {"id": f"x{row['id']}"} for row in made_rows(0, 0.5)], benchmark=None)
    with pytest.raises(UserError) as error:
        compared(a, b, c)
    assert "different benchmarks, vsi_bench and sti_bench" in str(error.value)
    assert "no question in common" in str(error.value)
    (tmp_path / "a/scores.json").write_text("{broken")
    with pytest.raises(UserError, match=r"a/scores\.json cannot be read as JSON"):
        read_outcomes(a)


# what is told


def test_table_is_whole_at_80_columns_and_in_plain_ascii(runs: tuple[Path, Path]) -> None:
    (found,) = compared(*runs)
    text = printed(comparison_table(found, 1))
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(width=80, file=file).print(comparison_table(found, 1))
    overall = found.metrics["overall"]
    (line,) = [line for line in text.splitlines() if line.startswith("overall (questions)")]
    for cell in (
        f"{100 * overall.a:.1f}",
        f"{100 * overall.delta:+.1f}*",
        f"{100 * overall.low:+.1f}, {100 * overall.high:+.1f}",
    ):
        assert cell in line
    assert f"{overall.wins}/{overall.losses}/{overall.ties}" in line
    for words in ("rel. direction, medium", "30 clusters", "not the benchmark's own", "not corrected"):
        assert words in " ".join(text.split())


@pytest.mark.parametrize("videos", [1, 9])
def test_table_of_graded_scores_and_of_few_clusters(tmp_path: Path, videos: int) -> None:
    a = write_run(tmp_path / "a", made_rows(0, 0.1, videos=videos, graded=True))
    b = write_run(tmp_path / "b", made_rows(1, 0.9, videos=videos, graded=True))
    (found,) = compared(a, b)
    assert found.metrics["overall"].mcnemar is None
    text = printed(comparison_table(found, 1))
    body, _, caption = text.partition("Per cent")
    assert "< 10 clusters" in body and "*" not in body
    assert "Below 10 clusters there is no interval" in " ".join(caption.split())


def test_summary_is_json_of_everything(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = compared(*runs)
    write_json(tmp_path / "comparison.json", comparison_summary(found, runs, 500, 0))
    read = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["runs"]["B"] == {"folder": str(runs[1])}
    (only,) = read["comparisons"]
    assert (only["subject"], only["questions"], only["protocols"]) == ("vsi_bench", [240, 240], [None, None])
    assert (only["a"], only["b"], only["only_a"], only["unclustered"]) == ("A", "B", 0, 0)
    assert only["metrics"]["overall"]["delta"] == found[0].metrics["overall"].delta
    assert set(only["metrics"]["task/object_counting"]) >= {"low", "high", "p", "mcnemar", "wins", "losses", "ties"}


def test_forest_plot_has_a_row_a_task_and_a_mark_a_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    third = write_run(tmp_path / "third", made_rows(2, 0.3))
    figure = forest_plot(compared(*runs, third), tmp_path / "figures/comparison.png")
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "overall (questions) (240)" and "object count (60)" in labels and len(labels) == 5
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["B: trained", "C: third"]
    with Image.open(tmp_path / "figures/comparison.png") as picture:
        assert picture.width > 1000 and len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_order_of_runs_turns_the_sign(runs: tuple[Path, Path]) -> None:
    a, b = (read_outcomes(folder) for folder in runs)
    there, back = compare_outcomes(a, b, resamples=200, seed=0), compare_outcomes(b, a, resamples=200, seed=0)
    for name, metric in there.metrics.items():
        assert back.metrics[name].delta == pytest.approx(-metric.delta) and back.metrics[name].p == metric.p


# what may be set


def test_runs_are_looked_for_and_all_mistakes_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    names = [str(tmp_path / "none"), str(tmp_path / "empty"), str(tmp_path / "empty")]
    found = problems(stage="compare", runs=names, seed=-1)
    assert len(found) == 5
    assert found[0].startswith("seed: is -1")
    assert found[1] == f"runs[0]: {names[0]} is not an existing folder: name the folder of a run"
    assert found[2].startswith(f"runs[1]: {names[1]} lacks per_question.jsonl")
    assert found[4] == f"runs names {names[1]} more than once: name each run once"


def test_compare_takes_two_runs_and_needs_no_data(runs: tuple[Path, Path]) -> None:
    (found,) = problems(stage="compare", runs=[str(runs[0])])
    assert found.startswith("runs holds 1: stage=compare takes at least two")
    settings = load(stage="compare", runs=[str(run) for run in runs])
    assert settings.runs == tuple(str(run) for run in runs)
    (found,) = problems(runs=[str(run) for run in runs])
    assert found.startswith("runs is for stage=compare")


# protocols, subjects and sweeps


def by_protocol(folder: Path, seed: int, protocol: dict[str, str] | None) -> Path:
    write_run(folder, made_rows(seed, 0.5))
    scores = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps(scores | {"protocol": protocol}))
    return folder


def test_runs_of_different_protocols_are_refused_unless_asked_for(tmp_path: Path) -> None:
    a = by_protocol(tmp_path / "a", 0, {"name": "spacer", "digest": "11111111"})
    b = by_protocol(tmp_path / "b", 1, {"name": "easi", "digest": "22222222"})
    same_name = by_protocol(tmp_path / "c", 1, {"name": "spacer", "digest": "33333333"})
    for other in (b, same_name):
        with pytest.raises(UserError, match=r"by different protocols, spacer 11111111 and .*stage.any_protocol=true"):
            compared(a, other)
    (found,) = compare_runs([a, b], resamples=50, seed=0, any_protocol=True)
    assert "protocols: spacer 11111111 and easi 22222222" in " ".join(printed(comparison_table(found, 1)).split())


def test_a_protocol_that_is_not_known_is_no_other_one(tmp_path: Path) -> None:
    a = by_protocol(tmp_path / "a", 0, {"name": "spacer", "digest": "11111111"})
    (found,) = compared(a, by_protocol(tmp_path / "b", 1, None))
    assert "spacer 11111111 and not known" in " ".join(printed(comparison_table(found, 1)).split())


def test_trained_runs_are_held_against_each_other_before_and_after(tmp_path: Path) -> None:
    """After against after, before against before; an evaluation against what is after training."""
    hits = [[(number * step) % 7 < least for number in range(60)] for step, least in ((3, 2), (5, 4), (3, 3), (4, 6))]
    a = training_run(tmp_path / "a", hits[0], hits[1])
    b = training_run(tmp_path / "b", hits[2], hits[3])
    evaluated = tmp_path / "evaluated"
    lines(evaluated / "predictions/rooms.jsonl", [heldout_row(number, hit) for number, hit in enumerate(hits[2])])
    found = compared(a, b, evaluated)
    assert [(one.a.subject, one.place) for one in found] == [(BEFORE, 1), (AFTER, 1), (AFTER, 2)]
    sums = [(sum(first), sum(second)) for first, second in ((hits[0], hits[2]), (hits[1], hits[3]), (hits[1], hits[2]))]
    for one, (first, second) in zip(found, sums, strict=True):
        overall = one.metrics["overall"]
        assert (overall.a, overall.b, overall.questions) == pytest.approx((first / 60, second / 60, 60))
        assert overall.clusters == 30 and overall.mcnemar is not None and one.unclustered == 0


def test_questions_with_one_id_in_two_data_sets_are_not_confused(tmp_path: Path) -> None:
    for name in "ab":
        rows = [heldout_row(number, True) for number in range(20)]
        rows += [heldout_row(number, name == "b", question="another") for number in range(20)]
        lines(tmp_path / name / "predictions/heldout.jsonl", rows)
    (found,) = compared(tmp_path / "a", tmp_path / "b")
    assert (found.metrics["overall"].questions, found.metrics["overall"].wins) == (40, 20)


def test_several_benchmarks_are_each_compared(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        for bench in ("vsi_bench", "blink"):
            write_run(tmp_path / name / bench, made_rows(seed, 0.5), benchmark=bench)
    found = compared(tmp_path / "a", tmp_path / "b")
    assert [one.a.subject for one in found] == ["blink", "vsi_bench"]
    (alone,) = compared(tmp_path / "a", tmp_path / "b" / "blink")
    assert alone.a.subject == "blink"


def test_of_a_folder_of_several_runs_none_is_taken_for_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / "day" / name, made_rows(0, 0.4))
    write_run(tmp_path / "other", made_rows(1, 0.6))
    with pytest.raises(UserError, match=r"holds several answers to .*one of them .*/b.*Name one of them in runs"):
        compared(tmp_path / "day", tmp_path / "other")


def test_a_sweep_stands_for_its_finished_jobs_wherever_it_is(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for name, seed in (("one", 0), ("two", 1), ("three", 2)):
        write_run(sweep / name, made_rows(seed, 0.5))
    jobs = [
        {"folder": str(place), "status": status}
        for place, status in ((sweep / "two", "done"), (sweep / "three", "killed"), (Path("/was/one"), "done"))
    ]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    assert run_folders([str(tmp_path / "x"), str(sweep)]) == [tmp_path / "x", sweep / "two", sweep / "one"]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs[1:2]}))
    with pytest.raises(UserError, match="no job of this sweep is done"):
        run_folders([str(sweep)])
