"""Training on trees with Lightning, by one process or several; and supervised training, the simplest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from spacer import ranks
from spacer.data.processing import PromptBatch
from spacer.modeling import Packing, Vision, count_passes, encode_vision, row_logps
from spacer.selfcheck import FirstBatchCheck
from spacer.settings import OptimizerSettings, Schedule
from spacer.sharding import as_forward, gathered, is_sharded
from spacer.strategies import check_written_by, shard_for
from spacer.tree import Completion, Forest, PackedRow, Segment, pack


def configure_adamw(
    module: pl.LightningModule, settings: OptimizerSettings, total_steps: int | None
) -> Mapping[str, Any]:
    """AdamW over the trainable parameters; linear warm-up, then the schedule over the rest of `total_steps`.

    The steps are told, not asked of `Trainer.estimated_stepping_batches`: that sets the loader up before a resumed run
    has restored where it stands.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == Schedule.constant or total_steps is None:
            return 1.0
        done = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@dataclass(frozen=True)
class Training:
    """How the modules train: the optimiser, its steps in all, how they are gathered, and whether trees are checked.

    `accumulate` batches make a step; gradients are clipped to a norm of `clip`, None for no bound.
    """

    optimizer: OptimizerSettings
    total_steps: int | None = None
    accumulate: int = 1
    clip: float | None = None
    self_check: bool = True


class TreeModule(pl.LightningModule):
    """Training on prefix trees, row by row.

    Lightning's automatic optimisation knows one backward pass a step. Here a batch has one for each packed row, so that
    only one row is in memory, and one for the vision tower, whose features all rows share; hence the manual one.

    Several processes train as one would on their batches side by side: each loss is its share of a mean over all of
    them, gradients are added up, and what is logged is of all batches together. One whose samples are all at fault
    takes part with nothing.
    """

    def __init__(self, policy: Any, packing: Packing, training: Training) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.packing = packing
        self.training_plan = training
        self.check = FirstBatchCheck(training.self_check)

    def configure_optimizers(self) -> Any:
        """AdamW as `stage.optimizer` says."""
        return configure_adamw(self, self.training_plan.optimizer, self.training_plan.total_steps)

    def configure_model(self) -> None:
        """Spreads the models over the processes, where the strategy does."""
        shard_for(self.trainer, self.policy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says whether the models are sharded, see `check_written_by`."""
        checkpoint["sharded"] = is_sharded(self.policy)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """UserError for a checkpoint of another strategy."""
        check_written_by(checkpoint, is_sharded(self.policy))

    def see(self, batch: PromptBatch) -> Vision:
        """The policy's vision features of the batch."""
        passes = self._at_most(count_passes(batch.pictures))
        encode = partial(encode_vision, self.policy, batch.pictures, self.packing.vision_again, passes)
        return as_forward(self.policy, encode)

    def backward_rows(
        self,
        vision: Vision,
        rows: Sequence[PackedRow],
        loss_of: Callable[[PackedRow, Tensor], Tensor],
        temperature: float = 1.0,
    ) -> None:
        """Adds the gradient of Σ loss_of(row, its predicted tokens' log-probabilities) over the rows of a batch.

        The loss is this process's share: what all processes come to is the sum of their gradients.
        """
        shared = vision.detach()
        sharded = is_sharded(self.policy)
        # FSDP averages over the processes
        scale = (ranks.world() if sharded else 1) / self.training_plan.accumulate
        idle = self._at_most(len(rows)) - len(rows)
        for row in rows:
            logp_N = self._logps(row, shared, temperature)
            self.manual_backward(loss_of(row, logp_N) * scale)
        for _ in range(idle):
            self.manual_backward(self._logps(_FILLER, Vision(), temperature).sum() * 0)
        through = [
            (x * (torch.zeros_like(x) if g.grad is None else g.grad)).sum()
            for x, g in zip(vision.tensors, shared.tensors, strict=True)
            if x.requires_grad and (sharded or g.grad is not None)
        ]
        if through:
            self.manual_backward(torch.stack(through).sum())  # its gradient is what the rows sent to the features

    def _logps(self, row: PackedRow, vision: Vision, temperature: float) -> Tensor:
        return as_forward(self.policy, partial(row_logps, self.policy, row, vision, self.packing, temperature))

    def _at_most(self, count: int) -> int:
        """The largest count of any process, where what is counted are forward passes that all take part in."""
        return max(ranks.gather(count, self.device)) if is_sharded(self.policy) else count

    def steps_now(self, batch_idx: int) -> bool:
        """Whether enough batches have been gathered for an optimiser step. What is logged is of these batches."""
        return (batch_idx + 1) % self.training_plan.accumulate == 0

    def log_step(self) -> None:
        """Makes the coming optimiser step the one that metrics are logged for; Lightning would count batches."""
        self.log("step", float(self.trainer.global_step))

    def step(self, batch_idx: int) -> None:
        """An optimiser step where it is time for one."""
        if not self.steps_now(batch_idx):
            return
        optimizer: Any = self.optimizers()
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        if not is_sharded(self.policy):
            ranks.add_gradients(trained)
        self.log("gradient_norm", clip_gradients(trained, self.training_plan.clip))
        optimizer.step()
        # autocast keeps 16-bit copies of weights until its context ends, which is after the last of several steps
        torch.clear_autocast_cache()
        optimizer.zero_grad()
        scheduler: Any = self.lr_schedulers()
        scheduler.step()


class SftModule(TreeModule):
    """Supervised training on worked completions; the prompt bears no loss."""

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """A step down the mean negative log-likelihood of the batch's target tokens."""
        samples = sum(ranks.gather(len(batch.samples), self.device))
        if samples:
            completions = [Completion(n, target) for n, target in enumerate(batch.targets or ())]
            assert len(completions) == len(batch.samples)
            tokens = sum(ranks.gather(sum(len(completion.ids_C) for completion in completions), self.device))
            losses = [torch.zeros((), device=self.device)]

            def loss_of(row: PackedRow, logp_N: Tensor) -> Tensor:
                losses.append(-logp_N.sum() / tokens)
                return losses[-1]

            vision = self.see(batch)
            if self.check.due:
                with gathered(self.policy) as policy:
                    self.check(policy, batch, vision, completions, self.packing)
            self.backward_rows(vision, pack(batch.forest, completions, self.packing.row_tokens), loss_of)
            if self.steps_now(batch_idx):
                self.log_step()
                loss = ranks.add(torch.stack([part.detach() for part in losses]).sum())
                self.log("loss", loss, prog_bar=True, batch_size=samples)
        self.step(batch_idx)


def clip_gradients(parameters: Sequence[torch.nn.Parameter], most: float | None) -> Tensor:
    """Scales the gradients down to a norm of `most` where theirs is larger; returns theirs, of the whole tensors."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    parts = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    # on a CPU, a float32 sum of so many squares is off in its fifth digit, and each way of sharding by another amount
    wide = torch.float64 if parts[0].device.type == "cpu" else torch.float32
    squares = torch.stack([torch.linalg.vector_norm(part, dtype=wide) for part in parts]).square().sum()
    norm = (ranks.add(squares) if isinstance(gradients[0], DTensor) else squares).sqrt().to(gradients[0].dtype)
    if most is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _text_row() -> PackedRow:
    tokens = torch.zeros(2, dtype=torch.long)
    prompt = Segment(tokens, torch.arange(2).expand(3, 2), torch.full_like(tokens, -1))
    (row,) = pack(Forest((prompt,), (0,)), [Completion(0, tokens)], budget=4)
    return row


_FILLER = _text_row()  # what a process computes with no weight while others compute rows of theirs
