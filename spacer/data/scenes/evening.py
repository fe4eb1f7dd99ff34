"""Selects questions such that their text does not give away the answer (pure).

A blind policy knows a question's wording and its options. Numerical questions are subsampled until answers are spread
evenly over their range, for each wording separately if it names one category, and multiple-choice questions until each
option is right about as often as the others it is offered with. Answers too rare to balance are dropped.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from spacer.data.scenes.lines import Question

RARE = 0.04  # answers below this share of a group are dropped
BINS = 5  # logarithmic bins for numbers other than counts
ROUNDS = 6  # of subsampling options, since each round changes how often the others are offered
BY_WORDING = ("object_counting", "object_size_estimation")  # the wording names the one category that matters
ORDER = "obj_appearance_order"  # options are orders, all equally likely

Named = tuple[str, Question]  # a question with its unique id


def even_out(questions: Sequence[Named], seed: int) -> list[Named]:
    """Drops questions until answers are balanced, and keeps the order; which ones depends on `seed`."""
    kinds: dict[str, list[Named]] = defaultdict(list)
    for item in questions:
        kinds[item[1].question_type].append(item)
    kept: set[str] = set()
    for kind, found in kinds.items():
        if kind == ORDER:
            kept |= {identity for identity, _ in found}
        elif found[0][1].options:
            kept |= _even_options(found, seed)
        else:
            groups: dict[str, list[Named]] = defaultdict(list)
            for item in found:
                groups[item[1].text if kind in BY_WORDING else ""].append(item)
            for group in groups.values():
                kept |= _even_numbers(group, seed)
    return [item for item in questions if item[0] in kept]


def _even_numbers(found: Sequence[Named], seed: int) -> set[str]:
    """Keeps equally many questions per count, or per logarithmic bin; none if there is only one."""
    bins: dict[int, list[str]] = defaultdict(list)
    values = sorted(float(question.answer) for _, question in found)
    low, high = (max(1e-9, values[int(share * (len(values) - 1))]) for share in (0.02, 0.98))
    for identity, question in found:
        value = float(question.answer)
        if question.question_type == "object_counting":
            bins[round(value)].append(identity)
        else:
            place = math.log(max(value, 1e-9) / low) / math.log(high / low) if high > low else 0.0
            bins[min(BINS - 1, max(0, int(BINS * place)))].append(identity)
    common = [ids for ids in bins.values() if len(ids) >= RARE * len(found)]
    if len(common) < 2:
        return set()
    most = min(map(len, common))
    return {identity for ids in common for identity in sorted(ids, key=lambda one: _drawn(seed, 0, one))[:most]}


def _even_options(found: Sequence[Named], seed: int) -> set[str]:
    """Keeps questions such that each option, by content, is right in proportion to how often it is offered."""
    right = Counter(question.content() for _, question in found)
    rare = {
        option
        for _, question in found
        for option in question.options
        if right[option] < RARE * len(found) / max(1, len(right) / 4)
    }
    kept = [(identity, question) for identity, question in found if rare.isdisjoint(question.options)]
    for turn in range(1, ROUNDS + 1):
        right = Counter(question.content() for _, question in kept)
        # expected by chance: one of n options is right in 1/n of the questions
        expected: Counter[str] = Counter()
        for _, question in kept:
            for option in question.options:
                expected[option] += 1 / len(question.options)  # type: ignore[assignment]  # a share of a question
        if not right:
            break
        # not the minimum: with few questions, the lowest rate is noise, and would drop most of them
        rates = sorted(right[option] / expected[option] for option in expected)
        target = rates[len(rates) // 4]
        kept = [
            (identity, question)
            for identity, question in kept
            if _drawn(seed, turn, identity) * right[question.content()] <= target * expected[question.content()]
        ]
    return {identity for identity, _ in kept}


def _drawn(seed: int, turn: int, identity: str) -> float:
    """A pseudo-random number in [0, 1) that depends only on the seed, the round and the question's id."""
    return int.from_bytes(hashlib.sha256(f"{seed} {turn} {identity}".encode()).digest()[:7], "big") / 2**56
