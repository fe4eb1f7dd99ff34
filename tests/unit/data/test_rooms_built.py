"""The files of `dataset=rooms` are built once, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spacer.config.choices import OnBad
from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.scenes import rooms
from spacer.process.failing import WorkerError


def moments(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_a_second_build_takes_what_is_there(
    folder: Path, settings: RoomsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = moments(folder)
    monkeypatch.setattr(rooms, "_write", lambda *_: pytest.fail("written anew"))
    assert rooms.build(settings) == folder
    assert rooms.build(dataclasses.replace(settings, workers=7, video=VideoSettings(max_frames=2))) == folder
    assert moments(folder) == before


def test_every_setting_that_shapes_the_files_names_the_folder() -> None:
    settings = RoomsSettings(root="here")
    digests = {rooms.digest(settings)}
    how_files_are_read = {"root", "video", "image_max_pixels", "max_prompt_length", "workers", "on_bad", "prompts"}
    how_files_are_read |= {"questions_per_video", "too_long", "prompts_file", "kind", "generated", "pass_rate"}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name not in how_files_are_read:  # a new setting lands here, and must be placed in one of the two
            other = not value if isinstance(value, bool) else value + (2 if field.name == "size_px" else 1)  # even
            change: dict[str, Any] = {field.name: other}
            changed = dataclasses.replace(settings, **change)
            assert rooms.digest(changed) not in digests, field.name
            digests.add(rooms.digest(changed))
    same = dataclasses.replace(settings, root="there", max_prompt_length=9, on_bad=OnBad.skip, prompts={"a": "b"})
    assert rooms.digest(same) == rooms.digest(settings)


def write_some(settings: RoomsSettings, work: Path) -> None:
    (work / "train.jsonl").write_text("{}\n")
    (work / "videos" / "train_00000.mp4").write_bytes(b"half")


def test_changed_settings_make_another_folder_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_write", write_some)
    first = rooms.build(RoomsSettings(root=str(tmp_path)))
    second = rooms.build(RoomsSettings(root=str(tmp_path), seconds=9.0))
    assert first != second
    assert sorted(tmp_path.iterdir()) == sorted([first, second])


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: RoomsSettings, work: Path) -> None:
        write_some(settings, work)
        raise OSError("No space left on device")

    monkeypatch.setattr(rooms, "_write", fail)
    settings = RoomsSettings(root=str(tmp_path / "deep" / "root"))
    with pytest.raises(OSError, match="No space left"):
        rooms.build(settings)
    assert list((tmp_path / "deep" / "root").iterdir()) == []
    monkeypatch.setattr(rooms, "_write", write_some)
    assert (rooms.build(settings) / "train.jsonl").exists()


def test_a_build_that_a_worker_fails_leaves_nothing(tmp_path: Path) -> None:
    """The encoder takes no odd number of pixels; it says so in a worker, after the files were begun."""
    settings = RoomsSettings(root=str(tmp_path), train_scenes=1, heldout_scenes=1, seconds=0.5)
    object.__setattr__(settings, "size_px", 65)  # which the settings refuse
    with pytest.raises(WorkerError, match="in a worker process"):
        rooms.build(settings)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_folder_that_counts_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, signal, sys\n"
        "from spacer.data.scenes import rooms\n"
        "from spacer.config.settings import RoomsSettings\n"
        "def die(settings, work):\n"
        "    (work / 'train.jsonl').write_text('{}')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "rooms._write = die\n"
        "rooms.build(RoomsSettings(root=sys.argv[1]))\n"
    )
    repository = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=repository, timeout=60)
    assert done.returncode == -signal.SIGKILL
    settings = RoomsSettings(root=str(tmp_path))
    assert len(list(tmp_path.rglob("train.jsonl"))) == 1  # it did begin
    assert not (tmp_path / rooms.digest(settings)).exists()
    monkeypatch.setattr(rooms, "_write", write_some)
    folder = rooms.build(settings)
    assert (folder / "videos" / "train_00000.mp4").exists()


def test_another_process_that_was_quicker_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RoomsSettings(root=str(tmp_path))
    folder = tmp_path / rooms.digest(settings)

    def overtaken(settings: RoomsSettings, work: Path) -> None:
        write_some(settings, work)
        folder.mkdir()
        (folder / "train.jsonl").write_text("theirs")

    monkeypatch.setattr(rooms, "_write", overtaken)
    assert rooms.build(settings) == folder
    assert (folder / "train.jsonl").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_finished_folder_can_be_read_by_all_that_the_umask_lets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache may be shared; the folder has the permissions of any other that is made."""
    monkeypatch.setattr(rooms, "_write", write_some)
    folder = rooms.build(RoomsSettings(root=str(tmp_path)))
    ordinary = tmp_path / "ordinary"
    os.mkdir(ordinary)
    assert folder.stat().st_mode == ordinary.stat().st_mode
