"""What a real training step holds and computes: every tensor's storage while it lives, every product's operations."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # how torch documents that modes are written
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, register_flop_formula

from spacer.attention.kv_cache import LeafCache
from spacer.rollout import decode as decode_module
from spacer.rollout.decode import Sampler
from spacer.training import row_trainer as row_trainer_module
from spacer.training import work as work_module
from spacer.training.grpo import GrpoModule
from spacer.training.row_trainer import VisionGradient
from spacer.training.tree_module import TreeModule

ATEN = torch.ops.aten


def _pairs(queries: int, keys: int, is_causal: bool) -> int:
    return queries * (queries + 1) // 2 if is_causal else queries * keys


# The CPU's kernels, which torch's counter does not know, by what its formulas for the others say; but of a causal mask
# only the pairs that see each other.


@register_flop_formula(ATEN._scaled_dot_product_flash_attention_for_cpu)
def _forward(q: Any, k: Any, v: Any, dropout: float = 0.0, is_causal: bool = False, **_: Any) -> int:
    return int(4 * q[0] * q[1] * q[3] * _pairs(q[2], k[2], is_causal))


@register_flop_formula(ATEN._scaled_dot_product_flash_attention_for_cpu_backward)
def _backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, dropout: float = 0.0, is_causal: bool = False, **_: Any
) -> int:
    return int(10 * q[0] * q[1] * q[3] * _pairs(q[2], k[2], is_causal))


@register_flop_formula(torch.ops.mkldnn._linear_pointwise)
def _product(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * int(weight[0])


class Live(TorchDispatchMode):
    """Bytes of all storages that live, and the most that lived at a time in each phase; operations by the formulas of
    torch's counter, whose own mode also follows modules and cannot where inputs of layers are made to need gradients.

    `casts` are the bytes, among these, of copies of whole weights in other types, which autocast makes and keeps, and
    `logits` those of tensors with a number for each of the `vocabulary`. A storage and an operation are known by what
    torch keeps them under (`_cdata`, `_overloadpacket`), for which it has no public name.
    """

    def __init__(self, before: Iterable[Tensor], vocabulary: int) -> None:
        super().__init__()
        self.bytes = self.casts = self.logits = self.flops = 0
        self._vocabulary = vocabulary
        self.phase = "start"
        self.peaks: dict[str, int] = defaultdict(int)
        self._known: set[int] = set()
        for tensor in before:
            self._see(tensor)
        self._weights = frozenset(self._known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=made)
        is_cast = func is ATEN._to_copy.default and args[0].untyped_storage()._cdata in self._weights
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._see(tensor, is_cast)
        return made

    def _see(self, tensor: Tensor, is_cast: bool = False) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.bytes += size
            self.casts += size if is_cast else 0
            logits = size if tensor.dim() > 1 and tensor.shape[-1] == self._vocabulary else 0
            self.logits += logits
            weakref.finalize(storage, self._gone, key, size, is_cast, logits)
            self.peaks[self.phase] = max(self.peaks[self.phase], self.bytes)

    def _gone(self, key: int, size: int, is_cast: bool, logits: int) -> None:
        self._known.discard(key)
        self.logits -= logits
        self.bytes -= size
        self.casts -= size if is_cast else 0

    def enter(self, phase: str) -> None:
        """Begins a phase."""
        self.phase = phase
        self.peaks[phase] = max(self.peaks[phase], self.bytes)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of distinct storages."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


@dataclass
class Measured:
    """Bytes by part; bytes by phase, all parts together; operations by part."""

    parts: dict[str, int] = field(default_factory=dict)
    phases: dict[str, int] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    all_flops: int = 0  # of all steps

    def largest(self, part: str, size: int) -> None:
        """Keeps the largest that a part is found at."""
        self.parts[part] = max(self.parts.get(part, 0), size)


@contextmanager
def measuring(module: GrpoModule, monkeypatch: pytest.MonkeyPatch) -> Iterator[Measured]:
    """Measures the steps that the module takes inside; what is read of them is of the last."""
    found = Measured()
    reference = [] if module.reference is None else list(module.reference.parameters())
    found.parts["weights"] = bytes_of(module.policy.parameters())
    found.parts["reference"] = bytes_of(reference)
    vocabulary = module.policy.config.get_text_config().vocab_size
    live = Live([*module.policy.parameters(), *module.policy.buffers(), *reference], vocabulary)
    passed = [0]

    def since() -> int:
        passed[0], before = live.flops, passed[0]
        return live.flops - before

    def own() -> int:
        return live.bytes - live.casts

    encode, roll = VisionGradient.encode, Sampler.sample
    refer, back = GrpoModule._reference_logps, GrpoModule._backward
    row_logps, manual, step = row_trainer_module.row_logps, TreeModule.manual_backward, TreeModule.step
    rows_left = [0]

    def seen(self: Any) -> Any:
        found.flops.clear()
        since()
        live.enter("see")
        before = own()
        vision = encode(self)
        pixels = bytes_of(t for t in vars(self._pictures).values() if t is not None)
        found.parts["vision"] = own() - before + pixels
        found.flops["vision"] = since()
        return vision

    def rolled(*args: Any, **kwargs: Any) -> Any:
        live.enter("rollout")
        rollout = roll(*args, **kwargs)
        found.flops["rollout"] = since()
        return rollout

    def referred(self: Any, *args: Any, **kwargs: Any) -> Any:
        live.enter("reference")
        logps = refer(self, *args, **kwargs)
        found.flops["reference"] = since()
        return logps

    def backed(self: Any, lesson: Any, on_policy: bool) -> Any:
        live.enter("policy")
        rows_left[0] = len(lesson.rows)
        return back(self, lesson, on_policy)

    def logps_of_row(*args: Any, **kwargs: Any) -> Tensor:
        before, logits = own(), live.logits
        logps = row_logps(*args, **kwargs)
        if torch.is_grad_enabled():
            logits = live.logits - logits
            found.largest("logits", logits)
            found.largest("activations", own() - before - logits)
            found.flops["policy_forward"] = found.flops.get("policy_forward", 0) + since()
        return logps

    def backward(self: Any, loss: Tensor) -> None:
        manual(self, loss)
        rows_left[0] -= 1
        part = "vision_backward" if rows_left[0] < 0 else "policy_backward"
        found.flops[part] = found.flops.get(part, 0) + since()

    def stepped(self: Any, batch_idx: int) -> None:
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        found.parts["gradients"] = bytes_of(p.grad for p in trained if p.grad is not None)
        live.enter("optimizer")
        step(self, batch_idx)
        live.enter("after")
        optimizer = self.optimizers()
        states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        found.parts["optimizer"] = bytes_of(states)

    class Cache(LeafCache):
        def advance(self) -> None:
            super().advance()
            stacked = [x for block in self._blocks for kind in (block.keys, block.values) for x in kind.values()]
            own = [x for pair in self._own.values() for x in pair]
            found.largest("kv_cache", bytes_of([*stacked, *own]))

    with monkeypatch.context() as patch:
        patch.setattr(VisionGradient, "encode", seen)
        patch.setattr(Sampler, "sample", rolled)
        patch.setattr(GrpoModule, "_reference_logps", referred)
        patch.setattr(GrpoModule, "_backward", backed)
        patch.setattr(row_trainer_module, "row_logps", logps_of_row)  # of the policy
        patch.setattr(work_module, "row_logps", logps_of_row)  # of the reference
        patch.setattr(TreeModule, "manual_backward", backward)
        patch.setattr(TreeModule, "step", stepped)
        patch.setattr(decode_module, "LeafCache", Cache)
        patch.setattr(module, "_probe", replace(module._probe, end_ids=(-1,)))  # so that no completion ends early
        with live:
            yield found
    found.phases, found.all_flops = dict(live.peaks), live.flops
