"""Samples → prompt texts, and the worked completions for supervised training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from string import Template

import numpy as np

from spacer.data.samples import CognitiveMap, Sample
from spacer.errors import UserError


def check_templates(samples: Iterable[Sample], prompts: Mapping[str, str], at: str) -> None:
    """Raises UserError if the questions need templates that `prompts` lacks; `at` is their place in the settings."""
    needed: dict[str, str] = {}
    for sample in samples:
        needed.setdefault(_template(sample), sample.id)
        needed.setdefault(sample.problem_type, sample.id)
    if missing := sorted(needed.keys() - prompts.keys()):
        named = ", ".join(f"{name!r} (question {needed[name]})" for name in missing)
        raise UserError(
            f"{at}.prompts lacks templates that the data need: {named}. Add them to {at}.prompts_file; "
            "conf/dataset/prompts/default.yaml is an example"
        )


def prompt_text(sample: Sample, prompts: Mapping[str, str]) -> str:
    """Fills the template for the sample: `map` where the scene has a true map, else `plain`.

    Templates are in `conf/dataset/prompts/`; they may use `$question`, `$options`, `$categories` and `$answer`, which
    is the instruction line for the sample's problem type.

    Raises:
        KeyError: a template uses another name.
    """
    template = prompts[_template(sample)]
    options = "".join(f"\n{option}" for option in sample.options)
    categories = ", ".join(sorted(sample.true_map or ()))
    filled = Template(template).substitute(
        question=sample.problem, options=options, categories=categories, answer=prompts[sample.problem_type]
    )
    return filled.strip()


def _template(sample: Sample) -> str:
    return "plain" if sample.true_map is None else "map"


def map_literal(true_map: CognitiveMap) -> str:
    """A cognitive map as models are to write it, without spaces, which saves tokens.

    >>> map_literal({"bed": [[1, 2]]})
    '{"bed":[[1,2]]}'
    """
    return json.dumps(dict(true_map), separators=(",", ":"))


def ends_with(true_map: CognitiveMap, about: Sequence[str]) -> CognitiveMap:
    """The map with some categories last, in their order: what is reasoned about stands next to the reasoning, at places
    that do not depend on what else is drawn."""
    others = [name for name in true_map if name not in about]
    return {name: true_map[name] for name in (*others, *(name for name in about if name in true_map))}


def worked_completion(sample: Sample) -> str:
    """The completion to imitate: the map, if there is one, the reasoning, if there is any, and the solution.

    With neither map nor reasoning it is the solution alone, as in SpaceR's SFT: an empty `<think></think>` would teach
    the model not to think.
    """
    drawn = "" if sample.true_map is None else _drawn(ends_with(sample.true_map, sample.about))
    thought = " ".join(part for part in (drawn, sample.reasoning) if part)
    return f"{f'<think>{thought}</think>' if thought else ''}<answer>{sample.solution}</answer>"


def _drawn(cells: CognitiveMap) -> str:
    return f"<map>{map_literal(cells)}</map>"


def not_opened(completion: str, opened: str) -> str:
    """A completion to imitate after a prompt that already opens tags: without those tags, or closing them first.

    >>> not_opened("<think>near</think><answer>B</answer>", "<think>\\n")
    'near</think><answer>B</answer>'
    >>> not_opened("<answer>B</answer>", "<think>\\n")
    '</think><answer>B</answer>'
    """
    for tag in opened.split():
        closing = tag.replace("<", "</")
        completion = completion.removeprefix(tag) if completion.startswith(tag) else closing + completion
    return completion


class ShownTarget:
    """A sample's target in supervised training: its worked completion or, after `after` draws, sometimes a guess.

    `share` is the probability of a guess. Tags that prompts end with, `opened`, are left out of the target.

    A guess says so first. Its map has the first half of the categories, rounded up, so that some that the question is
    about are missing, which come last. Its answer is the one to a random question of the same type, or, for multiple
    choice, a random letter: right only by chance.
    """

    def __init__(self, samples: tuple[Sample, ...], share: float, after: int, opened: str = "") -> None:
        self._share = share
        self._after = after
        self._opened = opened
        self._answers: dict[str, list[str]] = {}
        for item in samples:
            self._answers.setdefault(item.question_type, []).append(item.solution)

    def __call__(self, sample: Sample, position: int, rng: np.random.Generator) -> str:
        """The completion to imitate at the `position`-th draw of the run."""
        return not_opened(self._whole(sample, position, rng), self._opened)

    def _whole(self, sample: Sample, position: int, rng: np.random.Generator) -> str:
        if position < self._after or rng.random() >= self._share:
            return worked_completion(sample)
        if sample.problem_type == "multiple choice":
            return _guess(sample, chr(ord("A") + int(rng.integers(len(sample.options)))))
        answers = self._answers[sample.question_type]
        return _guess(sample, answers[int(rng.integers(len(answers)))])


def _guess(sample: Sample, answer: str) -> str:
    drawn = ""
    if sample.true_map is not None:
        cells = ends_with(sample.true_map, sample.about)
        drawn = " " + _drawn(dict(itertools.islice(cells.items(), (len(cells) + 1) // 2)))
    return f"<think>I guess.{drawn}</think><answer>{answer}</answer>"


class GeneratedTarget:
    """A sample's target in supervised training on a model's own completions: one of those given for it, at random.

    Completions start with the tags that prompts open, which are left out of the target.
    """

    def __init__(self, targets: Mapping[str, Sequence[str]], opened: str = "") -> None:
        self._targets = targets
        self._opened = opened

    def __call__(self, sample: Sample, position: int, rng: np.random.Generator) -> str:
        """The completion to imitate at the `position`-th draw of the run."""
        among = self._targets[sample.id]
        completion = among[int(rng.integers(len(among)))]
        if self._opened and completion.startswith(self._opened):
            return completion.removeprefix(self._opened)  # with the white space that follows the tags in prompts
        return not_opened(completion, self._opened)
