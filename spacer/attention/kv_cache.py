"""The KV cache of a rollout: a prompt's keys and values are stored once, however many completions read them.

Shape suffixes: R rows (unfinished completions), K key and value heads, Q query heads per key head, D channels,
T tokens of a segment, n segments of a block, r rows that read one segment.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spacer.attention.blocks import flash_on_cpu, runs
from spacer.tree.forest import Forest

GROWTH = 128  # tokens of the rows' own buffer at first; it doubles when it is full
_ALIKE = 1.5  # segments up to this many times as long as the shortest are stacked, padded to one length

Layer = int


@dataclass(frozen=True)
class Padding:
    """The lengths of a block's segments, and the same as a bias added to scores: -inf past a segment's end."""

    lengths_n: Tensor  # int32
    bias_n11T: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Padding | None:
        """None if all lengths are equal."""
        if min(lengths) == max(lengths):
            return None
        lengths_n = torch.tensor(lengths, dtype=torch.int32)
        past = torch.arange(max(lengths)) >= lengths_n[:, None]
        bias = torch.zeros(past.shape).masked_fill(past, -torch.inf)[:, None, None]
        return cls(lengths_n.to(device), bias.to(device))

    def only(self, places: list[int]) -> Padding:
        """The padding of some of the segments."""
        return Padding(self.lengths_n[places], self.bias_n11T[places])


@dataclass
class _Block:
    """Segments of similar length, at most one of them in any row's path. Keys and values are n x K x T x D."""

    segments: list[int]
    length: int  # T
    keys: dict[Layer, Tensor]
    values: dict[Layer, Tensor]
    padding: Padding | None  # where shorter segments are padded
    slots_nr: Tensor  # the rows that read each segment; R is an empty slot
    rows: Tensor | None  # the rows that read the block, ascending; None for all
    places: Tensor  # the indices of these among the n * r slots

    def shrink(self, left: list[int]) -> None:
        """Keeps only these segments."""
        self.keys = {layer: x[left] for layer, x in self.keys.items()}
        self.values = {layer: x[left] for layer, x in self.values.items()}
        self.padding = None if self.padding is None else self.padding.only(left)
        self.segments = [self.segments[place] for place in left]


class LeafCache:
    """Attention of each row's newest token to its prompt, whose keys are shared, and to the row's own tokens.

    All queries that read a segment are computed together; parts of the softmax are joined by their log-sum-exps, in
    float32. A forward pass takes it as `tree` and adds a token to every row.
    """

    def __init__(
        self,
        forest: Forest,
        paths: Sequence[Sequence[int]],
        device: torch.device,
        kernel: str = "torch",
    ) -> None:
        """`paths` are the segments of the forest that each row reads, from the root down: to be filled, before tokens
        are written, with their keys and values, which are on `device`. `kernel` is torch or, of 16 bits on CUDA,
        flash_attn.
        """
        self._device = device
        self._attend = {"torch": attend, "flash_attn": attend_by_flash}[kernel]
        self._making_room = threading.Lock()  # several threads compute prompts
        self._paths = [list(path) for path in paths]
        lengths = [len(segment.ids_L) for segment in forest.segments]
        self._blocks = [self._block(lengths, group) for group in _alike(lengths, self._paths)]
        self._own: dict[Layer, tuple[Tensor, Tensor]] = {}  # R x K x capacity x D each
        self._written = 0
        self._assign()

    def fill(self, segment: int, layer: Layer, k_KTD: Tensor, v_KTD: Tensor) -> None:
        """Stores a segment's keys and values, unless no row reads it."""
        block = next((block for block in self._blocks if segment in block.segments), None)
        if block is None:
            return
        place, length = block.segments.index(segment), k_KTD.shape[1]
        for layers, part in ((block.keys, k_KTD), (block.values, v_KTD)):
            with self._making_room:
                if layer not in layers:
                    layers[layer] = part.new_zeros(len(block.segments), part.shape[0], block.length, part.shape[2])
            layers[layer][place, :, :length] = part

    def advance(self) -> None:
        """Starts a new token; call it before each forward pass."""
        self._written += 1

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows, in this order, and frees the others."""
        self._own = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._own.items()}
        self._paths = [self._paths[i] for i in rows.tolist()]
        self._assign()

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Queries R x (K Q) x 1 x D; keys and values of the newest tokens R x K x 1 x D."""
        kv_heads = k.shape[1]
        keys, values = self._store(layer, k, v)
        q_RKQD = q[:, :, 0].unflatten(1, (kv_heads, -1))
        out, lse = self._attend(q_RKQD, keys, values, None, scale)
        padded = torch.cat([q_RKQD, q_RKQD.new_zeros(1, *q_RKQD.shape[1:])])
        for block in self._blocks:
            n, r = block.slots_nr.shape
            q_nKrQD = padded.index_select(0, block.slots_nr.flatten()).unflatten(0, (n, r)).transpose(1, 2)
            found = self._attend(q_nKrQD.flatten(2, 3), block.keys[layer], block.values[layer], block.padding, scale)
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

    def _block(self, length_of: Sequence[int], segments: list[int]) -> _Block:
        lengths = [length_of[segment] for segment in segments]
        nothing = torch.zeros(0, dtype=torch.long)
        return _Block(segments, max(lengths), {}, {}, Padding.of(lengths, self._device), nothing, None, nothing)

    def _assign(self) -> None:
        """Assigns rows to the segments that they read, and drops segments without readers."""
        live = {segment for path in self._paths for segment in path}
        self._blocks = [block for block in self._blocks if live.intersection(block.segments)]
        for block in self._blocks:
            left = [place for place, segment in enumerate(block.segments) if segment in live]
            if len(left) <= len(block.segments) // 2:
                block.shrink(left)
            self._assign_rows(block)

    def _assign_rows(self, block: _Block) -> None:
        place_of = {segment: place for place, segment in enumerate(block.segments)}
        readers: list[list[int]] = [[] for _ in block.segments]
        for row, path in enumerate(self._paths):
            for segment in path:
                if segment in place_of:
                    readers[place_of[segment]].append(row)
        most, nobody = max(map(len, readers)), len(self._paths)
        slots = [rows + [nobody] * (most - len(rows)) for rows in readers]
        # a row reads at most one of the segments, so that ascending rows give each slot once
        slot_of = {row: place * most + i for place, rows in enumerate(readers) for i, row in enumerate(rows)}
        rows = sorted(slot_of)
        block.slots_nr = torch.tensor(slots, device=self._device)
        block.places = torch.tensor([slot_of[row] for row in rows], device=self._device)
        block.rows = None if len(rows) == len(self._paths) else torch.tensor(rows, device=self._device)


def attend(q: Tensor, k: Tensor, v: Tensor, padding: Padding | None, scale: float) -> tuple[Tensor, Tensor]:
    """softmax(s) v and logsumexp s over the keys, for s = scale q kᵀ where they are not padded; both in float32 at
    least.

    n x K x queries x D for the first, n x K x queries x 1 for the second.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    if q.device.type == "cpu":
        mask = None if padding is None else padding.bias_n11T.to(q.dtype)
        out, lse = flash_on_cpu(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        return out.to(wide), lse[..., None].to(wide)
    return attend_by_products(q, k, v, padding, scale)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, padding: Padding | None, scale: float) -> tuple[Tensor, Tensor]:
    """What `attend` gives, on any device."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = _scores(q, k, scale)
    if padding is not None:
        scores = scores + padding.bias_n11T
    lse = scores.logsumexp(-1, keepdim=True)
    return ((scores - lse).exp_().to(v.dtype) @ v).to(wide), lse


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """scale q kᵀ in float32 at least. Keys share a bias in Qwen2.5, so that scores are large and close to each other:
    in 16 bits they would be rounded by more than they differ."""
    if q.dtype.itemsize >= 4:
        return q * scale @ k.transpose(-1, -2)
    if q.device.type == "cuda":
        product = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), out_dtype=torch.float32)
        return product.unflatten(0, q.shape[:2]) * scale
    with torch.autocast(q.device.type, enabled=False):
        return q.float() @ k.float().transpose(-1, -2) * scale


def attend_by_flash(q: Tensor, k: Tensor, v: Tensor, padding: Padding | None, scale: float) -> tuple[Tensor, Tensor]:
    """What `attend` gives, by flash-attn's kernel for decoding, which splits the keys where queries are few."""
    from flash_attn import flash_attn_with_kvcache

    out, lse = flash_attn_with_kvcache(
        *(x.transpose(1, 2) for x in (q, k, v)),
        cache_seqlens=None if padding is None else padding.lengths_n,
        softmax_scale=scale,
        return_softmax_lse=True,
    )
    return out.transpose(1, 2).float(), lse[..., None]


def _alike(lengths: Sequence[int], paths: list[list[int]]) -> list[list[int]]:
    """The segments that rows read, grouped by depth in the path and by length, shortest first."""
    depths = {segment: depth for path in paths for depth, segment in enumerate(path)}
    return runs(
        sorted(depths, key=lambda s: (depths[s], lengths[s])),
        lambda first, s: depths[first] == depths[s] and lengths[s] <= _ALIKE * lengths[first],
    )
