"""Models whose parameters are spread over the processes: where they are gathered, and for how long.

With FSDP2 (`torch.distributed.fsdp.fully_shard`) a part of the model is gathered when its forward pass begins and let
go when it ends, and so again in the backward pass. Each of these is a collective: all processes take part in as many
forward and backward passes as any of them, in the same order. Where no gradient is wanted, `gathered` has the whole
model in every process instead, which then compute each at its own pace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from spacer.modeling import plain

T = TypeVar("T")


def shard(model: Any, mesh: DeviceMesh, computes_in: torch.dtype | None = None) -> None:
    """Spreads a model's parameters over `mesh`: each decoder layer, each vision block and the rest as a group.

    Where `computes_in` is given, gathered copies are of that type, and gradients are added up in float32. A model that
    is spread already is left as it is.
    """
    base = plain(model)
    if isinstance(base, FSDPModule):
        return
    policy = MixedPrecisionPolicy(computes_in, computes_in and torch.float32, cast_forward_inputs=False)
    for part in (*base.model.visual.blocks, base.model.visual, *base.model.language_model.layers):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(base, mesh=mesh, mp_policy=policy, reshard_after_forward=False)  # embeddings are at both of its ends
    base.compute = MethodType(_compute, base)
    register_fsdp_forward_method(base, "compute")


def _compute(self: Any, function: Callable[[], T]) -> T:
    return function()


def as_forward(model: Any, function: Callable[[], T]) -> T:
    """Calls a function of the model's parts: in a forward pass of the model, where it takes one to have parameters."""
    result: T = plain(model).compute(function) if is_sharded(model) else function()
    return result


def is_sharded(model: Any) -> bool:
    """Whether forward passes of the model are collectives."""
    return isinstance(plain(model), FSDPModule)


@contextlib.contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Every process has all parameters for as long as it lasts: forward passes without gradients, however many."""
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    inner = parts[1:]  # the first is the whole model, which keeps what is in no other part until a backward pass
    try:
        as_forward(model, lambda: None)  # gathers that; and once, before any part of it, the whole must be passed
        for part in inner:
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        yield
    finally:
        for part in inner:
            part.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.reshard()


def whole_state(model: Any) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors on the CPU; empty but in the first process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return dict(state)
