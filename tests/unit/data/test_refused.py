"""What is wrong with one sample is counted, and what is wrong with the machine, the model or the settings is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.images import read_image
from spacer.data.prepare import media
from spacer.data.processing import prepare
from spacer.data.samples import Fault, find_media
from spacer.data.trial import check_prompts
from spacer.errors import UserError
from tests.unit.data.conftest import Decode
from tests.unit.data.making import RULE, sample

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

FAILING = Path("/proc/self/mem")  # a file that opens, and whose first byte cannot be read: "Input/output error"


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    path = tmp_path / "failing"
    path.symlink_to(FAILING)
    with pytest.raises(OSError, match="Input/output error"):
        path.read_bytes()
    return path


# ---- the machine


def test_a_disk_that_fails_is_no_fault_of_the_file(failing: Path, decode: Decode) -> None:
    for read in (lambda: decode(failing, VideoSettings()), lambda: read_image(failing)):
        with pytest.raises(UserError, match="failing: the disk failed to read"):
            read()


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_disk_that_fails_ends_the_run(
    kind: str, failing: Path, processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    with pytest.raises(UserError, match="failing: the disk failed to read"):
        prepare(sample(data_type=kind, path=failing), processor, settings, rule=RULE)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_disk_that_fails_is_not_remembered_of_a_file(kind: str, failing: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failing: the disk failed to read"):
        media.survey(tmp_path, {failing.name: kind})
    assert not (tmp_path / media.NAME).read_text()


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("gone", [lambda path: None, lambda path: path.mkdir(), lambda path: path.symlink_to(path)])
def test_a_file_that_is_gone_is_a_fault(
    kind: str, gone: Callable[[Path], None], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    gone(tmp_path / "x")
    found = prepare(sample(data_type=kind, path=tmp_path / "x"), processor, settings, rule=RULE)
    assert isinstance(found, Fault) and found.kind == "unreadable media" and str(tmp_path / "x") in found.detail


def test_a_folder_that_may_not_be_looked_into_is_no_fault_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuses)  # root is refused nothing
    with pytest.raises(UserError, match=r"videos/a\.mp4: permission denied"):
        find_media("videos/a.mp4", tmp_path)


# ---- the sample, the model, the settings


def test_pictures_too_thin_for_the_processor_are_faults(
    processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (2, 900)).save(tmp_path / "x.png")
    found = prepare(sample(data_type="image", path=tmp_path / "x.png"), processor, settings, rule=RULE)
    assert isinstance(found, Fault) and found.kind == "cannot be processed"
    assert str(tmp_path / "x.png") in found.detail and "aspect ratio" in found.detail


def test_marks_of_media_in_the_system_message_are_no_fault_of_a_sample(
    processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (56, 56)).save(tmp_path / "x.png")
    own = dataclasses.replace(settings, prompts=settings.prompts | {"system": "See <|vision_start|>."})
    with pytest.raises(UserError, match=r"media marks.*leave them out of the prompt `system`"):
        prepare(sample(data_type="image", path=tmp_path / "x.png"), processor, own, rule=RULE)
    with pytest.raises(UserError, match=r"benchmark\.prompts: .*media marks"):
        check_prompts(processor, own, "benchmark")


def test_a_model_that_takes_all_prompts_is_let_through(processor: Qwen2_5_VLProcessor, settings: RoomsSettings) -> None:
    for system in ({}, {"system": " Look at $5 rooms.\n"}):
        check_prompts(processor, dataclasses.replace(settings, prompts=settings.prompts | system), "dataset")


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
AS_TEXT = "{% if messages[0].role == 'system' %}{{ '' + messages[0].content }}{% endif %}"
PASSES_OVER = "{% set messages = messages[1:] if messages[0].role == 'system' else messages %}"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (REFUSES, r"rejects a system message \(System role not supported\): remove `system`"),
        (AS_TEXT, "rejects a system message .*: remove `system`"),
        (PASSES_OVER, "drops the system message: remove `system`"),
    ],
)
def test_a_template_without_a_system_turn_is_told_of_before_any_sample(
    first: str, said: str, settings: RoomsSettings
) -> None:
    from tests.model_folders import make_processor

    odd = make_processor("qwen2_5_vl")
    odd.chat_template = first + odd.chat_template
    check_prompts(odd, settings, "dataset")
    with pytest.raises(UserError, match=r"^dataset\.parts\.b\.prompts: the model's chat template " + said):
        own = dataclasses.replace(settings, prompts=settings.prompts | {"system": "Look."})
        check_prompts(odd, own, "dataset.parts.b")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_processor_that_makes_nothing_of_a_grey_picture_is_told_of(kind: str, settings: RoomsSettings) -> None:
    from tests.model_folders import make_processor

    odd = make_processor("qwen2_5_vl")
    getattr(odd, f"{kind}_processor").image_mean = [0.5] * 7
    with pytest.raises(UserError, match=rf"^dataset: the model's processor cannot make a prompt of a grey {kind} \("):
        check_prompts(odd, settings, "dataset")
