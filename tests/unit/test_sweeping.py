"""What sweeps read and write: names, records, rows and their table, Optuna's trials."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from spacer.config.derived import comes_to_score
from spacer.config.settings import ScoreStage, Settings
from spacer.errors import UserError
from spacer.sweeping.extras import missing_plugin
from spacer.sweeping.naming import Axes, axes, folder_name, job_name, sweep_name
from spacer.sweeping.record import Record, Status, changes, plain, read, recorded, resumable, write
from spacer.sweeping.rows import NOT_RUN, JobRow, OverSeeds, over_seeds, ranked, ranked_by, row_of
from spacer.sweeping.slurm import End
from spacer.sweeping.table import show_sweep, write_sweep
from spacer.sweeping.trials import KeptTrials
from spacer.terminal.pasting import pasted, pasted_list, quoted
from tests.cli.conftest import ROOT
from tests.unit.configs import load

# names


def test_the_order_of_a_line_does_not_matter_to_its_name():
    one = axes({}, ["seed=1,2", "reward=grpo,accuracy", "trainer.max_steps=5", "+model.revision=x"])
    other = axes({}, ["model.revision=x", "++trainer.max_steps=5", "reward=grpo,accuracy", "seed=1,2"])
    assert one == other == Axes(("reward", "seed"), ("model.revision=x", "trainer.max_steps=5"))
    assert job_name(["seed=1", "reward=grpo"], one.swept) == job_name(["reward=grpo", "++seed=1"], one.swept)


def test_where_a_sweep_computes_is_not_part_of_its_name():
    line = axes({"seed": "0,1"}, ["cluster=slurm", "cluster.partition=gpu", "logger.project=x", "ckpt_path=last"])
    assert sweep_name("s", line, "now") == "s"
    assert sweep_name("s", axes({"seed": "0,1"}, ["objective.beta=0"]), "now") == "s,objective.beta=0"


def test_an_interval_is_swept_and_a_choice_of_one_is_not():
    assert axes({"model.learning_rate": "tag(log, interval(1e-6, 1e-3))", "seed": 3}, []).swept == (
        "model.learning_rate",
    )


@pytest.mark.parametrize("words", [["a=/b/c"], ["a='x y'"], ["a=" + "b" * 500], ["a=ü"]])
def test_names_of_folders_are_plain_short_and_tell_what_they_are_made_of_apart(words):
    name = folder_name(words)
    assert len(name) <= 120 and name.isascii() and not set(name) & set("/'\" ")
    assert folder_name(words) == name != folder_name([words[0] + "x"])


def test_a_folder_says_whole_settings_and_how_many_are_left_out() -> None:
    words = [f"dataset.setting_{n}={n}" for n in range(20)]
    name = folder_name(["sft", "dataset.root=/data/of/mine", *words])
    assert re.fullmatch(r"sft,dataset\.root=mine(,dataset\.setting_\d=\d)+,and-\d+-more-[0-9a-f]{8}", name)
    assert name.count("setting") + int(name.split("and-")[1].split("-")[0]) == 20
    assert folder_name(["a=" + "x" * 118]) == "a=" + "x" * 118  # which fits as it is


def test_what_is_pasted_into_a_shell_is_one_value_to_hydra():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for text in (
        "/a",
        "/s/reward=grpo,seed=0",
        "a b",
        "[x]{y}",
        "it's",
        'say "x"',
        "a\\b",
        "end\\",
        "$HOME `id` !",
        "ü#~*",
    ):
        (word,) = shlex.split(pasted("k", text))
        assert OverridesParser.create().parse_override(word).value() == text


def test_quoted_text_is_one_value_to_hydra():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    texts = ("/a b/c=d,e", "it's", "a\\", "a\\b", "{x}", "[1]")
    for text in texts:
        assert OverridesParser.create().parse_override(f"k={quoted(text)}").value() == text
    (word,) = shlex.split(pasted_list("k", texts))
    assert OverridesParser.create().parse_override(word).value() == list(texts)


def test_a_missing_plugin_is_named_with_what_to_install(monkeypatch):
    folders = (ROOT, ROOT / "conf")
    words = ["-m", "sweeps=learning_rate", "reward=grpo,accuracy", "sweeps=reward_ablation", "trainer.max_steps=5"]
    assert missing_plugin(words, folders) is None
    monkeypatch.setattr("spacer.sweeping.extras.find_spec", lambda _: None)
    assert missing_plugin(words[2:], folders) is None
    for word, extra in (("sweeps=learning_rate", "sweeps"), ("cluster=slurm", "slurm")):
        said = missing_plugin(["-m", word], folders)
        assert said is not None and word in said and f"pip install -e '.[{extra}]'" in said


# records


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(output_dir=str(tmp_path / "run"))


@pytest.fixture
def folder(settings: Settings) -> Path:
    return Path(settings.output_dir)


def test_a_run_leaves_its_score_and_its_settings(settings: Settings, folder: Path):
    def run(given: Settings) -> float:
        record = read(folder)
        assert given is settings and record is not None and record.status == Status.running
        return 1.5

    assert recorded(settings, run) == 1.5
    record = read(folder)
    assert record is not None and (record.status, record.score, record.reason) == (Status.done, 1.5, None)
    assert record.settings == plain(settings) and record.seconds is not None and record.started is not None


def test_a_run_without_a_score_is_done_too(settings: Settings, folder: Path):
    recorded(settings, lambda _: float("nan"))
    record = read(folder)
    assert record is not None and (record.status, record.score) == (Status.done, None)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UserError("a is wrong: mend it\nmore"), Status.failed, "a is wrong: mend it\nmore"),
        (RuntimeError("no"), Status.failed, "RuntimeError: no"),
        (KeyboardInterrupt(), Status.killed, "SIGINT (Ctrl-C)"),
        (SystemExit(130), Status.killed, "SIGINT"),
    ],
)
def test_a_run_that_ends_otherwise_says_how_and_raises(error, status, reason, settings: Settings, folder: Path):
    def run(_: Settings) -> float:
        raise error

    with pytest.raises(type(error)):
        recorded(settings, run)
    record = read(folder)
    assert record is not None and (record.status, record.reason, record.score) == (status, reason, None)


def test_the_first_of_several_processes_leaves_word(settings: Settings, folder: Path, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert recorded(settings, lambda _: 2.0) == 2.0
    assert read(folder) is None


def test_the_first_tells_of_the_others_errors_in_this_start(settings: Settings, folder: Path, monkeypatch):
    def second(_: Settings) -> float:
        raise RuntimeError("out of memory")

    def first(_: Settings) -> float:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setenv("LOCAL_RANK", "1")
            recorded(settings, second)
        raise SystemExit(143)

    for _ in range(2):  # the second time, the first failure is of an earlier start
        with pytest.raises(SystemExit):
            recorded(settings, first)
        with open(folder / "failures.jsonl", "a") as file:
            file.write('{"time": 1')  # a process that was killed while it told
        record = read(folder)
        assert record is not None and record.status == Status.killed
        assert record.reason == "SIGTERM; process 1: RuntimeError: out of memory"


def test_settings_differ_by_what_changes_metrics_alone(settings: Settings):
    before = plain(settings)
    elsewhere = replace(settings, output_dir="/x", ckpt_path="last", logger=replace(settings.logger, group="g"))
    assert changes(before, plain(elsewhere)) == []
    more = replace(settings, seed=7, cluster=replace(settings.cluster, devices=2))
    assert changes(before, plain(more)) == ["seed: 42 then, 7 now", "cluster.devices: 1 then, 2 now"]


def test_which_runs_come_to_a_score(settings: Settings):
    assert comes_to_score(settings)
    assert not comes_to_score(replace(settings, stage=replace(settings.stage, evaluate_after=False)))
    assert comes_to_score(replace(settings, stage=ScoreStage()))


def test_a_checkpoint_is_gone_on_from(tmp_path: Path):
    assert not resumable(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert not resumable(tmp_path)
    (tmp_path / "checkpoints/last.ckpt").touch()
    assert resumable(tmp_path)


# rows


def row(overrides: str, **values: Any) -> JobRow:
    return JobRow(overrides, tuple(overrides.split(",")), values.pop("status", "done"), f"/{overrides}", **values)


def test_a_row_holds_what_the_run_has_written(tmp_path: Path):
    scores = {
        "reward/total": {"mean": 1.5, "low": 1.0, "high": 2.0},
        "reward/answer": {"mean": 0.4, "low": 0, "high": 1},
        "map/quality": {"mean": 0.8, "low": 0, "high": 1},
        "answer/spatial": {"mean": 0.5, "low": 0, "high": 1},
    }
    controls = {"other_video": {"answer/spatial": {"delta": 0.15}}, "prior": {"answer/spatial": {"delta": 0.1}}}
    (tmp_path / "summary.json").write_text(json.dumps({"scores": scores, "controls": controls}))
    found = row_of("j", ["seed=0"], tmp_path, Record(Status.done, score=1.5, seconds=9.0), None)
    assert (found.status, found.score, found.low, found.high, found.answer) == ("done", 1.5, 1.0, 2.0, 0.4)
    assert found.figures == {
        "spatial answers": 0.5,
        "video adds to them": 0.15,
        "map quality": 0.8,
    }
    # metrics of a run before are not those of one that was killed since
    killed = row_of("j", ["seed=0"], tmp_path, Record(Status.killed, reason="SIGKILL"), None)
    assert (killed.status, killed.score, killed.low, killed.reason) == ("killed", None, None, "SIGKILL")
    assert row_of("j", [], tmp_path, None, None).status == NOT_RUN
    assert row_of("j", [], tmp_path, Record(Status.done, score=1.0), "wrong").status == "failed"


def test_a_row_of_a_benchmark_has_its_interval(tmp_path: Path):
    (tmp_path / "scores.json").write_text(json.dumps({"intervals": {"overall": [0.2, 0.4]}}))
    found = row_of("j", [], tmp_path, Record(Status.done, score=0.3), None)
    assert (found.score, found.low, found.high, found.answer) == (0.3, 0.2, 0.4, None)


def test_jobs_of_different_rewards_are_compared_by_their_answers():
    rows = [row("reward=a,seed=0", score=3.0, answer=0.1), row("reward=b,seed=0", score=1.0, answer=0.2)]
    rows.append(row("reward=c,seed=0", status="failed"))
    by = ranked_by(rows)
    assert by == "answer"
    assert [entry.job for entry in ranked(rows, by)] == ["reward=b,seed=0", "reward=a,seed=0", "reward=c,seed=0"]
    others = [row("seed=0", score=1.0, answer=0.9), row("seed=1", score=2.0, answer=0.1)]
    assert ranked_by(others) == "score"


def test_means_are_over_seeds_that_have_a_value():
    rows = [row("x=1,seed=0", score=1.0), row("x=1,seed=1", score=2.0), row("x=1,seed=2", status="killed")]
    rows += [row("x=2,seed=0", score=5.0)]
    assert over_seeds(rows, "score") == [
        OverSeeds(("x=2",), 1, 5.0, None),
        OverSeeds(("x=1",), 2, 1.5, pytest.approx(0.5**0.5)),
    ]
    assert over_seeds([row("x=1,seed=0", score=1.0), row("x=2,seed=0", score=2.0)], "score") == []


def test_settings_are_compared_by_what_all_of_their_seeds_have(tmp_path: Path):
    figures = [{"map quality": 0.5, "video adds to them": 0.1}, {"map quality": 0.75}]
    rows = [row(f"x=1,seed={seed}", score=1.0, figures=has) for seed, has in enumerate(figures)]
    rows.append(row("x=2,seed=0", score=0.5))
    assert over_seeds(rows, "score")[0].figures == {"map quality": (0.625, pytest.approx(0.125 * 2**0.5))}
    write_sweep(tmp_path, rows)
    page = (tmp_path / "sweep.md").read_text()
    assert "| setting | seeds | score | map quality |\n| --- | ---: | ---: | ---: |\n" in page
    assert "| x=1 | 2 | 1.000 ± 0.000 | 0.625 ± 0.177 |\n| x=2 | 1 | 0.500 |  |\n" in page
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_sweep(console, tmp_path)
    assert "score of x=1: 1.000 ± 0.000 over 2 seeds\n    map quality 0.625\n" in console.export_text()


def test_the_table_fits_80_columns_and_counts_what_is_not_done(tmp_path: Path):
    rows = [
        row("reward=sg_rlvr_temporal,seed=0", score=1.25, low=1.0, high=1.5, answer=0.5, seconds=9000.0),
        row("reward=sg_rlvr_temporal,seed=1", score=1.5, low=1.2, high=1.8, answer=0.25, seconds=9000.0),
        row("reward=grpo,seed=0", status="failed", reason="a | b: wrong\nsecond line"),
        row("reward=grpo,seed=1", status=NOT_RUN),
    ]
    write_sweep(tmp_path, rows)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    assert show_sweep(console, tmp_path) == 2
    said = console.export_text()
    table, _, below = said.partition("  answer of ")
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "1.000 to 1.500" in table and "2.5 h" in table and "not run" in table
    assert "reward=sg_rlvr_temporal: 0.375 ± 0.177 over 2 seeds" in below
    assert "failed: reward=grpo,seed=0: a | b: wrong\n" in below and "second line" not in said
    assert "reward=sg_rlvr_temporal,seed=0" in below.partition("best, by answer reward")[2]
    data = json.loads((tmp_path / "sweep.json").read_text())
    assert data["best"] == "reward=sg_rlvr_temporal,seed=0" and data["jobs"][2]["reason"].endswith("second line")
    page = (tmp_path / "sweep.md").read_text()
    assert "| reward=grpo,seed=0 | failed: a \\| b: wrong |" in page and "| not run |" in page


@pytest.mark.parametrize(
    ("end", "killed"),
    [
        (End("FAILED", 1, 0), False),
        (End("COMPLETED", 0, 0), False),
        (End("FAILED", 0, 9), True),
        (End("FAILED", 137, 0), True),
        (End("OUT_OF_MEMORY", 0, 125), True),
        (End("TIMEOUT", 0, 0), True),
        (End("CANCELLED", 0, 15), True),
        (End(None), True),
    ],
)
def test_what_slurm_says_of_an_end_tells_a_failed_job_from_a_killed_one(end: End, killed: bool):
    assert end.killed is killed


# trials


def search(folder: Path, trials: int, low: float = 1e-6) -> list[float]:
    """The first trials of a new study, by a sampler that records them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    inner = optuna.samplers.TPESampler(seed=0, n_startup_trials=3)
    study = optuna.create_study(direction="maximize", sampler=KeptTrials(inner, folder / "trials.jsonl"))
    rates = []
    for _ in range(trials):
        trial = study.ask()
        rates.append(trial.suggest_loguniform("rate", low, 1e-2))
        study.tell(trial, -abs(rates[-1] - 1e-4))
    return rates


def test_a_search_that_begins_again_proposes_what_one_never_interrupted_does(tmp_path: Path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = search(tmp_path / "whole", 8)
    assert len(set(whole)) == 8
    assert search(tmp_path / "parts", 2) == whole[:2]
    assert search(tmp_path / "parts", 5) == whole[:5]
    assert search(tmp_path / "parts", 8) == whole
    assert (tmp_path / "parts/trials.jsonl").read_text() == (tmp_path / "whole/trials.jsonl").read_text()


def test_a_torn_line_is_proposed_anew_and_another_space_is_refused(tmp_path: Path):
    whole = search(tmp_path, 3)
    file = tmp_path / "trials.jsonl"
    file.write_text(file.read_text()[:-20])
    assert search(tmp_path, 3) == whole
    with pytest.raises(UserError, match="search the same space"):
        search(tmp_path, 3, low=1e-5)


def test_a_record_is_whole_or_not_there(tmp_path: Path):
    assert read(tmp_path) is None
    record = Record(Status.killed, {"a": [1, None]}, reason="SIGKILL", seconds=1.0)
    write(tmp_path, record)
    assert read(tmp_path) == record and [path.name for path in tmp_path.iterdir()] == ["run.json"]
