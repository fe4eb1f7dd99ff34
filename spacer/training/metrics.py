"""Metrics of a rollout: a table with one row per completion, and its means. Pure functions.

With several processes the tables are concatenated, so that means are over all completions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from spacer.objective.advantages import group_stats
from spacer.rewards import RewardParts
from spacer.rollout.completion import Rollout

# columns of the table besides the terms of the reward
_OF_MAPS = ("rollout/map_drawn", "rollout/map_quality")
_OF_ROLLOUT = ("rollout/length", "rollout/truncated", "rollout/entropy")


def _columns(terms: Sequence[str]) -> list[str]:
    return ["reward/total", *(f"reward/{term}" for term in terms), *_OF_MAPS, *_OF_ROLLOUT]


def measure(parts: Sequence[RewardParts], rollout: Rollout, terms: Sequence[str]) -> Tensor:
    """The table (B, K), float64, of B completions, on the CPU; NaN where a term does not apply, for the quality of a
    map that was not drawn or has no true one, and for whether one was drawn where none was asked for."""
    rows = [
        [
            part.total,
            *map(part.terms.get, terms, repeat(math.nan)),
            part.drawn if part.drawn or part.map_quality is not None else math.nan,
            part.map_quality if part.drawn and part.map_quality is not None else math.nan,
        ]
        for part in parts
    ]
    rewards = torch.tensor(rows, dtype=torch.float64).view(len(parts), 1 + len(terms) + len(_OF_MAPS))
    lengths_B = rollout.mask_BC.sum(1)
    surprise_B = -rollout.logp_BC.masked_fill(~rollout.mask_BC, 0.0).double().sum(1) / lengths_B.clamp(min=1)
    written = torch.stack([lengths_B, rollout.truncated_B, surprise_B], 1).to("cpu", torch.float64)
    return torch.cat([rewards, written], 1)


def rollout_metrics(table_BK: Tensor, group: int, terms: Sequence[str]) -> dict[str, float]:
    """Means over the completions: the reward and its terms, maps, lengths; and of groups, as `group_stats` has it. Of
    each term, the std over all completions too (ddof = 1).

    `rollout/entropy` is the mean of -log p over a completion's sampled tokens, in nats: without top-p its expectation
    is the policy's entropy at the sampling temperature.

    A mean is over the completions that have a value, and is left out where none has: a term that does not apply, the
    quality of a map that was not drawn. `rollout/map_drawn` is a share of all completions, and is left out where no
    question has a map and no completion drew one.

    >>> from spacer.rewards.combine import TERMS
    >>> parts = [RewardParts(answer=a, map=0.0, format=1.0, length=0.0, temporal=0.0, drawn=False) for a in (0.0, 1.0)]
    >>> written = torch.ones(2, 3, dtype=torch.bool)
    >>> rollout = Rollout(written.long(), written, written.float(), torch.tensor([True, False]), ("", ""))
    >>> table = measure(parts, rollout, TERMS)
    >>> found = rollout_metrics(table, group=2, terms=TERMS)
    >>> found["reward/total"], found["rollout/length"], found["rollout/truncated"], found["rollout/std_format"]
    (1.5, 3.0, 0.5, 0.0)
    """
    names = _columns(terms)
    means = zip(names, table_BK.nanmean(0).tolist(), strict=True)
    metrics = {name: mean for name, mean in means if not math.isnan(mean)}
    drawn_B = table_BK[:, names.index("rollout/map_drawn")]
    if not drawn_B.isnan().all():
        metrics["rollout/map_drawn"] = float(drawn_B.nan_to_num().mean())
    rewards_NG, answers_NG = (
        table_BK[:, names.index(name)].float().view(-1, group) for name in ("reward/total", "reward/answer")
    )
    for term in ("total", *terms):
        values = table_BK[:, names.index(f"reward/{term}")]
        values = values[~values.isnan()]
        if len(values) > 1:
            metrics[f"rollout/std_{term}"] = float(values.std())
    lengths_B = table_BK[:, names.index("rollout/length")]
    metrics |= {"rollout/length_min": float(lengths_B.min()), "rollout/length_max": float(lengths_B.max())}
    metrics |= {"rollout/pass_at_group": float((answers_NG == 1).any(1).float().mean())}
    of_groups = group_stats(rewards_NG, answers_NG)
    return metrics | {f"rollout/{name}": float(x) for name, x in of_groups.items() if name != "reward_mean"}
