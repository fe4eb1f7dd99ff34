"""Log-probabilities of completions by ordinary padded forward passes of transformers, for models of any family.

Shape suffixes: G completions of one prompt, C tokens, L tokens of the prompt, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacer.data.plain import followed, tiled
from spacer.models.token_logps import token_logps
from spacer.tree.forest import Completion


@dataclass(frozen=True)
class PlainOptions:
    """How the plain computation goes: at most so many tokens in a forward pass, or one completion with its prompt."""

    row_tokens: int


@dataclass(frozen=True)
class PlainRow:
    """Completions of one prompt that go through the model together; `completions` are their numbers among all."""

    prompt: int
    completions: tuple[int, ...]
    ids: tuple[Tensor, ...]

    def unpack(self, values_N: Tensor) -> Tensor:
        """Values of the tokens, one completion after another, as (completions, C), zero after a completion's end."""
        return pad_sequence(list(values_N.split([len(ids_C) for ids_C in self.ids])), batch_first=True)


def plain_rows(
    lengths: Sequence[int], completions: Sequence[Completion], counted: Sequence[int], budget: int
) -> Iterator[PlainRow]:
    """Rows of the completions with the numbers `counted`, each of at most `budget` tokens, padding included, or one
    completion; `lengths` are the tokens of the prompts.

    >>> three = [Completion(0, torch.arange(n)) for n in (2, 4, 3)]
    >>> [row.completions for row in plain_rows([10], three, [0, 1, 2], budget=28)]
    [(0, 1), (2,)]
    """
    for prompt, numbers in groupby(counted, lambda number: completions[number].prompt):
        held: list[int] = []
        for number in numbers:
            longest = max(len(completions[n].ids_C) for n in (*held, number))
            if held and (lengths[prompt] + longest) * (len(held) + 1) > budget:
                yield _row(prompt, held, completions)
                held = []
            held.append(number)
        yield _row(prompt, held, completions)


def _row(prompt: int, numbers: Sequence[int], completions: Sequence[Completion]) -> PlainRow:
    return PlainRow(prompt, tuple(numbers), tuple(completions[n].ids_C for n in numbers))


def stand_ins(config: Any) -> list[int]:
    """The tokens at whose places the model looks for features of pictures, which a completion cannot hold."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    return sorted({found for name in names if isinstance(found := getattr(config, name, None), int)})


def as_model_takes(inputs: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The inputs with pixels in the dtype of the model's weights."""
    return {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def completion_logps(
    model: Any, inputs: Mapping[str, Tensor], completions: Sequence[Tensor], temperature: float = 1.0
) -> Tensor:
    """Log-probabilities of all tokens of one prompt's completions, one after another, under logits / temperature.

    Completions are padded on the right.
    """
    device = inputs["input_ids"].device
    longest = max(len(ids_C) for ids_C in completions)
    ids_GC = torch.zeros(len(completions), longest, dtype=torch.long, device=device)
    mask_GC = torch.zeros_like(ids_GC)
    for row, ids_C in enumerate(completions):
        ids_GC[row, : len(ids_C)] = ids_C.to(device)
        mask_GC[row, : len(ids_C)] = 1
    given = as_model_takes(followed(tiled(inputs, len(completions)), ids_GC, mask_GC), model)
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        logits = model(**given, use_cache=False, logits_to_keep=longest + 1).logits
    else:
        logits = model(**given, use_cache=False).logits
    logits_GCV = logits[:, -longest - 1 : -1]
    logp_GC = token_logps(logits_GCV / temperature if temperature != 1 else logits_GCV, ids_GC)
    return logp_GC[mask_GC.bool()]
