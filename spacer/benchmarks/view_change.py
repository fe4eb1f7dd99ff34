"""Camera motions such as `move_right:0.3,rotate_up:12`, and their score on five signed axes (SPAR-Bench)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from spacer.benchmarks import release
from spacer.benchmarks.mra import mean_relative_accuracy_as_published, thresholds_met
from spacer.rewards.reading import both_ends, declared_contents

AXES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)
_ACTION = re.compile(
    r"(move|rotate)[_ ](right|left|up|down|forward|backward)\s*+[:=]\s*+([-+\u2212]?(?:\d++(?:\.\d++)?|\.\d++))",
    re.IGNORECASE,
)
_ACTIONS = {action for axis in AXES for action in axis}


def read_motion(answer: str) -> dict[str, float] | None:
    """The motions in an answer, each in metres or degrees; None if there are none.

    The last declaration counts, if one contains motions.

    >>> read_motion("Move_right: 0.3, rotate_up: 12"), read_motion("First move_up:1. The answer is move_right:0.3")
    ({'move_right': 0.3, 'rotate_up': 12.0}, {'move_right': 0.3})
    """
    answer = both_ends(answer)
    actions = list(_ACTION.finditer(answer))
    if not actions:
        return None
    declared = next((at for at, _ in declared_contents(answer) if at <= actions[-1].start()), 0)
    found: dict[str, float] = {}
    for match in actions:
        action = f"{match[1]}_{match[2]}".lower()
        if match.start() >= declared and action in _ACTIONS:
            found[action] = float(match[3].replace("\u2212", "-"))
    return found or None


def accuracy(motion: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """The mean over the axes of the mean relative accuracy, with the absolute error where the truth is 0.

    >>> accuracy({"move_left": -2.0}, {"move_right": 2.0}), accuracy({"move_left": 2.0}, {"move_right": 2.0})
    (1.0, 0.8)
    """
    scores = []
    for plus, minus in AXES:
        p = motion.get(plus, 0.0) - motion.get(minus, 0.0)
        g = truth.get(plus, 0.0) - truth.get(minus, 0.0)
        scores.append(mean_relative_accuracy_as_published(p, g, absolute_at_zero=True))
    return float(np.mean(scores))


def released_accuracy(given: str, true: str) -> float:
    """The release's version: relative to the prediction, and 0 for text that is not exactly in the format."""
    motion, truth = _strict(given), _strict(true)
    if motion is None or truth is None:
        return 0.0
    scores = []
    for plus, minus in AXES:
        p = motion.get(plus, 0.0) - motion.get(minus, 0.0)
        g = truth.get(plus, 0.0) - truth.get(minus, 0.0)
        scores.append(thresholds_met(abs((g - p) / p) if p else abs(g)))
    return float(np.mean(scores))


def _strict(text: str) -> dict[str, float] | None:
    """`name:number` between commas. A space before a name is part of it, so that the motion is ignored."""
    found: dict[str, float] = {}
    for item in text.split(","):
        name, colon, value = item.partition(":")
        number = release.as_float(value)  # None after a second colon
        if not colon or number is None:
            return None
        found[name] = number
    return found
