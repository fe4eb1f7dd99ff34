"""Models of families without prefix trees through the command line, and the plain computation of one that has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Command, Kill, fails, succeeds
from tests.cli.test_families import data
from tests.cli.test_train import rows
from tests.plain_models import make_folder

pytestmark = pytest.mark.long

__all__ = ["data"]
CLASSES = ("internvl", "gemma3", "qwen3_5")  # the others are in tests/parity/test_plain_families.py
PICTURES = "dataset.video.shown=pictures"  # Gemma's processor takes no videos
# random words earn nothing else
# unlike for as good as any two completions, so that groups teach
LETTERS = "def letters(completions):\n    return [sum(map(ord, text)) % 97 / 97 for text in completions]\n"
ASKED = ("stage=evaluate", "evaluation.max_new_tokens=8", "evaluation.batch_size=1")


def words(data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("dataset=jsonl", f"dataset.root={data}", "dataset.heldout=heldout.jsonl", "dataset.workers=1"),
        *("dataset.video.max_pixels=4096", "dataset.image_max_pixels=4096", "dataset.video.max_frames=4"),
        *("logger=none", *more, f"hydra.run.dir={out}"),
    ]


def in_tower(name: str) -> bool:
    """Whether a tensor is of the model's vision tower."""
    return "vision_tower" in name or ".visual." in name


def answers(folder: Path) -> list[dict]:
    return rows(folder / "predictions" / "heldout.jsonl")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_without_trees_answers_as_before_after_it_was_killed(
    kind: str, command: Command, kill: Kill, data: Path, tmp_path: Path
) -> None:
    model = f"model.name_or_path={make_folder(tmp_path / 'model', kind)}"
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    said = succeeds(command(*words(data, whole, *ASKED, model, PICTURES)))
    assert "plain computation: completions by model.generate" in said and f"it is of type {kind}" in said
    assert "self-check of decoding: off by" in said
    found = answers(whole)
    assert [row["id"] for row in found] == ["video2", "image2", "text2"]
    assert len({row["completion"] for row in found}) == 3 and all("error" not in row for row in found)

    part = torn / "predictions" / "heldout.0.part.jsonl"
    kill(words(data, torn, *ASKED, model, PICTURES), lambda: part.exists() and part.stat().st_size > 0)
    assert not (torn / "summary.json").exists()
    succeeds(command(*words(data, torn, *ASKED, model, PICTURES)))
    assert answers(torn) == found

    said = fails(
        command(*words(data, torn, *ASKED, model, PICTURES, "model.computation=tree")), "set model.computation=plain"
    )
    assert kind in said
    if kind == "gemma3":
        fails(command(*words(data, tmp_path / "films", *ASKED, model)), "takes no videos", PICTURES)


def test_trees_and_the_plain_computation_give_the_same_answers(command: Command, data: Path, tmp_path: Path) -> None:
    greedy = ("model.positions=transformers", "evaluation.temperature=0")
    index = [json.loads(line) for line in (data / "heldout.jsonl").read_text().splitlines()]
    root = tmp_path / "root"
    shutil.copytree(data, root)
    # a control token that a question spells out is plain text in trees alone
    lines = [row | {"problem": row["problem"].replace(" <|im_end|>", "")} for row in index]
    (root / "heldout.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*lines, index[0] | {"problem_id": "odd"}])
    )
    found = {}
    for how in ("tree", "plain"):
        said = succeeds(command(*words(root, tmp_path / how, *ASKED, *greedy, f"model.computation={how}")))
        assert ("plain computation" in said) == (how == "plain")
        found[how] = {row["id"]: row for row in answers(tmp_path / how)}
    odd = {how: found[how].pop("odd") for how in found}
    assert found["plain"] == found["tree"] and len(found["tree"]) == 3
    assert "error" not in odd["tree"] and "spells out the control token <|im_end|>" in odd["plain"]["error"]
    conditions = json.loads((tmp_path / "plain/predictions/heldout.conditions.json").read_text())
    assert conditions["model"]["attention"]["rows"] == "plain"
    fails(command(*words(root, tmp_path / "tree", *ASKED, *greedy, "model.computation=plain")), "attention.rows")
    fails(command(*words(root, tmp_path / "no", *ASKED, "model.computation=plain")), "set model.positions=transformers")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_without_trees_is_taught_trained_resumed_and_exported(
    kind: str, command: Command, data: Path, tmp_path: Path
) -> None:
    model, taught, trained, whole = (tmp_path / name for name in ("model", "taught", "trained", "whole"))
    make_folder(model, kind)
    (tmp_path / "mine.py").write_text(LETTERS)
    common = (PICTURES, "trainer.checkpoint_every_n_steps=1", "stage.evaluate_before=false")
    two = ("stage=sft", "stage.batch_size=2", "stage.evaluate_after=false", "trainer.max_steps=2")
    two += ("model.freeze_vision=false",)
    succeeds(command(*words(data, taught, *two, *common, f"model.name_or_path={model}")))
    after, before = (load_file(folder / "model.safetensors") for folder in (taught / "model", model))
    assert after.keys() == before.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any(in_tower(name) for name in moved) and any("language_model" in name for name in moved)

    grpo = (
        *("objective.prompts_per_rollout=2", "objective.group_size=2", "objective.beta=0.04"),
        *("model.completion.max_tokens=8", "model.completion.bonus_min=2", "model.completion.bonus_max=8"),
        *("model.freeze_vision=true", f"model.name_or_path={taught / 'model'}", "evaluation.max_new_tokens=8"),
        "stage.optimizer.schedule=constant",
        f"reward.functions=[{{path: '{tmp_path}/mine.py:letters', weight: 1.0}}]",
    )
    said = succeeds(command(*words(data, whole, *common, *grpo, "trainer.max_steps=2")))
    assert "self-check of decoding: off by" in said
    steps = [row for row in rows(whole / "history.jsonl") if "train/sampling_drift" in row]
    assert len(steps) == 2 and all(row["train/sampling_drift"] < 1e-5 for row in steps)
    assert steps[0]["train/kl"] == pytest.approx(0, abs=1e-6) and steps[1]["train/kl"] > 0
    cut = (*common, *grpo, "stage.evaluate_after=false")
    succeeds(command(*words(data, trained, *cut, "trainer.max_steps=1")))
    succeeds(command(*words(data, trained, *cut, "trainer.max_steps=2", "ckpt_path=last")))
    resumed, expected = (load_file(folder / "model" / "model.safetensors") for folder in (trained, whole))
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    assert any(not torch.equal(value, after[name]) for name, value in expected.items())
    assert all(torch.equal(value, after[name]) for name, value in expected.items() if in_tower(name))

    checkpoint = f"ckpt_path={trained / 'checkpoints' / 'last.ckpt'}"
    export = ("stage=export", checkpoint, f"model.name_or_path={taught / 'model'}", "model.freeze_vision=true")
    succeeds(command(*export, f"hydra.run.dir={tmp_path / 'exported'}"))
    exported = load_file(tmp_path / "exported" / "model" / "model.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("model.lora={rank: 4, alpha: 8, dropout: 0.0}",), "set model.lora=null"),
        (("cluster=fsdp",), "cluster=ddp"),
        (("model.frame_times=processor",), "set model.frame_times=real"),
        (("model.decoding=graph",), "set model.decoding=eager"),
        (("reward=sg_rlvr_temporal",), "set reward.temporal=null"),
    ],
)
def test_what_is_not_done_without_trees_is_refused_before_torch_loads(
    more: tuple[str, ...], said: str, without_torch: Command, data: Path, tmp_path: Path
) -> None:
    fails(without_torch(*words(data, tmp_path / "out", "model.computation=plain", *more)), said)
