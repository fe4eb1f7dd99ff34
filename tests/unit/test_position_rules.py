"""How each family of models numbers a prompt: worked out by hand, and against the models' own `get_rope_index`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2VLConfig,
    Qwen2VLModel,
    Qwen3VLConfig,
    Qwen3VLModel,
)

from spacer.config.choices import Positions
from spacer.models.families import position_rule
from spacer.models.load import check_text_model
from spacer.tree.mrope import IMAGE, TEXT, VIDEO, PositionRule
from tests.unit.layouts import Block, Grid, images, laid_out, types, videos

CONFIGS: dict[str, Any] = {
    "qwen2_vl": Qwen2VLConfig(),
    "qwen2_5_vl": Qwen2_5_VLConfig(vision_config={"tokens_per_second": 2}),
    "qwen3_vl": Qwen3VLConfig(),
}
MODELS: dict[str, Any] = {"qwen2_vl": Qwen2VLModel, "qwen2_5_vl": Qwen2_5_VLModel, "qwen3_vl": Qwen3VLModel}
RULES = {
    "qwen2_vl": PositionRule(merge=2, tokens_per_second=None, split_frames=False),
    "qwen2_5_vl": PositionRule(merge=2, tokens_per_second=2, split_frames=False),
    "qwen3_vl": PositionRule(merge=2, tokens_per_second=None, split_frames=True),
}

families = pytest.mark.parametrize("family", RULES)
patient = hypothesis_settings(deadline=None, max_examples=60)  # the machine may be busy
texts = st.lists(st.integers(1, 5), min_size=4, max_size=4)
paces = st.lists(st.floats(0.05, 30), min_size=3, max_size=3)  # seconds a step of each video


def rule_of(family: str, original: bool = True) -> PositionRule:
    """The rule of a family, after a video as it was trained or as transformers 5 has it."""
    return position_rule(CONFIGS[family], Positions.original if original else Positions.transformers)


# ---- by hand


@families
@pytest.mark.parametrize("original", [True, False])
def test_an_image_is_numbered_alike_by_all(family: str, original: bool) -> None:
    # a text, an image of 2 x 3 tokens, 2 texts
    found = rule_of(family, original).positions(types((TEXT, 1), (IMAGE, 6), (TEXT, 2)), [(1, 4, 6)], [], [])
    assert found.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 1, 1, 2, 2, 2, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]


@pytest.mark.parametrize("original", [True, False])
def test_qwen2_5_vl_counts_a_short_video_by_its_seconds(original: bool) -> None:
    # two steps of a second at two positions a second: times 0 and 2, within the 3 of the width
    found = rule_of("qwen2_5_vl", original).positions(types((TEXT, 1), (VIDEO, 6), (TEXT, 2)), [], [(2, 2, 6)], [1.0])
    assert found.tolist() == [
        [0, 1, 1, 1, 3, 3, 3, 4, 5],
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]


@pytest.mark.parametrize(("original", "after"), [(True, [34, 35]), (False, [3, 4])])
def test_qwen2_5_vl_goes_on_after_the_time_of_a_long_sparse_video(original: bool, after: list[int]) -> None:
    # three steps of eight seconds at two positions a second: times 0, 16 and 32 after the one text, so 33 is the last;
    # the larger side of a frame is 2, so that transformers goes on at 1 + 2
    found = rule_of("qwen2_5_vl", original).positions(types((TEXT, 1), (VIDEO, 6), (TEXT, 2)), [], [(3, 2, 4)], [8.0])
    assert found.tolist() == [
        [0, 1, 1, 17, 17, 33, 33, *after],
        [0, 1, 1, 1, 1, 1, 1, *after],
        [0, 1, 2, 1, 2, 1, 2, *after],
    ]


@pytest.mark.parametrize("seconds", [[8.0], [0.1], []])
@pytest.mark.parametrize(("original", "after"), [(True, [4, 5]), (False, [3, 4])])
def test_qwen2_vl_counts_the_steps_of_a_video_by_one_whatever_its_seconds(
    original: bool, after: list[int], seconds: list[float]
) -> None:
    found = rule_of("qwen2_vl", original).positions(types((TEXT, 1), (VIDEO, 6), (TEXT, 2)), [], [(3, 2, 4)], seconds)
    assert found.tolist() == [
        [0, 1, 1, 2, 2, 3, 3, *after],
        [0, 1, 1, 1, 1, 1, 1, *after],
        [0, 1, 2, 1, 2, 1, 2, *after],
    ]


@pytest.mark.parametrize("seconds", [[8.0], []])
@pytest.mark.parametrize("original", [True, False])
def test_qwen3_vl_numbers_each_frame_after_its_time_in_text(original: bool, seconds: list[float]) -> None:
    # three frames of 1 x 2 tokens, each after two tokens that say its time, and a question of two
    layout = types(*[(TEXT, 2), (VIDEO, 2)] * 3, (TEXT, 2))
    found = rule_of("qwen3_vl", original).positions(layout, [], [(3, 2, 4)], seconds)
    assert found.tolist() == [
        [0, 1, 2, 2, 4, 5, 6, 6, 8, 9, 10, 10, 12, 13],
        [0, 1, 2, 2, 4, 5, 6, 6, 8, 9, 10, 10, 12, 13],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
    ]


def test_an_image_and_two_videos_keep_their_own_rules() -> None:
    layout = types((IMAGE, 1), (TEXT, 1), (VIDEO, 2), (TEXT, 1), (VIDEO, 2), (TEXT, 1))
    grids: tuple[list[Grid], list[Grid], list[float]] = ([(1, 2, 2)], [(2, 2, 2), (2, 2, 2)], [3.0, 0.5])
    assert rule_of("qwen2_5_vl").positions(layout, *grids)[0].tolist() == [0, 1, 2, 8, 9, 10, 11, 12]
    assert rule_of("qwen2_5_vl", False).positions(layout, *grids)[0].tolist() == [0, 1, 2, 8, 3, 4, 5, 5]
    assert rule_of("qwen2_vl").positions(layout, *grids)[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("family", "runs", "grid", "seconds"),
    [
        ("qwen2_vl", [(VIDEO, 3), (TEXT, 1)], (2, 2, 4), []),  # a token too few
        ("qwen2_5_vl", [(VIDEO, 4)], (2, 2, 4), []),  # no seconds
        ("qwen2_5_vl", [(VIDEO, 4)], (2, 2, 4), [1.0, 1.0]),  # seconds of a video that is not there
        ("qwen3_vl", [(TEXT, 1), (VIDEO, 2), (TEXT, 1)], (2, 2, 4), []),  # a frame too few
        ("qwen3_vl", [(VIDEO, 2), (TEXT, 1), (VIDEO, 2), (TEXT, 1), (VIDEO, 2)], (2, 2, 4), []),  # one too many
        ("qwen3_vl", [(VIDEO, 3), (TEXT, 1), (VIDEO, 1)], (2, 2, 4), []),  # a time within a frame
    ],
)
def test_videos_that_do_not_fit_their_grids(
    family: str, runs: list[tuple[int, int]], grid: Grid, seconds: list[float]
) -> None:
    with pytest.raises(ValueError):
        rule_of(family).positions(types(*runs), [], [grid], seconds)


# ---- against transformers


def theirs(family: str, types_L: Tensor, blocks: list[Block], seconds: list[float]) -> Tensor:
    """The positions that the family's model in transformers gives."""
    grids = {kind: [grid for other, grid in blocks if other == kind] for kind in (IMAGE, VIDEO)}
    known: dict[str, Any] = {
        "image_grid_thw": torch.tensor(grids[IMAGE]) if grids[IMAGE] else None,
        "video_grid_thw": torch.tensor(grids[VIDEO]) if grids[VIDEO] else None,
    }
    if family == "qwen2_5_vl" and grids[VIDEO]:
        known["second_per_grid_ts"] = torch.tensor(seconds)
    ids = torch.zeros(1, len(types_L), dtype=torch.long)
    positions: Tensor = MODELS[family].get_rope_index(Model(family), ids, types_L[None], **known)[0]
    return positions[:, 0]


class Model:
    """As much of a model as `get_rope_index` asks for."""

    def __init__(self, family: str) -> None:
        self.config = CONFIGS[family]
        self.get_vision_position_ids = MODELS[family].get_vision_position_ids.__get__(self)


def ours(family: str, original: bool, types_L: Tensor, blocks: list[Block], seconds: list[float]) -> Tensor:
    grids = {kind: [grid for other, grid in blocks if other == kind] for kind in (IMAGE, VIDEO)}
    return rule_of(family, original).positions(types_L, grids[IMAGE], grids[VIDEO], seconds)


def arranged(family: str, blocks: list[Block], before: list[int]) -> Tensor:
    """Token types of the blocks; Qwen3-VL's videos frame by frame, with a time of two tokens before each but the first.

    The first follows what text is there.
    """
    if family != "qwen3_vl":
        return laid_out(blocks, before)
    apart: list[Block] = []
    lengths: list[int] = []
    for (kind, (t, h, w)), length in zip(blocks, before, strict=False):
        apart += [(kind, (1, h, w))] * t
        lengths += [length, *[2] * (t - 1)]
    return laid_out(apart, [*lengths, before[-1]])


def paces_of(blocks: list[Block], drawn: list[float]) -> list[float]:
    """A pace for each video."""
    return drawn[: sum(kind == VIDEO for kind, _ in blocks)]


@families
@patient
@given(blocks=st.lists(images | videos, max_size=3), before=texts, drawn=paces)
def test_the_rule_of_transformers_is_that_of_its_models(
    family: str, blocks: list[Block], before: list[int], drawn: list[float]
) -> None:
    types_L, seconds = arranged(family, blocks, before), paces_of(blocks, drawn)
    expected = theirs(family, types_L, blocks, seconds)
    assert torch.equal(ours(family, False, types_L, blocks, seconds), expected)


@families
@patient
@given(blocks=st.lists(images | videos, max_size=3), before=texts, shares=paces)
def test_the_original_rule_is_the_same_where_no_video_is_longer_than_its_sides(
    family: str, blocks: list[Block], before: list[int], shares: list[float]
) -> None:
    if family == "qwen2_vl":  # as many steps as the longer side has tokens
        blocks = [(kind, (min(t, max(h, w) // 2), h, w)) for kind, (t, h, w) in blocks]
    sides = [(t, max(h, w) // 2) for kind, (t, h, w) in blocks if kind == VIDEO]
    # shares of the pace at which the last step, two positions a second, would come to stand at the longer side
    seconds = [0.99 * share / 30 * side / 2 / max(t - 1, 1) for (t, side), share in zip(sides, shares, strict=False)]
    types_L = arranged(family, blocks, before)
    expected = theirs(family, types_L, blocks, seconds)
    assert torch.equal(ours(family, True, types_L, blocks, seconds), expected)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
@patient
@given(block=videos, before=texts, drawn=paces)
def test_the_original_rule_differs_in_what_follows_a_video_longer_than_its_sides(
    family: str, block: Block, before: list[int], drawn: list[float]
) -> None:
    kind, (t, h, w) = block
    side = max(h, w) // 2
    grid = (t + side, h, w)  # more steps than tokens in a side
    seconds = [0.5 + drawn[0]]  # and at least a position each
    blocks = [(kind, grid)]
    types_L = arranged(family, blocks, before[:2])
    found, expected = ours(family, True, types_L, blocks, seconds), theirs(family, types_L, blocks, seconds)
    till = len(types_L) - before[1]
    assert torch.equal(found[:, :till], expected[:, :till])
    extent = int(found[0, till - 1]) - before[0] + 1  # positions from the first step to the last
    assert extent > side
    assert torch.equal(found[:, till:], expected[:, till:] + extent - side)


# ---- which rule a model has


@families
def test_a_configuration_has_the_rule_of_its_family(family: str) -> None:
    assert position_rule(CONFIGS[family], Positions.original) == RULES[family]
    found = position_rule(CONFIGS[family], Positions.transformers)
    assert found.original is False
    assert (found.merge, found.tokens_per_second, found.split_frames) == (
        RULES[family].merge,
        RULES[family].tokens_per_second,
        RULES[family].split_frames,
    )


def test_merge_and_pace_are_those_of_the_configuration() -> None:
    config = Qwen2_5_VLConfig(vision_config={"tokens_per_second": 25, "spatial_merge_size": 4})
    rule = position_rule(config, Positions.original)
    assert (rule.merge, rule.tokens_per_second) == (4, 25)
    # two steps of a second, a token each
    assert rule.positions(types((VIDEO, 2), (TEXT, 1)), [], [(2, 4, 4)], [1.0])[0].tolist() == [0, 25, 26]


# ---- text models that trees can be computed with


@pytest.mark.parametrize("make", [Qwen2VLConfig, Qwen2_5_VLConfig])
def test_a_text_model_with_sliding_windows_is_refused_with_a_remedy(make: Any) -> None:
    text = {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
    config = make(text_config=text, name_or_path="org/windowed")
    with pytest.raises(ValueError) as caught:
        check_text_model(SimpleNamespace(config=config))
    message = str(caught.value)
    assert message.startswith("model.name_or_path=org/windowed: its layers are full_attention, sliding_attention;")
    assert message.endswith("take layer_types out and set use_sliding_window to false")
    written = config.to_dict()["text_config"] | {"use_sliding_window": False}
    with pytest.raises(ValueError):  # half of the remedy: the file names the layers too
        check_text_model(SimpleNamespace(config=make(text_config=written)))
    del written["layer_types"]
    check_text_model(SimpleNamespace(config=make(text_config=written)))


@families
def test_text_models_that_attend_in_full_are_accepted(family: str) -> None:
    check_text_model(SimpleNamespace(config=CONFIGS[family]))
