"""A decode loop with static shapes, which runs on a GPU without its host, except for a sync every `LOOK` tokens.

A token of a large model takes some hundreds of small kernels, and launching each takes longer than running it. On CUDA
the step is captured in a graph, which is one launch. Finished rows are still computed, without effect, until half of
the rows suffice for the rest.

Shape suffixes: R rows, B completions, C tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spacer.attention.pages import PagedCache
from spacer.models.unwrap import text_model
from spacer.rollout.sampling import NUCLEUS, Decoding, draw_among

LOOK = 16  # tokens between checks for the end; tokens after the last end are discarded
_WARM = 2  # steps before the capture: libraries allocate their workspaces in the first


class StaticDecoder:
    """Decodes rows whose prompts are in `cache`, with the same tokens as the loop in `spacer.rollout.decode`."""

    def __init__(
        self,
        base: Any,
        cache: PagedCache,
        decoding: Decoding,
        end_ids: Sequence[int],
        pad_id: int,
        last_3R: Tensor,
        draws_BC: Tensor,
        logits_RV: Tensor,
    ) -> None:
        """`last_3R` are the positions of the prompts' last tokens, `logits_RV` their logits, `draws_BC` random numbers
        in [0, 1), one per token."""
        self._base, self._cache, self._decoding = base, cache, decoding
        device = logits_RV.device
        self._ends = torch.tensor(list(end_ids), device=device)
        self._pad = torch.tensor(pad_id, device=device)
        self._last_3R, self._draws_RC, self._logits_RV = last_3R, draws_BC, logits_RV.clone()
        self._ids_BC = torch.full(draws_BC.shape, pad_id, device=device)
        self._logp_BC = torch.zeros(draws_BC.shape, dtype=torch.float32, device=device)
        self._rows_R = torch.arange(len(draws_BC), device=device)  # the completion of each row
        self._ended_R = torch.zeros(len(draws_BC), dtype=torch.bool, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._narrow = torch.zeros((), dtype=torch.bool, device=device)  # whether a nucleus was wider than NUCLEUS

    def run(self) -> tuple[Tensor, Tensor]:
        """Token ids and their log-probabilities (B, C); after a completion's end, the padding token and 0."""
        steps = self._draws_RC.shape[1]
        step = self._made()
        for start in range(0, steps, LOOK):
            count = min(LOOK, steps - start)
            held = [x.clone() for x in self._state]
            for _ in range(count):
                step()
            narrow, live = torch.stack([self._narrow.long(), (~self._ended_R).sum()]).tolist()
            if narrow:  # redo these tokens with the whole vocabulary
                for mine, before in zip(self._state, held, strict=True):
                    mine.copy_(before)
                for _ in range(count):
                    self._advance(None)
                live = int((~self._ended_R).sum())
            if not live:
                break
            if 2 * live <= len(self._rows_R):
                self._compact(_bucket(live, len(self._rows_R)))
                step = self._made()
        ended_BC = torch.isin(self._ids_BC, self._ends)
        written_B = ((ended_BC.cumsum(1) - ended_BC.long()) == 0).sum(1)
        width = int(written_B.max())
        return self._ids_BC[:, :width], self._logp_BC[:, :width]

    @property
    def _state(self) -> list[Tensor]:
        """The tensors that a step updates, except for keys, values and tokens, which it would overwrite anyway."""
        return [self._logits_RV, self._ended_R, self._step, self._narrow, self._cache.lengths_R]

    def _made(self) -> Callable[[], None]:
        if self._logits_RV.device.type == "cuda":
            return _Captured(lambda: self._advance(NUCLEUS))
        return lambda: self._advance(NUCLEUS)

    def _advance(self, width: int | None) -> None:
        """Samples a token for each row and computes the next logits."""
        uniform_R = self._draws_RC.index_select(1, self._step)[:, 0]
        ids_R, logp_R, enough_R = draw_among(self._logits_RV, self._decoding, uniform_R, width)
        ids_R = torch.where(self._ended_R, self._pad, ids_R)
        logp_R = logp_R.to(self._logp_BC.dtype).masked_fill_(self._ended_R, 0)
        step_R = self._step.expand(len(ids_R))
        self._ids_BC.index_put_((self._rows_R, step_R), ids_R)
        self._logp_BC.index_put_((self._rows_R, step_R), logp_R)
        self._narrow |= ~(enough_R | self._ended_R).all()
        self._ended_R |= (ids_R[:, None] == self._ends).any(1)
        self._step += 1
        self._cache.advance()
        states = text_model(self._base)(
            inputs_embeds=self._base.get_input_embeddings()(ids_R)[:, None],
            position_ids=(self._last_3R + self._step)[:, :, None],
            use_cache=False,
            tree=self._cache,
        ).last_hidden_state
        self._logits_RV.copy_(self._base.lm_head(states[:, 0]))

    def _compact(self, count: int) -> None:
        """Reduces the batch to that many rows, unfinished ones first."""
        kept = self._ended_R.long().argsort(stable=True)[:count]
        self._cache.keep(kept)
        self._rows_R, self._ended_R, self._logits_RV = (x[kept] for x in (self._rows_R, self._ended_R, self._logits_RV))
        self._draws_RC, self._last_3R = self._draws_RC[kept], self._last_3R[:, kept]


class _Captured:
    """A step that is captured in a CUDA graph after a few runs, and replayed from then on.

    Weights are where they were while it is used: a graph is made anew for each rollout, and each number of rows.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self._runs = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        self._runs += 1
        if self._runs <= _WARM:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._step()
            torch.cuda.current_stream().wait_stream(aside)
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # other threads may copy batches to the device meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._step()
        self._graph.replay()


def _bucket(live: int, rows: int) -> int:
    """The number of rows, halved as often as the unfinished ones still fit.

    >>> [_bucket(live, 24) for live in (12, 7, 6, 1)]
    [12, 12, 6, 1]
    """
    while -(-rows // 2) >= live and rows > 1:
        rows = -(-rows // 2)
    return rows
