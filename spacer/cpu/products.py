"""Products of a layer's weights on a CPU, by the library that is fastest there.

PyTorch has MKL multiply float32 matrices, and MKL does not use the AVX-512 of AMD's processors. oneDNN, which PyTorch
brings along too, does: for hundreds of rows it takes less than half as long on a Zen 5, forward and backward, and for
eight as long.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPU_INFO = Path("/proc/cpuinfo")


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor of AMD's with AVX-512."""
    able = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return able and CPU_INFO.exists() and "AuthenticAMD" in CPU_INFO.read_text()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x (…, in), weight (out, in) and bias (out) → (…, out). Of float32 on a CPU, by the faster library."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if plain and x.numel() and onednn_is_faster() and not torch.is_autocast_enabled("cpu"):
        product: Tensor = _Product.apply(x, weight, bias)
        return product
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer by `linear`. Parameters keep their names and shapes."""

    @classmethod
    def of(cls, layer: nn.Linear) -> Linear:
        """The same layer, sharing its parameters."""
        made = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        return made.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_faster_products(model: nn.Module) -> None:
    """Has the linear layers of a model go by `linear`, where that is any other than `F.linear`."""
    if onednn_is_faster():
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Linear:
                model.set_submodule(name, Linear.of(layer))


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """oneDNN's product."""
    # private: PyTorch's own choice of library is made by the build, and the public `to_mkldnn` copies both operands and
    # the result; this is the operator that TorchInductor calls
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _Product(torch.autograd.Function):
    """x weightᵀ + bias, with a backward pass of the same products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_NO = grad.reshape(-1, grad.shape[-1])
        return (
            None if weight is None else _onednn(grad, weight.T),
            None if x is None else _onednn(grad_NO.T, x.reshape(-1, x.shape[-1]).T),
            grad_NO.sum(0) if ctx.needs_input_grad[2] else None,
        )
