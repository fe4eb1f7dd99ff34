"""Rewards: text → float, pure functions that training and evaluation share. Importing them does not import torch."""

from spacer.rewards.answer import PROBLEM_TYPES, answer_reward, mean_relative_accuracy
from spacer.rewards.bonus import length_bonus, temporal_bonus
from spacer.rewards.combine import RewardParts, score_group
from spacer.rewards.extract import answer_text, read_choice, read_number
from spacer.rewards.format import format_reward
from spacer.rewards.maps import has_map, map_score, parse_map, written_map

__all__ = [
    "PROBLEM_TYPES",
    "RewardParts",
    "answer_reward",
    "answer_text",
    "format_reward",
    "has_map",
    "length_bonus",
    "map_score",
    "mean_relative_accuracy",
    "parse_map",
    "read_choice",
    "read_number",
    "score_group",
    "temporal_bonus",
    "written_map",
]
