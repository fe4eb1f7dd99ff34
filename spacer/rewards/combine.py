"""The reward of each completion of a prompt: its parts, and how they add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spacer.rewards.answer import answer_reward
from spacer.rewards.bonus import length_bonus, temporal_bonus
from spacer.rewards.format import format_reward
from spacer.rewards.maps import clean_map, has_map, map_score
from spacer.settings import RewardSettings


@dataclass(frozen=True)
class RewardParts:
    """The reward of one completion, in parts that can be logged.

    `total` = answer (0 if cancelled) + map + format + length + temporal.

    >>> RewardParts(answer=1.0, map=0.0, format=1.0, length=0.0, temporal=0.0, drawn=True, cancelled=True).total
    1.0
    """

    answer: float  # as the answer deserves, even where `cancelled`
    map: float  # as it counts: 0 where it does not
    format: float
    length: float
    temporal: float
    drawn: bool  # the completion has a map
    cancelled: bool = False  # a right answer that counts for nothing, because its map scores 0
    map_quality: float = 0.0  # the map's score whether or not it counts, for logs

    @property
    def total(self) -> float:
        """The reward that the advantage is computed from."""
        return (0.0 if self.cancelled else self.answer) + self.map + self.format + self.length + self.temporal


def score_group(
    completions: Sequence[str],
    lengths: Sequence[int],
    *,
    solution: str,
    problem_type: str,
    true_map: Mapping[str, Sequence[Sequence[float]]] | None,
    settings: RewardSettings,
    shuffled_completions: Sequence[str] | None = None,
) -> list[RewardParts]:
    """Score the completions of one prompt (paper's SG-RLVR reward, as released).

    A map counts when the sample has a true map, the completion has a map and the answer is right: a multiple choice of
    1, a numerical answer above `settings.map_min_answer`. Then its score is added, and a score of 0 cancels the answer
    reward where `settings.zero_map_cancels_answer` is on, so that an invalid map is worse than none. Format and bonuses
    are left as they are, and bonuses go by the answer reward before map and cancelling.

    `lengths` are in tokens; `shuffled_completions`, when given, answer the same prompt on shuffled frames: without them
    there is no temporal bonus.

    Raises:
        ValueError: completions and lengths differ in number, the problem type is unknown, or the temporal bonus is on
            and `shuffled_completions` is empty.

    >>> completion = "<think><map>{'chair': [[1, 2]]}</map></think><answer>B</answer>"
    >>> group = {"solution": "B", "problem_type": "multiple choice", "settings": RewardSettings()}
    >>> score_group([completion], [40], true_map={"chair": [[1, 2]]}, **group)[0].total
    3.0
    >>> score_group([completion], [40], true_map={"sofa": [[1, 2]]}, **group)[0].total
    1.0
    >>> score_group([completion], [40], true_map=None, **group)[0].total
    2.0
    """
    if len(completions) != len(lengths):
        raise ValueError(f"{len(completions)} completions but {len(lengths)} lengths")

    def answers(texts: Sequence[str]) -> list[float]:
        return [answer_reward(text, solution, problem_type, settings.strict) for text in texts]

    rewards = answers(completions)
    length = temporal = [0.0] * len(rewards)
    if settings.length is not None:
        length = length_bonus(rewards, lengths, settings.length)
    if settings.temporal is not None and shuffled_completions is not None:
        temporal = temporal_bonus(rewards, answers(shuffled_completions), settings.temporal)

    points = clean_map(true_map)
    parts = []
    for i, (text, reward) in enumerate(zip(completions, rewards, strict=True)):
        drawn = has_map(text)
        quality = map_score(text, points)
        counts = settings.map and drawn and bool(points) and _is_right(reward, problem_type, settings)
        parts.append(
            RewardParts(
                answer=reward,
                map=quality if counts else 0.0,
                format=format_reward(text) if settings.format else 0.0,
                length=length[i],
                temporal=temporal[i],
                drawn=drawn,
                cancelled=counts and quality == 0 and settings.zero_map_cancels_answer,
                map_quality=quality,
            )
        )
    return parts


def _is_right(answer: float, problem_type: str, settings: RewardSettings) -> bool:
    """Whether an answer is right enough for its map to count; only these two problem types come with maps."""
    if problem_type == "multiple choice":
        return answer == 1
    return problem_type == "numerical" and answer > settings.map_min_answer
