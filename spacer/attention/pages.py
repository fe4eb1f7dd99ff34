"""The keys and values of a rollout in pages of one size, for decoding that keeps its shapes.

A prompt's whole pages are kept once, however many rows read them; the tokens after the last whole page, and those that
a row writes, are in pages of its own. Nothing is allocated while tokens are written, nothing changes shape, and nothing
is asked of the host, so that a step can be captured in a CUDA graph.

Shape suffixes: R rows, N pages of the longest row, P pages in all, T tokens of a page, K key and value heads, Q query
heads per key head, D channels, C tokens of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from inspect import signature

import torch
from torch import Tensor

from spacer.tree.forest import Forest

PAGE = 256  # tokens: flash-attention's kernel reads pages of a multiple of it

Layer = int


class PagedCache:
    """Attention of each row's newest token to all that is before it. Given to a forward pass as `tree`; a forward pass
    adds a token to every row."""

    def __init__(
        self, forest: Forest, paths: Sequence[Sequence[int]], device: torch.device, steps: int, page: int = PAGE
    ) -> None:
        """`paths` are the segments of the forest that each row reads, from the root down: to be filled, before tokens
        are written, with their keys and values, which are on `device`. A row writes at most so many `steps` tokens."""
        self._device, self._page = device, page
        table: list[list[int]] = []
        numbers: dict[tuple[int, int], int] = {}  # of a whole page, by the segment that it ends in and its place
        count = 0
        lengths = [len(segment.ids_L) for segment in forest.segments]
        # for each segment which of its tokens are to be copied where: a page of several rows' own has them all
        copies: dict[int, dict[tuple[int, int], None]] = {}
        for path in paths:
            tokens = [(segment, place) for segment in path for place in range(lengths[segment])]
            whole = len(tokens) // page
            row = []
            for number in range(-(-(len(tokens) + steps) // page)):
                key = (tokens[(number + 1) * page - 1][0], number) if number < whole else None
                known = None if key is None else numbers.get(key)
                if known is None:
                    known, count = count, count + 1
                    if key is not None:
                        numbers[key] = known
                    held = tokens[number * page : (number + 1) * page]
                    for place, (segment, token) in enumerate(held, known * page):
                        copies.setdefault(segment, {})[token, place] = None
                row.append(known)
            table.append(row)
        self._copies = {
            segment: torch.tensor(list(pairs), device=device).T.contiguous() for segment, pairs in copies.items()
        }
        self._count = count
        widest = max(map(len, table))
        self.table_RN = torch.tensor(
            [row + [0] * (widest - len(row)) for row in table], dtype=torch.int32, device=device
        )
        prompts = [sum(lengths[segment] for segment in path) for path in paths]
        self.lengths_R = torch.tensor(prompts, dtype=torch.int32, device=device)  # keys of each row
        self._slots_R = torch.zeros(len(paths), dtype=torch.long, device=device)  # where each row's newest goes
        self._bias_RT = torch.zeros(0)
        self._ends_R = torch.arange(len(paths) + 1, dtype=torch.int32, device=device)
        self._keys: dict[Layer, Tensor] = {}  # P x T x K x D each
        self._values: dict[Layer, Tensor] = {}

    def fill(self, segment: int, layer: Layer, k_KCD: Tensor, v_KCD: Tensor) -> None:
        """Takes in a segment's keys and values, unless no row reads it."""
        if segment not in self._copies:
            return
        tokens, places = self._copies[segment]
        for layers, part in ((self._keys, k_KCD), (self._values, v_KCD)):
            if layer not in layers:
                layers[layer] = part.new_zeros(self._count, self._page, part.shape[0], part.shape[2])
            layers[layer].flatten(0, 1).index_copy_(0, places, part.transpose(0, 1).index_select(0, tokens))

    def advance(self) -> None:
        """Begins a token: call it before each forward pass."""
        places_R1 = self.lengths_R[:, None].long()
        pages_R1 = self.table_RN.gather(1, places_R1 // self._page).long()
        self._slots_R = (pages_R1 * self._page + places_R1 % self._page)[:, 0]
        self.lengths_R += 1
        if self._device.type != "cuda" or not _has_kernel():
            past_RT = torch.arange(self.table_RN.shape[1] * self._page, device=self._device) >= self.lengths_R[:, None]
            self._bias_RT = torch.zeros(past_RT.shape, device=self._device).masked_fill_(past_RT, -torch.inf)

    def keep(self, rows: Tensor) -> None:
        """Leaves only these rows, in this order. Keys stay where they are."""
        self.table_RN, self.lengths_R = self.table_RN[rows], self.lengths_R[rows]
        self._ends_R = self._ends_R[: len(rows) + 1]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Queries R x (K Q) x 1 x D; keys and values of the newest tokens R x K x 1 x D."""
        keys, values = self._keys[layer], self._values[layer]
        keys.flatten(0, 1).index_copy_(0, self._slots_R, k[:, :, 0])
        values.flatten(0, 1).index_copy_(0, self._slots_R, v[:, :, 0])
        if q.device.type == "cuda" and q.dtype.itemsize == 2 and _has_kernel():
            return self._by_kernel(q, keys, values, scale)
        return self._by_products(q, keys, values, scale)

    def _by_kernel(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """By the flash-attention in PyTorch, which reads pages where they are."""
        from torch.nn.attention.varlen import varlen_attn

        found = varlen_attn(
            q[:, :, 0],
            keys,
            values,
            self._ends_R,
            None,
            1,
            self.table_RN.shape[1] * self._page,
            scale=scale,
            enable_gqa=True,
            seqused_k=self.lengths_R,
            block_table=self.table_RN,
        )
        assert isinstance(found, Tensor)
        return found[:, :, None]

    def _by_products(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """By matrix products on a copy of each row's pages; scores and softmax are in float32 at least."""
        rows, wide = q.shape[0], torch.promote_types(q.dtype, torch.float32)
        taken = (
            x.index_select(0, self.table_RN.flatten()).unflatten(0, (rows, -1)).flatten(1, 2) for x in (keys, values)
        )
        k_RKTD, v_RKTD = (x.transpose(1, 2) for x in taken)
        q_RKQD = q[:, :, 0].unflatten(1, (k_RKTD.shape[1], -1))
        with torch.autocast(q.device.type, enabled=False):
            scores = (
                (q_RKQD.to(wide) @ k_RKTD.to(wide).transpose(-1, -2)).mul_(scale).add_(self._bias_RT[:, None, None])
            )
            return (scores.softmax(-1).to(v_RKTD.dtype) @ v_RKTD).to(q.dtype).flatten(1, 2)[:, :, None]


@cache
def _has_kernel() -> bool:
    """Whether this PyTorch's attention over sequences of several lengths reads pages."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "block_table" in signature(varlen_attn).parameters
