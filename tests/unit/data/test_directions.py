"""Names of directions and turns, by hand, and the margins that are stated for them."""

from __future__ import annotations

import pytest

from spacer.data.scenes.questions import ANGLE_MARGIN, TURN_MARGIN, direction, turn
from tests.unit.data.test_questions import TO_BORDER


@pytest.mark.parametrize(
    ("level", "angle", "name"),
    [
        ("easy", 15, "left"),
        ("easy", 14, None),
        ("easy", 165, "left"),
        ("easy", 166, None),
        ("easy", -90, "right"),
        ("easy", 0, None),
        ("easy", 180, None),
        ("medium", 60, "left"),
        ("medium", 59, None),
        ("medium", 120, "left"),
        ("medium", 121, None),
        ("medium", 149, None),
        ("medium", 150, "back"),
        ("medium", -150, "back"),
        ("medium", 180, "back"),
        ("medium", -100, "right"),
        ("medium", 0, None),  # ahead is no option
        ("hard", 15, "front-left"),
        ("hard", 75, "front-left"),
        ("hard", 76, None),
        ("hard", 105, "back-left"),
        ("hard", 165, "back-left"),
        ("hard", -20, "front-right"),
        ("hard", -120, "back-right"),
        ("hard", 179, None),
    ],
)
def test_direction_by_hand(level: str, angle: float, name: str | None) -> None:
    assert direction(angle, level, margin=15.0) == name
    assert direction(angle + 360, level, margin=15.0) == name


def test_stated_margin_of_directions_is_what_questions_use() -> None:
    assert ANGLE_MARGIN == TO_BORDER


@pytest.mark.parametrize(
    ("angle", "name"),
    [
        (90, "turn left"),
        (-90, "turn right"),
        (270, "turn right"),
        (180, "turn back"),
        (-180, "turn back"),
        (-170, "turn back"),
        (0, None),
        (45, None),
        (135, None),
        (-135, None),
    ],
)
def test_turn_by_hand(angle: float, name: str | None) -> None:
    assert turn(angle) == name


def test_turns_keep_the_margin_that_is_stated_for_them() -> None:
    """TURN_MARGIN is "degrees to the border between two turns of a route"; left and back meet at 135 degrees."""
    closest = min(
        min(abs(abs(angle) - border) for border in (45, 135)) for angle in range(-180, 181) if turn(angle) is not None
    )
    assert closest >= TURN_MARGIN
