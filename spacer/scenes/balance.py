"""Which of the posed questions are kept, and at which letter the right option stands (pure)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spacer.scenes.lines import LETTERS, Question
from spacer.scenes.scans import Scan

# types whose right answers are few, so that one of them could be guessed
FEW_ANSWERS = (
    *("object_counting", "object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard"),
    "route_planning",
)
RARE = 0.05  # share of a type below which an answer is not one of those that it could be spread over


@dataclass(frozen=True)
class Posed:
    """A question, the scan it is about and its unique id."""

    id: str
    scan: Scan
    question: Question


def spread_answers(posed: Sequence[Posed], max_share: float, seed: int) -> list[Posed]:
    """The questions without the surplus of their commonest answers, in the order that they came in.

    In a type of FEW_ANSWERS no answer, by content, makes up more than `max_share`. Where the answers that are not
    RARE are fewer than 1 / max_share, that cannot be, or would cost nearly all: then the limit is an even share among
    those. Which of an answer's questions go is drawn by their ids and the seed.
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
    """The largest number of questions with one answer that is at most its share of all that are then kept.

    >>> _most_of_one(Counter(two=50, three=30, four=30), 0.4), _most_of_one(Counter(left=9, right=7), 0.4)
    (40, 7)
    """
    common = sum(count >= RARE * counts.total() for count in counts.values())
    share = max(max_share, 1 / common) if common else max_share
    for most in range(max(counts.values()), 0, -1):
        # a hair of rounding must not cost thirds their evenness
        if most <= share * sum(min(count, most) for count in counts.values()) + 1e-9:
            return most
    return 1


def place_letters(posed: Sequence[Posed], seed: int) -> list[Posed]:
    """The questions with the right options moved, so that each letter is right equally often, give or take one.

    Counted for each type and number of options by itself. The letters come in blocks that hold each letter once, in an
    order that is drawn with the seed.
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
