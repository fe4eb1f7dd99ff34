"""What the stages of a run share: its settings and folder, data, model, how it asks and how it trains."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spacer import tiny
from spacer.backends import choose_attention
from spacer.benchmarks.question import Question
from spacer.callbacks import FaultRecorder, Progress, ProgressLines, Speed
from spacer.checkpoints import LAST, Checkpoints, WholeFiles
from spacer.choices import Checkpointing
from spacer.data.leakage import Withheld
from spacer.data.loading import MixedDataset, PromptDataset, Prompts, TrainLoader
from spacer.data.processing import PromptBatch
from spacer.data.prompts import prompt_text, worked_completion
from spacer.data.samples import Fault, Sample
from spacer.data.sources import Piece, load_pieces
from spacer.evaluation.asked import answered_row, as_samples, check_media, failed_row, media_settings
from spacer.evaluation.conditions import conditions, hold_to
from spacer.evaluation.predict import Answer, Asking, Row, fault_row, predict, reward_row
from spacer.files import read_rows
from spacer.grpo import GrpoModule
from spacer.implied import asks_files
from spacer.modeling import (
    Packing,
    load_policy,
    load_processor,
    merge_adapters,
    position_rule,
    refill,
    save_pretrained,
)
from spacer.module import Training
from spacer.preemption import Watch, has_begun_before
from spacer.provenance import index_samples
from spacer.report.summary import Fed
from spacer.scenes import rooms
from spacer.score import choose_questions
from spacer.settings import RoomsSettings, Settings
from spacer.sharding import is_sharded, whole_state
from spacer.strategies import make_strategy, place_of
from spacer.tracking import close_until_resumed, make_loggers
from spacer.watching import RolloutTable, Watched, spread_batches

log = logging.getLogger(__name__)
CORPUS_SCENES = 1000  # whose questions a fresh model's tokenizer is made from
PROGRESS_EVERY = 10  # steps between two lines in the log


class Run:
    """What the stages of one run share: settings, folder, model, held-out questions, seconds by phase."""

    def __init__(self, settings: Settings, folder: Path, watch: Watch, model_of: Run | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self.watch = watch
        self.seconds: dict[str, float] = {}
        self.wait_share: float | None = None
        self.attention = choose_attention(settings)
        with self.phase("load data"):
            self.pieces: tuple[Piece, ...] = ()
            self.questions: tuple[Question, ...] = ()
            self.missing: list[Fault] = []
            if settings.stage.name == "evaluate" and asks_files(settings):
                self.questions = choose_questions(settings.benchmark).questions
                self.missing = check_media(self.questions, settings.benchmark)
            else:
                self.pieces = load_pieces(settings, train=settings.stage.name != "evaluate")
            train, heldout = (
                sum(len(getattr(piece, split).samples) for piece in self.pieces) for split in ("train", "heldout")
            )
            log.info("%d questions to train on, %d held out", train, heldout)
        with self.phase("load model"):
            if settings.model.fresh:
                _make_fresh(settings)
            if model_of is None:
                self.processor = load_processor(settings.model)
                self.policy = load_policy(settings.model, self.attention.vision)
            else:
                self.processor, self.policy = model_of.processor, model_of.policy
        self.packing = Packing(
            self.attention.rows,
            settings.objective.row_tokens,
            vision_again=settings.model.gradient_checkpointing == Checkpointing.vision,
            decoding=self.attention.decoding,
        )

    @property
    def reports(self) -> bool:
        """Whether this is the first of the run's processes; the others only compute."""
        return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # which Lightning sets

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what is inside, and says that it begins."""
        log.info("%s …", name)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)

    def dataset(self, split: str, **options: Any) -> Prompts:
        """The samples of a split, train or heldout, to be decoded and processed for this run's model."""
        parts = [
            PromptDataset(
                getattr(piece, split).samples,
                self.processor,
                piece.settings,
                rule=position_rule(self.policy.config, self.settings.model.positions),
                seed=self.settings.seed,
                **options,
            )
            for piece in self.pieces
        ]
        return parts[0] if len(parts) == 1 else MixedDataset(parts)

    def loader(self, batch_size: int, **options: Any) -> TrainLoader:
        """This process's share of the training samples in batches."""
        place = place_of(self.settings.cluster)
        return TrainLoader(
            self.dataset("train", **options),
            batch_size=batch_size,
            seed=self.settings.seed,
            together=self.settings.dataset.questions_per_video,
            weights=[piece.weight for piece in self.pieces],
            rank=place.rank,
            world=place.world,
        )

    def asks(self, wanted: bool | None) -> bool:
        """Whether to evaluate: as the settings say, or where they leave it open, if any questions are held out."""
        return any(piece.heldout.samples for piece in self.pieces) if wanted is None else wanted

    def ask(self, name: str) -> list[Row]:
        """The held-out questions, asked of the policy as it is now; answers are in `predictions/NAME.jsonl`."""
        row_of = partial(reward_row, reward=self.settings.reward)
        return self._predict(name, self.dataset("heldout"), row_of, fault_row)

    def ask_benchmark(self) -> list[Row]:
        """A benchmark's questions, asked of the policy; answers are in `predictions/NAME.jsonl`.

        Raises:
            UserError: the run folder holds answers that were given under other conditions.
        """
        settings = self.settings
        asked = settings.benchmark
        now = conditions(settings.model, asked, settings.seed, settings.trainer.precision, asdict(self.attention))
        hold_to(self.folder / "predictions" / f"{asked.name}.conditions.json", now)
        dataset = PromptDataset(
            as_samples(self.questions, asked),
            self.processor,
            media_settings(asked),
            rule=position_rule(self.policy.config, settings.model.positions),
            seed=settings.seed,
        )
        row_of = partial(answered_row, by_id={question.id: question for question in self.questions}, name=asked.name)
        return self._predict(asked.name, dataset, row_of, failed_row)

    def _predict(
        self,
        name: str,
        dataset: Prompts,
        row_of: Callable[[Sample, Answer], Row],
        row_of_fault: Callable[[Sample, Fault], Row],
    ) -> list[Row]:
        path = self.folder / "predictions" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        asking = Asking(
            self.policy,
            self.processor,
            dataset,
            self.settings.benchmark,
            self.settings.seed,
            self.packing,
            self.settings.trainer.self_check,
            row_of,
            row_of_fault,
        )
        with self.phase(f"evaluate {name}"):
            return predict(_trainer_options(self.settings, trains=False), asking, path)

    def fit(self, module: pl.LightningModule, loader: TrainLoader) -> list[Logger]:
        """Trains with Lightning, from a checkpoint where one is asked for, and returns the loggers, still open."""
        settings = self.settings
        trained_on = partial(index_samples, (sample for piece in self.pieces for sample in piece.train.samples))
        loggers = make_loggers(settings, self.folder, trained_on)
        saving = Checkpoints(self.folder / "checkpoints", settings.trainer.checkpoint_every_n_steps, self.watch)
        trainer = pl.Trainer(
            **_trainer_options(settings, trains=True),
            max_steps=settings.trainer.max_steps,
            max_epochs=settings.trainer.max_epochs,
            max_time=settings.trainer.max_time,
            log_every_n_steps=settings.trainer.log_every_n_steps,
            fast_dev_run=settings.trainer.fast_dev_run,
            logger=loggers,
            callbacks=[
                saving,
                *([Progress()] if _shows_bar(settings) else []),
                ProgressLines(PROGRESS_EVERY),
                FaultRecorder(self.folder / "faults.jsonl"),
                Speed(loader),
                *([RolloutTable(self.folder, self._watched())] if isinstance(module, GrpoModule) else []),
            ],
        )
        self.policy.train()  # from_pretrained gives it in eval mode, where nothing is checkpointed or dropped out
        go_on = f"the same settings and ckpt_path=last hydra.run.dir={self.folder}"
        log.info("run folder %s; if interrupted, go on with %s", self.folder, go_on)
        start, held = settings.ckpt_path, (self.folder / "checkpoints" / LAST).exists()
        if start == "last" and not held:
            log.info("there is no checkpoint to go on from yet")
            start = None
        elif held and has_begun_before():
            start = "last"  # wherever it began at first
        with self.phase("train"):
            try:
                # our own checkpoints hold counters beside tensors; they are read as data, never unpickled
                trainer.fit(module, train_dataloaders=loader, ckpt_path=start, weights_only=True)
                if saving.stopped or self.watch.told is not None:
                    self._stop(trainer.global_step, go_on, loggers)
            except Exception:
                # SLURM may tell all processes of a job, and W&B's ends at once: then the job is as one that was killed
                if self.watch.told is None or not self.watch.requeues:
                    raise
                log.exception("failed after it was told to end; it goes on from its last checkpoint")
        if saving.stopped or self.watch.told is not None:
            if not self.reports and not self.watch.requeues:
                sys.exit(0)  # else Lightning, which started it, takes the first process down too
            self.watch.leave()
        self.wait_share = loader.waited / loader.lasted if loader.lasted else None
        with self.phase("save model"):
            self._save()
        return loggers

    def _stop(self, step: int, go_on: str, loggers: list[Logger]) -> None:
        """Says that training was told to end, and how to go on where nobody does that."""
        if self.watch.requeues:
            log.info("stopped after step %d", step)
            close_until_resumed(loggers)
        elif self.reports:
            log.warning("stopped after step %d; go on with %s", step, go_on)

    def _save(self) -> None:
        """Writes the trained model to `model/`; adapters are merged into it, and into the policy where it is whole."""
        settings, written = self.settings, None
        if is_sharded(self.policy):
            state = whole_state(self.policy)
            if self.reports:
                written = merge_adapters(refill(settings.model, state))
        else:
            written = self.policy = merge_adapters(self.policy)
        if self.reports:
            save_pretrained(written, self.processor, self.folder / "model", settings.stage.save_dtype)

    def _watched(self) -> Watched:
        """The rollouts that a run shows as it goes."""
        settings, logger = self.settings, self.settings.logger
        answer = settings.objective.max_completion_length

        def heldout() -> list[PromptBatch]:
            if not self.asks(None):
                return []
            return spread_batches(self.dataset("heldout"), logger.heldout_prompts, settings.benchmark, answer)

        return Watched(
            logger.rollouts_every_n_steps,
            logger.rollout_prompts,
            heldout,
            self.processor,
            settings.reward,
            answer,
        )

    def training(self, loader: TrainLoader, updates: int = 1) -> Training:
        """How this run trains, with `updates` optimiser steps a batch."""
        assert self.settings.stage.optimizer is not None  # a rule of the configuration
        trainer = self.settings.trainer
        return Training(
            self.settings.stage.optimizer,
            total_steps(self.settings, loader, updates),
            trainer.accumulate_grad_batches,
            trainer.gradient_clip_val,
            trainer.self_check,
            loader.batch_size,
        )

    def fed(self) -> Fed:
        """What became of the training data."""
        withheld = [piece.train.withheld for piece in self.pieces]
        total = Withheld(sum(entry.videos for entry in withheld), sum(entry.questions for entry in withheld))
        return Fed(self.faults(), total, self.wait_share)

    def faults(self) -> list[Fault]:
        """Everything that was wrong with the data so far."""
        found = [fault for piece in self.pieces for fault in (*piece.train.faults, *piece.heldout.faults)]
        return found + [Fault(**row) for row in read_rows(self.folder / "faults.jsonl")]


def total_steps(settings: Settings, loader: TrainLoader, updates: int) -> int | None:
    """Optimiser steps until the run ends by steps or by epochs, whichever is first; None where only time ends it."""
    limits = [settings.trainer.max_steps] if settings.trainer.max_steps >= 0 else []
    if settings.trainer.max_epochs is not None and settings.trainer.max_epochs >= 0:
        batches = settings.trainer.max_epochs * len(loader)
        limits.append(batches * updates // settings.trainer.accumulate_grad_batches)
    return min(limits, default=None)


def _shows_bar(settings: Settings) -> bool:
    """A bar is for a terminal; log files get lines."""
    return settings.trainer.enable_progress_bar and sys.stdout.isatty()


def _trainer_options(settings: Settings, trains: bool) -> dict[str, Any]:
    """What every `pl.Trainer` of a run shares."""
    cluster = settings.cluster
    return {
        "accelerator": cluster.accelerator,
        "devices": cluster.devices,
        "num_nodes": cluster.num_nodes,
        "strategy": make_strategy(cluster, settings.trainer.precision, trains),
        # it is spacer.preemption that has a job queued again
        "plugins": [WholeFiles(), *_environment()],
        "precision": settings.trainer.precision,
        # an operation that has no deterministic form (cumsum on CUDA) is told of, and does not end the run
        "deterministic": "warn" if settings.trainer.deterministic else False,
        "enable_progress_bar": _shows_bar(settings),
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # the loaders know their rank
    }


def _environment() -> list[SLURMEnvironment]:
    """What tells Lightning a process's rank, where that is srun: torchrun may start processes inside a job, too."""
    by_srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if by_srun else []


def _make_fresh(settings: Settings) -> None:
    folder = Path(settings.model.name_or_path)
    if not folder.exists():
        assert isinstance(settings.dataset, RoomsSettings)  # a rule of the configuration
        prompts = settings.dataset.prompts
        examples = rooms.example_samples(settings.dataset, CORPUS_SCENES)
        corpus = (f"{prompt_text(sample, prompts)}\n{worked_completion(sample)}" for sample in examples)
        tiny.build(folder, corpus, settings.seed)
