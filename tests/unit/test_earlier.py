"""`run=DIR` of stage=evaluate: what it takes of a run, what the command line changes, and what is no run."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from spacer.config.load import ConfigError, load_settings
from spacer.config.settings import LoraSettings, Settings
from spacer.errors import UserError
from spacer.sweeping.earlier import of_earlier, options_of, taken
from spacer.sweeping.record import Record, Status, plain, write

CONF = Path(__file__).resolve().parents[2] / "conf"
WHILE_TRAINING = ("dataset.heldout_scenes=7", "dataset.video.max_frames=4", "reward=grpo", "seed=5")


def settings(*words: str) -> Settings:
    """Those of a run with the overrides, as `spacer.cli` makes them."""
    os.environ["SPACER_ROOT"] = str(CONF.parent)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load_settings(of_earlier(compose("config", ["output_dir=/tmp/none", *words]), words))


def recorded(folder: Path, *words: str, saved: bool = True, **model: Any) -> str:
    """Leaves a run that trained, and returns its folder."""
    was = settings(*words)
    was = replace(was, model=replace(was.model, **model))
    folder.mkdir()
    write(folder, Record(Status.done, plain(was)))
    if saved:
        (folder / "model").mkdir()
        (folder / "model/config.json").write_text("{}")
    return str(folder)


def test_model_data_prompts_and_rewards_are_the_runs(tmp_path: Path) -> None:
    own = ["dataset/prompts=detailed", "trainer.precision=bf16-mixed", *WHILE_TRAINING]
    run = recorded(tmp_path / "run", *own, lora=LoraSettings(), revision="abc")
    before, found = settings(*own), settings("stage=evaluate", f"run={run}")
    assert found.dataset == before.dataset and found.reward == before.reward
    assert (found.seed, found.trainer.precision) == (5, "bf16-mixed")
    assert found.model == replace(before.model, name_or_path=f"{run}/model")  # adapters are in its weights
    assert found.evaluation == before.evaluation


def test_what_the_command_line_says_comes_first(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", *WHILE_TRAINING)
    more = ["dataset.heldout_scenes=3", "seed=1", "dataset/prompts=detailed", "model.completion.max_tokens=9"]
    found = settings("stage=evaluate", f"run={run}", *more)
    assert (found.dataset.heldout_scenes, found.dataset.video.max_frames) == (3, 4)  # type: ignore[union-attr]
    assert found.dataset.prompts == settings("dataset/prompts=detailed").dataset.prompts  # type: ignore[union-attr]
    assert (found.seed, found.evaluation.max_new_tokens) == (1, 9)
    assert found.reward == settings("reward=grpo").reward
    other = settings("stage=evaluate", f"run={run}", "reward=accuracy", "model=tiny")
    assert other.reward == settings("reward=accuracy").reward and other.model == settings().model
    assert taken(["model=tiny", "dataset.workers=1"]) == ("dataset", "reward")


def test_a_run_that_trained_nothing_lends_the_model_that_it_asked(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", "stage=evaluate", saved=False)
    assert settings("stage=evaluate", f"run={run}").model == settings().model


def test_data_of_ones_own_is_that_of_the_run(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("index.jsonl", "heldout.jsonl"):
        (root / name).touch()
    own = ["dataset=jsonl", f"dataset.root={root}", "dataset.heldout=heldout.jsonl"]
    run = recorded(tmp_path / "run", *own)
    assert asdict(settings("stage=evaluate", f"run={run}").dataset) == asdict(settings(*own).dataset)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run=.*nowhere is not the folder of a run: it has no run\.json"):
        settings("stage=evaluate", f"run={tmp_path / 'nowhere'}")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        settings("stage=evaluate", f"run={tmp_path}")
    killed = recorded(tmp_path / "killed", saved=False)
    with pytest.raises(UserError, match=r"killed has saved no model: finish it with ckpt_path=last hydra\.run\.dir="):
        settings("stage=evaluate", f"run={killed}")
    with pytest.raises(ConfigError, match="is for stage=evaluate, which takes a run's model and settings"):
        settings("stage=sft", f"run={tmp_path}")


def test_options_are_those_that_hydra_wrote(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/hydra.yaml").write_text("hydra: {runtime: {choices: {model: qwen7b, dataset: jsonl}}}")
    assert options_of(str(tmp_path), ("model", "reward")) == {"model": "qwen7b"}
    assert options_of(str(tmp_path / "none"), ("model",)) == {}
