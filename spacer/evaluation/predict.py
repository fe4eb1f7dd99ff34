"""Asking a model held-out questions: a Lightning predict stage that writes each answer as it is made."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from spacer.data.loading import OrderedLoader, Prompts
from spacer.data.processing import PromptBatch
from spacer.data.samples import Fault, Sample
from spacer.files import append_rows, drop_torn_line, read_rows
from spacer.modeling import Packing, encode_vision
from spacer.rewards import RewardParts, answer_text, read_choice, read_number, score_group
from spacer.rollout import Decoding, sample
from spacer.selfcheck import FirstBatchCheck
from spacer.settings import BenchmarkSettings, RewardSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

Row = dict[str, Any]


class PredictModule(pl.LightningModule):
    """One completion a question, scored by the functions that training is rewarded by."""

    def __init__(
        self,
        policy: Any,
        processor: Qwen2_5_VLProcessor,
        dataset: Prompts,
        benchmark: BenchmarkSettings,
        reward: RewardSettings,
        seed: int,
        indices: Sequence[int],
        packing: Packing,
        self_check: bool,
    ) -> None:
        super().__init__()
        self.policy = policy
        self._processor = processor
        self._dataset = dataset
        self._benchmark = benchmark
        self._reward = reward
        self._seed = seed
        self._indices = indices
        self._packing = packing
        self._check = FirstBatchCheck(self_check)

    def predict_dataloader(self) -> Any:
        """This rank's share of the questions."""
        mine = self._indices[self.trainer.global_rank :: self.trainer.world_size]
        return OrderedLoader(self._dataset, self._benchmark.batch_size, mine)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Row]:
        """A row for each question of the batch; one whose media cannot be read counts as wrong and says so."""
        by_id = {item.id: item for item in self._dataset.samples} if batch.faults else {}
        rows = [fault_row(by_id[fault.where], fault) for fault in batch.faults]
        if not batch.samples:
            return rows
        vision = encode_vision(self.policy, batch.pictures)
        rollout = sample(
            self.policy,
            self._processor,
            batch.forest,
            vision,
            self._packing,
            Decoding(self._benchmark.temperature, self._benchmark.top_p, self._benchmark.max_new_tokens),
            # the question names the random numbers, not its place in the run: a restart asks in other batches
            seeds=[[self._seed, zlib.crc32(item.id.encode())] for item in batch.samples],
        )
        self._check(self.policy, batch, vision, rollout.completions(1), self._packing)
        for item, text, length in zip(batch.samples, rollout.texts, rollout.lengths, strict=True):
            rows.append(answer_row(item, text, length, self._reward))
        return rows


def answer_row(item: Sample, completion: str, tokens: int, reward: RewardSettings) -> Row:
    """A line of a predictions file, with the completion scored."""
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


class RowWriter(BasePredictionWriter):
    """Appends the rows of each batch to a JSONL file, flushed before the next batch begins."""

    def __init__(self, path: Path) -> None:
        super().__init__(write_interval="batch")
        self._path = path

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: list[Row], *args: Any) -> None:
        """Appends `prediction`."""
        append_rows(self._path, prediction)


def predict(
    trainer_options: dict[str, Any],
    policy: Any,
    processor: Qwen2_5_VLProcessor,
    dataset: Prompts,
    benchmark: BenchmarkSettings,
    reward: RewardSettings,
    seed: int,
    path: Path,
    packing: Packing,
    self_check: bool,
) -> list[Row]:
    """Asks every question that has no row in `path` yet, and returns the rows of all, in the data set's order."""
    order = {item.id: index for index, item in enumerate(dataset.samples[: benchmark.limit])}
    drop_torn_line(path)
    done = {row["id"] for row in read_rows(path)}
    left = [index for identity, index in order.items() if identity not in done]
    if left:
        module = PredictModule(policy, processor, dataset, benchmark, reward, seed, left, packing, self_check)
        trainer = pl.Trainer(**trainer_options, logger=False, callbacks=[RowWriter(path)])
        trainer.predict(module, return_predictions=False)
        trainer.strategy.barrier()
    return sorted((row for row in read_rows(path) if row["id"] in order), key=lambda row: order[row["id"]])
