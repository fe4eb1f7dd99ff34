"""Prompts → completions by `model.generate`, a prompt's group of completions together, for models of any family.

Shape suffixes: G completions of one prompt, B completions, C tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from spacer.data.plain import tiled
from spacer.models.plain import as_model_takes, stand_ins
from spacer.models.token_logps import token_logps
from spacer.rollout.completion import Rollout, Vocabulary, concatenate_padded, nothing, rollout_of
from spacer.rollout.sampling import Decoding, draw, uniforms


class Drawing(LogitsProcessor):
    """Draws each next token as rollouts do, from its completion's own random numbers, and leaves `generate` no other
    choice. `logps` are the log-probabilities of what was drawn, a tensor of G for each step.

    A token that stands for pictures, which no forward pass could take in again, is drawn anew among the others.
    """

    def __init__(self, stand_ins: Sequence[int], decoding: Decoding, draws_GC: Tensor) -> None:
        self.logps: list[Tensor] = []
        self._stand_ins = torch.tensor(stand_ins, dtype=torch.long, device=draws_GC.device)
        self._decoding = decoding
        self._draws_GC = draws_GC

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of the next token: 0 for the one that is drawn, -inf for all others."""
        draws_G = self._draws_GC[:, len(self.logps)]
        ids_G, logp_G = draw(scores, self._decoding, draws_G)
        barred_G = torch.isin(ids_G, self._stand_ins)
        if bool(barred_G.any()):
            others, _ = draw(scores.index_fill(1, self._stand_ins, -torch.inf), self._decoding, draws_G)
            ids_G = torch.where(barred_G, others, ids_G)
            logp_G = token_logps((scores / (self._decoding.temperature or 1.0))[:, None], ids_G[:, None])[:, 0]
        self.logps.append(logp_G.float())
        return torch.full_like(scores, -torch.inf).scatter(1, ids_G[:, None], 0.0)


@dataclass(frozen=True)
class PlainSampler:
    """Samples completions from a model, which is set to evaluation mode meanwhile."""

    model: Any
    vocabulary: Vocabulary
    decoding: Decoding

    @torch.no_grad()
    def sample(self, prompts: Sequence[Mapping[str, Tensor]], seeds: Sequence[Sequence[int]]) -> Rollout:
        """Samples len(seeds) / len(prompts) completions per prompt, grouped by prompt; each has its own seed."""
        if not prompts:
            return nothing(self.model.device)
        assert len(seeds) % len(prompts) == 0, (len(seeds), len(prompts))
        group, was_training = len(seeds) // len(prompts), self.model.training
        self.model.eval()
        try:
            with _without_defaults(self.model):
                found = [self._generate(inputs, seeds[n * group : (n + 1) * group]) for n, inputs in enumerate(prompts)]
        finally:
            self.model.train(was_training)
        ids, logps = zip(*found, strict=True)
        ids_BC = concatenate_padded(ids, self.vocabulary.pad_id)
        return rollout_of(ids_BC, concatenate_padded(logps, 0), self.vocabulary)

    def _generate(self, inputs: Mapping[str, Tensor], seeds: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and log-probabilities (G, C) of one prompt's completions."""
        steps, ends = self.decoding.max_new_tokens, self.vocabulary.end_ids
        given = as_model_takes(tiled(inputs, len(seeds)), self.model)
        drawing = Drawing(stand_ins(self.model.config), self.decoding, uniforms(seeds, steps, self.model.device))
        written = self.model.generate(
            **given,
            generation_config=GenerationConfig(
                do_sample=False,  # `drawing` does
                max_new_tokens=steps,
                eos_token_id=list(ends),
                pad_token_id=self.vocabulary.pad_id,
            ),
            logits_processor=LogitsProcessorList([drawing]),
        )
        ids_GC = written[:, inputs["input_ids"].shape[1] :]
        return ids_GC, torch.stack(drawing.logps, 1)


@contextlib.contextmanager
def _without_defaults(model: Any) -> Iterator[None]:
    """Leaves out what the model's generation_config.json adds to a run's own sampling, such as a penalty."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
