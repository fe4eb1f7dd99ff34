"""What a GRPO step learns from: scored completions, whole rollouts and parts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from spacer.rewards import RewardParts
from spacer.rollout.completion import Rollout
from spacer.training.work import Row, Work


@dataclass(frozen=True)
class ScoredRollout:
    """The completions of a batch of prompts, with what the objective needs. B = N·G, group by group.

    `counted_B` are those that are computed again: all or, under drop_zero_variance, those of groups that teach.
    """

    rollout: Rollout
    parts: tuple[RewardParts, ...]
    advantages_B: Tensor
    zero_variance_B: Tensor
    counted_B: Tensor

    def part(self, start: int, stop: int) -> ScoredRollout:
        """The completions from `start` to `stop`."""
        cut = slice(start, stop)
        return ScoredRollout(
            self.rollout.part(start, stop),
            self.parts[cut],
            self.advantages_B[cut],
            self.zero_variance_B[cut],
            self.counted_B[cut],
        )


@dataclass(frozen=True)
class Lesson:
    """A part of a rollout, from which a step is taken: `rows` are those of the completions that count, which both the
    reference and the policy compute."""

    work: Work
    scored: ScoredRollout
    rows: tuple[Row, ...]
    ref_logp_BC: Tensor | None


@dataclass
class Sampled:
    """What was sampled for a step so far, over all processes.

    `tables` are of completions, a batch each; `updates` are metrics, each with the number of completions that it is the
    mean of: an entry for each batch, or for each update on one.
    """

    batches: int = 0
    groups: int = 0
    teaching: int = 0  # of the groups, those whose rewards differ
    tables: list[Tensor] = field(default_factory=list)
    updates: list[tuple[float, Mapping[str, Tensor]]] = field(default_factory=list)


def places(counts_PR: Sequence[Sequence[int]], rank: int) -> list[int]:
    """The numbers of a process's prompts among those of all, given how many each has of each part.

    >>> places([[2, 1], [1, 2]], rank=1)
    [2, 4, 5]
    """
    found, start = list[int](), 0
    for counts in counts_PR:
        before = start + sum(counts[:rank])
        found += range(before, before + counts[rank])
        start += sum(counts)
    return found
