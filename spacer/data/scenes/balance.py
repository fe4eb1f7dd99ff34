"""Balances answers: which of the generated questions are kept, and the letter of the right option (pure)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spacer.data.scenes.lines import LETTERS, Question
from spacer.data.scenes.scans import Scan

# question types with few distinct answers, which could be guessed
FEW_ANSWERS = (
    *("object_counting", "object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard"),
    "route_planning",
)
RARE = 0.05  # answers below this share of a type are not counted among the common ones


@dataclass(frozen=True)
class Posed:
    """A generated question, the scan it is about and its unique id."""

    id: str
    scan: Scan
    question: Question


def spread_answers(posed: Sequence[Posed], max_share: float, seed: int) -> list[Posed]:
    """Drops surplus questions with the most common answers; keeps the order.

    In the types of FEW_ANSWERS, no answer, by content, makes up more than `max_share`. If there are fewer than
    1 / max_share answers that are not RARE, that is impossible or would drop nearly everything: then the limit is an
    equal share among those. Which questions are dropped depends on their ids and the seed.
    """
    kept: set[str] = set()
    for kind in {item.question.question_type for item in posed}:
        of_kind = [item for item in posed if item.question.question_type == kind]
        if kind not in FEW_ANSWERS:
            kept |= {item.id for item in of_kind}
            continue
        most = _most_of_one(Counter(item.question.content() for item in of_kind), max_share)
        taken: Counter[str] = Counter()
        for item in sorted(of_kind, key=lambda item: hashlib.sha256(f"{seed} {item.id}".encode()).digest()):
            answer = item.question.content()
            if taken[answer] < most:
                taken[answer] += 1
                kept.add(item.id)
    return [item for item in posed if item.id in kept]


def _most_of_one(counts: Counter[str], max_share: float) -> int:
    """The largest number of questions per answer such that no answer exceeds its share of the kept questions.

    >>> _most_of_one(Counter(two=50, three=30, four=30), 0.4), _most_of_one(Counter(left=9, right=7), 0.4)
    (40, 7)
    """
    common = sum(count >= RARE * counts.total() for count in counts.values())
    share = max(max_share, 1 / common) if common else max_share
    for most in range(max(counts.values()), 0, -1):
        # tolerance, so that rounding does not break exact thirds
        if most <= share * sum(min(count, most) for count in counts.values()) + 1e-9:
            return most
    return 1


def place_letters(posed: Sequence[Posed], seed: int) -> list[Posed]:
    """Moves the right options so that each letter is right equally often, up to one.

    Letters are balanced separately for each type and number of options, in blocks with each letter once, in random
    order.
    """
    rng = np.random.default_rng([seed, 1])
    blocks: dict[tuple[str, int], list[str]] = {}
    placed = []
    for item in posed:
        count = len(item.question.options)
        if count:
            block = blocks.setdefault((item.question.question_type, count), [])
            if not block:
                block += [LETTERS[i] for i in rng.permutation(count)]
            item = dataclasses.replace(item, question=item.question.with_right_at(block.pop()))
        placed.append(item)
    return placed
