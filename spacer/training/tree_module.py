"""Training on prefix trees with Lightning, on one or several processes: the base class of all objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from spacer.config.settings import OptimizerSettings
from spacer.data.loading import Batch
from spacer.data.samples import Fault
from spacer.distributed import collectives
from spacer.distributed.sharding import in_zero, is_sharded
from spacer.distributed.strategies import check_written_by, in_parts, shard_for
from spacer.distributed.zero3 import clip_parts
from spacer.models.selfcheck import FirstBatchCheck
from spacer.models.trainable import check_trained, without_frozen
from spacer.models.unwrap import vision_tower
from spacer.rollout.asked import Compute
from spacer.training.gradients import Gathered, scale_gradients
from spacer.training.optimizer import allow_states, configure_optimizer
from spacer.training.row_trainer import Passes
from spacer.training.soundness import PATIENCE, check_finite, no_step, nothing_to_learn_from

T = TypeVar("T")


@dataclass(frozen=True)
class Training:
    """Training options: the optimizer, total steps, gradient accumulation, and whether trees are self-checked.

    Each process gets batches of `batch_size` prompts, and `accumulate` batches make a step; gradients are clipped to a
    norm of `clip`, or not at all if it is None.
    """

    optimizer: OptimizerSettings
    total_steps: int | None = None
    accumulate: int = 1
    clip: float | None = None
    self_check: bool = True
    batch_size: int = 1
    max_time: str | None = None  # trainer.max_time, for messages


class TreeModule(pl.LightningModule):
    """Training on prefix trees, or without them, row by row.

    Uses manual optimization, since Lightning's automatic optimization supports one backward pass per step. Here a batch
    has one per packed row, so that only one row's activations are in memory (on a CPU, one per lane,
    `spacer.cpu.lanes`), and more for the vision tower, whose features all rows share.

    Several processes train as one process would on the concatenation of their batches: each loss is a share of the mean
    over all of them, gradients are summed, and metrics are over all batches. A process whose samples are all faulty
    contributes zeros.

    A step may accumulate several batches, and then equals the step of one batch with all their samples: each loss is a
    sum, divided at the end by the denominator of all batches. The last batches of an epoch make a step even if they are
    fewer than `accumulate`. Batches without samples make none.
    """

    def __init__(self, policy: Any, compute: Compute, training: Training) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # see on_save_checkpoint
        self.policy = policy
        self.compute = compute
        self.training_plan = training
        self.check = FirstBatchCheck(training.self_check)
        allow_states(training.optimizer.kind)  # Lightning loads a checkpoint before it configures the optimizer
        self.prompts_seen = 0  # by all processes, including before restarts
        self.rollout_seconds = 0.0  # time the last batch took to sample and score completions
        self.samples_used = 0  # by all processes, including before restarts
        self.stepped = False  # whether the last batch ended in an optimizer step
        self._fault: Fault | None = None  # the first one, for the message of a run without usable samples
        self._gathered = Gathered()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Counts the prompts that the processes get, including faulty ones."""
        self.prompts_seen += self.training_plan.batch_size * self.trainer.world_size
        self.stepped = False
        if self._fault is None and batch.faults:
            self._fault = batch.faults[0]

    def gather(self, batch: Batch) -> list[int]:
        """The number of samples in each process's batch.

        Raises:
            UserError: the run has had no usable sample in its first `PATIENCE` prompts.
        """
        counts = collectives.gather(len(batch.samples), self.device)
        self.samples_used += sum(counts)
        if not self.samples_used and self.prompts_seen >= PATIENCE:
            raise nothing_to_learn_from(self.prompts_seen, self._fault)
        return counts

    def check_learned(self) -> None:
        """Called after training. Raises UserError if no optimizer step was made."""
        if not self.samples_used:
            raise nothing_to_learn_from(self.prompts_seen, self._fault)
        if not self.trainer.global_step:
            plan = self.training_plan
            raise no_step(
                self.prompts_seen // (plan.batch_size * self.trainer.world_size), plan.accumulate, plan.max_time
            )

    def check_numbers(self, what: str, *values: Tensor) -> None:
        """`check_finite` for this process's values."""
        check_finite(what, self.trainer.global_step, self.device, *values)

    def configure_optimizers(self) -> Any:
        """The optimizer and schedule that `stage.optimizer` describes."""
        plan = self.training_plan
        vision = vision_tower(self.policy).parameters() if plan.optimizer.vision_scale != 1 else ()
        return configure_optimizer(self, plan.optimizer, plan.total_steps, vision)

    def forward(self, function: Callable[[], T]) -> T:
        """Calls `function` inside this module's forward pass, which DeepSpeed's engine requires."""
        return function()

    def configure_model(self) -> None:
        """Shards the models over the processes, if the strategy does."""
        shard_for(self.trainer, self.policy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves only what training changes: the reference and frozen weights are loaded from the initial model."""
        checkpoint["state_dict"] = without_frozen(self, checkpoint["state_dict"])
        checkpoint["prompts_seen"], checkpoint["samples_used"] = self.prompts_seen, self.samples_used
        values = map(local, checkpoint["state_dict"].values())
        self.check_numbers("the weights", *(x for x in values if x.is_floating_point()))
        checkpoint["sharded"] = in_parts(self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counters. Raises UserError if the checkpoint is from another strategy, or lacks trained
        weights."""
        check_written_by(checkpoint, in_parts(self.trainer))
        if not in_parts(self.trainer):  # otherwise `spacer.distributed.strategies.Sharded` checks
            check_trained(self, checkpoint["state_dict"])
        self.prompts_seen = checkpoint["prompts_seen"]
        self.samples_used = checkpoint.get("samples_used", self.prompts_seen)  # not counted by earlier versions

    @property
    def passes(self) -> Passes:
        """How the policy's forward and backward passes are made."""
        return Passes(self.policy, self.compute, self.device, self.manual_backward)

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that an optimizer step updates."""
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def steps_now(self, batch_idx: int) -> bool:
        """Whether enough batches have been accumulated for an optimizer step, or the epoch ends with this one."""
        number = batch_idx + 1
        return number % self.training_plan.accumulate == 0 or number == self.trainer.num_training_batches

    def log_step(self) -> None:
        """Logs metrics under the number of the coming optimizer step; Lightning would count batches."""
        self.log("step", float(self.trainer.global_step))
        optimizer: Any = self.optimizers()
        metrics = {"prompts_seen": float(self.prompts_seen), "learning_rate": optimizer.param_groups[0]["lr"]}
        self.log_dict({f"train/{name}": value for name, value in metrics.items()})

    def step(self, batch_idx: int) -> float | None:
        """Makes an optimizer step if one is due and there are gradients; returns its loss, else None.

        Raises:
            UserError: the loss or the gradient norm is NaN or infinite.
        """
        if not self.steps_now(batch_idx) or not self._gathered.passes:
            return None
        if not self.stepped:  # several updates on one batch are logged as one
            self.log_step()
        optimizer: Any = self.optimizers()
        trained = self.trained()
        if not is_sharded(self.policy):
            collectives.add_gradients(trained)
        factor, loss = self._gathered.factor, self._gathered.loss * self._gathered.factor
        if factor != 1:
            scale_gradients(trained, factor)
        if not self._gathered.total and trained and not in_zero(trained[0]):
            optimizer.zero_grad()  # nothing counts in this step: no decay or momentum moves the weights either
        self._gathered = Gathered()
        norm = clip_gradients(trained, self.training_plan.clip)
        self.check_numbers("the loss or the gradients", norm.new_tensor(loss), norm)
        self.log("train/gradient_norm", norm)
        optimizer.step()
        self.stepped = True
        # autocast caches 16-bit copies of weights until its context ends, which is after the last of several updates
        torch.clear_autocast_cache()
        optimizer.zero_grad()
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        return loss


def clip_gradients(parameters: Sequence[torch.nn.Parameter], most: float | None) -> Tensor:
    """Clips the gradients to a norm of `most`, if given; returns the norm before clipping, over all shards."""
    if parameters and in_zero(parameters[0]):
        return clip_parts(parameters, most)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    squares = collectives.squares([local(g) for g in gradients])
    norm = (collectives.add(squares) if isinstance(gradients[0], DTensor) else squares).sqrt().to(gradients[0].dtype)
    if most is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def local(tensor: Tensor) -> Tensor:
    """This process's shard, or the tensor itself if it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
