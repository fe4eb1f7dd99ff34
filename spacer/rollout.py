"""Prompts → completions, sampled with transformers' `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spacer.modeling import eos_ids
from spacer.objective import completion_mask, truncated

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn. `temperature` 0 is greedy."""

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Rollout:
    """Completions padded on the right: their tokens, which of them count (up to the first end), their text."""

    ids_BC: Tensor
    mask_BC: Tensor
    truncated_B: Tensor
    texts: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion, its end included."""
        return [int(n) for n in self.mask_BC.sum(1)]


@torch.no_grad()
def sample(
    model: Any,
    processor: Qwen2_5_VLProcessor,
    embeds_BLH: Tensor,
    mask_BL: Tensor,
    positions_3BL: Tensor,
    decoding: Decoding,
    seed: int,
) -> Rollout:
    """Draws a completion for each row; equal seeds on equal inputs draw equal completions.

    The global random state is left as it was found.
    """
    eos = eos_ids(processor)
    pad = processor.tokenizer.pad_token_id
    greedy = decoding.temperature == 0
    was_training = model.training
    model.eval()
    devices = [embeds_BLH.device] if embeds_BLH.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        # every knob that a model's own generation_config may turn is set: Qwen2.5-VL ships a repetition penalty
        ids = model.generate(
            inputs_embeds=embeds_BLH,
            attention_mask=mask_BL,
            position_ids=positions_3BL,
            do_sample=not greedy,
            max_new_tokens=decoding.max_new_tokens,
            repetition_penalty=1.0,
            top_k=0,
            temperature=None if greedy else decoding.temperature,
            top_p=None if greedy else decoding.top_p,
            eos_token_id=list(eos),
            pad_token_id=pad,
            use_cache=True,
        )
    model.train(was_training)
    mask = completion_mask(ids, eos)
    texts = tuple(
        processor.tokenizer.decode(row[kept], skip_special_tokens=True) for row, kept in zip(ids, mask, strict=True)
    )
    return Rollout(ids, mask, truncated(ids, eos), texts)
