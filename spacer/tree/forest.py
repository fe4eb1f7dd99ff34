"""What prompts share, as a forest of segments: tokens, and the segment that they follow (pure).

Shape suffixes: L tokens of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
