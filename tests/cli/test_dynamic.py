"""Dynamic sampling from the command line: groups that teach, and a killed run that ends as one never killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import BRIEF, Command, Kill, succeeds
from tests.cli.test_train import rows

pytestmark = pytest.mark.long

DAPO = (
    *[word for word in BRIEF if not word.startswith(("trainer.max_steps", "dataset.train_scenes", "stage.evaluate"))],
    *("objective=dapo", "objective.mask_truncated=false", "reward=dapo", "stage.evaluate_before=false"),
    *(
        "stage.evaluate_after=false",
        "dataset.train_scenes=12",
        "objective.group_size=2",
        "seed=1",  # of which not every group teaches
        "trainer.max_steps=4",
        "trainer.max_epochs=-1",
    ),
)
DYNAMIC = (*DAPO, "objective.dynamic_sampling=4")


def timeless(folder: Path) -> list[dict]:
    found = rows(folder / "history.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in found]


@pytest.fixture(scope="module")
def sampled(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled")
    succeeds(command(*DYNAMIC, f"hydra.run.dir={folder}"))
    return folder


def test_more_groups_teach_than_without_it(sampled: Path, command: Command, tmp_path: Path) -> None:
    succeeds(command(*DAPO, f"hydra.run.dir={tmp_path}"))
    plain, found = timeless(tmp_path), timeless(sampled)
    assert len(plain) == len(found) == 4
    filled = [[row["rollout/filled"] for row in history] for history in (plain, found)]
    assert sum(filled[1]) > sum(filled[0])
    assert all(row["rollout/groups"] == 1 for row in plain) and max(row["rollout/groups"] for row in found) > 1
    prompts = [row["train/prompts_seen"] for row in found]
    assert prompts == [sum(row["rollout/groups"] for row in found[: n + 1]) for n in range(4)]
    assert all(row["reward/overlong"] <= 0 for row in found)


def test_killed_and_resumed_ends_with_the_same_weights(
    sampled: Path, command: Command, kill: Kill, tmp_path: Path
) -> None:
    words, history = [*DYNAMIC, f"hydra.run.dir={tmp_path}"], tmp_path / "history.jsonl"
    kill(words, lambda: history.exists() and history.read_text().count("\n") >= 2)
    succeeds(command(*words, "ckpt_path=last"))
    assert timeless(tmp_path) == timeless(sampled)
    models = [load_file(folder / "model/model.safetensors") for folder in (sampled, tmp_path)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
