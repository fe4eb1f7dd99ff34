"""Folders that are whole or not there, whoever else makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacer.files import whole_folder


def test_a_folder_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cache/rooms"
    with pytest.raises(KeyError), whole_folder(folder) as work:
        (work / "half").touch()
        raise KeyError
    assert list(folder.parent.iterdir()) == []
    with whole_folder(folder) as work:
        (work / "all").touch()
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["all"]
    assert list(folder.parent.iterdir()) == [folder]


def test_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "model") as slow:
        (slow / "slow").touch()
        with whole_folder(tmp_path / "model") as quick:
            (quick / "quick").touch()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["quick"]
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]
