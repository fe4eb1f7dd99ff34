"""Sampling through trees: against transformers' own `generate`, and against the plain computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.generation.logits_process import TopPLogitsWarper

from spacer.attention.kv_cache import LeafCache
from spacer.config.choices import Checkpointing
from spacer.config.settings import Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, collate
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy
from spacer.models.probe import probe_model
from spacer.models.vision import encode_vision
from spacer.rollout import decode as decode_module
from spacer.rollout.completion import Rollout
from spacer.rollout.decode import Sampler
from spacer.rollout.sampling import Decoding, draw
from tests.parity.conftest import prompts_of, threads
from tests.parity.families import EOS, FAMILIES, exact, make, make_prompts, plain_attention, plain_logps
from tests.parity.test_grpo import naive_positions

GREEDY = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=40)
SAMPLED = Decoding(temperature=1.0, top_p=0.95, max_new_tokens=24)
COMPUTE = ComputeOptions("blocks", 16_384)


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Prompts of unequal length, the first two about one video."""
    made = prompts_of(dataset, 0, 1, 5, 10)
    assert len({len(prompt.ids_L) for prompt in made}) > 1
    return made


class Words:
    """What sampling needs to know of tokens, of those that are no words."""

    end_ids, pad_id, prompt_opens = (EOS,), 0, ""

    def decode(self, ids_C: torch.Tensor) -> str:
        return " ".join(map(str, ids_C.tolist()))


def rolled(
    model: Any,
    vocabulary: Any,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    group: int = 1,
    seed: int = 0,
    compute: ComputeOptions = COMPUTE,
) -> Rollout:
    batch = collate(prompts).to(next(model.parameters()).device)
    with torch.no_grad():
        vision = encode_vision(model, batch.pictures)
    seeds = [[seed, i] for i in range(len(prompts) * group)]
    return Sampler(model, vocabulary, compute, decoding).sample(batch.forest, vision, seeds)


def drawn(settings: Settings, prompts: Sequence[Prompt], decoding: Decoding, **options: Any) -> Rollout:
    return rolled(load_policy(settings.model), probe_model(settings.model), prompts, decoding, **options)


def test_greedy_decoding_equals_generate_one_by_one(settings: Settings, prompts: list[Prompt]) -> None:
    rollout = drawn(settings, prompts, GREEDY)
    model = AutoModelForImageTextToText.from_pretrained(settings.model.name_or_path)
    for row, prompt in enumerate(prompts):
        ids = prompt.ids_L[None]
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values_videos=prompt.pixels_PD,
            video_grid_thw=prompt.grid_thw,
            position_ids=naive_positions(ids[0].tolist(), model.config.video_token_id),
            do_sample=False,
            max_new_tokens=GREEDY.max_new_tokens,
        )
        expected = whole[0, ids.shape[1] :].tolist()
        assert rollout.ids_BC[row][rollout.mask_BC[row]].tolist() == expected


@pytest.mark.parametrize("budget", [1, 10_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_decodes_greedily_as_generate_does(family: str, budget: int) -> None:
    model = make(family)
    rng = np.random.default_rng(2)
    shown = (("video", 3), ("image", 2), ("images", 1), ("text", 2), ("video", 1))
    prompts = [p for kind, count in shown for p in make_prompts(family, model, rng, kind, count, torch.float64)]
    greedy = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=20)
    found = rolled(model, Words(), prompts, greedy, compute=ComputeOptions("blocks", budget))
    lengths = set()
    for row, prompt in enumerate(prompts):
        names = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}
        pictures = dict(zip(names[prompt.sample.data_type], (prompt.pixels_PD, prompt.grid_thw), strict=True))
        with plain_attention(model):
            whole = model.generate(
                input_ids=prompt.ids_L[None],
                attention_mask=torch.ones_like(prompt.ids_L)[None],
                position_ids=prompt.positions_3L[:, None],
                do_sample=False,
                max_new_tokens=20,
                eos_token_id=EOS,
                pad_token_id=0,
                **({} if prompt.grid_thw is None else pictures),
            )
        expected = whole[0, len(prompt.ids_L) :].tolist()
        assert found.ids_BC[row][found.mask_BC[row]].tolist() == expected, (family, row)
        lengths.add(len(expected))
    assert len(lengths) > 1  # some ended before the others


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("questions", [1, 4])
def test_log_probabilities_kept_while_sampling_are_the_plain_ones(family: str, questions: int) -> None:
    model = make(family)
    rng = np.random.default_rng(4)
    prompts = [
        prompt
        for kind in ("video", "image", "text")
        for prompt in make_prompts(family, model, rng, kind, questions, torch.float64)
    ]
    rollout = rolled(model, Words(), prompts, Decoding(1.0, 0.95, 160), group=3)  # past the first growth of the cache
    ended = [length for length in rollout.lengths if length < 160]
    assert len(set(ended)) > 3
    for completion in rollout.completions(3):
        row = len(completion.ids_C)
        expected = plain_logps(model, prompts[completion.prompt], completion.ids_C).detach()
        matches = [i for i in range(completion.prompt * 3, completion.prompt * 3 + 3) if rollout.lengths[i] == row]
        kept = [rollout.logp_BC[i, :row] for i in matches if torch.equal(rollout.ids_BC[i, :row], completion.ids_C)]
        torch.testing.assert_close(kept[0].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_completions_written_in_two_lanes_are_those_of_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = make(family), np.random.default_rng(5)
    prompts = [
        p
        for kind, count in (("video", 3), ("text", 1), ("images", 1))
        for p in make_prompts(family, model, rng, kind, count, torch.float64)
    ]
    batch, compute, decoding = collate(prompts), ComputeOptions("blocks", 100), Decoding(1.0, 0.95, 60)
    seeds = [[3, i] for i in range(len(prompts) * 4)]
    with exact(model), torch.no_grad():
        vision = encode_vision(model, batch.pictures)

        def write(count: int) -> Rollout:
            with threads(count):
                sampler = Sampler(model, Words(), compute, decoding)
                return sampler.sample(batch.forest, vision, seeds)

        one = write(1)
        monkeypatch.setattr(decode_module, "_ROWS", 4)
        caches: list[LeafCache] = []

        class Noted(LeafCache):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                caches.append(self)

        monkeypatch.setattr(decode_module, "LeafCache", Noted)
        two = write(2)
    assert len(caches) == 2
    assert len(set(one.lengths)) > 3
    assert torch.equal(one.ids_BC, two.ids_BC) and one.texts == two.texts
    torch.testing.assert_close(two.logp_BC, one.logp_BC)


def test_a_completion_depends_on_its_own_seed_and_not_on_what_stands_beside_it(
    settings: Settings, prompts: list[Prompt]
) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (drawn(settings, prompts, SAMPLED, group=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.texts == again.texts
    assert first.texts != other.texts
    assert len(set(first.texts)) > len(prompts)  # the completions of a group differ
    alone = drawn(settings, prompts[:1], SAMPLED, group=2, seed=1)
    assert alone.texts == first.texts[:2]


def test_texts_begin_with_what_the_prompt_has_opened(settings: Settings, prompts: list[Prompt]) -> None:
    probe = probe_model(settings.model)
    begun = rolled(load_policy(settings.model), replace(probe, prompt_opens="<think>\n"), prompts[:2], SAMPLED, seed=1)
    plain = drawn(settings, prompts[:2], SAMPLED, seed=1)
    assert torch.equal(begun.ids_BC, plain.ids_BC) and begun.lengths == plain.lengths
    assert begun.texts == tuple("<think>\n" + text for text in plain.texts)


def test_lengths_count_the_end_and_truncation_is_told(settings: Settings, prompts: list[Prompt]) -> None:
    rollout = drawn(settings, prompts, Decoding(1.0, 1.0, 60), group=4)
    end = probe_model(settings.model).end_ids[0]
    assert len(set(rollout.lengths)) > 1
    for row, length in enumerate(rollout.lengths):
        tokens = rollout.ids_BC[row, :length].tolist()
        assert end not in tokens[:-1]
        assert (tokens[-1] == end) != bool(rollout.truncated_B[row])
        assert length == 60 or not rollout.truncated_B[row]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.95), (0.5, 0.3), (2.0, 1.0), (1.0, 1e-6)])
def test_draws_follow_the_distribution_that_transformers_cuts(temperature: float, top_p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 12, generator=generator) * 2
    warped = TopPLogitsWarper(top_p)(torch.zeros(1, 1), logits / temperature).softmax(-1)[0]
    draws = (torch.arange(4000) + 0.5).double() / 4000  # evenly spread, so that frequencies are exact to a part in 4000
    ids, logp = draw(logits.expand(4000, -1), Decoding(temperature, top_p, 1), draws)
    frequencies = torch.bincount(ids, minlength=12) / 4000
    torch.testing.assert_close(frequencies, warped, rtol=0, atol=1 / 2000)
    torch.testing.assert_close(logp, (logits / temperature).log_softmax(-1)[0][ids])


def test_the_largest_random_number_draws_a_token_that_top_p_keeps() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    below_one = torch.tensor([float(np.nextafter(1.0, 0.0))], dtype=torch.float64)
    for top_p, last in ((0.5, 0), (0.9, 1), (1.0, 3)):
        assert draw(logits, Decoding(1.0, top_p, 1), below_one)[0].item() == last


def test_sampling_leaves_a_training_model_training(settings: Settings, prompts: list[Prompt]) -> None:
    model = load_policy(replace(settings.model, gradient_checkpointing=Checkpointing.all)).train()
    rolled(model, probe_model(settings.model), prompts[:1], replace(GREEDY, max_new_tokens=2))
    assert model.training
