"""Questions about several images and videos: read, laid out and processed as each family's own processor would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spacer.config.choices import Control, Positions, TooLong
from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.controls import with_other_media
from spacer.data.index import IndexWriter, fingerprint, read_index, row_of
from spacer.data.leakage import guard
from spacer.data.processing import MIXED, Prompt, collate, prepare
from spacer.data.samples import Fault, Medium, Sample, examined, named, read_samples
from spacer.data.stored import FileImages
from spacer.models.families import position_rule
from spacer.tree.mrope import IMAGE, TEXT, VIDEO
from tests.unit.data.making import sample
from tests.unit.data.test_families import NESTED, SIDE, clip, families, model_of, processed, processor_of, theirs
from tests.unit.data.written import jsonl, row, write

PROMPTS = {"plain": "$question$options", "numerical": "", "multiple choice": ""}
DATA = RoomsSettings("nowhere", prompts=PROMPTS, image_max_pixels=10_000, video=VideoSettings(max_pixels=8_000))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    found = []
    for n, size in enumerate([(60, 90), (120, 64)]):
        found.append(tmp_path / f"{n}.png")
        Image.fromarray(np.full((*size, 3), 60 * n, np.uint8)).save(found[-1])
    return found


def made(item: Sample, family: str, **options: Any) -> Prompt | Fault:
    rule = position_rule(model_of(family).config, positions=Positions.transformers)
    return prepare(item, processor_of(family), options.pop("data", DATA), rule=rule, **options)


@families
def test_images_in_their_places_are_as_the_processor_has_them(family: str, pictures: list[Path]) -> None:
    item = sample(problem="Is <image> left of <image>?", data_type="image", path=pictures[0])
    item = Sample(**{**vars(item), "media": tuple(Medium("image", path) for path in pictures)})
    found = made(item, family)
    content: list[dict[str, str]] = [
        {"type": "text", "text": "Is "}, {"type": "image"}, {"type": "text", "text": " left of "}, {"type": "image"},
        {"type": "text", "text": "?"},
    ]  # fmt: skip
    chat = processor_of(family).apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    size = {"shortest_edge": 4 * SIDE[family] ** 2, "longest_edge": 10_000}
    images = [Image.open(path) for path in pictures]
    whole = processor_of(family)(text=[chat], images=images, images_kwargs={"size": size}, return_tensors="pt")
    assert isinstance(found, Prompt) and found.pixels_PD is not None and found.grid_thw is not None
    assert torch.equal(found.ids_L, whole["input_ids"][0]) and torch.equal(found.types_L, whole["mm_token_type_ids"][0])
    assert torch.equal(found.pixels_PD, whole["pixel_values"]) and torch.equal(found.grid_thw, whole["image_grid_thw"])
    assert torch.equal(found.positions_3L, theirs(family, whole))
    # in the annotation, and in files of their own that a benchmark names
    for stored in ([path.read_bytes() for path in pictures], FileImages(tuple(pictures))):
        same = made(Sample(**{**vars(item), "media": (), "path": Path("q1"), "images": stored}), family)
        assert isinstance(same, Prompt) and torch.equal(same.ids_L, found.ids_L)
        assert same.pixels_PD is not None and torch.equal(same.pixels_PD, found.pixels_PD)


@families
def test_an_image_before_a_video_is_as_the_processor_has_them(
    family: str, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = clip(4)
    monkeypatch.setattr("spacer.data.decode.read_video", lambda path, settings: clip(min(4, settings.max_frames)))
    media = (Medium("video", Path("/a.mp4")), Medium("image", pictures[0]), Medium("video", Path("/b.mp4")))
    item = Sample(**{**vars(sample(problem="<video>Is <image> in <video>?")), "media": media})
    found = made(item, family)
    assert isinstance(found, Prompt) and found.kind == MIXED
    chat = processor_of(family).apply_chat_template(
        [{"role": "user", "content": [
            {"type": "video"}, {"type": "text", "text": "Is "}, {"type": "image"}, {"type": "text", "text": " in "},
            {"type": "video"}, {"type": "text", "text": "?"},
        ]}],
        add_generation_prompt=True,
    )  # fmt: skip
    marked = chat.replace(NESTED, "<|video_pad|>") if family == "qwen3_vl" else chat
    whole = processed(family, film, marked, 4 * SIDE[family] ** 2, 8_000, count=2, images=[Image.open(pictures[0])])
    assert torch.equal(found.ids_L, whole["input_ids"][0]) and torch.equal(found.types_L, whole["mm_token_type_ids"][0])
    images, videos = found.of_kind("image"), found.of_kind("video")
    assert images is not None and torch.equal(images[0], whole["pixel_values"])
    assert videos is not None and torch.equal(videos[0], whole["pixel_values_videos"])
    assert torch.equal(videos[1], whole["video_grid_thw"]) and torch.equal(images[1], whole["image_grid_thw"])
    assert torch.equal(found.positions_3L, theirs(family, whole))
    batch = collate([found, found])
    assert batch.pictures.image_pixels is not None and batch.pictures.video_pixels is not None
    assert len(batch.pictures.image_pixels) == len(images[0]) and len(batch.pictures.video_pixels) == len(videos[0])
    rows = torch.cat([batch.forest.segments[n].vision_L for n in range(len(batch.forest.segments))])
    of_images = int((found.types_L == IMAGE).sum())
    assert sorted(rows[rows >= 0].tolist()) == list(range(of_images + int((found.types_L == VIDEO).sum())))
    grey = made(item, family, control=Control.grey)
    assert isinstance(grey, Prompt) and grey.video_pixels_PD is not None and not grey.video_pixels_PD.any()
    none = made(item, family, control=Control.none)
    assert isinstance(none, Prompt) and not (none.types_L != TEXT).any()
    assert "Is  in ?" in processor_of(family).tokenizer.decode(none.ids_L)
    thin = replace(DATA, max_prompt_length=len(found.ids_L) - 1, too_long=TooLong.thin)
    fewer = made(item, family, data=thin)
    assert isinstance(fewer, Prompt) and fewer.kind == MIXED and len(fewer.ids_L) < len(found.ids_L)


def test_media_without_marks_stand_before_the_text(pictures: list[Path]) -> None:
    media = tuple(Medium("image", path) for path in pictures)
    item = Sample(**{**vars(sample(problem="Which?", data_type="image", path=pictures[0])), "media": media})
    found = made(item, "qwen2_5_vl")
    assert isinstance(found, Prompt)
    text = processor_of("qwen2_5_vl").tokenizer.decode(found.ids_L)
    assert text.count("<|vision_end|>") == 2 and text.index("Which?") > text.rindex("<|vision_end|>")


def several(root: Path, **fields: Any) -> tuple[list[Sample], list[Fault]]:
    return read_samples(write(root / "several.jsonl", row(1, **fields)), root, {})


def test_a_line_may_name_several_files(root: Path) -> None:
    names = ["videos/a.mp4"] * 2
    (item,), faults = several(root, path=names, problem="Is it <image> or <video>?")
    assert not faults and [file.kind for file in item.media] == ["image", "video"]
    (item,), faults = several(root, path=names)
    assert not faults and [file.kind for file in item.files] == ["video", "video"] and item.path == item.media[0].path
    (alone,), _ = several(root, path=names[:1])
    assert alone.media == () and alone.path == item.path


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"path": []}, "wrong field", "a list of one text or more"),
        ({"path": ["a.mp4", 3]}, "wrong field", "a list of one text or more"),
        (
            {"path": ["a.mp4", "b.mp4"], "problem": "Is it <video>?"},
            "wrong field",
            "1 marks of media, and 'path' 2 files",
        ),
        ({"path": ["/none.mp4", "../x.mp4"]}, "outside the data root", "not under"),
    ],
)
def test_what_is_wrong_with_several_files(fields: dict[str, Any], kind: str, said: str, root: Path) -> None:
    samples, faults = several(root, **fields)
    assert not samples and kind in {fault.kind for fault in faults} and any(said in fault.detail for fault in faults)


def test_the_index_holds_several_files(root: Path) -> None:
    name = "videos/a.mp4"
    file = write(root / "i.jsonl", row(1, path=[name, name], problem="Is it <image> or <video>?"), row(2, path=name))
    settings = jsonl(root)
    (lines, naming) = named(examined(file, root), root.resolve(), {})
    with IndexWriter(root, fingerprint(settings)) as index:
        for line in lines:
            scene = None if line.media is None else naming.scenes[line.media]
            index.add(row_of("train", line, root.resolve(), False, None, scene))
    found = read_index(settings, "train", {})
    assert found is not None and list(found.samples) == read_samples(file, root, {})[0]


def test_a_question_leaks_where_any_of_its_videos_does() -> None:
    media = (Medium("video", Path("/a.mp4")), Medium("video", Path("/b.mp4")))
    item = Sample(**{**vars(sample(path=Path("/a.mp4"))), "media": media})
    assert guard([item], {"b"})[0] == () and guard([item], {"c"})[0] == (item,)


def test_other_media_fit_the_marks() -> None:
    def about(name: str, kinds: tuple[str, ...], text: str) -> Sample:
        media = tuple(Medium(kind, Path(f"/{name}{n}")) for n, kind in enumerate(kinds))
        return Sample(**{**vars(sample(name, problem=text, path=media[0].path, scene=name)), "media": media})

    pairs = [about(name, ("image", "image"), "<image> or <image>?") for name in "ab"]
    mixed = [about(name, ("image", "video"), "<image> in <video>?") for name in "cd"]
    swapped = with_other_media([*pairs, *mixed])
    assert [item.media for item in swapped] == [pairs[1].media, pairs[0].media, mixed[1].media, mixed[0].media]
