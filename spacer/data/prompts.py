"""Samples → the text that a model is asked, and the worked completions that supervised training shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template

import numpy as np

from spacer.data.samples import CognitiveMap, Sample


def prompt_text(sample: Sample, prompts: Mapping[str, str]) -> str:
    """Fills the template for the sample: `map` where the scene has a true map, else `plain`.

    Templates are in `conf/dataset/prompts/`, with `$question`, `$options`, `$categories` and `$answer`, the last
    being the line for the sample's problem type.

    Raises:
        KeyError: a template names something else.
    """
    template = prompts["plain" if sample.true_map is None else "map"]
    options = "".join(f"\n{option}" for option in sample.options)
    categories = ", ".join(sorted(sample.true_map or ()))
    filled = Template(template).substitute(
        question=sample.problem, options=options, categories=categories, answer=prompts[sample.problem_type]
    )
    return filled.strip()


def map_literal(true_map: CognitiveMap) -> str:
    """A cognitive map as the models write it, without spaces: tokens are dear.

    >>> map_literal({"bed": [[1, 2]]})
    '{"bed":[[1,2]]}'
    """
    return json.dumps(dict(true_map), separators=(",", ":"))


def worked_completion(sample: Sample) -> str:
    """The completion to imitate: the map where there is one, the reasoning where there is any, the solution.

    With neither, the solution alone, as SpaceR's SFT has it: an empty thought would be a habit not to think.
    """
    drawn = "" if sample.true_map is None else f"<map>{map_literal(sample.true_map)}</map>"
    thought = f"{drawn}{sample.reasoning or ''}"
    return f"{f'<think>{thought}</think>' if thought else ''}<answer>{sample.solution}</answer>"


class ShownTarget:
    """What supervised training shows for a sample: its worked completion or, past `after` uses, a bare guess.

    A guess is another sample's answer to a question of the same type, drawn at random, or for multiple choice one of
    the letters; it is right only by chance.
    """

    def __init__(self, samples: tuple[Sample, ...], share: float, after: int) -> None:
        self._share = share
        self._after = after
        self._answers: dict[str, list[str]] = {}
        for item in samples:
            self._answers.setdefault(item.question_type, []).append(item.solution)

    def __call__(self, sample: Sample, position: int, rng: np.random.Generator) -> str:
        """The completion to imitate at the `position`-th use of any sample."""
        if position < self._after or rng.random() >= self._share:
            return worked_completion(sample)
        if sample.problem_type == "multiple choice":
            return self._guess(chr(ord("A") + int(rng.integers(len(sample.options)))))
        answers = self._answers[sample.question_type]
        return self._guess(answers[int(rng.integers(len(answers)))])

    @staticmethod
    def _guess(answer: str) -> str:
        return f"<think>I guess.</think><answer>{answer}</answer>"
