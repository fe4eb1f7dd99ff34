"""DeepSpeed's ZeRO-3 as a strategy of Lightning: parameters, gradients and states of the optimiser are spread out.

Checkpoints are those that one process writes, one file read as
data; DeepSpeed's are folders of pickles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from torch import Tensor

from spacer.distributed import collectives
from spacer.distributed.sharding import compute_with, zero_state
from spacer.errors import UserError
from spacer.models.trainable import decaying

NARROW = "bf16-mixed"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


def zero3_config(precision: str) -> dict[str, Any]:
    """What DeepSpeed is told (https://www.deepspeed.ai/docs/config-json).

    Weights are gathered and gradients averaged over the processes in float32. Gradients are clipped by `clip_parts`.
    """
    # no modules whose weights and gradients travel in bfloat16
    autocast = {"enabled": precision in (NARROW, "bf16"), "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return {
        "train_micro_batch_size_per_gpu": 1,  # of which it makes figures that nobody reads
        "managed_gradient_accumulation": False,  # a step has as many backward passes as there are rows
        "zero_allow_untested_optimizer": True,  # torch's AdamW
        "zero_optimization": {"stage": 3, "contiguous_gradients": True, "overlap_comm": True},
        "bf16": {"enabled": False},  # that would hold the weights in bfloat16
        "torch_autocast": autocast,
    }


class Zero3(DeepSpeedStrategy):
    """Trains a `spacer.training.tree_module.TreeModule` under ZeRO-3.

    A parameter that no process reached in a step has a gradient of zero here, and none elsewhere: AdamW lets its
    moments fade. A step that none was reached in is passed over.
    """

    def __init__(self, precision: str) -> None:
        super().__init__(config=zero3_config(precision))
        self._reached = False

    def setup(self, trainer: pl.Trainer) -> None:
        """Spreads the module, and sends the policy's forward passes through DeepSpeed's engine."""
        import deepspeed

        # private: parameters are spread before Lightning's `setup`, in which it completes the configuration
        self._init_config_if_needed()
        # part by part: the engine would first have the whole of all models on the device
        deepspeed.zero.Init(module=trainer.lightning_module, config_dict_or_path=self.config)
        trainer.lightning_module.to(self.root_device)  # buffers
        super().setup(trainer)
        compute_with(self.model, trainer.lightning_module.policy)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own: it has several forward passes, each of which goes through the engine."""
        assert self.lightning_module is not None
        narrow = self.precision_plugin.precision == NARROW
        with torch.autocast(self.root_device.type, torch.bfloat16) if narrow else contextlib.nullcontext():
            return self.lightning_module.training_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As Lightning does, and notes that there are gradients."""
        self._reached = True
        return super().backward(closure_loss, *args, **kwargs)

    def optimizer_step(self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        """A step of the engine; then gradients are zero again."""
        from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

        if not self._reached:
            return closure()
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        # the engine overwrites what the step's first forward pass led to, and adds the rest to what is there
        for parameter in self._trained():
            safe_set_local_grad(parameter, torch.zeros_like(safe_get_local_grad(parameter)))
        self._reached = False
        return result

    # What is told of checkpoints is as of DDP, of which DeepSpeed's strategy is one.

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """No: weights are read while the model is whole."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes, from the one file."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors in the first process, without what is frozen, which no checkpoint keeps."""
        return zero_state(self.lightning_module, frozen=False)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """One file, from the first process."""
        super(DeepSpeedStrategy, self).save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The one file, as data."""
        return super(DeepSpeedStrategy, self).load_checkpoint(checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Into the model, which is whole yet."""
        super(DeepSpeedStrategy, self).load_model_state_dict(checkpoint, strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """That of torch's AdamW on whole parameters, in the first process."""
        from deepspeed.utils import safe_get_full_optimizer_state

        client = optimizer.optimizer
        steps = [state["step"] for state in client.state.values()]
        states: dict[int, dict[str, Tensor]] = {}
        trained = self._trained()
        for place, parameter in enumerate(trained if steps else ()):
            whole = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
            if self.is_global_zero:
                states[place] = {name: value.cpu() for name, value in whole.items()}
                states[place]["step"] = steps[0].to("cpu", copy=True)  # a tensor for each, which torch counts up
        groups: list[dict[str, Any]] = []
        places = iter(range(len(trained)))
        for group, members in zip(client.param_groups, self._groups(), strict=True):
            kept = {name: value for name, value in group.items() if name != "params"}
            groups.append(kept | {"params": list(islice(places, len(members)))})
        return {"state": states, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Gives each process its part."""
        from deepspeed.utils import safe_set_local_optimizer_state

        zero: Any = self.optimizers[0]
        (saved,) = checkpoint["optimizer_states"]
        for group, held in zip(zero.optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({k: v for k, v in held.items() if k != "params"})
        if not saved["state"]:
            return
        # not public: the tensors whose states the public functions set, and which have none before the first step
        for flat in zero.fp32_partitioned_groups_flat:
            moments = {name: torch.zeros_like(flat) for name in MOMENTS}
            step = max(state["step"] for state in saved["state"].values())  # less for one that a step did not reach
            zero.optimizer.state[flat] = {"step": step.clone()} | moments
        trained = self._trained()
        for place, state in saved["state"].items():
            for name in MOMENTS:
                part = own_part(state[name], self.global_rank, self.world_size)
                safe_set_local_optimizer_state(trained[place], part.to(self.root_device), name)

    def _groups(self) -> list[list[torch.nn.Parameter]]:
        """The optimiser's groups: `training.optimizer` makes them so."""
        assert self.lightning_module is not None
        return [group for group in decaying(self.lightning_module) if group]

    def _trained(self) -> list[torch.nn.Parameter]:
        """In the order in which the optimiser numbers them."""
        return [parameter for group in self._groups() for parameter in group]


def own_part(whole: Tensor, rank: int, world: int) -> Tensor:
    """A process's part of a tensor, as ZeRO-3 cuts it: flat, in equal parts, the last filled up with zeros."""
    size = -(-whole.numel() // world)
    flat = torch.nn.functional.pad(whole.flatten(), (0, size * world - whole.numel()))
    return flat[size * rank : size * (rank + 1)]


def check_device() -> None:
    """UserError where there is no CUDA device, on which alone Lightning runs DeepSpeed."""
    if not torch.cuda.is_available():
        raise UserError(
            "cluster.strategy=deepspeed_zero3 trains on CUDA devices, and this machine has none: choose cluster=fsdp, "
            "or cluster=ddp"
        )


def clip_parts(parameters: Sequence[torch.nn.Parameter], most: float | None) -> Tensor:
    """As `spacer.training.tree_module.clip_gradients`, of gradients of which each process has a part."""
    from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

    parts = []
    for parameter in parameters:
        part = safe_get_local_grad(parameter)
        size: Any = parameter
        part[max(0, size.ds_numel - part.numel() * collectives.rank()) :] = (
            0  # DeepSpeed fills the last part with anything
        )
        parts.append(part)
    norm = collectives.add(collectives.squares(parts)).sqrt().to(parts[0].dtype)
    factor = 1.0 if most is None else (most / (norm + 1e-6)).clamp(max=1.0)  # as torch's
    for parameter, part in zip(parameters, parts, strict=True):
        safe_set_local_grad(parameter, part * factor)
    return norm
