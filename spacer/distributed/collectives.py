"""What the processes of a run tell one another while they train. A process that is alone tells nothing.

Every function here is called by all processes, in the same order; each gives all of them the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET = 2**25  # entries of gradients that are added up at once


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if world() > 1 else 0


def gather(number: int, device: torch.device) -> list[int]:
    """Each process's number, in the order of the ranks."""
    if world() == 1:
        return [number]
    found = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(world())]
    dist.all_gather(found, torch.tensor([number], device=device))
    return [int(one) for one in found]


def add(values: Tensor) -> Tensor:
    """The sum of the processes' tensors, which are of one shape."""
    if world() == 1:
        return values
    total = values.double()  # counts stay exact, and sums of shares need not mind their order
    dist.all_reduce(total)
    return total.to(values.dtype)


def squares(parts: Sequence[Tensor]) -> Tensor:
    """The sum of the squares of this process's tensors."""
    # on a CPU, a float32 sum of so many is off in its fifth digit, and each way of sharding by another amount
    wide = torch.float64 if parts[0].device.type == "cpu" else torch.float32
    return torch.stack([torch.linalg.vector_norm(part, dtype=wide) for part in parts]).square().sum()


def join(table_NK: Tensor, device: torch.device) -> Tensor:
    """The processes' rows one after the other, in the order of the ranks, on the CPU. N may differ, K may not."""
    if world() == 1:
        return table_NK
    counts = gather(len(table_NK), device)
    padded = table_NK.new_zeros(max(counts), table_NK.shape[1]).to(device)
    padded[: len(table_NK)] = table_NK.to(device)
    found = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(found, padded)
    return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)]).cpu()


def join_texts(texts: Sequence[str], device: torch.device) -> list[str]:
    """The processes' texts one after the other, in the order of the ranks; as good as free where there are none."""
    if world() == 1 or not any(gather(len(texts), device)):
        return list(texts)
    rows = [torch.tensor([[one] for one in text.encode() + b"\0"], dtype=torch.uint8) for text in texts]
    letters = join(torch.cat([torch.zeros(0, 1, dtype=torch.uint8), *rows]), device)
    return bytes(letters.flatten().tolist()).decode().split("\0")[:-1]


def add_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Leaves in every process the sum of the processes' gradients.

    A process whose batch did not reach a parameter counts as a gradient of zero; a parameter that no process reached
    stays without one, which an optimiser passes over.
    """
    held = list(parameters)
    if world() == 1 or not held:
        return
    reached = torch.tensor([parameter.grad is not None for parameter in held], device=held[0].device).int()
    dist.all_reduce(reached, dist.ReduceOp.MAX)
    gradients: list[Tensor] = []
    for parameter, somewhere in zip(held, reached.tolist(), strict=True):
        if somewhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, `_BUCKET` entries together unless one has more."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(one.numel() for one in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
