"""The main job on two devices through the command line: as on one, and killed and resumed as never killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import SMALL, Command, Kill, fails, succeeds
from tests.cli.test_train import rows

pytestmark = pytest.mark.long

STEPS = 4
ROWS = STEPS + 2  # of the history, with the evaluations at its start and after three steps
STRATEGIES = ("ddp", "fsdp")
JOB = (
    *SMALL,
    "evaluation.limit=6",
    "evaluation.every_n_steps=3",
    "evaluation.subset=5",
    "logger=none",
    "stage.evaluate_after=false",
)


def on(strategy: str, devices: int, prompts: int, folder: Path, steps: int = STEPS) -> list[str]:
    spread = (f"cluster={strategy}", "cluster.accelerator=cpu", f"cluster.devices={devices}")
    return [
        *JOB,
        *spread,
        f"objective.prompts_per_rollout={prompts}",
        f"trainer.max_steps={steps}",
        f"hydra.run.dir={folder}",
    ]


@pytest.fixture(scope="module")
def alone(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on one device."""
    folder = tmp_path_factory.mktemp("alone")
    succeeds(command(*on("local", 1, 2, folder)))
    return folder


@pytest.fixture(scope="module", params=STRATEGIES)
def two(
    request: pytest.FixtureRequest, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    """A strategy, the folder of a run on two devices that was left in peace, and what it said."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, succeeds(command(*on(request.param, 2, 1, folder)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


def test_two_devices_do_what_one_does(alone: Path, two: tuple[str, Path, str]) -> None:
    _, folder, said = two
    assert (folder / "predictions/before.jsonl").read_bytes() == (alone / "predictions/before.jsonl").read_bytes()
    assert not list(folder.glob("predictions/*.part.jsonl"))
    expected, found = (rows(path / "history.jsonl") for path in (alone, folder))
    assert len(expected) == ROWS
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        kept = {name for name in one if not name.startswith("speed/")} - {"train/sampling_drift"}
        assert {key: other[key] for key in kept} == pytest.approx({key: one[key] for key in kept}, rel=1e-5, abs=1e-7)
    for name, value in weights(alone).items():
        # attention hardly notices a bias of all keys: its gradient is next to nothing, and Adam scales its rounding up
        bound = 5e-5 if name.endswith("k_proj.bias") else 1e-5
        assert float((weights(folder)[name] - value).norm() / value.norm()) < bound, name
    assert json.loads((folder / "summary.json").read_text())["seed"] == 0
    assert said.count("go on with the same settings and ckpt_path=last") == 1  # one process speaks


def test_killed_and_resumed_ends_with_the_same_weights(
    two: tuple[str, Path, str], command: Command, kill: Kill, tmp_path: Path
) -> None:
    strategy, folder, _ = two
    words, history = on(strategy, 2, 1, tmp_path), tmp_path / "history.jsonl"
    kill(words, lambda: history.exists() and history.read_text().count("\n") >= 2)
    assert not (tmp_path / "model").exists()
    succeeds(command(*words, "ckpt_path=last"))
    untouched, mended = weights(folder), weights(tmp_path)
    assert untouched.keys() == mended.keys()
    assert all(torch.equal(untouched[name], mended[name]) for name in untouched)


def test_adapters_that_are_spread_over_devices_go_on_from_their_checkpoint(
    command: Command, kill: Kill, tmp_path: Path
) -> None:
    """Of a checkpoint that holds the adapters alone."""
    adapters = ("model.lora={rank: 4, alpha: 8, dropout: 0.0}", "stage.evaluate_before=false")
    peace, mended = tmp_path / "peace", tmp_path / "mended"
    succeeds(command(*on("fsdp", 2, 1, peace), *adapters))
    words, history = [*on("fsdp", 2, 1, mended), *adapters], mended / "history.jsonl"
    kill(words, lambda: history.exists() and history.read_text().count("\n") >= 2)
    succeeds(command(*words, "ckpt_path=last"))
    assert all(torch.equal(weights(peace)[name], value) for name, value in weights(mended).items())
    held = torch.load(mended / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert held and all("lora" in name for name in held)


def test_a_checkpoint_holds_the_whole_model_and_goes_on_with_other_numbers_of_devices(
    two: tuple[str, Path, str], command: Command, tmp_path: Path
) -> None:
    strategy, folder, _ = two
    exported = tmp_path / "exported"
    succeeds(command("stage=export", f"ckpt_path={folder}/checkpoints/last.ckpt", f"hydra.run.dir={exported}"))
    assert all(torch.equal(weights(exported)[name], value) for name, value in weights(folder).items())
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    shutil.rmtree(out / "model")
    other = STRATEGIES[1 - STRATEGIES.index(strategy)]
    fails(command(*on(strategy, 1, 1, out, STEPS + 1), "ckpt_path=last"), "objective.prompts_per_rollout=2")
    fails(command(*on(other, 1, 2, out, STEPS + 1), "ckpt_path=last"), f"was written under cluster.strategy={strategy}")
    succeeds(command(*on(strategy, 1, 2, out, STEPS + 1), "ckpt_path=last"))
    assert len(rows(out / "history.jsonl")) == ROWS + 1
