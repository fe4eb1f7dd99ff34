"""Checkpoints exported as a user does it, beside what the training run exported itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import SMALL, Command

QUICK = (
    *SMALL,
    *("stage.evaluate_before=false", "stage.evaluate_after=false", "logger=none", "trainer.max_steps=1"),
    *("objective.max_completion_length=16", "model.learning_rate=0.01", "trainer.self_check=false"),
    *("model.completion.bonus_min=4", "model.completion.bonus_max=16"),
)
ADAPTERS = "model.lora={rank: 4, alpha: 8, dropout: 0.0}"


@pytest.mark.parametrize(
    "more", [pytest.param((), id="whole"), pytest.param((ADAPTERS,), id="adapters", marks=pytest.mark.long)]
)
def test_equals_the_training_runs_own_export_bit_for_bit(
    more: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    trained, out = tmp_path / "trained", tmp_path / "out"
    done = command(*QUICK, *more, f"hydra.run.dir={trained}")
    assert done.returncode == 0, done.stdout + done.stderr
    scored = tmp_path / "scored"
    scored.mkdir()
    official = {"overall": {"value": 0.4321, "low": 0.4, "high": 0.46}, "by_task": {"object_counting": 0.25}}
    (scored / "scores.json").write_text(json.dumps({"benchmark": "vsi_bench", "official": official}))
    checkpoint = f"ckpt_path={trained / 'checkpoints/last.ckpt'}"
    done = command("stage=export", checkpoint, *more, f"runs=[{scored}]", f"hydra.run.dir={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    own, made = (load_file(folder / "model/model.safetensors") for folder in (trained, out))
    assert own.keys() == made.keys()
    assert all(torch.equal(own[name], made[name]) and own[name].dtype == made[name].dtype for name in own)
    files = {path.name for path in (trained / "model").iterdir()}
    assert {path.name for path in (out / "model").iterdir()} == files | {"README.md"}
    for name in files - {"model.safetensors"}:
        assert (out / "model" / name).read_bytes() == (trained / "model" / name).read_bytes(), name
    card = (out / "model/README.md").read_text()
    for words in ("1 optimiser step,", "| vsi_bench | overall | 0.4321 | 0.4 to 0.46 |", "by_task/object_counting"):
        assert words in card
    assert ("adapters of rank 4" in card) == bool(more)
    assert "learning_rate: 0.01" in card and "${" not in card and "cc-by-nc" not in card


def test_mistakes_are_told_before_torch(command: Command, tmp_path: Path) -> None:
    done = command("stage=export", "ckpt_path=last", "stage.save_dtype=int8", f"runs=[{tmp_path / 'none'}]")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for words in ("3 mistakes", "takes a checkpoint's file", "stage.save_dtype: is 'int8'", "not an existing folder"):
        assert words in done.stderr, done.stderr
