"""Sampling against transformers' own `generate` on pixels and ids."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from spacer.data.loading import PromptDataset, Use
from spacer.data.processing import Prompt, collate
from spacer.modeling import embed, load_policy, load_processor
from spacer.rollout import Decoding, Rollout, sample
from spacer.settings import Settings
from tests.parity.test_grpo import naive_positions

GREEDY = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=40)
SAMPLED = Decoding(temperature=1.0, top_p=0.95, max_new_tokens=24)


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Prompts of unequal length."""
    made = [dataset[Use(i, i)] for i in (0, 5, 10)]
    assert len({len(prompt.ids_L) for prompt in made if isinstance(prompt, Prompt)}) > 1
    return [prompt for prompt in made if isinstance(prompt, Prompt)]


def drawn(settings: Settings, prompts: list[Prompt], decoding: Decoding, seed: int = 0) -> Rollout:
    policy, processor = load_policy(settings.model), load_processor(settings.model)
    batch = collate(prompts, processor.tokenizer.pad_token_id)
    with torch.no_grad():
        embeds = embed(policy, batch)
    return sample(policy, processor, embeds, batch.mask_BL, batch.positions_3BL, decoding, seed)


def test_greedy_decoding_of_a_padded_batch_equals_generate_one_by_one(
    settings: Settings, prompts: list[Prompt]
) -> None:
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


def test_a_seed_draws_the_same_completions_and_leaves_the_global_state_alone(
    settings: Settings, prompts: list[Prompt]
) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (drawn(settings, prompts * 2, SAMPLED, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.texts == again.texts
    assert first.texts != other.texts


def test_lengths_count_the_end_and_truncation_is_told(settings: Settings, prompts: list[Prompt]) -> None:
    rollout = drawn(settings, prompts * 4, Decoding(1.0, 1.0, 16))
    end = load_processor(settings.model).tokenizer.eos_token_id
    for row, length in enumerate(rollout.lengths):
        tokens = rollout.ids_BC[row, :length].tolist()
        assert end not in tokens[:-1]
        assert (tokens[-1] == end) != bool(rollout.truncated_B[row])
