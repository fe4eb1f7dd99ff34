"""The stage that scores a file of benchmark predictions, whatever wrote them; without torch."""

from __future__ import annotations

from pathlib import Path

import spacer
from spacer.config.settings import Settings
from spacer.errors import UserError
from spacer.evaluation.chosen import choose_questions
from spacer.evaluation.predictions import read_predictions
from spacer.evaluation.scoring import official_intervals, opened_in_prompts, score_predictions, write_scores
from spacer.report.benchmark_scores import show
from spacer.stages.report import report_at_end
from spacer.terminal.screen import screen


def score(settings: Settings, folder: Path) -> float:
    """Writes `scores.json` and `per_question.jsonl` into the run's folder and prints the metrics.

    Returns the official overall score.

    Raises:
        UserError: the benchmark's files or the predictions are faulty, or do not match.
    """
    assert settings.predictions is not None and settings.benchmark is not None  # ensured by config rules
    file = Path(settings.predictions).expanduser()
    chosen = choose_questions(settings.benchmark)
    chosen.warn()
    predictions = read_predictions(file)
    if not predictions:
        raise UserError(f'{file}: it holds no prediction: write {{"id": …, "prediction": …}}, a line for each question')
    known = {question.id for question in chosen.questions} | chosen.others
    if predictions.keys().isdisjoint(known):
        raise UserError(
            f"{file}: none of its {len(predictions)} predictions is of a question of {settings.benchmark.name}, whose "
            f"ids are like {chosen.questions[0].id!r}: choose the benchmark that was asked, with its own ids"
        )
    # predictions for questions outside the selection are no mistake
    kept = {identity: text for identity, text in predictions.items() if identity not in chosen.others}
    opened = opened_in_prompts(predictions)
    scored = score_predictions(settings.benchmark.name, chosen.questions, kept, opened)
    how = {
        "root": str(Path(str(settings.benchmark.root)).expanduser().resolve()),
        "predictions": str(file.resolve()),
        "tasks": None if settings.benchmark.tasks is None else list(settings.benchmark.tasks),
        "limit": settings.benchmark.limit,
        "opened_think": opened,
        "spacer": spacer.__version__,
    }
    spread = official_intervals(scored, settings.evaluation.resamples, settings.seed)
    write_scores(folder, scored, how, spread)
    show(screen(), scored, spread, folder)
    report_at_end(settings, folder)
    return scored.official_values["overall"]
