"""Training on trees with Lightning, by one process or several; and supervised training, the simplest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from spacer import ranks
from spacer.attended import RolloutAttention
from spacer.data.processing import PromptBatch
from spacer.lanes import train_side_by_side
from spacer.modeling import (
    Packing,
    Portion,
    Vision,
    count_passes,
    drops,
    encode_vision,
    portions,
    row_logps,
    trains_vision,
)
from spacer.optimizer import allow_states, check_trained, configure_adamw, without_frozen
from spacer.selfcheck import FirstBatchCheck
from spacer.settings import OptimizerSettings
from spacer.sharding import as_forward, gathered, in_zero, is_sharded
from spacer.strategies import check_written_by, in_parts, shard_for
from spacer.tree import Completion, Forest, PackedRow, Segment, pack
from spacer.zero import clip_parts

T = TypeVar("T")
RowLoss = tuple[Tensor, Mapping[str, Tensor]]  # a scalar to differentiate, and detached ones to log


@dataclass(frozen=True)
class Training:
    """How the modules train: the optimiser, its steps in all, how they are gathered, and whether trees are checked.

    A process takes batches of `batch_size` prompts, of which `accumulate` make a step; gradients are clipped to a norm
    of `clip`, None for no bound.
    """

    optimizer: OptimizerSettings
    total_steps: int | None = None
    accumulate: int = 1
    clip: float | None = None
    self_check: bool = True
    batch_size: int = 1


class TreeModule(pl.LightningModule):
    """Training on prefix trees, row by row.

    Lightning's automatic optimisation knows one backward pass a step. Here a batch has one for each packed row, so that
    only one row is in memory (on a CPU one a lane, `spacer.lanes`), and more for the vision tower, whose features all
    rows share; hence the manual one.

    Several processes train as one would on their batches side by side: each loss is its share of a mean over all of
    them, gradients are added up, and what is logged is of all batches together. One whose samples are all at fault
    takes part with nothing.
    """

    def __init__(self, policy: Any, packing: Packing, training: Training) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # see on_save_checkpoint
        self.policy = policy
        self.packing = packing
        self.training_plan = training
        self.check = FirstBatchCheck(training.self_check)
        allow_states(training.optimizer.kind)  # Lightning reads a checkpoint before it asks for the optimiser
        self.prompts_seen = 0  # by all processes, since training began and over restarts
        self.rollout_seconds = 0.0  # that the last step has taken to write completions and score them

    def on_train_batch_start(self, batch: PromptBatch, batch_idx: int) -> None:
        """Counts the prompts that the processes are given, those that turn out faulty included."""
        self.prompts_seen += self.training_plan.batch_size * self.trainer.world_size

    def configure_optimizers(self) -> Any:
        """AdamW as `stage.optimizer` says."""
        return configure_adamw(self, self.training_plan.optimizer, self.training_plan.total_steps)

    def forward(self, function: Callable[[], T]) -> T:
        """Calls a function of the model's parts: DeepSpeed's engine computes in its module's forward passes."""
        return function()

    def configure_model(self) -> None:
        """Spreads the models over the processes, where the strategy does."""
        shard_for(self.trainer, self.policy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what training changes: not the reference, nor what is frozen, which are loaded from where it began."""
        checkpoint["state_dict"] = without_frozen(self, checkpoint["state_dict"])
        checkpoint["prompts_seen"] = self.prompts_seen
        checkpoint["sharded"] = in_parts(self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on counting; UserError for a checkpoint of another strategy, or that lacks what is trained."""
        check_written_by(checkpoint, in_parts(self.trainer))
        if not in_parts(self.trainer):  # else `spacer.strategies.Sharded` has
            check_trained(self, checkpoint["state_dict"])
        self.prompts_seen = checkpoint["prompts_seen"]

    def see(self, batch: PromptBatch) -> Vision:
        """The policy's vision features of the batch; cut off from the tower where it is to compute again."""

        passes = self._passes(batch)

        def encode() -> tuple[Tensor, ...]:  # of tensors: where gradients pass, DeepSpeed has parameters gathered
            return encode_vision(self.policy, batch.pictures, self._lanes, passes).tensors

        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.packing.vision_again):
            found = as_forward(self.policy, encode)
        if self.packing.vision_again and trains_vision(self.policy):
            found = tuple(x.requires_grad_() for x in found)
        return Vision.of(found)

    def _passes(self, batch: PromptBatch) -> int:
        return self._at_most(count_passes(batch.pictures))

    def backward_rows(
        self,
        batch: PromptBatch,
        vision: Vision,
        rows: Sequence[PackedRow],
        loss_of: Callable[[PackedRow, Tensor], RowLoss],
        temperature: float = 1.0,
        attended: RolloutAttention | None = None,
    ) -> list[Mapping[str, Tensor]]:
        """Adds the gradient of Σ loss_of(row, its predicted tokens' log-probabilities) over the rows of a batch, of
        which `vision` is what `see` has seen. Returns what there is to log of each row.

        The loss is this process's share: what all processes come to is the sum of their gradients. `attended` is what
        attention came to as these completions were written, where that is to be taken from there. `loss_of` may be
        called by several threads at once.
        """
        sharded = is_sharded(self.policy)
        # FSDP and DeepSpeed average over the processes
        scale = (ranks.world() if sharded else 1) / self.training_plan.accumulate
        idle = self._at_most(len(rows)) - len(rows)
        lanes = self._lanes
        backward = self._backward_pass(lanes)

        def train(policy: Any, row: PackedRow) -> tuple[Mapping[str, Tensor], Tensor, list[Tensor | None]]:
            # a gradient of the features of all rows would be as large as these, and mostly 0
            alone, features_N = row.alone()
            mine = vision.take(features_N)
            loss, logged = loss_of(row, self._logps(policy, alone, mine, temperature, attended))
            backward(loss * scale)
            return logged, features_N, [x.grad for x in mine.tensors]

        trained = train_side_by_side(train, self.policy, rows, lanes)
        for _ in range(idle):
            backward(self._logps(self.policy, _FILLER, Vision(), temperature).sum() * 0)
        if vision.trained and (sharded or rows):
            gradients = [torch.zeros_like(x) for x in vision.tensors]
            for _, features_N, parts in trained:
                for whole, part in zip(gradients, parts, strict=True):
                    if part is not None:
                        whole.index_add_(0, features_N.to(whole.device), part)
            if self.packing.vision_again:
                self._see_again(batch, gradients)
            else:
                self.manual_backward(_whose_gradient(vision.tensors, gradients))
        return [logged for logged, _, _ in trained]

    def _see_again(self, batch: PromptBatch, gradients: Sequence[Tensor]) -> None:
        """The tower's forward and backward pass, a portion of the pictures at a time."""
        found = portions(self.policy, batch.pictures, self._passes(batch))
        counts = [portion.tokens(self.policy) for portion in found]
        parts = list(zip(found, zip(*(whole.split(counts) for whole in gradients), strict=True), strict=True))
        lanes = self._lanes
        backward = self._backward_pass(lanes)

        def train(policy: Any, part: tuple[Portion, Sequence[Tensor]]) -> None:
            portion, mine = part
            backward(_whose_gradient(as_forward(policy, partial(portion.encode, policy)), mine))

        train_side_by_side(train, self.policy, parts, lanes)

    def _backward_pass(self, lanes: int) -> Callable[[Tensor], None]:
        """Lightning's, whose hooks are for one at a time, or torch's own."""
        return self.manual_backward if lanes == 1 else torch.Tensor.backward

    def _logps(
        self,
        policy: Any,
        row: PackedRow,
        vision: Vision,
        temperature: float,
        attended: RolloutAttention | None = None,
    ) -> Tensor:
        known = None if attended is None else attended.over(row)
        return as_forward(policy, partial(row_logps, policy, row, vision, self.packing, temperature, known))

    @property
    def _lanes(self) -> int:
        """How many rows, or portions of pictures, are trained on side by side. One where a pass waits for those of
        other processes, and where dropout draws from the one stream of random numbers."""
        return 1 if is_sharded(self.policy) or drops(self.policy) else self.packing.lanes

    def _at_most(self, count: int) -> int:
        """The largest count of any process, where what is counted are forward passes that all take part in."""
        return max(ranks.gather(count, self.device)) if is_sharded(self.policy) else count

    def steps_now(self, batch_idx: int) -> bool:
        """Whether enough batches have been gathered for an optimiser step. What is logged is of these batches."""
        return (batch_idx + 1) % self.training_plan.accumulate == 0

    def log_step(self) -> None:
        """Makes the coming optimiser step the one that metrics are logged for; Lightning would count batches."""
        self.log("step", float(self.trainer.global_step))
        optimizer: Any = self.optimizers()
        figures = {"prompts_seen": float(self.prompts_seen), "learning_rate": optimizer.param_groups[0]["lr"]}
        self.log_dict({f"train/{name}": value for name, value in figures.items()})

    def step(self, batch_idx: int) -> None:
        """An optimiser step where it is time for one."""
        if not self.steps_now(batch_idx):
            return
        optimizer: Any = self.optimizers()
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        if not is_sharded(self.policy):
            ranks.add_gradients(trained)
        self.log("train/gradient_norm", clip_gradients(trained, self.training_plan.clip))
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

            def loss_of(row: PackedRow, logp_N: Tensor) -> RowLoss:
                loss = -logp_N.sum() / tokens
                return loss, {"loss": loss.detach()}

            vision = self.see(batch)
            if self.check.due:
                with gathered(self.policy) as policy:
                    self.check(policy, batch, vision, completions, self.packing)
            rows = pack(batch.forest, completions, self.packing.row_tokens)
            logged = self.backward_rows(batch, vision, rows, loss_of)
            if self.steps_now(batch_idx):
                self.log_step()
                none = torch.zeros((), device=self.device)  # where this process has no samples
                loss = ranks.add(torch.stack([none, *(row["loss"] for row in logged)]).sum())
                self.log("train/loss", loss, prog_bar=True, batch_size=samples)
        self.step(batch_idx)


def _whose_gradient(features: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar with these gradients to these features: it sends to the tower what rows sent to its features."""
    return torch.stack([(x * gradient).sum() for x, gradient in zip(features, gradients, strict=True)]).sum()


def clip_gradients(parameters: Sequence[torch.nn.Parameter], most: float | None) -> Tensor:
    """Scales the gradients down to a norm of `most` where theirs is larger; returns theirs, of the whole tensors."""
    if parameters and in_zero(parameters[0]):
        return clip_parts(parameters, most)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    parts = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    squares = ranks.squares(parts)
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
