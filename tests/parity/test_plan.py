"""What stage=plan says, beside what a real step holds and computes: memory within 15 %, operations within 5 %."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLConfig

from spacer.attention.interface import TREE, WINDOWS
from spacer.config.choices import Checkpointing, Positions
from spacer.config.settings import ClusterSettings, LoraSettings, ObjectiveSettings, Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Sample
from spacer.models.families import position_rule
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import probe_model
from spacer.models.vision import PatchProjection
from spacer.planning.flops import tree_flops
from spacer.planning.memory import Memory, kept_logits, memory_of
from spacer.planning.setup import setup_of
from spacer.planning.sizes import Sizes, count, read_sizes
from spacer.planning.work import Picture, Work
from spacer.rewards import Scorer
from spacer.training.grpo import GrpoModule
from spacer.training.tree_module import Training
from tests.parity.conftest import prompts_of
from tests.parity.measuring import Measured, measuring
from tests.parity.test_grpo import Repeated

MEMORY, FLOPS = 0.15, 0.05
GROUP, LENGTH = 4, 16


def run(
    settings: Settings, policy: Any, reference: Any, batch: PromptBatch, monkeypatch: pytest.MonkeyPatch
) -> Measured:
    """The second of two steps, when the optimiser has its state."""
    assert settings.stage.optimizer is not None
    compute = ComputeOptions("blocks", settings.objective.row_tokens, settings.model.gradient_checkpointing == "vision")
    training = Training(settings.stage.optimizer, self_check=False, clip=5.0)
    probe = probe_model(settings.model)
    module = GrpoModule(
        policy, reference, probe, settings.objective, Scorer(settings.reward), compute, training, settings.seed
    )
    trainer = pl.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "devices": 1, "precision": settings.trainer.precision},
        **dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "barebones"), False
        ),
    )
    policy.train()
    with measuring(module, monkeypatch) as found:
        trainer.fit(module, Repeated(batch, 2))
    return found


def work_of_batch(batch: PromptBatch, settings: Settings) -> Work:
    """The batch as plan would have it: all prompts of one length, their mean."""
    grids = batch.pictures.video_grids
    assert grids is not None
    pictures = tuple(Picture(t, h // 2, w // 2) for t, h, w in grids.tolist())
    prompts = len(batch.samples)
    texts = [len(batch.forest.prompt(n)) - pictures[0].tokens for n in range(prompts)]
    return Work(
        pictures,
        prompts // len(pictures),
        round(sum(texts) / prompts),
        settings.objective.group_size,
        settings.objective.max_completion_length,
        settings.objective.row_tokens,
    )


def compare(settings: Settings, sizes: Sizes, batch: PromptBatch, found: Measured) -> None:
    work, setup = work_of_batch(batch, settings), setup_of(settings)
    planned = memory_of(sizes, work, setup)
    # logits as they wait for the backward pass; in other phases they are in what is held to the bytes at once
    parts = _parts(planned) | {"activations": planned.by_part["activations"], "logits": kept_logits(sizes, work, setup)}
    hold("bytes", parts, {part: found.parts[part] for part in parts}, MEMORY)
    hold("bytes at once", _phases(planned.by_phase), _phases(found.phases), MEMORY)
    flops = tree_flops(sizes, work, setup)
    # a reference beside a vision tower that is trained encodes by itself
    parts = _flops(flops, setup.reference and setup.vision_trained)
    hold("operations", parts, {part: found.flops.get(part, 0) for part in parts}, FLOPS)


def _parts(planned: Memory) -> dict[str, int]:
    parts = planned.by_part
    names = ("weights", "gradients", "optimizer", "reference", "kv_cache")
    found = {name: parts[name] for name in names if parts[name]}
    # as it is before the backward pass, which makes parts of it again
    return found | {"vision": planned.parts["vision"]["rollout"]}


def _phases(phases: Mapping[str, int]) -> dict[str, int]:
    found = {name: phases[name] for name in ("rollout", "reference", "optimizer") if name in phases}
    return found | {"backward": max(phases["policy"], phases.get("backward", 0))}


def _flops(flops: Mapping[str, int], sees_twice: bool) -> dict[str, int]:
    found = {
        "vision": flops["vision"] // (2 if sees_twice else 1),
        "rollout": flops["rollout_prefill"] + flops["rollout_decode"],
        "reference": flops["reference"] + (flops["vision"] // 2 if sees_twice else 0),
        "policy_forward": flops["policy_forward"],
        "policy_backward": flops["policy_again"] + flops["policy_backward"],
        "vision_backward": flops["vision_again"] + flops["vision_backward"],
    }
    return {part: value for part, value in found.items() if value}


def hold(what: str, planned: Mapping[str, int], measured: Mapping[str, int], within: float) -> None:
    """Prints both, and asserts that they are near each other."""
    print(f"\n{what:>20} {'measured':>15} {'planned':>15} planned/measured")
    for name, value in planned.items():
        print(f"{name:>20} {measured[name]:15,} {value:15,} {value / max(1, measured[name]):.3f}")
    far = {n: (v, measured[n]) for n, v in planned.items() if abs(v - measured[n]) > within * measured[n]}
    assert not far, far


@pytest.fixture
def small(settings: Settings) -> Settings:
    objective = replace(settings.objective, group_size=GROUP, max_completion_length=LENGTH)
    return replace(settings, objective=objective, cluster=ClusterSettings("cpu", 1, 1, "auto"))


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Four questions about two videos."""
    return prompts_of(dataset, 0, 1, 4, 5)


def model_of(config: Any, checkpointing: Checkpointing = Checkpointing.none) -> Any:
    """An untrained model that attends as `load_policy` has it."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(copy.deepcopy(config))  # the model writes into it how it attends
    model.set_attn_implementation({"text_config": TREE, "vision_config": WINDOWS})
    embed = model.model.visual.patch_embed
    embed.proj = PatchProjection.of(embed.proj)
    if checkpointing == Checkpointing.all:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def invented(config: Any, grid: tuple[int, int, int], text: int, videos: int, questions: int) -> PromptBatch:
    """Questions of `text` random tokens about random videos of `grid` patches."""
    rng, rule = np.random.default_rng(0), position_rule(config, Positions.original)
    vision = config.vision_config
    tokens, values = math.prod(grid) // 4, 3 * 2 * vision.patch_size**2
    types = torch.tensor([2] * tokens + [0] * text)
    prompts = []
    for video in range(videos):
        pixels = torch.randn(math.prod(grid), values)
        for question in range(questions):
            ids = [config.video_token_id] * tokens + rng.integers(0, 500, text).tolist()
            sample = Sample(
                **{"id": f"{video}_{question}", "problem": "?", "problem_type": "free-form", "options": ()},
                **{"solution": "", "data_type": "video", "path": Path(f"/nowhere/{video}"), "source": ""},
                **{"scene": "", "question_type": "", "reasoning": None, "true_map": None},
            )
            positions = rule.positions(types, [], [grid], [1.0])
            frame = np.zeros((1, 1, 3), np.uint8)
            prompts.append(
                Prompt(sample, "video", torch.tensor(ids), types, positions, pixels, torch.tensor([grid]), None, frame)
            )
    return collate(prompts)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "whole": ({}, "32-true"),
    "all again": ({"gradient_checkpointing": Checkpointing.all}, "bf16-mixed"),
    "vision again": ({"gradient_checkpointing": Checkpointing.vision}, "bf16-mixed"),
    "vision frozen": ({"freeze_vision": True}, "32-true"),
    "adapters": ({"lora": LoraSettings(8, 16, 0.0), "dtype": "bfloat16"}, "bf16-mixed"),
}


@pytest.mark.parametrize(
    "case", ["whole", *(pytest.param(case, marks=pytest.mark.long) for case in CASES if case != "whole")]
)
def test_the_embedded_model(case: str, small: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> None:
    changes, precision = CASES[case]
    model = replace(small.model, **changes)
    settings = replace(small, model=model, trainer=replace(small.trainer, precision=precision))
    reference = None if model.lora else load_reference(model)
    batch = collate(prompts)
    counter = FlopCounterMode(display=False)
    with counter if case == "whole" else contextlib.nullcontext():
        found = run(settings, load_policy(model), reference, batch, monkeypatch)
    if case == "whole":
        assert counter.get_total_flops() == found.all_flops
    compare(settings, read_sizes(model), batch, found)


@pytest.mark.long
def test_a_model_of_a_hundred_million_weights(small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that do not fit at once, layers that are computed again, logits in chunks."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 12}
    text |= {"num_key_value_heads": 4, "vocab_size": 16_384, "rope_parameters": rope, **SPECIAL}
    vision = {"depth": 8, "hidden_size": 512, "intermediate_size": 1536, "num_heads": 8, "out_hidden_size": 768}
    vision |= {"fullatt_block_indexes": [3, 7], "window_size": 112, "tokens_per_second": 2}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **MARKS)
    check_untrained(config, Checkpointing.all, replace(small.objective, row_tokens=350), small, monkeypatch)


@pytest.mark.long
def test_features_from_within_the_tower(small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen3-VL: norms of heads, learned positions, features for several layers, a head of its own."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 5, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 4, "head_dim": 32, "vocab_size": 2048, "rope_parameters": rope, **SPECIAL}
    vision = {"depth": 4, "hidden_size": 128, "intermediate_size": 320, "num_heads": 4, "out_hidden_size": 192}
    vision |= {"deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 256}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **MARKS)
    check_untrained(config, Checkpointing.none, small.objective, small, monkeypatch)


SPECIAL = {"bos_token_id": 1004, "eos_token_id": 1004, "pad_token_id": 1004}
MARKS = {"image_token_id": 1000, "video_token_id": 1001, "vision_start_token_id": 1002, "vision_end_token_id": 1003}


def check_untrained(
    config: Any, checkpointing: Checkpointing, objective: ObjectiveSettings, small: Settings, patch: pytest.MonkeyPatch
) -> None:
    model = replace(small.model, gradient_checkpointing=checkpointing)
    settings = replace(small, model=model, objective=objective)
    policy, reference = model_of(config, checkpointing), model_of(config).requires_grad_(False).eval()
    batch = invented(config, (4, 12, 12), text=100, videos=1, questions=2)
    found = run(settings, policy, reference, batch, patch)
    compare(settings, count(config), batch, found)
