"""The metrics of each benchmark, official and released, worked out by hand from a few predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Question
from spacer.config.choices import BENCHMARKS
from spacer.evaluation.scoring import Scored, opened_in_prompts, score_predictions
from tests.benchmarks_as_distributed import LVB_CATEGORIES, MAKERS, STI_TASKS, vsi_bench_of_today

Scorer = Callable[..., Scored]


@pytest.fixture
def scored(tmp_path: Path) -> Scorer:
    """Scores predictions of a small benchmark, or of the questions of it that are kept."""

    def score(name: str, predictions: Mapping[str, str], keep: Callable[[Question], bool] = lambda _: True) -> Scored:
        MAKERS[name](tmp_path)
        questions, _ = benchmark(name).read(tmp_path)
        return score_predictions(name, [question for question in questions if keep(question)], predictions)

    return score


def close(values: Mapping[str, float], **expected: float) -> None:
    """Compares metrics; the names have __ for the slashes."""
    expected = {name.replace("__", "/"): value for name, value in expected.items()}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)


VSI = {"0": "B", "1": "A", "2": "B", "3": "B", "4": "?", "5": "B", "6": "1.5", "7": "4", "8": "120"}  # none of 9


def test_vsi_bench(scored: Scorer) -> None:
    made = scored("vsi_bench", VSI)
    # direction: two of three levels. 1.5 for 2.0 is 0.25 off: .6. 120 for 150 is 0.2 off: .6, in floats
    shares = {"object_rel_direction": 2 / 3, "object_rel_distance": 1, "route_planning": 0, "obj_appearance_order": 1}
    shares |= {"object_abs_distance": 0.6, "object_counting": 1, "object_size_estimation": 0.6}
    shares |= {"room_size_estimation": 0}
    assert made.official_values == pytest.approx(
        {"overall": sum(shares.values()) / 8} | {f"task/{task}": share for task, share in shares.items()}
    )
    close(made.official_values, overall=(2 / 3 + 4.2) / 8)
    # the release takes the mean over questions: two of three directions, and seven other tasks of one each
    close(made.released_values, overall=(2 + 4.2) / 10, task__object_size_estimation=0.6)
    assert made.released_values.keys() == made.official_values.keys()
    assert (made.not_extracted, made.answered.count(False)) == (1, 1)


def test_the_debiased_questions_of_vsi_bench_are_told_beside_all(tmp_path: Path) -> None:
    vsi_bench_of_today(tmp_path)
    questions, _ = benchmark("vsi_bench").read(tmp_path)
    made = score_predictions("vsi_bench", questions, VSI)
    assert made.official_values["overall"] == pytest.approx((2 / 3 + 4.2) / 8)
    debiased = {name: value for name, value in made.official_values.items() if name.startswith("debiased/")}
    tasks = {"object_rel_direction": 0, "object_rel_distance": 1, "obj_appearance_order": 1}
    tasks |= {"object_counting": 1, "room_size_estimation": 0}
    expected = {"debiased/overall": 3 / 5} | {f"debiased/task/{task}": share for task, share in tasks.items()}
    assert debiased == pytest.approx(expected)
    assert not any(name.startswith("debiased/") for name in made.released_values)
    pruned = [question for question in questions if question.groups["half"] == "pruned"]
    left = score_predictions("vsi_bench", pruned, VSI).official_values
    assert "overall" in left and not any(name.startswith("debiased/") for name in left)


def test_vsi_bench_without_a_level_or_a_task(scored: Scorer) -> None:
    made = scored("vsi_bench", VSI, lambda question: question.id in ("0", "1", "7"))
    # direction: easy right, medium wrong, no hard
    assert made.official_values == {"overall": 0.75, "task/object_counting": 1, "task/object_rel_direction": 0.5}
    assert made.released_values == pytest.approx(made.official_values | {"overall": 2 / 3})


def test_sti_bench(scored: Scorer) -> None:
    made = scored("sti_bench", {"1": "C", "2": "C", "8": "C", "9": "D"})
    shares = dict.fromkeys(STI_TASKS, 0.0)
    shares |= {"3D Video Grounding": 1, "Dimensional Measurement": 1, "Trajectory Description": 0.5}
    tasks = {f"task/{task}": share for task, share in shares.items()}
    assert made.official_values == pytest.approx({"overall": 3 / 9} | tasks)
    # of the subtotal's six, Dimensional Measurement has 1 and Trajectory Description 1/2; the mean is over nine
    subtotal = 1.5 / 6
    assert made.released_values == pytest.approx({"overall": (2.5 + subtotal) / 9} | tasks | {"level/sr_sub": subtotal})


def test_spar_bench(scored: Scorer) -> None:
    made = scored(
        "spar_bench",
        {
            "depth_prediction_oc": "1.8",  # .9
            "distance_prediction_oo_mv": "1, so 2",
            "view_change_infer": "move_right:0.4,move_forward:2.0,rotate_left:30",
            "position_matching": "A",
            "obj_spatial_relation_oo": "",  # right, to the release
        },
    )
    close(made.official_values, overall=3.9 / 20, level__Low=1.9 / 8, level__Middle=2 / 3, level__High=0)
    # single view: four numbers and four choices; several: the rest
    close(made.official_values, image_type__single_view=0.9 / 8, image_type__multi_view=3 / 12)
    # the release has two tasks in the middle, of which position_matching is right
    close(made.released_values, overall=4.9 / 20, level__Low=1.9 / 8, level__Middle=1 / 2, level__High=1 / 9)
    close(made.released_values, image_type__single_view=1.9 / 8, task__view_change_infer=1)
    assert len(made.official_values) == 1 + 3 + 20 + 2
    assert made.not_extracted == 1


def test_spar_bench_without_levels(scored: Scorer) -> None:
    made = scored(
        "spar_bench", {"view_change_infer": "move_up:1"}, lambda question: question.task == "view_change_infer"
    )
    # right, forward and yaw 0; up 1 is 1 off; pitch 1
    assert made.official_values == pytest.approx(
        dict.fromkeys(("overall", "level/Middle", "task/view_change_infer", "image_type/multi_view"), 0.2)
    )
    assert "level/Middle" not in made.released_values


def test_video_mme(scored: Scorer) -> None:
    made = scored("video_mme", {"001-1": "D", "001-2": "A", "002-1": "D", "002-2": "<answer>D</answer>"})
    expected = {"overall": 3 / 6, "duration/short": 1 / 2, "duration/medium": 1, "duration/long": 0}
    expected |= {"task/Counting Problem": 2 / 3, "task/OCR Problems": 1 / 3}
    assert made.official_values == made.released_values == pytest.approx(expected)


def test_longvideobench(scored: Scorer) -> None:
    right = [f"86CxyhFV9MI_{number}" for number in (0, 2, 4, 6, 8)]  # S2E S2A O2E T2O, all of 15 s, and E3E of 600 s
    made = scored("longvideobench", dict.fromkeys(right, "C"))
    close(made.official_values, overall=5 / 17, level__perception=4 / 8, level__relation=1 / 9)
    close(made.official_values, duration__15=1, duration__60=0, duration__600=1 / 5, duration__3600=0)
    assert [name for name in made.official_values if name.startswith("duration/")] == [
        "duration/15", "duration/60", "duration/600", "duration/3600"
    ]  # fmt: skip
    tasks = {f"task/{category}": float(category in ("S2E", "S2A", "O2E", "T2O", "E3E")) for category in LVB_CATEGORIES}
    assert made.released_values == pytest.approx(
        {"overall": 5 / 17, "level/perception": 1 / 2, "level/relation": 1 / 9} | tasks
    )


def test_tempcompass(scored: Scorer) -> None:
    made = scored(
        "tempcompass",
        {
            "multi-choice/101/action/0": "B",
            "multi-choice/102/order/0": "walking slowly",  # not right to the release
            "yes_no/101/action/0": "Yes",  # neither
            "yes_no/101/action/1": "yes",  # wrong
            "caption_matching/101/speed/0": "Sentence A: A man runs.",
            "captioning/101/action/0": "A man walks.",  # is not scored
        },
    )
    dimensions = {"action": 2 / 3, "speed": 1 / 2, "direction": 0, "order": 1 / 3, "attribute_change": 0}
    expected = {
        "overall": 4 / 11,
        "format/multi-choice": 2 / 5,
        "format/yes_no": 1 / 3,
        "format/caption_matching": 1 / 3,
    }
    for name, share in dimensions.items():
        expected |= {f"dimension/{name}": share, f"task/{name}": share}
    assert made.official_values == pytest.approx(expected)
    assert made.released_values == pytest.approx({"overall": 2 / 11})
    assert made.strangers == ("captioning/101/action/0",)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_no_prediction_is_wrong_even_where_the_release_has_an_empty_one_right(scored: Scorer, name: str) -> None:
    made = scored(name, {})
    values = [*made.official_values.values(), *made.released_values.values()]
    assert set(values) == {0.0} or (name == "site_bench" and max(values) < 0)  # that is less than guessing earns
    assert not any(made.answered) and made.not_extracted == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_weights_of_a_metric_add_up_to_1_on_any_one_question_and_on_all(scored: Scorer, name: str) -> None:
    everything = scored(name, {})
    parts = [everything, *(scored(name, {}, lambda q, only=q: q.id == only.id) for q in everything.questions)]
    for part in parts:
        for metric in (*part.official, *part.released):
            assert metric.offset + sum(weight for weight, _ in metric.parts) == pytest.approx(1)
            assert all(of and max(of) < len(part.questions) for _, of in metric.parts)


def test_thinking_that_the_prompts_opened_and_a_prediction_did_not_end_gives_no_answer(scored: Scorer) -> None:
    made = {"0": "A or B?</think>B", "1": "The lamp.</think>\n\n<answer>B</answer>", "3": "Hm.</think>B"}
    cut = {"2": "The answer is B", "7": "There are 4 chairs at", "8": "<think>150"}
    assert opened_in_prompts(made | {"2": cut["2"]})
    assert not opened_in_prompts(cut) and not opened_in_prompts(cut | {"0": made["0"]})
    assert not opened_in_prompts({"0": "<think>A?</think>B"}) and not opened_in_prompts({})
    # few come to an end within their tokens: those that do not are the long ones
    some = {f"{n}": "It may be near." * 9 for n in range(10)}
    assert opened_in_prompts(some | {"0": made["0"]}) and not opened_in_prompts(dict.fromkeys(some, "B") | made)
    assert not opened_in_prompts(some | {"0": made["0"], "1": cut["8"]})
    scores = {
        opened: score_predictions("vsi_bench", scored("vsi_bench", {}).questions, made | cut, opened_think=opened)
        for opened in (False, True)
    }
    assert [grade.answer for grade in scores[False].grades] == ["B", "B", "B", "B", None, None, None, "4", None, None]
    assert [grade.answer for grade in scores[True].grades] == ["B", "B", None, "B", None, None, None, None, None, None]
    assert (scores[False].cut_off, scores[True].cut_off, scores[True].not_extracted) == (0, 3, 3)
    # the release reads what there is
    assert scores[True].released_scores == scores[False].released_scores
