"""Models whose parameters are spread over the processes: where they are gathered, and for how long.

With FSDP2 (`torch.distributed.fsdp.fully_shard`) a part of the model is gathered when its forward pass begins and let
go when it ends, and so again in the backward pass; with DeepSpeed's ZeRO-3 (`zero3`) it is each module that has
parameters. Each of these is a collective: all processes take part in as many forward and backward passes as any of
them, in the same order. Where no gradient is wanted, `gathered` has the whole model in every process instead, which
then compute each at its own pace.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from spacer.models.families import family_of
from spacer.models.unwrap import unwrap

T = TypeVar("T")


@dataclass(frozen=True)
class _Twin:
    """The model as it was before it was sharded, without parameters; held so that torch does not take it for a part."""

    model: Any


def shard_firsts(model: Any, mesh: DeviceMesh, computes_in: torch.dtype | None = None) -> None:
    """`shard` with the weights of the first process, whatever the others hold."""
    if is_sharded(model):
        return
    state = model.state_dict() if mesh.get_rank() == 0 else {}  # sharding leaves these tensors as they are
    shard(model, mesh, computes_in)
    if mesh.size() > 1:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(model, state, options=options)


def shard(model: Any, mesh: DeviceMesh, computes_in: torch.dtype | None = None) -> None:
    """Spreads a model's parameters over `mesh`: each decoder layer, each vision block and the rest as a group.

    Where `computes_in` is given, gathered copies are of that type, and gradients are added up in float32. A model that
    is spread already is left as it is.
    """
    if is_sharded(model):
        return
    hold_twin(model)
    base = unwrap(model)
    policy = MixedPrecisionPolicy(computes_in, computes_in and torch.float32, cast_forward_inputs=False)
    for part in family_of(base.config).sharded_parts(base):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(base, mesh=mesh, mp_policy=policy, reshard_after_forward=False)  # embeddings are at both of its ends
    base.compute = MethodType(_compute, base)
    register_fsdp_forward_method(base, "compute")


def _compute(self: Any, function: Callable[[], T]) -> T:
    return function()


def hold_twin(model: Any) -> None:
    """Keeps how the model is built, before anything hooks into it; from then on it counts as sharded."""
    empty = {id(p): torch.nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    unwrap(model).twin = _Twin(copy.deepcopy(model, empty))


def compute_with(engine: Any, model: Any) -> None:
    """Has `as_forward` go through DeepSpeed's engine, whose module's forward pass calls the function it is given.

    The head's parameters are gathered for as long as each of these passes lasts: `spacer.models.logps.row_logps` uses
    them without their module, as often as it has to.
    """
    import deepspeed

    for parameter in unwrap(model).lm_head.parameters():
        deepspeed.zero.register_external_parameter(engine.module, parameter)
    unwrap(model).compute = partial(_pass_through, (engine,))  # torch would take an attribute for a part of the model


def _pass_through(held: tuple[Any], function: Callable[[], T]) -> T:
    (engine,) = held
    result: T = engine(function)
    return result


def is_sharded(model: Any) -> bool:
    """Whether forward passes of the model are collectives."""
    return hasattr(unwrap(model), "twin")


def in_zero(parameter: Tensor) -> bool:
    """Whether DeepSpeed's ZeRO-3 holds the parameter, of which this process has a part."""
    return hasattr(parameter, "ds_id")


def as_forward(model: Any, function: Callable[[], T]) -> T:
    """Calls a function of the model's parts: in a forward pass of the model, where it takes one to have parameters."""
    result: T = unwrap(model).compute(function) if is_sharded(model) else function()
    return result


@contextlib.contextmanager
def gathered(model: Any) -> Iterator[Any]:
    """A model with all its parameters in every process, for as long as it lasts, to be computed with but not trained.

    That is the model itself where it is whole. Of one that is sharded it is a twin without FSDP's hooks, which would
    cost time in each layer of each token that is sampled; parameters are gathered once and let go at the end.
    """
    if not is_sharded(model):
        yield model
        return
    twin = unwrap(model).twin.model
    if not isinstance(unwrap(model), FSDPModule):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            _lend(model, twin)
            yield twin
        return
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    try:
        as_forward(model, lambda: None)  # has what is in no smaller part; and the whole must be passed before any part
        for part in parts[1:]:
            part.unshard()
        _lend(model, twin)
        yield twin
    finally:
        for part in parts:
            part.reshard()


def _lend(model: Any, twin: Any) -> None:
    unwrap(twin).lent = True
    for mine, bare in zip(model.modules(), twin.modules(), strict=True):
        for name, tensor in chain(mine.named_parameters(recurse=False), mine.named_buffers(recurse=False)):
            setattr(bare, name, tensor)


def whole_state(model: Any) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors on the CPU; empty but in the first process."""
    if any(in_zero(parameter) for parameter in model.parameters()):
        return zero_state(model)
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return dict(state)


def zero_state(model: Any, frozen: bool = True) -> dict[str, Tensor]:
    """`whole_state` of a model that ZeRO-3 holds, with its frozen parameters or without."""
    import deepspeed

    first = deepspeed.comm.get_rank() == 0
    device = deepspeed.get_accelerator().current_device_name()
    state: dict[str, Tensor] = {}
    found: dict[int, Tensor] = {}  # two names of one tensor stay one
    for name, tensor in model.state_dict(keep_vars=True).items():
        if in_zero(tensor) and not (tensor.requires_grad or frozen):
            continue
        if id(tensor) not in found:
            if in_zero(tensor):
                tensor.data = tensor.data.to(device)  # Lightning moves modules to the CPU when it ends
            with deepspeed.zero.GatheredParameters([tensor]):
                found[id(tensor)] = tensor.detach().to("cpu", copy=True) if first else torch.empty(0)
        if first:
            state[name] = found[id(tensor)]
    return state
