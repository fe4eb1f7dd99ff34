"""The sizes of what a step computes on: token trees packed into rows, and pictures.

The trees are packed by `spacer.tree.packing.pack` itself, so that rows and attention masks are those of a real
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from spacer.tree.forest import Completion, Forest, Segment
from spacer.tree.packing import PackedRow, pack


@dataclass(frozen=True)
class Picture:
    """A video or an image: `frames` pictures (in pairs for a video), `height` and `width` in vision tokens."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """The number of vision tokens."""
        return self.frames * self.height * self.width


@dataclass(frozen=True)
class RowSize:
    """A packed row: its tokens, those that are predicted, and the attention pairs."""

    tokens: int
    predicted: int
    pairs: int


@dataclass(frozen=True)
class Work:
    """A rank's batch: `pictures`, each with `questions` questions, except for the last, which has `fewer` less,
    and `group` completions per question.

    A prompt is a picture's tokens and `text` more, which are the question's own if several share the picture.
    Completions are all `length` tokens long. `budget` is `objective.row_tokens`.
    """

    pictures: tuple[Picture, ...]
    questions: int
    text: int
    group: int
    length: int
    budget: int
    fewer: int = 0

    @property
    def prompts(self) -> int:
        """The number of questions."""
        return len(self.pictures) * self.questions - self.fewer

    @property
    def completions(self) -> int:
        """The number of completions of all questions."""
        return self.prompts * self.group

    @property
    def vision_tokens(self) -> int:
        """The number of vision tokens of all pictures."""
        return sum(picture.tokens for picture in self.pictures)

    @property
    def prompt_tokens(self) -> int:
        """The number of prompt tokens, counting shared ones once."""
        return self.vision_tokens + self.prompts * self.text

    @cached_property
    def rows(self) -> tuple[RowSize, ...]:
        """The packed rows of training: prompts and completions."""
        blank = torch.zeros(self.length, dtype=torch.uint8)
        leaves = [Completion(n // self.group, blank) for n in range(self.completions)]
        return measured(pack(self._forest, leaves, self.budget))

    @cached_property
    def prefill(self) -> tuple[RowSize, ...]:
        """The packed rows of prefill: the prompts alone."""
        return measured(pack(self._forest, None, self.budget))

    @cached_property
    def _forest(self) -> Forest:
        segments: list[Segment] = []
        ends: list[int] = []
        for place, picture in enumerate(self.pictures, 1):
            if self.questions == 1:
                ends.append(len(segments))
                segments.append(_blank(picture.tokens + self.text, None))
                continue
            root = len(segments)
            segments.append(_blank(picture.tokens, None))
            for _ in range(self.questions - (self.fewer if place == len(self.pictures) else 0)):
                ends.append(len(segments))
                segments.append(_blank(self.text, root))
        return Forest(tuple(segments), tuple(ends))


def measured(rows: Sequence[PackedRow]) -> tuple[RowSize, ...]:
    """The sizes of packed rows."""
    return tuple(RowSize(len(row), len(row.targets_N), _own(row) + _below(row)) for row in rows)


def _own(row: PackedRow) -> int:
    """Causal attention pairs within each segment."""
    lengths = (span.stop - span.start for span in row.spans)
    return sum(own * (own + 1) // 2 for own in lengths)


def _below(row: PackedRow) -> int:
    """Attention pairs between each segment and its descendants."""
    return sum((span.stop - span.start) * (span.below - span.stop) for span in row.spans)


def _blank(length: int, parent: int | None) -> Segment:
    ids = torch.zeros(length, dtype=torch.uint8)  # only lengths matter, and small integers are faster to lay out
    return Segment(ids, ids.expand(3, -1), ids, parent)
