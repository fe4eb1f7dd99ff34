"""Bonuses that depend on the whole group of completions of a prompt, for length and for using the order of frames, and
the penalty for long ones.

The former are based on the sum of the answer and map rewards (`RewardParts.answered`), as in the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from spacer.config.settings import LengthBonusSettings, OverlongSettings, TemporalBonusSettings

_TOLERANCE = 1e-9  # tolerance for the rounding of means


def length_bonus(answer_rewards: Sequence[float], lengths: Sequence[int], settings: LengthBonusSettings) -> list[float]:
    """Bonus for good answers within a range of lengths (published rule): for completion i of a group, with C_i tokens,

    bonus · [ r_i > min_answer ] · [ min_tokens ≤ C_i ≤ max_tokens ], when at least two completions have r > min_answer.

    Raises:
        ValueError: the two sequences differ in length.

    >>> length_bonus([1.0, 0.1, 1.0], [400, 400, 600], LengthBonusSettings())
    [0.2, 0.0, 0.0]
    """
    if len(answer_rewards) != len(lengths):
        raise ValueError(f"{len(answer_rewards)} answer rewards but {len(lengths)} lengths")
    good = [reward > settings.min_answer for reward in answer_rewards]
    if sum(good) < 2:
        return [0.0] * len(good)
    return [
        settings.bonus if ok and settings.min_tokens <= length <= settings.max_tokens else 0.0
        for ok, length in zip(good, lengths, strict=True)
    ]


def overlong_penalty(lengths: Sequence[int], settings: OverlongSettings) -> list[float]:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), for a completion of C tokens:

    - penalty · clip((C - (max_tokens - b)) / b, 0, 1), with b = buffer · max_tokens. In the paper the penalty is 1.

    >>> overlong_penalty([800, 900, 1000, 1200], OverlongSettings(max_tokens=1000, buffer=0.2, penalty=1.0))
    [0.0, -0.5, -1.0, -1.0]
    """
    buffer = settings.buffer * settings.max_tokens
    over = (min(max((length - settings.max_tokens) / buffer + 1, 0.0), 1.0) for length in lengths)
    return [-settings.penalty * share if share else 0.0 for share in over]


def temporal_bonus(
    answer_rewards: Sequence[float], shuffled_answer_rewards: Sequence[float], settings: TemporalBonusSettings
) -> list[float]:
    """Bonus for good answers if the order of frames helps (T-GRPO, as released): for completion i of a group,

    bonus · [ r_i > min_answer ], when mean(r) ≥ margin · mean(r on shuffled frames).

    Raises:
        ValueError: there are no rewards on shuffled frames to compare with.

    >>> temporal_bonus([1.0, 1.0, 0.0], [1.0, 0.0], TemporalBonusSettings())
    [0.3, 0.3, 0.0]
    """
    if not shuffled_answer_rewards:
        raise ValueError("the temporal bonus needs answer rewards on shuffled frames")
    if not answer_rewards or fmean(answer_rewards) + _TOLERANCE < settings.margin * fmean(shuffled_answer_rewards):
        return [0.0] * len(answer_rewards)
    return [settings.bonus if reward > settings.min_answer else 0.0 for reward in answer_rewards]
