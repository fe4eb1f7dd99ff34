"""Forbidden combinations of values that are each valid alone, by topic. `spacer.config.load` applies them to
what the settings classes allow."""

from spacer.config.rules import cluster, computation, data, endpoint, evaluation, objective, packages, precision, stages
from spacer.config.rules.datasets import DATASET_RULES
from spacer.config.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    *data.RULES,
    *stages.RULES,
    *evaluation.RULES,
    *endpoint.RULES,
    *objective.RULES,
    *packages.RULES,
    *precision.RULES,
    *cluster.RULES,
    *computation.RULES,
)

__all__ = ["DATASET_RULES", "RULES"]
