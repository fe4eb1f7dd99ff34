"""A disk of a few bytes, to be really full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes at `path`; the test is skipped where mounting is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a full disk needs `mount`, which is not here")
    if mounted.returncode:
        pytest.skip(f"a full disk needs leave to mount one: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def enlarge(disk: Path, size: int) -> None:
    """Gives a small disk more room, with what it holds."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
