"""What makes a step: batches gathered for one, an epoch's end, and what ends a run before one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from spacer.config.choices import LossMean
from spacer.config.settings import RewardSettings, Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Fault
from spacer.errors import UserError
from spacer.models.load import load_policy
from spacer.rewards import RewardParts, Scorer
from spacer.training.sft import SftModule
from spacer.training.tree_module import Training, TreeModule
from tests.parity.conftest import prompts_of
from tests.parity.fitting import COMPUTE, GROUP, LENGTH, doubled, fit, grpo, imitated, training
from tests.parity.test_grpo import naive_loss

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Three questions, two of them about one video."""
    return prompts_of(dataset, 0, 1, 6)


@dataclass
class Several:
    """A loader that gives these batches an epoch."""

    batches: Sequence[PromptBatch]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter(self.batches)


class Steps(pl.Callback):
    """Keeps what is logged for each step, and the gradients of each."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.policy.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.stepped:
            self.logged.append({name: float(value) for name, value in trainer.logged_metrics.items()})


def fit_on(module: TreeModule, batches: Sequence[PromptBatch], epochs: int = 1, **options: Any) -> Steps:
    steps = Steps()
    trainer = pl.Trainer(
        **{"precision": "32-true", "logger": False} | options,
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=[steps],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.policy.train()
    trainer.fit(module, Several(batches))
    assert trainer.global_step == len(steps.gradients)
    return steps


def norm_of(gradients: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))


def faulty(count: int) -> PromptBatch:
    return collate([Fault(f"line {n}", "unreadable media", "it is no video") for n in range(count)])


def test_a_long_and_a_short_answer_weigh_alike_gathered_or_as_one_batch(
    settings: Settings, prompts: list[Prompt]
) -> None:
    ids = torch.arange(10, 50)
    made = [replace(prompt, target_ids=ids[:count]) for prompt, count in zip(prompts, (40, 2, 9), strict=True)]
    model = replace(settings.model, dtype="float64")

    def steps(accumulate: int, batches: list[PromptBatch]) -> Steps:
        module = SftModule(load_policy(model), COMPUTE, training(settings, accumulate=accumulate))
        return fit_on(module, [doubled(batch) if batch.samples else batch for batch in batches], precision="64-true")

    (one,) = (whole := steps(1, [collate(made)])).gradients
    gathered = steps(4, [collate(made[:1]), faulty(1), collate(made[1:2]), collate(made[2:])])
    (several,) = gathered.gradients
    assert norm_of(several) == pytest.approx(norm_of(one), rel=1e-6)  # the tower turns queries in float32
    for name, gradient in one.items():
        torch.testing.assert_close(several[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert gathered.logged[0]["train/loss"] == pytest.approx(whole.logged[0]["train/loss"])


@pytest.mark.parametrize("loss_mean", ["token", "completion"])
def test_a_gathered_policy_loss_is_the_mean_over_the_whole_step(
    loss_mean: str, settings: Settings, prompts: list[Prompt]
) -> None:
    model = replace(settings.model, dtype="float64")
    module = grpo(settings, model, training(settings, accumulate=2), loss_mean=loss_mean)
    rollouts: list[Any] = []

    class Keep(Steps):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
            rollouts.append(pl_module.last_rollout[1])

    batches = [prompts[:1], prompts[1:]]
    keep, trainer_options = Keep(), {"precision": "64-true", "logger": False}
    trainer = pl.Trainer(
        **trainer_options,
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        callbacks=[keep],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.policy.train()
    trainer.fit(module, Several([doubled(collate(some)) for some in batches]))
    objective = replace(settings.objective, group_size=GROUP, max_completion_length=LENGTH, loss_mean=loss_mean)
    before, reference = (
        AutoModelForImageTextToText.from_pretrained(model.name_or_path, dtype=torch.float64) for _ in range(2)
    )
    counts = [float(found.rollout.mask_BC.sum() if loss_mean == "token" else len(found.parts)) for found in rollouts]
    assert counts[0] * 2 != counts[1] or loss_mean == "completion"
    for some, found, count in zip(batches, rollouts, counts, strict=True):
        (naive_loss(before, reference, some, found, objective) * count / sum(counts)).backward()
    (gradients,) = keep.gradients
    naive = {name: p.grad for name, p in before.named_parameters() if p.grad is not None}
    assert naive.keys() == gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in naive.values())
    for name, gradient in naive.items():
        assert float((gradients[name] - gradient).abs().max()) <= 5e-7 * largest, name


def test_what_an_epochs_end_leaves_is_a_step_of_its_own(settings: Settings, prompts: list[Prompt]) -> None:
    batches = [collate([replace(p, target_ids=torch.arange(10, 20 + n))]) for n, p in enumerate(prompts)]
    still = replace(training(settings).optimizer, learning_rate=1e-12)  # so that gradients can be compared
    found = fit_on(SftModule(load_policy(settings.model), COMPUTE, Training(still, accumulate=2)), batches, epochs=2)
    assert [row["step"] for row in found.logged] == [0, 1, 2, 3]
    alone = fit_on(SftModule(load_policy(settings.model), COMPUTE, Training(still)), batches[2:])
    for step in (1, 3):  # of the epoch's third batch and nothing else
        assert norm_of(found.gradients[step]) == pytest.approx(norm_of(alone.gradients[0]), rel=1e-4)
    assert norm_of(found.gradients[2]) == pytest.approx(norm_of(found.gradients[0]), rel=1e-4)


def test_fewer_batches_than_a_step_gathers_are_a_step(settings: Settings, prompts: list[Prompt]) -> None:
    module = grpo(settings, settings.model, training(settings, accumulate=8))
    found = fit_on(module, [collate(prompts), faulty(2)])
    assert [row["step"] for row in found.logged] == [0]
    assert {"train/loss", "train/kl", "reward/total"} <= found.logged[0].keys()


def test_samples_that_are_all_at_fault_end_the_run_with_the_first(settings: Settings, prompts: list[Prompt]) -> None:
    module = SftModule(load_policy(settings.model), COMPUTE, training(settings, batch_size=50))
    with pytest.raises(UserError, match=r"none of 150 samples .* line 0: unreadable media: it is no video"):
        fit_on(module, [faulty(50)] * 9)
    module = SftModule(load_policy(settings.model), COMPUTE, training(settings, batch_size=50))
    assert not fit_on(module, [faulty(50)] * 2).gradients
    with pytest.raises(UserError, match="none of 100 samples"):  # as a run asks when training has ended
        module.check_learned()
    module = grpo(settings, settings.model, training(settings, batch_size=1))
    assert len(fit_on(module, [*[faulty(1)] * 2, collate(prompts), *[faulty(1)] * 2]).gradients) == 1
    module.check_learned()


def test_numbers_that_are_none_end_the_run_before_the_step(settings: Settings, prompts: list[Prompt]) -> None:
    module = SftModule(load_policy(settings.model), COMPUTE, training(settings))
    kept: list[dict[str, Tensor]] = []
    ((name, parameter), *_) = [(n, p) for n, p in module.policy.named_parameters() if n.endswith("q_proj.weight")]

    class Break(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            kept.append({n: p.detach().clone() for n, p in module.policy.named_parameters()})
            if trainer.global_step == 2:
                parameter.register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(UserError, match="failed after step 2: the loss or the gradients are NaN or infinite"):
        fit(module, imitated(prompts, "<answer>B</answer>"), 5, callbacks=[Break()])
    assert len(kept) == 3 and not torch.equal(kept[2][name], kept[1][name])
    assert all(torch.equal(p, kept[2][n]) for n, p in module.policy.named_parameters())


def test_a_policy_whose_probabilities_are_none_is_not_stepped(settings: Settings, prompts: list[Prompt]) -> None:
    module = grpo(settings, settings.model, training(settings))
    with torch.no_grad():
        module.policy.model.language_model.norm.weight.fill_(math.inf)
    with pytest.raises(UserError, match="the sampled tokens' log-probabilities are NaN or infinite"):
        fit(module, collate(prompts))
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    with pytest.raises(UserError, match="the weights are NaN or infinite"):
        module.on_save_checkpoint(checkpoint)


class Judged(Scorer):
    """Rewards by the question: those in `silent` have the same for all completions, others a different one for each."""

    def __init__(self, settings: RewardSettings, silent: set[str]) -> None:
        super().__init__(settings)
        self.silent = silent

    def __call__(self, question: Any, completions: Sequence[str], *rest: Any) -> list[RewardParts]:
        """The rewards."""
        nothing = RewardParts(answer=0.0, map=0.0, format=0.0, length=0.0, temporal=0.0, drawn=False)
        worth = [0.0 if question.id in self.silent else float(n % 3) for n in range(len(completions))]
        return [replace(nothing, answer=value) for value in worth]


def test_dynamic_sampling_gathers_groups_until_enough_teach(settings: Settings, prompts: list[Prompt]) -> None:
    silent, other, teaches = prompts
    judged = Judged(settings.reward, {silent.sample.id, other.sample.id})
    batches = [collate([prompt]) for prompt in (silent, other, teaches, teaches, silent, other, silent, teaches)]
    still = replace(training(settings).optimizer, learning_rate=1e-12)  # so that gradients can be compared

    def steps(most: int | None) -> Steps:
        module = grpo(settings, settings.model, Training(still), drop_zero_variance=True, dynamic_sampling=most)
        module._scorer = judged
        return fit_on(module, batches)

    each, found = steps(None), steps(3)
    # the third group, the fourth, three that teach nothing, and what is left of the epoch
    assert [row["rollout/groups"] for row in found.logged] == [3, 1, 3, 1]
    assert [row["rollout/filled"] for row in found.logged] == [1, 1, 0, 1]
    assert [row["rollout/groups_zero_variance"] for row in found.logged] == pytest.approx([2 / 3, 0, 1, 0])
    assert [row["rollout/groups_teaching"] for row in found.logged] == pytest.approx([1 / 3, 1, 0, 1])
    assert [row["train/kept_share"] for row in found.logged] == pytest.approx([1 / 3, 1, 0, 1])
    for step, alone in ((0, 2), (1, 3), (3, 7)):
        assert found.logged[step]["train/loss"] == pytest.approx(each.logged[alone]["train/loss"], rel=1e-4)
        assert found.gradients[step].keys() == each.gradients[alone].keys()
        for name, gradient in each.gradients[alone].items():
            torch.testing.assert_close(found.gradients[step][name], gradient, rtol=1e-3, atol=1e-6, msg=name)
    assert not found.gradients[2] and norm_of(found.gradients[0]) > 1e-3


def test_groups_that_teach_count_alike_whichever_batch_they_came_in(settings: Settings, prompts: list[Prompt]) -> None:
    """A step of two processes' worth of prompts: of one batch, a group teaches; of the next, both."""
    silent, *teach = prompts
    model = replace(settings.model, dtype="float64")
    plan = training(settings, batch_size=2)
    module = grpo(settings, model, plan, drop_zero_variance=True, dynamic_sampling=4, loss_mean="token", beta=0.0)
    module._scorer = Judged(settings.reward, {silent.sample.id})
    rollouts: list[Any] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
            rollouts.append(pl_module.last_rollout[1])

    asked = [[silent, teach[0]], teach]
    capture = Steps()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        precision="64-true",
        logger=False,
        callbacks=[capture, Keep()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.policy.train()
    trainer.fit(module, Several([doubled(collate(some)) for some in asked]))
    (gradients,) = capture.gradients
    objective = replace(
        settings.objective,
        group_size=GROUP,
        max_completion_length=LENGTH,
        loss_mean=LossMean.token,
        beta=0.0,
        drop_zero_variance=True,
    )
    before = AutoModelForImageTextToText.from_pretrained(model.name_or_path, dtype=torch.float64)
    counts = [float(found.rollout.mask_BC[~found.zero_variance_B].sum()) for found in rollouts]
    for some, found, count in zip(asked, rollouts, counts, strict=True):
        (naive_loss(before, None, some, found, objective) * count / sum(counts)).backward()
    naive = {name: p.grad for name, p in before.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in naive.values())
    assert naive.keys() == gradients.keys() and largest > 1e-6
    for name, gradient in naive.items():
        assert float((gradients[name] - gradient).abs().max()) <= 5e-7 * largest, name
