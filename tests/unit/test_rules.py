"""What values may be, and what must not be combined: each contradiction with its remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from spacer import cli
from spacer.config.describe import bound, options
from spacer.config.load import ConfigError, load_settings
from spacer.config.rules import packages
from spacer.config.settings import JsonlSettings, ObjectiveSettings, ScansSettings, Settings
from spacer.config.settings.stages import STAGES
from tests.unit.configs import PROMPTS, hints_of, load, only_problem, plain, problems, valid

# ranges


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("model__learning_rate", -1e-6),
        ("model__prompts_per_rollout", 0),
        ("model__row_tokens", 0),
        ("dataset__questions_per_video", 0),
        ("dataset__video__max_frames", 1),
        ("dataset__video__fps", 0),
        ("dataset__workers", 0),
        ("dataset__max_objects", 9),
        ("dataset__train_scenes", 0),
        ("reward__temporal__min_answer", 1.1),
        ("objective__group_size", 0),
        ("objective__temperature", -0.1),
        ("objective__top_p", 0),
        ("objective__updates_per_rollout", 0),
        ("objective__prompts_per_rollout", 0),
        ("objective__row_tokens", 0),
        ("objective__beta", -0.1),
        ("evaluation__temperature", -0.1),
        ("evaluation__limit", 0),
        ("evaluation__max_new_tokens", 0),
        ("evaluation__resamples", 0),
        ("trainer__max_steps", 0),
        ("trainer__max_epochs", -2),
        ("trainer__precision", "fp8"),
        ("logger__kind", "mlflow"),
        ("stage__optimizer__learning_rate", -1.0),
        ("stage__optimizer__warmup_steps", -1),
    ],
)
def test_out_of_range(path: str, value: Any) -> None:
    assert only_problem(**{path: value}).startswith(f"{path.replace('__', '.')}: is {value!r}")


@pytest.mark.parametrize(
    ("path", "value"), [("batch_size", 0), ("guesses", {"share": 1.5}), ("guesses", {"share": 0.5, "after": -1})]
)
def test_out_of_range_in_supervised_training(path: str, value: Any) -> None:
    assert only_problem(stage="sft", **{f"stage__{path}": value}).startswith(f"stage.{path}")


def test_lora_rank() -> None:
    assert only_problem(model__lora={"rank": 0}) == "model.lora.rank: is 0, must be an integer (greater than 0)"


def test_every_number_has_its_bounds_beside_it() -> None:
    unbounded = {
        path
        for path, hint in hints_of(Settings).items()
        for option, metadata in options(hint)
        if option in (int, float) and not bound(metadata)
    }
    assert {path for path in unbounded if not path.startswith("model.architecture.")} == set()


def test_bounds_hold_for_settings_made_in_python_too() -> None:
    with pytest.raises(ValidationError, match="group_size"):
        replace(load(), objective=ObjectiveSettings(group_size=1))


# contradictions


@pytest.mark.parametrize(
    ("changes", "named", "remedy"),
    [
        ({"objective__group_size": 1, "reward__temporal": None}, "objective.group_size: is 1", "such as 8"),
        ({"model__completion__bonus_min": 600}, "model.completion.bonus_min=600 exceeds", "swap"),
        ({"dataset__min_objects": 7}, "dataset.min_objects=7 exceeds dataset.max_objects=6", "swap"),
        ({"reward__length__min_tokens": 600}, "reward.length.min_tokens=600 exceeds", "reward.length=null"),
        ({"objective__max_completion_length": 511}, "reward.length pays for 320 to 512 tokens", "raise that"),
        ({"objective__max_completion_length": 100}, "objective.max_completion_length=100", "reward.length=null"),
        ({"objective__group_size": 5}, "objective.group_size=5, which is odd", "reward.temporal=null"),
        ({"objective__clip_low": 0.2}, "objective.clip_low and objective.clip_high go together", "set both"),
        ({"objective__clip_high": 0.2}, "objective.clip_low and objective.clip_high go together", "set both"),
        ({"objective__updates_per_rollout": 2}, "objective.updates_per_rollout=2 learns", "objective.clip_low=0.2"),
        (
            {"objective__rollout_parts": 2, "objective__clip_low": 0.2, "objective__clip_high": 0.2},
            "does not divide objective.prompts_per_rollout=1",
            "objective.prompts_per_rollout=2",
        ),
        (
            {"objective__rollout_parts": 2, "objective__prompts_per_rollout": 4},
            "objective.rollout_parts=2 learns from completions of an older policy",
            "objective.rollout_parts=1",
        ),
        (
            {
                "objective__updates_per_rollout": 4,
                "objective__clip_low": 0.2,
                "objective__clip_high": 0.2,
                "trainer__accumulate_grad_batches": 2,
            },
            "objective.updates_per_rollout=4 takes its steps on one rollout, and trainer.accumulate_grad_batches=2",
            "set the latter to 1 and raise objective.prompts_per_rollout",
        ),
        ({"trainer__precision": "16-mixed"}, "trainer.precision=16-mixed scales its losses", "choose bf16-mixed"),
        ({"trainer__precision": "16", "stage": "sft"}, "trainer.precision=16 scales", "choose bf16-mixed"),
        ({"stage__optimizer": None}, "stage.optimizer: is null", "must be a section with the keys kind, learning_rate"),
        ({"trainer__max_epochs": None}, "nothing ends this run", "trainer.max_epochs=1"),
        ({"objective__dynamic_sampling": 2, "trainer__max_steps": 9}, "drop_zero_variance=false", "set it to true"),
        (
            {"objective__dynamic_sampling": 2, "objective__drop_zero_variance": True},
            "an unknown number of steps",
            "trainer.max_steps=1000",
        ),
        (
            {"reward__overlong": {"max_tokens": 2000}, "objective__max_completion_length": 1024},
            "reward.overlong.max_tokens=2000 is never reached",
            "lower the former",
        ),
        (
            {
                "objective__dynamic_sampling": 2,
                "objective__drop_zero_variance": True,
                "trainer__max_steps": 9,
                "objective__updates_per_rollout": 2,
                "objective__clip_low": 0.2,
                "objective__clip_high": 0.2,
            },
            "gathers rollouts for one step",
            "objective.dynamic_sampling=null",
        ),
        ({"evaluation__patience": 2}, "evaluation.every_n_steps=0 makes none", "evaluation.every_n_steps=20"),
        ({"trainer__max_epochs": -1}, "nothing ends this run", "trainer.max_epochs=1"),
        ({"objective__max_completion_length": 0, "reward__length": None}, "objective.max_completion_length: is 0", ""),
        (
            {"cluster__strategy": "zero"},
            "cluster.strategy: is 'zero'",
            "one of auto, ddp, fsdp, deepspeed_zero3",
        ),
        ({"cluster__devices": 0}, "cluster.devices: is 0", "auto for all"),
        ({"cluster__num_nodes": 0}, "cluster.num_nodes: is 0", "greater than 0"),
        (
            {"cluster__strategy": "fsdp", "trainer__precision": "64-true"},
            "cluster.strategy=fsdp does not compute in trainer.precision=64-true",
            "cluster=ddp",
        ),
        (
            {"cluster__strategy": "fsdp", "stage__optimizer": {"kind": "adamw_8bit"}},
            "stage.optimizer.kind=adamw_8bit under cluster.strategy=fsdp",
            "cluster=ddp",
        ),
        ({"cluster__num_nodes": 2}, "nothing here starts processes on other nodes", "cluster=slurm"),
        ({"cluster__accelerator": "gpux"}, "cluster.accelerator: is 'gpux'", "must be one of auto, cpu, gpu"),
        ({"ckpt_path": "/nowhere/last.ckpt"}, "ckpt_path=/nowhere/last.ckpt is neither", "ckpt_path=last"),
    ],
)
def test_contradictions(changes: dict[str, Any], named: str, remedy: str) -> None:
    problem = only_problem(**changes)
    assert named in problem
    assert remedy in problem


@pytest.mark.parametrize(
    "changes",
    [
        {"objective__max_completion_length": 100, "reward__length": None},
        {"objective__max_completion_length": 512},
        {"objective__group_size": 5, "reward__temporal": None},
        {"objective__updates_per_rollout": 2, "objective__clip_low": 0.2, "objective__clip_high": 0.28},
        {
            "objective__updates_per_rollout": 4,
            "objective__clip_low": 0.2,
            "objective__clip_high": 0.2,
            "trainer__checkpoint_every_n_steps": 50,  # in the midst of a rollout's updates
        },
        {"trainer__accumulate_grad_batches": 2},
        {
            "stage": "sft",  # which writes no rollouts
            "objective__updates_per_rollout": 4,
            "objective__clip_low": 0.2,
            "objective__clip_high": 0.2,
            "trainer__accumulate_grad_batches": 2,
        },
        {"stage": "evaluate", "trainer__precision": "16-mixed"},
        {"trainer__precision": "bf16-mixed"},
        {"model__attn_implementation": "sdpa"},
        {"model__attn_implementation": "flex_attention"},
        {"objective__beta": 0.0},
        {"stage": "evaluate", "trainer__max_epochs": None},
        {"model__fresh": True, "stage": "train"},
        {"model__fresh": True, "stage": "evaluate"},
        {"seed": 2**31 - 1, "dataset__max_objects": 8, "dataset__workers": 1},
        {"trainer__max_epochs": None, "trainer__max_steps": 10},
        {"trainer__max_epochs": None, "trainer__max_time": "00:01:00:00"},
        {"ckpt_path": "last"},
        {"ckpt_path": __file__},
    ],
)
def test_no_contradiction(changes: dict[str, Any]) -> None:
    load(**changes)


def test_flash_attention_takes_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    narrow = {"model__attn_implementation": "flash_attention_2", "trainer__precision": "bf16-mixed"}
    problem = only_problem(**narrow)
    assert problem.startswith("model.attn_implementation=flash_attention_2 needs the package flash-attn")
    assert problem.endswith("pip install -e '.[cuda]', or choose auto")
    load(model__attn_implementation="auto")
    monkeypatch.setattr(packages, "find_spec", {"flash_attn": object()}.get)
    assert load(**narrow).model.attn_implementation == "flash_attention_2"
    wide = only_problem(model__attn_implementation="flash_attention_2")
    assert "computes in 16 bits only" in wide and "trainer.precision=bf16-mixed" in wide


def test_deepspeed_takes_its_package_and_what_it_can_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = {"cluster__strategy": "deepspeed_zero3", "cluster__accelerator": "auto"}
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert "pip install -e '.[deepspeed]', or choose cluster=fsdp" in only_problem(**zero)
    assert load(**zero | {"stage": "evaluate"}).cluster.strategy == "deepspeed_zero3"
    monkeypatch.setattr(packages, "find_spec", {"deepspeed": object(), "torchao": object()}.get)
    for changes, remedy in (
        ({"cluster__accelerator": "cpu"}, "set cluster.accelerator=cuda"),
        ({"trainer__precision": "64-true"}, "choose 32-true or bf16-mixed"),
        ({"stage__optimizer__kind": "adamw_8bit"}, "set stage.optimizer.kind=adamw, or choose cluster=ddp"),
        ({"model__dtype": "float64"}, "set model.dtype=float32"),
    ):
        problem = only_problem(**zero | changes)
        assert "cluster.strategy=deepspeed_zero3" in problem and remedy in problem
    load(**zero | {"trainer__precision": "bf16-mixed"})


def test_loggers_and_the_dashboard_take_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(logger__kind="tensorboard").logger.kind == "tensorboard"
    assert "choose logger=wandb" in only_problem(stage="dashboard", logger__kind="csv")
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert only_problem(logger__kind="tensorboard").endswith("pip install tensorboard, or choose logger=csv")
    assert only_problem(stage="dashboard").endswith("pip install wandb-workspaces")
    load(logger__kind="csv")


def jsonl_problems(root: Path, stage: dict[str, Any] | None = None, **dataset: Any) -> list[str]:
    cfg = valid(JsonlSettings)
    cfg["dataset"] |= {"root": str(root)} | dataset
    name = (stage or {}).get("name", "train")
    cfg["stage"] = plain(STAGES[name]()) | (stage or {})
    try:
        load_settings(OmegaConf.create(cfg))
    except ConfigError as error:
        return error.problems
    return []


def test_jsonl_files_are_looked_for(tmp_path: Path) -> None:
    (problem,) = jsonl_problems(tmp_path / "no")
    assert problem.startswith(f"dataset.root={tmp_path}/no is not an existing folder: set")
    (problem,) = jsonl_problems(tmp_path)
    assert problem.startswith(f"dataset.index=index.jsonl is not a file in dataset.root={tmp_path}")
    (tmp_path / "index.jsonl").touch()
    (problem,) = jsonl_problems(tmp_path, maps="maps.jsonl")
    assert problem.startswith("dataset.maps=maps.jsonl is not a file")
    assert not jsonl_problems(tmp_path)


@pytest.mark.parametrize(
    ("stage", "remedy"),
    [
        ({"name": "evaluate"}, "choose dataset=rooms"),
        ({"evaluate_before": True}, "set stage.evaluate_before=false stage.evaluate_after=false"),
        ({"evaluate_after": True}, "set stage.evaluate_before=false stage.evaluate_after=false"),
        ({"name": "sft", "evaluate_after": True}, "set stage.evaluate_before=false stage.evaluate_after=false"),
    ],
)
def test_a_jsonl_file_has_no_held_out_questions(stage: dict[str, Any], remedy: str, tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").touch()
    (problem,) = jsonl_problems(tmp_path, stage)
    assert "question" in problem and "dataset.heldout" in problem
    assert remedy in problem


def test_a_value_that_cannot_be_read_silences_the_rules_that_need_it_and_no_other() -> None:
    found = problems(objective__group_size="eight", objective__clip_low=0.2)
    assert len(found) == 2
    assert found[0].startswith("objective.group_size: is 'eight'")
    assert found[1].startswith("objective.clip_low and objective.clip_high go together")
    assert len(problems(objective="???", trainer__max_epochs=None)) == 2


def test_every_stage_has_a_function() -> None:
    assert set(cli.STAGES) == set(STAGES)


def test_stages() -> None:
    for name in STAGES:
        # some take data sets or pictures of their own, evaluated runs or a checkpoint
        takes = name in ("score", "compare", "report", "prepare", "curate", "export", "vision")
        found = problems(stage=name) if takes else load(stage=name)
        assert isinstance(found, list) or found.stage.name == name


def scans_problems(root: Path, stage: str, **dataset: Any) -> list[str]:
    made = plain(ScansSettings(str(root), prompts=PROMPTS)) | dataset
    return jsonl_problems(root, {"name": stage}, **{name: made[name] for name in made if name != "root"})


def test_curating_takes_scans() -> None:
    problem = only_problem(stage="curate")
    assert problem.startswith("stage.name=curate makes questions from annotated scans: choose dataset=scans")


def test_scans_are_curated_before_they_are_trained_on(tmp_path: Path) -> None:
    (problem,) = scans_problems(tmp_path, "train")
    assert problem.startswith("dataset.index=questions.jsonl and dataset.maps=cognitive_map.jsonl are not both files")
    assert problem.endswith("make them with stage=curate first")
    (tmp_path / "questions.jsonl").touch()
    assert len(scans_problems(tmp_path, "train")) == 1
    (tmp_path / "cognitive_map.jsonl").touch()
    assert not scans_problems(tmp_path, "train")


def test_annotations_are_looked_for_where_they_are_curated(tmp_path: Path) -> None:
    (problem,) = scans_problems(tmp_path / "no", "curate")
    assert problem.startswith(f"dataset.root={tmp_path}/no is not an existing folder")
    (problem,) = scans_problems(tmp_path, "curate")
    assert problem.startswith(f"dataset.meta_info=meta_info/*.json matches no file in dataset.root={tmp_path}")
    (tmp_path / "meta_info/folder.json").mkdir(parents=True)
    assert len(scans_problems(tmp_path, "curate")) == 1
    (tmp_path / "meta_info/a.json").touch()
    assert not scans_problems(tmp_path, "curate")  # and neither questions nor maps are there yet
    absolute = {"meta_info": str(tmp_path / "meta_info/a.json")}
    (tmp_path / "elsewhere").mkdir()
    assert not scans_problems(tmp_path / "elsewhere", "curate", **absolute)
    (problem,) = scans_problems(tmp_path, "curate", videos="all.mp4")
    assert problem.startswith("dataset.videos=all.mp4 names the same video for every scene: have {scene} in it")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("questions_per_type", 0, "greater than 0"),
        ("max_answer_share", 0.0, "greater than 0 and at most 1"),
        ("max_answer_share", 1.5, "greater than 0 and at most 1"),
        ("seed", -1, "at least 0"),
        ("meta_info", 3, "must be a text"),
        ("videos", None, "must be a text"),
    ],
)
def test_values_of_scans(field: str, value: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "meta_info").mkdir()
    (tmp_path / "meta_info/a.json").touch()
    (problem,) = scans_problems(tmp_path, "curate", **{field: value})
    assert problem.startswith(f"dataset.{field}: is ") and words in problem
