"""`stage=score` as a user calls it: metrics and files for each benchmark, and the messages for mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spacer.benchmarks import benchmark
from spacer.config.choices import BENCHMARKS
from tests.benchmarks_as_distributed import MAKERS, vsi_bench_of_today
from tests.cli.conftest import Command, fails, succeeds, together
from tests.cli.test_train import rows
from tests.written_files import as_lines


def predictions(path: Path, answers: dict[str, Any]) -> Path:
    """A file of predictions."""
    path.write_text("".join(json.dumps({"id": id, "prediction": text}) + "\n" for id, text in answers.items()))
    return path


def words(name: str, root: Path, file: Path, out: Path, *more: str) -> list[str]:
    """The overrides of a run."""
    chosen = ["stage=score", f"benchmark={name}", f"benchmark.root={root}", f"predictions={file}"]
    return [*chosen, f"hydra.run.dir={out}", *more]


def test_every_benchmark_is_scored_without_torch(without_torch: Command, tmp_path: Path) -> None:
    runs = []
    for name in BENCHMARKS:
        MAKERS[name](tmp_path / name)
        questions, _ = benchmark(name).read(tmp_path / name)
        right = {question.id: f"<think>Hm.</think><answer>{question.truth}</answer>" for question in questions[:-2]}
        file = predictions(tmp_path / f"{name}.jsonl", right | {questions[-2].id: "", "stranger": "A"})
        runs.append(words(name, tmp_path / name, file, tmp_path / "out" / name))
    for name, run in zip(BENCHMARKS, together(without_torch, runs), strict=True):
        said = succeeds(run)
        questions, _ = benchmark(name).read(tmp_path / name)
        made = json.loads((tmp_path / "out" / name / "scores.json").read_text())
        assert (made["benchmark"], made["questions"]) == (name, len(questions))
        assert (made["answered"], made["not_extracted"], made["predictions_without_question"]) == (
            len(questions) - 1, 1, 1
        )  # fmt: skip
        assert made["settings"]["limit"] is None
        assert "report: " in said and (tmp_path / "out" / name / "report.html").exists()
        each = rows(tmp_path / "out" / name / "per_question.jsonl")
        assert [row["id"] for row in each] == [question.id for question in questions]
        assert [row["score"] for row in each] == [1.0] * (len(each) - 2) + [0.0, 0.0]
        assert [row["extracted"] for row in each] == [True] * (len(each) - 2) + [False, False]
        assert each[-1]["answer"] is None and each[0]["answer"] is not None
        second = benchmark(name).SECOND
        columns = {"id", "task", "truth", "answer", "score", "extracted", "cluster"}
        assert set(each[0]) == columns | ({"released_score"} if second else set())
        assert 0 < made["official"]["overall"] < 1 and (second != "spacer_eval" or 0 < made[second]["overall"] < 1)
        assert f"{100 * made['official']['overall']:.2f}" in said
        assert all(f"{100 * made[one]['overall']:.2f}" in said for one in [second] if one)
        for told in (f"questions: {len(questions)}", "without a prediction, which are wrong: 1", "scores.json"):
            assert told in said


@pytest.fixture(scope="module")
def vsi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vsi")
    MAKERS["vsi_bench"](root)
    return root


def test_tasks_and_a_limit(command: Command, vsi: Path, tmp_path: Path) -> None:
    file = predictions(tmp_path / "made.jsonl", {"0": "B", "7": "4", "8": "150", "9": None, "x": ""})
    chosen = "benchmark.tasks=[object_counting,object_size_estimation,room_size_estimation]"
    done = command(*words("vsi_bench", vsi, file, tmp_path / "out", chosen, "benchmark.limit=2"))
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "out/scores.json").read_text())
    # what is predicted beside the chosen questions is no stranger
    assert (made["questions"], made["answered"], made["predictions_without_question"]) == (2, 2, 1)
    assert made["official"] == {"overall": 1.0, "task/object_counting": 1.0, "task/object_size_estimation": 1.0}
    assert made["settings"]["limit"] == 2 and len(made["settings"]["tasks"]) == 3


def test_a_malformed_row_and_the_debiased_questions(command: Command, tmp_path: Path) -> None:
    vsi_bench_of_today(tmp_path / "files", ("lines", "ids"))
    lines = [json.loads(line) for line in (tmp_path / "files/test.jsonl").read_text().splitlines()]
    lines[2]["options"] = ["A. the lamp B. the chair"]  # a pruned question; the last line is one that comes again
    as_lines(tmp_path / "files/test.jsonl", lines)
    file = predictions(tmp_path / "made.jsonl", {str(line["id"]): line["ground_truth"] for line in lines[:10]})
    said = succeeds(command(*words("vsi_bench", tmp_path / "files", file, tmp_path / "out")))
    made = json.loads((tmp_path / "out/scores.json").read_text())
    counted = [made[what] for what in ("questions", "answered", "malformed", "predictions_without_question")]
    assert counted == [10, 9, 1, 0]
    assert made["official"]["task/object_rel_direction"] == pytest.approx(2 / 3)
    assert made["official"]["overall"] == pytest.approx((7 + 2 / 3) / 8) and made["official"]["debiased/overall"] == 1
    assert made["intervals"].keys() == made["official"].keys()
    each = rows(tmp_path / "out/per_question.jsonl")
    assert [row["id"] for row in each if "error" in row] == ["2"] and each[2]["score"] == each[2]["released_score"] == 0
    told = " ".join(said.split())
    assert "1 of the questions are malformed and count as wrong" in told and "repeated id: 1" in told
    assert "test.jsonl, row 2: 'options' must be a list of two or more texts" in told
    assert "questions whose row is malformed, which are wrong: 1" in told
    assert "debiased/overall" in told and "debiased/object count" in told


def test_mistakes_in_the_configuration_are_told_together(command: Command, tmp_path: Path) -> None:
    done = command("stage=score", f"hydra.run.dir={tmp_path}", "predictions=nothing.jsonl", "evaluation.resamples=0")
    fails(done, "3 mistakes", "choose benchmark=NAME, one of blink, embspatial")
    fails(done, "predictions=nothing.jsonl is not an existing file", "evaluation.resamples: is 0")
    done = command("stage=score", "benchmark=vsi_bench", f"hydra.run.dir={tmp_path}")
    fails(
        done, "2 mistakes", "benchmark.root=None is not an existing folder", "predictions=None is not an existing file"
    )


def test_faulty_predictions_are_told_together(command: Command, vsi: Path, tmp_path: Path) -> None:
    file = tmp_path / "made.jsonl"
    lines = ['{"id": 0, "prediction": "B"}', '{"id": "0", "prediction": "A"}', "{", "[]", '{"id": 1}', '{"id": null}']
    file.write_bytes("\n".join([*lines, '{"id": 2, "prediction": 3}', ""]).encode() + b'\xff\n{"id":3,"prediction":""}')
    done = command(*words("vsi_bench", vsi, file, tmp_path / "out"))
    fails(done, f"{file}: 7 faulty lines", "duplicate id: 1", "line 2: '0'", "not JSON: 2", "not an object: 1")
    fails(
        done,
        "line 5: 'prediction' is not there",
        "line 6: 'id' must be text",
        "line 7: 'prediction' must be text or null, not 3",
    )
    assert not (tmp_path / "out/scores.json").exists()


def test_faulty_files_and_predictions_of_another_benchmark(command: Command, vsi: Path, tmp_path: Path) -> None:
    other = predictions(tmp_path / "other.jsonl", {"86CxyhFV9MI_0": "B"})
    fails(command(*words("vsi_bench", vsi, other, tmp_path / "out")), "none of its 1 predictions", "ids are like '0'")
    nothing = predictions(tmp_path / "nothing.jsonl", {})
    fails(command(*words("vsi_bench", vsi, nothing, tmp_path / "out")), f"{nothing}: it holds no prediction")
    done = command(*words("video_mme", vsi, other, tmp_path / "out"))
    fails(done, "1 fault in the files of video_mme", "videomme/test-*-of-*.parquet", "conf/benchmark/video_mme.yaml")
    done = command(*words("vsi_bench", vsi, other, tmp_path / "out", "benchmark.tasks=[object_count]"))
    fails(done, "'object_count' (did you mean object_counting?)")
