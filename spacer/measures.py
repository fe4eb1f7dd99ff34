"""What is logged of a rollout: a table with a row for each completion, and its means. Pure functions.

Several processes join their tables, so that the means are those of one process that had all completions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spacer.objective import group_stats
from spacer.rewards import RewardParts
from spacer.rollout import Rollout

# columns of the table, after fields of `RewardParts`: the metric of each
_OF_REWARD = {
    "total": "reward/total",
    "answer": "reward/answer",
    "map": "reward/map",
    "format": "reward/format",
    "length": "reward/length",
    "temporal": "reward/temporal",
    "drawn": "rollout/map_drawn",
    "map_quality": "rollout/map_quality",
}
_OF_ROLLOUT = ("rollout/length", "rollout/truncated")


def measure(parts: Sequence[RewardParts], rollout: Rollout) -> Tensor:
    """The table (B, K), float64, of B completions, on the CPU."""
    rewards = torch.tensor(
        [[float(getattr(part, name)) for name in _OF_REWARD] for part in parts], dtype=torch.float64
    ).view(len(parts), len(_OF_REWARD))
    written = torch.stack([rollout.mask_BC.sum(1), rollout.truncated_B], 1).to("cpu", torch.float64)
    return torch.cat([rewards, written], 1)


def rollout_metrics(table_BK: Tensor, group: int) -> dict[str, float]:
    """Means over the completions: the reward and its parts, maps, lengths; and of groups, as `group_stats` has it.

    >>> parts = [RewardParts(answer=a, map=0.0, format=1.0, length=0.0, temporal=0.0, drawn=False) for a in (0.0, 1.0)]
    >>> written = torch.ones(2, 3, dtype=torch.bool)
    >>> table = measure(parts, Rollout(written.long(), written, written.float(), torch.tensor([True, False]), ("", "")))
    >>> found = rollout_metrics(table, group=2)
    >>> found["reward/total"], found["rollout/length"], found["rollout/truncated"]
    (1.5, 3.0, 0.5)
    """
    names = [*_OF_REWARD.values(), *_OF_ROLLOUT]
    metrics = dict(zip(names, table_BK.mean(0).tolist(), strict=True))
    rewards_NG, answers_NG = (
        table_BK[:, names.index(name)].float().view(-1, group) for name in ("reward/total", "reward/answer")
    )
    of_groups = group_stats(rewards_NG, answers_NG)
    return metrics | {f"rollout/{name}": float(x) for name, x in of_groups.items() if name != "reward_mean"}
