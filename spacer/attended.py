"""What attention comes to in a rollout, kept for the update that follows it.

There the same policy attends from the same tokens to the same tokens: its forward pass need not attend again, and the
backward pass goes on from the outputs and log-sum-exps of the rollout. Exact but for the order of sums.

Shape suffixes: B completions of the rollout, C tokens, R rows being written, L tokens of a packed row, N tokens of
completions in it, H query heads, D channels of a head.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from spacer.attention import Attended
from spacer.tree import Forest, PackedRow

Layer = int


class RolloutAttention:
    """The attention of each layer over a forest's segments and over completions: all but a completion's last token.

    A layer's is in one piece: as many small ones, they would leave memory in pieces that training has no use for.
    """

    def __init__(self, forest: Forest, completions: int, steps: int) -> None:
        """Room for a forest, and so many completions of at most so many tokens."""
        ends = list(accumulate((len(segment.ids_L) for segment in forest.segments), initial=0))
        self._cuts = [slice(start, stop) for start, stop in pairwise(ends)]  # of each segment among all
        self._room = completions, steps
        self._making_room = threading.Lock()  # rows, and completions, are computed by several threads
        self._prompts: dict[Layer, Attended] = {}  # of all segments, one after the other
        self._tokens: dict[Layer, Attended] = {}  # B x C x H x D, and B x C x H

    def note_segments(self, layer: Layer, row: PackedRow, found: Attended) -> None:
        """Keeps what a row of prompts alone comes to."""
        held = self._held(self._prompts, layer, (self._cuts[-1].stop,), found)
        for segment, span in zip(row.segments, row.spans, strict=True):
            for whole, part in zip(held, found, strict=True):
                whole[self._cuts[segment]] = part[span.start : span.stop]

    def note_tokens(self, layer: Layer, completions_R: Tensor, token: int, out_RHD: Tensor, lse_RH: Tensor) -> None:
        """Keeps what one token of each of these completions comes to."""
        out_BCHD, lse_BCH = self._held(self._tokens, layer, self._room, (out_RHD, lse_RH))
        out_BCHD[completions_R, token], lse_BCH[completions_R, token] = out_RHD, lse_RH

    def _held(self, layers: dict[Layer, Attended], layer: Layer, room: tuple[int, ...], like: Attended) -> Attended:
        """What is held of a layer; zeros before anything is."""
        with self._making_room:
            if layer not in layers:
                out, lse = (part.new_zeros(*room, *part.shape[1:]) for part in like)
                layers[layer] = out, lse
            return layers[layer]

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
        for layer, held in self._prompts.items():
            whole = []
            for which in (0, 1):
                prompts = torch.cat([held[which][self._cuts[segment]] for segment in row.segments])
                values = prompts.new_empty(len(row), *prompts.shape[1:])
                values[prompts_L] = prompts
                if layer in self._tokens:  # completions of one token were never read
                    values[places_N] = self._tokens[layer][which][source].to(values.dtype)
                whole.append(values)
            found[layer] = whole[0], whole[1]
        return found
