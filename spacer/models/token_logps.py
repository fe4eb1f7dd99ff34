"""Logits → the log-probabilities of given tokens, a few at a time. B completions, C tokens, V vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 256  # tokens whose probabilities over the vocabulary are held at once in float32


def token_logps(logits_BCV: Tensor, ids_BC: Tensor, chunk: int = CHUNK) -> Tensor:
    """Log-probability (B, C), in float32 at least, of each id under the logits at its own position.

    Done `chunk` tokens at a time, forward and backward, so that neither holds a float32 copy of bfloat16 logits: beyond
    the logits and their gradient there are a few float32 tensors of chunk x V. Raises ValueError for chunk < 1.
    >>> token_logps(torch.zeros(1, 2, 4), torch.tensor([[0, 3]])).exp().tolist()
    [[0.25, 0.25]]
    """
    assert logits_BCV.shape[:2] == ids_BC.shape, (logits_BCV.shape, ids_BC.shape)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    logp_BC: Tensor = _TokenLogps.apply(logits_BCV, ids_BC, chunk)
    return logp_BC


class _TokenLogps(torch.autograd.Function):
    """logit - logsumexp, for which autograd would keep a float32 B x C x V tensor."""

    @staticmethod
    def forward(ctx: Any, logits_BCV: Tensor, ids_BC: Tensor, chunk: int) -> Tensor:
        ctx.step = max(1, chunk // max(1, len(ids_BC)))  # positions, each in all B completions
        dtype = torch.promote_types(logits_BCV.dtype, torch.float32)
        lse_BC = torch.cat([part.to(dtype).logsumexp(-1) for part in torch.split(logits_BCV, ctx.step, 1)], 1)
        ctx.save_for_backward(logits_BCV, ids_BC, lse_BC)
        return logits_BCV.gather(-1, ids_BC[..., None])[..., 0].to(dtype) - lse_BC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BC: Tensor) -> tuple[Tensor, None, None]:
        logits_BCV, ids_BC, lse_BC = ctx.saved_tensors
        grad_BCV = torch.empty_like(logits_BCV)
        tensors = (grad_BCV, logits_BCV, ids_BC[..., None], lse_BC[..., None], grad_BC[..., None])
        parts = (torch.split(tensor, ctx.step, 1) for tensor in tensors)
        for out, logits, ids, lse, grad in zip(*parts, strict=True):
            softmax = (logits.to(lse.dtype) - lse).exp_()
            out.copy_(softmax.mul_(-grad).scatter_add_(-1, ids, grad))  # (onehot - softmax) * grad
        return grad_BCV, None, None
