"""Matches predicted points to true ones: greedily, closest pair first, with optimal tie-breaking.

Closest first is the published rule. It does not define which of several equally close pairs is taken; on a grid there
are many, and the choice affects which pairs remain. Here ties are broken so that the total worth of all pairs is
highest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

Point = tuple[int, int]

SEARCH = 20_000  # bound on visited pairs; about 10 ms in the worst case
_SQUARED_DIAGONAL = 200  # (10·√2)², the distance at which a match is worth nothing
_ROUNDING = 1e-9  # tolerance for sums of worths
_DEEPEST = 200  # recursion depth, far below the interpreter's limit

# a predicted and a true point, by their indices in the sorted points
Pair = tuple[int, int]


def matched_worth(predicted: Sequence[Point], truth: Sequence[Point], search: int = SEARCH) -> float:
    """Σ over matched pairs of 1 - distance / (10·√2), for the best matching that takes the closest pair first.

    The order of the points does not matter. The search over ties visits at most `search` pairs, which is enough for any
    map with a few objects per category; beyond that, the best matching found so far is used.

    >>> round(matched_worth([(1, 0), (3, 0)], [(0, 0), (2, 0)]), 3)  # each 1 away; the closest could cross: 1 and 3
    1.859
    """
    return _Matching(predicted, truth, search).best


class _Matching:
    """A depth-first branch-and-bound search over the ways to break ties.

    Distances are squared, so that they are exact. Equal points are merged, with a count. Pairs that can never be
    matched are omitted: a true point is only paired with its nearest predictions, as many as there are true points.
    """

    def __init__(self, predicted: Sequence[Point], truth: Sequence[Point], search: int) -> None:
        true_counts, counts = Counter(truth), Counter(predicted)
        trues, guesses = sorted(true_counts), sorted(counts)
        near = [(s, p, t) for t, point in enumerate(trues) for s, p in _nearest(point, guesses, counts, len(truth))]
        met = sorted({p for _, p, _ in near})
        place = {p: i for i, p in enumerate(met)}
        levels: dict[int, list[Pair]] = {}
        for squared, p, t in sorted(near):
            levels.setdefault(squared, []).append((place[p], t))
        self._levels = list(levels.values())
        self._worths = [1.0 - math.sqrt(squared / _SQUARED_DIAGONAL) for squared in levels]
        self._left = search
        self._seen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], float] = {}
        self.best = 0.0
        start = [min(counts[guesses[p]], len(truth)) for p in met], [true_counts[point] for point in trues]
        self._finish(0, *start, 0.0)
        self._follow(0, *start, 0.0, 0)

    def _follow(self, level: int, predicted: list[int], true: list[int], worth: float, depth: int) -> None:
        """Continues with the free points: takes forced pairs, and branches over choices."""
        predicted, true = list(predicted), list(true)
        while level < len(self._levels):
            if worth + min(sum(predicted), sum(true)) * self._worths[level] <= self.best + _ROUNDING:
                return  # upper bound: as if all remaining pairs were of this level
            self._left -= len(self._levels[level]) + len(predicted)
            pairs, taken = _take_forced(self._free(level, predicted, true), predicted, true)
            worth += taken * self._worths[level]
            if pairs:
                break
            level += 1
        else:
            self.best = max(self.best, worth)
            return
        key = level, tuple(predicted), tuple(true)
        if self._seen.get(key, -1.0) >= worth - _ROUNDING:
            return
        self._seen[key] = worth
        if self._left <= 0 or depth == _DEEPEST:
            self._finish(level, predicted, true, worth)
            return
        for p, t in _choices(pairs):
            predicted[p] -= 1
            true[t] -= 1
            self._follow(level, predicted, true, worth + self._worths[level], depth + 1)
            predicted[p] += 1
            true[t] += 1
            if self._left <= 0:
                return

    def _finish(self, level: int, predicted: list[int], true: list[int], worth: float) -> None:
        """Finishes without a search: ties are broken by the order of the points."""
        predicted, true = list(predicted), list(true)
        for pairs, each in zip(self._levels[level:], self._worths[level:], strict=True):
            for p, t in pairs:
                count = min(predicted[p], true[t])
                predicted[p] -= count
                true[t] -= count
                worth += count * each
        self.best = max(self.best, worth)

    def _free(self, level: int, predicted: Sequence[int], true: Sequence[int]) -> list[Pair]:
        return [(p, t) for p, t in self._levels[level] if predicted[p] and true[t]]


def _nearest(point: Point, guesses: Sequence[Point], counts: Counter[Point], most: int) -> Iterator[tuple[int, int]]:
    """(squared distance, index) of the `most` predictions nearest to a true point, and of all that tie with them."""
    near = sorted(
        (squared, p)
        for p, guess in enumerate(guesses)
        if (squared := (guess[0] - point[0]) ** 2 + (guess[1] - point[1]) ** 2) < _SQUARED_DIAGONAL
    )
    met, last = 0, -1
    for squared, p in near:
        if met >= most and squared > last:
            return
        met, last = met + counts[guesses[p]], squared
        yield squared, p


def _take_forced(pairs: list[Pair], predicted: list[int], true: list[int]) -> tuple[list[Pair], int]:
    """Matches pairs without an alternative at this distance; returns the remaining pairs, and how many there are."""
    of_p, of_t = Counter(p for p, _ in pairs), Counter(t for _, t in pairs)
    left, taken = [], 0
    for p, t in pairs:
        if of_p[p] == of_t[t] == 1:
            count = min(predicted[p], true[t])
            predicted[p] -= count
            true[t] -= count
            taken += count
        else:
            left.append((p, t))
    return left, taken


def _choices(pairs: Sequence[Pair]) -> list[Pair]:
    """A set of tied pairs of which one must be taken: a pair, and all pairs that share a point with it.

    Every maximal matching contains one of these, since otherwise the pair itself would still be free. Starting at the
    point with the fewest pairs keeps the number of choices small.
    """
    of_p, of_t = Counter(p for p, _ in pairs), Counter(t for _, t in pairs)

    def others(pair: Pair) -> tuple[int, Pair]:
        return of_p[pair[0]] + of_t[pair[1]], pair

    least = min(pairs, key=others)
    return sorted((pair for pair in pairs if pair[0] == least[0] or pair[1] == least[1]), key=others)
