"""What is read from an answer and what it scores, officially and by the release, worked out by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.benchmarks import benchmark
from spacer.benchmarks.mra import mean_relative_accuracy_as_published, thresholds_met
from spacer.benchmarks.question import Question
from spacer.benchmarks.view_change import AXES, accuracy
from spacer.config.choices import BENCHMARKS
from spacer.errors import UserError
from spacer.rewards import mean_relative_accuracy
from tests.benchmarks_as_distributed import MAKERS

CUT = "<think>It may be "  # a completion that ended before its answer


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Question]]:
    """Benchmark → id → question."""
    found = {}
    for name in BENCHMARKS:
        root = tmp_path_factory.mktemp(name)
        MAKERS[name](root)
        questions, faults = benchmark(name).read(root)
        assert not faults
        found[name] = {question.id: question for question in questions}
    return found


# benchmark, question, completion → answer, official, released
CASES = [
    # VSI-Bench, choices: truth B, "the chair"
    ("vsi_bench", "0", "B", "B", 1, 1),
    ("vsi_bench", "0", "<think>A lamp?</think><answer> B </answer>", "B", 1, 1),
    ("vsi_bench", "0", "<answer>b</answer>", "B", 1, 1),
    ("vsi_bench", "0", "<answer>B. the chair</answer>", "B", 1, 1),
    ("vsi_bench", "0", "Answer: B", "B", 1, 1),
    ("vsi_bench", "0", "<answer>(B)</answer>", "B", 1, 0),
    ("vsi_bench", "0", "<answer>The chair.</answer>", "B", 1, 0),
    ("vsi_bench", "0", "<answer>A</answer>", "A", 0, 0),
    ("vsi_bench", "0", "E", None, 0, 0),
    ("vsi_bench", "0", "A. the lamp\nB. the chair\nC. the table\nD. the bed\nAnswer: B", "B", 1, 0),
    ("vsi_bench", "0", "<think><answer>A</answer>?</think><answer>B</answer>", "B", 1, 0),
    ("vsi_bench", "0", "A?</think>So it is B, because the chair is near.", "B", 1, 0),
    ("vsi_bench", "0", r"$\boxed{\text{B}}$", "B", 1, 0),
    ("vsi_bench", "0", "B - chair", "B", 1, 1),
    ("vsi_bench", "0", "A and B", None, 0, 0),
    ("vsi_bench", "0", "the chair or the bed", None, 0, 0),
    ("vsi_bench", "0", "", None, 0, 0),
    ("vsi_bench", "0", CUT + "B", None, 0, 0),
    ("vsi_bench", "0", "<answer>B", None, 0, 0),
    # numbers: truth 4
    ("vsi_bench", "7", "<answer>four</answer>", "4", 1, 1),
    ("vsi_bench", "7", "a table and 4 chairs", "4", 1, 0),  # the release reads "a" as 1
    ("vsi_bench", "7", "-4", "-4", 0, 1),  # and no sign
    ("vsi_bench", "7", CUT + "4", None, 0, 1),  # and searches the reasoning
    ("vsi_bench", "7", "<answer>4", None, 0, 0),
    ("vsi_bench", "7", "many", None, 0, 0),
    ("vsi_bench", "7", "", None, 0, 0),
    # truth 20: an error of 0.25 meets .5 .45 .4 .35 .3 .25; twenty-one is 0.05 off, the release's 1 is 0.95 off
    ("vsi_bench", "9", "about 25 m²", "25", 0.6, 0.6),
    ("vsi_bench", "9", "twenty-one", "21", 1, 0),
    # truth 150: an error of 0.2 meets seven thresholds in numbers, but 1 - 0.8 is less than 0.2 in the authors' floats
    ("vsi_bench", "8", "120 cm", "120", 0.6, 0.6),
    ("vsi_bench", "8", "The bed is 200 cm long. The answer is 150 cm, since 200 − 50", "150", 1, 0.4),
    ("vsi_bench", "8", r"200 − 50 = \boxed{150}", "150", 1, 0.4),
    ("vsi_bench", "8", "答案：150", "150", 1, 1),
    ("vsi_bench", "8", "The bed is 150 cm</think>120", "120", 0.6, 1),
    # STI-Bench: truth C, "3.5 m"
    ("sti_bench", "1", "<answer>C</answer>", "C", 1, 1),
    ("sti_bench", "1", "(C)", "C", 1, 1),
    ("sti_bench", "1", "C. 3.5 m", "C", 1, 0),  # a letter with its text is in none of the release's forms
    ("sti_bench", "1", "C.", "C", 1, 1),
    ("sti_bench", "1", "3.5 m", "C", 1, 0),
    ("sti_bench", "1", "c", "C", 1, 0),
    ("sti_bench", "1", "The answer is C", "C", 1, 0),
    ("sti_bench", "1", "Option C or D", None, 0, 1),
    ("sti_bench", "1", CUT + "(C)", None, 0, 1),
    ("sti_bench", "1", "<answer>C", None, 0, 0),
    ("sti_bench", "1", "E", "E", 0, 0),
    ("sti_bench", "9", "E", None, 0, 0),  # which has no such candidate
    ("sti_bench", "1", "", None, 0, 0),
    # SPAR-Bench, choices: truth A
    ("spar_bench", "position_matching", "A", "A", 1, 1),
    ("spar_bench", "position_matching", "<answer>A. left</answer>", "A", 1, 1),
    ("spar_bench", "position_matching", "", None, 0, 1),  # the release finds nothing in the truth
    ("spar_bench", "position_matching", "<answer></answer>", None, 0, 1),
    ("spar_bench", "position_matching", "Absolutely B", None, 0, 1),
    ("spar_bench", "position_matching", "left", "A", 1, 0),  # the option's whole text, which is in the question
    ("spar_bench", "position_matching", "The answer is left.", "A", 1, 0),
    ("spar_bench", "position_matching", "Right.", "B", 0, 0),
    ("spar_bench", "position_matching", "left or right", None, 0, 0),
    ("spar_bench", "position_matching", "<answer>A", None, 0, 0),
    ("spar_bench", "position_matching", CUT + "A", None, 0, 0),
    ("spar_bench", "position_matching", "B", "B", 0, 0),
    # numbers: truth 2.0; 1.8 is 0.1 off
    ("spar_bench", "depth_prediction_oc", "1.8 m", "1.8", 0.9, 0.9),
    ("spar_bench", "depth_prediction_oc", "2 or 3", "2", 1, 1),
    ("spar_bench", "depth_prediction_oc", "-2", "-2", 0, 1),
    ("spar_bench", "depth_prediction_oc", "two", "2", 1, 0),
    ("spar_bench", "depth_prediction_oc", "", None, 0, 0),
    ("spar_bench", "depth_prediction_oc", CUT + "2", None, 0, 1),
    ("spar_bench", "depth_prediction_oo_mv", "1.5 + 0.5 = 2", "2", 1, 1),
    ("spar_bench", "distance_prediction_oc_mv", "first 5, then 2.0 m^7", "2", 1, 1),
    ("spar_bench", "distance_prediction_oc_mv", "", None, 0, 0),
    # motion: truth right 0.4, forward 2, rotate left 30; the other two axes are 0
    ("spar_bench", "view_change_infer", "move_right:0.4,move_forward:2.0,rotate_left:30", ..., 1, 1),
    # right is 0.25 off: .6 and four times 1. To the release it is 0.2 of the prediction off: .7
    ("spar_bench", "view_change_infer", "move_right:0.5,move_forward:2,rotate_left:30", ..., 0.92, 0.94),
    # to the release " move_forward" is no motion: right 1, up 1, forward 0, yaw 0, pitch 1
    ("spar_bench", "view_change_infer", "move_right: 0.4, move_forward: 2, rotate_left: 30", ..., 1, 0.6),
    # right, forward and yaw 0; up is 0.2 off: .6 in floats; pitch 1. The release: 0.4 meets .5 .45 .4: .3; pitch 1
    ("spar_bench", "view_change_infer", "move_up:0.2", "move_up:0.2", 0.32, 0.26),
    (
        *("spar_bench", "view_change_infer"),
        "At first move_up:3. The answer is move_right:0.4,move_forward:2.0,rotate_left:30",
        *("move_right:0.4,move_forward:2,rotate_left:30", 1, 0),
    ),
    # no motion of a known name: right .3, up 1, forward 0, yaw 0, pitch 1
    ("spar_bench", "view_change_infer", "<think>move_right:0.4", None, 0, 0.46),
    ("spar_bench", "view_change_infer", "move_right:much", None, 0, 0),
    ("spar_bench", "view_change_infer", "move_right:1:2", "move_right:1", 0.4, 0),  # up and pitch, which are 0
    ("spar_bench", "view_change_infer", "", None, 0, 0),
    # Video-MME: truth D, "The three kinds."
    ("video_mme", "001-1", "D", "D", 1, 1),
    ("video_mme", "001-1", "D. The three kinds.", "D", 1, 1),
    ("video_mme", "001-1", "The three kinds", "D", 1, 0),
    ("video_mme", "001-1", "The best answer is D.", "D", 1, 1),
    ("video_mme", "001-1", "The correct option: D", "D", 1, 1),
    ("video_mme", "001-1", "Definitely berries", "C", 0, 1),
    ("video_mme", "001-1", "Drawn by hand", None, 0, 1),
    ("video_mme", "001-1", "d", "D", 1, 0),
    ("video_mme", "001-1", CUT + "D", None, 0, 1),
    ("video_mme", "001-1", "<answer>D", None, 0, 0),
    ("video_mme", "001-1", "", None, 0, 0),
    # LongVideoBench: truth C, "two cars", of four
    ("longvideobench", "86CxyhFV9MI_0", "C", "C", 1, 1),
    ("longvideobench", "86CxyhFV9MI_0", "Answer: C", "C", 1, 1),
    ("longvideobench", "86CxyhFV9MI_0", "Two cars.", "C", 1, 0),
    ("longvideobench", "86CxyhFV9MI_0", "Cars", None, 0, 1),
    ("longvideobench", "86CxyhFV9MI_0", "not sure", None, 0, 0),  # the authors would draw a letter
    ("longvideobench", "86CxyhFV9MI_0", "E", None, 0, 0),
    ("longvideobench", "86CxyhFV9MI_16", "E", "E", 0, 0),
    ("longvideobench", "86CxyhFV9MI_0", "", None, 0, 0),
    ("longvideobench", "86CxyhFV9MI_0", "<answer>C", None, 0, 0),
    # TempCompass: truth "B. walking slowly"
    ("tempcompass", "multi-choice/101/action/0", "B", "B", 1, 1),
    ("tempcompass", "multi-choice/101/action/0", "B. walking slowly", "B", 1, 1),
    ("tempcompass", "multi-choice/101/action/0", "B) or so", "B", 1, 1),
    ("tempcompass", "multi-choice/101/action/0", "walking slowly", "B", 1, 0),
    ("tempcompass", "multi-choice/101/action/0", "(B)", "B", 1, 0),
    ("tempcompass", "multi-choice/101/action/0", "away from the screen", "D", 0, 0),
    ("tempcompass", "multi-choice/101/action/0", "", None, 0, 0),
    ("tempcompass", "multi-choice/101/action/0", "<answer>B", None, 0, 0),
    ("tempcompass", "yes_no/101/action/0", "yes", "yes", 1, 1),
    ("tempcompass", "yes_no/101/action/0", "Yes, it is.", "yes", 1, 0),
    ("tempcompass", "yes_no/101/action/0", "No", "no", 0, 0),
    ("tempcompass", "yes_no/101/action/1", "<answer>no</answer>", "no", 1, 1),
    ("tempcompass", "yes_no/101/action/1", "nothing of the kind", None, 0, 0),  # a no by the authors' rule
    ("tempcompass", "yes_no/101/action/1", CUT + "no", None, 0, 0),
    ("tempcompass", "yes_no/101/action/1", "", None, 0, 0),
    ("tempcompass", "caption_matching/101/speed/0", "Sentence A: A man runs.", "Sentence A", 1, 1),
    ("tempcompass", "caption_matching/101/speed/0", "Sentence A", "Sentence A", 1, 0),
    ("tempcompass", "caption_matching/101/speed/0", "A.", "Sentence A", 1, 0),
    ("tempcompass", "caption_matching/101/speed/0", "Sentence A: A man runs.\n\nHe is fast.", "Sentence A", 1, 0),
    ("tempcompass", "caption_matching/101/speed/0", "Sentence A\nSentence B", None, 0, 0),
    ("tempcompass", "caption_matching/101/speed/0", "The answer is Sentence A.", "Sentence A", 1, 0),
    ("tempcompass", "caption_matching/101/speed/0", "a man runs", "Sentence A", 1, 0),
    ("tempcompass", "caption_matching/101/speed/0", "Sentence B", "Sentence B", 0, 0),
    ("tempcompass", "caption_matching/101/speed/0", "A man swims.", None, 0, 0),
    ("tempcompass", "caption_matching/101/speed/0", "", None, 0, 0),
    ("tempcompass", "caption_matching/101/direction/0", "(2)", "Option 2", 1, 0),
    ("tempcompass", "caption_matching/101/direction/0", "Option 2 is correct.", "Option 2", 1, 0),
    ("tempcompass", "yes_no/101/action/0", "He runs, so the answer is yes.", "yes", 1, 0),
]


@pytest.mark.parametrize(("name", "identity", "text", "answer", "official", "released"), CASES)
def test_an_answer(asked, name, identity, text, answer, official, released):
    grade = benchmark(name).grade(asked[name][identity], text)
    if answer is not ...:
        assert grade.answer == answer
    assert grade.official == pytest.approx(official, abs=1e-12)
    assert grade.released == pytest.approx(released, abs=1e-12)


def test_the_thresholds_of_the_release_are_those_of_numpy_to_the_bit():
    start, end, interval = 0.5, 0.95, 0.05
    of_numpy = 1 - np.linspace(start, end, int((end - start) / interval + 2))
    assert len(of_numpy) == 10
    for error in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.51, *of_numpy, float("inf")):
        for near in (error, np.nextafter(error, 0), np.nextafter(error, 1)):
            assert thresholds_met(float(near)) == (near <= of_numpy).mean()


def test_official_tolerance_is_the_authors_to_the_bit_and_the_reward_has_its_own():
    assert (mean_relative_accuracy_as_published(6, 5), mean_relative_accuracy(6, 5)) == (0.6, 0.7)
    assert mean_relative_accuracy_as_published(0, 0) == 1
    assert mean_relative_accuracy_as_published(0.1, 0) == 0
    assert mean_relative_accuracy_as_published(0.1, 0, absolute_at_zero=True) == 0.9
    tolerated = 1 - np.linspace(0.5, 0.95, 10)
    differ = 0
    for truth in (0.1, 0.3, 0.7, 1.0, 1.1, 2.0, 3.3, 5.0, 20.0, 150.0):
        for percent in range(0, 205, 5):
            prediction = round(truth * percent / 100, 6)
            of_vsi = (abs(prediction - truth) / truth <= tolerated).mean()
            assert mean_relative_accuracy_as_published(prediction, truth) == of_vsi
            assert mean_relative_accuracy_as_published(prediction, truth, absolute_at_zero=True) == of_vsi
            differ += of_vsi != mean_relative_accuracy(prediction, truth)
    assert differ > 20


@given(st.lists(st.floats(-9, 9), min_size=5, max_size=5), st.lists(st.floats(-9, 9), min_size=5, max_size=5))
def test_motion_is_scored_in_the_authors_floats(given: list[float], true: list[float]):
    tolerated = 1 - np.linspace(0.5, 0.95, 10)
    errors = [abs((p - g) / g) if g else abs(p - g) for p, g in zip(given, true, strict=True)]
    motion, truth = ({plus: value for (plus, _), value in zip(AXES, axes, strict=True)} for axes in (given, true))
    assert accuracy(motion, truth) == np.mean([(error <= tolerated).mean() for error in errors])


PIECES = st.sampled_from(
    [
        *(
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "A",
            "(B)",
            "C.",
            "Answer:",
            "None",
            "yes",
            "no",
            "Sentence A",
        ),
        *(
            "-1.5",
            "1e999",
            "two",
            "move_up:1,",
            "rotate_left:-nan",
            "^",
            "²",
            ":",
            ",",
            "\n",
            " ",
            "\u0000",
            "é",
            "chair",
        ),
    ]
)
ANY = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=12).map("".join), st.lists(PIECES).map(" ".join))


@pytest.mark.parametrize("name", BENCHMARKS)
@given(text=ANY)
def test_any_text_has_a_grade_between_0_and_1_and_what_is_not_read_is_wrong(asked, name, text):
    for question in asked[name].values():
        grade = benchmark(name).grade(question, text)
        assert 0 <= grade.official <= 1 and 0 <= grade.released <= 1
        assert grade.answer is not None or grade.official == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_truth_is_right(asked, name):
    for question in asked[name].values():
        for text in (question.truth, f"<think>Let me see.</think>\n<answer>{question.truth}</answer>"):
            grade = benchmark(name).grade(question, text)
            assert grade.official == 1, question.id
            assert grade.released == 1 or benchmark(name).SECOND != "spacer_eval", question.id


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_empty_or_was_cut_off_is_wrong_in_every_task(asked, name):
    for question in asked[name].values():
        for text in ("", " \n", CUT + question.truth, f"{CUT}</think>", f"{CUT}</think><answer>{question.truth}"):
            grade = benchmark(name).grade(question, text)
            assert (grade.answer, grade.official) == (None, 0), (question.id, text)


HOSTILE = [
    "<answer>",
    "A ",
    "a",
    "(A",
    "A. ",
    "1",
    "1.",
    "^1",
    "one ",
    "Answer",
    "Option ",
    " ",
    "\n",
    "move_up:",
    "-",
    "*",
]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_hostile_text_takes_little_time(asked, name: str):
    """The stated bound: 200,000 characters, some fifty times a published completion, are graded within two seconds."""
    question_of_kind = {q.kind: q for q in asked[name].values()}
    for piece in HOSTILE:
        text = piece * (200_000 // len(piece))
        for question in question_of_kind.values():
            start = time.process_time()
            benchmark(name).grade(question, text)
            assert time.process_time() - start < 2, (piece, question.kind)


def test_nothing_but_a_benchmark_is_imported():
    for name in ("files", "question", "os", "..data.prepare", "rooms", "vsi_bench.answers", ""):
        with pytest.raises(UserError, match="Valid here: blink, embspatial, longvideobench, "):
            benchmark(name)
    with pytest.raises(UserError, match="did you mean vsi_bench"):
        benchmark("vsibench")
