"""Read-outs of vision tokens: labels by hand, the result of training, and resuming bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from spacer.config.choices import OptimizerKind
from spacer.config.settings import OptimizerSettings, Settings, StillsSettings
from spacer.data.loading import PromptDataset, TrainLoader
from spacer.data.scenes import stills
from spacer.data.scenes.views import View, VisibleObject
from spacer.data.sources import load_train
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy
from spacer.models.probe import probe_model
from spacer.models.vision import encode_vision
from spacer.training.readout import PER_OBJECT, WEIGHTS, ReadOut, VisionModule, join, label
from spacer.training.tree_module import Training
from spacer.tree.mrope import PositionRule
from tests.parity.conftest import composed
from tests.unit.configs import PROMPTS, only_problem

KINDS = ("bed", "chair")
STILLS = {"kind": "stills", "root": "data", "prompts": PROMPTS}
# a chair in the upper left token of four, and a bed over both lower ones with its centre in the right one
VIEW = View(
    (
        VisibleObject("bed", (0.2, 0.6, 0.9, 0.9), (0.55, 0.75), (5, 2)),
        VisibleObject("chair", (0.1, 0.1, 0.3, 0.3), (0.2, 0.2), (1, 8)),
    ),
    (-0.1, 1.1, 1.1, -0.1),
)


def test_labels_by_hand() -> None:
    made = label(VIEW, KINDS, 2, 2)
    assert made.present_TK.tolist() == [[0, 1], [0, 0], [1, 0], [1, 0]]
    assert made.centres_TK.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
    pairs = zip(made.token_O.tolist(), made.category_O.tolist(), made.cell_O2.tolist(), strict=True)
    assert sorted(pairs) == [(0, 1, [1, 8]), (2, 0, [5, 2]), (3, 0, [5, 2])]
    assert torch.allclose(made.floor_T2, torch.tensor([[0.2, 0.8], [0.8, 0.8], [0.2, 0.2], [0.8, 0.2]]))


def test_a_token_that_shows_little_of_an_object_is_not_asked_for_it() -> None:
    edge = View(
        (VisibleObject("bed", (0.0, 0.0, 0.6, 0.4), (0.3, 0.2), (0, 9)),), VIEW.floor
    )  # a sixth of it is to the right
    assert label(edge, KINDS, 2, 2).token_O.tolist() == [0]
    assert label(View((), VIEW.floor), KINDS, 2, 3).present_TK.shape == (6, 2)
    outside = View((VisibleObject("bed", (-0.5, 0.0, 0.2, 0.4), (-0.2, 0.2), (0, 9)),), VIEW.floor)
    assert label(outside, KINDS, 2, 2).centres_TK.sum() == 0


def test_labels_of_pictures_of_other_sizes_are_joined() -> None:
    both = join([label(VIEW, KINDS, 2, 2), label(VIEW, KINDS, 1, 1)])
    assert len(both.present_TK) == 5 and both.present_TK[4].tolist() == [1, 1]
    assert sorted(both.token_O.tolist()) == [0, 2, 3, 4, 4]


def test_read_outs_that_say_what_is_there_cost_next_to_nothing() -> None:
    """Features that are one-hot by token, and read-outs set by hand to the labels."""
    labels = label(VIEW, KINDS, 2, 2)
    heads, features = ReadOut(4, 2), torch.eye(4)
    with torch.no_grad():
        for layer in heads.children():
            layer.weight.zero_()
            layer.bias.zero_()
        heads.present.weight.copy_(40 * labels.present_TK.T - 20)
        heads.floor.weight.copy_(labels.floor_T2.T)
        for token, category, cell in zip(labels.token_O, labels.category_O, labels.cell_O2, strict=True):
            for axis in (0, 1):
                heads.cells.weight[10 * axis + cell[axis], token] = 20
                heads.cells_of.weight[20 * category + 10 * axis + cell[axis], token] = 20
        for token in range(4):
            for category in range(2):
                heads.centres.weight[4 * category + labels.centres_TK[token, category], token] = 20
    assert all(float(loss) < 1e-4 for loss in heads(features, labels).values())
    wrong = heads(features.flip(0), labels)
    assert wrong["present"] > 100 and wrong["off"] > 0 and wrong["cell_of"] > 5
    assert set(wrong) == {*WEIGHTS, "off"} and set(PER_OBJECT) < set(wrong)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return composed(
        *("stage=vision", "model.freeze_vision=false"),
        f"dataset.root={tmp_path_factory.mktemp('rooms')}",
        *("dataset=stills", "dataset.train_scenes=8", "dataset.heldout_scenes=1", "dataset.workers=1"),
    )


def loader(settings: Settings, batch_size: int) -> TrainLoader:
    samples, processor = load_train(settings.dataset).samples, probe_model(settings.model).processor
    dataset = PromptDataset(samples, processor, settings.dataset, rule=PositionRule(2, 2.0, split_frames=False))
    return TrainLoader(dataset, batch_size=batch_size, seed=0)


def trained(settings: Settings, folder: Path, steps: int, start: Path | None = None, **options: Any) -> VisionModule:
    """The module after so many steps of four pictures, with a checkpoint of each step in `folder`."""
    assert isinstance(settings.dataset, StillsSettings)
    torch.manual_seed(0)
    policy = load_policy(settings.model)
    kind = options.get("kind", OptimizerKind.adamw)
    training = Training(OptimizerSettings(kind, 2e-3, betas=(0.9, 0.98), warmup_steps=2), total_steps=8, clip=1.0)
    compute = ComputeOptions("blocks", 700, vision_again=options.get("again", False))
    module = VisionModule(policy, compute, training, stills.read_views(settings.dataset))
    trainer = pl.Trainer(
        **{"max_steps": steps, "max_epochs": None, "accelerator": "cpu", "devices": 1, "logger": False},
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1, monitor=None)],
        **{"enable_progress_bar": False, "enable_model_summary": False},
    )
    trainer.fit(module, loader(settings, 4), ckpt_path=None if start is None else str(start), weights_only=True)
    return module


def state(module: VisionModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", [OptimizerKind.adamw, OptimizerKind.muon])
def test_it_goes_on_bit_for_bit_and_leaves_the_language_model(
    settings: Settings, tmp_path: Path, kind: OptimizerKind
) -> None:
    whole = state(trained(settings, tmp_path / "whole", 4, kind=kind))
    kept = torch.load(tmp_path / "whole/step=2.ckpt", weights_only=True)["state_dict"]
    assert not any("language_model" in name for name in kept) and "mean_H" in kept
    again = state(trained(settings, tmp_path / "again", 4, tmp_path / "whole/step=2.ckpt", kind=kind))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    before = load_policy(settings.model).state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, whole[f"policy.{name}"])}
    assert changed and all(name.startswith("model.visual.") for name in changed)


def test_computing_the_tower_again_gives_the_same_steps(settings: Settings, tmp_path: Path) -> None:
    kept = state(trained(settings, tmp_path / "kept", 2))
    again = state(trained(settings, tmp_path / "again", 2, again=True))
    assert all(torch.allclose(kept[name], again[name], atol=1e-5) for name in kept)


def test_features_come_out_centred_and_scaled(settings: Settings, tmp_path: Path) -> None:
    """Of the pictures that the running moments are of, all eight of them."""
    module = trained(settings, tmp_path, 1)
    assert isinstance(settings.dataset, StillsSettings)
    batch = next(iter(loader(settings, 8)))
    with torch.no_grad():
        features = encode_vision(module.policy, batch.pictures).embeds_MH
        assert features is not None
        module.mean_H.copy_(features.mean(0))
        module.square.copy_(features.square().mean())
        module.scale_features(0.1)
        scaled = encode_vision(module.policy, batch.pictures).embeds_MH
    assert scaled is not None
    assert float(scaled.mean(0).abs().max()) < 1e-4
    assert float(scaled.square().mean().sqrt()) == pytest.approx(0.1, rel=1e-3)
    assert torch.allclose(
        scaled / 0.1, (features - features.mean(0)) / (features - features.mean(0)).square().mean().sqrt(), atol=1e-3
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "stage.name=vision reads out what pictures show"),
        ({"model__freeze_vision": True, "dataset": STILLS}, "stage.name=vision trains the whole vision tower"),
        ({"cluster__strategy": "fsdp", "dataset": STILLS}, "stage.name=vision does not spread the model"),
    ],
)
def test_what_the_stage_does_not_go_with(changes: dict[str, Any], told: str) -> None:
    assert told in only_problem(stage="vision", **changes)


def test_stills_of_a_part_of_a_room_are_for_this_stage_alone() -> None:
    told = only_problem(stage="sft", dataset=STILLS | {"tour_share": 0.5})
    assert "dataset.tour_share=0.5" in told and "choose stage=vision" in told
