"""Benchmarks through `stage=evaluate`: every question asked, scored as `stage=score` would, nothing hidden."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spacer.benchmarks import benchmark
from spacer.config.choices import BENCHMARKS
from spacer.config.settings import RoomsSettings
from spacer.data.scenes import rooms
from spacer.evaluation.scoring import opened_in_prompts
from tests.benchmarks_as_distributed import MAKERS
from tests.cli.conftest import Command, fails, succeeds, together
from tests.cli.test_score import predictions
from tests.cli.test_score import words as to_score
from tests.cli.test_train import rows
from tests.written_files import parquet

ALONE = ("sti_bench", "vsi_bench")  # each in a run of its own, and both in one
SMALL_MEDIA = ("benchmark.video.max_pixels=13000", "benchmark.image_max_pixels=13000", "evaluation.resamples=200")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five short videos of rooms."""
    root = tmp_path_factory.mktemp("films")
    settings = RoomsSettings(str(root), train_scenes=4, heldout_scenes=1, size_px=112, seconds=4.0, video_fps=4)
    return sorted((rooms.build(settings) / "videos").iterdir())


def to_evaluate(name: str, root: Path, out: Path, *more: str) -> list[str]:
    """The overrides of a run."""
    asked = ["stage=evaluate", f"benchmark={name}", f"benchmark.root={root}", f"hydra.run.dir={out}"]
    return [*asked, *SMALL_MEDIA, "logger=none", *more]


@pytest.fixture(scope="module")
def evaluated(films: list[Path], command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every benchmark asked of the embedded model: its name → what was printed. Folders are those of `places`.

    All but those of `ALONE` are asked in one run.
    """
    for name, maker in MAKERS.items():
        root, _ = places(name, tmp_path_factory)
        maker(root, films)
        if name == "video_mme":  # whose maker leaves the third video out
            (root / "data/missing_one.mkv").write_bytes(films[2].read_bytes())
    others = [name for name in MAKERS if name not in ALONE]
    out = places(others[0], tmp_path_factory)[1].parent
    words = [to_evaluate(name, *places(name, tmp_path_factory), "logger=wandb") for name in ALONE]
    words.append(to_evaluate_all({name: places(name, tmp_path_factory)[0] for name in others}, out))
    *alone, said = map(succeeds, together(command, words))
    return dict(zip(ALONE, alone, strict=True)) | {name: told_of(name, said) for name in others}


def told_of(name: str, said: str) -> str:
    """What a run of several benchmarks prints of one: from its table up to the next one."""
    begin, title = said.index(f"{name}, in percent"), len(f"{name}, in percent")
    return said[begin : said.index(", in percent", begin + title)]


def to_evaluate_all(roots: Mapping[str, Path], out: Path) -> list[str]:
    """The overrides of a run of all benchmarks that have a root."""
    small = [word.replace("benchmark.", f"benchmarks.{name}.") for name in roots for word in SMALL_MEDIA]
    named = [f"benchmarks.{name}.root={root}" for name, root in roots.items()]
    return ["stage=evaluate", "benchmark=all", *named, *dict.fromkeys(small), "logger=none", f"hydra.run.dir={out}"]


def places(name: str, factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where a benchmark's files lie, and the folder of its answers."""
    base = factory.getbasetemp() / "evaluated"
    return base / "files" / name, base / ("alone" if name in ALONE else "together") / name


def test_there_is_a_maker_for_every_benchmark() -> None:
    assert set(MAKERS) == set(BENCHMARKS)


@pytest.mark.long
@pytest.mark.parametrize("name", MAKERS)
def test_every_question_is_asked_once_in_order(
    name: str, evaluated: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, out = places(name, tmp_path_factory)
    questions, _ = benchmark(name).read(root)
    answers = rows(out / f"predictions/{name}.jsonl")
    assert [row["id"] for row in answers] == [question.id for question in questions]
    assert [row["question"] for row in answers] == [question.text for question in questions]
    # media that could not be read would have left an error
    assert not any("error" in row for row in answers)
    assert all(row["prediction"] and row["completion_tokens"] > 0 for row in answers)
    assert not list(out.glob("predictions/*.part.jsonl"))
    overall = json.loads((out / "scores.json").read_text())["official"]["overall"]
    assert f"{name}, in percent" in evaluated[name] and f"{100 * overall:.2f}" in evaluated[name]
    assert f"{out}/scores.json" in evaluated[name]


@pytest.mark.long
def test_scores_are_those_that_scoring_the_answers_gives(
    evaluated: dict[str, str], command: Command, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs, compared = [], []
    for name in evaluated:
        root, out = places(name, tmp_path_factory)
        answers = {row["id"]: row["prediction"] for row in rows(out / f"predictions/{name}.jsonl")}
        if opened_in_prompts(answers):
            continue  # gibberish that closes a thought: from predictions alone, one that the prompts had opened
        compared.append(name)
        file = predictions(tmp_path / f"{name}.jsonl", answers)
        runs.append([*to_score(name, root, file, tmp_path / name), "evaluation.resamples=200"])
    for done in together(command, runs):
        succeeds(done)
    assert len(compared) > len(evaluated) / 2
    scored = []
    for name in compared:
        out = places(name, tmp_path_factory)[1]
        ours, theirs = (json.loads((folder / "scores.json").read_text()) for folder in (out, tmp_path / name))
        assert ours["protocol"]["name"] == "spacer" and theirs["protocol"] is None  # another's answers: not known
        assert {k: v for k, v in ours.items() if k not in ("settings", "protocol")} == {
            k: v for k, v in theirs.items() if k not in ("settings", "protocol")
        }
        assert rows(out / "per_question.jsonl") == rows(tmp_path / name / "per_question.jsonl")
        scored += [row["score"] for row in rows(out / "per_question.jsonl")]
    assert 0 < sum(scored) < len(scored)  # else there was nothing to agree on


@pytest.mark.long
def test_the_conditions_are_recorded_with_the_scores(
    evaluated: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = places("vsi_bench", tmp_path_factory)[1]
    how = json.loads((out / "predictions/vsi_bench.conditions.json").read_text())
    assert json.loads((out / "scores.json").read_text())["settings"].items() >= how.items()
    assert len(how["model"]["weights"]) == 16 and how["model"]["dtype"] == "float32"
    asked = how["benchmark"]
    assert asked["video"] == {
        "sampling": "endpoints",
        "max_frames": 32,
        "min_frames": 4,
        "fps": 1.0,
        "max_side": 448,
        "max_pixels": 13000,
        "min_pixels": None,
        "shown": "video",
    }
    assert asked["image_max_pixels"] == 13000 and "<think>" in asked["prompts"]["plain"]
    assert (asked["temperature"], asked["top_p"], asked["max_new_tokens"], asked["samples"]) == (0.0, 1.0, 128, 1)
    assert set(how["libraries"]) >= {"spacer", "torch", "transformers", "av"}
    assert (
        "asked: 4 to 32 frames (endpoints) at 1 a second, of at most 13000 pixels and side 448; "
        "temperature 0, 128 tokens; " in " ".join(evaluated["vsi_bench"].split())
    )
    assert f"torch {how['libraries']['torch']}" in " ".join(evaluated["vsi_bench"].split())
    other = places("spar_bench", tmp_path_factory)[1]
    assert json.loads((other / "predictions/spar_bench.conditions.json").read_text())["model"] == how["model"]


def test_too_many_missing_videos_stop_it_before_the_model_loads(
    films: list[Path], command: Command, tmp_path: Path
) -> None:
    MAKERS["vsi_bench"](tmp_path / "files", films, rounds=2, scenes=5)
    gone = tmp_path / "files/scannet/scene0022_00.mp4"
    gone.unlink()
    done = command(*to_evaluate("vsi_bench", tmp_path / "files", tmp_path / "out"))
    fails(done, "1 of 5 videos of vsi_bench are missing", str(gone), "benchmark.max_missing=0.02", "raise")
    assert "load data" in done.stdout + done.stderr and "load model" not in done.stdout + done.stderr
    assert not (tmp_path / "out/scores.json").exists()
    assert not (tmp_path / "out/predictions").exists()


def test_missing_and_broken_videos_and_malformed_rows_count_as_wrong(
    films: list[Path], command: Command, tmp_path: Path
) -> None:
    root, out = tmp_path / "files", tmp_path / "out"
    file = MAKERS["vsi_bench"](root, films, rounds=2, scenes=5)
    content = pq.read_table(file).to_pylist()
    content[3]["options"] = ["A. the lamp B. the chair"]
    parquet(file, content)
    (root / "scannet/scene0022_00.mp4").unlink()
    (root / "scannet/scene0044_00.mp4").write_bytes(b"\x00" * 4096)
    said = succeeds(command(*to_evaluate("vsi_bench", root, out, "benchmark.max_missing=0.2")))
    lost = {"scannet/scene0022_00": "missing", "scannet/scene0044_00": "unreadable"}
    malformed = {"3": "malformed row: 'options' must be a list of two or more texts, not ['A. the lamp B. the chair']"}
    each = {row["id"]: row for row in rows(out / "per_question.jsonl")}
    answers = rows(out / "predictions/vsi_bench.jsonl")
    assert len(answers) == len(each) == 20
    for row in answers:
        kind = malformed.get(row["id"]) or lost.get(each[row["id"]]["cluster"])
        assert ("error" in row) == (kind is not None)
        if kind is not None:
            assert kind in row["error"] and row["prediction"] == ""
            assert each[row["id"]]["score"] == each[row["id"]]["released_score"] == 0
    assert {each[row["id"]]["cluster"] for row in answers if "error" in row} > set(lost)
    assert {row["id"]: row["error"] for row in each.values() if "error" in row} == malformed
    made = json.loads((out / "scores.json").read_text())
    assert (made["questions"], made["answered"], made["malformed"]) == (20, 11, 1)
    # two of a kind in each task: those that were lost are part of its mean
    tasks: dict[str, list[float]] = {}
    for row in each.values():
        tasks.setdefault(row["task"], []).append(row["score"])
    for task, scores in tasks.items():
        if "direction" not in task:
            assert len(scores) == 2 and made["official"][f"task/{task}"] == pytest.approx(sum(scores) / 2)
    told = " ".join(said.split())
    assert "9 questions could not be asked and count as wrong" in told and "missing file: 1" in told
    assert "1 of the questions are malformed and count as wrong" in told and "0000-of-00001.parquet, row 3: 'op" in told
    assert f"{root}/scannet/scene0022_00.mp4: its questions count as wrong" in told
    assert f"{root}/scannet/scene0044_00.mp4: cannot be decoded" in told
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["not_asked"], summary["missing_videos"]) == (9, 1)


@pytest.mark.long
def test_prompts_subtitles_and_several_answers(
    films: list[Path],
    evaluated: dict[str, str],
    command: Command,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for name in ("video_mme", "longvideobench"):
        MAKERS[name](tmp_path / name, films)
    (tmp_path / "video_mme/data/missing_one.mp4").write_bytes(films[2].read_bytes())
    direct = ("benchmark/prompts=direct", "benchmark.max_new_tokens=12")
    several = ("benchmark.samples=3", "benchmark.temperature=1.0", "benchmark.subtitles=before")
    runs = [
        to_evaluate("video_mme", tmp_path / "video_mme", tmp_path / "mme", "benchmark.subtitles=before", *direct),
        to_evaluate("longvideobench", tmp_path / "longvideobench", tmp_path / "lvb", *several),
    ]
    for done in together(command, runs):
        succeeds(done)

    asked = {row["id"]: row for row in rows(tmp_path / "mme/predictions/video_mme.jsonl")}
    assert asked["002-1"]["question"] == "Question 1 about video 2?"  # of the one video with subtitles: without these
    how = json.loads((tmp_path / "mme/predictions/video_mme.conditions.json").read_text())["benchmark"]
    assert how["subtitles"] == "before" and "<think>" not in how["prompts"]["plain"]
    assert "letter alone" in how["prompts"]["multiple choice"]
    assert all(row["completion_tokens"] <= 12 and "samples" not in row for row in asked.values())

    between = places("longvideobench", tmp_path_factory)[1] / "predictions"
    how = json.loads((between / "longvideobench.conditions.json").read_text())
    assert how["benchmark"]["subtitles"] == "between"
    answers = rows(tmp_path / "lvb/predictions/longvideobench.jsonl")
    how = json.loads((tmp_path / "lvb/predictions/longvideobench.conditions.json").read_text())["benchmark"]
    assert how["subtitles"] == "before" and not any("Hello" in row["question"] for row in answers)
    assert any(len(set(row["samples"])) == 3 for row in answers)
    questions, _ = benchmark("longvideobench").read(tmp_path / "longvideobench")
    for question, row in zip(questions, answers, strict=True):
        assert len(row["samples"]) == 3 and row["prediction"] in row["samples"]
        read = [benchmark("longvideobench").grade(question, text).answer for text in row["samples"]]
        counts = Counter(answer for answer in read if answer)
        chosen = read[row["samples"].index(row["prediction"])]
        assert counts[chosen] == max(counts.values(), default=0)
    assert json.loads((tmp_path / "lvb/scores.json").read_text())["answered"] == 17


@pytest.mark.long
def test_what_the_video_adds_to_a_benchmark(films: list[Path], command: Command, tmp_path: Path) -> None:
    root, out = tmp_path / "files", tmp_path / "out"
    MAKERS["vsi_bench"](root, films)
    controls = "evaluation.controls=[other_video,none]"
    said = succeeds(command(*to_evaluate("vsi_bench", root, out, controls, "benchmark.max_new_tokens=16")))
    found = json.loads((out / "summary.json").read_text())["controls"]
    official = json.loads((out / "scores.json").read_text())["official"]
    own = rows(out / "predictions/vsi_bench.jsonl")
    for control in ("other_video", "none"):
        answered = rows(out / f"predictions/controls/vsi_bench.{control}.jsonl")
        assert [row["id"] for row in answered] == [row["id"] for row in own]
        assert {name: metric["after"] for name, metric in found[control].items()} == official
        for metric in found[control].values():
            assert metric["delta"] == pytest.approx(metric["after"] - metric["before"])
    said = said.partition("What the video adds")[2]
    assert all(heading in said for heading in ("Chance", "Const.", "Text", "Other", "Own", "Adds"))
    assert "SpaceR-7B" in said.partition("none of them measured here")[2]
    baselines = json.loads((out / "summary.json").read_text())["baselines"]
    assert set(baselines["constant"]) == set(official) and baselines["chance"]["overall"] is None  # numbers have none
    assert baselines["chance"]["task/object_rel_distance"] == 0.25
    told = fails(command(*to_evaluate("vsi_bench", root, tmp_path / "no", "evaluation.controls=[prior]")))
    assert "leave prior out" in told
    few = succeeds(command(*to_evaluate("vsi_bench", root, tmp_path / "few", "benchmark.limit=2")))
    assert "SpaceR-7B" not in few  # whose score is of all questions


@pytest.mark.long
def test_all_benchmarks_that_have_a_root(
    evaluated: dict[str, str], command: Command, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    roots = {name: places(name, tmp_path_factory)[0] for name in ALONE}
    said = succeeds(command(*to_evaluate_all(roots, tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != ".hydra") == list(ALONE)
    totals = json.loads((tmp_path / "summary.json").read_text())
    assert set(totals) == set(ALONE)
    for name in ALONE:
        alone = json.loads((places(name, tmp_path_factory)[1] / "scores.json").read_text())
        together = json.loads((tmp_path / name / "scores.json").read_text())
        assert together == alone
        assert totals[name]["official"] == alone["official"]["overall"]
        assert (tmp_path / name / f"predictions/{name}.jsonl").exists()
    assert "Overall, in percent" in said
    assert "none is: set benchmarks.vsi_bench.root=DIR" in fails(command("stage=evaluate", "benchmark=all"))
    broken = fails(command("stage=evaluate", "benchmark=all", "benchmarks.vsi_bench.root=nowhere"))
    assert "benchmarks.vsi_bench.root=nowhere is not an existing folder" in broken
