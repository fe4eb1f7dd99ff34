"""The reward of each completion of a prompt: its parts and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from spacer.config.settings import RewardSettings
from spacer.rewards.answer import answer_reward, is_right
from spacer.rewards.bonus import length_bonus, overlong_penalty, temporal_bonus
from spacer.rewards.format import format_reward
from spacer.rewards.maps import clean_map, has_map, map_score

TERMS = ("answer", "map", "format", "length", "temporal")


@dataclass(frozen=True)
class RewardParts:
    """The reward of one completion, split into parts for logging.

    `total` = answer (0 if cancelled) + map + format + length + temporal + overlong + all of `custom`; the sum of the
    first two is `answered`. A part that does not apply is None, and adds nothing.

    >>> RewardParts(answer=1.0, map=0.0, format=1.0, length=0.0, temporal=0.0, drawn=True, cancelled=True).total
    1.0
    """

    answer: float  # before cancellation
    map: float | None  # 0 if the map does not count; None if the question has no true map, or no map is rewarded
    format: float | None  # None if the format is not rewarded
    length: float
    temporal: float
    drawn: bool  # the completion has a map
    cancelled: bool = False  # the answer is right but does not count, because its map scores 0
    overlong: float | None = None  # at most 0; None if there is no such penalty
    map_quality: float | None = None  # the map's score even if it does not count, for logging; None without a true map
    custom: Mapping[str, float] = field(default_factory=dict)  # what functions of the user's add, where they apply

    @property
    def answered(self) -> float:
        """The sum of the answer and map rewards, on which the bonuses are based."""
        return self.counted_answer + (self.map or 0.0)

    @property
    def counted_answer(self) -> float:
        """The answer reward, 0 if it is cancelled."""
        return 0.0 if self.cancelled else self.answer

    @property
    def total(self) -> float:
        """The reward that the advantage is computed from."""
        return (
            self.answered
            + (self.format or 0.0)
            + self.length
            + self.temporal
            + (self.overlong or 0.0)
            + sum(self.custom.values())
        )

    @property
    def terms(self) -> dict[str, float]:
        """The parts that apply, by the names under which they are logged."""
        held = {name: getattr(self, name) for name in (*TERMS, "overlong")}
        return {name: value for name, value in held.items() if value is not None} | dict(self.custom)

    def as_row(self) -> dict[str, float]:
        """What files of answers and rollouts hold of it."""
        quality = {} if self.map_quality is None else {"map_quality": self.map_quality}
        return {"total": self.total, **self.terms, **quality}


def score_group(
    completions: Sequence[str],
    lengths: Sequence[int],
    *,
    solution: str,
    problem_type: str,
    options: Sequence[str],
    true_map: Mapping[str, Sequence[Sequence[float]]] | None,
    settings: RewardSettings,
    shuffled_completions: Sequence[str] | None = None,
) -> list[RewardParts]:
    """Score the completions of one prompt (paper's SG-RLVR reward, as released).

    A map counts if the sample has a true map, the completion has a map and the answer is right: a reward of 1 for
    multiple choice, above `settings.map_min_answer` for numerical answers. Then its score is added, and a score of 0
    cancels the answer reward if `settings.zero_map_cancels_answer` is on, so that an invalid map is worse than none.
    The format reward is not affected. Bonuses are based on the sum of answer and map, so a cancelled answer earns none.

    `lengths` are in tokens. `shuffled_completions` answer the same prompt on shuffled frames, and their maps count too;
    if None, there is no temporal bonus. The question's `options`, each with its letter, are for rewards that are not
    strict, which accept an option's text for its letter.

    Raises:
        ValueError: the numbers of completions and lengths differ, the problem type is unknown, or the temporal bonus is
            on and `shuffled_completions` is empty.

    >>> completion = "<think><map>{'chair': [[1, 2]]}</map></think><answer>B</answer>"
    >>> group = {"solution": "B", "problem_type": "multiple choice", "options": (), "settings": RewardSettings()}
    >>> score_group([completion], [40], true_map={"chair": [[1, 2]]}, **group)[0].total
    3.0
    >>> score_group([completion], [40], true_map={"sofa": [[1, 2]]}, **group)[0].total
    1.0
    >>> score_group([completion], [40], true_map=None, **group)[0].total
    2.0
    """
    if len(completions) != len(lengths):
        raise ValueError(f"{len(completions)} completions but {len(lengths)} lengths")

    points = clean_map(true_map)

    def score(text: str) -> RewardParts:
        reward = answer_reward(text, solution, problem_type, settings.strict, options)
        drawn = has_map(text)
        quality = map_score(text, points)
        counts = settings.map and drawn and bool(points) and _is_right(reward, problem_type, settings)
        return RewardParts(
            answer=reward,
            map=(quality if counts else 0.0) if settings.map and points else None,
            format=format_reward(text) if settings.format else None,
            length=0.0,
            temporal=0.0,
            drawn=drawn,
            cancelled=counts and quality == 0 and settings.zero_map_cancels_answer,
            map_quality=quality if points else None,
        )

    alone = [score(text) for text in completions]
    answered = [parts.answered for parts in alone]
    length = temporal = [0.0] * len(alone)
    overlong: Sequence[float | None] = [None] * len(alone)
    if settings.length is not None:
        length = length_bonus(answered, lengths, settings.length)
    if settings.temporal is not None and shuffled_completions is not None:
        shuffled = [score(text).answered for text in shuffled_completions]
        temporal = temporal_bonus(answered, shuffled, settings.temporal)
    if settings.overlong is not None:
        overlong = overlong_penalty(lengths, settings.overlong)
    beside = zip(length, temporal, overlong, strict=True)
    return [replace(parts, length=c, temporal=t, overlong=o) for parts, (c, t, o) in zip(alone, beside, strict=True)]


def _is_right(answer: float, problem_type: str, settings: RewardSettings) -> bool:
    """Whether an answer is right enough for its map to count; only these two problem types come with maps."""
    return problem_type in ("multiple choice", "numerical") and is_right(answer, problem_type, settings.map_min_answer)
