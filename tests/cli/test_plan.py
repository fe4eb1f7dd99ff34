"""stage=plan as a user calls it: no weights, no data, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, fails, succeeds
from tests.pages import commands


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return found


def test_the_published_run_on_eight_gpus(command: Command, tmp_path: Path) -> None:
    words = ("stage=plan", "experiments=spacer_7b", "cluster.devices=8", "cluster.strategy=fsdp")
    said = succeeds(command(*words, "stage.plan.questions=151310", f"hydra.run.dir={tmp_path}"))
    plan = read(tmp_path)
    assert plan["fits"] is True and plan["advice"] == [] and plan["parameters"] == 8_292_166_656
    assert {"weights", "gradients", "optimizer", "reference", "kv_cache", "activations", "logits"} <= set(
        plan["bytes_per_gpu"]
    )
    assert max(plan["bytes_per_gpu_by_phase"].values()) == plan["peak_bytes_per_gpu"] < plan["room_bytes_per_gpu"]
    assert sum(plan["plain_flops_per_step"].values()) > 1.5 * sum(plan["flops_per_step"].values())
    assert plan["limits"]["group"] > 8 and plan["days"] > 0
    for words_said in ("KV cache", "Tokens of a prompt", "151,310 questions", "fits"):
        assert words_said in said
    assert all(len(line) <= 80 for line in said.splitlines() if "plan.json" not in line)


def test_what_does_not_fit_is_refused_with_advice_after_it_is_told(command: Command, tmp_path: Path) -> None:
    done = command("stage=plan", "model=qwen7b", "cluster.devices=8", f"hydra.run.dir={tmp_path}")
    said = fails(done, "needs", "GiB of each GPU", "cluster.strategy=fsdp", "objective.beta=0")
    plan = read(tmp_path)
    assert plan["fits"] is False and plan["limits"]["group"] == 0
    assert len(plan["advice"]) > 3 and plan["advice"][0].split(":")[0] in said
    assert "Memory of each GPU" in done.stdout and "does NOT fit" in done.stdout


def test_what_does_not_fit_one_gpu_names_the_experiment_that_does(command: Command, tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").touch()
    data = ("stage=plan", "dataset=jsonl", f"dataset.root={tmp_path}")
    told = fails(command(*data, "model=qwen3b", f"hydra.run.dir={tmp_path / 'whole'}"))
    assert told.startswith("Fits one GPU: experiments=sr91k_3b_lora in place of model=qwen3b: ")
    succeeds(command(*data, "experiments=sr91k_3b_lora", f"hydra.run.dir={tmp_path / 'adapters'}"))
    peak = read(tmp_path / "adapters")["peak_bytes_per_gpu"] / 2**30
    assert f"model=qwen3b: {peak:.1f} GiB\n" in told
    eight = command(*data, "model=qwen7b", "cluster.devices=8", f"hydra.run.dir={tmp_path / 'eight'}")
    assert "Fits one GPU" not in fails(eight)


def test_the_embedded_model(command: Command, tmp_path: Path) -> None:
    succeeds(command("stage=plan", "cluster.accelerator=cpu", f"hydra.run.dir={tmp_path}"))
    plan = read(tmp_path)
    assert plan["parameters"] == 3_248_064 and plan["questions"] == 768
    assert plan["bytes_per_gpu"]["weights"] == 4 * 3_248_064


def training_commands() -> list[tuple[str, ...]]:
    """The commands of the pages that train models of billions of weights, but for those that plan it themselves."""
    published = ("experiments=spacer_", "experiments=sr91k_", "experiments=qwen3vl_")
    return [words for words in commands() if any(w.startswith(published) for w in words) and "stage=plan" not in words]


@pytest.mark.long
@pytest.mark.parametrize("words", training_commands(), ids=" ".join)
def test_gpus_of_80_gb_hold_what_the_pages_say(words: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    """Also a sweep's line, with nothing that submits: a run is planned where it is called."""
    kept = [word for word in words if not word.startswith(("-m", "sweeps=", "stage", "dataset.heldout="))]
    kept += [] if any(word.startswith("cluster.devices=") for word in kept) else ["cluster.devices=8"]
    one = ["cluster.devices=1"] if not any(word.startswith("cluster") for word in words) else []
    here = [f"hydra.{mode}.dir={tmp_path}" for mode in ("run", "sweep")]
    succeeds(command("stage=plan", *kept, *one, "stage.plan.questions=1000", *here))
    (found,) = tmp_path.rglob("plan.json")
    assert read(found.parent)["fits"] is True


def test_a_number_of_gpus_must_be_named(command: Command) -> None:
    fails(command("stage=plan", "model=qwen7b", "cluster.devices=auto"), "set cluster.devices=8")


def test_another_folder_for_a_run_is_hydras_to_set(command: Command, tmp_path: Path) -> None:
    there = tmp_path / "there"
    done = command("stage=plan", "model=qwen7b", f"output_dir={there}", f"hydra.run.dir={tmp_path / 'here'}")
    fails(done, f"output_dir={there} would leave the record", f"hydra.run.dir={there}")
    assert not there.exists()
