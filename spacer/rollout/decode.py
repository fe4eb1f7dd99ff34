"""Prompts → completions: prefills each segment of the prefix tree once, and decodes all completions together.

Shape suffixes: R rows (unfinished completions), B completions, C tokens, H hidden, V vocabulary, L tokens of a packed
row, S segments in it, K key and value heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from spacer.attention.kv_cache import LeafCache
from spacer.attention.pages import PagedCache
from spacer.attention.rows import Prefill
from spacer.cpu.lanes import side_by_side
from spacer.models.forward import ComputeOptions, RowContext, attention_over, row_states
from spacer.models.unwrap import text_model, unwrap
from spacer.models.vision import VisionFeatures
from spacer.rollout.completion import Rollout, Vocabulary, concatenate_padded, nothing, rollout_of
from spacer.rollout.sampling import Decoding, draw, uniforms
from spacer.rollout.sampling_copy import sampling_weights
from spacer.rollout.static import StaticDecoder
from spacer.tree.forest import Forest
from spacer.tree.packing import PackedRow, pack

_ROWS = 32  # minimum completions per lane: with fewer, reading shared weights twice costs more than it saves


@dataclass(frozen=True)
class Sampler:
    """Samples completions from a model, which is set to evaluation mode meanwhile."""

    model: Any
    vocabulary: Vocabulary
    compute: ComputeOptions
    decoding: Decoding

    @torch.no_grad()
    def sample(
        self,
        forest: Forest,
        vision: VisionFeatures,
        seeds: Sequence[Sequence[int]],
    ) -> Rollout:
        """Samples len(seeds) / len(prompts) completions per prompt, grouped by prompt; on a CPU in two lanes, if there
        are enough.

        Each completion has its own seed, so it does not depend on the rest of the batch, up to rounding: equal seeds
        and prompts give equal completions. Finished rows leave the batch. Without prompts, the result is empty, of
        width 1.
        """
        if not forest.ends:
            return nothing(unwrap(self.model).lm_head.weight.device)
        assert len(seeds) % len(forest.ends) == 0, (len(seeds), len(forest.ends))
        was_training = self.model.training
        self.model.eval()
        try:
            with sampling_weights(self.model):
                ids_BC, logp_BC = self._generate(forest, vision, seeds)
        finally:
            self.model.train(was_training)
        return rollout_of(ids_BC, logp_BC, self.vocabulary)

    def _generate(
        self,
        forest: Forest,
        vision: VisionFeatures,
        seeds: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Token ids and their log-probabilities (B, C); after a completion's end, the padding token and 0."""
        group = len(seeds) // len(forest.ends)
        lanes = max(1, min(self.compute.lanes, len(forest.ends), len(seeds) // _ROWS))
        cuts = [len(forest.ends) * lane // lanes for lane in range(lanes + 1)]
        parts = [range(first, stop) for first, stop in pairwise(cuts)]
        device, caches = unwrap(self.model).lm_head.weight.device, list[LeafCache | PagedCache]()
        for part in parts:
            paths = [forest.path(forest.ends[n]) for n in part for _ in range(group)]
            if self.compute.decoding == "graph":
                caches.append(PagedCache(forest, paths, device, self.decoding.max_new_tokens))
            else:
                caches.append(LeafCache(forest, paths, device, self.compute.decoding))
        states_NH = self._prefill(forest, vision, caches)

        def decode(lane: int) -> tuple[Tensor, Tensor]:
            part = parts[lane]
            last_3N = torch.stack([forest.segments[forest.ends[n]].positions_3L[:, -1] for n in part], 1)
            states, mine = states_NH[part.start : part.stop], seeds[part.start * group : part.stop * group]
            return self._decode(states, caches[lane], last_3N, mine)

        ids, logps = zip(*side_by_side(decode, range(lanes), lanes), strict=True)
        return concatenate_padded(ids, self.vocabulary.pad_id), concatenate_padded(logps, 0)

    def _decode(
        self, states_NH: Tensor, cache: LeafCache | PagedCache, last_3N: Tensor, seeds: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """As `_generate` for a lane's prompts, from the hidden state and position of each prompt's last token."""
        group = len(seeds) // len(states_NH)
        base, decoding, vocabulary = unwrap(self.model), self.decoding, self.vocabulary
        embed, head, decoder = base.get_input_embeddings(), base.lm_head, text_model(base)
        device = embed.weight.device
        last_3R = last_3N.repeat_interleave(group, 1).to(device)
        steps = decoding.max_new_tokens
        draws_BC = uniforms(seeds, steps, device)
        if isinstance(cache, PagedCache):
            logits_RV = head(states_NH).repeat_interleave(group, 0)
            end_ids, pad_id = vocabulary.end_ids, vocabulary.pad_id
            return StaticDecoder(base, cache, decoding, end_ids, pad_id, last_3R, draws_BC, logits_RV).run()
        ends = torch.tensor(vocabulary.end_ids, device=device)
        ids_BC = torch.full((len(seeds), steps), vocabulary.pad_id, device=device)
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
            states = decoder(
                inputs_embeds=embed(ids_R)[:, None],
                position_ids=(last_3R + step + 1)[:, :, None],
                use_cache=False,
                tree=cache,
            ).last_hidden_state
            logits_RV = head(states[:, 0])
        return ids_BC[:, : step + 1], logp_BC[:, : step + 1]

    def _prefill(
        self,
        forest: Forest,
        vision: VisionFeatures,
        caches: Sequence[LeafCache | PagedCache],
    ) -> Tensor:
        """Fills the caches; returns the hidden state of each prompt's last token."""
        context = RowContext(vision, self.compute)

        def last_states(row: PackedRow) -> Tensor:
            def keep(layer: int, k_KLD: Tensor, v_KLD: Tensor) -> None:
                for segment, span in zip(row.segments, row.spans, strict=True):
                    cut = slice(span.start, span.stop)
                    for cache in caches:
                        cache.fill(segment, layer, k_KLD[:, cut], v_KLD[:, cut])

            states_LH = row_states(self.model, row, vision, Prefill(attention_over(row, self.model, context), keep))
            return states_LH[[span.stop - 1 for span in row.spans]]

        rows = pack(forest, None, self.compute.row_tokens)
        last: dict[int, Tensor] = {}
        for row, states_SH in zip(rows, side_by_side(last_states, rows, self.compute.lanes), strict=True):
            last |= zip(row.segments, states_SH, strict=True)
        return torch.stack([last[end] for end in forest.ends])
