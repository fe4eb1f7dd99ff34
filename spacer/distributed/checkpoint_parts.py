"""Checkpoints of sharded models: a small file, and beside it a folder to which each process has written its shards.

The file is a checkpoint whose sharded tensors have a shape and no values (torch's device "meta"), and names the folder
and each file in it with its size and checksum. The folder holds safetensors with each shard's place in its tensor, as
`torch.distributed.checkpoint` writes and reads them; its own format has a pickle, which this has not. A folder is new
with each checkpoint and counts from when the file that names it has replaced the one before.
"""

from __future__ import annotations

import json
import shutil
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.tensor import DTensor

from spacer.distributed import collectives
from spacer.distributed.checkpoint_files import read
from spacer.errors import UserError

PARTS = "parts"  # the checkpoint's entry for its folder
FILE_BYTES = 2**30  # of a process's file, which is built in memory
_ALL = "*.safetensors"
_HASHED = 2**24  # bytes at once
_REMEDY = (
    "bring that folder back as it was written (a checkpoint of cluster=fsdp is moved with it), go on from another "
    "checkpoint of the run, such as checkpoints/best.ckpt, or train anew, in another folder and with ckpt_path=null"
)


def split(checkpoint: Mapping[str, Any]) -> tuple[dict[str, DTensor], dict[str, Any]]:
    """The sharded tensors of a checkpoint by place, each once, and the rest, with tensors of shapes for them."""
    sharded: dict[str, DTensor] = {}
    shapes: dict[int, Tensor] = {}

    def shape_of(place: str, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        if id(tensor) not in shapes:  # two names of one tensor stay one
            shapes[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            sharded[place] = tensor
        return shapes[id(tensor)]

    return sharded, _replaced(checkpoint, shape_of)


def join(checkpoint: Mapping[str, Any], values: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint with the values of its tensors of shapes; those whose place has none stay as they are."""
    found: dict[int, Tensor] = {}

    def value_of(place: str, tensor: Tensor) -> Tensor:
        return found.setdefault(id(tensor), values.get(place, tensor)) if tensor.is_meta else tensor

    return _replaced(checkpoint, value_of)


def places(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of shapes by the place of their values."""
    found: dict[int, tuple[str, Tensor]] = {}

    def note(place: str, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            found.setdefault(id(tensor), (place, tensor))
        return tensor

    _replaced(checkpoint, note)
    return dict(found.values())


def _replaced(checkpoint: Mapping[str, Any], change: Callable[[str, Tensor], Tensor]) -> dict[str, Any]:
    """A copy in which `change` has made other tensors of those of the model and its optimisers, given their places."""

    def walk(place: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(place, value)
        if isinstance(value, dict):
            return {name: walk(f"{place}.{name}", one) for name, one in value.items()}
        if isinstance(value, list):
            return [walk(f"{place}.{number}", one) for number, one in enumerate(value)]
        return value

    parts = ("state_dict", "optimizer_states")
    return {name: walk(name, value) if name in parts else value for name, value in checkpoint.items()}


def new_folder(path: Path) -> Path:
    """Where the shards of a checkpoint `path` are to be written; removes what a kill has left of an earlier attempt."""
    forget_but(path, _folder_in_use(path))
    return path.with_name(f"{path.stem}.{PARTS}-{uuid.uuid4().hex[:8]}")


def forget_but(path: Path, kept: Path | None) -> None:
    """Removes the folders of shards of a checkpoint `path`, except `kept`."""
    for folder in folders_of(path):
        if folder != kept:
            shutil.rmtree(folder)


def folders_of(path: Path) -> list[Path]:
    """The folders of shards that are or were a checkpoint's: one, but for kills."""
    return sorted(path.parent.glob(f"{path.stem}.{PARTS}-*"))


def remove(path: Path) -> None:
    """Removes a checkpoint, with its shards if it has any."""
    path.unlink()  # first: a folder that nothing names is no checkpoint
    forget_but(path, None)


def write(sharded: Mapping[str, DTensor], folder: Path, device: torch.device) -> dict[str, Any]:
    """Writes this process's shards, which all processes must do together; returns what the checkpoint's file holds.

    `device` is one that the processes' collectives take tensors of.

    Raises:
        OSError: a process cannot write; in all processes.
        UserError: the first process does not see what another has written.
    """
    size, index = 0, {}
    for place, tensor in sharded.items():
        index[place] = 1 + size // (FILE_BYTES * collectives.world())
        size += tensor.nbytes
    writer = dcp.HuggingFaceStorageWriter(str(folder), index, save_distributed=True)
    try:
        dcp.save({place: tensor.detach() for place, tensor in sharded.items()}, storage_writer=writer)
    except dcp.CheckpointException as error:  # the same in all processes
        if collectives.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)  # frees the space if the disk is full
        raise _cause(error) from error
    mine = sorted(folder.glob(f"shard-{collectives.rank() + 1:05d}-{_ALL}"))
    told = collectives.join_texts([json.dumps([file.name, *_digest(file)]) for file in mine], device)
    files = {name: digest for name, *digest in map(json.loads, told)}
    unseen = [name for name in files if collectives.rank() == 0 and not (folder / name).is_file()]
    if lacking := collectives.join_texts(unseen, device):
        raise UserError(
            f"{folder} lacks {lacking[0]}, which another process has written: nodes must see the same run folder, so "
            "set hydra.run.dir to one on a file system that they share"
        )
    return {"folder": folder.name, "files": files}


def check(path: Path, checkpoint: Mapping[str, Any], device: torch.device) -> None:
    """Reads the shards of a checkpoint, each in one of the processes, which must call this together.

    Raises:
        UserError: a file is missing, damaged, or not of this checkpoint; in all processes.
    """
    folder, files = _named(path, checkpoint), checkpoint[PARTS]["files"]
    there = {file.name for file in folder.glob(_ALL)}
    every = sorted(files.keys() | there)
    faults = list(_faults(folder, files, every[collectives.rank() :: collectives.world()]))
    if told := collectives.join_texts(faults, device):
        raise UserError(f"{path} is not whole: {told[0]}: {_REMEDY}")


def load(path: Path, checkpoint: Mapping[str, Any], into: Mapping[str, Tensor]) -> None:
    """Fills tensors with the values of a checkpoint by place, each process its shards of those that are sharded."""
    reader = dcp.HuggingFaceStorageReader(str(_named(path, checkpoint)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it is to one process
        dcp.load(dict(into), storage_reader=reader)


def whole_weights(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint as whole tensors, from its folder if they are there. UserError as of `check`."""
    state: dict[str, Tensor] = checkpoint["state_dict"]
    if PARTS not in checkpoint:
        return state
    check(path, checkpoint, torch.device("cpu"))
    weights = {"state_dict": state}
    values = {place: torch.empty_like(shape, device="cpu") for place, shape in places(weights).items()}
    load(path, checkpoint, values)
    joined: dict[str, Tensor] = join(weights, values)["state_dict"]
    return joined


def _folder_in_use(path: Path) -> Path | None:
    """The folder that a checkpoint names; None if there is no checkpoint, or it names none."""
    try:
        held = read(path, mmap=True)
    except UserError:
        return None
    return _named(path, held) if PARTS in held else None


def _named(path: Path, checkpoint: Mapping[str, Any]) -> Path:
    return path.with_name(Path(checkpoint[PARTS]["folder"]).name)


def _faults(folder: Path, files: Mapping[str, list[int]], names: list[str]) -> Iterator[str]:
    for name in names:
        file = folder / name
        if name not in files:
            yield f"{file} is not of this checkpoint"
        elif not file.is_file():
            yield f"{file} is missing"
        elif _digest(file) != tuple(files[name]):
            yield f"{file} is damaged (its size or checksum is another)"


def _digest(file: Path) -> tuple[int, int]:
    """A file's size in bytes and its CRC-32, which is what torch keeps of the parts of its own files."""
    size = sum_ = 0
    with open(file, "rb") as opened:
        while block := opened.read(_HASHED):
            size, sum_ = size + len(block), zlib.crc32(block, sum_)
    return size, sum_


def _cause(error: dcp.CheckpointException) -> BaseException:
    """What failed in the first process in which something did."""
    (failure, _), *_others = error.failures.values()
    return failure
