"""The completions of a batch of prompts: token ids, texts, log-probabilities.

Shape suffixes: B completions, C tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from spacer.rollout.endings import completion_mask, truncated
from spacer.tree.forest import Completion


class Vocabulary(Protocol):
    """How completions end, are padded and decoded; implemented by `spacer.models.probe.ModelProbe`."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a completion."""

    @property
    def pad_id(self) -> int:
        """The padding token."""

    @property
    def prompt_opens(self) -> str:
        """Tags that every prompt opens at its end, and that a completion is to close."""

    def decode(self, ids_C: Tensor) -> str:
        """The text of a completion's tokens."""


@dataclass(frozen=True)
class Rollout:
    """Right-padded completions: token ids, the mask up to and including the first end token, and texts.

    A text starts with the tags that its prompt opens, if any, which are not among its tokens. `logp_BC` are the
    log-probabilities at sampling, at the sampling temperature and before top-p.
    """

    ids_BC: Tensor
    mask_BC: Tensor
    logp_BC: Tensor
    truncated_B: Tensor
    texts: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each completion, including its end token."""
        return self.mask_BC.sum(1).tolist()

    @property
    def sampled(self) -> list[Tensor]:
        """The log-probabilities at sampling of each completion's tokens, without padding."""
        return [logp_C[:length] for logp_C, length in zip(self.logp_BC, self.lengths, strict=True)]

    def part(self, start: int, stop: int) -> Rollout:
        """The completions from `start` to `stop`."""
        cut = slice(start, stop)
        return Rollout(self.ids_BC[cut], self.mask_BC[cut], self.logp_BC[cut], self.truncated_B[cut], self.texts[cut])

    def completions(self, group: int) -> list[Completion]:
        """The completions as leaves of the forest, `group` per prompt."""
        ids_BC = self.ids_BC.cpu()
        return [Completion(i // group, ids_BC[i, :length]) for i, length in enumerate(self.lengths)]


def rollout_of(ids_BC: Tensor, logp_BC: Tensor, vocabulary: Vocabulary) -> Rollout:
    """The completions that were drawn, up to their first end tokens."""
    end_ids, opened = vocabulary.end_ids, vocabulary.prompt_opens
    mask_BC = completion_mask(ids_BC, end_ids)
    texts = tuple(opened + vocabulary.decode(row[kept]) for row, kept in zip(ids_BC, mask_BC, strict=True))
    return Rollout(ids_BC, mask_BC, logp_BC, truncated(ids_BC, end_ids), texts)


def nothing(device: torch.device) -> Rollout:
    """The rollout of no prompts, of width 1."""
    none = torch.zeros(0, 1, device=device)
    return Rollout(none.long(), none.bool(), none, none[:, 0].bool(), ())


def concatenate_padded(tables_RC: Sequence[Tensor], padding: float) -> Tensor:
    """Concatenates the rows of tables, padded to the widest."""
    width = max(table.shape[1] for table in tables_RC)
    return torch.cat([F.pad(table, (0, width - table.shape[1]), value=padding) for table in tables_RC])
