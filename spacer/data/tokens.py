"""Tokenizes text that comes partly from data files, in which control tokens are treated as plain text.

Control tokens are a tokenizer's special tokens (`<|im_end|>`, `<|vision_start|>`): they delimit turns and media, and
only the chat template may set them. The tags of completions are not control tokens, even if they are special tokens of
the tokenizer: they are parsed in what a model writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spacer.errors import SampleError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<map>", "</map>")


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text → id of all special tokens, including tags if they are special."""
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text → id of the special tokens other than the tags of completions."""
    return {text: number for text, number in special_tokens(tokenizer).items() if text not in TAGS}


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, data: Sequence[range] = (), *, begins: bool = True
) -> list[int]:
    """Token ids of a text whose characters in the spans `data` come from data files.

    Control tokens that are spelled out in those spans are tokenized as ordinary characters. A text that begins no
    prompt gets no token that the tokenizer begins texts with.
    """
    special, control = special_tokens(tokenizer), control_tokens(tokenizer)
    if not any(token in text[span.start : span.stop] for span in data for token in control):
        ids: list[int] = tokenizer(text, add_special_tokens=begins)["input_ids"]
        return ids
    found: list[int] = []
    start = 0
    for match in re.finditer("|".join(map(re.escape, sorted(special, key=len, reverse=True))), text):
        token = match.group()
        if token in control and any(match.start() in span for span in data):
            continue
        found += [*_token_ids(tokenizer, text[start : match.start()]), special[token]]
        start = match.end()
    return found + _token_ids(tokenizer, text[start:])


def _token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def begun_with(tokenizer: PreTrainedTokenizerBase, begun: str, target: str | None) -> tuple[Tensor, Tensor | None]:
    """The token ids of the start of a completion, and those of the rest of `target` with the end token, if it is given.

    The completion is tokenized as a whole, as it is elsewhere, so that a token that begins in the start and ends after
    it is in the rest.

    Raises:
        UserError: `target` does not start with `begun`.
    """
    if target is None:
        return torch.tensor(encode(tokenizer, begun, [range(len(begun))], begins=False), dtype=torch.long), None
    if not target.startswith(begun):
        raise UserError(
            f"the completion to imitate, {target!r}, does not start with {begun!r}, which the data give: use "
            "dataset=layouts without stage.guesses, and with a model whose chat template leaves <think> to it"
        )
    ids = encode(tokenizer, target, [range(len(target))], begins=False)
    shared = 0
    while shared < len(ids) and begun.startswith(str(tokenizer.decode(ids[: shared + 1]))):
        shared += 1
    return torch.tensor(ids[:shared], dtype=torch.long), torch.tensor([*ids[shared:], tokenizer.eos_token_id])


def places(
    tokenizer: PreTrainedTokenizerBase, chat: str, texts: Sequence[str], render: Callable[[Sequence[str]], str]
) -> list[range]:
    """The spans of `texts` in the chat that `render` makes of them; empty if they contain no control token.

    Raises:
        SampleError: they contain one, and the chat does not contain the texts verbatim.
    """
    joined = "\n".join(texts)
    token = next((token for token in control_tokens(tokenizer) if token in joined), None)
    if token is None:
        return []
    stand_ins = [f"\ue000{number}\ue001" for number in range(len(texts))]
    frame = re.split("|".join(stand_ins), render(stand_ins))
    spans, found = [], frame[0]
    for text, after in zip(texts, frame[1:], strict=False):
        spans.append(range(len(found), len(found) + len(text)))
        found += text + after
    if found != chat or len(frame) != len(texts) + 1:
        raise SampleError(f"it spells out the control token {token}, and the chat template changes its text")
    return spans
