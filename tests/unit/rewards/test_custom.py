"""Rewards from the user's own file: what they are given, what they may return, and the messages where they may not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spacer.config.choices import Advantage
from spacer.config.rules.rewards import TAKEN, reward_function_faults
from spacer.config.settings import ObjectiveSettings, OverlongSettings, RewardFunctionSettings, RewardSettings
from spacer.errors import UserError
from spacer.rewards import RewardParts, Scorer
from spacer.rewards.custom import KEYWORDS
from spacer.rollout.completion import Rollout
from spacer.training.grpo import GrpoModule
from spacer.training.metrics import measure, rollout_metrics
from tests.unit.configs import only_problem

COMPLETION = "<think>By the door. <map>{'chair': [[1, 2]]}</map></think><answer>B</answer>"


@dataclass(frozen=True)
class Asked:
    id: str = "q1"
    problem: str = "Which is nearer?"
    problem_type: str = "multiple choice"
    question_type: str = "object_rel_distance"
    options: tuple[str, ...] = ("A. sofa", "B. chair")
    solution: str = "B"
    true_map: dict[str, list[list[int]]] | None = field(default_factory=lambda: {"chair": [[1, 2]]})


def scorer(folder: Path, code: str, name: str = "mine", weight: float = 1.0, **settings: Any) -> Scorer:
    file = folder / "rewards.py"
    file.write_text(code)
    return Scorer(RewardSettings(functions=(RewardFunctionSettings(f"{file}:{name}", weight),), **settings))


def test_a_function_gets_every_field_by_keyword(tmp_path: Path) -> None:
    code = "seen = []\ndef mine(**given):\n    seen.append(given)\n    return [0.0, 0.0]\n"
    score = scorer(tmp_path, code)
    score(Asked(), [COMPLETION, "none"], [40, 7])
    (given,) = score._custom[0].function.__globals__["seen"]
    assert set(given) == set(KEYWORDS)
    assert given == {
        "completions": [COMPLETION, "none"],
        "tokens": [40, 7],
        "id": ["q1", "q1"],
        "question": ["Which is nearer?"] * 2,
        "question_type": ["object_rel_distance"] * 2,
        "problem_type": ["multiple choice"] * 2,
        "options": [["A. sofa", "B. chair"]] * 2,
        "solution": ["B", "B"],
        "true_map": [{"chair": [[1, 2]]}] * 2,
        "map": [{"chair": [(1, 2)]}, None],
        "thinking": ["By the door.", ""],
        "answer": ["B", "none"],
    }


def test_it_is_weighted_and_added_and_none_does_not_apply(tmp_path: Path) -> None:
    code = "def mine(completions, tokens):\n    return [n if n < 50 else None for n in tokens]\n"
    plain, changed = Scorer(RewardSettings()), scorer(tmp_path, code, weight=0.5)
    before, after = (score(Asked(), [COMPLETION] * 2, [40, 60]) for score in (plain, changed))
    assert [b.total - a.total for a, b in zip(before, after, strict=True)] == [20.0, 0.0]
    assert [parts.terms.get("mine") for parts in after] == [20.0, None]
    assert after[0].as_row()["mine"] == 20.0 and "mine" not in after[1].as_row()


def test_its_mean_is_over_the_completions_that_it_applies_to(tmp_path: Path) -> None:
    code = "def mine(tokens):\n    return [None if n > 50 else 1.0 for n in tokens]\n"
    score = scorer(tmp_path, code, weight=2.0)
    written = torch.ones(2, 3, dtype=torch.bool)
    rollout = Rollout(written.long(), written, written.float(), torch.tensor([False, False]), ("", ""))
    for lengths, mean in (([40, 60], 2.0), ([60, 60], None)):
        table = measure(score(Asked(), [COMPLETION] * 2, lengths), rollout, score.terms)
        found = rollout_metrics(table, 2, score.terms)
        assert found.get("reward/mine") == mean
        assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "def mine(completions):\n    x = 1\n    return [1 / 0]\n",
            r"rewards\.py:3: reward mine: `return \[1 / 0\]`: Zer",
        ),
        ("def mine(completions):\n    return 1.0\n", r"rewards\.py:1: reward mine: gave 1\.0 for 1 completions"),
        ("def mine(completions):\n    return [1.0, 2.0]\n", r"gave \[1\.0, 2\.0\] for 1 completions"),
        ("def mine(completions):\n    return [float('nan')]\n", r"gave nan: it must be a finite number, or None"),
        ("def mine(completions):\n    return [float('inf')]\n", r"gave inf"),
        ("def mine(completions):\n    return ['high']\n", r"gave 'high'"),
        ("def mine(completions):\n    return [[1.0]]\n", r"gave \[1\.0\]"),
    ],
)
def test_what_is_no_reward_is_told_with_file_line_and_completion(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        scorer(tmp_path, code)(Asked(), [COMPLETION], [40])
    assert "question q1" in str(caught.value) and "By the door." in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_to_be_found\ndef mine(): ...\n", r"rewards\.py:1: cannot be imported: ModuleNotFoundError"),
        ("def mine(completions, frames):\n    ...\n", r"rewards\.py:1: mine asks for 'frames', which is not given"),
        ("mine = 3\n", r"mine is no function but 3"),
    ],
)
def test_what_cannot_be_called_is_told_before_anything_is_scored(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        scorer(tmp_path, code)


def test_names_of_built_in_terms_are_taken() -> None:
    (parts,) = Scorer(RewardSettings(overlong=OverlongSettings()))(Asked(), [COMPLETION], [40])
    assert set(TAKEN) == set(parts.as_row())


class Checked:
    """Settings that hold rewards alone, which is all that is read here."""

    def __init__(self, *functions: RewardFunctionSettings) -> None:
        self.reward = RewardSettings(functions=functions)


def test_the_configuration_names_what_a_file_lacks_and_does_not_run_it(tmp_path: Path) -> None:
    file, ran = tmp_path / "rewards.py", tmp_path / "ran"
    file.write_text(f"open({str(ran)!r}, 'w')\ndef mine(): ...\ndef total(): ...\n")
    broken = tmp_path / "broken.py"
    broken.write_text("def mine(:\n")
    paths = [f"{file}:theirs", f"{file}:total", f"{tmp_path}/absent.py:mine", f"{broken}:mine", "mine", f"{file}:mine"]
    settings: Any = Checked(*(RewardFunctionSettings(path) for path in (*paths, paths[-1])))
    faults = reward_function_faults(settings)
    said = ["has no function theirs; it has mine, total", "built in", "No such file", ".py:1 is no Python"]
    said += ["must be FILE.py:FUNCTION", "two functions have that name", "two functions have that name"]
    assert len(faults) == len(said) and all(word in fault for word, fault in zip(said, faults, strict=True)), faults
    assert not ran.exists()
    assert not reward_function_faults(Checked(RewardFunctionSettings(paths[-1])))  # type: ignore[arg-type]
    weighed = [{"path": paths[-1], "weight": math.inf}]
    assert only_problem(reward__functions=weighed) == "reward.functions[0].weight: is inf, must be finite"


def test_a_group_is_compared_term_by_term(tmp_path: Path) -> None:
    """Weights stand for what a term is worth; an answer that a map has cancelled is worth nothing."""
    code = "def mine(tokens):\n    return [None if n == 40 else n / 10 for n in tokens]\n"
    score = scorer(tmp_path, code, weight=0.3)
    objective = ObjectiveSettings(advantage=Advantage.terms, advantage_eps=0.0)
    base = RewardParts(answer=1.0, map=0.0, format=1.0, length=0.0, temporal=0.0, drawn=True)
    mine = score._custom[0]
    parts = [
        replace(base, custom={"mine": mine.weight * 1.0}),
        replace(base, cancelled=True, custom={"mine": mine.weight * 3.0}),
        replace(base, answer=0.0),
        replace(base, format=0.0, custom={"mine": mine.weight * 2.0}),
    ]
    held: Any = SimpleNamespace(_objective=objective, _scorer=score)
    rewards_NG = torch.tensor([[part.total for part in parts]], dtype=torch.float64)
    found_NG, silent_B = GrpoModule._advantages(held, rewards_NG, parts)
    answers, formats, mines = [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0], [1.0, 3.0, None, 2.0]
    expected = [0.0] * 4
    for weight, values in ((1.0, answers), (1.0, formats), (mine.weight, mines)):
        present = [value for value in values if value is not None]
        for n, value in enumerate(values):
            if value is not None:
                expected[n] += weight * (value - fmean(present)) / stdev(present)
    assert found_NG[0].tolist() == pytest.approx(expected)
    assert not silent_B.any()
