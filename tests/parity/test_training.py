"""Whole runs on trees: against the plain computation step by step, and under everything that training can be under."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

import spacer.training.row_trainer as module_file
from spacer.config.choices import Checkpointing
from spacer.config.settings import LoraSettings, ObjectiveSettings, Settings
from spacer.cpu.lanes import train_side_by_side
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, collate
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import probe_model
from spacer.models.selfcheck import SamplingDrift
from spacer.rewards import Scorer, score_group
from spacer.rollout.completion import Rollout
from spacer.rollout.decode import Sampler
from spacer.rollout.sampling import Decoding
from spacer.training.grpo import GrpoModule
from spacer.training.row_trainer import VisionGradient
from spacer.training.sft import SftModule
from tests.parity.conftest import prompts_of, threads
from tests.parity.fitting import COMPUTE, GROUP, LENGTH, SEED, STEPS, doubled, fit, grpo, imitated, training
from tests.parity.test_grpo import naive_logps, naive_positions
from tests.parity.test_rollout import rolled

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Three questions, two of them about one video."""
    return prompts_of(dataset, 0, 1, 6)


def naive_completion(
    policy: Any, prompt: Prompt, seed: Sequence[int], objective: ObjectiveSettings, end: int
) -> Tensor:
    """One token after the other, each from a forward pass over the whole row; top-p and the draw in plain Python."""
    draws = np.random.default_rng(list(seed)).random(objective.max_completion_length)
    ids: list[int] = []
    while len(ids) < objective.max_completion_length and end not in ids:
        probabilities = naive_next(policy, prompt, ids)
        order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
        nucleus, total = [], 0.0
        for token in order:
            nucleus.append(token)
            total += probabilities[token]
            if total >= objective.top_p:
                break
        mark, passed = draws[len(ids)] * total, 0.0
        for token in nucleus:
            passed += probabilities[token]
            if passed > mark:
                break
        ids.append(token)
    return torch.tensor(ids)


@torch.no_grad()
def naive_next(policy: Any, prompt: Prompt, ids: list[int]) -> list[float]:
    whole = torch.cat([prompt.ids_L, torch.tensor(ids, dtype=torch.long)])[None]
    logits = policy(
        input_ids=whole,
        pixel_values_videos=prompt.pixels_PD.to(policy.dtype),
        video_grid_thw=prompt.grid_thw,
        position_ids=naive_positions(whole[0].tolist(), policy.config.video_token_id),
        use_cache=False,
    ).logits[0, -1]
    return logits.softmax(-1).tolist()


def test_the_training_curve_is_that_of_the_plain_computation(settings: Settings, prompts: list[Prompt]) -> None:
    """Sampling, rewards, reference, loss, clipping and optimiser, step by step, both from the same seed."""
    prompts = prompts[:2]
    model = replace(settings.model, dtype="float64")
    plan = training(settings, clip=5.0)
    module = grpo(settings, model, plan)
    curve: list[tuple[list[float], list[str]]] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            assert module.last_rollout is not None
            scored = module.last_rollout[1]
            curve.append(([part.total for part in scored.parts], list(scored.rollout.texts)))

    fit(module, doubled(collate(prompts)), STEPS, precision="64-true", callbacks=[Keep()])

    policy = AutoModelForImageTextToText.from_pretrained(model.name_or_path, dtype=torch.float64)
    reference = AutoModelForImageTextToText.from_pretrained(model.name_or_path, dtype=torch.float64)
    probe = probe_model(model)
    (end,) = probe.end_ids
    named = list(policy.named_parameters())
    spared = [parameter for name, parameter in named if re.search(r"norm|ln_q|bias", name)]
    groups = [
        {"params": [parameter for name, parameter in named if not re.search(r"norm|ln_q|bias", name)]},
        {"params": spared, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.999), weight_decay=0.01)
    objective = replace(settings.objective, group_size=GROUP, max_completion_length=LENGTH)
    for step in range(STEPS):
        loss: Any = 0.0
        rewards, texts = [], []
        for n, prompt in enumerate(prompts):
            seeds = [[SEED, 0, 0, step, 0, n * GROUP + g] for g in range(GROUP)]
            written = [naive_completion(policy, prompt, seed, objective, end) for seed in seeds]
            texts += [probe.processor.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
            parts = score_group(
                texts[-GROUP:],
                [len(ids) for ids in written],
                solution=prompt.sample.solution,
                problem_type=prompt.sample.problem_type,
                options=prompt.sample.options,
                true_map=prompt.sample.true_map,
                settings=settings.reward,
                shuffled_completions=None,
            )
            totals = [part.total for part in parts]
            rewards += totals
            mean = sum(totals) / GROUP
            spread = math.sqrt(sum((r - mean) ** 2 for r in totals) / (GROUP - 1))
            for ids, total in zip(written, totals, strict=True):
                new = naive_logps(policy, prompt, ids)
                with torch.no_grad():
                    apart = (naive_logps(reference, prompt, ids) - new).clamp(-10, 10)
                d = apart + new.detach() - new  # the value of apart, with the gradient of -new
                gain = torch.exp(new - new.detach()) * (total - mean) / (spread + 1e-4)
                loss = loss - (gain - 0.04 * (torch.exp(d) - d - 1)).mean() / (len(prompts) * GROUP)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 5.0)
        optimizer.step()
        assert texts == curve[step][1], step
        assert rewards == pytest.approx(curve[step][0], abs=1e-12)
    assert len({tuple(rewards) for rewards, _ in curve}) > 1
    moved = dict(module.policy.named_parameters())
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(moved[name], parameter, rtol=0, atol=1e-6, msg=name)


def test_gradient_checkpointing_changes_nothing(settings: Settings, prompts: list[Prompt]) -> None:
    found = []
    for checkpointing in Checkpointing:
        model = replace(settings.model, dtype="float64", gradient_checkpointing=checkpointing)
        module = grpo(settings, model, training(settings))
        module.compute = replace(COMPUTE, vision_again=checkpointing == Checkpointing.vision)
        found.append(fit(module, doubled(collate(prompts)), precision="64-true"))
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        for name, gradient in found[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


def test_a_tower_that_computes_again_keeps_its_features_alone(settings: Settings, prompts: list[Prompt]) -> None:
    batch, module = collate(prompts), grpo(settings, settings.model, training(settings))
    kept = VisionGradient(module.passes, batch.pictures).encode().embeds_MH
    module.compute = replace(COMPUTE, vision_again=True)
    again = VisionGradient(module.passes, batch.pictures).encode().embeds_MH
    assert kept is not None and again is not None and torch.equal(kept, again)
    assert kept.grad_fn is not None and again.requires_grad and again.grad_fn is None
    module.policy.model.visual.requires_grad_(False)
    assert not VisionGradient(module.passes, batch.pictures).encode().trained


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": Checkpointing.vision},
        {"gradient_checkpointing": Checkpointing.all},
        {"freeze_vision": True},
        {"freeze_vision": True, "gradient_checkpointing": Checkpointing.vision},
    ],
)
def test_rows_trained_side_by_side_give_the_gradient_of_one_after_the_other(
    changes: dict[str, Any], settings: Settings, prompts: list[Prompt]
) -> None:
    batch, model = collate(prompts), replace(settings.model, **changes)
    again = model.gradient_checkpointing == Checkpointing.vision
    compute = ComputeOptions("blocks", 150, vision_again=again)

    def step(count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        module = grpo(settings, model, training(settings), compute=compute)
        with threads(count):
            gradients = fit(module, batch)
        assert module.last_rollout is not None
        assert len(module.lessons[0].rows) > 4
        return gradients, module.trainer.logged_metrics

    (alone, metrics), (beside, shown), (repeated, _) = step(1), step(2), step(2)
    assert alone.keys() == beside.keys()
    largest = max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in alone.items():
        assert float((beside[name] - gradient).abs().max()) <= 1e-5 * largest, name
        assert torch.equal(beside[name], repeated[name])
    assert metrics.keys() == shown.keys()
    for name in ("train/kl", "train/loss", "train/ratio_mean", "train/sampling_drift", "train/gradient_norm"):
        torch.testing.assert_close(shown[name], metrics[name], rtol=1e-4, atol=1e-6)


def test_rows_are_trained_one_after_the_other_where_dropout_draws(
    settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes: list[int] = []

    def watched(function: Any, model: Any, items: Any, count: int) -> Any:
        lanes.append(count)
        return train_side_by_side(function, model, items, count)

    monkeypatch.setattr(module_file, "train_side_by_side", watched)
    for dropout in (0.0, 0.1):
        model = replace(settings.model, lora=LoraSettings(4, 8, dropout))
        with threads(2):
            fit(grpo(settings, model, training(settings)), collate(prompts))
    assert lanes == [2, 1]


def test_accumulated_batches_make_one_step_of_their_mean_gradient(settings: Settings, prompts: list[Prompt]) -> None:
    def targets(module: SftModule, count: int, accumulate: int) -> dict[str, Tensor]:
        return fit(module, imitated(prompts, "<answer>B</answer>"), count)

    once = SftModule(load_policy(settings.model), COMPUTE, training(settings))
    twice = SftModule(load_policy(settings.model), COMPUTE, training(settings, accumulate=2))
    first, second = targets(once, 1, 1), targets(twice, 2, 2)
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
    for name, parameter in once.named_parameters():  # one step each
        torch.testing.assert_close(dict(twice.named_parameters())[name], parameter, rtol=0, atol=1e-5, msg=name)


def test_supervised_gradient_equals_the_plain_one(settings: Settings, prompts: list[Prompt]) -> None:
    model = replace(settings.model, dtype="float64")
    # what the model itself might write: gradients of unlikely tokens are so large that the tower's float32 shows
    start = '<think><map>{"sofa":[[3,4]],"bed":[[6,2]],"lamp":[[1,7]]'
    ids = torch.tensor(probe_model(model).processor.tokenizer(start)["input_ids"])
    batch = collate([replace(prompt, target_ids=ids[: 5 + 3 * n]) for n, prompt in enumerate(prompts)])
    module = SftModule(load_policy(model), COMPUTE, training(settings))
    found = fit(module, doubled(batch), precision="64-true")
    policy = AutoModelForImageTextToText.from_pretrained(model.name_or_path, dtype=torch.float64)
    assert batch.targets is not None
    loss = -torch.cat([naive_logps(policy, p, t) for p, t in zip(prompts, batch.targets, strict=True)]).mean()
    loss.backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-8, msg=name)


def test_adapters_alone_are_trained_and_their_reference_is_the_model_without_them(
    settings: Settings, prompts: list[Prompt]
) -> None:
    model = replace(settings.model, lora=LoraSettings(rank=4), gradient_checkpointing=Checkpointing.all)
    module = grpo(settings, model, training(settings))
    before = {name: p.detach().clone() for name, p in module.policy.named_parameters()}
    found = fit(module, collate(prompts), batches=2)
    assert found and all("lora_" in name for name in found)
    after = dict(module.policy.named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all("lora_" in name for name in changed)
    assert module.last_rollout is not None
    batch, scored = module.last_rollout
    untouched = AutoModelForImageTextToText.from_pretrained(model.name_or_path)
    ref_logp_BC = module.lessons[0].ref_logp_BC
    assert ref_logp_BC is not None
    for i in (0, GROUP, 2 * GROUP):
        ids = scored.rollout.ids_BC[i, : scored.rollout.lengths[i]]
        expected = naive_logps(untouched, prompts[i // GROUP], ids).detach()
        torch.testing.assert_close(ref_logp_BC[i, : len(ids)], expected, rtol=1e-4, atol=1e-4)
    assert len(batch.samples) == 3


def test_bfloat16_autocast_stays_near_float32(settings: Settings, prompts: list[Prompt]) -> None:
    batch = imitated(prompts, "<answer>B</answer>")
    found = [
        fit(SftModule(load_policy(settings.model), COMPUTE, training(settings)), batch, precision=precision)
        for precision in ("32-true", "bf16-mixed")
    ]
    norms = [math.sqrt(sum(float((g**2).sum()) for g in gradients.values())) for gradients in found]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    apart = math.sqrt(sum(float(((found[1][name] - g) ** 2).sum()) for name, g in found[0].items()))
    assert apart < 0.1 * norms[0]


def test_frozen_vision_is_encoded_once_for_policy_and_reference(
    settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    for frozen, runs in ((True, {"policy": 1, "reference": 0}), (False, {"policy": 1, "reference": 1})):
        module = grpo(
            settings, replace(settings.model, freeze_vision=frozen), replace(training(settings), self_check=False)
        )
        seen = {"policy": 0, "reference": 0}
        for name in seen:
            tower = getattr(module, name).model.visual

            def count(*args: Any, name: str = name, seen: dict[str, int] = seen) -> None:
                seen[name] += 1

            tower.register_forward_pre_hook(count)
        fit(module, collate(prompts))
        assert seen == runs


def test_further_updates_take_the_log_probabilities_kept_while_sampling(
    settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = grpo(settings, settings.model, training(settings), updates_per_rollout=3, clip_low=0.2, clip_high=0.2)
    found: list[dict[str, float]] = []

    def keep(losses: Sequence[float]) -> None:
        updates = (metrics for _, metrics in module._sampled.updates if "ratio_mean" in metrics)
        found.extend({name: float(value) for name, value in metrics.items()} for metrics in updates)

    monkeypatch.setattr(module, "_log_step", keep)
    fit(module, collate(prompts))
    assert module.trainer.global_step == len(found) == 3
    assert found[0]["ratio_mean"] == 1.0
    assert found[0]["sampling_drift"] < 1e-5
    assert all(abs(metrics["ratio_mean"] - 1) > 1e-6 for metrics in found[1:])


def test_a_policy_in_training_that_is_not_the_one_that_sampled_is_an_error_and_no_step(
    settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sampler.sample

    def drifted(*given: Any, **named: Any) -> Rollout:
        rollout = sample(*given, **named)
        return replace(rollout, logp_BC=rollout.logp_BC - 0.01 * rollout.mask_BC)

    monkeypatch.setattr(Sampler, "sample", drifted)
    plan = training(settings)
    module = grpo(settings, settings.model, plan)
    module.check.due = False  # which would tell of it first
    before = [parameter.detach().clone() for parameter in module.trained()]
    with pytest.raises(SamplingDrift, match=r"differ by 1\.00e-02 a token .* torch\.float32 allows 1e-04"):
        fit(module, collate(prompts))
    assert all(map(torch.equal, before, module.trained()))
    fit(grpo(settings, settings.model, replace(plan, self_check=False)), collate(prompts))


def test_overfitting_one_batch_raises_its_reward(settings: Settings, dataset: PromptDataset) -> None:
    prompts = prompts_of(dataset, 0, 4, 8, 12)
    objective = replace(settings.objective, group_size=8, max_completion_length=100)
    module = GrpoModule(
        load_policy(settings.model),
        load_reference(settings.model),
        probe_model(settings.model),
        objective,
        Scorer(settings.reward),
        ComputeOptions("blocks", 16_384),
        training(settings, clip=5.0),
        seed=0,
    )

    def reward() -> float:
        decoding = Decoding(objective.temperature, objective.top_p, objective.max_completion_length)
        rollout = rolled(module.policy, probe_model(settings.model), prompts, decoding, group=24, seed=9)
        parts = [
            part
            for n, prompt in enumerate(prompts)
            for part in score_group(
                rollout.texts[n * 24 : (n + 1) * 24],
                rollout.lengths[n * 24 : (n + 1) * 24],
                solution=prompt.sample.solution,
                problem_type=prompt.sample.problem_type,
                options=prompt.sample.options,
                true_map=prompt.sample.true_map,
                settings=settings.reward,
                shuffled_completions=None,
            )
        ]
        return sum(part.total for part in parts) / len(parts)

    before = reward()
    fit(module, collate(prompts), batches=8)
    assert reward() > before + 0.15
