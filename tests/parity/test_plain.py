"""The plain computation, which shares nothing and goes through transformers alone, gives what prefix trees give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from spacer.attention.backends import choose_attention
from spacer.config.choices import Computation, Control, Positions
from spacer.config.settings import Settings
from spacer.data.asking import join
from spacer.data.loading import Batch, PromptDataset, SampleDraw
from spacer.data.plain import PlainBatch
from spacer.data.samples import Fault, Sample
from spacer.data.sources import Split
from spacer.models.families import position_rule
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.load import load_plain, load_policy
from spacer.models.logps import row_logps
from spacer.models.plain import PlainOptions, completion_logps
from spacer.models.probe import ModelProbe, probe_model
from spacer.models.selfcheck import FirstBatchCheck
from spacer.models.vision import encode_vision
from spacer.rollout.asked import ask
from spacer.rollout.completion import Rollout
from spacer.rollout.sampling import Decoding
from spacer.training.row_trainer import Passes, RowLoss
from spacer.training.work import Row, begin
from spacer.tree.packing import pack

GREEDY = Decoding(0.0, 1.0, 40)
SAMPLED = Decoding(1.0, 0.95, 24)
TREES = ComputeOptions("blocks", 16_384)


class Both:
    """One model twice, in trees and plainly, with the same questions."""

    def __init__(self, settings: Settings, samples: Sequence[Sample], control: Control | None = None) -> None:
        model = replace(settings.model, dtype="float64", positions=Positions.transformers)
        self.probe: ModelProbe = probe_model(model)
        self.tree, self.plain = load_policy(model).eval(), load_plain(model, "sdpa").eval()
        rule = position_rule(self.tree.config, Positions.transformers)
        self.in_trees, self.plainly = (
            batch_of(PromptDataset(samples, self.probe.processor, settings.dataset, rule=rule, control=control))
            for rule in (rule, None)
        )

    def sampled(self, decoding: Decoding, group: int) -> tuple[Rollout, Rollout]:
        """Completions of both, from the same random numbers."""
        seeds = [[7, i] for i in range(len(self.in_trees.samples) * group)]
        with torch.no_grad():
            asked = (
                ask(self.tree, self.probe, TREES, self.in_trees),
                ask(self.plain, self.probe, PlainOptions(16_384), self.plainly),
            )
            tree, plain = (one.sample(decoding, seeds) for one in asked)
            for one, rollout in zip(asked, (tree, plain), strict=True):
                one.check(FirstBatchCheck(True), rollout, decoding.temperature or 1.0)
        return tree, plain


def batch_of(dataset: PromptDataset) -> Batch:
    items = [dataset[SampleDraw(n, n)] for n in range(len(dataset))]
    assert not any(isinstance(item, Fault) for item in items), items
    return join([dataset.collate(items[:1]), dataset.collate(items[1:])])


@pytest.fixture(scope="module")
def samples(split: Split, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Questions about videos, one about a picture, and one about none."""
    about = list(split.samples[:2])
    still = tmp_path_factory.mktemp("still") / "still.png"
    noise = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)
    Image.fromarray(noise.repeat(12, 0).repeat(12, 1)).save(still)
    picture = replace(about[0], id="picture", data_type="image", path=still, true_map=None)
    return [*about, picture, replace(about[0], id="text", data_type="text", true_map=None)]


@pytest.fixture(scope="module")
def both(settings: Settings, samples: list[Sample]) -> Both:
    return Both(settings, samples)


def test_prompts_are_the_same_tokens(both: Both) -> None:
    plain = cast(PlainBatch, both.plainly)
    for n, inputs in enumerate(plain.inputs):
        assert torch.equal(inputs["input_ids"][0], cast(Any, both.in_trees).forest.prompt(n).ids_L)


@pytest.mark.parametrize(("decoding", "group"), [(GREEDY, 1), (SAMPLED, 3)], ids=["greedy", "sampled"])
def test_completions_and_their_log_probabilities_are_the_same(both: Both, decoding: Decoding, group: int) -> None:
    tree, plain = both.sampled(decoding, group)
    assert plain.texts == tree.texts and plain.lengths == tree.lengths
    assert len(set(plain.texts)) > 2
    for found, expected in zip(plain.sampled, tree.sampled, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)  # of logits that `generate` rounds to float32


def test_log_probabilities_of_given_completions_are_the_same(both: Both) -> None:
    rollout, _ = both.sampled(SAMPLED, 3)
    completions = rollout.completions(3)
    with torch.no_grad():
        context = RowContext(encode_vision(both.tree, cast(Any, both.in_trees).pictures), TREES, 0.7)
        (row,) = pack(cast(Any, both.in_trees).forest, completions, TREES.row_tokens)
        table = row.unpack(row_logps(both.tree, row, context))
        for n, inputs in enumerate(cast(PlainBatch, both.plainly).inputs):
            mine = [n * 3 + i for i in range(3)]
            found = completion_logps(both.plain, inputs, [completions[i].ids_C for i in mine], 0.7)
            places = {number: place for place, number in enumerate(row.completions)}
            expected = torch.cat([table[places[i], : len(completions[i].ids_C)] for i in mine])
            assert torch.allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("control", [Control.none, Control.other_video])
def test_controls_are_the_same(control: Control, settings: Settings, split: Split) -> None:
    tree, plain = Both(settings, split.samples[::4], control).sampled(GREEDY, 1)
    assert plain.texts == tree.texts


def test_grey_pictures_tell_nothing_of_the_video(settings: Settings, split: Split) -> None:
    """The processor's 0 is no colour of 8 bits: it is met to within a half of one."""
    processor = probe_model(settings.model).processor
    plain = PromptDataset(split.samples[:1], processor, settings.dataset, rule=None, control=Control.grey)
    pixels = cast(PlainBatch, batch_of(plain)).inputs[0]["pixel_values_videos"]
    assert float(pixels.abs().max()) < 0.5 / 255 / 0.25 and float(pixels.std(0).max()) == 0


def test_attention_is_left_to_transformers(settings: Settings) -> None:
    assert choose_attention(settings, Computation.plain).rows == "plain"


def test_gradients_are_the_same_with_rows_of_several_completions(both: Both) -> None:
    rollout, _ = both.sampled(SAMPLED, 3)
    completions, groups = rollout.completions(3), len(both.in_trees.samples)
    weights = torch.arange(1.0, 3 * groups + 1).double()
    found = []
    for model, batch, options in (
        (both.tree, both.in_trees, TREES),
        (both.plain, both.plainly, PlainOptions(400)),
    ):
        model.zero_grad()
        work = begin(Passes(model, options, model.device, torch.Tensor.backward), batch, 0.7)
        rows = work.rows(completions, [i for i in range(3 * groups) if i != 1])
        assert options is TREES or len(rows) > groups  # a prompt of a video, and two of its completions
        work.backward(rows, lambda row, logp_N: loss_of(row, logp_N, weights))
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    tree, plain = found
    assert tree.keys() == plain.keys() and any("visual" in name for name in tree)
    for name, gradient in tree.items():
        # the vision tower of transformers turns queries and keys in float32, whatever the weights are in
        assert float((plain[name] - gradient).norm()) < 1e-5 * float(gradient.norm()), name


def loss_of(row: Row, logp_N: torch.Tensor, weights: torch.Tensor) -> RowLoss:
    loss = (row.unpack(logp_N).sum(1) * weights[list(row.completions)]).sum()
    return loss, {"loss": loss.detach()}
