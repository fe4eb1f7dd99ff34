"""Checkpoints in shards: whole or refused, replaced at once, and never unpickled."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from spacer.distributed import checkpoint_parts
from spacer.distributed.checkpoint_files import read
from spacer.distributed.checkpoint_parts import (
    PARTS,
    folders_of,
    forget_but,
    new_folder,
    remove,
    split,
    whole_weights,
    write,
)
from spacer.errors import UserError, of_the_machine
from spacer.training.checkpoints import WholeFiles
from tests.parity.shards import Policy, Spread, train

CPU = torch.device("cpu")


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def save(path: Path, mesh: DeviceMesh, number: float) -> dict[str, Any]:
    """As a sharded strategy does."""
    tied = distribute_tensor(torch.full((6, 2), float(number)), mesh, [Shard(0)])
    state = {"policy.a": tied, "policy.b": tied, "policy.buffer": torch.ones(2)}
    moments = {"step": torch.tensor(3.0), "exp_avg": distribute_tensor(torch.arange(9.0), mesh, [Shard(0)])}
    checkpoint = {"state_dict": state, "optimizer_states": [{"state": {0: moments}}], "global_step": int(number)}
    folder = new_folder(path)
    sharded, rest = split(checkpoint)
    rest[PARTS] = write(sharded, folder, CPU)
    WholeFiles().save_checkpoint(rest, path)
    forget_but(path, folder)
    return checkpoint


@pytest.fixture
def path(mesh: DeviceMesh, tmp_path: Path) -> Path:
    save(tmp_path / "last.ckpt", mesh, 1)
    return tmp_path / "last.ckpt"


def number_in(path: Path) -> float:
    return float(whole_weights(path, read(path))["policy.a"].mean())


def test_the_file_has_shapes_and_the_folder_values(path: Path) -> None:
    held = read(path)
    assert held["state_dict"]["policy.a"].is_meta and held["state_dict"]["policy.a"].shape == (6, 2)
    (states,) = held["optimizer_states"]
    assert states["state"][0]["exp_avg"].is_meta and states["state"][0]["step"] == 3
    weights = whole_weights(path, held)
    assert torch.equal(weights["policy.a"], torch.ones(6, 2)) and weights["policy.b"] is weights["policy.a"]
    assert torch.equal(weights["policy.buffer"], torch.ones(2))


def test_shards_are_in_files_of_a_size(mesh: DeviceMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_parts, "FILE_BYTES", 40)
    save(tmp_path / "last.ckpt", mesh, 4)
    (folder,) = folders_of(tmp_path / "last.ckpt")
    assert len(list(folder.iterdir())) == 2 and number_in(tmp_path / "last.ckpt") == 4


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_pickles_in_the_folder_are_not_opened(path: Path, tmp_path: Path) -> None:
    (folder,) = folders_of(path)
    for name in (".metadata", "__0_0.distcp", "meta.pt", "0.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    assert number_in(path) == 1 and not (tmp_path / "mark").exists()
    pickle.loads((folder / "0.pkl").read_bytes())
    assert (tmp_path / "mark").exists()  # as it would have been


def test_a_pickle_for_a_shard_is_refused_unopened(path: Path, tmp_path: Path) -> None:
    (folder,) = folders_of(path)
    (shard,) = folder.iterdir()
    shard.write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(UserError, match="is damaged"):
        number_in(path)
    assert not (tmp_path / "mark").exists()


def test_what_is_not_whole_is_refused_with_the_file_and_a_remedy(path: Path) -> None:
    (folder,) = folders_of(path)
    (shard,) = folder.iterdir()
    whole = shard.read_bytes()
    (folder / "other.safetensors").write_bytes(whole)
    with pytest.raises(UserError, match=r"other\.safetensors is not of this checkpoint: .*ckpt_path=null"):
        number_in(path)
    (folder / "other.safetensors").unlink()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{shard} is damaged .*bring that folder back.*ckpt_path=null"):
        number_in(path)
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard} is missing.*bring that folder back"):
        number_in(path)
    folder.rmdir()
    with pytest.raises(UserError, match=rf"{shard} is missing"):
        number_in(path)


def test_a_write_that_fails_leaves_the_checkpoint_before(
    path: Path, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as raised:
        save(path, mesh, 2)
    assert "o space is left on the disk" in str(of_the_machine(raised.value))
    assert len(folders_of(path)) == 1 and number_in(path) == 1


def test_nodes_that_do_not_share_the_folder_are_told_when_they_save(
    path: Path, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another node's process there is what it tells, and no file."""

    def joined(texts: list[str], device: torch.device) -> list[str]:
        others = [json.dumps(["shard-00002-a.safetensors", 1, 1])] if texts and texts[0].startswith("[") else []
        return [*texts, *others]

    monkeypatch.setattr(checkpoint_parts.collectives, "join_texts", joined)
    with pytest.raises(UserError, match=r"lacks shard-00002-a\.safetensors, .*set hydra\.run\.dir"):
        save(path, mesh, 2)
    assert read(path)["global_step"] == 1


def test_a_write_that_is_killed_leaves_the_checkpoint_before_and_is_cleared_away(
    path: Path, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(WholeFiles, "save_checkpoint", killed)  # when its shards are written
        save(path, mesh, 2)
    assert len(folders_of(path)) == 2 and number_in(path) == 1
    assert folders_of(path) != [new_folder(path)] and len(folders_of(path)) == 1 and number_in(path) == 1
    save(path, mesh, 3)
    assert len(folders_of(path)) == 1 and number_in(path) == 3


def test_removing_takes_the_shards_of_that_checkpoint_alone(path: Path, mesh: DeviceMesh) -> None:
    best = path.with_name("best.ckpt")
    save(best, mesh, 5)
    remove(best)
    assert sorted(path.parent.iterdir()) == [path, *folders_of(path)] and number_in(path) == 1


def test_whole_weights_of_a_file_are_its_own() -> None:
    state = {"policy.a": torch.ones(1)}
    assert whole_weights(Path("a.ckpt"), {"state_dict": state}) is state


@pytest.fixture
def trained(mesh: DeviceMesh, tmp_path: Path) -> Path:
    """The checkpoint of a run of two steps."""
    train(tmp_path, 1, 2)
    return tmp_path / "last.ckpt"


def test_a_run_of_one_process_goes_on(trained: Path, tmp_path: Path) -> None:
    resumed, peace = train(tmp_path / "resumed", 1, 4, trained), train(tmp_path / "peace", 1, 4)
    assert resumed.ended.keys() == peace.ended.keys()
    assert all(torch.equal(value, peace.ended[name]) for name, value in resumed.ended.items())


def test_other_settings_are_refused_before_anything_is_changed(trained: Path, tmp_path: Path) -> None:
    wide, scaled = Spread(Policy(width=16)), Spread(vision_scale=0.5)
    frozen = Spread()
    frozen.policy.one.requires_grad_(False)
    for module, told in ((wide, "has another shape"), (scaled, "other groups"), (frozen, "other groups")):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(UserError, match=rf"last\.ckpt was written under other settings .*{told}"):
            train(tmp_path / "other", 1, 4, trained, module)
        for name, value in module.state_dict().items():
            assert torch.equal(value.full_tensor() if isinstance(value, DTensor) else value, before[name])


def test_a_damaged_shard_stops_a_run_before_it_trains(trained: Path, tmp_path: Path) -> None:
    (folder,) = folders_of(trained)
    (shard,) = folder.iterdir()
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(UserError, match=rf"{shard} is damaged"):
        train(tmp_path / "other", 1, 4, trained)


def test_a_file_of_an_earlier_version_is_refused(trained: Path, tmp_path: Path) -> None:
    held = read(trained) | {"state_dict": whole_weights(trained, read(trained))}
    del held[PARTS]
    WholeFiles().save_checkpoint(held, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"written by an earlier version.*stage=export"):
        train(tmp_path / "other", 1, 4, tmp_path / "old.ckpt")
