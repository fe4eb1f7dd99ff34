"""M-RoPE positions: worked out by hand, and against transformers where its rule agrees."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from spacer.tree.mrope import IMAGE, TEXT, VIDEO, mrope_positions
from tests.unit.layouts import Grid, images, laid_out, types, videos

patient = hypothesis_settings(deadline=None, max_examples=80)  # the machine may be busy


def test_text_counts_up_on_all_axes() -> None:
    assert mrope_positions(types((TEXT, 4))).tolist() == [[0, 1, 2, 3]] * 3


def test_one_image() -> None:
    # 2 texts, an image of 2 x 2 tokens, 2 texts
    positions = mrope_positions(types((TEXT, 2), (IMAGE, 4), (TEXT, 2)), image_grids=[(1, 4, 4)])
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 4, 5],
        [0, 1, 2, 2, 3, 3, 4, 5],
        [0, 1, 2, 3, 2, 3, 4, 5],
    ]
    assert positions.dtype == torch.int64


def test_text_starts_after_the_longer_side_of_an_image() -> None:
    # 1 high and 3 wide, then 3 high and 1 wide, nothing before them
    wide = mrope_positions(types((IMAGE, 3), (TEXT, 1)), image_grids=[(1, 2, 6)])
    assert wide.tolist() == [[0, 0, 0, 3], [0, 0, 0, 3], [0, 1, 2, 3]]
    high = mrope_positions(types((IMAGE, 3), (TEXT, 1)), image_grids=[(1, 6, 2)])
    assert high.tolist() == [[0, 0, 0, 3], [0, 1, 2, 3], [0, 0, 0, 3]]


def test_a_short_video() -> None:
    # two steps of half a second at two positions a second: one position each
    positions = mrope_positions(
        types((TEXT, 1), (VIDEO, 8), (TEXT, 2)), video_grids=[(2, 4, 4)], seconds_per_grid=[0.5], tokens_per_second=2
    )
    assert positions.tolist() == [
        [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4],
        [0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 4],
        [0, 1, 2, 1, 2, 1, 2, 1, 2, 3, 4],
    ]


def test_text_after_a_long_sparse_video_starts_after_its_time() -> None:
    # three steps of two seconds at two positions a second: times 0, 4 and 8 after the one text, so text goes on at 10
    positions = mrope_positions(
        types((TEXT, 1), (VIDEO, 12), (TEXT, 2)), video_grids=[(3, 4, 4)], seconds_per_grid=[2.0], tokens_per_second=2
    )
    assert positions.tolist() == [
        [0, 1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9, 10, 11],
        [0, 1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 10, 11],
        [0, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 10, 11],
    ]


def test_fractions_of_a_position_are_cut_off_at_each_step() -> None:
    # 0.7 s a step at 2 a second: 0, 1.4, 2.8, 4.2 and 5.6, each cut off by itself
    positions = mrope_positions(types((VIDEO, 5), (TEXT, 1)), video_grids=[(5, 2, 2)], seconds_per_grid=[0.7])
    assert positions[0].tolist() == [0, 1, 2, 4, 5, 6]


def test_two_images_with_text_between() -> None:
    positions = mrope_positions(
        types((TEXT, 1), (IMAGE, 1), (TEXT, 1), (IMAGE, 4), (TEXT, 1)), image_grids=[(1, 2, 2), (1, 4, 4)]
    )
    assert positions.tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 5],
        [0, 1, 2, 3, 3, 4, 4, 5],
        [0, 1, 2, 3, 4, 3, 4, 5],
    ]


def test_two_images_with_nothing_between() -> None:
    # the tokens form one run of 1 + 2, told apart by the grids
    positions = mrope_positions(types((IMAGE, 3), (TEXT, 1)), image_grids=[(1, 2, 2), (1, 2, 4)])
    assert positions.tolist() == [[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]]


def test_an_image_then_a_video() -> None:
    # the video's pace is its own; the image keeps one time
    positions = mrope_positions(
        types((IMAGE, 2), (VIDEO, 2), (TEXT, 1)),
        image_grids=[(1, 2, 4)],
        video_grids=[(2, 2, 2)],
        seconds_per_grid=[1.5],
        tokens_per_second=2,
    )
    assert positions.tolist() == [[0, 0, 2, 5, 6], [0, 0, 2, 2, 6], [0, 1, 2, 2, 6]]


def test_two_videos_keep_their_own_pace() -> None:
    positions = mrope_positions(
        types((VIDEO, 2), (TEXT, 1), (VIDEO, 2), (TEXT, 1)),
        video_grids=[(2, 2, 2), (2, 2, 2)],
        seconds_per_grid=[3.0, 0.5],
        tokens_per_second=1,
    )
    assert positions[0].tolist() == [0, 3, 4, 5, 5, 6]


def test_merge_sets_the_tokens_of_a_grid() -> None:
    positions = mrope_positions(types((IMAGE, 4)), image_grids=[(1, 8, 8)], merge=4)
    assert positions.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("runs", "images", "videos", "seconds"),
    [
        ([(TEXT, 2), (IMAGE, 4)], [(1, 4, 4), (1, 4, 4)], [], []),  # a grid too many
        ([(TEXT, 2)], [(1, 2, 2)], [], []),  # a grid and no block
        ([(TEXT, 2), (VIDEO, 4)], [], [(1, 4, 4), (1, 4, 4)], [1.0, 1.0]),
        ([(IMAGE, 1), (TEXT, 1), (IMAGE, 1)], [(1, 2, 2)], [], []),  # a grid too few
        ([(VIDEO, 1), (TEXT, 1), (VIDEO, 1)], [], [(1, 2, 2)], [1.0]),
        ([(IMAGE, 5)], [(1, 4, 4)], [], []),  # a token too many
        ([(IMAGE, 3), (TEXT, 1)], [(1, 4, 4)], [], []),  # a token too few
        ([(IMAGE, 4)], [], [(1, 4, 4)], [1.0]),  # a video's grid does not serve an image
        ([(VIDEO, 4)], [(1, 4, 4)], [], []),
        ([(VIDEO, 4)], [], [(1, 4, 4)], []),  # no seconds for a video
    ],
)
def test_blocks_that_do_not_fit_the_grids(
    runs: list[tuple[int, int]], images: list[Grid], videos: list[Grid], seconds: list[float]
) -> None:
    with pytest.raises(ValueError):
        mrope_positions(types(*runs), image_grids=images, video_grids=videos, seconds_per_grid=seconds)


# ---- against transformers


@functools.cache
def model() -> Qwen2_5_VLModel:
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 32,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "tokens_per_second": 2,
        },
    )
    return Qwen2_5_VLModel(config)


def theirs(types_L: Tensor, images: Sequence[Grid], videos: Sequence[Grid], seconds: Sequence[float]) -> Tensor:
    grids: dict[str, Any] = {
        "image_grid_thw": torch.tensor(images) if images else None,
        "video_grid_thw": torch.tensor(videos) if videos else None,
        "second_per_grid_ts": torch.tensor(seconds) if seconds else None,
    }
    ids: Any = torch.zeros(1, len(types_L), dtype=torch.long)
    kinds: Any = types_L[None]
    positions, _ = model().get_rope_index(ids, kinds, **grids)
    return positions[:, 0]


@patient
@given(st.lists(images, max_size=3), st.lists(st.integers(1, 5), min_size=4, max_size=4))
def test_images_as_transformers_places_them(blocks: list[tuple[int, Grid]], texts: list[int]) -> None:
    types_L = laid_out(blocks, texts)
    grids = [grid for _, grid in blocks]
    assert torch.equal(mrope_positions(types_L, image_grids=grids), theirs(types_L, grids, [], []))


@patient
@given(st.lists(images | videos, max_size=3), st.lists(st.integers(1, 5), min_size=4, max_size=4), st.data())
def test_videos_too_short_to_tell_the_rules_apart(
    blocks: list[tuple[int, Grid]], texts: list[int], data: st.DataObject
) -> None:
    seconds = []
    for kind, (t, h, w) in blocks:
        if kind == VIDEO:  # the last step in time stays below the longer side
            highest = 0.99 * max(h, w) / 2 / 2 / max(t - 1, 1)
            seconds.append(data.draw(st.floats(0, highest)))
    pictures = [grid for kind, grid in blocks if kind == IMAGE]
    films = [grid for kind, grid in blocks if kind == VIDEO]
    types_L = laid_out(blocks, texts)
    ours = mrope_positions(types_L, image_grids=pictures, video_grids=films, seconds_per_grid=seconds)
    assert torch.equal(ours, theirs(types_L, pictures, films, seconds))


@patient
@given(videos, st.floats(0.01, 30))
def test_the_block_of_any_video_is_as_in_transformers(block: tuple[int, Grid], seconds: float) -> None:
    types_L = laid_out([block], [3, 2])
    ours = mrope_positions(types_L, video_grids=[block[1]], seconds_per_grid=[seconds])
    stays = slice(None, len(types_L) - 2)
    assert torch.equal(ours[:, stays], theirs(types_L, [], [block[1]], [seconds])[:, stays])


def test_a_long_sparse_video_is_where_transformers_differs() -> None:
    """16 frames of a video of two minutes: times reach 7 · 15 s · 2 = 210, and the sides of the grid 4."""
    grid, seconds = (8, 8, 8), 15.0
    types_L = laid_out([(VIDEO, grid)], [3, 2])
    ours = mrope_positions(types_L, video_grids=[grid], seconds_per_grid=[seconds])
    other = theirs(types_L, [], [grid], [seconds])
    assert ours[:, -2:].tolist() == [[3 + 210 + 1, 3 + 210 + 2]] * 3
    assert other[:, -2:].tolist() == [[3 + 4, 3 + 4 + 1]] * 3
    assert other[0, -1] < other[0].max()  # its question stands in the midst of the video
    assert math.isclose(float(ours[0].max()), 215)
