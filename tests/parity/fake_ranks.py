"""What a rank of many holds of a model of its real size: `python -m tests.parity.fake_ranks RANKS OVERRIDE…`.

The other ranks are not there (a process group whose collectives do nothing), and neither are the numbers (fake
tensors). Prints bytes as JSON: of weights, of gathered weights in a rollout, and of gradients after a backward pass.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode  # private, and the only one: torch.compile's own
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the process group "fake"
from transformers import AutoModelForImageTextToText

from spacer.distributed.sharding import gathered, shard
from spacer.planning.memory import memory_of
from spacer.planning.setup import setup_of, work_of
from spacer.planning.sizes import config_of, read_sizes
from tests.parity.conftest import composed

TOKENS = 64


def bytes_of(tensors: Iterable[Any]) -> int:
    """Of tensors, or of this rank's parts of them."""
    mine: list[Tensor] = [x.to_local() if hasattr(x, "to_local") else x for x in tensors]
    return sum(x.numel() * x.element_size() for x in mine)


def main() -> None:
    """Compares the plan with what the rank holds."""
    ranks, *overrides = sys.argv[1:]
    settings = composed("stage=plan", "cluster.strategy=fsdp", f"cluster.devices={ranks}", *overrides)
    sizes, setup = read_sizes(settings.model), setup_of(settings)
    planned = memory_of(sizes, work_of(settings, sizes), setup).parts
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=int(ranks))
    mesh = init_device_mesh("cpu", (int(ranks),))
    with contextlib.redirect_stdout(io.StringIO()), FakeTensorMode():
        model: Any = AutoModelForImageTextToText.from_config(config_of(settings.model), dtype=torch.float32)
        shard(model, mesh, torch.bfloat16)
        weights = bytes_of(model.parameters())
        with gathered(model) as whole:
            in_rollout = bytes_of(whole.parameters())
        ids = torch.zeros(1, TOKENS, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16):
            model(input_ids=ids, position_ids=torch.arange(TOKENS).expand(3, 1, TOKENS)).logits.sum().backward()
        text = [p for name, p in model.named_parameters() if "visual" not in name]
        gradients = bytes_of(p.grad for p in text if p.grad is not None)
    found = {"weights": weights, "gathered": in_rollout, "gradients": gradients, "text": bytes_of(text)}
    rollout = {"weights": planned["weights"]["rollout"], "gathered": planned["weights_gathered"]["rollout"]}
    print(json.dumps({"found": found, "planned": rollout | {"gradients": planned["gradients"]["backward"]}}))


if __name__ == "__main__":
    main()
