"""Prompts over `max_prompt_length`: refused with their lengths, or given fewer frames, and never cut."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spacer.config.choices import Subtitles, TooLong
from spacer.config.settings import DatasetSettings, RoomsSettings, VideoSettings
from spacer.data.captions import Caption
from spacer.data.frames import Timeline, sample
from spacer.data.loading import PromptDataset, TrainLoader
from spacer.data.processing import Prompt, collate, prepare
from spacer.data.prompts import prompt_text
from spacer.data.samples import Fault, Sample
from spacer.data.video import Video
from spacer.tree.mrope import TEXT
from tests.unit.data.making import RULE, clip, shown
from tests.unit.data.making import sample as question

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

PAIR = 4  # tokens of two frames of 56 x 56 pixels
PAIRS = 8  # of the whole video


class Film:
    """Stands in for `read_video`: four seconds of noise at eight frames a second, sampled as asked; counts."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, path: Path, settings: VideoSettings) -> Video:
        self.asked.append(settings.max_frames)
        frames = np.random.default_rng(list(path.stem.encode())).integers(0, 256, (32, 56, 56, 3), np.uint8)
        indices = sample(Timeline(range(32), 32, Fraction(1, 8)), settings).indices
        return clip(frames[list(indices)], indices, 32, 8.0)


@pytest.fixture(autouse=True)
def film(monkeypatch: pytest.MonkeyPatch) -> Film:
    found = Film()
    monkeypatch.setattr("spacer.data.decode.read_video", found)
    return found


@pytest.fixture
def roomy(settings: RoomsSettings) -> DatasetSettings:
    """Room for the whole video: 16 frames of four tokens a pair."""
    video = VideoSettings(max_frames=16, fps=4.0, max_pixels=3_300)
    return dataclasses.replace(settings, video=video, too_long=TooLong.thin)


def asked(identity: str = "0", words: int = 3, file: str = "a") -> Sample:
    return question(identity, path=Path(f"/{file}.mp4"), problem=f"Question {identity}: " + "chair " * words)


def within(settings: DatasetSettings, limit: int, frames: int | None = None) -> DatasetSettings:
    """With a limit, and the frames lowered by hand."""
    video = settings.video if frames is None else dataclasses.replace(settings.video, max_frames=frames)
    return dataclasses.replace(settings, max_prompt_length=limit, video=video)


def made(item: Sample, processor: Qwen2_5_VLProcessor, settings: DatasetSettings, **options: Any) -> Prompt:
    found = prepare(item, processor, settings, rule=RULE, **options)
    assert isinstance(found, Prompt), found
    return found


def refused(item: Sample, processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> str:
    found = prepare(item, processor, settings, rule=RULE)
    assert isinstance(found, Fault) and (found.where, found.kind) == (item.id, "prompt too long")
    return found.detail


def same(one: Prompt, other: Prompt) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Prompt)]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else np.all(a == b) for a, b in pairs)


def lengths(item: Sample, processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> tuple[int, int]:
    """Tokens of the whole prompt and those of its text alone."""
    types = made(item, processor, settings).types_L
    return len(types), int((types == TEXT).sum())


# ---- refused


def test_a_video_that_is_refused_says_its_lengths(processor: Qwen2_5_VLProcessor, roomy: DatasetSettings) -> None:
    strict = dataclasses.replace(roomy, too_long=TooLong.refuse)
    whole, text = lengths(asked(), processor, strict)
    assert whole == text + PAIR * PAIRS
    assert same(made(asked(), processor, within(strict, whole)), made(asked(), processor, strict))  # just fits
    detail = refused(asked(), processor, within(strict, whole - 1))
    assert f"{whole} tokens, {PAIR * PAIRS} of them the video's" in detail
    assert f"dataset.max_prompt_length={whole - 1}" in detail and "dataset.too_long=thin" in detail


@pytest.mark.parametrize("too_long", TooLong)
def test_an_image_is_refused_with_its_lengths(
    too_long: TooLong, processor: Qwen2_5_VLProcessor, roomy: DatasetSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (112, 56), (200, 10, 10)).save(tmp_path / "x.png")
    item = dataclasses.replace(asked(), data_type="image", path=tmp_path / "x.png")
    settings = dataclasses.replace(roomy, too_long=too_long)
    whole = len(made(item, processor, settings).ids_L)
    assert len(made(item, processor, within(settings, whole)).ids_L) == whole
    detail = refused(item, processor, within(settings, whole - 1))
    assert f"{whole} tokens, 8 of them the image's" in detail and "dataset.image_max_pixels" in detail
    assert "frames" not in detail


def test_where_not_even_two_frames_fit_it_is_refused(processor: Qwen2_5_VLProcessor, roomy: DatasetSettings) -> None:
    whole, text = lengths(asked(), processor, roomy)
    for limit in (1, text - 1, text, text + PAIR - 1):
        detail = refused(asked(), processor, within(roomy, limit))
        assert f"{whole} tokens, {PAIR * PAIRS} of them the video's" in detail
        assert "not even two frames fit" in detail and f"dataset.max_prompt_length={limit}" in detail
    assert len(made(asked(), processor, within(roomy, text + PAIR)).ids_L) == text + PAIR


# ---- thinned


@pytest.mark.parametrize("words", [0, 9])
def test_thinning_is_max_frames_lowered_by_hand(
    words: int, processor: Qwen2_5_VLProcessor, roomy: DatasetSettings, film: Film
) -> None:
    item = asked(words=words)
    whole, text = lengths(item, processor, roomy)
    video_pad = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    taken = set()
    for limit in range(text + PAIR, whole + 2):
        found = made(item, processor, within(roomy, limit), target="<answer>3</answer>")
        pairs = max(pairs for pairs in range(1, PAIRS + 1) if text + PAIR * pairs <= limit)
        by_hand = made(item, processor, within(roomy, 10**6, frames=2 * pairs), target="<answer>3</answer>")
        assert same(found, by_hand)
        assert len(found.ids_L) == text + PAIR * pairs <= limit
        assert found.grid_thw is not None and found.grid_thw.tolist() == [[pairs, 4, 4]]
        assert int((found.ids_L == video_pad).sum()) == PAIR * pairs  # as many as there are patches to put there
        assert found.pixels_PD is not None and len(found.pixels_PD) == pairs * 16
        assert prompt_text(item, roomy.prompts) in processor.tokenizer.decode(found.ids_L)
        taken.add(pairs)
    assert taken == set(range(1, PAIRS + 1))


def test_a_prompt_that_fits_is_left_alone(processor: Qwen2_5_VLProcessor, roomy: DatasetSettings, film: Film) -> None:
    whole, _ = lengths(asked(), processor, roomy)
    film.asked.clear()
    assert same(made(asked(), processor, within(roomy, whole)), made(asked(), processor, roomy))
    assert set(film.asked) == {16}


def test_frames_with_captions_are_thinned_with_what_is_said_in_them(
    processor: Qwen2_5_VLProcessor, roomy: DatasetSettings
) -> None:
    said = tuple(Caption(n / 4, n / 4 + 0.5, f"chair {n}") for n in range(16))  # one or two to a frame
    item = dataclasses.replace(asked(), captions=said)
    whole, _ = lengths(item, processor, roomy)
    taken = []
    for limit in range(whole, 1, -10):
        found = prepare(item, processor, within(roomy, limit), rule=RULE)
        if isinstance(found, Fault):
            assert "not even two frames fit" in found.detail
            break
        assert found.kind == "image" and found.grid_thw is not None and len(found.ids_L) <= limit
        taken.append(len(found.grid_thw))
        assert same(found, made(item, processor, within(roomy, 10**6, frames=taken[-1])))
    assert taken == sorted(taken, reverse=True) and (taken[0], taken[-1]) == (16, 2) and len(set(taken)) > 4


def captioned(place: Subtitles) -> Sample:
    """A question with a line of subtitles for each eighth of a second, which every fourth frame of the film is at."""
    said = tuple(Caption(n / 8, n / 8 + 0.05, f"chair {n}") for n in range(32))
    return dataclasses.replace(asked(), captions=said, captioned=place)


def frames_of(settings: DatasetSettings) -> list[int]:
    return list(sample(Timeline(range(32), 32, Fraction(1, 8)), settings.video).indices)


def lines_of(prompt: Prompt, processor: Qwen2_5_VLProcessor) -> list[int]:
    text = processor.tokenizer.decode(prompt.ids_L)
    assert ("Subtitles of the video:" in text) == ("chair" in text)
    return [int(number) for number in re.findall(r"chair (\d+)\n", text)]


def test_lines_before_the_question_are_those_at_the_sampled_frames(
    processor: Qwen2_5_VLProcessor, roomy: DatasetSettings
) -> None:
    whole = made(captioned(Subtitles.before), processor, roomy)
    assert whole.kind == "video" and lines_of(whole, processor) == frames_of(roomy)
    assert whole.sample.problem == asked().problem
    assert lines_of(made(captioned(Subtitles.all), processor, roomy), processor) == list(range(32))
    taken = []
    for limit in range(len(whole.ids_L), 1, -7):
        found = prepare(captioned(Subtitles.before), processor, within(roomy, limit), rule=RULE)
        if isinstance(found, Fault):
            break
        assert found.grid_thw is not None and len(found.ids_L) <= limit
        frames = 2 * int(found.grid_thw[0, 0])
        assert lines_of(found, processor) == frames_of(within(roomy, limit, frames))
        taken.append(frames)
    assert taken == sorted(taken, reverse=True) and (taken[0], taken[-1]) == (16, 2)


@pytest.mark.parametrize("place", [Subtitles.before, Subtitles.all, Subtitles.between])
def test_a_prompt_that_subtitles_make_too_long_says_so(
    place: Subtitles, processor: Qwen2_5_VLProcessor, roomy: DatasetSettings
) -> None:
    item, few = captioned(place), within(roomy, 40)
    if place != Subtitles.all:  # one long line at the first frame
        item = dataclasses.replace(item, captions=(Caption(0.0, 1.0, "chair " * 60),))
    found = prepare(item, processor, few, rule=RULE, section="benchmark")
    assert isinstance(found, Fault) and found.kind == "prompt too long"
    assert re.search(
        r"\d+ of them the video's and \d+ its subtitles', over benchmark.max_prompt_length=40", found.detail
    )
    assert "benchmark.subtitles=none leaves them out" in found.detail and "dataset" not in found.detail
    assert ("benchmark.subtitles=before takes only the lines at sampled" in found.detail) == (place == Subtitles.all)
    without = prepare(
        dataclasses.replace(item, captions=()), processor, within(roomy, 9), rule=RULE, section="benchmark"
    )
    assert isinstance(without, Fault) and "benchmark.video.max_pixels" in without.detail
    assert "subtitles" not in without.detail


@pytest.mark.parametrize("pairs", [1, 3])
def test_shuffled_frames_are_thinned_alike(pairs: int, processor: Qwen2_5_VLProcessor, roomy: DatasetSettings) -> None:
    _, text = lengths(asked(), processor, roomy)
    limit = text + PAIR * pairs + 1
    found = made(asked(), processor, within(roomy, limit), shuffle=np.random.default_rng(5))
    by_hand = made(asked(), processor, within(roomy, 10**6, 2 * pairs), shuffle=np.random.default_rng(5))
    assert same(found, by_hand)
    assert found.shuffled_pixels_PD is not None and found.pixels_PD is not None
    assert found.shuffled_pixels_PD.shape == found.pixels_PD.shape


def test_a_maximum_of_frames_that_the_film_has_not_is_thinned_by_what_it_has(
    processor: Qwen2_5_VLProcessor, roomy: DatasetSettings
) -> None:
    """64 frames are allowed, the film gives 16: what counts is what is there."""
    whole, text = lengths(asked(), processor, roomy)
    plenty = dataclasses.replace(roomy, video=dataclasses.replace(roomy.video, max_frames=64))
    found = made(asked(), processor, within(plenty, whole - 1))
    assert len(found.ids_L) == text + PAIR * (PAIRS - 1)


# ---- in batches


def test_a_thinned_and_a_whole_video_share_a_batch(processor: Qwen2_5_VLProcessor, roomy: DatasetSettings) -> None:
    """Of one file, the long question takes fewer frames than the short one; both see their own."""
    short, long = asked("0", words=1), asked("1", words=12)
    limit = lengths(long, processor, roomy)[0] - 2 * PAIR
    settings = within(roomy, limit)
    alone = [made(item, processor, settings) for item in (short, long, dataclasses.replace(long, id="2"), short)]
    grids = [prompt.grid_thw.tolist()[0] for prompt in alone if prompt.grid_thw is not None]
    assert grids == [[8, 4, 4], [6, 4, 4], [6, 4, 4], [8, 4, 4]]
    batch = collate(alone)
    assert batch.pictures.video_grids is not None and batch.pictures.video_pixels is not None
    assert batch.pictures.video_grids.tolist() == [[8, 4, 4], [6, 4, 4]]  # each once
    assert len(batch.pictures.video_pixels) == (8 + 6) * 16
    for row, (prompt, patches) in enumerate(zip(alone, shown(batch), strict=True)):
        found = batch.forest.prompt(row)
        assert torch.equal(found.ids_L, prompt.ids_L) and torch.equal(found.positions_3L, prompt.positions_3L)
        assert prompt.pixels_PD is not None and torch.equal(patches.flatten(0, 1), prompt.pixels_PD)


def test_shuffled_patches_of_a_thinned_video_are_its_own(
    processor: Qwen2_5_VLProcessor, roomy: DatasetSettings
) -> None:
    short, long = asked("0", words=1), asked("1", words=12)
    settings = within(roomy, lengths(long, processor, roomy)[0] - 2 * PAIR)
    alone = [made(item, processor, settings, shuffle=np.random.default_rng(7)) for item in (long, short)]
    batch = collate(alone)
    for prompt, patches in zip(alone, shown(batch, batch.shuffled()), strict=True):
        assert prompt.shuffled_pixels_PD is not None
        assert torch.equal(patches.flatten(0, 1), prompt.shuffled_pixels_PD)


def test_a_loader_thins_refuses_and_goes_on(processor: Qwen2_5_VLProcessor, roomy: DatasetSettings) -> None:
    items = [asked("short", 0), asked("long", 12), asked("endless", 500), asked("other", 0, file="b")]
    whole, _ = lengths(items[0], processor, roomy)
    dataset = PromptDataset(items, processor, within(roomy, whole + 8), rule=RULE)
    (batch,) = TrainLoader(dataset, batch_size=4, seed=0)
    assert {item.id for item in batch.samples} == {"short", "long", "other"}
    assert [fault.where for fault in batch.faults] == ["endless"]
    assert re.search(r"\d+ tokens, 32 of them the video's", batch.faults[0].detail)
    assert batch.pictures.video_grids is not None
    grids = sorted(batch.pictures.video_grids[:, 0].tolist())
    assert len(grids) == 3 and grids[1:] == [8, 8] and grids[0] < 8
