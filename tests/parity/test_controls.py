"""A model asked with grey frames and with no video: what it then sees, and that trees compute it exactly."""

from __future__ import annotations

import torch

from spacer.config.choices import Control
from spacer.config.settings import Settings
from spacer.data.loading import PromptDataset, SampleDraw
from spacer.data.processing import Prompt, collate
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.load import load_policy
from spacer.models.selfcheck import check_tree
from spacer.models.vision import encode_vision
from spacer.tree.forest import Completion
from spacer.tree.mrope import TEXT


def controlled(dataset: PromptDataset, control: Control | None) -> Prompt:
    made = PromptDataset(dataset.samples, dataset.processor, dataset.settings, rule=dataset.rule, control=control)
    item = made[SampleDraw(0, 0)]
    assert isinstance(item, Prompt)
    return item


def test_grey_frames_take_as_many_tokens_and_no_video_takes_none(dataset: PromptDataset) -> None:
    own, grey, none = (controlled(dataset, control) for control in (None, Control.grey, Control.none))
    assert torch.equal(own.ids_L, grey.ids_L) and torch.equal(own.positions_3L, grey.positions_3L)
    assert own.pixels_PD is not None and grey.pixels_PD is not None
    assert own.pixels_PD.std() > 0.1 and not grey.pixels_PD.any()
    text = own.ids_L[own.types_L == TEXT]
    decode = dataset.processor.tokenizer.decode
    marks = "<|vision_start|><|vision_end|>"
    assert decode(none.ids_L) == decode(text).replace(marks, "") and none.pixels_PD is None
    assert torch.equal(none.positions_3L, torch.arange(len(none.ids_L)).expand(3, -1))
    batch = collate([none])
    assert batch.pictures.video_pixels is None and (batch.forest.segments[0].vision_L < 0).all()


def test_trees_of_no_video_give_what_the_plain_model_gives(settings: Settings, dataset: PromptDataset) -> None:
    policy = load_policy(settings.model).eval()
    for control in (Control.grey, Control.none):
        batch = collate([controlled(dataset, control)])
        completion = Completion(0, torch.tensor(dataset.processor.tokenizer("<think></think>")["input_ids"]))
        vision = encode_vision(policy, batch.pictures)
        difference = check_tree(policy, batch, [completion], RowContext(vision, ComputeOptions("blocks", 700)))
        assert difference is not None and difference < 1e-4
