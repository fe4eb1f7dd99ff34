"""What the machine refuses comes as one sentence that names the place and the remedy."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from spacer.distributed.checkpoint_files import read
from spacer.errors import UserError, of_the_machine
from spacer.files import read_rows
from spacer.sweeping import record
from spacer.sweeping.record import Record, Status
from spacer.training.checkpoints import WholeFiles
from tests.disks import small_disk


def test_a_refusal_is_found_behind_what_was_raised_from_it() -> None:
    try:
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "/data/a")
        except OSError as error:
            raise RuntimeError("worker failed") from error
    except RuntimeError as error:
        assert str(of_the_machine(error)).startswith("/data/a: permission denied: give this user access")


COLLECTIVE = """
import os, sys
import torch
import torch.distributed as dist
from spacer.errors import of_the_machine
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
dist.barrier()
if rank:
    os._exit(9)
try:
    while True:
        dist.all_reduce(torch.ones(4))
except RuntimeError as error:
    print(of_the_machine(error))
"""


def test_a_process_that_is_gone_is_told_of_by_those_that_wait_for_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", COLLECTIVE]
    ranks = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said, _ = ranks[0].communicate(timeout=300)
    assert ranks[1].wait() == 9
    assert said.startswith("another process of this run has died") and "ckpt_path=last" in said


def test_other_errors_keep_their_traceback() -> None:
    for error in (ValueError("x"), FileNotFoundError(errno.ENOENT, "no", "/a"), PermissionError(errno.EPERM, "kill")):
        assert of_the_machine(error) is None
    assert of_the_machine(UserError("mend it")) is None


def test_a_disk_that_is_full_is_told_of_whoever_writes(tmp_path: Path) -> None:
    """torch and safetensors report it with their own errors."""
    with small_disk(tmp_path / "disk", 2**20) as disk:
        tensors = {"a": torch.zeros(2**20)}
        for write in (
            lambda: torch.save(tensors, disk / "a"),
            lambda: safetensors.torch.save_file(tensors, disk / "b"),
            lambda: (disk / "c").write_bytes(bytes(2**22)),
        ):
            with pytest.raises(Exception) as raised:  # of whichever kind
                write()
            known = of_the_machine(raised.value, str(disk))
            assert known is not None and "no space is left on the disk" in str(known) and str(disk) in str(known)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_its_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**21) as disk:
        last = disk / "checkpoints/last.ckpt"
        WholeFiles().save_checkpoint({"state_dict": {}, "global_step": 3}, last)
        with pytest.raises((OSError, RuntimeError)) as raised:
            WholeFiles().save_checkpoint({"state_dict": {"a": torch.zeros(2**20)}, "global_step": 4}, last)
        assert "no space is left" in str(of_the_machine(raised.value, "RUN"))
        assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"]
        assert read(last)["global_step"] == 3
        (disk / "more").write_bytes(bytes(2**20))  # there is room again


def test_how_a_run_ended_is_recorded_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**16) as disk:
        settings = {f"name {n}": {"value": n} for n in range(200)}
        record.write(disk, Record(Status.running, settings))
        with pytest.raises(OSError, match="No space"):
            (disk / "rest").write_bytes(bytes(2**17))
        for reason in ("the disk is full", "x" * 10_000):
            record.write(disk, Record(Status.failed, settings, reason=reason))
            found = record.read(disk)
            assert found is not None and found.status == Status.failed and found.settings == settings
        assert sorted(file.name for file in disk.iterdir()) == ["rest", "run.json"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"state_dict": {"policy.a": torch.arange(5000.0)}, "global_step": 7}, path)
    return path


def test_a_whole_checkpoint_is_read(checkpoint: Path) -> None:
    assert torch.equal(read(checkpoint)["state_dict"]["policy.a"], torch.arange(5000.0))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_checkpoint_that_is_cut_short_is_refused(share: float, checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read .*ckpt_path=null"):
        read(checkpoint)


def test_one_bit_of_a_weight_that_has_changed_is_seen(checkpoint: Path) -> None:
    whole = bytearray(checkpoint.read_bytes())
    whole[len(whole) // 2] ^= 1
    checkpoint.write_bytes(whole)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        read(checkpoint)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    others = {"text": b"what?", "folder": None, "tensor": torch.zeros(2), "dict": {"a": 1}}
    for name, content in others.items():
        path = tmp_path / name
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(UserError, match=f"{name} (cannot be read|holds no weights)"):
            read(path)


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"3", b'{"a": "\xe9"}'])
def test_a_line_that_is_damaged_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2, is damaged"):
        read_rows(path)


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", json.dumps({"status": "odd"}), json.dumps({"status": "done", "colour": 1})):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(UserError, match=r"run\.json is damaged"):
            record.read(tmp_path)
