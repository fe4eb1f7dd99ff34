"""Configs to settings: what is read, and every mistake in one report."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from spacer.config import load as load_module
from spacer.config.choices import Advantage, Checkpointing, FrameTimes, Positions
from spacer.config.describe import describe
from spacer.config.load import ConfigError, load_settings
from spacer.config.settings import (
    JsonlSettings,
    LengthBonusSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    RewardSettings,
    RoomsSettings,
    Settings,
    TemporalBonusSettings,
    TrainStage,
)
from tests.unit.configs import PROMPTS, hints_of, load, only_problem, problems, valid


def test_valid_config_gives_the_settings_it_states() -> None:
    settings = load()
    assert settings.model == ModelSettings(name_or_path="./tiny")
    assert settings.dataset == RoomsSettings(root="data", prompts=PROMPTS)
    assert settings.reward == RewardSettings(length=LengthBonusSettings(), temporal=TemporalBonusSettings())
    assert settings.objective.advantage is Advantage.std
    assert isinstance(settings.stage, TrainStage) and settings.stage.optimizer == OptimizerSettings()
    assert isinstance(settings.stage.optimizer.betas, tuple)
    assert (settings.seed, settings.output_dir, settings.ckpt_path) == (42, "outputs/test", None)


def test_fields_left_out_take_their_defaults() -> None:
    cfg = valid()
    cfg["objective"] = {"group_size": 4}
    assert load_settings(OmegaConf.create(cfg)).objective.kl_clamp == 10.0


def test_the_kind_chooses_the_class_of_a_section(tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").touch()
    cfg = valid(JsonlSettings)
    cfg["dataset"]["root"] = str(tmp_path)
    assert load_settings(OmegaConf.create(cfg)).dataset == JsonlSettings(root=str(tmp_path), prompts=PROMPTS)


@pytest.mark.parametrize(
    ("path", "given", "read"),
    [
        ("objective__beta", 0, 0.0),  # int for float
        ("objective__clip_low", None, None),
        ("cluster__devices", 1, 1),
        ("model__revision", "v2", "v2"),
        ("objective__advantage", "mean", Advantage.mean),
        ("objective__advantage", Advantage.mean, Advantage.mean),
        ("model__positions", "transformers", Positions.transformers),
        ("model__frame_times", "processor", FrameTimes.processor),
        ("model__gradient_checkpointing", "vision", Checkpointing.vision),
        ("stage__optimizer__betas", [0, 0.5], (0.0, 0.5)),
        ("dataset__prompts", {**PROMPTS, "OCR": "Read."}, {**PROMPTS, "OCR": "Read."}),
        ("model__lora", {"rank": 4}, LoraSettings(rank=4)),
        ("trainer__max_time", "00:12:00:00", "00:12:00:00"),
        ("objective__max_completion_length", "${model.completion.max_tokens}", 1024),
    ],
)
def test_values_of_every_type(path: str, given: Any, read: Any) -> None:
    value: Any = load(**{path: given})
    for name in path.split("__"):
        value = getattr(value, name)
    assert value == read
    assert type(value) is type(read)


def test_every_setting_is_annotated_with_what_can_be_read() -> None:
    for hint in hints_of(Settings).values():
        assert describe(hint)


def test_mistakes_of_all_kinds_are_reported_at_once() -> None:
    found = problems(
        model__learning_rat=1e-5,
        model__name_or_path="???",
        model__freeze_vision="yes",
        objective__top_p=1.5,
        objective__advantage="stdd",
        objective__group_size=7,
        dataset__video__max_pixels="${nowhere.to_be_found}",
        dataset__min_objects=9,
        reward___target_="os.system",
        stage__guesses={"share": 0.5},
        stage__optimizer__betas=[0.9],
        trainer__max_epochs=None,
    )
    beginnings = [
        "model.name_or_path: must be set: add model.name_or_path=…",
        "dataset.video.max_pixels: its interpolation fails: Interpolation key 'nowhere.to_be_found' not found",
        "model.learning_rat: unknown key (did you mean learning_rate?). Valid keys here: name_or_path, revision, ",
        "model.freeze_vision: is 'yes', must be true or false",
        "reward._target_: unknown key. Valid keys here: format, map, ",
        "stage.guesses: unknown key where stage.name=train, though one of sft: leave it out, or where a file sets it, ",
        "objective.top_p: is 1.5, must be a number (greater than 0 and at most 1)",
        "objective.advantage: is 'stdd' (did you mean std?), must be one of std, mean",
        "stage.optimizer.betas: is [0.9], must be a list [a number (at least 0 and less than 1), a",
        "dataset.min_objects=9 exceeds dataset.max_objects=6",
        "reward.temporal answers half as many shuffled videos as objective.group_size=7",
        "nothing ends this run",
    ]
    for beginning in beginnings:
        assert sum(problem.startswith(beginning) for problem in found) == 1, (beginning, found)
    assert len(found) == len(beginnings)


def test_error_reads_as_a_numbered_list_and_survives_pickling() -> None:
    error = ConfigError(["first", "second"])
    assert str(error) == "2 mistakes in the configuration:\n  1. first\n  2. second"
    assert str(ConfigError(["first"])).startswith("1 mistake in")
    again = pickle.loads(pickle.dumps(error))  # as submitit and spawned workers do
    assert again.problems == error.problems


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, "sed: unknown key (did you mean seed?). Valid keys here: seed, model, dataset"),
        ("model__completion__max_token", 1, "model.completion.max_token: unknown key (did you mean max_tokens?)"),
        ("objective__zzz", 1, "objective.zzz: unknown key. Valid keys here: group_size, "),
        ("objective__group_size", True, "objective.group_size: is true, must be an integer (at least 2: to compare"),
        ("objective__group_size", 8.0, "objective.group_size: is 8.0, must be an integer"),
        ("objective__beta", True, "objective.beta: is true, must be a number"),
        ("objective__beta", float("nan"), "objective.beta: is nan, must be finite"),
        ("objective__beta", None, "objective.beta: is null, must be a number"),
        ("trainer__gradient_clip_val", "5", "trainer.gradient_clip_val: is '5', must be a number (at least 0) or null"),
        (
            "objective__ratio",
            "sequense",
            "objective.ratio: is 'sequense' (did you mean sequence?), must be one of token, ",
        ),
        ("cluster__devices", 1.5, "cluster.devices: is 1.5, must be an integer (greater than 0) or a text (auto "),
        ("model__revision", 123, "model.revision: is 123, must be a text or null: quote it, model.revision='\"…\"'"),
        ("stage__optimizer__betas", [0.9, "x"], "stage.optimizer.betas[1]: is 'x', must be a number"),
        ("stage__optimizer__betas", [0.9, 1.0], "stage.optimizer.betas[1]: is 1.0, must be a number (at least 0 and "),
        ("stage__optimizer__betas", [0.9, "???"], "stage.optimizer.betas[1]: must be set"),
        ("dataset__prompts", {**PROMPTS, "OCR": 3}, "dataset.prompts.OCR: is 3, must be a text"),
        ("dataset__prompts", ["video"], "dataset.prompts: is ['video'], must be a section of keys"),
        ("dataset__video", 16, "dataset.video: is 16, must be a section with the keys max_frames, fps, max_pixels"),
        ("dataset", "???", "dataset: must be set: add dataset=…"),
        (
            "dataset",
            {"root": "x"},
            "dataset.kind: must be set: one of jsonl, archive, scans, rooms, stills, layouts, mix",
        ),
        ("dataset", 3, "dataset: is 3, must be a section with the key kind"),
        ("dataset__kind", "room", "dataset.kind: is 'room' (did you mean rooms?), must be one of jsonl, archive, "),
        (
            "dataset__kind",
            None,
            "dataset.kind: is null, must be one of jsonl, archive, scans, rooms, stills, layouts, mix",
        ),
        ("dataset__kind", "???", "dataset.kind: must be set: add dataset.kind=…"),
        (
            "dataset__kind",
            ["rooms"],
            "dataset.kind: is ['rooms'], must be one of jsonl, archive, scans, rooms, stills, layouts, mix",
        ),
        ("model___target_", "subprocess.run", "model._target_: unknown key. Valid keys here: name_or_path, "),
        ("reward__length", [1], "reward.length: is [1], must be a section with the keys bonus, min_tokens, "),
        ("cluster__partition", "gpu", "cluster.partition: unknown key where cluster.kind=local, though one of slurm: "),
        ("stage", {"name": "evaluate", "optimizer": {}}, "stage.optimizer: unknown key where stage.name=evaluate, "),
        ("stage__needs_model", True, "stage.needs_model: unknown key. Valid keys here: name, optimizer, "),
        ("stage", {}, "stage.name: must be set: one of train, sft, vision"),
        ("seed", "${oc.env:SPACER_ABSENT}", "seed: its interpolation fails: KeyError raised while resolving"),
        ("seed", "${seed}", "seed: its interpolation fails: Recursive interpolation detected"),
        ("seed", "${no_resolver:1}", "seed: its interpolation fails: Unsupported interpolation type no_resolver"),
        ("stage__name", "trian", "stage.name: is 'trian' (did you mean train?), must be one of train, sft, vision"),
        ("trainer__max_time", "12h", "trainer.max_time: is '12h', must be a text (DD:HH:MM:SS, such as 00"),
        ("model__dtype", "bf16", "model.dtype: is 'bf16' (did you mean bfloat16?), must be one of bfloat16, "),
        (
            "model__gradient_checkpointing",
            True,
            "model.gradient_checkpointing: is true, must be one of none, vision, all",
        ),
        (
            "model__positions",
            "transformer",
            "model.positions: is 'transformer' (did you mean transformers?), must be one of original, transformers",
        ),
        (
            "model__attn_implementation",
            "eager",
            "model.attn_implementation: is 'eager', must be one of auto, sdpa, flex_attention, flash_attention_2",
        ),
    ],
)
def test_each_mistake_names_its_path_and_what_is_expected(path: str, value: Any, message: str) -> None:
    assert only_problem(**{path: value}).startswith(message)


@pytest.mark.parametrize("group", [name for name in valid() if name != "ckpt_path"])
def test_a_group_left_out_must_be_set(group: str) -> None:
    cfg = valid()
    del cfg[group]
    with pytest.raises(ConfigError) as caught:
        load_settings(OmegaConf.create(cfg))
    assert caught.value.problems == [f"{group}: must be set: add {group}=…"]


def test_a_section_that_contains_itself_is_a_mistake() -> None:
    found = problems(dataset__prompts={**PROMPTS, "OCR": "${model.lora}"}, model__lora={"rank": "${dataset.prompts}"})
    assert any(problem.endswith("an interpolation makes this section contain itself") for problem in found)


def test_nothing_that_a_config_names_is_imported() -> None:
    before = set(sys.modules)
    problems(model___target_="this.EchoesPoem", dataset__kind="antigravity.fly")
    assert not {"this", "antigravity"} & (set(sys.modules) - before)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from spacer.config import load, model_files; from omegaconf import OmegaConf\n"
        "try: load.load_settings(OmegaConf.create({}))\n"
        "except load.ConfigError: pass\n"
        "else: sys.exit('no error')\n"
        "heavy = {'torch', 'transformers', 'pytorch_lightning', 'av', 'huggingface_hub', 'numpy'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    root = Path(load_module.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_kind_set_by_hand_beside_another_kinds_settings_is_one_mistake() -> None:
    told = only_problem(dataset__kind="jsonl")
    assert told.startswith("dataset.kind: is 'jsonl' beside the settings of rooms: choose dataset=NAME of that kind")


def test_keys_of_another_stage_are_one_mistake_with_a_line_to_copy() -> None:
    told = only_problem(stage={"name": "evaluate", "batch_size": 8, "evaluate_after": False})
    assert told.startswith(
        "stage: batch_size, evaluate_after are unknown keys where stage.name=evaluate, though keys of sft"
    )
    assert told.endswith("~stage.batch_size ~stage.evaluate_after")
