"""The stages of a run, each readable from top to bottom: train, sft, evaluate."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from transformers.utils.logging import disable_progress_bar

from spacer.data.prompts import ShownTarget
from spacer.evaluation.asked import check_media
from spacer.evaluation.scoring import official_intervals, score_predictions, write_scores
from spacer.grpo import GrpoModule
from spacer.implied import asks_files, heldout_name
from spacer.modeling import load_reference
from spacer.module import SftModule
from spacer.preemption import Watch
from spacer.provenance import index_samples
from spacer.report.summary import mean_reward, report_all, report_benchmark, report_evaluation, report_training
from spacer.report_runs import report_at_end
from spacer.running import Run
from spacer.score import choose_questions
from spacer.settings import Settings, SlurmSettings
from spacer.strategies import place_of

# what Lightning warns of in every run of ours
_AS_IT_SHOULD_BE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # its own use of torch
    "Checkpoint directory .* exists and is not empty",  # where a run goes on
    r"Found \d+ module\(s\) in eval mode",  # the reference is one
    "The `srun` command is available on your system but is not used",  # cluster=slurm does
    "Experiment logs directory .* exists and is not empty",  # the CSV file is written again from the history
    "Using ModelCheckpoint with manual optimization",  # steps are whole when a checkpoint is written, which tests hold
)


def run(settings: Settings, folder: Path) -> float:
    """Runs the stage that the settings name and returns the figure that a sweep maximises."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # tips and device listings, once a trainer
    if not sys.stderr.isatty():
        disable_progress_bar()  # of loading weights: in a log file a bar is control codes
    for message in _AS_IT_SHOULD_BE:
        warnings.filterwarnings("ignore", message=message)
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        logging.getLogger("spacer").setLevel(logging.WARNING)  # the first process says what all do
    place_of(settings.cluster)  # devices that are not there are told of before anything is loaded
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    watch = Watch(settings.cluster.signal_delay_s if isinstance(settings.cluster, SlurmSettings) else None)
    with watch.listening():
        if settings.stage.name == "evaluate" and settings.benchmarks:
            return evaluate_all(settings, folder, watch)
        return {"train": train, "sft": sft, "evaluate": evaluate}[settings.stage.name](Run(settings, folder, watch))


def train(run: Run) -> float:
    """GRPO: evaluate, train, evaluate, compare. Returns the held-out total reward after training."""
    settings = run.settings
    before = run.ask("before") if run.asks(settings.stage.evaluate_before) else None
    loader = run.loader(settings.objective.prompts_per_rollout, shuffle_frames=settings.reward.temporal is not None)
    needs_reference = settings.objective.beta > 0 and settings.model.lora is None
    module = GrpoModule(
        run.policy,
        load_reference(settings.model, run.attention.vision) if needs_reference else None,
        run.processor,
        settings.objective,
        settings.reward,
        run.packing,
        run.training(loader, settings.objective.updates_per_rollout),
        settings.seed,
    )
    loggers = run.fit(module, loader)
    after = run.ask("after") if run.asks(settings.stage.evaluate_after) else None
    if run.reports:
        report_training(settings, run.folder, before, after, run.fed(), run.seconds, loggers)
    return mean_reward(after)


def sft(run: Run) -> float:
    """Supervised training on worked completions. Returns the held-out total reward after it."""
    settings = run.settings
    before = run.ask("before") if run.asks(settings.stage.evaluate_before) else None
    shown = tuple(sample for piece in run.pieces for sample in piece.train.samples)
    target = ShownTarget(shown, settings.stage.guess_share, settings.stage.guess_after)
    loader = run.loader(settings.stage.batch_size, target=target)
    loggers = run.fit(SftModule(run.policy, run.packing, run.training(loader)), loader)
    after = run.ask("after") if run.asks(settings.stage.evaluate_after) else None
    if run.reports:
        report_training(settings, run.folder, before, after, run.fed(), run.seconds, loggers)
    return mean_reward(after)


def evaluate(run: Run) -> float:
    """What the data hold out, asked and scored, or a benchmark. Returns the total reward, or the official overall."""
    if asks_files(run.settings):
        overall = evaluate_benchmark(run)
        if run.reports:
            report_at_end(run.settings, run.folder)
        return overall
    rows = run.ask(heldout_name(run.settings))
    if run.reports:
        asked = partial(index_samples, [sample for piece in run.pieces for sample in piece.heldout.samples])
        report_evaluation(run.settings, run.folder, rows, run.faults(), run.seconds, asked)
    return mean_reward(rows)


def evaluate_benchmark(run: Run) -> float:
    """A benchmark, asked and scored as its authors do and as SpaceR's release does. Returns the official overall."""
    settings = run.settings
    rows = run.ask_benchmark()
    # an error is no prediction: by some rules of the release an empty one would be right
    predictions = {row["id"]: row["prediction"] for row in rows if "error" not in row}
    scored = score_predictions(settings.benchmark.name, run.questions, predictions)
    if not run.reports:
        return scored.official_values["overall"]
    how = json.loads((run.folder / "predictions" / f"{settings.benchmark.name}.conditions.json").read_text())
    tasks = settings.benchmark.tasks
    root = Path(str(settings.benchmark.root)).expanduser().resolve()
    how |= {"tasks": None if tasks is None else list(tasks), "limit": settings.benchmark.limit, "root": str(root)}
    spread = official_intervals(scored, settings.benchmark.resamples, settings.seed)
    write_scores(run.folder, scored, how, spread)
    report_benchmark(settings, run.folder, scored, spread, how, rows, run.missing, run.seconds)
    return scored.official_values["overall"]


def evaluate_all(settings: Settings, folder: Path, watch: Watch) -> float:
    """Every benchmark whose root is set, each into a folder of its own. Returns the mean of their official overalls."""
    chosen = {name: part for name, part in settings.benchmarks.items() if part.root is not None}
    for part in chosen.values():  # all that is wrong with their files shows before the model is loaded
        check_media(choose_questions(part).questions, part)
    overall: dict[str, float] = {}
    first: Run | None = None
    for name, part in chosen.items():
        run = Run(replace(settings, benchmark=part, benchmarks={}), folder / name, watch, first)
        first = first or run
        overall[name] = evaluate_benchmark(run)
    if first is not None and first.reports:
        report_all(folder, overall)
        report_at_end(settings, folder)
    return sum(overall.values()) / len(overall)
