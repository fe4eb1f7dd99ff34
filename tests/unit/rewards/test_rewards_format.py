"""The format reward."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.rewards import format_reward

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]


COMPLETIONS = [
    ("<think>t</think><answer>B</answer>", 1),
    ("\n <think>t\n</think>\n\n<answer>\nB</answer> \n", 1),
    ("<think><map>{}</map></think><answer>B</answer>", 1),
    ("<think></think><answer></answer>", 1),
    ("<think>a < b </ c></think><answer>B</answer>", 1),
    ("", 0),
    ("B", 0),
    ("<answer>B</answer>", 0),
    ("<think>t</think>", 0),
    ("<think>t</think>B", 0),
    ("<think>t</think> so <answer>B</answer>", 0),
    ("Well. <think>t</think><answer>B</answer>", 0),
    ("<think>t</think><answer>B</answer>.", 0),
    ("<answer>B</answer><think>t</think>", 0),
    ("<think>t<answer>B</answer></think>", 0),
    ("<think>t</think><answer>B", 0),
    ("<think>t<answer>B</answer>", 0),
    ("<think>t</think><think>t</think><answer>B</answer>", 0),
    ("<think>t</think><answer>A</answer><answer>B</answer>", 0),
    ("<think><think>t</think></think><answer>B</answer>", 0),
    ("<think>t</think><answer><answer>B</answer></answer>", 0),
    ("<think>I write <answer>.</think><answer>B</answer>", 0),
    ("<Think>t</Think><Answer>B</Answer>", 0),
]


@pytest.mark.parametrize(("completion", "expected"), COMPLETIONS)
def test_one_thought_then_one_answer(completion: str, expected: float) -> None:
    assert format_reward(completion) == expected


def test_a_thought_that_the_prompt_began_is_well_formed_once_it_is_given_back() -> None:
    written = "It is near.</think><answer>B</answer>"
    assert [format_reward(opened + written) for opened in ("", "<think>", "<think>\n")] == [0, 1, 1]
    assert format_reward("<think>\n<think>" + written) == 0


@given(st.lists(st.sampled_from([*TAGS, " ", "x"]), max_size=8))
def test_only_the_four_tags_in_order_score(parts: list[str]) -> None:
    before_answer = parts[parts.index("</think>") + 1 :] if "</think>" in parts else []
    gap = before_answer[: before_answer.index("<answer>")] if "<answer>" in before_answer else []
    solid = [part for part in parts if part != " "]
    tags = [part for part in parts if part in TAGS]
    expected = tags == TAGS and "x" not in gap and solid[0] == "<think>" and solid[-1] == "</answer>"
    assert format_reward("".join(parts)) == expected
