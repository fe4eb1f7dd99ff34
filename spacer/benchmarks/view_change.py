"""Camera motions such as `move_right:0.3,rotate_up:12`, and their score on five signed axes (SPAR-Bench)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import fmean

from spacer.benchmarks import release
from spacer.rewards.answer import mean_relative_accuracy
from spacer.rewards.extract import MAX_CHARS

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
    """The motions that an answer gives, metres or degrees each; None where it gives none.

    >>> read_motion("Move_right: 0.3, rotate_up: 12")
    {'move_right': 0.3, 'rotate_up': 12.0}
    """
    found: dict[str, float] = {}
    for verb, side, value in _ACTION.findall(answer[:MAX_CHARS]):
        action = f"{verb}_{side}".lower()
        if action in _ACTIONS:
            found[action] = float(value.replace("\u2212", "-"))
    return found or None


def accuracy(motion: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """The mean over the axes of the mean relative accuracy; where the truth is 0, of the absolute error.

    >>> accuracy({"move_left": -2.0}, {"move_right": 2.0}), accuracy({"move_left": 2.0}, {"move_right": 2.0})
    (1.0, 0.8)
    """
    scores = []
    for plus, minus in AXES:
        p = motion.get(plus, 0.0) - motion.get(minus, 0.0)
        g = truth.get(plus, 0.0) - truth.get(minus, 0.0)
        # an error relative to 1 is the absolute error
        scores.append(mean_relative_accuracy(p, g) if g else mean_relative_accuracy(1.0 + p, 1.0))
    return fmean(scores)


def released_accuracy(given: str, true: str) -> float:
    """The same as the release has it: relative to the prediction, and 0 for what is not exactly of the form."""
    motion, truth = _strict(given), _strict(true)
    if motion is None or truth is None:
        return 0.0
    scores = []
    for plus, minus in AXES:
        p = motion.get(plus, 0.0) - motion.get(minus, 0.0)
        g = truth.get(plus, 0.0) - truth.get(minus, 0.0)
        scores.append(release.mean_relative_accuracy(abs((g - p) / p) if p else abs(g)))
    return fmean(scores)


def _strict(text: str) -> dict[str, float] | None:
    """`name:number` between commas. A space before a name is a part of it, so that the motion is overlooked."""
    found: dict[str, float] = {}
    for item in text.split(","):
        name, colon, value = item.partition(":")
        number = release.as_float(value)  # of a second colon, none
        if not colon or number is None:
            return None
        found[name] = number
    return found
