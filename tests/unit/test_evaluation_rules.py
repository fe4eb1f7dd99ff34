"""How held-out questions may be asked: metrics, controls, and evaluations while a run trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from spacer.config.derived import controls_of
from spacer.config.rules.evaluation import METRICS
from spacer.config.settings import BenchmarkSettings, JsonlSettings
from spacer.errors import UserError
from spacer.evaluation.heldout import check_heldout
from spacer.statistics import summaries
from tests.unit.configs import load, only_problem
from tests.unit.data.making import sample


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("reward/totl", "answer/TYPE, by a type of question, perhaps reward/total"),
        ("reward/overlong", "is not measured by the held-out questions"),
        ("answer/", "is not measured by the held-out questions"),
    ],
)
def test_a_misspelt_metric_is_told_before_anything_is_loaded(metric: str, told: str) -> None:
    assert told in only_problem(evaluation__metric=metric)


def test_a_part_that_the_reward_has_not_is_not_measured() -> None:
    told = only_problem(reward__map=False, evaluation__metric="reward/map")
    assert "evaluation.metric=reward/map is not measured" in told and "reward/format" in told
    load(reward__map=False, evaluation__metric="map/quality")


def test_metrics_of_a_runs_own_rewards_and_types_of_question_are_known(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def turns(thinking, **fields):\n    return 1.0\n")
    functions = [{"path": f"{tmp_path / 'mine.py'}:turns", "weight": 1.0}]
    load(reward__functions=functions, evaluation__metric="reward/turns")
    load(evaluation__metric="answer/any_type")
    overlong = {"max_tokens": 64, "buffer": 0.2, "penalty": 0.5}
    load(reward__overlong=overlong, evaluation__metric="reward/overlong")


def test_the_metrics_that_rules_know_are_those_that_are_measured() -> None:
    assert set(METRICS) == set(summaries.METRICS)


@pytest.mark.parametrize("name", ["every_n_steps", "patience", "subset"])
def test_evaluations_while_training_are_refused_by_a_stage_that_does_not_train(name: str) -> None:
    told = only_problem(stage="evaluate", **{f"evaluation__{name}": 7})
    assert told.startswith(f"evaluation.{name}=7: of evaluations while a run trains, and stage.name=evaluate trains no")
    assert "choose stage=train or stage=sft" in told
    load(stage="plan", evaluation__every_n_steps=7)


def test_rooms_are_asked_about_blindly_unless_it_is_refused() -> None:
    assert controls_of(load()) == ("other_video", "prior")
    assert controls_of(load(stage="evaluate")) == ("other_video", "prior")
    assert controls_of(load(evaluation__controls=[])) == ()
    assert controls_of(load(evaluation__controls=["grey"])) == ("grey",)
    assert controls_of(load(dataset__heldout_scenes=2)) == ()  # which may be questions about one room
    assert controls_of(dataclasses.replace(load(), benchmark=BenchmarkSettings(name="vsi_bench"))) == ()
    assert controls_of(dataclasses.replace(load(), dataset=JsonlSettings(root="nowhere"))) == ()


@pytest.mark.parametrize("text", [True, False])
def test_controls_of_media_are_refused_for_text_alone(text: bool) -> None:
    made = [sample("a", question_type="route", **({"data_type": "text"} if text else {})), sample("b")]
    settings = load(evaluation__controls=["grey", "prior"])
    check_heldout(settings, made)
    if text:
        with pytest.raises(
            UserError, match=r"grey change a question's video or images, and the held-out .* text alone"
        ):
            check_heldout(settings, made[:1])
        check_heldout(load(evaluation__controls=["prior"]), made[:1])


def test_a_metric_of_a_type_that_no_held_out_question_has_is_refused() -> None:
    settings = load(evaluation__metric="answer/rute", evaluation__every_n_steps=2)
    with pytest.raises(UserError, match=r"answer/rute is not measured .* reward/total, .*, answer/object_counting$"):
        check_heldout(settings, [sample()])
    together = load(evaluation__metric="answer/spatial", evaluation__every_n_steps=2)
    check_heldout(
        together, [sample(), sample(question_type="route_planning"), sample(question_type="obj_appearance_order")]
    )
    with pytest.raises(UserError, match="answer/spatial is not measured"):  # one type only
        check_heldout(together, [sample(), sample(question_type="route_planning")])
