"""The prefix tree: what prompts share is computed once, and so is what a prompt's completions share.

    video ──┬── question 1 ──┬── completion 1        a Segment: tokens and the segment that they follow
            │                ├── …                   a token sees its ancestors and itself, nothing else
            │                └── completion G        its position goes on from its parent's last, on all three axes
            └── question 2 ──┬── …

`share` finds what prompts have in common, `pack` lays trees and completions out in rows of a bounded length, and
`PackedRow.unpack` puts the log-probabilities of a row's completion tokens back in order. All of it is exact: a token's
ancestors are the tokens before it in the unpacked sequence, at the same positions.

Shape suffixes: L tokens of a segment or row, S segments of a row, N predicted tokens of a row, C tokens of the longest
completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """A run of tokens. `parent` is the place of the segment that it follows, which comes earlier; None at a root.

    `vision_L` names the row of the batch's vision features that stands at a token, -1 where the token is text.
    `positions_3L` counts from the start of the whole sequence.
    """

    ids_L: Tensor
    positions_3L: Tensor
    vision_L: Tensor
    parent: int | None = None

    def __len__(self) -> int:
        return len(self.ids_L)

    def __reduce__(self) -> tuple[Any, ...]:
        # by value: a tensor sent from a data worker holds a file descriptor, and a batch has hundreds of these
        arrays = (x.numpy() for x in (self.ids_L, self.positions_3L, self.vision_L))
        return _from_arrays, (*arrays, self.parent)

    def part(self, start: int, stop: int | None, parent: int | None) -> Segment:
        """The tokens from `start` to `stop`, after `parent`."""
        cut = slice(start, stop)
        return Segment(self.ids_L[cut], self.positions_3L[:, cut], self.vision_L[cut], parent)


def _from_arrays(ids_L: np.ndarray, positions_3L: np.ndarray, vision_L: np.ndarray, parent: int | None) -> Segment:
    return Segment(torch.from_numpy(ids_L), torch.from_numpy(positions_3L), torch.from_numpy(vision_L), parent)


@dataclass(frozen=True)
class Forest:
    """Segments, parents first, and for each prompt the segment that it ends with."""

    segments: tuple[Segment, ...]
    ends: tuple[int, ...]

    def path(self, segment: int) -> list[int]:
        """From the root down to `segment`."""
        found = [segment]
        while (parent := self.segments[found[-1]].parent) is not None:
            found.append(parent)
        return found[::-1]

    def only(self, prompts: Sequence[int]) -> Forest:
        """The forest of some of the prompts, in the given order."""
        kept = sorted({segment for n in prompts for segment in self.path(self.ends[n])})
        place = {segment: number for number, segment in enumerate(kept)}
        segments = (self.segments[segment] for segment in kept)
        moved = (replace(s, parent=None if s.parent is None else place[s.parent]) for s in segments)
        return Forest(tuple(moved), tuple(place[self.ends[n]] for n in prompts))

    def prompt(self, n: int) -> Segment:
        """Prompt `n` in one piece."""
        parts = [self.segments[i] for i in self.path(self.ends[n])]
        return Segment(
            torch.cat([part.ids_L for part in parts]),
            torch.cat([part.positions_3L for part in parts], 1),
            torch.cat([part.vision_L for part in parts]),
        )


@dataclass(frozen=True)
class Completion:
    """Tokens that follow prompt `prompt` of a forest, to be predicted."""

    prompt: int
    ids_C: Tensor


def share(prompts: Sequence[Segment]) -> Forest:
    """A forest in which prompts about the same pictures or video share what they begin with.

    Such prompts become one root, up to where the first of them differs, and a segment each for the rest, so that no
    prompt ends before its own last token. Prompts of text alone share nothing.
    """
    families: dict[int, list[int]] = {}
    for n, prompt in enumerate(prompts):
        seen = prompt.vision_L[prompt.vision_L >= 0]
        families.setdefault(int(seen[0]) if len(seen) else -1 - n, []).append(n)
    segments: list[Segment] = []
    ends = [0] * len(prompts)
    for family in families.values():
        if len(family) == 1:
            ends[family[0]] = len(segments)
            segments.append(prompts[family[0]])
            continue
        common = _common([prompts[n] for n in family])
        root = len(segments) if common else None
        if common:
            segments.append(prompts[family[0]].part(0, common, None))
        for n in family:
            ends[n] = len(segments)
            segments.append(prompts[n].part(common, None, root))
    return Forest(tuple(segments), tuple(ends))


def _common(prompts: Sequence[Segment]) -> int:
    """How many tokens all begin with, short of the last token of the shortest."""
    first, longest = prompts[0], min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        same_L = (
            (first.ids_L[:longest] == prompt.ids_L[:longest])
            & (first.vision_L[:longest] == prompt.vision_L[:longest])
            & (first.positions_3L[:, :longest] == prompt.positions_3L[:, :longest]).all(0)
        )
        longest = int(same_L.int().cumprod(0).sum())
    return longest


@dataclass(frozen=True)
class Span:
    """Where a segment lies in a row: [start, stop); `below` is where its last descendant ends."""

    start: int
    stop: int
    below: int
    parent: int | None


@dataclass(frozen=True)
class PackedRow:
    """Trees laid out in depth-first order, so that a segment's descendants follow it without a gap.

    `segments` are places in the forest for `spans` that hold prompts; `completions` are places in the list that was
    packed. The n-th predicted token is `targets_N[n]`, predicted by the token at `predictors_N[n]`; it is token
    `token_N[n]` of the row's completion number `owner_N[n]`.
    """

    ids_L: Tensor
    positions_3L: Tensor
    vision_L: Tensor
    spans: tuple[Span, ...]
    segments: tuple[int, ...]
    completions: tuple[int, ...]
    targets_N: Tensor
    predictors_N: Tensor
    owner_N: Tensor
    token_N: Tensor

    def __len__(self) -> int:
        return len(self.ids_L)

    @cached_property
    def reads_R(self) -> Tensor:
        """The tokens whose final states are looked at: where one is predicted; of prompts alone each segment's last."""
        if self.completions:
            return self.predictors_N.unique()
        return torch.tensor([span.stop - 1 for span in self.spans])

    @cached_property
    def segment_L(self) -> Tensor:
        """The span that each token belongs to."""
        lengths = torch.tensor([span.stop - span.start for span in self.spans])
        return torch.arange(len(self.spans)).repeat_interleave(lengths)

    @cached_property
    def ancestors_SS(self) -> Tensor:
        """Bool: whether the column's span is the row's own or one of its ancestors."""
        related = torch.eye(len(self.spans), dtype=torch.bool)
        for place, span in enumerate(self.spans):
            if span.parent is not None:
                related[place] |= related[span.parent]
        return related

    def alone(self) -> tuple[PackedRow, Tensor]:
        """The row with its vision features numbered among themselves, and which of the batch's they are."""
        seen_L = self.vision_L >= 0
        return replace(self, vision_L=torch.where(seen_L, seen_L.cumsum(0) - 1, -1)), self.vision_L[seen_L]

    def mask(self) -> Tensor:
        """Bool (L, L): which token (row) sees which (column)."""
        order = torch.arange(len(self))
        return sees(self.ancestors_SS, self.segment_L, order[:, None], order[None])

    def unpack(self, values_N: Tensor) -> Tensor:
        """Values of the predicted tokens as (row's completions, C), zero after a completion's end. Differentiable."""
        longest = int(self.token_N.max()) + 1 if len(self.token_N) else 0
        table = values_N.new_zeros(len(self.completions), longest)
        places = (self.owner_N.to(values_N.device), self.token_N.to(values_N.device))
        return table.index_put(places, values_N)


def sees(ancestors_SS: Tensor, segment_L: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Whether the token at `query` sees the one at `key`: the definition of attention over a packed row."""
    return ancestors_SS[segment_L[query], segment_L[key]] & (query >= key)


def pack(forest: Forest, completions: Sequence[Completion] | None, budget: int) -> list[PackedRow]:
    """Lays out `completions` with what comes before them in rows of at most `budget` tokens, in the order of the trees.

    With None, the prompts alone. A tree that does not fit into one row is cut between its branches, and what they share
    stands in each of the rows: the gradients of the rows add up to that of the uncut tree. A single completion with its
    prompt that exceeds the budget has a row to itself. The last token of a completion predicts nothing and is left out.

    Raises:
        ValueError: the budget is not positive, or a completion is empty.
    """
    if budget < 1:
        raise ValueError(f"a row needs a budget of at least one token, got {budget}")
    if empty := [n for n, completion in enumerate(completions or ()) if len(completion.ids_C) == 0]:
        raise ValueError(f"completions without a token have nothing to predict: numbers {empty}")
    return _Packer(forest, completions, budget).rows()


class _Packer:
    """Decides which nodes share a row. A node is a segment (its place) or a completion (~ its place)."""

    def __init__(self, forest: Forest, completions: Sequence[Completion] | None, budget: int) -> None:
        self._forest = forest
        self._completions = completions or ()
        self._budget = budget
        self._children: dict[int | None, list[int]] = {}
        wanted = set(range(len(forest.segments)))
        if completions is not None:
            wanted = {i for c in completions for i in forest.path(forest.ends[c.prompt])}
        for place, segment in enumerate(forest.segments):
            if place in wanted:
                self._children.setdefault(segment.parent, []).append(place)
        for place, completion in enumerate(self._completions):
            self._children.setdefault(forest.ends[completion.prompt], []).append(~place)
        self._row: list[int] = []
        self._used = 0
        self._done: list[list[int]] = []

    def rows(self) -> list[PackedRow]:
        for root in self._children.get(None, []):
            self._place(root, [])
        self._close()
        return [self._lay_out(nodes) for nodes in self._done]

    def _place(self, node: int, above: list[int]) -> None:
        missing = [ancestor for ancestor in above if ancestor not in self._row]
        tree = self._below(node)
        need = sum(map(self._length, [*missing, *tree]))
        alone = sum(map(self._length, [*above, *tree]))
        if self._used + need > self._budget:
            if alone > self._budget and node in self._children:
                for child in self._children[node]:
                    self._place(child, [*above, node])
                return
            if self._row:
                self._close()
                missing, need = above, alone
        self._row += [*missing, *tree]
        self._used += need

    def _close(self) -> None:
        if self._row:
            self._done.append(self._row)
        self._row, self._used = [], 0

    def _below(self, node: int) -> list[int]:
        return (
            [node, *(n for child in self._children.get(node, ()) for n in self._below(child))] if node >= 0 else [node]
        )

    def _length(self, node: int) -> int:
        return len(self._forest.segments[node]) if node >= 0 else len(self._completions[~node].ids_C) - 1

    def _lay_out(self, nodes: list[int]) -> PackedRow:
        place = {node: i for i, node in enumerate(nodes)}
        starts = [0]
        for node in nodes:
            starts.append(starts[-1] + self._length(node))
        parents = [self._parent(node) for node in nodes]
        below = starts[1:]
        for i in range(len(nodes) - 1, -1, -1):
            if (parent := parents[i]) is not None:
                below[place[parent]] = max(below[place[parent]], below[i])
        spans = tuple(
            Span(starts[i], starts[i + 1], below[i], None if parent is None else place[parent])
            for i, parent in enumerate(parents)
        )
        pieces = [self._piece(node) for node in nodes]
        held = [node for node in nodes if node < 0]
        predictors, owners, tokens = [], [], []
        for owner, node in enumerate(held):
            span, count = spans[place[node]], len(self._completions[~node].ids_C)
            assert span.parent is not None
            predictors.append(torch.tensor([spans[span.parent].stop - 1, *range(span.start, span.stop)]))
            owners.append(torch.full((count,), owner))
            tokens.append(torch.arange(count))
        none = [torch.zeros(0, dtype=torch.long)]
        return PackedRow(
            ids_L=torch.cat([piece.ids_L for piece in pieces]),
            positions_3L=torch.cat([piece.positions_3L for piece in pieces], 1),
            vision_L=torch.cat([piece.vision_L for piece in pieces]),
            spans=spans,
            segments=tuple(node for node in nodes if node >= 0),
            completions=tuple(~node for node in held),
            targets_N=torch.cat([self._completions[~node].ids_C for node in held] or none),
            predictors_N=torch.cat(predictors or none),
            owner_N=torch.cat(owners or none),
            token_N=torch.cat(tokens or none),
        )

    def _parent(self, node: int) -> int | None:
        if node >= 0:
            return self._forest.segments[node].parent
        return self._forest.ends[self._completions[~node].prompt]

    def _piece(self, node: int) -> Segment:
        if node >= 0:
            return self._forest.segments[node]
        completion = self._completions[~node]
        ids = completion.ids_C[:-1]
        last = self._forest.segments[self._forest.ends[completion.prompt]].positions_3L[:, -1:]
        steps = torch.arange(1, len(ids) + 1)
        return Segment(ids, last + steps, torch.full_like(ids, -1))
