"""Other ways to train, through the command line: adapters, the temporal bonus, several updates, supervised, a sweep."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.conftest import ROOT, SMALL, Command, succeeds
from tests.cli.test_train import rows

pytestmark = pytest.mark.long

QUICK = (
    *SMALL,
    "stage.evaluate_before=false",
    "stage.evaluate_after=false",
    "logger=none",
    "logger.rollouts_every_n_steps=0",
    "trainer.max_steps=2",
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}


ADAPTERS = (
    "model.lora={rank: 4, alpha: 8, dropout: 0.0}",
    "model.learning_rate=0.01",
    "stage.optimizer.schedule=constant",
)


@pytest.fixture(scope="module")
def adapted(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    succeeds(command(*QUICK, *ADAPTERS, f"hydra.run.dir={folder}"))
    return folder


def test_adapters_change_only_what_they_adapt_and_are_merged_on_saving(adapted: Path) -> None:
    before, after = weights(ROOT / "spacer/assets/tiny"), weights(adapted / "model")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-7)}
    assert changed and all("layers" in name and "proj" in name and "visual" not in name for name in changed)
    assert all("train/kl" in row for row in rows(adapted / "history.jsonl"))


def test_a_checkpoint_of_adapters_holds_them_alone_and_is_gone_on_from(
    adapted: Path, command: Command, tmp_path: Path
) -> None:
    whole, halves = f"hydra.run.dir={tmp_path / 'whole'}", f"hydra.run.dir={tmp_path / 'halves'}"
    shutil.copytree(adapted, tmp_path / "halves")
    kept = torch.load(tmp_path / "halves/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert kept and all("lora_" in name for name in kept)
    succeeds(command(*QUICK, *ADAPTERS, "trainer.max_steps=4", whole))
    succeeds(command(*QUICK, *ADAPTERS, "trainer.max_steps=4", "ckpt_path=last", halves))
    one, other = weights(tmp_path / "whole/model"), weights(tmp_path / "halves/model")
    assert all(torch.equal(one[name], other[name]) for name in one)
    without = command(*QUICK, "ckpt_path=last", halves)
    assert without.returncode == 1 and "the checkpoint lacks" in without.stderr and "model.lora" in without.stderr


def test_temporal_bonus_is_paid_for_order(command: Command, tmp_path: Path) -> None:
    done = command(*QUICK, "reward=sg_rlvr_temporal", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    history = rows(tmp_path / "history.jsonl")
    assert any(row["reward/temporal"] > 0 for row in history)
    # the bonus goes to completions with a good answer only
    assert all(row["reward/temporal"] <= 0.3 for row in history)


def test_further_updates_leave_the_policy_that_sampled(command: Command, tmp_path: Path) -> None:
    overrides = ("objective=ppo_clip", "model.learning_rate=0.01")
    done = command(*QUICK, *overrides, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows(tmp_path / "history.jsonl")  # one rollout serves both updates
    assert row["train/ratio_mean"] != 1


def test_parts_of_a_rollout_make_a_step_each(command: Command, tmp_path: Path) -> None:
    clipped = ("objective.clip_low=0.2", "objective.clip_high=0.2", "stage.optimizer.schedule=constant")
    parts = ("objective.prompts_per_rollout=4", "objective.rollout_parts=4", "trainer.checkpoint_every_n_steps=3")
    whole, halves = f"hydra.run.dir={tmp_path / 'whole'}", f"hydra.run.dir={tmp_path / 'halves'}"
    succeeds(command(*QUICK, *clipped, *parts, "trainer.max_steps=8", whole))
    history = rows(tmp_path / "whole/history.jsonl")
    assert [row["step"] for row in history] == [0, 4]
    assert [row["train/prompts_seen"] for row in history] == [4, 8]
    assert all(row["train/ratio_mean"] != 1 and row["train/sampling_drift"] < 1e-4 for row in history)
    succeeds(command(*QUICK, *clipped, *parts, "trainer.max_steps=4", halves))
    succeeds(command(*QUICK, *clipped, *parts, "trainer.max_steps=8", "ckpt_path=last", halves))
    one, other = weights(tmp_path / "whole/model"), weights(tmp_path / "halves/model")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_accumulation_takes_one_step_for_several_batches(command: Command, tmp_path: Path) -> None:
    done = command(*QUICK, "trainer.accumulate_grad_batches=2", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1])["step"]
    assert steps == 1  # the second of two, counted from 0


def test_supervised_training_from_untrained_weights(command: Command, tmp_path: Path) -> None:
    overrides = ("experiments=tiny_watch", "model=tiny_fresh", "dataset.train_scenes=10", "dataset.heldout_scenes=4")
    overrides += ("stage.evaluate_after=true", "stage.save_dtype=bfloat16", "stage.optimizer.warmup_steps=1")
    more = ("trainer.max_steps=6", "trainer.checkpoint_every_n_steps=3", "stage.batch_size=8", "evaluation.limit=6")
    done = command(*overrides, *more, "logger=tensorboard", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [row["train/loss"] for row in rows(tmp_path / "history.jsonl")]
    assert len(losses) == 6 and losses[-1] < losses[0]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)
    (total,) = events.Scalars("eval/rooms/reward/total")
    after = [row["reward"]["total"] for row in rows(tmp_path / "predictions/after.jsonl")]
    assert total.step == 5 and total.value == pytest.approx(sum(after) / 6)
    assert weights(tmp_path / "model").keys() == weights(ROOT / "spacer/assets/tiny").keys()
    assert (tmp_path / "model/model.safetensors").stat().st_size <= 8e6
    assert len(rows(tmp_path / "predictions/after.jsonl")) == 6


def test_a_sweep_gives_each_run_its_folder(command: Command, tmp_path: Path) -> None:
    swept = ("reward=accuracy,grpo", "trainer.max_steps=1", f"hydra.sweep.dir={tmp_path}")
    done = command("-m", *QUICK[:-1], *swept)
    assert done.returncode == 0, done.stdout + done.stderr
    for job, formatted in (("reward=accuracy", False), ("reward=grpo", True)):
        history = rows(tmp_path / job / "history.jsonl")
        assert (history[0].get("reward/format", 0) > 0) is formatted


def test_questions_that_share_a_video_in_small_rows(command: Command, tmp_path: Path) -> None:
    shared = ("dataset.questions_per_video=2", "objective.row_tokens=400", "model.gradient_checkpointing=vision")
    done = command(*QUICK, *shared, "objective.prompts_per_rollout=4", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-check" in done.stderr + done.stdout
    history = rows(tmp_path / "history.jsonl")
    assert [row["step"] for row in history] == [0, 1]
    # what was sampled with and what is trained are the same model, to rounding
    assert all(row["train/sampling_drift"] < 1e-4 for row in history)


def test_adapters_with_everything_computed_again(command: Command, tmp_path: Path) -> None:
    adapters = ("model.lora={rank: 4, alpha: 8, dropout: 0.0}", "model.gradient_checkpointing=all")
    done = command(*QUICK, *adapters, "model.learning_rate=0.01", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = rows(tmp_path / "history.jsonl")
    assert first["train/kl"] == 0 and second["train/kl"] > 0  # the reference is the model without its adapters
