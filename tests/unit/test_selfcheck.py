"""The self-check: sound trees pass, broken ones are distinguished from rounding, and the model is left unchanged."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from spacer.attention.interface import TREE
from spacer.data.parts import shown_at
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.models import selfcheck
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.selfcheck import LIMITS, TreeMismatch, check_tree
from spacer.models.vision import VisionFeatures, encode_vision
from spacer.tree.forest import Completion, Forest
from spacer.tree.packing import PackedRow, pack
from tests.parity.families import FAMILIES, IMAGE_TOKEN, VIDEO_TOKEN, make, make_prompts, plain_logps

COMPUTE = ComputeOptions("masked", 10_000)

kinds = st.sampled_from(["video", "image", "images", "text"])
media = st.lists(st.tuples(kinds, st.integers(1, 3)), min_size=1, max_size=5)  # what is shown, questions about it


@functools.cache
def model_of(family: str) -> Any:
    return make(family, torch.float32)


@dataclass(frozen=True)
class Case:
    """What `check_tree` is given, and the prompts that its batch was made of."""

    model: Any
    prompts: list[Prompt]
    batch: PromptBatch
    vision: VisionFeatures
    completions: list[Completion]

    def check(
        self,
        compute: ComputeOptions = COMPUTE,
        completions: Sequence[Completion] | None = None,
        sampled: Sequence[Tensor] | None = None,
        temperature: float = 1.0,
    ) -> float | None:
        """Whether the trees are right."""
        given_completions = self.completions if completions is None else completions
        context = RowContext(self.vision, compute, temperature)
        return check_tree(self.model, self.batch, given_completions, context, sampled)


def case_of(family: str) -> Case:
    """Two questions about a video and one about images, with three completions of the first question."""
    rng, model = np.random.default_rng(7), model_of(family)
    prompts = [
        prompt
        for kind, count in (("video", 2), ("images", 1))
        for prompt in make_prompts(family, model, rng, kind, count, torch.float32)
    ]
    batch = collate(prompts)
    with torch.no_grad():
        vision = encode_vision(model, batch.pictures)
    completions = [Completion(0, torch.from_numpy(rng.integers(0, 50, length))) for length in (5, 3, 6)]
    return Case(model, prompts, batch, vision, completions)


@pytest.fixture
def case() -> Case:
    return case_of("qwen2_5_vl")


def implementations(model: Any) -> tuple[Any, ...]:
    """How each part of the model attends, by the configurations that its layers read."""
    parts = (model.model.language_model, model.model.visual, model.model.language_model.layers[0].self_attn)
    return tuple(part.config._attn_implementation for part in parts)


def shifted(forest: Forest, completions: Sequence[Completion] | None, budget: int) -> list[PackedRow]:
    """`pack`, with completions one position too far on."""
    rows = pack(forest, completions, budget)
    ends = [sum(len(forest.segments[place]) for place in row.segments) for row in rows]
    # the only trees here are of one prompt, so that its segments come first
    return [
        replace(row, positions_3L=row.positions_3L + (torch.arange(len(row)) >= end))
        for row, end in zip(rows, ends, strict=True)
    ]


def all_before(row: PackedRow) -> Tensor:
    """The mask of a plain sequence: siblings see each other."""
    return torch.ones(len(row), len(row), dtype=torch.bool).tril()


def break_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "pack", shifted)


def break_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedRow, "mask", all_before)


faults = pytest.mark.parametrize("spoil", [break_positions, break_attention])


@pytest.mark.parametrize("attention", ["blocks", "masked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sound_trees_differ_by_rounding_alone(family: str, attention: str, caplog: pytest.LogCaptureFixture) -> None:
    case = case_of(family)
    with caplog.at_level(logging.INFO, logger="spacer.models.selfcheck"):
        difference = case.check(ComputeOptions(attention, 10_000))
    assert difference is not None
    assert 0 <= difference < 1e-5
    assert f"differ by {difference:.1e} a token, 1e-04 allowed" in caplog.text
    cut = case.check(ComputeOptions(attention, 1))
    assert cut is not None
    assert cut < 1e-5


def test_the_precision_that_is_computed_in_sets_the_limit(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    assert case.vision.embeds_MH is not None
    with torch.autocast("cpu", torch.bfloat16):
        with caplog.at_level(logging.INFO, logger="spacer.models.selfcheck"):
            difference = case.check(ComputeOptions("blocks", 10_000))
        assert difference is not None
        assert LIMITS[torch.float32] < difference < LIMITS[torch.bfloat16]
        assert "8e-02 allowed" in caplog.text
        with pytest.raises(TreeMismatch, match="rounding allows 8e-02"):
            replace(case, vision=VisionFeatures(case.vision.embeds_MH.roll(1, 0))).check()


def test_questions_about_images_are_checked_too(case: Case) -> None:
    difference = case.check(completions=[replace(completion, prompt=2) for completion in case.completions])
    assert difference is not None
    assert difference < 1e-5


@faults
def test_a_broken_tree_is_refused_with_both_numbers_and_the_remedies(
    case: Case, spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        plain = torch.cat([plain_logps(case.model, case.prompts[c.prompt], c.ids_C) for c in case.completions])
    spoil(monkeypatch)
    with pytest.raises(TreeMismatch) as caught:
        case.check()
    message = str(caught.value)
    found = re.search(r"mean (\S+) in the prefix tree, (\S+) in the plain computation", message)
    assert found is not None
    in_tree, expected = map(float, found.groups())
    assert expected == pytest.approx(float(plain.mean()), abs=1e-5)
    differ = re.search(r"They differ by (\S+) a token, where rounding allows 1e-04", message)
    assert differ is not None
    assert float(differ.group(1)) > LIMITS[torch.float32]
    assert 0 < abs(in_tree - expected) < 1.01 * float(differ.group(1))
    assert f"question {case.batch.samples[0].id!r}" in message
    assert "model.attn_implementation=sdpa" in message
    assert "trainer.self_check=false" in message


def test_features_at_the_wrong_tokens_are_told_from_rounding(case: Case) -> None:
    assert case.vision.embeds_MH is not None
    with pytest.raises(TreeMismatch):
        replace(case, vision=VisionFeatures(case.vision.embeds_MH.roll(1, 0))).check()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_decoding_is_held_to_the_same_computation(
    case: Case, temperature: float, caplog: pytest.LogCaptureFixture
) -> None:
    completions = [Completion(0, torch.tensor([IMAGE_TOKEN, 3])), *case.completions]  # the first is passed over
    with torch.no_grad():
        sampled = [torch.zeros(2)] + [
            selfcheck.plain_logps(case.model, case.batch, completion, temperature) for completion in case.completions
        ]
    with caplog.at_level(logging.INFO, logger="spacer.models.selfcheck"):
        assert case.check(completions=completions, sampled=sampled, temperature=temperature) is not None
    assert "self-check of decoding" in caplog.text
    last = sampled[-1]
    with pytest.raises(TreeMismatch, match="while decoding") as caught:
        case.check(completions=completions, sampled=[*sampled[:-1], last - 0.1], temperature=temperature)
    share = len(last) / sum(map(len, sampled[1:]))
    found = re.search(r"They differ by (\S+) a token", str(caught.value))
    assert found is not None and float(found.group(1)) == pytest.approx(0.1 * share, rel=0.01)


def test_values_that_are_not_numbers_are_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        selfcheck, "row_logps", lambda model, row, *_, **__: torch.full((len(row.targets_N),), torch.nan)
    )
    with pytest.raises(TreeMismatch, match="mean nan in the prefix tree"):
        case.check()


@pytest.mark.parametrize("token", [IMAGE_TOKEN, VIDEO_TOKEN])
def test_completions_with_a_token_of_a_picture_are_passed_over(
    case: Case, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Completion] = []
    compute = selfcheck.plain_logps

    def noted(model: Any, batch: PromptBatch, completion: Completion, temperature: float) -> Tensor:
        compared.append(completion)
        return compute(model, batch, completion, temperature)

    monkeypatch.setattr(selfcheck, "plain_logps", noted)
    first, second, third = case.completions
    with_picture = replace(second, ids_C=torch.cat([second.ids_C[:1], torch.tensor([token]), second.ids_C[1:]]))
    difference = case.check(completions=[first, with_picture, third])
    assert difference == case.check(completions=[first, third])
    assert difference is not None
    assert [id(completion) for completion in compared] == [id(first), id(third)] * 2


def test_where_all_completions_hold_one_nothing_is_compared_and_a_warning_says_so(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    completions = [Completion(0, torch.tensor([1, VIDEO_TOKEN])), Completion(0, torch.tensor([IMAGE_TOKEN]))]
    with caplog.at_level(logging.INFO, logger="spacer.models.selfcheck"):
        assert case.check(completions=completions) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "nothing was compared" in record.message


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(case: Case, training: bool) -> None:
    seen: list[tuple[bool, Any]] = []

    def note(module: Any, *_: Any) -> None:
        seen.append((module.training, module.config._attn_implementation))

    hook = case.model.model.language_model.register_forward_pre_hook(note)
    before = implementations(case.model)
    try:
        case.model.train(training)
        case.check()
        assert {part.training for part in case.model.modules()} == {training}
        assert implementations(case.model) == before
        assert before[0] == before[2] == TREE
        # one row in the tree's attention and each completion in transformers' own, all without dropout
        assert seen == [(False, TREE)] + [(False, "sdpa")] * len(case.completions)
    finally:
        hook.remove()
        case.model.eval()


def test_the_model_is_left_as_it_was_by_an_error_too(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    before = implementations(case.model)
    case.model.train()
    try:
        with monkeypatch.context() as spoilt:
            break_positions(spoilt)
            with pytest.raises(TreeMismatch):
                case.check()
        assert (case.model.training, implementations(case.model)) == (True, before)
        with monkeypatch.context() as spoilt:
            spoilt.setattr(selfcheck, "plain_logps", failing)
            with pytest.raises(MemoryError):
                case.check()
        assert (case.model.training, implementations(case.model)) == (True, before)
        assert case.check() is not None
    finally:
        case.model.eval()


def failing(*_: Any, **__: Any) -> Tensor:
    raise MemoryError


def test_nothing_is_kept_for_a_backward_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[bool] = []
    monkeypatch.setattr(selfcheck, "row_logps", spied(selfcheck.row_logps, needed))
    monkeypatch.setattr(selfcheck, "plain_logps", spied(selfcheck.plain_logps, needed))
    case.check()
    assert needed == [False] * (1 + len(case.completions))


def spied(function: Callable[..., Tensor], needed: list[bool]) -> Callable[..., Tensor]:
    """The function, noting whether what it returns needs a gradient."""

    def call(*args: Any, **kwargs: Any) -> Tensor:
        result = function(*args, **kwargs)
        needed.append(result.requires_grad)
        return result

    return call


# ---- the pictures of one prompt


def pictures_expected(prompt: Prompt) -> list[Tensor | None]:
    """Patches and grids of images, then of videos, as the prompt itself has them."""
    own, none = [prompt.pixels_PD, prompt.grid_thw], [None, None]
    return own + none if prompt.sample.data_type == "image" else none + own


def same(found: Tensor | None, expected: Tensor | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return torch.equal(found, expected)


@hypothesis_settings(deadline=None, max_examples=40)
@given(family=st.sampled_from(FAMILIES), shown=media, seed=st.integers(0, 2**32 - 1))
def test_each_prompt_has_its_own_pictures(family: str, shown: list[tuple[str, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompts = [
        prompt
        for kind, count in shown
        for prompt in make_prompts(family, model_of(family), rng, kind, count, torch.float32)
    ]
    prompts = [prompts[i] for i in rng.permutation(len(prompts))]
    batch = collate(prompts)
    for n, prompt in enumerate(prompts):
        found, _ = shown_at(batch.pictures, batch.forest.prompt(n).vision_L, merge=2)
        parts = [found.image_pixels, found.image_grids, found.video_pixels, found.video_grids]
        assert all(map(same, parts, pictures_expected(prompt)))
