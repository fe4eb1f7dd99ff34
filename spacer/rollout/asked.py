"""A batch of prompts before a model, in prefix trees or plainly: what rollouts and evaluations need of either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from spacer.data.loading import Batch
from spacer.data.plain import PlainBatch
from spacer.data.processing import PromptBatch
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.plain import PlainOptions, completion_logps
from spacer.models.selfcheck import FirstBatchCheck, check_sampled
from spacer.models.vision import VisionFeatures, encode_vision
from spacer.rollout.completion import Rollout, Vocabulary
from spacer.rollout.decode import Sampler
from spacer.rollout.plain import PlainSampler
from spacer.rollout.sampling import Decoding

Compute = ComputeOptions | PlainOptions


class Asked(Protocol):
    """A batch's prompts, with a model that answers them."""

    def sample(
        self, decoding: Decoding, seeds: Sequence[Sequence[int]], prompts: Sequence[int] | None = None
    ) -> Rollout:
        """Samples len(seeds) / len(prompts) completions for some prompts of the batch, all by default."""

    def check(self, check: FirstBatchCheck, rollout: Rollout, temperature: float) -> None:
        """Holds the log-probabilities of all prompts' completions to another computation, once in a run."""


def ask(model: Any, vocabulary: Vocabulary, compute: Compute, batch: Batch) -> Asked:
    """The batch before the model; a tree's pictures go through the vision tower here, once."""
    if isinstance(compute, PlainOptions):
        assert isinstance(batch, PlainBatch)
        return AskedPlainly(model, vocabulary, batch)
    assert isinstance(batch, PromptBatch)
    return AskedInTrees(model, vocabulary, compute, batch, encode_vision(model, batch.pictures, compute.lanes))


@dataclass(frozen=True)
class AskedInTrees:
    """`Asked` in prefix trees."""

    model: Any
    vocabulary: Vocabulary
    compute: ComputeOptions
    batch: PromptBatch
    vision: VisionFeatures

    def sample(
        self, decoding: Decoding, seeds: Sequence[Sequence[int]], prompts: Sequence[int] | None = None
    ) -> Rollout:
        """As of `Asked`."""
        forest = self.batch.forest if prompts is None else self.batch.forest.only(prompts)
        return Sampler(self.model, self.vocabulary, self.compute, decoding).sample(forest, self.vision, seeds)

    def check(self, check: FirstBatchCheck, rollout: Rollout, temperature: float) -> None:
        """As of `Asked`: against each completion in a row of its own."""
        context = RowContext(self.vision, self.compute, temperature)
        group = len(rollout.texts) // max(1, len(self.batch.samples))  # a process may have none
        completions = rollout.completions(group)
        check(self.model, self.batch, completions, context, rollout.sampled)


@dataclass(frozen=True)
class AskedPlainly:
    """`Asked` without trees."""

    model: Any
    vocabulary: Vocabulary
    batch: PlainBatch

    def sample(
        self, decoding: Decoding, seeds: Sequence[Sequence[int]], prompts: Sequence[int] | None = None
    ) -> Rollout:
        """As of `Asked`."""
        inputs = self.batch.inputs if prompts is None else [self.batch.inputs[n] for n in prompts]
        return PlainSampler(self.model, self.vocabulary, decoding).sample(inputs, seeds)

    @torch.no_grad()
    def check(self, check: FirstBatchCheck, rollout: Rollout, temperature: float) -> None:
        """As of `Asked`: against padded forward passes, that what decoding caches changes nothing."""
        if check.due and rollout.texts:
            count = len(rollout.texts) // len(self.batch.samples)
            mine = [completion.ids_C for completion in rollout.completions(count)[:count]]
            found = completion_logps(self.model, self.batch.inputs[0], mine, temperature)
            kept = torch.cat(rollout.sampled[:count])
            check_sampled(self.model, self.batch.samples[0].id, kept, found, temperature)
        check.due = False
