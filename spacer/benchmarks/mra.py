"""Mean relative accuracy exactly as VSI-Bench's and SPAR-Bench's authors compute it.

`spacer.rewards.mean_relative_accuracy`, which training rewards, counts an error equal to a threshold regardless of
float rounding. The authors compare floats: 6 for 5 has an error of 0.2, and 1 - 0.8 is slightly less, so that it
scores 0.6 here and 0.7 there.
"""

from __future__ import annotations

# numpy.linspace(0.5, 0.95, 10), the last of which is exactly 0.95
_STEP = (0.95 - 0.5) / 9
_TOLERATED = (*(1 - (0.5 + _STEP * i) for i in range(9)), 1 - 0.95)


def thresholds_met(error: float) -> float:
    """The share of the ten thresholds 1 - θ, θ = .50, .55, … .95 in floats, that a relative error does not exceed.

    >>> thresholds_met(0.0), thresholds_met(0.3), thresholds_met(0.51)
    (1.0, 0.5, 0.0)
    """
    return sum(error <= tolerated for tolerated in _TOLERATED) / 10


def mean_relative_accuracy_as_published(prediction: float, truth: float, *, absolute_at_zero: bool = False) -> float:
    """The share of thresholds that |p - g| / |g| meets, with the authors' float arithmetic.

    A truth of 0 is met only by an exact 0 (VSI-Bench's code fails on it); with `absolute_at_zero` the thresholds apply
    to the absolute error (SPAR-Bench).

    >>> mean_relative_accuracy_as_published(6, 5), mean_relative_accuracy_as_published(0.2, 0, absolute_at_zero=True)
    (0.6, 0.6)
    """
    if truth == 0:
        error = abs(prediction) if absolute_at_zero else 0.0 if prediction == 0 else float("inf")
    else:
        error = abs((prediction - truth) / truth)
    return thresholds_met(error)
