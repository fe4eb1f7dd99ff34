"""Layouts: text alone, whose completion is begun with a map that is not learned."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import Counter

import pytest
import torch

from spacer.config.settings import LayoutsSettings
from spacer.data.processing import Prompt, prepare
from spacer.data.prompts import ends_with, map_literal, worked_completion
from spacer.data.samples import TEXT_ALONE, Sample
from spacer.data.scenes.layouts import read_layouts
from spacer.data.scenes.steps import HEADINGS
from spacer.data.tokens import begun_with
from spacer.errors import UserError
from spacer.tree.mrope import PositionRule
from tests.unit.configs import PROMPTS as FULL
from tests.unit.configs import only_problem, plain

PROMPTS = {"map": "$question$options", "plain": "$question$options", "multiple choice": "", "numerical": ""}
RULE = PositionRule(2, 2.0, False)
SETTINGS = LayoutsSettings(seed=1, train_scenes=12, heldout_scenes=4, size_spread=2.2, prompts=PROMPTS)


@pytest.fixture(scope="module")
def layouts() -> tuple[Sample, ...]:
    return read_layouts(SETTINGS, "train")


def test_each_room_is_asked_about_once_in_each_way(layouts: tuple[Sample, ...]) -> None:
    assert len({item.id for item in layouts}) == len(layouts) > 50
    assert max(Counter((item.scene, item.question_type) for item in layouts).values()) == 1
    kinds = {item.question_type for item in layouts}
    assert {"object_rel_direction_hard", "object_rel_distance", "route_planning", "obj_appearance_order"} <= kinds
    assert not {"object_size_estimation", "room_size_estimation"} & kinds
    assert {item.data_type for item in layouts} == {TEXT_ALONE}


def test_exercises_come_beside_the_questions_to_train_on() -> None:
    settings = dataclasses.replace(SETTINGS, ways=2)
    found = read_layouts(settings, "train")
    plain = [item for item in found if item.question_type != "ways"]
    assert len({item.id for item in found}) == len(found) > len(plain) > 50
    assert all(item.true_map and item.begun.endswith("</map>") for item in found if item.question_type == "ways")
    assert not any(item.question_type == "ways" for item in read_layouts(settings, "heldout"))


def test_the_map_ends_with_what_is_asked_about(layouts: tuple[Sample, ...]) -> None:
    for item in layouts:
        drawn = json.loads(item.begun.partition("<map>")[2].partition("</map>")[0])
        assert drawn == item.true_map
        assert tuple(drawn)[len(drawn) - len(item.about) :] == item.about


def test_they_are_the_same_each_time_and_other_rooms_are_held_out(layouts: tuple[Sample, ...]) -> None:
    assert read_layouts(SETTINGS, "train") == layouts
    heldout = read_layouts(SETTINGS, "heldout")
    assert heldout and not {str(item.true_map) for item in heldout} & {str(item.true_map) for item in layouts}


def test_the_map_is_given_and_the_rest_is_learned(layouts: tuple[Sample, ...], processor: object) -> None:
    for item in layouts[:20]:
        assert item.true_map is not None and map_literal(ends_with(item.true_map, item.about)) in item.begun
        whole = worked_completion(item)
        assert whole.startswith(item.begun)
        plain = prepare(item, processor, SETTINGS, rule=RULE)  # type: ignore[arg-type]
        shown = prepare(item, processor, SETTINGS, rule=RULE, target=whole)  # type: ignore[arg-type]
        assert isinstance(plain, Prompt) and isinstance(shown, Prompt) and shown.target_ids is not None
        decoded = processor.tokenizer.decode(torch.cat([shown.ids_L, shown.target_ids]))  # type: ignore[attr-defined]
        assert decoded.endswith(f"{whole}<|im_end|>")
        assert processor.tokenizer.decode(plain.ids_L).endswith(item.begun)  # type: ignore[attr-defined]
        learned = processor.tokenizer.decode(shown.target_ids)  # type: ignore[attr-defined]
        assert item.solution in learned and "<map>" not in learned


def test_the_tokens_are_those_of_the_whole(processor: object) -> None:
    tokenizer = processor.tokenizer  # type: ignore[attr-defined]
    for begun in ("", "<think>", "<think><map>{}</map>", "<think><map>{}</map> bed"):
        whole = "<think><map>{}</map> bed1,2: 1.</think><answer>1</answer>"
        given, rest = begun_with(tokenizer, begun, whole)
        assert rest is not None
        assert [*given.tolist(), *rest.tolist()] == [*tokenizer(whole)["input_ids"], tokenizer.eos_token_id]
        assert begun.startswith(tokenizer.decode(given))


def test_a_completion_that_starts_otherwise_is_refused(processor: object) -> None:
    with pytest.raises(UserError, match="does not start with"):
        begun_with(processor.tokenizer, "<think>", "<answer>B</answer>")  # type: ignore[attr-defined]


def test_layouts_are_not_for_grpo() -> None:
    assert "choose dataset=rooms" in only_problem(dataset=plain(LayoutsSettings(prompts=FULL)))


def test_turns_and_letters_are_practised_without_a_map() -> None:
    found = read_layouts(dataclasses.replace(SETTINGS, turns=2, letters=6), "train")
    assert len({item.id for item in found}) == len(found)
    turns = [item for item in found if item.question_type == "turns"]
    assert len(turns) == 2 * SETTINGS.train_scenes
    for item in turns:
        assert item.true_map is None and item.begun == "<think>"
        told = re.findall(r"([a-x])(?:=([0-7]))?", str(item.reasoning))
        assert " ".join("=".join(filter(None, pair)) for pair in told) == item.reasoning
        for (before, _), (after, eighths) in itertools.pairwise(told):
            assert (HEADINGS.index(after) - HEADINGS.index(before)) * 15 % 360 // 45 == int(eighths)
    letters = [item for item in found if "_letters_" in item.id]
    assert len(letters) > 3 * SETTINGS.train_scenes  # some rooms have no question with options
    assert len({item.solution for item in letters}) == 4
    for item in letters:
        assert item.true_map is None and item.options
        (right,) = (option for option in item.options if option.startswith(f"{item.solution}. "))
        content = right.partition(". ")[2]
        if item.question_type == "object_rel_distance":
            lengths = re.findall(r"([A-E])[+-]\d[+-]\d (\d+\.\d)", item.begun)
            assert min(lengths, key=lambda pair: float(pair[1]))[0] == item.solution
            through = ""
        elif item.question_type == "obj_appearance_order":
            assert re.sub(r"\d", "", item.begun).endswith(f"{item.solution} {content.replace(', ', ' ')}!")
            through = ""
        else:
            assert item.begun.endswith(f"{content}.")
            passed = [option.replace(". ", " ") + "," for option in item.options[: "ABCDE".index(item.solution)]]
            through = " ".join(["", *passed, f"{item.solution} {content}!"])
        end = f" That is {item.solution}.</think><answer>{item.solution}</answer>"
        assert worked_completion(item) == f"{item.begun}{through}{end}"
    assert not any(
        item.true_map is None for item in read_layouts(dataclasses.replace(SETTINGS, turns=2, letters=6), "heldout")
    )
