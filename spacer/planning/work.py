"""What a step computes on: trees of tokens packed in rows, and pictures, as sizes alone.

The trees are laid out by `spacer.tree.pack` itself, so that rows, and who sees whom in them, are those of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from spacer.tree import Completion, Forest, PackedRow, Segment, pack


@dataclass(frozen=True)
class Picture:
    """A video or an image: `frames` pictures (a video's in pairs), `height` and `width` in vision tokens."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Vision tokens."""
        return self.frames * self.height * self.width


@dataclass(frozen=True)
class Row:
    """A packed row: its tokens, those that are predicted, those whose states after the last layer are read, the pairs
    of a token and one that it sees, and of these what the last layer computes on a CPU (`spacer.attention.Blocks`)."""

    tokens: int
    predicted: int
    read: int
    pairs: int
    last_pairs: int


@dataclass(frozen=True)
class Work:
    """A batch of a rank: `pictures`, each asked `questions` questions, but for the last, which is asked `fewer` less,
    each answered by `group` completions.

    A prompt is a picture's tokens and `text` more, which are the question's own where several share the picture.
    Completions are all `length` tokens long. `budget` is `objective.row_tokens`. `trimmed` is whether the last layer
    leaves out what is not read (`spacer.trimming`).
    """

    pictures: tuple[Picture, ...]
    questions: int
    text: int
    group: int
    length: int
    budget: int
    fewer: int = 0
    trimmed: bool = True

    @property
    def prompts(self) -> int:
        """Questions."""
        return len(self.pictures) * self.questions - self.fewer

    @property
    def completions(self) -> int:
        """Completions of all questions."""
        return self.prompts * self.group

    @property
    def vision_tokens(self) -> int:
        """Vision tokens of all pictures."""
        return sum(picture.tokens for picture in self.pictures)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, what they share counted once."""
        return self.vision_tokens + self.prompts * self.text

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """What is trained on: prompts and completions."""
        blank = torch.zeros(self.length, dtype=torch.uint8)
        leaves = [Completion(n // self.group, blank) for n in range(self.completions)]
        return self._measured(pack(self._forest, leaves, self.budget))

    @cached_property
    def prefill(self) -> tuple[Row, ...]:
        """What a rollout begins with: the prompts alone."""
        return self._measured(pack(self._forest, None, self.budget))

    def _measured(self, rows: Sequence[PackedRow]) -> tuple[Row, ...]:
        found = measured(rows)
        return found if self.trimmed else tuple(replace(r, read=r.tokens, last_pairs=r.pairs) for r in found)

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


def measured(rows: Sequence[PackedRow]) -> tuple[Row, ...]:
    """The sizes of packed rows."""
    return tuple(
        Row(len(row), len(row.targets_N), len(row.reads_R), _own(row) + _below(row), _last_own(row) + _below(row))
        for row in rows
    )


def _own(row: PackedRow) -> int:
    """Pairs of each segment causally with itself."""
    lengths = (span.stop - span.start for span in row.spans)
    return sum(own * (own + 1) // 2 for own in lengths)


def _below(row: PackedRow) -> int:
    """Pairs of each segment in full with what is below it."""
    return sum((span.stop - span.start) * (span.below - span.stop) for span in row.spans)


def _last_own(row: PackedRow) -> int:
    """As `_own`, of the tokens that are read."""
    starts = torch.tensor([span.start for span in row.spans])
    return int((row.reads_R - starts[row.segment_L[row.reads_R]] + 1).sum())


def _blank(length: int, parent: int | None) -> Segment:
    ids = torch.zeros(length, dtype=torch.uint8)  # only lengths matter, and small numbers are quicker to lay out
    return Segment(ids, ids.expand(3, -1), ids, parent)
