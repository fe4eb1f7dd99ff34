"""The reward of a run: the published parts and the functions of the user's, as the settings have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spacer.config.settings import RewardSettings
from spacer.rewards.combine import TERMS, RewardParts, score_group
from spacer.rewards.custom import Question, load_custom
from spacer.rewards.maps import clean_map


class Scorer:
    """Scores completions by a run's settings.

    Raises:
        UserError: `reward.functions` names a function that cannot be loaded.
    """

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings
        self._custom = load_custom(settings.functions)
        self.custom_terms = tuple(reward.name for reward in self._custom)
        given = {"map": settings.map, "format": settings.format}
        given |= {name: getattr(settings, name) is not None for name in ("length", "temporal", "overlong")}
        terms = (term for term in (*TERMS, "overlong") if given.get(term, True))
        self.terms = (*terms, *self.custom_terms)  # the names of the parts that it gives

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each of `terms` where each is normalised alone: what it is worth at most, by the settings."""
        settings = self.settings
        bonuses = {
            "length": settings.length.bonus if settings.length else 0.0,
            "temporal": settings.temporal.bonus if settings.temporal else 0.0,
            "overlong": settings.overlong.penalty if settings.overlong else 0.0,
        }
        # what a function gives is weighted already, so that its sign is in its values
        bonuses |= {reward.name: abs(reward.weight) for reward in self._custom}
        return tuple(bonuses.get(term, 1.0) for term in self.terms)

    def nothing(self, question: Question) -> RewardParts:
        """The reward of a question that has no completion: 0 in each of the published parts that apply to it."""
        return RewardParts(
            answer=0.0,
            map=0.0 if self.settings.map and clean_map(question.true_map) else None,
            format=0.0 if self.settings.format else None,
            length=0.0,
            temporal=0.0,
            drawn=False,
        )

    def __call__(
        self,
        question: Question,
        completions: Sequence[str],
        lengths: Sequence[int],
        shuffled_completions: Sequence[str] | None = None,
    ) -> list[RewardParts]:
        """The rewards of the completions of a question; arguments as `score_group`.

        Raises:
            UserError: a function of the user's raises, or gives what is no reward.
        """
        published = score_group(
            completions,
            lengths,
            solution=question.solution,
            problem_type=question.problem_type,
            options=question.options,
            true_map=question.true_map,
            settings=self.settings,
            shuffled_completions=shuffled_completions,
        )
        found = {reward.name: reward(question, completions, lengths) for reward in self._custom}
        return [
            replace(parts, custom={name: value for name, values in found.items() if (value := values[n]) is not None})
            for n, parts in enumerate(published)
        ]
