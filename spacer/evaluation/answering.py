"""Answers batches of questions with a model, on a single device and without Lightning."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spacer.config.settings import AskingSettings
from spacer.data.asking import Bounds, QuestionLoader
from spacer.data.loading import Batch, Prompts
from spacer.data.samples import Fault, Sample
from spacer.evaluation.kept import Answer, Row
from spacer.models.probe import ModelProbe
from spacer.models.selfcheck import FirstBatchCheck
from spacer.rollout.asked import Asked, Compute, ask
from spacer.rollout.sampling import Decoding


@dataclass(frozen=True)
class EvaluationRequest:
    """The questions and the decoding of an evaluation; each question is asked `samples` times.

    `row_of` makes the row of an answered question, `row_of_fault` that of one that could not be asked.
    """

    probe: ModelProbe
    dataset: Prompts
    how: AskingSettings
    seed: int
    compute: Compute
    self_check: bool
    row_of: Callable[[Sample, Answer], Row]
    row_of_fault: Callable[[Sample, Fault], Row]
    samples: int = 1
    task: str = "evaluate"  # what its progress is called

    def batches(self, indices: Sequence[int]) -> QuestionLoader:
        """The samples at `indices`, in batches as large as the settings allow."""
        how = self.how
        bounds = Bounds(how.batch_tokens, how.batch_size, how.max_new_tokens, self.samples)
        return QuestionLoader(self.dataset, indices, bounds)


class Answering:
    """Answers batches; on running out of memory, a batch is halved. The first batch is checked against another
    computation."""

    def __init__(self, request: EvaluationRequest) -> None:
        self._request = request
        self._check = FirstBatchCheck(request.self_check)

    def rows(self, model: Any, batch: Batch) -> list[tuple[Sample, Row]]:
        """A row for each question of the batch; one whose media cannot be read counts as wrong, with the fault."""
        request = self._request
        by_id = {item.id: item for item in request.dataset.samples} if batch.faults else {}
        answered = [(by_id[fault.where], request.row_of_fault(by_id[fault.where], fault)) for fault in batch.faults]
        if batch.samples:
            asked = ask(model, request.probe, request.compute, batch)
            answers = self._answers(asked, batch, range(len(batch.samples)))
            for item, answer in zip(batch.samples, answers, strict=True):
                if answer is None:
                    fault = Fault(item.id, "out of memory", "a batch of this question alone does not fit the device")
                    answered.append((item, request.row_of_fault(item, fault)))
                else:
                    answered.append((item, request.row_of(item, answer)))
        return answered

    def _answers(self, asked: Asked, batch: Batch, numbers: Sequence[int]) -> Iterator[Answer | None]:
        """The answers to some questions of the batch; None for one that does not fit in memory even alone."""
        try:
            found = self._ask(asked, batch, numbers)
        except torch.OutOfMemoryError:
            found = None
        if found is not None:
            yield from found
        elif len(numbers) == 1:
            yield None
        else:
            torch.cuda.empty_cache()  # outside the handler, which holds on to the failed attempt's tensors
            half = len(numbers) // 2
            for some in (range(half), range(half, len(numbers))):
                yield from self._answers(asked, batch, [numbers[i] for i in some])

    def _ask(self, asked: Asked, batch: Batch, numbers: Sequence[int]) -> list[Answer]:
        request, count = self._request, self._request.samples
        decoding = Decoding(request.how.temperature, request.how.top_p, request.how.max_new_tokens)
        # seeds depend on the question, not on its place in the run: a restart forms other batches
        seeds = [
            [request.seed, zlib.crc32(batch.samples[n].id.encode()), *([turn] if turn else [])]
            for n in numbers
            for turn in range(count)
        ]
        whole = len(numbers) == len(batch.samples)
        rollout = asked.sample(decoding, seeds, None if whole else numbers)
        if whole:
            # greedy tokens have their log-probabilities at a temperature of 1
            asked.check(self._check, rollout, decoding.temperature or 1.0)
        begun = [batch.samples[n].begun for n in numbers for _ in range(count)]
        texts = [start + text for start, text in zip(begun, rollout.texts, strict=True)]
        of_each = (texts, rollout.lengths, rollout.truncated_B.tolist())
        return [Answer(*(tuple(part[i : i + count]) for part in of_each)) for i in range(0, len(texts), count)]
