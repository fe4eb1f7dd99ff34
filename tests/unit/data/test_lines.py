"""A right option can stand at any letter, and the line of a data file says where it stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spacer.data.scenes.lines import Question, data_line

NAMES = ("lamp", "bed", "sofa", "plant", "piano")


@given(st.integers(2, 5), st.data())
def test_the_right_option_moves_and_the_others_keep_their_order(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count - 1))
    wanted = data.draw(st.sampled_from("ABCDE"[:count]))
    question = Question("kind", "multiple choice", "Which?", NAMES[:count], "ABCDE"[right], "Because.")
    moved = question.with_right_at(wanted)
    line = data_line(moved, "id", "scene", "a.mp4", "source")
    options = dict(option.split(". ") for option in moved.lettered_options())
    assert line["options"] == moved.lettered_options()
    assert line["solution"] == f"<answer>{wanted}</answer>"
    assert line["reasoning"] == f"Because. That is {wanted}."
    assert options[wanted] == NAMES[right] == moved.content()
    del options[wanted]
    assert list(options.values()) == [name for name in NAMES[:count] if name != NAMES[right]]


def test_a_number_is_its_own_content_and_needs_no_letter() -> None:
    question = Question("kind", "numerical", "How many?", (), "3", "lamp: 3 on the map.")
    assert question.content() == "3"
    assert data_line(question, "id", "scene", "a.mp4", "source")["reasoning"] == "lamp: 3 on the map."
