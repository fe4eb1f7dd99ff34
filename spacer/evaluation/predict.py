"""Generates answers in a Lightning predict loop that writes each answer as it is made.

Each rank appends to its own file, so that no two write to one; a restart, even with another world size, asks only
questions that none of the files holds. Each row's `key`, kept in a file beside its own, identifies the conditions and
the question that produced it: a row with another key answers something else, and is never reused.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from spacer.data.asking import QuestionLoader
from spacer.data.loading import Batch
from spacer.data.samples import Fault, Sample
from spacer.distributed.sharding import gathered, is_sharded
from spacer.distributed.strategies import shard_for
from spacer.evaluation.answering import Answering, EvaluationRequest
from spacer.evaluation.kept import Answer, AnswerFile, Row, append_answers, key_of, part_file, share_of
from spacer.rewards import (
    RewardParts,
    Scorer,
    answer_text,
    final_text,
    read_choice,
    read_number,
    read_quantity,
)
from spacer.terminal.progress import progress_bar


class PredictModule(pl.LightningModule):
    """Answers the questions at `indices`; `conditions` is the digest of everything that answers depend on besides the
    question."""

    def __init__(self, policy: Any, request: EvaluationRequest, conditions: str, indices: Sequence[int]) -> None:
        super().__init__()
        self.policy = policy
        self._request = request
        self._conditions = conditions
        self._indices = indices
        self._answering = Answering(request)
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
        """This rank's share of the questions."""
        mine = share_of(self._indices, self.trainer.global_rank, self.trainer.world_size)
        if not mine and is_sharded(self.policy):
            mine = self._indices[:1]  # Lightning skips a rank without questions, but gathering takes all ranks
        if self.trainer.is_global_zero:
            self._bar = progress_bar(total=len(mine), desc=self._request.task, unit=" questions")
        return self._request.batches(mine)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Row]:
        """The batch's rows, each with its key."""
        answered = self._answering.rows(self._whole, batch)
        if self._bar is not None:
            self._bar.update(len(answered))
        return [row | {"key": key_of(self._conditions, item)} for item, row in answered]

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
    return question_fields(item) | completion_fields(completion, tokens, parts, found)


def fault_row(item: Sample, fault: Fault, scorer: Scorer) -> Row:
    """The row of a question that could not be asked: wrong in every respect, with the reason."""
    return (
        question_fields(item)
        | completion_fields("", 0, scorer.nothing(item), False)
        | {"error": f"{fault.kind}: {fault.detail}"}
    )


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


def question_fields(item: Sample) -> Row:
    """What a row holds of the question itself."""
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
    }


def completion_fields(completion: str, tokens: int, parts: RewardParts, found: bool) -> Row:
    """What a row holds of a completion and its reward."""
    return {
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
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, *args: Any
    ) -> None:
        """Appends the rows that the step returned."""
        append_answers(part_file(self._path, trainer.global_rank), outputs)


def predict(
    trainer_options: dict[str, Any], policy: Any, request: EvaluationRequest, conditions: str, path: Path
) -> list[Row]:
    """Asks every question that has no row yet, and returns all rows, in the data set's order.

    `conditions` is the digest of everything that answers depend on besides the question.

    Once all are answered, `path` holds them in that order; until then, the ranks' own files beside it do.
    """
    samples = request.dataset.samples[: request.how.limit]
    answers = AnswerFile(path, conditions, samples)
    left = answers.left()
    if left or answers.in_parts:
        trainer = pl.Trainer(
            # parameters gathered in torch's inference mode could not be trained afterwards
            **trainer_options | {"enable_progress_bar": False, "inference_mode": False},
            logger=False,
            callbacks=[RowWriter(path)],
        )
        trainer.predict(PredictModule(policy, request, conditions, left), return_predictions=False)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            answers.join()
        trainer.strategy.barrier()  # rows are read on every rank, after rank 0 has removed the part files
    return answers.rows()
