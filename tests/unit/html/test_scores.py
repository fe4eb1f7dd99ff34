"""Figures of a report against what computes them elsewhere."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spacer.config.choices import BENCHMARKS
from spacer.evaluation.outcomes import compare_runs
from spacer.evaluation.scoring import official_intervals, score_predictions, write_scores
from spacer.report.html.folders import read_run
from spacer.report.html.scores import rows
from spacer.report.published import PUBLISHED
from spacer.statistics.summaries import compare
from tests.benchmarks_as_distributed import MAKERS
from tests.run_folders import scored_run, training_run


def test_heldout_metrics_are_those_of_the_runs_own_table(tmp_path: Path) -> None:
    before, after = ([(number * seed) % 5 < 2 for number in range(60)] for seed in (7, 11))
    folder = training_run(tmp_path / "run", before, after, changes={3: {"error": "gone: away", "extracted": False}})
    written = [
        [json.loads(line) for line in (folder / f"predictions/{name}.jsonl").read_text().splitlines()]
        for name in ("before", "after")
    ]
    oracle = compare(*written, resamples=500, seed=3)
    told = {row.name: row for row in rows(read_run(folder).evaluations, [None, 0], 500, 3)}
    assert list(told) == list(oracle)
    for name, delta in oracle.items():
        (first, second), (none, change) = told[name].cells, told[name].changes
        assert first is not None and second is not None and change is not None and none is None
        assert (first.value, second.value) == pytest.approx((delta.before, delta.after))
        assert change.delta == pytest.approx(delta.delta)
        if math.isnan(delta.delta_low):
            assert (change.low, change.high) == (None, None) and change.why in ("< 10 clusters", "no spread")
        else:
            assert (change.low, change.high) == pytest.approx((delta.delta_low, delta.delta_high))
        assert first.questions == delta.questions


def test_data_without_maps_have_no_rows_about_them(tmp_path: Path) -> None:
    none = {"true_map": None, "drawn": False, "completion": "<answer>A</answer>"}
    reward = {"total": 1.0, "answer": 1.0, "format": 1.0, "length": 0.0, "temporal": 0.0}
    for name, given in (("new", reward), ("old", reward | {"map": 0.0, "map_quality": 0.0})):
        changes = {number: none | {"reward": given} for number in range(4)}
        _, after = read_run(training_run(tmp_path / name, [True] * 4, [True] * 4, changes=changes)).evaluations
        told = [row.name for row in rows([after], [None], 50, 3)]
        assert "reward/format" in told and not [row for row in told if "map" in row]


def test_a_benchmark_without_its_files_is_told_by_tasks(tmp_path: Path) -> None:
    folders = [scored_run(tmp_path / name, 80, 0.3 + 0.2 * seed, seed, per_video=4) for seed, name in enumerate("ab")]
    (comparison,) = compare_runs(folders, resamples=500, seed=1)
    told = {row.name: row for row in rows([read_run(folder).evaluations[0] for folder in folders], [None, 0], 500, 1)}
    assert list(told)[:2] == ["overall", "questions"]
    overall = told["overall"]  # as written down: nothing says how it is made up
    assert overall.cells[0] is not None and (overall.cells[0].low, overall.cells[0].high) == (0.1, 0.9)
    assert overall.changes == (None, None)
    for name, found in comparison.metrics.items():
        row = told["questions" if name == "overall" else name]
        change = row.changes[1]
        assert change is not None and row.cells[0] is not None
        assert (row.cells[0].value, change.delta, change.low, change.high) == pytest.approx(
            (found.a, found.delta, found.low, found.high)
        )


def test_a_benchmark_with_its_files_is_told_by_its_own_metrics(tmp_path: Path) -> None:
    from spacer.benchmarks import benchmark

    root = MAKERS["vsi_bench"](tmp_path / "files", rounds=4, scenes=5).parent
    questions, _ = benchmark("vsi_bench").read(root)
    evaluations = []
    for seed, name in enumerate("ab"):
        said = {q.id: "B" if (int(q.id) * 7 + seed) % 3 else "A" for q in questions}
        scored = score_predictions("vsi_bench", questions, said)
        write_scores(tmp_path / name, scored, {"root": str(root)}, official_intervals(scored, 300, 0))
        evaluations.append(read_run(tmp_path / name).evaluations[0])
        written = json.loads((tmp_path / name / "scores.json").read_text())
        for row in rows(evaluations[-1:], [None], 300, 0):
            if row.name != "questions":
                (cell,) = row.cells
                assert cell is not None and cell.value == pytest.approx(written["official"][row.name])
                assert [cell.low, cell.high] == pytest.approx(written["intervals"][row.name] or [None, None])
    both = {row.name: row for row in rows(evaluations, [None, 0], 300, 0)}
    change, (a, b) = both["overall"].changes[1], both["overall"].cells
    assert change is not None and a is not None and b is not None
    assert change.delta == pytest.approx(b.value - a.value) and change.questions == 40


def test_runs_that_share_no_question_have_no_differences(tmp_path: Path) -> None:
    one = read_run(training_run(tmp_path / "a", [], [True] * 4)).evaluations[-1]
    changes = {number: {"question": f"Another {number}"} for number in range(4)}
    other = read_run(training_run(tmp_path / "b", [], [True] * 4, changes=changes)).evaluations[-1]
    for row in rows([one, other], [None, 0], 50, 0):
        assert row.cells[0] is not None and row.cells[1] is not None and row.changes == (None, None)


def test_published_scores_are_of_benchmarks_and_say_where_they_stand() -> None:
    assert all(entry.benchmark in BENCHMARKS and 0 < entry.value < 100 and entry.source for entry in PUBLISHED)
    by_name = {(entry.benchmark, entry.model): entry.value for entry in PUBLISHED}
    assert by_name["sti_bench", "SpaceR-7B"] == 37.0 and by_name["vsi_bench", "Qwen2.5-VL-7B"] == 34.43
