"""The completions of a batch of prompts: token ids, texts, log-probabilities.

Shape suffixes: B completions, C tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from spacer.tree.forest import Completion


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
