"""What attention comes to in a rollout, kept for the update that follows it.

There the same policy attends from the same tokens to the same tokens: its forward pass need not attend again, and the
backward pass goes on from the outputs and log-sum-exps of the rollout. Exact but for the order of sums.

Shape suffixes: B completions of the rollout, C tokens, R rows being written, L tokens of a packed row, N tokens of
completions in it, H query heads, D channels of a head.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spacer.attention import Attended
from spacer.tree import PackedRow

Layer = int


class RolloutAttention:
    """The attention of each layer over a forest's segments and over completions: all but a completion's last token."""

    def __init__(self, completions: int, steps: int) -> None:
        """Room for so many completions of at most so many tokens."""
        self._room = completions, steps
        self._making_room = threading.Lock()  # completions are written by several threads
        self._segments: dict[int, dict[Layer, Attended]] = {}
        self._tokens: dict[Layer, Attended] = {}  # B x C x H x D, and B x C x H

    def note_segments(self, row: PackedRow, layers: Mapping[Layer, Attended]) -> None:
        """Keeps what a row of prompts alone comes to."""
        for segment, span in zip(row.segments, row.spans, strict=True):
            cut = slice(span.start, span.stop)
            self._segments[segment] = {layer: (out[cut], lse[cut]) for layer, (out, lse) in layers.items()}

    def note_tokens(self, layer: Layer, completions_R: Tensor, token: int, out_RHD: Tensor, lse_RH: Tensor) -> None:
        """Keeps what one token of each of these completions comes to."""
        with self._making_room:
            if layer not in self._tokens:
                self._tokens[layer] = (
                    out_RHD.new_zeros(*self._room, *out_RHD.shape[1:]),
                    lse_RH.new_zeros(*self._room, lse_RH.shape[1]),
                )
        out_BCHD, lse_BCH = self._tokens[layer]
        out_BCHD[completions_R, token], lse_BCH[completions_R, token] = out_RHD, lse_RH

    def over(self, row: PackedRow, numbers: Sequence[int] | None = None) -> dict[Layer, Attended]:
        """What the row comes to in each layer.

        `numbers` are the rollout's of the completions that were packed; None where these are all of them, in order.
        """
        # token t > 0 of a completion is predicted by its token t - 1; all else in a row are its segments, in order
        written_N = row.token_N > 0
        places_N = row.predictors_N[written_N]
        mine = torch.tensor(row.completions if numbers is None else [numbers[n] for n in row.completions])
        source = mine[row.owner_N[written_N]], row.token_N[written_N] - 1
        prompts_L = torch.ones(len(row), dtype=torch.bool).index_fill(0, places_N, False)
        found = {}
        for layer in self._segments[row.segments[0]]:
            whole = []
            for which in (0, 1):
                prompts = torch.cat([self._segments[segment][layer][which] for segment in row.segments])
                values = prompts.new_empty(len(row), *prompts.shape[1:])
                values[prompts_L] = prompts
                if layer in self._tokens:  # completions of one token were never read
                    values[places_N] = self._tokens[layer][which][source].to(values.dtype)
                whole.append(values)
            found[layer] = whole[0], whole[1]
        return found
