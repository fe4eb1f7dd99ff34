"""Prompts → completions: each segment of the prefix tree is prefilled once, all completions are written together.

Shape suffixes: R rows (completions still being written), B completions, C tokens, H hidden, V vocabulary, L tokens of
a packed row, S segments in it, K key and value heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spacer.attended import RolloutAttention
from spacer.attention import Attended, Prefill
from spacer.cache import LeafCache
from spacer.lanes import side_by_side
from spacer.modeling import Packing, Vision, attention_over, eos_ids, plain, row_states
from spacer.objective import completion_mask, truncated
from spacer.tree import Completion, Forest, PackedRow, pack

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

_ROWS = 32  # completions that a lane must have, for what they share to be worth reading twice
_NUCLEUS = 1024  # tokens that are looked at first for top-p


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn. `temperature` 0 is greedy."""

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Rollout:
    """Completions padded on the right: their tokens, which of them count (up to the first end), their text.

    `logp_BC` are the tokens' log-probabilities as they were drawn, at the temperature and before top-p.
    """

    ids_BC: Tensor
    mask_BC: Tensor
    logp_BC: Tensor
    truncated_B: Tensor
    texts: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion, its end included."""
        return self.mask_BC.sum(1).tolist()

    def completions(self, group: int) -> list[Completion]:
        """The completions as leaves of the forest, `group` of them a prompt."""
        ids_BC = self.ids_BC.cpu()
        return [Completion(i // group, ids_BC[i, :length]) for i, length in enumerate(self.lengths)]


@torch.no_grad()
def sample(
    model: Any,
    processor: Qwen2_5_VLProcessor,
    forest: Forest,
    vision: Vision,
    packing: Packing,
    decoding: Decoding,
    seeds: Sequence[Sequence[int]],
    attended: RolloutAttention | None = None,
) -> Rollout:
    """Draws len(seeds) / len(prompts) completions for each prompt in turn, on a CPU in two lanes where they are many.

    A completion's random numbers are named by its own seed, whatever stands beside it: equal seeds on equal prompts
    draw equal completions, up to rounding. Rows that have ended leave the batch. No prompts have no completions, of a
    width of one token. What attention comes to is noted in `attended`, if that is given.
    """
    if not forest.ends:
        nothing = torch.zeros(0, 1, device=plain(model).lm_head.weight.device)
        return Rollout(nothing.long(), nothing.bool(), nothing, nothing[:, 0].bool(), ())
    assert len(seeds) % len(forest.ends) == 0, (len(seeds), len(forest.ends))
    was_training = model.training
    model.eval()
    try:
        ids_BC, logp_BC = _write(model, processor, forest, vision, packing, decoding, seeds, attended)
    finally:
        model.train(was_training)
    mask_BC = completion_mask(ids_BC, eos_ids(processor))
    texts = tuple(
        processor.tokenizer.decode(row[kept], skip_special_tokens=True)
        for row, kept in zip(ids_BC, mask_BC, strict=True)
    )
    return Rollout(ids_BC, mask_BC, logp_BC, truncated(ids_BC, eos_ids(processor)), texts)


def _write(
    model: Any,
    processor: Qwen2_5_VLProcessor,
    forest: Forest,
    vision: Vision,
    packing: Packing,
    decoding: Decoding,
    seeds: Sequence[Sequence[int]],
    attended: RolloutAttention | None,
) -> tuple[Tensor, Tensor]:
    """Tokens and their log-probabilities, BC: past a completion's end padding and 0."""
    group = len(seeds) // len(forest.ends)
    lanes = max(1, min(packing.lanes, len(forest.ends), len(seeds) // _ROWS))
    cuts = [len(forest.ends) * lane // lanes for lane in range(lanes + 1)]
    parts = [range(first, stop) for first, stop in pairwise(cuts)]
    device, caches = plain(model).lm_head.weight.device, []
    for part in parts:
        paths = [forest.path(forest.ends[n]) for n in part for _ in range(group)]
        caches.append(LeafCache(forest, paths, device, packing.decoding, attended, part.start * group))
    states_NH = _prefill(model, forest, vision, packing, caches, attended)

    def decode(lane: int) -> tuple[Tensor, Tensor]:
        part = parts[lane]
        last_3N = torch.stack([forest.segments[forest.ends[n]].positions_3L[:, -1] for n in part], 1)
        states, mine = states_NH[part.start : part.stop], seeds[part.start * group : part.stop * group]
        return _decode(model, processor, states, caches[lane], last_3N, decoding, mine)

    ids, logps = zip(*side_by_side(decode, range(lanes), lanes), strict=True)
    return _under_one_another(ids, processor.tokenizer.pad_token_id), _under_one_another(logps, 0)


def _under_one_another(tables_RC: Sequence[Tensor], padding: float) -> Tensor:
    """Tables as one, as wide as the widest."""
    width = max(table.shape[1] for table in tables_RC)
    return torch.cat([F.pad(table, (0, width - table.shape[1]), value=padding) for table in tables_RC])


def _decode(
    model: Any,
    processor: Qwen2_5_VLProcessor,
    states_NH: Tensor,
    cache: LeafCache,
    last_3N: Tensor,
    decoding: Decoding,
    seeds: Sequence[Sequence[int]],
) -> tuple[Tensor, Tensor]:
    """As `_write`, of some prompts: from the state and the position that each of them ends with."""
    group = len(seeds) // len(states_NH)
    base = plain(model)
    embed, head, text_model = base.get_input_embeddings(), base.lm_head, base.model.language_model
    device = embed.weight.device
    last_3R = last_3N.repeat_interleave(group, 1).to(device)
    steps = decoding.max_new_tokens
    draws_BC = torch.from_numpy(np.stack([np.random.default_rng(list(seed)).random(steps) for seed in seeds])).to(
        device
    )
    ends = torch.tensor(eos_ids(processor), device=device)
    ids_BC = torch.full((len(seeds), steps), processor.tokenizer.pad_token_id, device=device)
    logp_BC = torch.zeros(len(seeds), steps, dtype=torch.float32, device=device)
    rows_R = torch.arange(len(seeds), device=device)
    logits_RV = head(states_NH).repeat_interleave(group, 0)
    for step in range(steps):
        ids_R, logp_R = draw(logits_RV, decoding, draws_BC[rows_R, step])
        ids_BC[rows_R, step], logp_BC[rows_R, step] = ids_R, logp_R.to(logp_BC.dtype)
        ended_R = torch.isin(ids_R, ends)
        if bool(ended_R.any()):
            live = (~ended_R).nonzero()[:, 0]
            if not len(live):
                break
            cache.keep(live)
            rows_R, ids_R, last_3R = rows_R[live], ids_R[live], last_3R[:, live]
        if step + 1 == steps:
            break
        cache.advance()
        states = text_model(
            inputs_embeds=embed(ids_R)[:, None],
            position_ids=(last_3R + step + 1)[:, :, None],
            use_cache=False,
            tree=cache,
        ).last_hidden_state
        logits_RV = head(states[:, 0])
    return ids_BC[:, : step + 1], logp_BC[:, : step + 1]


def _prefill(
    model: Any,
    forest: Forest,
    vision: Vision,
    packing: Packing,
    caches: Sequence[LeafCache],
    attended: RolloutAttention | None,
) -> Tensor:
    """The state after each prompt's last token; fills the caches."""

    def last_states(row: PackedRow) -> Tensor:
        def keep(layer: int, k_KLD: Tensor, v_KLD: Tensor, found: Attended | None) -> None:
            for segment, span in zip(row.segments, row.spans, strict=True):
                cut = slice(span.start, span.stop)
                for cache in caches:
                    cache.fill(segment, layer, k_KLD[:, cut], v_KLD[:, cut])
            if attended is not None and found is not None:
                attended.note_segments(layer, row, found)

        states_LH = row_states(model, row, vision, Prefill(attention_over(row, model, packing), keep))
        return states_LH[[span.stop - 1 for span in row.spans]]

    rows = pack(forest, None, packing.row_tokens)
    last: dict[int, Tensor] = {}
    for row, states_SH in zip(rows, side_by_side(last_states, rows, packing.lanes), strict=True):
        last |= zip(row.segments, states_SH, strict=True)
    return torch.stack([last[end] for end in forest.ends])


def draw(logits_RV: Tensor, decoding: Decoding, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """A token for each row and its log-probability under logits / temperature, before top-p.

    Top-p keeps the likeliest tokens up to the one with which their sum reaches `top_p`; the token is where `uniform_R`,
    in [0, 1), falls in their cumulative distribution. At temperature 0 the likeliest token, with its log-probability at
    temperature 1.
    """
    logits_RV = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
    if decoding.temperature == 0:
        logp_RV = logits_RV.log_softmax(-1)
        ids_R = logits_RV.argmax(-1)
    else:
        logp_RV = (logits_RV / decoding.temperature).log_softmax(-1)
        sums_Rn, order_Rn = _likeliest(logp_RV, decoding.top_p)
        reached_R1 = torch.full_like(sums_Rn[:, :1], decoding.top_p).minimum(sums_Rn[:, -1:])
        last_R1 = torch.searchsorted(sums_Rn, reached_R1)
        places_R1 = torch.searchsorted(sums_Rn, uniform_R[:, None] * sums_Rn.gather(1, last_R1), right=True)
        ids_R = order_Rn.gather(1, places_R1.minimum(last_R1))[:, 0]
    return ids_R, logp_RV.gather(1, ids_R[:, None])[:, 0]


def _likeliest(logp_RV: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens, best first, and their cumulative probabilities: at least as many as top-p keeps.

    A nucleus is a few tokens as a rule; a large vocabulary is sorted as a whole only where it is more.
    """
    if logp_RV.shape[1] > _NUCLEUS:
        best = logp_RV.topk(_NUCLEUS, -1)
        sums_Rn = best.values.exp().double().cumsum(-1)
        if bool((sums_Rn[:, -1] >= top_p).all()):
            return sums_Rn, best.indices
    order_RV = _descending(logp_RV)
    return logp_RV.gather(1, order_RV).exp().double().cumsum(-1), order_RV


def _descending(values_RV: Tensor) -> Tensor:
    """Places of values, none of which is above 0, largest first."""
    if values_RV.device.type == "cpu" and values_RV.dtype == torch.float32:
        # NumPy sorts whole numbers with vector instructions, several times as fast as it does places: the bits of
        # floats above 0 are in their order, and below them stands each value's place
        keys_RV = values_RV.neg().view(torch.int32).long()
        keys_RV.bitwise_left_shift_(32).bitwise_or_(torch.arange(values_RV.shape[1]))
        keys_RV.numpy().sort(-1)
        return keys_RV.bitwise_and_(0xFFFFFFFF)
    return values_RV.argsort(-1, descending=True)
