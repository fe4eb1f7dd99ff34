"""Attention segment by segment, with a CPU's kernel for plain sequences and no mask.

No pair of tokens is computed that the mask would throw away: each segment attends to itself, causally, and to each of
its ancestors, in full; the parts are joined by their log-sum-exp.

Shape suffixes: as in `spacer.attention`; T tokens of a part, S stacked segments, N tokens of a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spacer.attention.interface import per_query_head
from spacer.tree.packing import PackedRow, Span

Item = TypeVar("Item")


class BlockAttention:
    """Segment by segment with the CPU's flash kernel. See `_Blocks`."""

    def __init__(self, row: PackedRow) -> None:
        self._blocks = Blocks(row.spans)

    def __call__(self, layer: int, q_1HLD: Tensor, k_1KLD: Tensor, v_1KLD: Tensor, scale: float) -> Tensor:
        q, *grouped = (x.squeeze(0).transpose(0, 1) for x in (q_1HLD, k_1KLD, v_1KLD))
        k, v = per_query_head(q, *grouped)
        out_LHD: Tensor = _Blocks.apply(q, k, v, self._blocks, scale)
        return out_LHD.transpose(0, 1)[None]


class Blocks:
    """Which queries of a row meet which keys, block by block.

    Long segments are computed by themselves, short ones of similar length are stacked, and then come `across` pairs of
    a block of queries and one of keys that they all see.

    Longer ones are cut: of what a causal block throws away, the kernel computes a good part all the same.
    """

    ALONE = 256  # tokens of a long segment, and of the parts that longer ones are cut into

    def __init__(self, spans: Sequence[Span]) -> None:
        whole, self.across = [], []
        for span in spans:
            starts = range(span.start, span.stop, self.ALONE)
            parts = [(start, min(start + self.ALONE, span.stop)) for start in starts]
            whole += parts
            self.across += [(slice(*ends), slice(span.start, ends[0])) for ends in parts[1:]]
        held = sorted(whole, key=_length)
        self.alone = [slice(*ends) for ends in held if _length(ends) >= self.ALONE]
        short = [ends for ends in held if _length(ends) < self.ALONE]
        alike = runs(short, lambda first, ends: _length(ends) <= 1.25 * _length(first) + 4)  # little is padded
        self.stacks = [_Stack(group) for group in alike]
        # the queries below each segment that has descendants, and its keys, from the roots down
        self.across += [
            (slice(span.stop, span.below), slice(span.start, span.stop))
            for span in spans
            if span.below > span.stop > span.start
        ]


class _Stack:
    """Short segments padded to one length T, one above the other.

    Past its end a segment repeats its last token: causal attention never looks there, and what the kernel makes of it
    is left behind.
    """

    def __init__(self, ends: list[tuple[int, int]]) -> None:
        self._shape = len(ends), max(map(_length, ends))
        padded = [[min(start + t, stop - 1) for t in range(self._shape[1])] for start, stop in ends]
        self._padded = torch.tensor(padded).flatten()
        self.tokens_N = torch.tensor([t for start, stop in ends for t in range(start, stop)])  # their places in the row
        kept = [[t < stop - start for t in range(self._shape[1])] for start, stop in ends]
        self._kept = torch.tensor(kept).flatten().nonzero()[:, 0]

    def take(self, x_LHD: Tensor) -> Tensor:
        """The segments out of the row: S x H x T x D."""
        return x_LHD.index_select(0, self._padded).unflatten(0, self._shape).transpose(1, 2)

    def take_gradient(self, x_LHD: Tensor) -> Tensor:
        """As `take`, with zero where there is padding."""
        room = x_LHD.new_zeros(len(self._padded), *x_LHD.shape[1:]).index_copy_(
            0, self._kept, x_LHD.index_select(0, self.tokens_N)
        )
        return room.unflatten(0, self._shape).transpose(1, 2)

    def untake(self, x_SHTD: Tensor) -> Tensor:
        """Back to one token after the other, padding left out: N x H x D, in the order of `tokens_N`."""
        return x_SHTD.transpose(1, 2).flatten(0, 1).index_select(0, self._kept)


def _length(ends: tuple[int, int]) -> int:
    return ends[1] - ends[0]


def runs(items: Iterable[Item], alike: Callable[[Item, Item], bool]) -> list[list[Item]]:
    """Neighbours in groups, each as long as an item is like the first of its group.

    >>> runs([1, 2, 5, 6], lambda first, item: item - first < 2)
    [[1, 2], [5, 6]]
    """
    groups: list[list[Item]] = []
    for item in items:
        if groups and alike(groups[-1][0], item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


# private: what F.scaled_dot_product_attention calls on a CPU. The public function keeps the log-sum-exp to itself, and
# without it parts of a softmax cannot be joined; no public kernel on CPU gives it and can be differentiated.
flash_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Blocks(torch.autograd.Function):
    """softmax(q kᵀ) v over the tree's pairs, as a sum of blocks.

    Forward: block b gives output o_b and log-sum-exp l_b; with l = logsumexp_b l_b the whole is Σ_b exp(l_b - l) o_b.
    Backward: a block's probabilities are exp(s - l), so that the kernel's own backward pass, given the *whole* output
    and log-sum-exp in place of the block's, yields that block's share of the gradients.
    """

    @staticmethod
    def forward(ctx: Any, q_LHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, blocks: Blocks, scale: float) -> Tensor:
        wide_LHD, lse_LH = _attend_blocks(q_LHD, k_LHD, v_LHD, blocks, scale)
        out_LHD = wide_LHD.to(q_LHD.dtype)
        ctx.save_for_backward(q_LHD, k_LHD, v_LHD, out_LHD, lse_LH)
        ctx.blocks, ctx.scale = blocks, scale
        return out_LHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LHD: Tensor) -> tuple[Tensor | None, ...]:
        q_LHD, k_LHD, v_LHD, out_LHD, lse_LH = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        wide = torch.promote_types(q_LHD.dtype, torch.float32)
        grads = [torch.empty_like(x, dtype=wide) for x in (q_LHD, k_LHD, v_LHD)]

        def backward(queries: slice, keys: slice, causal: bool) -> list[Tensor]:
            found = _flash_backward(
                _heads_first(grad_LHD[queries]),
                _heads_first(q_LHD[queries]),
                _heads_first(k_LHD[keys]),
                _heads_first(v_LHD[keys]),
                _heads_first(out_LHD[queries]),
                lse_LH[queries].T[None],
                0.0,
                causal,
                scale=ctx.scale,
            )
            return [part[0].transpose(0, 1) for part in found]

        for own in blocks.alone:
            for grad, part in zip(grads, backward(own, own, True), strict=True):
                grad[own] = part
        for stack in blocks.stacks:
            taken = [stack.take(x) for x in (q_LHD, k_LHD, v_LHD, out_LHD, lse_LH)]
            found = _flash_backward(stack.take_gradient(grad_LHD), *taken, 0.0, True, scale=ctx.scale)
            for grad, part in zip(grads, found, strict=True):
                grad.index_copy_(0, stack.tokens_N, stack.untake(part).to(wide))
        for below, segment in blocks.across:
            parts = zip(grads, backward(below, segment, False), (below, segment, segment), strict=True)
            for grad, part, where in parts:
                grad[where] += part
        return (*(grad.to(q_LHD.dtype) for grad in grads), None, None)


def _attend_blocks(q_LHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, blocks: Blocks, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs LHD and the log-sum-exps LH of their scores, in float32 where inputs are bfloat16, since parts are added
    up here."""
    out_LHD = q_LHD.new_empty(q_LHD.shape, dtype=torch.promote_types(q_LHD.dtype, torch.float32))
    lse_LH = out_LHD.new_empty(out_LHD.shape[:2])
    for own in blocks.alone:
        part, lse = flash_on_cpu(*(_heads_first(x[own]) for x in (q_LHD, k_LHD, v_LHD)), 0.0, True, scale=scale)
        out_LHD[own], lse_LH[own] = part[0].transpose(0, 1), lse[0].T
    for stack in blocks.stacks:
        part, lse = flash_on_cpu(*(stack.take(x) for x in (q_LHD, k_LHD, v_LHD)), 0.0, True, scale=scale)
        out_LHD.index_copy_(0, stack.tokens_N, stack.untake(part).to(out_LHD.dtype))
        lse_LH.index_copy_(0, stack.tokens_N, stack.untake(lse).to(lse_LH.dtype))
    for below, segment in blocks.across:
        blocked = (_heads_first(q_LHD[below]), _heads_first(k_LHD[segment]), _heads_first(v_LHD[segment]))
        part, lse = flash_on_cpu(*blocked, 0.0, False, scale=scale)
        before, lse = lse_LH[below], lse[0].T
        joined = torch.logaddexp(before, lse)
        out_LHD[below].mul_((before - joined).exp_()[..., None])
        out_LHD[below].addcmul_(part[0].transpose(0, 1).to(out_LHD.dtype), (lse - joined).exp_()[..., None])
        lse_LH[below] = joined
    return out_LHD, lse_LH


def _heads_first(x_LHD: Tensor) -> Tensor:
    return x_LHD.transpose(0, 1)[None]
