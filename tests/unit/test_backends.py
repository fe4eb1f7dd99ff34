"""Which kernels attend, by device, precision and what is installed. No test needs the device that it is about."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from spacer.attention import backends
from spacer.attention.backends import AttentionChoice, choose_attention, device_type
from spacer.attention.interface import WINDOWS
from spacer.attention.rows import row_attention
from spacer.config.choices import DecodingLoop
from spacer.config.load import ConfigError
from spacer.config.settings import Settings
from spacer.data.processing import collate
from spacer.models.vision import encode_vision
from spacer.stages.trainers import trainer_options
from spacer.tree.forest import Forest, Segment
from spacer.tree.packing import pack
from tests.parity.families import make, make_prompts
from tests.unit.configs import load


def settings(attention: str, accelerator: str = "auto", precision: str = "32-true", dtype: str = "float32") -> Settings:
    """A run's settings; changed past `load`, whose rules refuse some of them here or in this stage."""
    base = load(cluster__accelerator=accelerator)
    return replace(
        base,
        model=replace(base.model, attn_implementation=attention, dtype=dtype),
        trainer=replace(base.trainer, precision=precision),
    )


def offer(monkeypatch: pytest.MonkeyPatch, *devices: str, packages: tuple[str, ...] = ()) -> None:
    """Makes the machine one with these devices and packages, and no other."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in devices)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in devices)
    monkeypatch.setattr(backends, "find_spec", lambda name: object() if name in packages else None)


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
@pytest.mark.parametrize(("asked", "rows"), [("auto", "blocks"), ("sdpa", "masked")])
def test_on_a_cpu(asked: str, rows: str, accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, packages=("flash_attn",))
    vision = WINDOWS if asked == "auto" else "sdpa"
    for precision in ("32-true", "bf16-mixed"):
        assert choose_attention(settings(asked, accelerator, precision)) == AttentionChoice(vision, rows, "torch")


def test_a_cpu_that_is_asked_for_is_used_on_a_machine_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "cuda", packages=("flash_attn",))
    assert choose_attention(settings("auto", "cpu", "bf16-mixed")) == AttentionChoice(WINDOWS, "blocks", "torch")


@pytest.mark.parametrize("asked", ["flex_attention", "flash_attention_2"])
@pytest.mark.parametrize(
    ("devices", "accelerator", "named"), [((), "auto", "cpu"), (("cuda",), "cpu", "cpu"), (("mps",), "auto", "mps")]
)
def test_what_runs_on_cuda_alone_is_refused_elsewhere_with_a_remedy(
    asked: str, devices: tuple[str, ...], accelerator: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, *devices, packages=("flash_attn",))
    with pytest.raises(ConfigError) as caught:
        choose_attention(settings(asked, accelerator))
    (problem,) = caught.value.problems
    assert problem.startswith(f"model.attn_implementation={asked} needs a CUDA device, and this run is on {named}")
    assert problem.endswith("choose auto or sdpa")


@pytest.mark.parametrize(
    ("asked", "precision", "dtype", "packages", "vision", "rows"),
    [
        ("auto", "bf16-mixed", "float32", ("flash_attn",), "flash_attention_2", "flex"),
        ("auto", "bf16-true", "float32", ("flash_attn",), "flash_attention_2", "flex"),
        ("auto", "32-true", "bfloat16", ("flash_attn",), "flash_attention_2", "flex"),
        ("auto", "32-true", "float32", ("flash_attn",), WINDOWS, "flex"),  # which flash-attn does not compute in
        ("auto", "bf16-mixed", "float32", (), WINDOWS, "flex"),
        ("flash_attention_2", "bf16-mixed", "float32", ("flash_attn",), "flash_attention_2", "flex"),
        ("flex_attention", "bf16-mixed", "float32", ("flash_attn",), "sdpa", "flex"),
        ("sdpa", "bf16-mixed", "float32", ("flash_attn",), "sdpa", "masked"),
    ],
)
def test_on_cuda(
    asked: str,
    precision: str,
    dtype: str,
    packages: tuple[str, ...],
    vision: str,
    rows: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, "cuda", packages=packages)
    decoding = "flash_attn" if vision == "flash_attention_2" else "torch"
    chosen = settings(asked, "auto", precision, dtype)
    assert choose_attention(chosen) == AttentionChoice(vision, rows, decoding)
    captured = replace(chosen, model=replace(chosen.model, decoding=DecodingLoop.graph))
    assert choose_attention(captured) == AttentionChoice(vision, rows, "graph")


def test_graphs_are_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "cpu")
    asked = settings("auto")
    with pytest.raises(ConfigError, match=r"model\.decoding=graph needs a CUDA device, and this run is on cpu"):
        choose_attention(replace(asked, model=replace(asked.model, decoding=DecodingLoop.graph)))


def test_on_other_devices_rows_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "mps")
    assert choose_attention(settings("auto", precision="bf16-mixed")) == AttentionChoice(WINDOWS, "masked", "torch")


def test_the_choice_is_said_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    offer(monkeypatch, "cuda")
    with caplog.at_level(logging.INFO, logger="spacer.attention.backends"):
        choose_attention(settings("auto"))
    assert caplog.messages == [
        "attention on cuda: spacer_flash_windows (vision), flex (packed rows)",
        "attention while decoding: torch",
    ]


@pytest.mark.parametrize(("faster", "device", "said"), [(True, "cpu", 1), (False, "cpu", 0), (True, "cuda", 0)])
def test_products_by_onednn_are_said_in_the_log(
    faster: bool, device: str, said: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offer(monkeypatch, device)
    monkeypatch.setattr(backends, "onednn_is_faster", lambda: faster)
    with caplog.at_level(logging.INFO, logger="spacer.attention.backends"):
        choose_attention(settings("auto"))
    assert caplog.messages.count("products of layers, in float32: oneDNN") == said


@pytest.mark.parametrize(
    ("accelerator", "devices", "expected"),
    [
        ("auto", ("cuda", "mps"), "cuda"),
        ("auto", ("mps",), "mps"),
        ("auto", (), "cpu"),
        ("gpu", ("cuda",), "cuda"),
        ("gpu", ("mps",), "mps"),
        ("cuda", ("cuda", "mps"), "cuda"),
        ("mps", ("cuda", "mps"), "mps"),
        ("cpu", ("cuda", "mps"), "cpu"),
    ],
)
def test_the_kind_of_device(
    accelerator: str, devices: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, *devices)
    assert device_type(accelerator) == expected


def test_every_choice_on_a_cpu_is_one_that_rows_can_be_attended_with(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    text = Segment(torch.tensor([1, 2]), torch.arange(2).expand(3, -1), torch.tensor([-1, -1]))
    (row,) = pack(Forest((text,), (0,)), None, 10)
    q = torch.randn(1, 2, 2, 8)
    results = []
    for asked in ("auto", "sdpa"):
        attention = row_attention(row, choose_attention(settings(asked)).rows, torch.device("cpu"))
        results.append(attention(0, q, q, q, 1.0))
    torch.testing.assert_close(*results)


def test_the_lengths_of_windows_are_read_from_the_device_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("qwen2_vl", torch.float32)
    reads: list[int] = []
    diff = torch.Tensor.diff
    monkeypatch.setattr(torch.Tensor, "diff", lambda x, *rest, **named: reads.append(1) or diff(x, *rest, **named))
    (prompt,) = make_prompts("qwen2_vl", model, np.random.default_rng(0), "video", 1, torch.float32)
    with torch.no_grad():
        encode_vision(model, collate([prompt]).pictures)
    assert len(model.model.visual.blocks) > len(reads) == 1


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cpu", "warn"), (None, "cuda", False), (True, "cuda", "warn"), (False, "cpu", False)],
)
def test_deterministic_kernels_are_used_on_cpus_or_where_asked_for(
    asked: bool | None, device: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, device)
    chosen = settings("auto")
    chosen = replace(chosen, trainer=replace(chosen.trainer, deterministic=asked))
    assert trainer_options(chosen, trains=True)["deterministic"] == expected
