"""Supervised fine-tuning on prefix trees."""

from __future__ import annotations

import torch
from torch import Tensor

from spacer.data.processing import PromptBatch
from spacer.distributed import collectives
from spacer.distributed.sharding import gathered
from spacer.models.forward import RowContext
from spacer.training.row_trainer import RowLoss, RowTrainer, VisionGradient
from spacer.training.tree_module import TreeModule
from spacer.tree.forest import Completion
from spacer.tree.packing import PackedRow, pack


class SftModule(TreeModule):
    """Supervised fine-tuning on worked completions; prompt tokens are masked out of the loss."""

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Trains on the mean negative log-likelihood of the batch's target tokens."""
        samples = sum(self.gather(batch))
        if samples:
            completions = [Completion(n, target) for n, target in enumerate(batch.targets or ())]
            assert len(completions) == len(batch.samples)
            tokens = sum(collectives.gather(sum(len(completion.ids_C) for completion in completions), self.device))
            divisor = self._gathered.divide_by(tokens)

            def loss_of(row: PackedRow, logp_N: Tensor) -> RowLoss:
                loss = -logp_N.sum() / divisor
                return loss, {"loss": loss.detach()}

            tower = VisionGradient(self.passes, batch.pictures)
            context = RowContext(tower.encode(), self.compute)
            if self.check.due:
                with gathered(self.policy) as policy:
                    self.check(policy, batch, completions, context)
            rows = pack(batch.forest, completions, self.compute.row_tokens)
            logged = RowTrainer(self.passes, context).backward(rows, loss_of, tower)
            none = torch.zeros((), device=self.device)  # if this process has no samples
            self._gathered.loss += float(collectives.add(torch.stack([none, *(row["loss"] for row in logged)]).sum()))
        loss = self.step(batch_idx)
        if loss is not None:
            self.log("train/loss", loss, prog_bar=True, batch_size=1)
