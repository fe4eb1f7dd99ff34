"""A rooms data set, an untrained model and the shipped one, small enough for a test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from spacer.config.load import load_settings
from spacer.config.settings import Settings
from spacer.data.loading import PromptDataset, SampleDraw
from spacer.data.processing import Prompt
from spacer.data.sources import Split, load_train
from spacer.models.probe import probe_model
from spacer.tree.mrope import PositionRule

ROOT = Path(__file__).resolve().parents[2]


def composed(*overrides: str, output_dir: str = "unused") -> Settings:
    """The settings that run.py would hand to its stage."""
    os.environ["SPACER_ROOT"] = str(ROOT)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return load_settings(compose("config", overrides=[*overrides, f"output_dir={output_dir}"]))


def prompts_of(dataset: PromptDataset, *indices: int) -> list[Prompt]:
    """The samples at `indices`, processed; none may be at fault."""
    made = [dataset[SampleDraw(i, i)] for i in indices]
    prompts = [prompt for prompt in made if isinstance(prompt, Prompt)]
    assert len(prompts) == len(indices)
    return prompts


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with so many, as on a machine of that many cores; tests have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small(root: Path | str) -> Settings:
    """The main job on a handful of rooms, which are kept in `root`."""
    return composed(
        f"dataset.root={root}",
        "model.freeze_vision=false",  # so that gradients of all parameters are compared
        *("dataset.train_scenes=4", "dataset.heldout_scenes=2", "dataset.questions_per_scene=4", "dataset.workers=1"),
    )


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The main job on a handful of rooms."""
    return small(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="session")
def split(settings: Settings) -> Split:
    """The training questions."""
    return load_train(settings.dataset)


@pytest.fixture(scope="session")
def dataset(settings: Settings, split: Split) -> PromptDataset:
    """The training questions, ready to be processed."""
    processor = probe_model(settings.model).processor
    data = replace(settings.dataset)
    return PromptDataset(split.samples, processor, data, rule=PositionRule(2, 2.0, split_frames=False))
