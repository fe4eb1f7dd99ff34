"""What the held-out questions must be for a run to evaluate on them as asked, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from spacer.config.derived import controls_of, trains
from spacer.config.rules.evaluation import OF_MEDIA, measured, text_has_no_media
from spacer.config.settings import Settings
from spacer.data.samples import TEXT_ALONE, Sample
from spacer.errors import UserError
from spacer.statistics.summaries import answer_groups


def check_heldout(settings: Settings, samples: Sequence[Sample]) -> None:
    """Checks the metric of evaluations while a run trains, and its controls.

    Raises:
        UserError: no question is of the metric's type, or all are text alone and a control changes their media.
    """
    how = settings.evaluation
    kinds = list(answer_groups(sample.question_type for sample in samples))
    kind = how.metric.removeprefix("answer/")
    if trains(settings) and how.every_n_steps and how.metric != kind and kind not in kinds:
        raise UserError(
            f"evaluation.metric={how.metric} is not measured by the held-out questions, none of which is of such a "
            f"type: choose one of {', '.join([*measured(settings), *(f'answer/{kind}' for kind in kinds)])}"
        )
    controls = [control for control in controls_of(settings) if control in OF_MEDIA]
    if controls and samples and all(sample.data_type == TEXT_ALONE for sample in samples):
        raise UserError(text_has_no_media(controls))
