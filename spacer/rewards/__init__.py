"""Rewards: text → float, pure functions that training and evaluation share. Importing them does not import torch."""

from spacer.rewards.answer import PROBLEM_TYPES, answer_reward, is_right, mean_relative_accuracy
from spacer.rewards.bonus import length_bonus, overlong_penalty, temporal_bonus
from spacer.rewards.combine import RewardParts, score_group
from spacer.rewards.extract import answer_text, read_number, thinking_text
from spacer.rewards.format import format_reward
from spacer.rewards.maps import has_map, map_score, parse_map, written_map
from spacer.rewards.options import read_choice, read_yes_no
from spacer.rewards.quantities import read_quantity
from spacer.rewards.reading import final_text
from spacer.rewards.scorer import Scorer

__all__ = [
    "PROBLEM_TYPES",
    "RewardParts",
    "Scorer",
    "answer_reward",
    "answer_text",
    "final_text",
    "format_reward",
    "has_map",
    "is_right",
    "length_bonus",
    "map_score",
    "mean_relative_accuracy",
    "overlong_penalty",
    "parse_map",
    "read_choice",
    "read_number",
    "read_quantity",
    "read_yes_no",
    "score_group",
    "temporal_bonus",
    "thinking_text",
    "written_map",
]
