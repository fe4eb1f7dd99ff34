"""Unpacking resumes wherever it stopped: interrupted, killed, changed since, out of disk space."""

from __future__ import annotations

import dataclasses
import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spacer.data.prepare import archive
from spacer.data.prepare.archive import Unpacked, unpack
from spacer.data.prepare.parts import ArchiveError
from tests.disks import small_disk
from tests.unit.data.archives import FILES, TOTAL, contents, split, tar


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
@pytest.mark.parametrize("at", [1, 12, len(FILES)])
def test_an_interrupted_run_goes_on(
    error: Any, at: int, parts: tuple[Path, ...], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0
    replace = os.replace

    def interrupted(old: Path, new: Path) -> None:
        nonlocal writes
        writes += new.name != archive.STATE
        if writes == at:
            raise error
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(BaseException, match="error" if isinstance(error, OSError) else ""):
            unpack(parts, target)
    assert len(contents(target)) == at - 1
    assert not list(target.rglob(f"{archive.TEMPORARY}*"))
    assert unpack(parts, target) == Unpacked(len(FILES) - at + 1, at - 1, TOTAL)
    assert contents(target) == FILES


KILLED = """
import os, signal, sys
from pathlib import Path
from spacer.data.prepare import archive
from spacer.data.prepare import parts

read = parts.Joined.read
def killed(self, size):
    if self.done > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, size)
parts.Joined.read = killed
archive.unpack(parts.find_parts(Path(sys.argv[1]), "SpaceR-151k.part_", 10), Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on(parts: tuple[Path, ...], target: Path) -> None:
    # within the long file, which comes last and is larger than what is written at once
    command = [sys.executable, "-c", KILLED, str(parts[0].parent), str(target), str(TOTAL - archive.CHUNK)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    (left,) = target.rglob(f"{archive.TEMPORARY}*")
    assert 0 < left.stat().st_size < len(FILES["videos/long.mp4"])
    assert unpack(parts, target) == Unpacked(1, len(FILES) - 1, TOTAL)
    assert contents(target) == FILES


def test_a_file_that_was_deleted_or_changed_is_unpacked_again(parts: tuple[Path, ...], target: Path) -> None:
    unpack(parts, target)
    (target / "videos/a/3.mp4").unlink()
    (target / "readme.txt").write_bytes(b"other size")
    content = bytearray(FILES["videos/long.mp4"])
    content[archive.CHUNK + 5] ^= 1
    (target / "videos/long.mp4").write_bytes(content)
    assert unpack(parts, target) == Unpacked(3, len(FILES) - 3, TOTAL)
    assert contents(target) == FILES


def test_other_parts_are_unpacked_over_what_is_there(parts: tuple[Path, ...], tmp_path: Path, target: Path) -> None:
    unpack(parts, target)
    changed = FILES | {"readme.txt": FILES["readme.txt"][::-1]}
    parts = split(tmp_path / "parts", gzip.compress(tar(changed), compresslevel=1))
    assert unpack(parts, target) == Unpacked(1, len(FILES) - 1, TOTAL)
    assert contents(target) == changed


@pytest.mark.parametrize("state", ["", "{", "[]", "{}", '{"sources": 1, "members": 2, "digests": 3}'])
def test_a_state_that_cannot_be_read_is_no_state(state: str, parts: tuple[Path, ...], target: Path) -> None:
    unpack(parts, target)
    (target / archive.STATE).write_text(state)
    assert unpack(parts, target) == Unpacked(0, len(FILES), TOTAL)


def test_too_little_room_is_told_before_anything_is_written(
    parts: tuple[Path, ...], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(count: float) -> None:
        usage = dataclasses.make_dataclass("Usage", ["free"])(int(count))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    size = sum(part.stat().st_size for part in parts)
    free(size)
    with pytest.raises(ArchiveError, match=r"needs about 0.00\d GB more .* only 0.00\d GB are free: free some space"):
        unpack(parts, target)
    assert not contents(target)
    free(size * archive.MARGIN + 1)
    unpack(parts, target)
    (target / "readme.txt").unlink()
    free(size * archive.MARGIN - TOTAL + len(FILES["readme.txt"]) + 100_000)  # what lies there counts
    unpack(parts, target)
    free(0)
    assert unpack(parts, target).written == 0


def test_parts_that_lie_in_the_target_are_no_room_gained(
    parts: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: dataclasses.make_dataclass("Usage", ["free"])(TOTAL // 2))
    with pytest.raises(ArchiveError, match="free some space"):
        unpack(parts, parts[0].parent)
    monkeypatch.undo()
    assert unpack(parts, parts[0].parent).written == len(FILES)


def test_a_disk_that_becomes_full(tmp_path: Path) -> None:
    files = {f"zeros/{index}": bytes(300_000) for index in range(10)}  # so well compressed that it seems to fit
    parts = split(tmp_path / "parts", gzip.compress(tar(files)))
    with small_disk(tmp_path / "disk", 2_000_000) as disk:
        target = disk / "target"
        with pytest.raises(ArchiveError, match=r"'zeros/\d' could not be written. .* stay. Free about") as raised:
            unpack(parts, target)
        there = contents(target)
        assert 0 < len(there) < 10 and f"{len(there)} files" in str(raised.value)
        assert there.items() <= files.items()
        assert not list(target.rglob(f"{archive.TEMPORARY}*"))
        subprocess.run(["mount", "-o", "remount,size=8000000", str(disk)], check=True)
        assert unpack(parts, target) == Unpacked(10 - len(there), len(there), 3_000_000)
        assert contents(target) == files
