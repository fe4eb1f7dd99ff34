"""The parts of `tests/gpu.sh` that measure in Python: each is a function of a size, and returns what becomes JSON.

Shape suffixes: L tokens of a row, R rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from spacer.attention.interface import TREE, WINDOWS
from spacer.attention.rows import row_attention
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.logps import row_logps
from spacer.models.selfcheck import LIMITS
from spacer.models.unwrap import text_model
from spacer.models.vision import VisionFeatures
from spacer.planning.sizes import config_of
from spacer.rollout.completion import Rollout
from spacer.rollout.decode import Sampler
from spacer.rollout.sampling import Decoding
from spacer.tree.forest import Completion, Forest, Segment
from spacer.tree.packing import PackedRow, pack
from tests.parity.conftest import composed
from tests.parity.families import make

Figures = dict[str, Any]
KEY_BIAS = 26.8  # its spread over channels in Qwen2.5-7B


@dataclass(frozen=True)
class Size:
    """What is measured, on which device."""

    device: torch.device
    dtype: torch.dtype
    models: tuple[str, ...]  # of conf/model; none for a tiny one
    lengths: tuple[int, ...]
    heads: tuple[int, int, int]  # of queries, of keys, and their channels
    rows: tuple[int, ...]
    prompt: int
    tokens: int


CARD = Size(
    torch.device("cuda"),
    torch.bfloat16,
    ("qwen3b", "qwen7b"),
    (2048, 7168, 16384),
    (28, 4, 128),
    (8, 32, 64),
    1500,
    128,
)
DRY = Size(torch.device("cpu"), torch.float32, (), (48, 96), (4, 2, 32), (2, 4), 40, 20)


class NoEnd:
    """A vocabulary in which nothing ends a completion, so that all are of one length."""

    end_ids, pad_id, prompt_opens = (-1,), 0, ""

    def decode(self, ids_C: Tensor) -> str:
        """Nothing: texts are not looked at."""
        return ""


def versions(size: Size) -> Figures:
    """What everything else was measured with."""
    found: Figures = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": str(size.device)}
    if size.device.type == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "bytes": card.total_memory, "capability": f"{card.major}.{card.minor}"}
    for package in ("transformers", "triton", "flash-attn", "vllm", "trl", "peft", "pytorch-lightning"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def flex(size: Size) -> Figures:
    """FlexAttention over rows of several lengths, forward and backward: seconds, TFLOP/s of the pairs that are seen,
    bytes, and the error against the dense mask in float32."""
    return {str(length): _flex_at(size, length) for length in size.lengths}


def _flex_at(size: Size, length: int) -> Figures:
    queries, keys, channels = size.heads
    row = _row(length)
    generator = torch.Generator(size.device).manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, len(row), channels, generator=generator, device=size.device, dtype=size.dtype)
        for heads in (queries, keys, keys)
    )
    trained = size.device.type == "cuda"  # on a CPU it has no backward pass
    attention = row_attention(row, "flex", size.device)
    given = [x.requires_grad_(trained) for x in (q, k, v)]
    out = attention(0, *given, channels**-0.5)
    weight = torch.randn(out.shape, generator=generator, device=size.device, dtype=size.dtype)

    def forward() -> None:
        attention(0, *given, channels**-0.5)

    def both() -> None:
        torch.autograd.grad(attention(0, *given, channels**-0.5), given, weight)

    below_L = row.below_L
    pairs = int((below_L - torch.arange(len(row))).sum())
    floating = 4 * pairs * channels * queries
    found: Figures = {"tokens": len(row), "pairs": pairs}
    exact = [x.detach().float().requires_grad_(trained) for x in given]
    masked = row_attention(row, "masked", size.device)(0, *exact, channels**-0.5)
    found["error"] = _off(out, masked)
    with torch.no_grad():
        found["forward_s"] = _seconds(forward, size.device)
    found["forward_tflops"] = floating / found["forward_s"] / 1e12
    if trained:
        mine = torch.autograd.grad(out, given, weight)
        theirs = torch.autograd.grad(masked, exact, weight.float())
        found["gradient_error"] = max(_off(a, b) for a, b in zip(mine, theirs, strict=True))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found["both_s"] = _seconds(both, size.device)
        found["both_tflops"] = 3.5 * floating / found["both_s"] / 1e12
        found["both_bytes"] = torch.cuda.max_memory_allocated() - before
    return found


def decode(size: Size) -> Figures:
    """Milliseconds a token by loop and number of rows, and what one token launches and waits for."""
    found: Figures = {}
    for name, model in _models(size, size.models[:1]):
        for rows in size.rows:
            for loop in ("torch", "graph"):
                found[f"{name} {rows} {loop}"] = _decode_at(size, model, rows, loop)
    return found


def _decode_at(size: Size, model: Any, rows: int, loop: str) -> Figures:
    forest = _forest(size.prompt, 2)

    def write(tokens: int) -> Rollout:
        compute = ComputeOptions(_rows_of(size), 1 << 15, decoding=loop)
        seeds = [[0, n] for n in range(rows)]
        return Sampler(model, NoEnd(), compute, Decoding(1.0, 0.95, tokens)).sample(forest, VisionFeatures(), seeds)

    few, many = size.tokens // 4, size.tokens
    times = {tokens: _seconds(lambda tokens=tokens: write(tokens), size.device, 3) for tokens in (few, many)}
    found: Figures = {"ms_a_token": (times[many] - times[few]) / (many - few) * 1e3, "whole_s": times[many]}
    if size.device.type == "cuda":
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as told:
            write(few)
        events = {event.key: event.count for event in told.key_averages()}
        for what, words in {
            "kernel_launches": ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx"),
            "graph_launches": ("cudaGraphLaunch",),
            "waits": ("cudaStreamSynchronize", "cudaDeviceSynchronize"),
        }.items():
            found[f"{what}_a_token"] = sum(events.get(word, 0) for word in words) / few
    return found


def drift(size: Size) -> Figures:
    """How far log-probabilities of sampling and of training are apart, with keys that share a large bias."""
    found: Figures = {}
    for name, model in _models(size, size.models[:1]):
        with torch.no_grad():
            for layer in text_model(model).layers:
                bias = layer.self_attn.k_proj.bias
                bias.copy_(KEY_BIAS * torch.randn(bias.shape, generator=torch.Generator().manual_seed(1)))
        for loop in ("torch", "graph"):
            apart = _drift_of(size, model, loop)
            found[f"{name} {loop}"] = {"mean": apart, "limit": LIMITS[size.dtype], "holds": apart <= LIMITS[size.dtype]}
    return found


def large(size: Size) -> Figures:
    """The largest model in 16 bits: a rollout, and the log-probabilities of a reference, with bytes at most."""
    found: Figures = {}
    for name, model in _models(size, size.models[1:]):
        if size.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found[name] = {"drift": _drift_of(size, model, "graph"), "seconds": time.perf_counter() - start}
        if size.device.type == "cuda":
            found[name]["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _drift_of(size: Size, model: Any, loop: str) -> float:
    forest, compute = _forest(size.prompt, 2), ComputeOptions(_rows_of(size), 1 << 15, decoding=loop)
    seeds = [[0, n] for n in range(8)]
    sampler = Sampler(model, NoEnd(), compute, Decoding(1.0, 0.95, size.tokens))
    rollout = sampler.sample(forest, VisionFeatures(), seeds)
    parts = []
    with torch.no_grad():
        for row in pack(forest, rollout.completions(4), compute.row_tokens):
            logps = row.unpack(row_logps(model, row, RowContext(VisionFeatures(), compute)))
            parts.append((logps - rollout.logp_BC[list(row.completions)]).abs().flatten())
    return float(torch.cat(parts).mean())


def _models(size: Size, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Untrained models of published sizes, one after the other; a tiny one where there are none."""
    for name in names:
        from transformers import AutoModelForImageTextToText

        config = config_of(composed("stage=plan", f"model={name}", "model.name_or_path=nowhere").model)
        torch.manual_seed(0)
        with size.device:
            model = AutoModelForImageTextToText.from_config(config, dtype=size.dtype)
        model.set_attn_implementation({"text_config": TREE, "vision_config": WINDOWS})
        yield name, model.eval()
        del model
        torch.cuda.empty_cache()
    if not size.models:
        yield "tiny", make("qwen2_5_vl", size.dtype, 32).to(size.device)


def _rows_of(size: Size) -> str:
    return "flex" if size.device.type == "cuda" else "masked"


def _segment(length: int, start: int, parent: int | None) -> Segment:
    ids = torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(start + length))
    return Segment(ids, (start + torch.arange(length)).expand(3, -1), torch.full((length,), -1), parent)


def _forest(prompt: int, questions: int) -> Forest:
    """Questions of an eighth of the prompt's length about what it begins with."""
    asked = max(1, prompt // 8)
    root = _segment(prompt - asked, 0, None)
    return Forest(
        (root, *(_segment(asked + n, prompt - asked, 0) for n in range(questions))), tuple(range(1, questions + 1))
    )


def _row(length: int) -> PackedRow:
    """Half a prompt, half eight completions of it."""
    forest = _forest(length // 2, 2)
    written = [Completion(n % 2, torch.zeros(length // 16, dtype=torch.long)) for n in range(8)]
    (row,) = pack(forest, written, 2 * length)
    return row


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().float() - expected.detach()).norm() / expected.detach().norm())


def _seconds(work: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """The median of a few runs, after one that compiles."""
    with _waited(device):
        work()
    taken = []
    for _ in range(repeats):
        with _waited(device):
            start = time.perf_counter()
            work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@contextmanager
def _waited(device: torch.device) -> Iterator[None]:
    yield
    if device.type == "cuda":
        torch.cuda.synchronize()


PARTS = {part.__name__: part for part in (versions, flex, decode, drift, large)}
