"""Templates of one's own: read from a file, with everything that is wrong with them told at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from PIL import Image

from spacer.config.settings import RoomsSettings
from spacer.data.processing import Prompt, prepare
from spacer.data.prompts import check_templates
from spacer.errors import UserError
from tests.unit.configs import PROMPTS, load, only_problem, problems
from tests.unit.data.making import RULE, sample

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

OWN = {**PROMPTS, "plain": "Q: $question$options $answer", "map": "$question ($categories) costs $$5"}


def written(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True))
    return str(path)


def test_a_file_takes_the_place_of_the_templates(tmp_path: Path) -> None:
    own = written(tmp_path / "own.yaml", OWN)
    settings = load(dataset__prompts_file=own, dataset__prompts={"anything": "is replaced"})
    assert settings.dataset.prompts == OWN and settings.dataset.prompts_file == own
    assert load(dataset__prompts_file=None).dataset.prompts == PROMPTS


def test_a_part_of_a_mix_may_have_its_own(tmp_path: Path) -> None:
    own = written(tmp_path / "own.yaml", {**OWN, "system": "Be brief."})
    room = {"kind": "rooms", "root": "x", "prompts": PROMPTS}
    mix = {
        "kind": "mix",
        "parts": {"a": room, "b": {**room, "prompts_file": own}},
        "weights": {"a": 1, "b": 1},
    }
    dataset = load(dataset=mix).dataset
    assert dataset.parts["a"].prompts == PROMPTS
    assert dataset.parts["b"].prompts == {**OWN, "system": "Be brief."}
    mix["parts"]["b"]["prompts_file"] = "/none.yaml"
    assert only_problem(dataset=mix).startswith("dataset.parts.b.prompts_file: /none.yaml cannot be read")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("plain: [", "cannot be read as YAML"),
        ("a\tb: {", "cannot be read as YAML"),
        ("- plain", "must hold names and templates"),
        ("just text", "must hold names and templates"),
        ("", "must hold names and templates"),
    ],
)
def test_what_is_no_file_of_templates_is_one_mistake(content: str, words: str, tmp_path: Path) -> None:
    own = written(tmp_path / "own.yaml", content)
    found = only_problem(dataset__prompts_file=own)
    assert found.startswith(f"dataset.prompts_file: {own} ") and words in found


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_file_that_is_not_there_is_one_mistake(name: str, tmp_path: Path) -> None:
    assert only_problem(dataset__prompts_file=str(tmp_path / name)).startswith("dataset.prompts_file: ")


def test_bytes_that_are_no_text_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(b"plain: \xff\xfe")
    assert "cannot be read as YAML" in only_problem(dataset__prompts_file=str(tmp_path / "own.yaml"))


def test_everything_wrong_with_templates_is_told_at_once_and_with_other_mistakes(tmp_path: Path) -> None:
    templates = {name: text for name, text in OWN.items() if name not in ("OCR", "regression")}
    templates |= {"map": "$question $nonsense ${other}", "plain": "$options 5$", "extra": "x"}
    found = problems(
        dataset__prompts_file=written(tmp_path / "own.yaml", templates),
        objective__group_size=7,
        dataset__video__fps=0,
    )
    expected = [
        "'extra' is not known",
        "'map' names $nonsense",
        "'map' names $other",
        "'plain' has a $ that begins no name",
        "'plain' does not hold $question",
    ]
    for words in expected:
        assert sum(problem.startswith(f"dataset.prompts: {words}") for problem in found) == 1, (words, found)
    assert len(found) == len(expected) + 2
    assert all("conf/dataset/prompts/default.yaml" in found_ for found_ in found if "dataset.prompts" in found_)


@pytest.mark.parametrize("name", ["map", "plain", "OCR"])
@pytest.mark.parametrize("value", [3, None, ["$question"], True])
def test_a_template_that_is_no_text_is_one_mistake(name: str, value: Any, tmp_path: Path) -> None:
    own = written(tmp_path / "own.yaml", {**OWN, name: value})
    assert only_problem(dataset__prompts_file=own).startswith(f"dataset.prompts.{name}: is ")
    assert only_problem(dataset__prompts={**OWN, name: value}).startswith(f"dataset.prompts.{name}: is ")


def test_names_that_are_no_text_are_not_known(tmp_path: Path) -> None:
    """To YAML, `on` is true and `1` a number."""
    own = written(tmp_path / "own.yaml", yaml.safe_dump(OWN) + "2: x\non: y\n")
    found = problems(dataset__prompts_file=own)
    assert len(found) == 2 and all("is not known" in problem for problem in found)


def test_only_the_templates_that_the_data_use_are_needed(tmp_path: Path) -> None:
    own = written(tmp_path / "own.yaml", {"plain": "$question $answer", "numerical": "Give the number."})
    prompts = load(dataset__prompts_file=own).dataset.prompts
    counted = sample("a", problem_type="numerical", true_map=None)
    check_templates([counted], prompts, "dataset")
    mapped = sample("b", problem_type="OCR", true_map={"chair": [(1, 2)]})
    with pytest.raises(UserError, match=r"dataset\.prompts lacks .*: 'OCR' \(question b\), 'map' \(question b\)\. Add"):
        check_templates([counted, mapped], prompts, "dataset")
    none = written(tmp_path / "none.yaml", {"numerical": "Give the number."})
    assert "neither 'map' nor 'plain' is there" in only_problem(dataset__prompts_file=none)


# ---- what the model is told


def asked(folder: Path, processor: Qwen2_5_VLProcessor, settings: RoomsSettings, **templates: str) -> str:
    Image.new("RGB", (56, 56)).save(folder / "x.png")
    item = sample(data_type="image", path=folder / "x.png", problem="How many chairs?")
    own = dataclasses.replace(settings, prompts={**settings.prompts, **templates})
    found = prepare(item, processor, own, rule=RULE)
    assert isinstance(found, Prompt)
    return processor.tokenizer.decode(found.ids_L)


def test_a_system_turn_stands_before_the_question(
    processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    without = asked(tmp_path, processor, settings)
    told = asked(tmp_path, processor, settings, system="You see $5 rooms.")
    assert told == f"<|im_start|>system\nYou see $5 rooms.<|im_end|>\n{without}"
    assert without.startswith("<|im_start|>user\n") and without.count("<|im_start|>") == 2


def test_own_templates_reach_the_prompt(
    processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    told = asked(tmp_path, processor, settings, plain="Look. $question It costs $$5. $answer", numerical="A number.")
    assert "<|vision_end|>Look. How many chairs? It costs $5. A number.<|im_end|>" in told
