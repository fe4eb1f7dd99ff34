"""What attention over a packed row is called with, and what it gives."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

TREE = "spacer_tree"
# transformers passes the ends of all windows only to implementations with "flash" in their name
WINDOWS = "spacer_flash_windows"


class Attention(Protocol):
    """What the keyword `tree` of a forward pass must offer."""

    def __call__(self, layer: int, q_1HLD: Tensor, k_1KLD: Tensor, v_1KLD: Tensor, scale: float) -> Tensor:
        """The attention output, with the shape of the query."""


def per_query_head(query: Tensor, *grouped: Tensor) -> list[Tensor]:
    """Keys and values repeated for the query heads that share them; heads are axis 1 of all."""
    return [x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in grouped]
