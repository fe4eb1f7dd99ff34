"""Muon for hidden matrices and AdamW for all other parameters, as one optimizer with one state.

Muon (Jordan et al., 2024, as implemented in `torch.optim.Muon`) orthogonalizes each matrix's update, so that all of its
singular values are equal. It is for the weights of hidden layers; embeddings, the output layer, biases, norms and
convolutions use AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def hidden_matrices(module: nn.Module) -> set[Tensor]:
    """The trainable weights of linear layers, except output layers and weights tied to embeddings.

    An output layer is what `get_output_embeddings` of any submodule returns.
    """
    other = {layer.weight for layer in module.modules() if isinstance(layer, nn.Embedding)}
    for part in module.modules():
        if isinstance(head := getattr(part, "get_output_embeddings", lambda: None)(), nn.Linear):
            other.add(head.weight)
    weights = {layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)}
    return {weight for weight in weights - other if weight.requires_grad}


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step together. `param_groups` are Muon's, then AdamW's."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._parts = (muon, adamw)
        super().__init__(list(self._groups()), {})  # the same dicts, so that schedulers act on the parts

    def _groups(self) -> Iterator[dict[str, Any]]:
        for part in self._parts:
            yield from part.param_groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Steps both optimizers, after evaluating `closure`, if given. Returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state dicts of both, under `muon` and `adamw`."""
        muon, adamw = self._parts
        return {"muon": muon.state_dict(), "adamw": adamw.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores both from `state_dict`."""
        muon, adamw = self._parts
        muon.load_state_dict(state_dict["muon"])
        adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = list(self._groups())  # loading replaces the dicts
