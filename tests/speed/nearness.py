"""How near training on a packed row comes to a plain forward and backward of as many tokens."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch

from spacer.attention.interface import TREE
from spacer.data.processing import collate
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.load import load_policy
from spacer.models.logps import row_logps
from spacer.models.token_logps import token_logps
from spacer.models.unwrap import unwrap
from spacer.models.vision import encode_vision
from spacer.tree.forest import Completion
from spacer.tree.packing import pack
from tests.speed.measure import timed
from tests.speed.systems import MODEL, Cell, prompts


@dataclass(frozen=True)
class Nearness:
    """Seconds on the clock for the tree's tokens, in the tree and in plain rows."""

    prompt_tokens: int
    tree_s: float
    plain_s: float


def nearness(cell: Cell, repeats: int) -> Nearness:
    """The tree of one prompt with its completions; and rows of one prompt and completion each through transformers'
    text model with its own attention, with log-probabilities of the completions, scaled to as many tokens."""
    policy = load_policy(MODEL).train()
    batch = collate(prompts(cell, 1))
    vision = encode_vision(policy, batch.pictures).detach()
    completions = [Completion(0, torch.randint(300, 550, (cell.completion_tokens,))) for _ in range(cell.group_size)]
    (row,) = pack(batch.forest, completions, 10**9)
    base = unwrap(policy)
    length = cell.prompt_tokens + cell.completion_tokens
    ids_BL = torch.randint(300, 550, (cell.group_size, length))
    positions_3BL = torch.arange(length).expand(3, cell.group_size, length)

    def in_tree() -> None:
        row_logps(policy, row, RowContext(vision, ComputeOptions("blocks", 10**9))).sum().backward()

    def in_rows() -> None:
        states = base.model.language_model(
            inputs_embeds=base.get_input_embeddings()(ids_BL), position_ids=positions_3BL, use_cache=False
        ).last_hidden_state[:, -cell.completion_tokens - 1 : -1]
        token_logps(base.lm_head(states), ids_BL[:, -cell.completion_tokens :]).sum().backward()

    def in_plain_rows() -> None:
        base.set_attn_implementation({"text_config": "sdpa"})
        in_rows()
        base.set_attn_implementation({"text_config": TREE})

    for warm_up in (in_tree, in_plain_rows):
        warm_up()
    tree, plain_rows = [], []
    for _ in range(2 * repeats):
        tree.append(timed(in_tree)[1])
        plain_rows.append(timed(in_plain_rows)[1] * len(row) / ids_BL.numel())
    return Nearness(cell.prompt_tokens, statistics.median(tree), statistics.median(plain_rows))
