"""Trees laid out in rows of a bounded length, and their log-probabilities put back in order (pure).

Shape suffixes: L tokens of a segment or row, S segments of a row, N predicted tokens of a row, C tokens of the longest
completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from spacer.tree.forest import Completion, Forest, Segment


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
    def segment_L(self) -> Tensor:
        """The span that each token belongs to."""
        lengths = torch.tensor([span.stop - span.start for span in self.spans])
        return torch.arange(len(self.spans)).repeat_interleave(lengths)

    @cached_property
    def below_L(self) -> Tensor:
        """Where the last descendant of each token's span ends: no later token sees it."""
        lengths = torch.tensor([span.stop - span.start for span in self.spans])
        return torch.tensor([span.below for span in self.spans]).repeat_interleave(lengths)

    def alone(self) -> tuple[PackedRow, Tensor]:
        """The row with its vision features numbered among themselves, and which of the batch's they are."""
        seen_L = self.vision_L >= 0
        return replace(self, vision_L=torch.where(seen_L, seen_L.cumsum(0) - 1, -1)), self.vision_L[seen_L]

    def mask(self) -> Tensor:
        """Bool (L, L): which token (row) sees which (column)."""
        order = torch.arange(len(self))
        return sees(self.below_L, order[:, None], order[None])

    def unpack(self, values_N: Tensor) -> Tensor:
        """Values of the predicted tokens as (row's completions, C), zero after a completion's end. Differentiable."""
        longest = int(self.token_N.max()) + 1 if len(self.token_N) else 0
        table = values_N.new_zeros(len(self.completions), longest)
        places = (self.owner_N.to(values_N.device), self.token_N.to(values_N.device))
        return table.index_put(places, values_N)


def sees(below_L: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Whether the token at `query` sees the one at `key`, its own or an ancestor's: descendants follow without a gap,
    so that those who see a token stand between it and the end of the last of them."""
    return (query >= key) & (query < below_L[key])


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
            predictor = torch.arange(span.start - 1, span.stop)
            predictor[0] = spans[span.parent].stop - 1
            predictors.append(predictor)
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
