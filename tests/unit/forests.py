"""Random forests and completions, and what they hold in lists of plain Python."""

from __future__ import annotations

import torch
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from spacer.tree.forest import Completion, Forest, Segment, share
from spacer.tree.packing import PackedRow

Token = tuple[int, int, tuple[int, ...]]  # its id, its row of vision features, its positions

patient = hypothesis_settings(deadline=None, max_examples=60)  # the machine may be busy
budgets = st.one_of(st.integers(1, 12), st.integers(1, 60))
UNBOUNDED = 10_000


def tokens(piece: Segment | PackedRow) -> list[Token]:
    """The tokens of a segment, a prompt or a row, each with all that is known of it."""
    positions = [tuple(axes) for axes in piece.positions_3L.T.tolist()]
    return list(zip(piece.ids_L.tolist(), piece.vision_L.tolist(), positions, strict=True))


def segment(
    ids: list[int], vision: list[int], positions_3L: Tensor | None = None, parent: int | None = None
) -> Segment:
    """A segment of these ids and rows of vision features, counting up from 0 where no positions are given."""
    counted = torch.arange(len(ids)).expand(3, -1)
    return Segment(torch.tensor(ids), counted if positions_3L is None else positions_3L, torch.tensor(vision), parent)


def whole(prompt: Segment, completion: Completion) -> list[Token]:
    """The unpacked sequence: the prompt, then the completion one further on every axis with each token."""
    sequence = tokens(prompt)
    for token in completion.ids_C.tolist():
        sequence.append((token, -1, tuple(position + 1 for position in sequence[-1][2])))
    return sequence


def seen_by(row: PackedRow, token: int) -> list[int]:
    """The places that the row's mask lets a token see."""
    return row.mask()[token].nonzero()[:, 0].tolist()


def families(prompts: list[Segment]) -> list[list[int]]:
    """Prompts by the first row of vision features that they show; each text is by itself."""
    found: dict[object, list[int]] = {}
    for n, prompt in enumerate(prompts):
        shown = [row for row in prompt.vision_L.tolist() if row >= 0]
        found.setdefault(shown[0] if shown else f"text {n}", []).append(n)
    return list(found.values())


def common(sequences: list[list[Token]]) -> int:
    """How many tokens all begin with, at most one fewer than the shortest has."""
    count = 0
    while count < min(map(len, sequences)) - 1 and len({sequence[count] for sequence in sequences}) == 1:
        count += 1
    return count


@st.composite
def prompts(draw: st.DrawFn) -> Segment:
    """Of few different tokens, so that prompts begin alike by chance: about one of three media, or text alone."""
    text = st.lists(st.integers(0, 1), max_size=2)
    ids = draw(text)
    vision = [-1] * len(ids)
    medium = draw(st.sampled_from([None, 0, 0, 10, 20]))
    if medium is not None:
        for _ in range(draw(st.integers(1, 3))):
            between = draw(st.lists(st.just(0), max_size=1)) if 9 in ids else []
            ids += [*between, 9]
            vision += [*[-1] * len(between), medium]
            medium += draw(st.sampled_from([1, 1, 1, 2]))
    question = draw(st.lists(st.integers(0, 1), min_size=0 if ids else 1, max_size=4))
    ids, vision = ids + question, vision + [-1] * len(question)
    positions = torch.arange(len(ids)).repeat(3, 1)
    axis, place = draw(st.tuples(st.integers(0, 2), st.sampled_from([99, 99, 99, 0, 1, 3])))
    positions[axis, place:] += 4  # one axis runs ahead, as it does after a picture
    return segment(ids, vision, positions)


@st.composite
def deep_forests(draw: st.DrawFn) -> Forest:
    """Segments that branch again and again, with prompts that end at any of them."""
    segments: list[Segment] = []
    for place in range(draw(st.integers(1, 6))):
        ids = draw(st.lists(st.integers(0, 1), min_size=1, max_size=3))
        parent = draw(st.none() | st.integers(0, place - 1)) if place else None
        positions = torch.arange(len(ids)) + draw(st.integers(0, 20)) + torch.tensor([[0], [1], [2]])
        segments.append(segment(ids, [-1] * len(ids), positions, parent))
    ends = draw(st.lists(st.integers(0, len(segments) - 1), min_size=1, max_size=5))
    return Forest(tuple(segments), tuple(ends))


shared_forests = st.lists(prompts(), min_size=1, max_size=5).map(share)


@st.composite
def planted(draw: st.DrawFn, forests: st.SearchStrategy[Forest]) -> tuple[Forest, list[Completion]]:
    """A forest, and completions of its prompts in any order; some prompts may have none."""
    forest = draw(forests)
    ids = st.lists(st.integers(2, 4), min_size=1, max_size=4).map(torch.tensor)
    made = st.builds(Completion, st.integers(0, len(forest.ends) - 1), ids)
    return forest, draw(st.lists(made, max_size=8))


any_planted = planted(shared_forests | deep_forests())


def one_video() -> tuple[list[Segment], list[Completion]]:
    """Two questions about a video of two tokens, and three completions of them."""
    prompts = [segment([9, 9, 1], [0, 1, -1]), segment([9, 9, 2, 3], [0, 1, -1, -1])]
    return prompts, [
        Completion(1, torch.tensor([6, 7])),
        Completion(0, torch.tensor([4, 5])),
        Completion(1, torch.tensor([8])),
    ]


# ---- share
