"""Asks a run's model the questions that its data hold out, or a benchmark's, or those to train on; controls too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from spacer.config.choices import Control
from spacer.config.derived import controls_of
from spacer.config.settings import AskingSettings, GenerateStage
from spacer.data.loading import PromptDataset, Prompts
from spacer.data.samples import Fault, Sample
from spacer.data.sources import load_train
from spacer.evaluation.answering import EvaluationRequest
from spacer.evaluation.asked import answered_row, as_samples, failed_row, malformed_row, media_settings
from spacer.evaluation.blind import prior_completions
from spacer.evaluation.conditions import (
    conditions,
    digest_of,
    generated_conditions,
    heldout_conditions,
    renew,
    require_same_conditions,
)
from spacer.evaluation.generated import generated_fault, generated_row
from spacer.evaluation.kept import Answer, Row
from spacer.evaluation.predict import fault_row, predict, reward_row
from spacer.files import append_rows, read_rows, write_rows
from spacer.rewards import Scorer
from spacer.stages.running import Run
from spacer.stages.trainers import trainer_options


def ask_heldout(run: Run, name: str, control: Control | None = None) -> list[Row]:
    """Asks the current policy the held-out questions, with the media that a `control` puts in place of theirs;
    answers are in `predictions/NAME.jsonl`.

    Raises:
        UserError: an evaluation's folder holds answers produced under other conditions.
    """
    now = heldout_conditions(run.settings, asdict(run.attention), run.trained)
    if control is not None:
        now["control"] = control.value
    place = run.folder / "predictions" / f"{name}.conditions.json"
    if run.settings.stage.name == "evaluate":
        require_same_conditions(place, now)
    elif run.reports:
        renew(place, now)
    scorer = Scorer(run.settings.reward)
    row_of, fault_of = partial(reward_row, scorer=scorer), partial(fault_row, scorer=scorer)
    dataset = run.dataset("heldout", control=control)
    return _predict(run, name, now, dataset, run.settings.evaluation, row_of, fault_of)


def ask_controls(run: Run, name: str) -> dict[str, list[Row]]:
    """Asks the same questions under each of its controls, by control; answers are in
    `predictions/controls/NAME.CONTROL.jsonl`."""
    found = {}
    for control in controls_of(run.settings):
        at = f"controls/{name}.{control.value}"
        found[control.value] = _ask_prior(run, at) if control == Control.prior else ask_heldout(run, at, control)
    return found


def _ask_prior(run: Run, name: str) -> list[Row]:
    """Answers the held-out questions with priors of the training split and one map for all scenes."""
    rows, scorer = [], Scorer(run.settings.reward)
    for data in run.splits:
        training = data.train.samples or load_train(data.settings).samples
        completions = prior_completions(training, data.heldout.samples)
        for sample, completion in zip(data.heldout.samples, completions, strict=True):
            rows.append(reward_row(sample, Answer((completion,), (0,)), scorer))
    rows = rows[: run.settings.evaluation.limit]
    if run.reports:
        write_rows(run.folder / "predictions" / f"{name}.jsonl", rows)
    return rows


def ask_benchmark(run: Run, control: Control | None = None) -> list[Row]:
    """Asks the policy a benchmark's questions; answers are in `predictions/NAME.jsonl`, those under a control
    in `predictions/controls/NAME.CONTROL.jsonl`.

    Raises:
        UserError: the run folder holds answers produced under other conditions.
    """
    settings = run.settings
    asked = settings.benchmark
    assert asked is not None
    now = conditions(settings.model, asked, settings.seed, settings.trainer.precision, asdict(run.attention))
    name = asked.name
    if control is not None:
        now["control"] = control.value
        name = f"controls/{name}.{control.value}"
    require_same_conditions(run.folder / "predictions" / f"{name}.conditions.json", now)
    sound = [question for question in run.questions if question.fault is None]
    malformed = [question for question in run.questions if question.fault is not None]
    dataset = PromptDataset(
        as_samples(sound, asked),
        run.probe.processor,
        media_settings(asked),
        rule=run.rule,
        seed=settings.seed,
        section="benchmark",
        control=control,
    )
    row_of = partial(answered_row, by_id={question.id: question for question in sound}, name=asked.name)
    rows = _predict(run, name, now, dataset, asked, row_of, failed_row, asked.samples)
    wrong = [malformed_row(question) for question in malformed]
    if wrong and run.reports:
        path = run.folder / "predictions" / f"{name}.jsonl"
        known = {row["id"] for row in read_rows(path)}
        append_rows(path, [row for row in wrong if row["id"] not in known])
    return rows + wrong


def generate_completions(run: Run) -> list[Row]:
    """Samples completions of the training questions; rows, a question each, are in `generated.jsonl`.

    Raises:
        UserError: the run folder holds completions produced under other conditions.
    """
    stage = run.settings.stage
    assert isinstance(stage, GenerateStage)
    now = generated_conditions(run.settings, asdict(run.attention))
    require_same_conditions(run.folder / "generated.conditions.json", now)
    request = _request(
        run,
        run.dataset("train"),
        stage,
        partial(generated_row, scorer=Scorer(run.settings.reward)),
        generated_fault,
        samples=stage.completions,
        task="generate",
    )
    with run.phase("generate"):
        options = trainer_options(run.settings, trains=False)
        return predict(options, run.policy, request, digest_of(now), run.folder / "generated.jsonl")


def _predict(
    run: Run,
    name: str,
    under: Mapping[str, Any],
    dataset: Prompts,
    how: AskingSettings,
    row_of: Callable[[Sample, Answer], Row],
    row_of_fault: Callable[[Sample, Fault], Row],
    samples: int = 1,
) -> list[Row]:
    path = run.folder / "predictions" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    request = _request(run, dataset, how, row_of, row_of_fault, samples=samples)
    with run.phase(f"evaluate {name}"):
        return predict(trainer_options(run.settings, trains=False), run.policy, request, digest_of(under), path)


def _request(
    run: Run,
    dataset: Prompts,
    how: AskingSettings,
    row_of: Callable[[Sample, Answer], Row],
    row_of_fault: Callable[[Sample, Fault], Row],
    **more: Any,
) -> EvaluationRequest:
    settings = run.settings
    check = settings.trainer.self_check
    return EvaluationRequest(run.probe, dataset, how, settings.seed, run.compute, check, row_of, row_of_fault, **more)
