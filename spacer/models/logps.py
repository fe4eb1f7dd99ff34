"""Log-probabilities of a row's predicted tokens, without all logits in memory at once.

Shape suffixes: L tokens of a row, N predicted tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spacer.cpu.products import linear
from spacer.models.forward import RowContext, attention_over, row_states
from spacer.models.token_logps import token_logps
from spacer.models.unwrap import unwrap
from spacer.tree.packing import PackedRow

# logits held at once; where there are more, they are made again in the backward pass, chunk by chunk
LOGITS = 2**24  # on a CPU, which works in its caches
GPU_LOGITS = 2**26  # 441 tokens of Qwen2.5-VL's vocabulary: enough work to hide the launches


def logits_at_once(on_gpu: bool) -> int:
    """How many logits are held at once."""
    return GPU_LOGITS if on_gpu else LOGITS


def row_logps(model: Any, row: PackedRow, context: RowContext) -> Tensor:
    """Log-probability (N, float32 at least) of each predicted token of a row, under logits / temperature.

    The vocabulary is met only where a token is predicted, and in chunks, so that no L x V tensor is made.
    """
    head, temperature = unwrap(model).lm_head, context.temperature
    device = head.weight.device
    states_LH = row_states(model, row, context.vision, attention_over(row, model, context))
    states_NH = states_LH[row.predictors_N.to(device)]
    targets_N = row.targets_N.to(device)
    size = max(1, logits_at_once(device.type != "cpu") // head.weight.shape[0])
    again = len(targets_N) > size and torch.is_grad_enabled()

    def logps(states: Tensor, targets: Tensor) -> Tensor:
        # a call of the module would be a collective under ZeRO-3, and each process has chunks of its own number
        logits = linear(states, head.weight, head.bias)
        return token_logps((logits / temperature if temperature != 1 else logits)[None], targets[None])[0]

    parts = zip(states_NH.split(size), targets_N.split(size), strict=True)
    return torch.cat([checkpoint(logps, *part, use_reentrant=False) if again else logps(*part) for part in parts])
