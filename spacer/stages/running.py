"""The state and methods that a run's stages share: settings, folder, data, model and training."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spacer.attention.backends import choose_attention
from spacer.benchmarks.guard import guarded_videos
from spacer.benchmarks.question import Question
from spacer.config.choices import Checkpointing, Computation, Control
from spacer.config.derived import controls_of, sections
from spacer.config.settings import RenderedSettings, Settings, TrainingStage
from spacer.data.controls import with_other_media
from spacer.data.leakage import Withheld
from spacer.data.loading import Batch, MixedDataset, PromptDataset, Prompts, TrainLoader
from spacer.data.prompts import check_templates, prompt_text, worked_completion
from spacer.data.samples import Fault
from spacer.data.scenes import rooms
from spacer.data.sources import DatasetSplits, load_splits
from spacer.data.trial import check_plain_prompts, check_prompts, kinds_of
from spacer.distributed.sharding import is_sharded, whole_state
from spacer.distributed.strategies import loads_weights, place_of
from spacer.errors import UserError
from spacer.evaluation.answering import EvaluationRequest
from spacer.evaluation.asked import as_samples, check_controls, check_media, media_settings
from spacer.evaluation.chosen import choose_questions
from spacer.evaluation.conditions import (
    Trained,
)
from spacer.evaluation.during import DuringTraining, judges
from spacer.evaluation.heldout import check_heldout
from spacer.evaluation.predict import fault_row, reward_row
from spacer.files import read_rows
from spacer.models import tiny
from spacer.models.computation import choose_computation
from spacer.models.digests import state_digest
from spacer.models.families import position_rule
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_plain, load_policy, merge_adapters, refill, save_pretrained
from spacer.models.plain import PlainOptions
from spacer.models.probe import probe_model
from spacer.rewards import Scorer
from spacer.rollout.asked import Compute
from spacer.stages.summary import DataUsage
from spacer.stages.trainers import shows_bar, total_steps, trainer_options
from spacer.terminal.pasting import pasted
from spacer.tracking.provenance import index_samples
from spacer.tracking.rollout_table import RolloutTable, Watched, spread_batches
from spacer.tracking.runs import close_until_resumed, make_loggers
from spacer.training.callbacks import FaultRecorder, HeapTrimmer, Progress, ProgressLines, Speed
from spacer.training.checkpoints import LAST, Checkpoints
from spacer.training.grpo import GrpoModule
from spacer.training.preemption import SignalWatcher, has_begun_before
from spacer.training.tree_module import Training, TreeModule

log = logging.getLogger(__name__)
CORPUS_SCENES = 1000  # scenes whose questions a fresh model's tokenizer is trained on
PROGRESS_EVERY = 10  # steps between log lines


class Run:
    """The state that a run's stages share: settings, folder, model, held-out questions, seconds by phase."""

    def __init__(self, settings: Settings, folder: Path, watch: SignalWatcher, model_of: Run | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self.watch = watch
        self.seconds: dict[str, float] = {}
        self.wait_share: float | None = None
        self.trained: Trained | None = None  # set by training: the weights that answer from then on
        self.computation: Computation = choose_computation(settings) if model_of is None else model_of.computation
        self.attention = choose_attention(settings, self.computation)
        with self.phase("load data"):
            self.splits: tuple[DatasetSplits, ...] = ()
            self.questions: tuple[Question, ...] = ()
            self.missing: list[Fault] = []
            if settings.stage.name == "evaluate" and settings.benchmark is not None:
                chosen = choose_questions(settings.benchmark)
                if self.reports:
                    chosen.warn()
                self.questions = chosen.questions
                self.missing = check_media(self.questions, settings.benchmark)
                check_controls(self.questions, settings.benchmark, controls_of(settings))
            else:
                self.splits = load_splits(settings, settings.stage.name != "evaluate", guarded_videos)
                for (at, dataset), data in zip(sections(settings), self.splits, strict=True):
                    check_templates((*data.train.samples, *data.heldout.samples), dataset.prompts, at)
                    if Control.other_video in controls_of(settings):
                        with_other_media(data.heldout.samples)  # an error before anything is computed
            check_heldout(settings, [sample for data in self.splits for sample in data.heldout.samples])
            train, heldout = (
                sum(len(getattr(data, split).samples) for data in self.splits) for split in ("train", "heldout")
            )
            log.info("%d questions to train on, %d held out", train, heldout)
        with self.phase("load model"):
            if settings.model.fresh:
                _make_fresh(settings)
            if model_of is None:
                self.probe = probe_model(settings.model, self.is_plain)
                self._check_prompts()  # before the weights are read
                if self.is_plain:
                    self.policy = load_plain(settings.model, self.attention.vision)
                else:
                    empty = not loads_weights(settings.cluster)
                    self.policy = load_policy(settings.model, self.attention.vision, empty)
            else:
                self.probe, self.policy = model_of.probe, model_of.policy
                self._check_prompts()
        self.rule = (
            None
            if self.is_plain
            else position_rule(self.policy.config, settings.model.positions, settings.model.frame_times)
        )
        self.compute: Compute = (
            PlainOptions(settings.objective.row_tokens)
            if self.is_plain
            else ComputeOptions(
                self.attention.rows,
                settings.objective.row_tokens,
                vision_again=settings.model.gradient_checkpointing == Checkpointing.vision,
                decoding=self.attention.decoding,
            )
        )

    @property
    def is_plain(self) -> bool:
        """Whether the model is computed plainly, without prefix trees."""
        return self.computation == Computation.plain

    def _check_prompts(self) -> None:
        """Makes trial prompts from the settings of the run's prompts."""
        benchmark = self.settings.benchmark
        if self.settings.stage.name == "evaluate" and benchmark is not None:
            sound = [question for question in self.questions if question.fault is None]
            asked = [("benchmark", media_settings(benchmark), as_samples(sound, benchmark))]
        else:
            asked = [
                (at, dataset, (*data.train.samples, *data.heldout.samples))
                for (at, dataset), data in zip(sections(self.settings), self.splits, strict=True)
            ]
        for at, dataset, samples in asked:
            if self.is_plain:
                check_plain_prompts(self.probe.processor, dataset, at, kinds_of(samples))
            else:
                check_prompts(self.probe.processor, dataset, at)

    @property
    def reports(self) -> bool:
        """Whether this is rank 0, which reports; other ranks only compute."""
        return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # which Lightning sets

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the enclosed block, and logs its start."""
        log.info("%s …", name)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)

    def dataset(self, split: str, **options: Any) -> Prompts:
        """The samples of a split, train or heldout, decoded and processed on demand for this run's model."""
        parts = [
            PromptDataset(
                getattr(data, split).samples,
                self.probe.processor,
                data.settings,
                rule=self.rule,
                seed=self.settings.seed,
                **options,
            )
            for data in self.splits
        ]
        return parts[0] if len(parts) == 1 else MixedDataset(parts)

    def loader(self, batch_size: int, parts: int = 1, **options: Any) -> TrainLoader:
        """This rank's share of the training samples, in batches of so many parts."""
        place = place_of(self.settings.cluster)
        return TrainLoader(
            self.dataset("train", **options),
            batch_size=batch_size,
            seed=self.settings.seed,
            parts=parts,
            together=self.settings.dataset.questions_per_video,
            weights=[data.weight for data in self.splits],
            rank=place.rank,
            world=place.world,
        )

    def asks(self, wanted: bool | None) -> bool:
        """Whether to evaluate: as the settings say, or by default if any questions are held out."""
        return any(data.heldout.samples for data in self.splits) if wanted is None else wanted

    def fit(self, module: TreeModule, loader: TrainLoader, finish: Callable[[], None] | None = None) -> list[Logger]:
        """Trains with Lightning, from a checkpoint if requested, and returns the loggers, still open.

        `finish` is applied to the model after its last step and before it is saved.

        Raises:
            UserError: nothing was learned: no sample was usable, no step was made, or values became non-finite.
        """
        settings = self.settings
        trained_on = partial(index_samples, (sample for data in self.splits for sample in data.train.samples))
        loggers = make_loggers(settings, self.folder, trained_on)
        saving = Checkpoints(self.folder / "checkpoints", settings.trainer.checkpoint_every_n_steps, self.watch)
        trainer = pl.Trainer(
            **trainer_options(settings, trains=True),
            max_steps=settings.trainer.max_steps,
            max_epochs=settings.trainer.max_epochs,
            max_time=settings.trainer.max_time,
            log_every_n_steps=settings.trainer.log_every_n_steps,
            fast_dev_run=settings.trainer.fast_dev_run,
            logger=loggers,
            callbacks=[
                saving,
                *([Progress()] if shows_bar(settings) else []),
                ProgressLines(PROGRESS_EVERY),
                FaultRecorder(self.folder / "faults.jsonl"),
                Speed(loader),
                HeapTrimmer(),
                *([RolloutTable(self.folder, self._watched())] if isinstance(module, GrpoModule) else []),
                *self._during(saving),
            ],
        )
        self.policy.train()  # from_pretrained returns eval mode, which disables gradient checkpointing and dropout
        go_on = f"the same settings and ckpt_path=last {pasted('hydra.run.dir', str(self.folder))}"
        log.info("run folder %s; if interrupted, go on with %s", self.folder, go_on)
        start, held = settings.ckpt_path, (self.folder / "checkpoints" / LAST).exists()
        if start == "last" and not held:
            log.info("there is no checkpoint to go on from yet")
            start = None
        elif held and has_begun_before():
            start = "last"  # whatever checkpoint it first started from
        with self.phase("train"):
            try:
                # our checkpoints hold counters beside tensors; they are read as data, never unpickled
                trainer.fit(module, train_dataloaders=loader, ckpt_path=start, weights_only=True)
                if saving.stopped or self.watch.told is not None:
                    self._stop(trainer.global_step, go_on, loggers)
                else:
                    module.check_learned()
            except Exception as error:
                # SLURM may signal all processes of a job, W&B's included: treat the failure like a kill
                if self.watch.told is None or not self.watch.requeues or isinstance(error, UserError):
                    raise
                log.exception("failed after it was told to end; it goes on from its last checkpoint")
        if saving.stopped or self.watch.told is not None:
            if not self.reports and not self.watch.requeues:
                sys.exit(0)  # else Lightning, which started this rank, terminates rank 0 too
            self.watch.leave()
        self.wait_share = loader.waited / loader.lasted if loader.lasted else None
        with self.phase("save model"):
            if finish is not None:
                finish()
            digest = self._save()
        self.trained = Trained(trainer.strategy.broadcast(digest), trainer.global_step)
        return loggers

    def _stop(self, step: int, go_on: str, loggers: list[Logger]) -> None:
        """Logs that training was told to stop, and how to resume if nothing requeues it."""
        if self.watch.requeues:
            log.info("stopped after step %d", step)
            close_until_resumed(loggers)
        elif self.reports:
            log.warning("stopped after step %d; go on with %s", step, go_on)

    def _save(self) -> str:
        """Writes the trained model to `model/`; adapters are merged into it, and into the policy if it is unsharded.

        Returns the digest of its weights before `stage.save_dtype` is applied; empty except on rank 0.
        """
        settings, written = self.settings, None
        if is_sharded(self.policy):
            state = whole_state(self.policy)
            if self.reports:
                written = merge_adapters(refill(settings.model, state))
        else:
            written = self.policy = merge_adapters(self.policy)
        if not self.reports:
            return ""
        assert written is not None
        digest = state_digest(written.state_dict())
        assert isinstance(settings.stage, TrainingStage)
        save_pretrained(written, self.probe.processor, self.folder / "model", settings.stage.save_dtype)
        return digest

    def _watched(self) -> Watched:
        """The rollouts that the run logs while training."""
        settings, logger = self.settings, self.settings.logger
        answer = settings.objective.max_completion_length

        def heldout() -> list[Batch]:
            if not self.asks(None):
                return []
            return spread_batches(self.dataset("heldout"), logger.heldout_prompts, settings.evaluation, answer)

        return Watched(
            logger.rollouts_every_n_steps,
            logger.rollout_prompts,
            heldout,
            self.probe,
            Scorer(settings.reward),
            answer,
        )

    def _during(self, saving: Checkpoints) -> list[Callback]:
        """What evaluates the run while it trains, if it does, with what goes by it."""
        settings = self.settings
        how, scorer = settings.evaluation, Scorer(settings.reward)
        if not how.every_n_steps:
            return []
        request = EvaluationRequest(
            self.probe,
            self.dataset("heldout"),
            how,
            settings.seed,
            self.compute,
            settings.trainer.self_check,
            partial(reward_row, scorer=scorer),
            partial(fault_row, scorer=scorer),
        )
        judging = judges(how, self.folder / "checkpoints")
        folder = self.folder / "predictions" / "during"
        return [DuringTraining(folder, request, how, judging, lambda: saving.stopped), *judging]

    def training(self, loader: TrainLoader, updates: int = 1) -> Training:
        """The training setup of this run, with `updates` optimiser steps per batch."""
        stage, trainer = self.settings.stage, self.settings.trainer
        assert isinstance(stage, TrainingStage)
        return Training(
            stage.optimizer,
            total_steps(self.settings, loader, updates),
            trainer.accumulate_grad_batches,
            trainer.gradient_clip_val,
            trainer.self_check,
            loader.batch_size,
            trainer.max_time,
        )

    def data_usage(self) -> DataUsage:
        """How the training data were used."""
        withheld = [data.train.withheld for data in self.splits]
        total = Withheld(sum(entry.videos for entry in withheld), sum(entry.questions for entry in withheld))
        return DataUsage(self.faults(), total, self.wait_share)

    def faults(self) -> list[Fault]:
        """All faults found in the data so far."""
        found = [fault for data in self.splits for fault in (*data.train.faults, *data.heldout.faults)]
        return found + [Fault(**row) for row in read_rows(self.folder / "faults.jsonl")]


def _make_fresh(settings: Settings) -> None:
    folder = Path(settings.model.name_or_path)
    if not folder.exists():
        assert isinstance(settings.dataset, RenderedSettings)  # ensured by a config rule
        prompts = settings.dataset.prompts
        examples = rooms.example_samples(settings.dataset, CORPUS_SCENES)
        corpus = (f"{prompt_text(sample, prompts)}\n{worked_completion(sample)}" for sample in examples)
        tiny.build(folder, corpus, settings.seed)
