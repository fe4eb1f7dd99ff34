"""The keys and values of a rollout: a prompt's are kept once, however many completions read them.

Shape suffixes: R rows (completions still being written), K key and value heads, Q query heads per key head, D channels,
T tokens of a segment, n segments of a block, r rows that read one segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spacer.attended import RolloutAttention
from spacer.attention import flash_on_cpu, runs

GROWTH = 128  # tokens by which the rows' own store grows, and then by as many as it holds
_ALIKE = 1.5  # segments up to so much longer than the shortest are stacked, padded to one length

Layer = int
KeysValues = tuple[Tensor, Tensor]  # K x T x D each


@dataclass
class _Block:
    """Segments of similar length, at most one of them in any row's path. Keys and values are n x K x T x D."""

    keys: dict[Layer, Tensor]
    values: dict[Layer, Tensor]
    bias_n11T: Tensor | None  # -inf where a shorter segment is padded
    segments: list[int]
    slots_nr: Tensor  # the rows that read each segment; R stands for none
    rows: Tensor | None  # the rows that read the block, ascending; None where all do
    places: Tensor  # where these are among the n * r


class LeafCache:
    """Attention of each row's newest token to its prompt, whose keys are shared, and to what the row has written.

    All queries that read a segment meet its keys at once; parts of the softmax are joined by their log-sum-exp, in
    float32. Given to a forward pass as `tree`; a forward pass adds a token to every row, and all are read.
    """

    reads_R = None

    def __init__(
        self,
        kept: dict[int, dict[Layer, KeysValues]],
        paths: Sequence[Sequence[int]],
        attended: RolloutAttention | None = None,
        first: int = 0,
    ) -> None:
        """`kept` holds each segment's keys and values by layer, `paths` the segments of each row from the root down.

        What attention comes to is noted in `attended`, if that is given, where the rows are numbered from `first`.
        """
        self._attended = attended
        self._numbers_R = first + torch.arange(len(paths))  # which of the rows at the start each row is
        self._paths = [list(path) for path in paths]
        self._blocks = [self._block(kept, group) for group in _alike(kept, self._paths)]
        self._own: dict[Layer, tuple[Tensor, Tensor]] = {}  # R x K x capacity x D each
        self._written = 0
        self._assign()

    def advance(self) -> None:
        """Begins a token: call it before each forward pass."""
        self._written += 1

    def keep(self, rows: Tensor) -> None:
        """Leaves only these rows, in this order; the others cost nothing any more."""
        self._own = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._own.items()}
        self._paths = [self._paths[i] for i in rows.tolist()]
        self._numbers_R = self._numbers_R[rows.cpu()]
        self._assign()

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Queries R x (K Q) x 1 x D; keys and values of the newest tokens R x K x 1 x D."""
        kv_heads = k.shape[1]
        keys, values = self._store(layer, k, v)
        q_RKQD = q[:, :, 0].unflatten(1, (kv_heads, -1))
        out, lse = attend(q_RKQD, keys, values, None, scale)
        padded = torch.cat([q_RKQD, q_RKQD.new_zeros(1, *q_RKQD.shape[1:])])
        for block in self._blocks:
            n, r = block.slots_nr.shape
            q_nKrQD = padded.index_select(0, block.slots_nr.flatten()).unflatten(0, (n, r)).transpose(1, 2)
            found = attend(q_nKrQD.flatten(2, 3), block.keys[layer], block.values[layer], block.bias_n11T, scale)
            part, part_lse = (
                x.unflatten(2, (r, -1)).transpose(1, 2).flatten(0, 1).index_select(0, block.places) for x in found
            )
            held, held_lse = (out, lse) if block.rows is None else (out[block.rows], lse[block.rows])
            whole_lse = torch.logaddexp(held_lse, part_lse)
            whole = held * (held_lse - whole_lse).exp_() + part * (part_lse - whole_lse).exp_()
            if block.rows is None:
                out, lse = whole, whole_lse
            else:
                out[block.rows], lse[block.rows] = whole, whole_lse
        if self._attended is not None:
            self._attended.note_tokens(layer, self._numbers_R, self._written - 1, out.flatten(1, 2), lse.flatten(1))
        return out.to(q.dtype).flatten(1, 2)[:, :, None]

    def _store(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        room = k.new_empty(k.shape[0], k.shape[1], 0, k.shape[3])
        keys, values = self._own.get(layer, (room, room))
        if keys.shape[2] < self._written:
            room = k.new_empty(*k.shape[:2], max(GROWTH, keys.shape[2]), k.shape[3])
            keys, values = torch.cat([keys, room], 2), torch.cat([values, room], 2)
            self._own[layer] = keys, values
        keys[:, :, self._written - 1], values[:, :, self._written - 1] = k[:, :, 0], v[:, :, 0]
        return keys[:, :, : self._written], values[:, :, : self._written]

    @staticmethod
    def _block(kept: dict[int, dict[Layer, KeysValues]], group: list[int]) -> _Block:
        lengths = [next(iter(kept[segment].values()))[0].shape[1] for segment in group]
        layers = list(kept[group[0]])
        device = kept[group[0]][layers[0]][0].device
        stacked: list[dict[Layer, Tensor]] = [{}, {}]
        for layer in layers:
            for which in (0, 1):
                parts = [kept[segment][layer][which] for segment in group]
                room = parts[0].new_zeros(len(group), parts[0].shape[0], max(lengths), parts[0].shape[2])
                for place, part in enumerate(parts):
                    room[place, :, : lengths[place]] = part
                stacked[which][layer] = room
        bias = None
        if min(lengths) < max(lengths):
            past = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
            bias = torch.zeros(past.shape).masked_fill(past, -torch.inf)[:, None, None].to(device)
        nothing = torch.zeros(0, dtype=torch.long)
        return _Block(stacked[0], stacked[1], bias, list(group), nothing, None, nothing)

    def _assign(self) -> None:
        """Works out which rows read which segments, and lets go of segments that none reads any more."""
        live = {segment for path in self._paths for segment in path}
        self._blocks = [block for block in self._blocks if live.intersection(block.segments)]
        for block in self._blocks:
            left = [place for place, segment in enumerate(block.segments) if segment in live]
            if len(left) <= len(block.segments) // 2:
                block.keys = {layer: x[left] for layer, x in block.keys.items()}
                block.values = {layer: x[left] for layer, x in block.values.items()}
                block.bias_n11T = None if block.bias_n11T is None else block.bias_n11T[left]
                block.segments = [block.segments[place] for place in left]
            readers: list[list[int]] = [[] for _ in block.segments]
            place_of = {segment: place for place, segment in enumerate(block.segments)}
            for row, path in enumerate(self._paths):
                for segment in path:
                    if segment in place_of:
                        readers[place_of[segment]].append(row)
            most = max(map(len, readers))
            device = next(iter(block.keys.values())).device
            slots = [[*rows, *[len(self._paths)] * (most - len(rows))] for rows in readers]
            block.slots_nr = torch.tensor(slots, device=device)
            places = sorted((row, place * most + i) for place, rows in enumerate(readers) for i, row in enumerate(rows))
            block.places = torch.tensor([place for _, place in places], device=device)
            everyone = len(places) == len(self._paths)
            block.rows = None if everyone else torch.tensor([row for row, _ in places], device=device)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """softmax(s) v and logsumexp s over the keys, for s = scale q kᵀ + bias; both in float32 at least.

    ... x queries x D for the first, ... x queries x 1 for the second.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    if q.device.type == "cpu":
        mask = None if bias is None else bias.to(q.dtype)
        out, lse = flash_on_cpu(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        return out.to(wide), lse[..., None].to(wide)
    return attend_by_products(q, k, v, bias, scale)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """What `attend` gives, on any device."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q * scale @ k.transpose(-1, -2)).to(wide)
    if bias is not None:
        scores = scores + bias
    lse = scores.logsumexp(-1, keepdim=True)
    return ((scores - lse).exp_().to(v.dtype) @ v).to(wide), lse


def _alike(kept: dict[int, dict[Layer, KeysValues]], paths: list[list[int]]) -> list[list[int]]:
    """The segments that rows read, grouped by depth in the path and by length, shortest first."""
    depths = {segment: depth for path in paths for depth, segment in enumerate(path)}
    length = {segment: next(iter(kept[segment].values()))[0].shape[1] for segment in depths}
    return runs(
        sorted(depths, key=lambda s: (depths[s], length[s])),
        lambda first, s: depths[first] == depths[s] and length[s] <= _ALIKE * length[first],
    )
