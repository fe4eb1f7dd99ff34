"""Asking a model questions: a Lightning predict stage that writes each answer as it is made.

Each process appends to a file of its own, so that no two write to one; what is asked next time, with another number of
processes too, is what none of the files holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from spacer.data.asking import Bounds, QuestionLoader
from spacer.data.loading import Prompts
from spacer.data.processing import PromptBatch
from spacer.data.samples import Fault, Sample
from spacer.files import append_rows, drop_torn_line, read_rows, write_rows
from spacer.modeling import Packing, Vision, encode_vision
from spacer.progress import progress_bar
from spacer.rewards import RewardParts, answer_text, read_choice, read_number, score_group
from spacer.rollout import Decoding, sample
from spacer.selfcheck import FirstBatchCheck
from spacer.settings import BenchmarkSettings, RewardSettings
from spacer.sharding import gathered, is_sharded
from spacer.strategies import shard_for
from spacer.tree import Forest

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Completions of one question, each with its length in tokens."""

    texts: tuple[str, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Asking:
    """Who is asked what: `row_of` makes the line of an answered question, `row_of_fault` of one that could not be."""

    policy: Any
    processor: Qwen2_5_VLProcessor
    dataset: Prompts
    benchmark: BenchmarkSettings
    seed: int
    packing: Packing
    self_check: bool
    row_of: Callable[[Sample, Answer], Row]
    row_of_fault: Callable[[Sample, Fault], Row]


class PredictModule(pl.LightningModule):
    """Answers to questions, as many at once as fit; where memory runs out, half as many."""

    def __init__(self, asking: Asking, indices: Sequence[int]) -> None:
        super().__init__()
        self.policy = asking.policy
        self._asking = asking
        self._indices = indices
        self._check = FirstBatchCheck(asking.self_check)
        self._bar: tqdm[Any] | None = None
        self._held = ExitStack()
        self._whole: Any = None

    def configure_model(self) -> None:
        """Spreads the model over the processes, where the strategy does."""
        shard_for(self.trainer, self.policy)

    def on_predict_start(self) -> None:
        """Has all parameters in every process until the last question: each asks others, at its own pace."""
        self._whole = self._held.enter_context(gathered(self.policy))

    def predict_dataloader(self) -> QuestionLoader:
        """This process's share of the questions: neighbours, so that those about one video stay together."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        count = len(self._indices)
        mine = self._indices[count * rank // world : count * (rank + 1) // world]
        if not mine and is_sharded(self.policy):
            mine = self._indices[:1]  # Lightning would pass over a process that asks nothing, and all are to gather
        benchmark = self._asking.benchmark
        if self.trainer.is_global_zero:
            self._bar = progress_bar(total=len(mine), desc=benchmark.name, unit=" questions")
        bounds = Bounds(benchmark.batch_tokens, benchmark.batch_size, benchmark.max_new_tokens, benchmark.samples)
        return QuestionLoader(self._asking.dataset, mine, bounds)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Row]:
        """A row for each question of the batch; one whose media cannot be read counts as wrong and says so."""
        asking = self._asking
        by_id = {item.id: item for item in asking.dataset.samples} if batch.faults else {}
        rows = [asking.row_of_fault(by_id[fault.where], fault) for fault in batch.faults]
        if batch.samples:
            vision = encode_vision(self._whole, batch.pictures, asking.packing.lanes)
            answers = self._answers(batch, batch.forest, vision, range(len(batch.samples)))
            for item, answer in zip(batch.samples, answers, strict=True):
                if answer is None:
                    fault = Fault(item.id, "out of memory", "a batch of this question alone does not fit the device")
                    rows.append(asking.row_of_fault(item, fault))
                else:
                    rows.append(asking.row_of(item, answer))
        if self._bar is not None:
            self._bar.update(len(rows))
        return rows

    def _answers(
        self, batch: PromptBatch, forest: Forest, vision: Vision, numbers: Sequence[int]
    ) -> Iterator[Answer | None]:
        """The answers to some questions of the batch; None to one that does not fit even alone."""
        try:
            found = self._ask(batch, forest, vision, numbers)
        except torch.OutOfMemoryError:
            found = None
        if found is not None:
            yield from found
        elif len(numbers) == 1:
            yield None
        else:
            torch.cuda.empty_cache()  # outside of the handler, which holds on to what had been computed
            half = len(numbers) // 2
            for some in (range(half), range(half, len(numbers))):
                yield from self._answers(batch, forest.only(some), vision, [numbers[i] for i in some])

    def _ask(self, batch: PromptBatch, forest: Forest, vision: Vision, numbers: Sequence[int]) -> list[Answer]:
        asking, count = self._asking, self._asking.benchmark.samples
        rollout = sample(
            self._whole,
            asking.processor,
            forest,
            vision,
            asking.packing,
            Decoding(asking.benchmark.temperature, asking.benchmark.top_p, asking.benchmark.max_new_tokens),
            # the question names the random numbers, not its place in the run: a restart asks in other batches
            seeds=[
                [asking.seed, zlib.crc32(batch.samples[n].id.encode()), *([turn] if turn else [])]
                for n in numbers
                for turn in range(count)
            ],
        )
        if len(numbers) == len(batch.samples):
            self._check(self._whole, batch, vision, rollout.completions(count), asking.packing)
        texts, lengths = rollout.texts, rollout.lengths
        return [Answer(tuple(texts[i : i + count]), tuple(lengths[i : i + count])) for i in range(0, len(texts), count)]

    def on_predict_end(self) -> None:
        """Lets the parameters go and ends the bar."""
        self._held.close()
        if self._bar is not None:
            self._bar.close()


def reward_row(item: Sample, answer: Answer, reward: RewardSettings) -> Row:
    """The line of a held-out question, its first completion scored as training rewards it."""
    completion, tokens = answer.texts[0], answer.lengths[0]
    (parts,) = score_group(
        [completion],
        [tokens],
        solution=item.solution,
        problem_type=item.problem_type,
        true_map=item.true_map,
        settings=reward,
    )
    return _row(item, completion, tokens, parts, extracted(completion, item.problem_type))


def fault_row(item: Sample, fault: Fault) -> Row:
    """The line of a question that could not be asked: wrong in every respect, with the reason."""
    nothing = RewardParts(answer=0.0, map=0.0, format=0.0, length=0.0, temporal=0.0, drawn=False)
    return _row(item, "", 0, nothing, False) | {"error": f"{fault.kind}: {fault.detail}"}


def extracted(completion: str, problem_type: str) -> bool:
    """Whether an answer of the problem's type can be read from the completion."""
    answer = answer_text(completion)
    if problem_type == "multiple choice":
        return read_choice(answer) is not None
    if problem_type in ("numerical", "regression"):
        return read_number(answer) is not None
    return bool(answer)


def _row(item: Sample, completion: str, tokens: int, parts: RewardParts, found: bool) -> Row:
    names = ("total", "answer", "map", "map_quality", "format", "length", "temporal")
    return {
        "id": item.id,
        "scene": item.scene,
        "question_type": item.question_type,
        "problem_type": item.problem_type,
        "question": item.problem,
        "options": list(item.options),
        "solution": item.solution,
        "true_map": item.true_map,
        "video": str(item.path),
        "completion": completion,
        "completion_tokens": tokens,
        "reward": {name: getattr(parts, name) for name in names},
        "drawn": parts.drawn,
        "extracted": found,
    }


class RowWriter(Callback):
    """Appends the rows of each batch to this process's JSONL file, before the next batch begins.

    Not a `BasePredictionWriter`: that asks the loader for indices, which ours has no use for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int, *args: Any
    ) -> None:
        """Appends the rows that the step has returned."""
        append_rows(_file_of(self._path, trainer.global_rank), outputs)


def predict(trainer_options: dict[str, Any], asking: Asking, path: Path) -> list[Row]:
    """Asks every question that has no row yet, and returns the rows of all, in the data set's order.

    When all are there, `path` holds them in that order; until then the processes' own files beside it do.
    """
    samples = asking.dataset.samples[: asking.benchmark.limit]
    order = {item.id: index for index, item in enumerate(samples)}
    done = _rows(path)
    left = [index for identity, index in order.items() if identity not in done]
    if left or _files(path):  # the latter: it was stopped after the last answer
        trainer = pl.Trainer(
            # what is gathered in torch's inference mode could never be trained on
            **trainer_options | {"enable_progress_bar": False, "inference_mode": False},
            logger=False,
            callbacks=[RowWriter(path)],
        )
        trainer.predict(PredictModule(asking, by_medium(left, samples)), return_predictions=False)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            done = _rows(path)
            write_rows(path, sorted(done.values(), key=lambda row: order.get(row["id"], len(order))))
            for file in _files(path):
                file.unlink()
        trainer.strategy.barrier()
        done = _rows(path)  # by the other processes too, which must not read what the first one removes
    return sorted((row for row in done.values() if row["id"] in order), key=lambda row: order[row["id"]])


def by_medium(indices: Sequence[int], samples: Sequence[Sample]) -> list[int]:
    """The indices with those of samples about one file together, files and samples in the order in which they come."""
    first: dict[Path, int] = {}
    for index in indices:
        first.setdefault(samples[index].path, len(first))
    return sorted(indices, key=lambda index: first[samples[index].path])


def _file_of(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.stem}.{rank}.part.jsonl")


def _files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}.*.part.jsonl"))


def _rows(path: Path) -> dict[str, Row]:
    """Id → row, from the file of all and those of single processes."""
    found: dict[str, Row] = {}
    for file in (path, *_files(path)):
        drop_torn_line(file)
        found |= {row["id"]: row for row in read_rows(file)}
    return found
