"""Generates answers in a Lightning predict loop that writes each answer as it is made.

Each rank appends to its own file, so that no two write to one; a restart, even with another world size, asks only
questions that none of the files holds. Each row's `key`, kept in a file beside its own, identifies the conditions and
the question that produced it: a row with another key answers something else, and is never reused.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from spacer.config.settings import AskingSettings
from spacer.data.asking import Bounds, QuestionLoader
from spacer.data.loading import Prompts
from spacer.data.processing import PromptBatch
from spacer.data.samples import Fault, Sample
from spacer.distributed.sharding import gathered, is_sharded
from spacer.distributed.strategies import shard_for
from spacer.evaluation.kept import Answer, AnswerFile, Row, append_answers, key_of, part_file
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.probe import ModelProbe
from spacer.models.selfcheck import FirstBatchCheck
from spacer.models.vision import VisionFeatures, encode_vision
from spacer.rewards import (
    RewardParts,
    Scorer,
    answer_text,
    final_text,
    read_choice,
    read_number,
    read_quantity,
)
from spacer.rollout.decode import Sampler
from spacer.rollout.sampling import Decoding
from spacer.terminal.progress import progress_bar
from spacer.tree.forest import Forest


@dataclass(frozen=True)
class EvaluationRequest:
    """The policy, the questions and the decoding of an evaluation; each question is asked `samples` times.

    `row_of` makes the row of an answered question, `row_of_fault` that of one that could not be asked.

    `conditions` is the digest of everything that answers depend on besides the question.
    """

    policy: Any
    probe: ModelProbe
    dataset: Prompts
    how: AskingSettings
    seed: int
    compute: ComputeOptions
    self_check: bool
    conditions: str
    row_of: Callable[[Sample, Answer], Row]
    row_of_fault: Callable[[Sample, Fault], Row]
    samples: int = 1


class PredictModule(pl.LightningModule):
    """Answers questions in batches as large as fit; on running out of memory, the batch is halved."""

    def __init__(self, request: EvaluationRequest, indices: Sequence[int]) -> None:
        super().__init__()
        self.policy = request.policy
        self._request = request
        self._indices = indices
        self._check = FirstBatchCheck(request.self_check)
        self._bar: tqdm[Any] | None = None
        self._held = ExitStack()
        self._whole: Any = None

    def configure_model(self) -> None:
        """Shards the model over the ranks, if the strategy does."""
        shard_for(self.trainer, self.policy)

    def on_predict_start(self) -> None:
        """Gathers all parameters on every rank until the end: ranks ask different questions, at their own pace."""
        self._whole = self._held.enter_context(gathered(self.policy))

    def predict_dataloader(self) -> QuestionLoader:
        """This rank's contiguous share of the questions, so that those about one video stay together."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        count = len(self._indices)
        mine = self._indices[count * rank // world : count * (rank + 1) // world]
        if not mine and is_sharded(self.policy):
            mine = self._indices[:1]  # Lightning skips a rank without questions, but gathering takes all ranks
        how = self._request.how
        if self.trainer.is_global_zero:
            self._bar = progress_bar(total=len(mine), desc="evaluate", unit=" questions")
        bounds = Bounds(how.batch_tokens, how.batch_size, how.max_new_tokens, self._request.samples)
        return QuestionLoader(self._request.dataset, mine, bounds)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Row]:
        """A row for each question of the batch; one whose media cannot be read counts as wrong, with the fault."""
        request = self._request
        by_id = {item.id: item for item in request.dataset.samples} if batch.faults else {}
        answered = [(by_id[fault.where], request.row_of_fault(by_id[fault.where], fault)) for fault in batch.faults]
        if batch.samples:
            vision = encode_vision(self._whole, batch.pictures, request.compute.lanes)
            answers = self._answers(batch, batch.forest, vision, range(len(batch.samples)))
            for item, answer in zip(batch.samples, answers, strict=True):
                if answer is None:
                    fault = Fault(item.id, "out of memory", "a batch of this question alone does not fit the device")
                    answered.append((item, request.row_of_fault(item, fault)))
                else:
                    answered.append((item, request.row_of(item, answer)))
        if self._bar is not None:
            self._bar.update(len(answered))
        return [row | {"key": key_of(request.conditions, item)} for item, row in answered]

    def _answers(
        self, batch: PromptBatch, forest: Forest, vision: VisionFeatures, numbers: Sequence[int]
    ) -> Iterator[Answer | None]:
        """The answers to some questions of the batch; None for one that does not fit in memory even alone."""
        try:
            found = self._ask(batch, forest, vision, numbers)
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
                yield from self._answers(batch, forest.only(some), vision, [numbers[i] for i in some])

    def _ask(self, batch: PromptBatch, forest: Forest, vision: VisionFeatures, numbers: Sequence[int]) -> list[Answer]:
        request, count = self._request, self._request.samples
        decoding = Decoding(request.how.temperature, request.how.top_p, request.how.max_new_tokens)
        # seeds depend on the question, not on its place in the run: a restart forms other batches
        seeds = [
            [request.seed, zlib.crc32(batch.samples[n].id.encode()), *([turn] if turn else [])]
            for n in numbers
            for turn in range(count)
        ]
        rollout = Sampler(self._whole, request.probe, request.compute, decoding).sample(forest, vision, seeds)
        if len(numbers) == len(batch.samples):
            # greedy tokens have their log-probabilities at a temperature of 1
            context = RowContext(vision, request.compute, decoding.temperature or 1.0)
            self._check(self._whole, batch, rollout.completions(count), context, rollout.sampled)
        begun = [batch.samples[n].begun for n in numbers for _ in range(count)]
        texts, lengths = [start + text for start, text in zip(begun, rollout.texts, strict=True)], rollout.lengths
        return [Answer(tuple(texts[i : i + count]), tuple(lengths[i : i + count])) for i in range(0, len(texts), count)]

    def on_predict_end(self) -> None:
        """Releases the gathered parameters and closes the progress bar."""
        self._held.close()
        if self._bar is not None:
            self._bar.close()


def reward_row(item: Sample, answer: Answer, scorer: Scorer) -> Row:
    """The row of a held-out question, its first completion scored with the training reward."""
    completion, tokens = answer.texts[0], answer.lengths[0]
    (parts,) = scorer(item, [completion], [tokens])
    found = extracted(completion, item.problem_type, scorer.settings.strict, item.options)
    return _row(item, completion, tokens, parts, found)


def fault_row(item: Sample, fault: Fault) -> Row:
    """The row of a question that could not be asked: wrong in every respect, with the reason."""
    nothing = RewardParts(answer=0.0, map=0.0, format=0.0, length=0.0, temporal=0.0, drawn=False)
    return _row(item, "", 0, nothing, False) | {"error": f"{fault.kind}: {fault.detail}"}


def extracted(completion: str, problem_type: str, strict: bool = True, options: Sequence[str] = ()) -> bool:
    """Whether the answer reward can read an answer of the problem's type from the completion.

    >>> [extracted("<answer>It is B.</answer>", "multiple choice", strict) for strict in (True, False)]
    [False, True]
    """
    answer = answer_text(completion) if strict else final_text(completion)
    if problem_type == "multiple choice":
        bare = len(answer) == 1 and answer in string.ascii_uppercase
        return bare if strict else read_choice(answer, options) is not None
    if problem_type in ("numerical", "regression"):
        return (read_number if strict else read_quantity)(answer) is not None
    return bool(answer)


def _row(item: Sample, completion: str, tokens: int, parts: RewardParts, found: bool) -> Row:
    return {
        "id": item.id,
        "scene": item.scene,
        "question_type": item.question_type,
        "problem_type": item.problem_type,
        "question": item.problem,
        "options": list(item.options),
        "solution": item.solution,
        "true_map": item.true_map,
        "video": None if item.file is None else str(item.file),
        "completion": completion,
        "completion_tokens": tokens,
        "reward": parts.as_row(),
        "drawn": parts.drawn,
        "extracted": found,
    }


class RowWriter(Callback):
    """Appends the rows of each batch to this rank's JSONL file, before the next batch begins.

    Not a `BasePredictionWriter`: that reads indices from the loader, which ours does not have.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int, *args: Any
    ) -> None:
        """Appends the rows that the step returned."""
        append_answers(part_file(self._path, trainer.global_rank), outputs)


def predict(trainer_options: dict[str, Any], request: EvaluationRequest, path: Path) -> list[Row]:
    """Asks every question that has no row yet, and returns all rows, in the data set's order.

    Once all are answered, `path` holds them in that order; until then, the ranks' own files beside it do.
    """
    samples = request.dataset.samples[: request.how.limit]
    answers = AnswerFile(path, request.conditions, samples)
    left = answers.left()
    if left or answers.in_parts:
        trainer = pl.Trainer(
            # parameters gathered in torch's inference mode could not be trained afterwards
            **trainer_options | {"enable_progress_bar": False, "inference_mode": False},
            logger=False,
            callbacks=[RowWriter(path)],
        )
        trainer.predict(PredictModule(request, left), return_predictions=False)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            answers.join()
        trainer.strategy.barrier()  # rows are read on every rank, after rank 0 has removed the part files
    return answers.rows()
