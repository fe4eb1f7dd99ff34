"""Configs to settings: every mistake in one report, each contradiction with its remedy, and weights within seconds."""

from __future__ import annotations

import dataclasses
import http.server
import json
import pickle
import subprocess
import sys
import threading
import time
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from spacer import config, rules, weights
from spacer.config import ConfigError, load_settings
from spacer.rules import CHECKS, STAGES
from spacer.settings import (
    Advantage,
    JsonlSettings,
    LengthBonusSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    RewardSettings,
    RoomsSettings,
    Settings,
    TemporalBonusSettings,
)
from spacer.weights import check_model

REQUIRED: dict[str, dict[str, Any]] = {
    "": {"seed": 42, "output_dir": "outputs/test"},
    "model": {"name_or_path": "./tiny"},
    "dataset": {"root": "data"},
    "benchmark": {"name": "rooms"},
    "stage": {"name": "train", "optimizer": OptimizerSettings()},
    "reward": {"length": LengthBonusSettings(), "temporal": TemporalBonusSettings()},
}


def plain(value: Any) -> Any:
    """What a YAML file of these values would hold."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def valid(dataset: type = RoomsSettings) -> dict[str, Any]:
    """A valid config: every group with every field, as the shipped YAML files state them."""
    groups: dict[str, Any] = {**REQUIRED[""], "ckpt_path": None}
    for name, hint in typing.get_type_hints(Settings).items():
        cls = dataset if name == "dataset" else hint
        if dataclasses.is_dataclass(cls):
            target = f"{cls.__module__}.{cls.__name__}"
            groups[name] = {"_target_": target, **plain(cls(**REQUIRED.get(name, {})))}
    return groups


def load(**changes: Any) -> Settings:
    """Loads the valid config with `changes`, whose names have __ for the dots."""
    cfg = OmegaConf.create(valid())
    for path, value in changes.items():
        OmegaConf.update(cfg, path.replace("__", "."), value, merge=False, force_add=True)
    return load_settings(cfg)


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    return caught.value.problems


def only_problem(**changes: Any) -> str:
    found = problems(**changes)
    assert len(found) == 1, found
    return found[0]


def hints_of(hint: Any, path: str = "") -> dict[str, Any]:
    """The annotation of each setting, by path."""
    found = {path: hint}
    for option in config._options(hint):
        if dataclasses.is_dataclass(option):
            for name, inner in typing.get_type_hints(option).items():
                found |= hints_of(inner, f"{path}.{name}" if path else name)
    return found


# reading


def test_valid_config_gives_the_settings_it_states():
    settings = load()
    assert settings.model == ModelSettings(name_or_path="./tiny")
    assert settings.dataset == RoomsSettings(root="data")
    assert settings.reward == RewardSettings(length=LengthBonusSettings(), temporal=TemporalBonusSettings())
    assert settings.objective.advantage is Advantage.std
    assert settings.stage.optimizer == OptimizerSettings()
    assert isinstance(settings.stage.optimizer.betas, tuple)
    assert (settings.seed, settings.output_dir, settings.ckpt_path) == (42, "outputs/test", None)


def test_fields_left_out_take_their_defaults_and_targets_are_needless_where_one_class_fits():
    cfg = valid()
    cfg["objective"] = {"group_size": 4}
    assert load_settings(OmegaConf.create(cfg)).objective.kl_clamp == 10.0


def test_target_chooses_the_class_of_a_union(tmp_path):
    (tmp_path / "index.jsonl").touch()
    cfg = valid(JsonlSettings)
    cfg["dataset"]["root"] = str(tmp_path)
    assert load_settings(OmegaConf.create(cfg)).dataset == JsonlSettings(root=str(tmp_path))


@pytest.mark.parametrize(
    ("path", "given", "read"),
    [
        ("objective__beta", 0, 0.0),  # int for float
        ("objective__clip_low", None, None),
        ("cluster__devices", 1, 1),
        ("model__revision", "v2", "v2"),
        ("objective__advantage", "mean", Advantage.mean),
        ("objective__advantage", Advantage.mean, Advantage.mean),
        ("stage__optimizer__betas", [0, 0.5], (0.0, 0.5)),
        ("dataset__prompts", {"video": "Look."}, {"video": "Look."}),
        ("model__lora", {"rank": 4}, LoraSettings(rank=4)),
        ("trainer__max_time", "00:12:00:00", "00:12:00:00"),
        ("objective__max_completion_length", "${model.completion.max_tokens}", 1024),
    ],
)
def test_values_of_every_type(path, given, read):
    value: Any = load(**{path: given})
    for name in path.split("__"):
        value = getattr(value, name)
    assert value == read
    assert type(value) is type(read)


def test_every_setting_is_annotated_with_what_can_be_read():
    for hint in hints_of(Settings).values():
        assert config._describe(config._options(hint))


def test_an_annotation_that_is_not_known_is_named():
    with pytest.raises(AssertionError, match=r"annotated set\[int\]"):
        config._Reader().value([1], set[int] | None, "x")


def test_mistakes_of_all_kinds_are_reported_at_once():
    found = problems(
        model__learning_rat=1e-5,
        model__name_or_path="???",
        model__gradient_checkpointing="yes",
        objective__top_p=1.5,
        objective__advantage="stdd",
        objective__group_size=7,
        dataset__video__max_pixels="${nowhere.to_be_found}",
        dataset__min_objects=9,
        reward___target_="os.system",
        stage__optimizer__betas=[0.9],
        trainer__max_epochs=None,
    )
    beginnings = [
        "model.name_or_path: must be set: add model.name_or_path=…",
        "dataset.video.max_pixels: its interpolation fails: Interpolation key 'nowhere.to_be_found' not found",
        "model.learning_rat: unknown key (did you mean learning_rate?). Valid keys here: name_or_path, revision, ",
        "model.gradient_checkpointing: is 'yes', must be true or false",
        "reward._target_: 'os.system' is not allowed. Valid here: spacer.settings.RewardSettings",
        "objective.top_p: is 1.5, must be greater than 0 and at most 1",
        "objective.advantage: is 'stdd' (did you mean std?), must be one of std, mean",
        "stage.optimizer.betas: is [0.9], must be a list [a number, a number]",
        "dataset.min_objects=9 exceeds dataset.max_objects=6",
        "reward.temporal answers half as many shuffled videos as objective.group_size=7",
        "nothing ends this run",
    ]
    for beginning in beginnings:
        assert sum(problem.startswith(beginning) for problem in found) == 1, (beginning, found)
    assert len(found) == len(beginnings)


def test_error_reads_as_a_numbered_list_and_survives_pickling():
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
        ("objective__group_size", True, "objective.group_size: is true, must be an integer"),
        ("objective__group_size", 8.0, "objective.group_size: is 8.0, must be an integer"),
        ("objective__beta", True, "objective.beta: is true, must be a number"),
        ("objective__beta", float("nan"), "objective.beta: is nan, must be a number"),
        ("objective__beta", None, "objective.beta: is null, must be a number"),
        ("trainer__gradient_clip_val", "5", "trainer.gradient_clip_val: is '5', must be a number or null"),
        (
            "objective__ratio",
            "sequense",
            "objective.ratio: is 'sequense' (did you mean sequence?), must be one of token, ",
        ),
        ("cluster__devices", 1.5, "cluster.devices: is 1.5, must be an integer or a text"),
        ("model__revision", 123, "model.revision: is 123, must be a text or null: quote it, model.revision='\"…\"'"),
        ("stage__optimizer__betas", [0.9, "x"], "stage.optimizer.betas[1]: is 'x', must be a number"),
        ("stage__optimizer__betas", [0.9, 1.0], "stage.optimizer.betas[1]: is 1.0, must be at least 0 and less than 1"),
        ("stage__optimizer__betas", [0.9, "???"], "stage.optimizer.betas[1]: must be set"),
        ("dataset__prompts", {"video": 3}, "dataset.prompts.video: is 3, must be a text"),
        ("dataset__prompts", ["video"], "dataset.prompts: is ['video'], must be a section of keys"),
        ("dataset__video", 16, "dataset.video: is 16, must be a section with the keys max_frames, fps, max_pixels"),
        ("dataset", "???", "dataset: must be set: add dataset=…"),
        ("dataset", {"root": "x"}, "dataset._target_: must be set. Valid here: spacer.settings.JsonlSettings, "),
        (
            "dataset___target_",
            "spacer.settings.RoomSettings",
            "dataset._target_: 'spacer.settings.RoomSettings' is not",
        ),
        (
            "dataset___target_",
            "spacer.settings.ModelSettings",
            "dataset._target_: 'spacer.settings.ModelSettings' is not",
        ),
        ("model___target_", "subprocess.run", "model._target_: 'subprocess.run' is not allowed. Valid here: "),
        ("model___target_", None, "model._target_: must be set. Valid here: "),
        ("seed", "${oc.env:SPACER_ABSENT}", "seed: its interpolation fails: KeyError raised while resolving"),
        ("seed", "${seed}", "seed: its interpolation fails: Recursive interpolation detected"),
        ("seed", "${no_resolver:1}", "seed: its interpolation fails: Unsupported interpolation type no_resolver"),
        ("stage__name", "trian", "stage.name: is 'trian' (did you mean train?), must be one of train, sft, evaluate"),
        ("trainer__max_time", "12h", "trainer.max_time: is '12h', must be like 00:12:00:00"),
        ("model__dtype", "bf16", "model.dtype: is 'bf16' (did you mean bfloat16?), must be one of bfloat16, "),
    ],
)
def test_each_mistake_names_its_path_and_what_is_expected(path, value, message):
    assert only_problem(**{path: value}).startswith(message)


@pytest.mark.parametrize("group", [name for name in valid() if name != "ckpt_path"])
def test_a_group_left_out_must_be_set(group):
    cfg = valid()
    del cfg[group]
    with pytest.raises(ConfigError) as caught:
        load_settings(OmegaConf.create(cfg))
    assert caught.value.problems == [f"{group}: must be set: add {group}=…"]


def test_a_section_that_contains_itself_is_a_mistake():
    found = problems(dataset__prompts={"video": "${model.lora}"}, model__lora={"rank": "${dataset.prompts}"})
    assert any(problem.endswith("an interpolation makes this section contain itself") for problem in found)


def test_targets_are_looked_up_not_imported():
    before = set(sys.modules)
    problems(model___target_="this.EchoesPoem", dataset___target_="antigravity.fly")
    assert not {"this", "antigravity"} & (set(sys.modules) - before)


# ranges


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("model__learning_rate", -1e-6),
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
        ("objective__beta", -0.1),
        ("benchmark__temperature", -0.1),
        ("benchmark__limit", 0),
        ("benchmark__max_new_tokens", 0),
        ("trainer__max_steps", 0),
        ("trainer__max_epochs", -2),
        ("trainer__precision", "fp8"),
        ("logger__kind", "tensorboard"),
        ("stage__batch_size", 0),
        ("stage__guess_share", 1.5),
        ("stage__guess_after", -1),
        ("stage__optimizer__learning_rate", -1.0),
        ("stage__optimizer__warmup_steps", -1),
    ],
)
def test_out_of_range(path, value):
    assert only_problem(**{path: value}).startswith(f"{path.replace('__', '.')}: is {value!r}")


def test_lora_rank():
    assert only_problem(model__lora={"rank": 0}) == "model.lora.rank: is 0, must be at least 1"


def test_every_check_is_of_a_setting_that_exists_and_no_setting_has_two():
    assert not set(CHECKS) - set(hints_of(Settings))
    listed = [path for _, paths in rules._CHECKED for path in paths.split()]
    assert sorted(listed) == sorted(CHECKS)


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
            {
                "objective__updates_per_rollout": 4,
                "objective__clip_low": 0.2,
                "objective__clip_high": 0.2,
                "trainer__checkpoint_every_n_steps": 50,
            },
            "trainer.checkpoint_every_n_steps=50 would stop between",
            "multiple of objective.updates_per_rollout=4",
        ),
        ({"stage__optimizer": None}, "stage.name=train trains, but stage.optimizer is null", "stage=evaluate"),
        ({"stage__optimizer": None, "stage__name": "sft"}, "stage.name=sft trains", "stage=evaluate"),
        ({"trainer__max_epochs": None}, "nothing ends this run", "trainer.max_epochs=1"),
        ({"trainer__max_epochs": -1}, "nothing ends this run", "trainer.max_epochs=1"),
        ({"objective__max_completion_length": 0, "reward__length": None}, "objective.max_completion_length: is 0", ""),
        (
            {"cluster__devices": 4, "cluster__strategy": "ddp"},
            "cluster.devices=4",
            "cluster.devices=1 cluster.num_nodes=1",
        ),
        ({"cluster__devices": "auto"}, "cluster.devices='auto' cluster.num_nodes=1", "cluster.devices=1"),
        ({"cluster__devices": 0}, "one device for now", "cluster.devices=1"),
        ({"cluster__num_nodes": 2}, "cluster.num_nodes=2", "cluster.num_nodes=1"),
        ({"cluster__strategy": "ddp"}, "cluster.strategy=ddp: a run takes one device for now", "cluster.strategy=auto"),
        ({"ckpt_path": "/nowhere/last.ckpt"}, "ckpt_path=/nowhere/last.ckpt is neither", "ckpt_path=last"),
    ],
)
def test_contradictions(changes, named, remedy):
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
        {"objective__beta": 0.0},
        {"stage__optimizer": None, "stage__name": "evaluate", "trainer__max_epochs": None},
        {"model__fresh": True, "stage__name": "train"},
        {"model__fresh": True, "stage__name": "evaluate"},
        {"seed": 2**31 - 1, "dataset__max_objects": 8, "dataset__workers": 1},
        {"trainer__max_epochs": None, "trainer__max_steps": 10},
        {"trainer__max_epochs": None, "trainer__max_time": "00:01:00:00"},
        {"ckpt_path": "last"},
        {"ckpt_path": __file__},
    ],
)
def test_no_contradiction(changes):
    load(**changes)


def jsonl_problems(root: Path, stage: dict[str, Any] | None = None, **dataset: Any) -> list[str]:
    cfg = valid(JsonlSettings)
    cfg["dataset"] |= {"root": str(root), **dataset}
    cfg["stage"] |= stage or {}
    try:
        load_settings(OmegaConf.create(cfg))
    except ConfigError as error:
        return error.problems
    return []


def test_jsonl_files_are_looked_for(tmp_path):
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
        ({"name": "evaluate", "optimizer": None}, "choose dataset=rooms"),
        ({"name": "evaluate", "evaluate_after": True}, "choose dataset=rooms"),
        ({"evaluate_before": True}, "set stage.evaluate_before=false stage.evaluate_after=false"),
        ({"evaluate_after": True}, "set stage.evaluate_before=false stage.evaluate_after=false"),
        ({"name": "sft", "evaluate_after": True}, "set stage.evaluate_before=false stage.evaluate_after=false"),
    ],
)
def test_a_jsonl_file_has_no_held_out_questions(stage, remedy, tmp_path):
    (tmp_path / "index.jsonl").touch()
    (problem,) = jsonl_problems(tmp_path, stage)
    assert "a plain JSONL file has no" in problem
    assert problem.endswith(remedy)


def test_a_value_that_cannot_be_read_silences_the_rules_that_need_it_and_no_other():
    found = problems(objective__group_size="eight", objective__clip_low=0.2)
    assert len(found) == 2
    assert found[0].startswith("objective.group_size: is 'eight'")
    assert found[1].startswith("objective.clip_low and objective.clip_high go together")
    assert len(problems(objective="???", trainer__max_epochs=None)) == 2


def test_stages():
    for name in STAGES:
        assert load(stage__name=name).stage.name == name


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from spacer import config, weights; from omegaconf import OmegaConf\n"
        "try: config.load_settings(OmegaConf.create({}))\n"
        "except config.ConfigError: pass\n"
        "else: sys.exit('no error')\n"
        "heavy = {'torch', 'transformers', 'pytorch_lightning', 'decord', 'huggingface_hub', 'numpy'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    root = Path(config.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# weights


def write_model(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_text("{}")
    return folder


def refused(name: str | Path, revision: str | None = None) -> str:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        check_model(ModelSettings(name_or_path=str(name), revision=revision))
    assert time.monotonic() - started < 10
    (problem,) = caught.value.problems
    assert problem.startswith(f"model.name_or_path={name}: ")
    for remedy in (
        "set model.name_or_path=/path/to/folder",
        "HF_HUB_OFFLINE",
        "hf auth login",
        "HF_HOME",
        "model=tiny",
    ):
        assert remedy in problem
    return problem


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """As HF_ENDPOINT does, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_folder_that_holds_a_model(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "org" / "name", "config.json", "model.safetensors")
    assert check_model(ModelSettings(name_or_path=str(folder))) == folder
    monkeypatch.chdir(tmp_path)
    assert check_model(ModelSettings(name_or_path="org/name")) == Path("org/name")  # a folder goes before the hub
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_model(ModelSettings(name_or_path="~/org/name")) == folder


def test_a_folder_that_lacks_something(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "absent")
    assert "there is no such folder" in refused("./absent")
    assert "the folder lacks config.json, *.safetensors weights" in refused(write_model(tmp_path / "a", "pytorch.bin"))
    assert "the folder lacks *.safetensors weights." in refused(write_model(tmp_path / "b", "config.json"))
    assert "the folder lacks config.json." in refused(write_model(tmp_path / "c", "model.safetensors"))
    assert "it is a file" in refused(tmp_path / "c" / "model.safetensors")


def test_a_folder_that_lacks_a_shard(tmp_path):
    folder = write_model(tmp_path, "config.json", "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert "the folder lacks model-2.safetensors." in refused(folder)
    index.write_text("{broken")
    assert "cannot be read (JSONDecodeError" in refused(folder)
    index.write_text("{}")
    assert "cannot be read (KeyError" in refused(folder)


@pytest.mark.parametrize("name", ["qwen", "org/na me", "org/a--b", ""])
def test_neither_folder_nor_hub_id(name, empty_cache):
    assert "neither an existing folder nor a hub id" in refused(name)


def test_a_model_in_the_cache_asks_no_network(empty_cache, monkeypatch):
    monkeypatch.setattr(weights, "_request", lambda *_: pytest.fail("the hub was asked"))
    cached = empty_cache / "models--org--name"
    snapshot = write_model(cached / "snapshots" / "abc", "config.json", "model.safetensors")
    write_model(cached / "refs").joinpath("main").write_text("abc")
    assert check_model(ModelSettings(name_or_path="org/name")) == "org/name"
    assert check_model(ModelSettings(name_or_path="org/name", revision="abc")) == "org/name"
    monkeypatch.setattr(weights, "_request", lambda *_: "the hub is away")
    (snapshot / "model.safetensors").unlink()
    assert "the folder lacks *.safetensors weights; and the hub is away" in refused("org/name")


def test_offline(empty_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("org/name")


def test_unreachable_hub_ends_in_time(empty_cache, monkeypatch):
    # the name is reserved never to resolve (RFC 6761), so that the test needs no closed network
    set_endpoint(monkeypatch, "https://hub.invalid")
    assert "https://hub.invalid cannot be reached" in refused("org/name")


def test_silent_name_server_ends_in_time(empty_cache, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.2)
    set_endpoint(monkeypatch, "https://hub.invalid")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: release.wait(30) and [])
    started = time.monotonic()
    assert "https://hub.invalid did not answer within 0.2 s" in refused("org/name")
    assert time.monotonic() - started < 5
    release.set()


ANSWERS = {  # what the hub answers: (status, X-Error-Code), and how we say it
    "here": (200, None, None),
    "gated": (403, "GatedRepo", "it is gated"),
    "unknown": (401, "RepoNotFound", "has no such model, or it is private"),
    "revised": (404, "RevisionNotFound", "has no model.revision=v2 of it"),
    "bare": (404, "EntryNotFound", "it holds no config.json"),
    "broken": (500, None, "cannot be reached or refused (HfHubHTTPError"),
}


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        if "/silent/" in self.path:
            time.sleep(1)
        status, code, _ = ANSWERS.get(self.path.split("/")[2], (500, None, None))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(empty_cache, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    set_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    server.shutdown()
    server.server_close()


def test_what_the_hub_answers(hub):
    assert check_model(ModelSettings(name_or_path="org/here")) == "org/here"
    for name, (_, _, said) in ANSWERS.items():
        if said:
            assert said in refused(f"org/{name}", revision="v2")


def test_a_silent_hub_is_asked_once(hub, monkeypatch):
    monkeypatch.setattr(weights, "REQUEST_SECONDS", 0.2)
    assert "cannot be reached or refused (ReadTimeout" in refused("silent/model")
