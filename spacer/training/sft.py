"""Supervised fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from spacer.data.loading import Batch
from spacer.distributed import collectives
from spacer.distributed.sharding import gathered
from spacer.training.row_trainer import RowLoss
from spacer.training.tree_module import TreeModule
from spacer.training.work import Row, begin
from spacer.tree.forest import Completion


class SftModule(TreeModule):
    """Supervised fine-tuning on worked completions; prompt tokens are masked out of the loss."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Trains on the mean negative log-likelihood of the batch's target tokens."""
        samples = sum(self.gather(batch))
        if samples:
            completions = [Completion(n, target) for n, target in enumerate(batch.targets or ())]
            assert len(completions) == len(batch.samples)
            tokens = sum(collectives.gather(sum(len(completion.ids_C) for completion in completions), self.device))
            divisor = self._gathered.divide_by(tokens)

            def loss_of(row: Row, logp_N: Tensor) -> RowLoss:
                loss = -logp_N.sum() / divisor
                return loss, {"loss": loss.detach()}

            work = begin(self.passes, batch)
            if self.check.due:
                with gathered(self.policy) as policy:
                    work.check(policy, self.check, completions)
            logged = work.backward(work.rows(completions, range(len(completions))), loss_of)
            none = torch.zeros((), device=self.device)  # if this process has no samples
            self._gathered.loss += float(collectives.add(torch.stack([none, *(row["loss"] for row in logged)]).sum()))
        loss = self.step(batch_idx)
        if loss is not None:
            self.log("train/loss", loss, prog_bar=True, batch_size=1)
