"""Samples as batches: which media a model is given, and what cannot be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spacer.config.choices import Shown
from spacer.config.settings import RoomsSettings
from spacer.data.asking import Bounds, QuestionLoader
from spacer.data.loading import PromptDataset, SampleDraw, TrainLoader
from spacer.data.processing import Prompt, PromptBatch, prepare
from spacer.data.prompts import ShownTarget, prompt_text, worked_completion
from spacer.data.samples import Fault, Sample
from spacer.tree.mrope import IMAGE, VIDEO
from tests.unit.data.making import RULE, Decoder, sample, shown

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


# ---- the real data set: decoded and processed in a worker


def real(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, **options: Any
) -> PromptDataset:
    return PromptDataset(samples, processor, settings, rule=RULE, **options)


def take(dataset: PromptDataset, uses: list[tuple[int, int]], size: int = 4) -> list[PromptBatch]:
    """The batches of (position, index) pairs, made by a worker."""
    from spacer.data.loading import _loader

    every = [SampleDraw(position, index) for position, index in uses]
    return [batch for (batch,) in _loader(dataset, [[every[i : i + size]] for i in range(0, len(every), size)], 1)]


@pytest.mark.parametrize("together", [1, 3])
def test_real_batches_fit_together(
    together: int, samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    train = TrainLoader(real(samples, processor, settings), batch_size=6, seed=0, together=together)
    batches = list(train)
    assert sorted(item.id for batch in batches for item in batch.samples) == sorted(item.id for item in samples)
    video_pad = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    for batch in batches:
        files = len({item.path for item in batch.samples})
        assert files == 2 or together == 1
        pixels, grids = batch.pictures.video_pixels, batch.pictures.video_grids
        assert not batch.faults and grids is not None and pixels is not None
        assert grids.tolist() == [[2, 4, 4]] * files  # 4 frames in pairs, 56 x 56 pixels in patches of 14
        assert pixels.shape[0] == files * 2 * 4 * 4
        for row, item in enumerate(batch.samples):
            prompt = batch.forest.prompt(row)
            ids, positions = prompt.ids_L, prompt.positions_3L
            assert (ids == video_pad).sum() == 8 and torch.equal(ids == video_pad, prompt.vision_L >= 0)
            text = processor.tokenizer.decode(ids)
            assert prompt_text(item, settings.prompts) in text
            assert text.endswith("<|im_start|>assistant\n")
            assert positions[:, 0].tolist() == [0, 0, 0]
            times = positions[0][ids == video_pad].unique()
            # 4 s in 4 frames: a pair stands for 2 s, at 2 positions a second
            assert (times - times[0]).tolist() == [0, 4]
            assert (positions[:, -1] - positions[:, -2]).tolist() == [1, 1, 1]
        assert batch.strips[0].shape == (96, 4 * 96 + 3 * 2, 3)


def test_a_question_is_the_same_beside_others_as_alone(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    """Questions of three files in turn, so that those about one file are apart: same tokens, same patches."""
    order = sorted(range(9), key=lambda index: index % 3)
    uses = [(position, index) for position, index in enumerate(order)]
    (beside,) = take(real(samples, processor, settings), uses, size=9)
    alone = take(real(samples, processor, settings), uses, size=1)
    assert beside.pictures.video_grids is not None and len(beside.pictures.video_grids) == 3
    assert sum(map(len, beside.forest.segments)) < sum(len(batch.forest.prompt(0)) for batch in alone)
    for row, (batch, patches) in enumerate(zip(alone, shown(beside), strict=True)):
        assert batch.samples == (beside.samples[row],) == (samples[order[row]],)
        found, expected = beside.forest.prompt(row), batch.forest.prompt(0)
        assert torch.equal(found.ids_L, expected.ids_L)
        assert torch.equal(found.positions_3L, expected.positions_3L)
        assert torch.equal(patches, shown(batch)[0])


def test_what_cannot_be_read_is_a_fault_and_never_another_sample(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(samples[0].path.read_bytes()[:700])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    bad = [
        dataclasses.replace(samples[0], id="broken video", path=tmp_path / "broken.mp4"),
        dataclasses.replace(samples[0], id="gone", path=tmp_path / "gone.mp4"),
        dataclasses.replace(samples[0], id="broken image", path=tmp_path / "broken.png", data_type="image"),
        dataclasses.replace(samples[0], id="too long", problem="chair " * 2_000, path=samples[0].path),
    ]
    some = [samples[0], bad[0], samples[1], bad[1], *bad]
    short = dataclasses.replace(settings, max_prompt_length=1_000)
    first, second = take(real(some, processor, short), [(n, n) for n in range(8)])
    assert [item.id for item in first.samples] == [samples[0].id, samples[1].id]
    assert [(fault.where, fault.kind) for fault in first.faults] == [
        ("broken video", "unreadable media"),
        ("gone", "unreadable media"),
    ]
    files = {samples[0].path, samples[1].path}
    assert len(first.forest.ends) == 2
    assert first.pictures.video_grids is not None and len(first.pictures.video_grids) == len(files)
    assert str(tmp_path / "broken.mp4") in first.faults[0].detail
    assert second.samples == () and second.forest.ends == ()
    assert [fault.where for fault in second.faults] == ["broken video", "gone", "broken image", "too long"]
    assert second.faults[3].kind == "prompt too long" and "max_prompt_length=1000" in second.faults[3].detail


def test_an_image_that_the_processor_refuses_is_a_fault(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    """Qwen takes no picture more than 200 times as wide as high; one such file must not end a run of days."""
    Image.new("RGB", (900, 3)).save(tmp_path / "thin.png")
    item = dataclasses.replace(samples[0], data_type="image", path=tmp_path / "thin.png")
    assert isinstance(prepare(item, processor, settings, rule=RULE), Fault)


@pytest.mark.parametrize(
    "text", ["What is <|video_pad|>?", "<|image_pad|>", "<|vision_start|><|video_pad|><|vision_end|>"]
)
def test_a_question_with_the_processors_own_marks_is_a_fault_or_plain_text(
    text: str, samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    item = dataclasses.replace(samples[0], problem=text, data_type="image", path=tmp_path / "x.png", true_map=None)
    assert isinstance(prepare(item, processor, settings, rule=RULE), Prompt | Fault)


def test_an_image_is_processed_in_place_of_a_video(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (112, 56), (200, 10, 10)).save(tmp_path / "x.png")
    item = dataclasses.replace(samples[0], data_type="image", path=tmp_path / "x.png", true_map=None)
    made = prepare(item, processor, settings, rule=RULE, target="<answer>3</answer>")
    assert isinstance(made, Prompt)
    assert made.grid_thw.tolist() == [[1, 4, 8]]
    pads = made.ids_L == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert pads.sum() == 8 and torch.equal(made.types_L, pads * IMAGE)
    assert made.strip_HWC.shape == (56, 112, 3)
    assert made.target_ids is not None
    assert processor.tokenizer.decode(made.target_ids) == "<answer>3</answer><|im_end|>"


def test_frames_are_one_video_or_each_a_picture(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    film = prepare(samples[0], processor, settings, rule=RULE)
    video = dataclasses.replace(settings.video, shown=Shown.pictures)
    pictures = prepare(samples[0], processor, dataclasses.replace(settings, video=video), rule=RULE)
    assert isinstance(film, Prompt) and isinstance(pictures, Prompt)
    assert film.grid_thw is not None and pictures.grid_thw is not None
    frames = 2 * int(film.grid_thw[0, 0])  # a temporal step of a video is of two frames
    assert len(film.grid_thw) == 1 and pictures.grid_thw[:, 0].tolist() == [1] * frames
    assert (pictures.types_L == IMAGE).sum() == 2 * (film.types_L == VIDEO).sum()
    said = [processor.tokenizer.decode(one.ids_L[one.types_L == 0]) for one in (film, pictures)]
    assert said[1].count("<|vision_start|>") == frames and said[0].split("<|vision_end|>")[-1] in said[1]


def frames_of(pixels: Tensor, grid: list[int]) -> list[bytes]:
    """The single frames in the patches of one video; Qwen joins two frames into a patch of (channel, 2, 14, 14)."""
    t, h, w = grid
    pairs = pixels.reshape(t, h * w, 3, 2, 14, 14)
    return [pairs[step, :, :, half].contiguous().numpy().tobytes() for step in range(t) for half in range(2)]


def test_shuffled_frames_are_the_same_frames_in_another_order(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    dataset = real(samples, processor, settings, shuffle_frames=True)
    of_a_file = list({item.path: index for index, item in enumerate(samples)}.values())
    uses = [(position, of_a_file[position % 4]) for position in range(8)]
    orders, mixed = [], []
    for batch in take(dataset, uses):
        assert batch.pictures.video_grids is not None
        grids = batch.pictures.video_grids.tolist()
        mixed += shown(batch, batch.shuffled())
        for grid, ordered, other in zip(grids, shown(batch), mixed[-4:], strict=True):
            before, after = frames_of(ordered, grid), frames_of(other, grid)
            assert sorted(before) == sorted(after)
            orders.append(tuple(after.index(frame) for frame in before))
    assert len(set(orders)) > 2
    # the order is the position's own: another one for the same video later, the same one in other batches
    assert orders[:4] != orders[4:]
    again = [patches for batch in take(dataset, uses, size=2) for patches in shown(batch, batch.shuffled())]
    assert all(torch.equal(a, b) for a, b in zip(mixed, again, strict=True))


def test_targets_are_the_positions_own_and_end_the_turn(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    target = ShownTarget(tuple(samples), share=0.5, after=4)
    dataset = real(samples, processor, settings, target=target)
    uses = [(position, position % len(samples)) for position in range(16)]
    batches = take(dataset, uses)
    # the same uses in other batches: what is shown belongs to the position and to nothing else
    backward = take(dataset, uses[::-1], size=2)

    def texts(found: list[PromptBatch]) -> list[str]:
        out = []
        for batch in found:
            assert batch.targets is not None
            out += [processor.tokenizer.decode(target) for target in batch.targets]
        return out

    read = texts(batches)
    assert texts(backward) == read[::-1]
    assert all(text.endswith("</answer><|im_end|>") for text in read)
    for position, text in enumerate(read):
        worked = worked_completion(samples[position % len(samples)]) + "<|im_end|>"
        assert text == worked or (position >= 4 and "I guess." in text)
    assert 2 <= sum("I guess." in text for text in read) <= 10


# ---- each file is decoded once a batch


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    found = Decoder()
    monkeypatch.setattr("spacer.data.decode.read_video", found)
    return found


def questions(*files: str) -> list[Sample]:
    """A question about each of the files, however often one is named."""
    return [sample(str(n), path=Path(f"/{file}.mp4"), problem=f"Question {n}?") for n, file in enumerate(files)]


def test_each_file_is_decoded_once(decoder: Decoder, processor: Qwen2_5_VLProcessor, settings: RoomsSettings) -> None:
    dataset = real(questions("a", "bb", "a", "a", "bb"), processor, settings, shuffle_frames=True)
    dataset.workers = 0  # this process, whose decoder counts
    made = [dataset[SampleDraw(10 + index, index)] for index in range(5)]
    assert decoder.decoded == {"a": 1, "bb": 1}
    assert [item.sample.id for item in made if isinstance(item, Prompt)] == ["0", "1", "2", "3", "4"]
    # nor does a later batch decode them again
    batches = list(QuestionLoader(dataset, [0, 1, 2, 3, 4], Bounds(tokens=10**6, questions=3, answer=1)))
    assert sum(len(batch.samples) for batch in batches) == 5
    assert decoder.decoded == {"a": 1, "bb": 1}


def test_what_is_decoded_once_is_what_would_be_decoded_alone(
    decoder: Decoder, processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    def made(use: SampleDraw) -> Prompt | Fault:
        return real(questions("a", "bb", "a"), processor, settings, shuffle_frames=True)[use]

    dataset = real(questions("a", "bb", "a"), processor, settings, shuffle_frames=True)
    uses = [SampleDraw(10 + index, index) for index in range(3)]
    for together, alone in zip([dataset[use] for use in uses], map(made, uses), strict=True):
        assert isinstance(together, Prompt) and isinstance(alone, Prompt)
        for field in dataclasses.fields(Prompt):
            found, expected = getattr(together, field.name), getattr(alone, field.name)
            assert np.array_equal(found, expected) if isinstance(expected, Tensor) else np.all(found == expected)
    assert decoder.decoded == {"a": 1 + 2, "bb": 1 + 1}


def test_a_broken_file_is_a_fault_of_each_question_about_it(
    decoder: Decoder, processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    dataset = real(questions("broken", "a", "broken"), processor, settings)
    made = [dataset[SampleDraw(index, index)] for index in range(3)]
    faults = [item for item in made if isinstance(item, Fault)]
    assert decoder.decoded == {"broken": 1, "a": 1}
    assert [type(item) for item in made] == [Fault, Prompt, Fault]
    assert [(fault.where, fault.kind) for fault in faults] == [("0", "unreadable media"), ("2", "unreadable media")]
    assert {fault.detail for fault in faults} == {"/broken.mp4: cannot be decoded: 1"}


def test_an_image_is_read_once(
    monkeypatch: pytest.MonkeyPatch, processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    opened: list[str] = []

    def read(path: Path) -> Image.Image:
        opened.append(path.stem)
        return Image.new("RGB", (56, 56))

    monkeypatch.setattr("spacer.data.processing.read_image", read)
    items = [dataclasses.replace(item, data_type="image") for item in questions("a", "bb", "a")]
    dataset = real(items, processor, settings)
    made = [dataset[SampleDraw(index, index)] for index in range(3)]
    assert opened == ["a", "bb"]
    assert all(isinstance(item, Prompt) for item in made)


# ---- positions


def test_positions_follow_the_given_rule(
    decoder: Decoder, processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    """Two steps of a second each, 2 x 2 tokens: how far the steps are apart, and how far text is from the first."""
    (item,) = questions("a")
    for changes, expected in (
        ({}, (2, 3)),
        ({"original": False}, (2, 2)),
        ({"tokens_per_second": 5.0}, (5, 6)),
        ({"tokens_per_second": None}, (1, 2)),
    ):
        made = prepare(item, processor, settings, rule=dataclasses.replace(RULE, **changes))
        assert isinstance(made, Prompt)
        seen = made.types_L == VIDEO
        assert torch.equal(seen, made.ids_L == processor.tokenizer.convert_tokens_to_ids("<|video_pad|>"))
        last = int(seen.nonzero()[-1])
        times = made.positions_3L[0]
        assert int(seen.sum()) == 8
        assert (int(times[last] - times[seen][0]), int(times[last + 1] - times[seen][0])) == expected
