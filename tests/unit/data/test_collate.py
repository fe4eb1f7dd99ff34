"""Batches as the model wants them: a forest of prompts, and what they are about once."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import torch
from torch import Tensor

from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Fault
from spacer.tree.forest import Forest
from tests.unit.data.making import about, sample, shown, words


def tensors(batch: PromptBatch) -> list[Tensor | None]:
    pictures = batch.pictures
    return [pictures.image_pixels, pictures.image_grids, pictures.video_pixels, pictures.video_grids]


def tokens(forest: Forest) -> int:
    """How many tokens the model has to read."""
    return sum(len(segment) for segment in forest.segments)


def assert_gives_back(batch: PromptBatch, items: list[Prompt]) -> None:
    """Every prompt is there, whole and in order, and sees its own patches and no others."""
    assert batch.samples == tuple(item.sample for item in items)
    assert len(batch.forest.ends) == len(items)
    seen = shown(batch) if any(item.pixels_PD is not None for item in items) else []
    for n, item in enumerate(items):
        prompt = batch.forest.prompt(n)
        assert prompt.parent is None
        assert torch.equal(prompt.ids_L, item.ids_L)
        assert torch.equal(prompt.positions_3L, item.positions_3L)
        assert torch.equal(prompt.vision_L >= 0, item.types_L != 0)
        if item.pixels_PD is not None:
            assert torch.equal(seen[n].flatten(0, 1), item.pixels_PD)


MIXED = [
    about("/a.mp4", [10, 11], mark=100, wide=3),
    about("/p.png", [10, 11], mark=200, wide=2),
    about("/b.mp4", [20, 21], mark=300),
    about("/a.mp4", [10, 12, 13], mark=100, wide=3),
    words([30, 31]),
    about("/q.png", [22], mark=400),
    about("/a.mp4", [40], mark=100, wide=3),
    about("/p.png", [10, 14], mark=200, wide=2),
]


def test_prompts_come_back_whole_and_in_order() -> None:
    batch = collate(MIXED)
    assert_gives_back(batch, MIXED)
    assert [frame[0, 0, 0] for frame in batch.strips] == [10, 10, 20, 10, 30, 22, 40, 10]


def test_prompts_come_back_whatever_their_order() -> None:
    for items in itertools.permutations(MIXED[:6], 4):
        assert_gives_back(collate(items), list(items))


# ---- what prompts have in common


def test_questions_about_one_video_hold_its_patches_once() -> None:
    items = [about("/a.mp4", [10 + n], mark=100, wide=3) for n in range(4)]
    batch = collate(items)
    assert batch.pictures.video_pixels is not None and batch.pictures.video_grids is not None
    assert batch.pictures.video_pixels.shape == (3 * 4, 2)
    assert batch.pictures.video_grids.tolist() == [[1, 2, 6]]
    # an opening and three tokens of the video for all, one for each question
    assert tokens(batch.forest) == 1 + 3 + 4
    assert_gives_back(batch, items)


def test_questions_about_one_video_share_it_with_another_between_them() -> None:
    items = [
        about("/a.mp4", [10, 11], mark=100, wide=3),
        about("/b.mp4", [10, 11], mark=200),
        about("/a.mp4", [10, 12], mark=100, wide=3),
    ]
    batch = collate(items)
    assert batch.pictures.video_pixels is not None and batch.pictures.video_grids is not None
    assert batch.pictures.video_pixels[:, 0].tolist() == [100.0] * 4 + [101.0] * 4 + [102.0] * 4 + [200.0] * 4
    assert batch.pictures.video_grids.tolist() == [[1, 2, 6], [1, 2, 2]]
    roots = [batch.forest.path(end)[0] for end in batch.forest.ends]
    assert roots[0] == roots[2] != roots[1]
    assert tokens(batch.forest) == (1 + 3 + 1) + 1 + 1 + (1 + 1 + 2)
    assert_gives_back(batch, items)


def test_patches_of_images_come_before_those_of_videos() -> None:
    batch = collate(MIXED)
    pictures = batch.pictures
    assert pictures.video_grids is not None and pictures.video_pixels is not None
    assert pictures.image_grids is not None and pictures.image_pixels is not None
    assert pictures.image_grids.tolist() == [[1, 2, 4], [1, 2, 2]]  # p, q
    assert pictures.image_pixels[::4, 0].tolist() == [200.0, 201.0, 400.0]
    assert pictures.video_grids.tolist() == [[1, 2, 6], [1, 2, 2]]  # a, b
    assert pictures.video_pixels[::4, 0].tolist() == [100.0, 101.0, 102.0, 300.0]
    rows = [[row for row in batch.forest.prompt(n).vision_L.tolist() if row >= 0] for n in range(len(MIXED))]
    a, b, p, q = [3, 4, 5], [6], [0, 1], [2]
    assert rows == [a, p, b, a, [], q, a, p]


def test_a_file_that_is_asked_about_as_an_image_and_as_a_video_is_two() -> None:
    items = [
        about("/a.mp4", [10], mark=100, wide=2, sample=sample("10", path=Path("/a"))),
        about("/a.png", [11], mark=200, wide=3, sample=sample("11", data_type="image", path=Path("/a"))),
    ]
    batch = collate(items)
    assert batch.pictures.image_pixels is not None and len(batch.pictures.image_pixels) == 3 * 4
    assert batch.pictures.video_pixels is not None and len(batch.pictures.video_pixels) == 2 * 4
    assert_gives_back(batch, items)


def test_only_what_is_the_same_from_the_start_is_shared() -> None:
    first, second, third = (about("/a.mp4", [10, end, 30], mark=100) for end in (20, 20, 21))
    moved = dataclasses.replace(second, positions_3L=second.positions_3L + (torch.arange(5) >= 2))
    assert tokens(collate([first, third]).forest) == 3 + 2 + 2  # differ at the fourth of five
    assert tokens(collate([first, moved]).forest) == 2 + 3 + 3  # the same tokens, but further on from the third
    assert tokens(collate([first, second]).forest) == 4 + 1 + 1  # alike, and each has a last token of its own
    for items in ([first, third], [first, moved], [first, second]):
        assert_gives_back(collate(items), items)


def test_a_prompt_that_another_begins_with_still_has_an_end_of_its_own() -> None:
    items = [about("/a.mp4", [10, 11], mark=100), about("/a.mp4", [10, 11, 12, 13], mark=100)]
    batch = collate(items)
    assert len(set(batch.forest.ends)) == 2
    assert tokens(batch.forest) == 3 + 1 + 3
    assert_gives_back(batch, items)


def test_alike_pictures_in_two_files_are_two() -> None:
    items = [about("/a.mp4", [10, 11], mark=100), about("/b.mp4", [10, 11], mark=100)]
    batch = collate(items)
    assert batch.pictures.video_grids is not None and len(batch.pictures.video_grids) == 2
    assert tokens(batch.forest) == sum(len(item.ids_L) for item in items)
    assert_gives_back(batch, items)


# ---- text alone


def test_text_alone_has_no_pictures_and_shares_nothing() -> None:
    items = [words([10, 11, 12]), words([10, 11, 13]), words([10, 14])]
    batch = collate(items)
    assert tensors(batch) == [None] * 4
    assert tokens(batch.forest) == 3 + 3 + 2
    assert all((batch.forest.prompt(n).vision_L == -1).all() for n in range(3))
    assert_gives_back(batch, items)


def test_text_alone_stands_beside_a_video() -> None:
    clip = about("/a.mp4", [10], mark=100)
    items = [words([10, 11], sample=clip.sample), clip, words([10, 12])]
    batch = collate(items)
    assert batch.pictures.video_grids is not None and len(batch.pictures.video_grids) == 1
    assert_gives_back(batch, items)


# ---- what else a batch holds


def test_a_batch_of_videos_has_no_images() -> None:
    batch = collate([about("/a.mp4", [10], mark=100)])
    assert batch.pictures.image_pixels is None and batch.pictures.image_grids is None
    assert collate([about("/p.png", [10], mark=100)]).pictures.video_pixels is None


def test_targets_are_the_prompts_own() -> None:
    targets = [torch.tensor([7, 9, 8]), torch.tensor([6]), torch.tensor([5, 5])]
    items = [
        about("/a.mp4", [10], mark=100, target_ids=targets[0]),
        about("/p.png", [11], mark=200, target_ids=targets[1]),
        about("/a.mp4", [12], mark=100, target_ids=targets[2]),
    ]
    batch = collate(items)
    assert batch.targets is not None
    assert [target.tolist() for target in batch.targets] == [[7, 9, 8], [6], [5, 5]]
    assert collate(MIXED).targets is None


def test_faults_are_set_beside_the_prompts() -> None:
    fault, other = Fault("x", "unreadable media", "…"), Fault("y", "prompt too long", "…")
    items = [about("/a.mp4", [10], mark=100), about("/a.mp4", [11], mark=100)]
    batch = collate([items[0], fault, items[1], other])
    assert batch.faults == (fault, other)
    assert batch.pictures.video_grids is not None and len(batch.pictures.video_grids) == 1
    assert_gives_back(batch, items)


def test_a_batch_of_only_faults_has_no_prompts() -> None:
    faults = (Fault("x", "unreadable media", "…"), Fault("y", "prompt too long", "…"))
    batch = collate(faults)
    assert batch.faults == faults == batch.to("cpu").faults
    assert batch.samples == batch.strips == batch.forest.segments == batch.forest.ends == ()
    assert tensors(batch) == [None] * 4
    assert batch.targets is None and batch.shuffled_video_pixels is None


def test_shuffled_has_the_other_frames_and_the_same_images() -> None:
    mixed = -100 - torch.arange(3.0).repeat_interleave(4)[:, None].expand(-1, 2)
    items = [
        about("/p.png", [9], mark=200),
        about("/a.mp4", [10], mark=100, wide=3, shuffled_pixels_PD=mixed),
        about("/b.mp4", [11], mark=300, shuffled_pixels_PD=torch.full((4, 2), -300.0)),
        about("/a.mp4", [12], mark=100, wide=3, shuffled_pixels_PD=mixed - 10),  # drawn anew for another question
    ]
    batch = collate(items)
    pictures = batch.shuffled()
    seen = [[token[0, 0].item() for token in tokens] for tokens in shown(batch, pictures)]
    assert seen == [[200.0], [-100.0, -101.0, -102.0], [-300.0], [-100.0, -101.0, -102.0]]
    assert_gives_back(batch, items)  # the batch itself stays
    for name in ("image_pixels", "image_grids", "video_grids"):
        assert getattr(pictures, name) is getattr(batch.pictures, name)


def test_moving_a_batch_moves_its_patches() -> None:
    items = [about("/a.mp4", [10], mark=100, shuffled_pixels_PD=torch.zeros(4, 2)), about("/p.png", [11], mark=200)]
    batch = collate(items)
    moved = batch.to("meta")
    found = [*tensors(moved), moved.shuffled_video_pixels]
    assert [None if tensor is None else tensor.device.type for tensor in found] == ["meta"] * 5
    assert moved.samples == batch.samples
    assert_gives_back(batch, items)  # which stays where it was


def test_moving_a_batch_leaves_prompts_to_be_packed_where_they_are() -> None:
    moved = collate([about("/a.mp4", [10], mark=100)]).to("meta")
    assert moved.forest.prompt(0).ids_L.device.type == "cpu"
    assert moved.pictures.image_pixels is None and moved.shuffled_video_pixels is None
