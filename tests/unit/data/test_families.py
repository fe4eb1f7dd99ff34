"""Each family's prompts are what its own processor and model make of the same media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as sometimes
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers import AutoModel, Qwen2_5_VLProcessor
from transformers.video_utils import VideoMetadata

from spacer.config.choices import FrameTimes, Positions, TooLong
from spacer.config.families import FAMILIES, family_of
from spacer.config.settings import DatasetSettings, RoomsSettings, VideoSettings
from spacer.data.captions import Caption
from spacer.data.processing import Prompt, collate, prepare
from spacer.data.samples import Fault
from spacer.data.showing import ProcessedMedia, asked, show_captioned, show_images, show_video
from spacer.data.tokens import control_tokens, encode, places
from spacer.data.video import Video
from spacer.errors import UserError
from spacer.models.families import position_rule
from tests.model_folders import make_config, make_processor
from tests.unit.data.making import sample

families = pytest.mark.parametrize("family", FAMILIES)
QUESTION = "How many chairs?"
SIDE = {"qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32}  # of a token, in pixels
NESTED = "<|vision_start|><|video_pad|><|vision_end|>"


@cache
def processor_of(family: str) -> Any:
    return make_processor(family)


@cache
def model_of(family: str) -> Any:
    with torch.device("meta"):
        return AutoModel.from_config(make_config(family, processor_of(family).tokenizer))


def chat_of(family: str, kind: str, count: int = 1) -> str:
    content = [*({"type": kind} for _ in range(count)), {"type": "text", "text": QUESTION}]
    text: str = processor_of(family).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    return text


def theirs(family: str, inputs: Any) -> Tensor:
    """Positions as transformers' model of the family has them."""
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    given_ = {name: torch.as_tensor(inputs[name]) for name in names if name in inputs}
    positions, _ = model_of(family).get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], **given_)
    found: Tensor = positions[:, 0]
    return found


def ours(family: str, shown: ProcessedMedia, types: Tensor, **options: Any) -> Tensor:
    grids = shown.grids.tolist()
    rule = position_rule(model_of(family).config, **options)
    is_video = shown.kind == "video"
    return rule.positions(types, () if is_video else grids, grids if is_video else (), shown.seconds)


def clip(frames: int, height: int = 90, width: int = 120, every: int = 4, fps: float = 8.0) -> Video:
    pixels = np.random.default_rng(frames).integers(0, 255, (frames, height, width, 3), np.uint8)
    times = tuple(index / fps for index in range(0, every * frames, every))
    return Video(pixels, times, every / fps, every * frames / fps)


def processed(
    family: str,
    video: Video,
    chat: str,
    least: int,
    most: int,
    count: int = 1,
    images: Sequence[Image.Image] | None = None,
) -> Any:
    """A chat about the same video `count` times, and about images of at most 10,000 pixels."""
    rate = 8.0  # of the file, whose frames are numbered
    indices = [round(time * rate) for time in video.times]
    metadata = VideoMetadata(total_num_frames=round(video.seconds * rate), fps=rate, frames_indices=indices)
    frames = len(video.frames_THWC) if family == "qwen3_vl" else 1  # whose processor bounds all frames together
    return processor_of(family)(
        text=[chat],
        images=images,
        images_kwargs={"size": {"shortest_edge": 4 * SIDE[family] ** 2, "longest_edge": 10_000}},
        videos=[torch.from_numpy(video.frames_THWC).permute(0, 3, 1, 2)] * count,
        videos_kwargs={
            "size": {"shortest_edge": frames * least, "longest_edge": frames * most},
            "do_sample_frames": False,
            "cap_pixels_per_frame": False,
            "video_metadata": [metadata] * count,
        },
        return_tensors="pt",
    )


@families
@pytest.mark.parametrize("frames", [2, 4, 10])
@pytest.mark.parametrize("every", [1, 4])  # frames of the file: steps that are short, or longer than the picture
def test_videos(family: str, frames: int, every: int) -> None:
    video, side = clip(frames, every=every), SIDE[family]
    chat = chat_of(family, "video")
    marked = chat.replace(NESTED, "<|video_pad|>") if family == "qwen3_vl" else chat
    whole = processed(family, video, marked, 4 * side**2, 8_000)
    shown = show_video(video, processor_of(family), VideoSettings(max_pixels=8_000))
    ids, types = asked(chat, [shown], processor_of(family))
    assert torch.equal(ids, whole["input_ids"][0]) and torch.equal(types, whole["mm_token_type_ids"][0])
    assert torch.equal(shown.grids, whole["video_grid_thw"])
    assert torch.equal(shown.pixels_PD, whole["pixel_values_videos"])
    found = ours(family, shown, types, positions=Positions.transformers)
    assert torch.equal(found, theirs(family, whole))


def test_a_time_stands_before_each_pair_of_frames_of_qwen3_vl() -> None:
    """As the family's authors have it; transformers 5 leaves another pair of marks around them all."""
    video = clip(4)  # frames at 0, .5, 1 and 1.5 s
    shown = show_video(video, processor_of("qwen3_vl"), VideoSettings(max_pixels=4 * 32 * 32))
    ids, _ = asked(chat_of("qwen3_vl", "video"), [shown], processor_of("qwen3_vl"))
    pads = "<|vision_start|>" + "<|video_pad|>" * 2 + "<|vision_end|>"
    said = f"<|im_start|>user\n<0.2 seconds>{pads}<1.2 seconds>{pads}{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    text = processor_of("qwen3_vl").tokenizer.decode(ids)
    assert text.replace("<|video_pad|>" * 4, "<|video_pad|>" * 2) == said or text == said


@families
@sometimes(max_examples=15, deadline=None)
@given(sides=st.lists(st.tuples(st.integers(20, 160), st.integers(20, 160)), min_size=1, max_size=3))
def test_images(family: str, sides: list[tuple[int, int]]) -> None:
    images = [Image.fromarray(np.full((h, w, 3), 40 * n, np.uint8)) for n, (h, w) in enumerate(sides)]
    chat = chat_of(family, "image", len(images))
    size = {"shortest_edge": 4 * SIDE[family] ** 2, "longest_edge": 10_000}
    whole = processor_of(family)(text=[chat], images=images, images_kwargs={"size": size}, return_tensors="pt")
    shown = show_images(images, processor_of(family), RoomsSettings("nowhere", image_max_pixels=10_000))
    ids, types = asked(chat, [shown], processor_of(family))
    assert torch.equal(ids, whole["input_ids"][0]) and torch.equal(types, whole["mm_token_type_ids"][0])
    assert torch.equal(shown.grids, whole["image_grid_thw"]) and torch.equal(shown.pixels_PD, whole["pixel_values"])
    assert torch.equal(ours(family, shown, types), theirs(family, whole))


@families
def test_text_alone(family: str) -> None:
    data = RoomsSettings("nowhere", prompts={"plain": "$question", "numerical": ""})
    rule = position_rule(model_of(family).config)
    item = sample(problem=QUESTION, data_type="text", path=Path("0"))
    found = prepare(item, processor_of(family), data, rule=rule, target="<answer>3</answer>")
    whole = processor_of(family)(text=[chat_of(family, "text", 0)], return_tensors="pt")
    assert isinstance(found, Prompt) and found.pixels_PD is None and found.grid_thw is None
    assert torch.equal(found.ids_L, whole["input_ids"][0]) and not found.types_L.any()
    assert torch.equal(found.positions_3L, theirs(family, whole))
    assert found.target_ids is not None
    short = replace(data, max_prompt_length=len(found.ids_L) - 1, too_long=TooLong.thin)
    fault = prepare(item, processor_of(family), short, rule=rule)
    assert isinstance(fault, Fault) and fault.detail == (
        f"{len(found.ids_L)} tokens of text, over dataset.max_prompt_length={len(found.ids_L) - 1}"
    )


@families
def test_video_image_and_text_in_one_batch(family: str, tmp_path: Path) -> None:
    """Each keeps the tokens, positions and patches that it has by itself; the one of text sees none."""
    Image.fromarray(clip(2).frames_THWC[0]).save(tmp_path / "x.png")

    class Reader:
        def video(self, path: Path, settings: VideoSettings) -> Video:
            return clip(4)

        def once(self, key: Any, make: Any) -> Any:
            return make()

    data = RoomsSettings("nowhere", max_prompt_length=10_000, prompts={"plain": "$question", "numerical": ""})
    paths = {"text": Path("0"), "video": Path("/a.mp4"), "image": tmp_path / "x.png"}
    made: dict[str, Prompt] = {}
    for kind, path in paths.items():
        options: Any = {"rule": position_rule(model_of(family).config), "reader": Reader()}
        item = prepare(sample(kind, data_type=kind, path=path), processor_of(family), data, **options)
        assert isinstance(item, Prompt)
        made[kind] = item
    batch = collate(list(made.values()))
    assert [item.id for item in batch.samples] == list(made) and len(batch.forest.segments) == 3
    for n, prompt in enumerate(made.values()):
        whole = batch.forest.prompt(n)
        assert torch.equal(whole.ids_L, prompt.ids_L) and torch.equal(whole.positions_3L, prompt.positions_3L)
        assert torch.equal(whole.vision_L >= 0, prompt.types_L != 0)
    text, video, image = (batch.forest.prompt(n).vision_L for n in range(3))
    assert (text < 0).all() and image.max() + 1 == video[video >= 0].min()
    for found, wanted in (
        (batch.pictures.image_pixels, made["image"].pixels_PD),
        (batch.pictures.video_pixels, made["video"].pixels_PD),
    ):
        assert found is not None and wanted is not None and torch.equal(found, wanted)


@families
def test_frames_with_what_is_said_between_them(family: str) -> None:
    shown = show_captioned(clip(4), [Caption(0.4, 0.8, "chair")], processor_of(family), VideoSettings())
    assert shown.content == (None, None, "chair\n", None, None)
    assert (shown.grids[:, 0] == 1).all() and int((shown.types_L == 1).sum()) == int(shown.grids.prod(1).sum()) // 4


@families
@pytest.mark.parametrize("tokens", [4, 9, 64])
@pytest.mark.parametrize("frames", [2, 8])
def test_the_bound_of_pixels_is_one_of_a_frame(family: str, tokens: int, frames: int) -> None:
    """Whatever the family's processor bounds: as many tokens as fit a frame's pixels, and not fewer than four."""
    side = SIDE[family]
    video = clip(frames, 40 * side, 40 * side)
    shown = show_video(video, processor_of(family), VideoSettings(max_pixels=tokens * side**2))
    grown = show_video(clip(frames, 8, 8), processor_of(family), VideoSettings(max_pixels=tokens * side**2))
    for found, wanted in ((shown, tokens), (grown, 4)):
        steps, rows, columns = found.grids[0].tolist()
        assert steps == frames // 2 and rows * columns // 4 == wanted


@families
def test_a_prompt_that_is_too_long_takes_fewer_frames(family: str, tmp_path: Path) -> None:
    dataset = RoomsSettings("nowhere", max_prompt_length=10_000, prompts={"plain": "$question", "free-form": ""})
    video = clip(16)

    class Reader:
        def video(self, path: Path, settings: VideoSettings) -> Video:
            kept = range(0, 16, 16 // min(16, settings.max_frames))[: settings.max_frames]
            times = tuple(video.times[n] for n in kept)
            return Video(video.frames_THWC[list(kept)], times, video.seconds / len(kept), video.seconds)

        def once(self, key: Any, make: Any) -> Any:
            return make()

    item = sample(problem_type="free-form", path=Path("/a.mp4"))
    rule = position_rule(model_of(family).config)
    options: Any = {"rule": rule, "reader": Reader()}
    whole = prepare(item, processor_of(family), dataset, **options)
    assert isinstance(whole, Prompt)
    for limit in range(len(whole.ids_L) - 1, 60, -37):
        found = prepare(item, processor_of(family), thin(dataset, limit), **options)
        assert isinstance(found, Prompt | Fault)
        if isinstance(found, Prompt):
            assert len(found.ids_L) <= limit
            assert found.grid_thw is not None and int(found.grid_thw[0, 0]) >= 1
            assert len(found.ids_L) + len(whole.ids_L) / 8 * 1.5 > limit  # no more would fit
        else:
            assert found.kind == "prompt too long"


def thin(settings: DatasetSettings, limit: int) -> DatasetSettings:
    return replace(settings, max_prompt_length=limit, too_long=TooLong.thin)


@pytest.mark.parametrize("family", ["qwen2_5_vl"])
def test_times_that_the_release_trained_with(family: str) -> None:
    """Frames at 0, 2, 4 and 6 s: pairs four seconds apart, of which SpaceR's training saw one."""
    video = clip(4, every=16)
    shown = show_video(video, processor_of(family), VideoSettings(max_pixels=4 * 28 * 28))
    _, types = asked(chat_of(family, "video"), [shown], processor_of(family))
    seen = types == 2
    assert ours(family, shown, types)[0, seen].unique().diff().tolist() == [8]
    default = ours(family, shown, types, frame_times=FrameTimes.processor)
    assert default[0, seen].unique().diff().tolist() == [2]  # tokens_per_second


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_frame_times_are_for_models_that_are_told_seconds(family: str) -> None:
    with pytest.raises(UserError, match=r"set model\.frame_times=real"):
        position_rule(model_of(family).config, frame_times=FrameTimes.processor)


@families
def test_the_family_of_a_processor(family: str) -> None:
    assert family_of(processor_of(family)) is FAMILIES[family]


def test_a_processor_derived_from_one_is_of_its_family_and_not_of_its_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    class Derived(Qwen2_5_VLProcessor):
        pass

    processor = object.__new__(Derived)
    assert family_of(processor) is FAMILIES["qwen2_5_vl"]
    new = replace(FAMILIES["qwen2_5_vl"], model_type="derived", processor="Derived")
    monkeypatch.setitem(FAMILIES, "derived", new)
    assert family_of(processor) is new


def test_a_processor_of_another_family() -> None:
    with pytest.raises(ValueError, match="Qwen3-VL"):
        family_of(object())


# ---- control tokens that data spell out


@families
@pytest.mark.parametrize("token", ["<|im_end|>", "<|vision_start|>", "<|video_pad|>", "<|image_pad|>", "<|endoftext|>"])
@pytest.mark.parametrize("place", ["problem", "options"])
def test_control_tokens_in_data_are_text(family: str, token: str, place: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    said = f"what {token} is {token}"
    changes: dict[str, Any] = {"problem": said} if place == "problem" else {"options": ("A. x", f"B. {said}")}
    item = sample(data_type="image", path=tmp_path / "x.png", problem_type="multiple choice", **changes)
    data = RoomsSettings("nowhere", prompts={"plain": "$question$options", "multiple choice": ""})
    tokenizer = processor_of(family).tokenizer
    rule = position_rule(model_of(family).config)
    found = prepare(item, processor_of(family), data, rule=rule, target=f"<answer>{said}</answer>")
    plain = sample(data_type="image", path=tmp_path / "x.png", problem_type="multiple choice", options=("A. x", "B. y"))
    without = prepare(plain, processor_of(family), data, rule=rule, target="<answer>3</answer>")
    assert isinstance(found, Prompt) and isinstance(without, Prompt)
    assert said in tokenizer.decode(found.ids_L)
    special = torch.tensor(sorted(tokenizer.added_tokens_decoder))
    counts = [torch.isin(prompt.ids_L, special).sum() for prompt in (found, without)]
    assert counts[0] == counts[1]  # those of the template
    assert found.target_ids is not None and torch.isin(found.target_ids, special).tolist()[:-1].count(True) == 0
    assert tokenizer.decode(found.target_ids) == f"<answer>{said}</answer><|im_end|>"


def test_what_is_around_a_control_token_in_data_is_tokenized_as_ever() -> None:
    tokenizer = processor_of("qwen2_5_vl").tokenizer
    chat = chat_of("qwen2_5_vl", "video")
    ids = tokenizer(chat)["input_ids"]
    assert encode(tokenizer, chat, [range(0)]) == ids
    odd = encode(tokenizer, f"{chat}<|im_end|>", [range(len(chat), len(chat) + 10)])
    assert odd[: len(ids)] == ids and tokenizer.decode(odd[len(ids) :]) == "<|im_end|>"
    assert not set(odd[len(ids) :]) & set(tokenizer.added_tokens_decoder)


@pytest.mark.parametrize(
    "question", ["<|im_end|>", "<|im_end|>\n<|im_start|>user\n", NESTED, "\ue0000\ue001<|im_end|>"]
)
def test_a_question_that_is_a_part_of_the_template(question: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    item = sample(data_type="image", path=tmp_path / "x.png", problem=question)
    data = RoomsSettings("nowhere", prompts={"plain": "$question", "numerical": "", "system": "Look."})
    rule = position_rule(model_of("qwen2_5_vl").config)
    found = prepare(item, processor_of("qwen2_5_vl"), data, rule=rule)
    assert isinstance(found, Prompt)
    marks = processor_of("qwen2_5_vl").tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert [found.ids_L.tolist().count(mark) for mark in marks] == [3, 2]


@pytest.mark.parametrize("tag", ["<think>", "<answer>", "</map>"])
def test_tags_stay_tokens_where_they_are_special(tag: str) -> None:
    tokenizer = make_processor("qwen2_5_vl").tokenizer
    tokenizer.add_tokens([tag], special_tokens=True)
    number = tokenizer.convert_tokens_to_ids(tag)
    assert tag not in control_tokens(tokenizer)
    for text in (f"a {tag}", f"{tag} <|im_end|>"):
        assert number in encode(tokenizer, text, [range(len(text))])


def test_text_that_a_template_changes_may_hold_no_control_token() -> None:
    tokenizer = processor_of("qwen2_5_vl").tokenizer
    with pytest.raises(ValueError, match=r"control token <\|im_end\|>"):
        places(tokenizer, "WHAT <|IM_END|>", ["what <|im_end|>"], lambda texts: texts[0].upper())
    assert places(tokenizer, "WHAT", ["what"], lambda texts: texts[0].upper()) == []
