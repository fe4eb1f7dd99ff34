"""Runs side by side: what is read, what must agree, what is told."""

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
from spacer.evaluation.outcomes import compare_outcomes, compare_runs, read_outcomes
from spacer.evaluation.scoring import score_predictions, write_scores
from spacer.report.comparison import comparison_summary, comparison_table, forest_plot
from spacer.report.table import write_json
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


def test_table_of_graded_scores_and_of_one_cluster(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", made_rows(0, 0.5, videos=1, graded=True))
    b = write_run(tmp_path / "b", made_rows(1, 0.5, videos=1, graded=True))
    (found,) = compared(a, b)
    assert found.metrics["overall"].mcnemar is None
    assert "one cluster" in printed(comparison_table(found, 1))


def test_summary_is_json_of_everything(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = compared(*runs)
    write_json(tmp_path / "comparison.json", comparison_summary(found, 500, 0))
    read = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["runs"]["B"] == {"folder": str(runs[1]), "benchmark": "vsi_bench", "questions": 240}
    (only,) = read["comparisons"]
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
