"""Several steps on one rollout, each on a part of it, against the plain computation."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForImageTextToText

from spacer.config.settings import RewardSettings, Settings
from spacer.data.loading import PromptDataset
from spacer.data.parts import part_of, shown_at
from spacer.data.processing import Prompt, collate
from spacer.data.samples import Fault
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import probe_model
from spacer.rewards import Scorer
from spacer.training.grpo import GrpoModule
from spacer.training.lessons import Lesson
from spacer.training.tree_module import Training
from tests.parity.conftest import composed, prompts_of
from tests.parity.fitting import doubled, fit
from tests.parity.test_grpo import GROUP, naive_loss


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Of unequal length, the first and the third about one video."""
    return prompts_of(dataset, 0, 5, 1, 8)


class Kept(pl.Callback):
    """Each step's gradients, the weights that they are of, and the last rollout's parts."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.texts: list[tuple[str, ...]] = []
        self.lessons: list[tuple[Lesson, ...]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.policy.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.weights.append(copy.deepcopy(pl_module.policy.state_dict()))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.texts.append(pl_module.last_rollout[1].rollout.texts)
        self.lessons.append(pl_module.lessons)


@torch.no_grad()
def move(reference: Any) -> None:
    """Makes the KL differ from zero; not in the vision tower, which is the policy's where it is frozen."""
    for parameter in reference.model.language_model.parameters():
        parameter.mul_(1.02)


def trained(settings: Settings, items: list[Prompt | Fault], model: dict[str, Any], *changes: str) -> Kept:
    chosen = composed("objective=ppo_clip", f"objective.group_size={GROUP}", *changes).objective
    own = replace(settings.model, dtype="float64", **model)
    policy, reference = load_policy(own), load_reference(own)
    move(reference)
    assert settings.stage.optimizer is not None
    module = GrpoModule(
        policy,
        reference,
        probe_model(own),
        replace(chosen, max_completion_length=48, updates_per_rollout=1),
        Scorer(RewardSettings()),
        ComputeOptions("blocks", 16_384),
        Training(replace(settings.stage.optimizer, learning_rate=3e-4), self_check=False),
        seed=3,
    )
    kept = Kept()
    fit(module, doubled(collate(items, chosen.rollout_parts)), precision="64-true", callbacks=[kept])
    return kept


@pytest.mark.parametrize("model", [{}, {"freeze_vision": True}], ids=["all", "frozen_vision"])
def test_each_part_makes_the_step_of_the_plain_computation(
    settings: Settings, prompts: list[Prompt], model: dict[str, Any]
) -> None:
    kept = trained(settings, [*prompts], model, "objective.rollout_parts=2", "objective.prompts_per_rollout=4")
    assert len(kept.gradients) == 2
    whole = trained(settings, [*prompts], model, "objective.prompts_per_rollout=4")
    assert kept.texts == whole.texts, "completions do not depend on the parts"
    own = replace(settings.model, dtype="float64")
    chosen = composed("objective=ppo_clip", f"objective.group_size={GROUP}").objective
    chosen = replace(chosen, max_completion_length=48)
    reference = AutoModelForImageTextToText.from_pretrained(own.name_or_path, dtype=torch.float64)
    move(reference)
    for number, (gradients, weights) in enumerate(zip(kept.gradients, kept.weights, strict=True)):
        plain = AutoModelForImageTextToText.from_pretrained(own.name_or_path, dtype=torch.float64)
        plain.load_state_dict(weights)
        mine, scored = prompts[2 * number :][:2], kept.lessons[0][number].scored
        naive_loss(plain, reference, mine, scored, chosen, on_policy=number == 0).backward()
        naive = {name: p.grad for name, p in plain.named_parameters() if name in gradients and p.grad is not None}
        assert naive.keys() == gradients.keys()
        largest = max(float(gradient.abs().max()) for gradient in naive.values())
        assert largest > 1e-6
        for name, gradient in naive.items():
            assert float((gradients[name] - gradient).abs().max()) <= 5e-7 * largest, name


def test_a_part_whose_samples_are_all_faulty_makes_no_step(settings: Settings, prompts: list[Prompt]) -> None:
    bad = Fault("bad", "unreadable media", "gone")
    kept = trained(settings, [bad, bad, *prompts[:2]], {}, "objective.rollout_parts=2")
    assert len(kept.gradients) == 1
    assert [len(lesson.work.batch.samples) for lesson in kept.lessons[0]] == [0, 2]


@hypothesis_settings(max_examples=40)
@given(order=st.lists(st.integers(0, 3), min_size=1, max_size=4), parts=st.integers(1, 3), data=st.data())
def test_parts_are_the_batch_cut(prompts: list[Prompt], order: list[int], parts: int, data: st.DataObject) -> None:
    bad = Fault("bad", "unreadable media", "gone")
    items: list[Prompt | Fault] = [
        bad if data.draw(st.booleans()) and n % 2 else prompts[i] for n, i in enumerate(order * parts)
    ]
    batch = collate(items, parts)
    each = len(items) // parts
    before = 0
    for number in range(parts):
        part, features_M = part_of(batch, number, merge=2)
        wanted = [item for item in items[number * each :][:each] if isinstance(item, Prompt)]
        assert [sample.id for sample in part.samples] == [prompt.sample.id for prompt in wanted]
        for n, prompt in enumerate(wanted):
            mine, whole = part.forest.prompt(n), batch.forest.prompt(before + n)
            assert torch.equal(mine.ids_L, prompt.ids_L) and torch.equal(mine.positions_3L, prompt.positions_3L)
            seen = mine.vision_L >= 0
            assert torch.equal(features_M[mine.vision_L[seen]], whole.vision_L[seen])
            assert torch.equal(seen, whole.vision_L >= 0)
            shown, _ = shown_at(part.pictures, mine.vision_L, merge=2)
            assert shown.video_pixels is not None and prompt.pixels_PD is not None
            assert torch.equal(shown.video_pixels, prompt.pixels_PD)
        videos = {prompt.sample.path for prompt in wanted}
        grids = part.pictures.video_grids
        assert (0 if grids is None else len(grids)) == len(videos)
        assert len(features_M) == (0 if grids is None else int(grids.prod(1).sum()) // 4)
        before += len(wanted)
