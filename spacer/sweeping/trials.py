"""Persistent Optuna trials: a restarted sweep proposes the same values as before, and then continues.

Trials are in `trials.jsonl`, their scores in the jobs' folders. The sampler also samples the kept trials again, which
advances its random state: an interrupted sweep proposes what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, LogUniformDistribution, distribution_to_json
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from spacer.errors import UserError
from spacer.files import append_rows, drop_torn_line, read_rows


class KeptTrials(BaseSampler):
    """A sampler that proposes a trial's kept values where there are any, and its inner sampler's otherwise."""

    def __init__(self, inner: BaseSampler, file: Path) -> None:
        self._inner = inner
        self._file = file
        drop_torn_line(file)
        self._kept = {(row["trial"], row["name"]): row for row in read_rows(file)}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The inner sampler's search space."""
        space: dict[str, BaseDistribution] = self._inner.infer_relative_search_space(study, trial)
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Samples all of `search_space` at once. Raises UserError if the kept values are of another space."""
        values = self._inner.sample_relative(study, trial, search_space)
        return {name: self._keep(trial, name, value, search_space[name]) for name, value in values.items()}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """Samples one parameter. Raises UserError if the kept value is of another distribution."""
        return self._keep(trial, name, self._inner.sample_independent(study, trial, name, distribution), distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Calls the inner sampler's hook."""
        self._inner.after_trial(study, trial, state, values)

    def _keep(self, trial: FrozenTrial, name: str, value: Any, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, LogUniformDistribution):
            value = float(f"{value:.3g}")  # precise enough, and short in the name of the job's folder
        row = {"trial": trial.number, "name": name, "value": value, "of": distribution_to_json(distribution)}
        kept = self._kept.setdefault((trial.number, name), row)
        if kept is row:
            append_rows(self._file, [row])
        elif kept["of"] != row["of"]:
            raise UserError(
                f"{self._file} holds trials in which {name} was of {kept['of']}, and now it is of {row['of']}: "
                "search the same space, or give this sweep another folder with hydra.sweep.dir=…"
            )
        return kept["value"]
