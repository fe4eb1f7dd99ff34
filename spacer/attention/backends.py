"""Which attention kernels a run uses, by what its device and its environment offer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from spacer.attention.interface import WINDOWS
from spacer.config.choices import Computation, DecodingLoop
from spacer.config.derived import computes_in_16_bits
from spacer.config.load import ConfigError
from spacer.config.settings import Settings
from spacer.cpu.products import onednn_is_faster

PLAIN = "plain"  # in place of rows and decoding, where there are no trees
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttentionChoice:
    """`vision` is a name of transformers, `rows` one of `spacer.attention.rows.row_attention`, `decoding` one of
    `spacer.attention.kv_cache.LeafCache`, or graph (`spacer.rollout.static`). Both are `PLAIN` without trees."""

    vision: str
    rows: str
    decoding: str


def choose_attention(settings: Settings, computation: Computation = Computation.tree) -> AttentionChoice:
    """What `model.attn_implementation` comes to here, said in the log. Computed plainly, it is transformers' own.

    Raises:
        ConfigError: it asks for what runs on CUDA alone, and there is no CUDA device.
    """
    device = device_type(settings.cluster.accelerator)
    asked = settings.model.attn_implementation
    if device != "cuda" and asked in ("flash_attention_2", "flex_attention"):
        raise ConfigError(
            [f"model.attn_implementation={asked} needs a CUDA device, and this run is on {device}: choose auto or sdpa"]
        )
    if device != "cuda" and settings.model.decoding == DecodingLoop.graph:
        raise ConfigError([f"model.decoding=graph needs a CUDA device, and this run is on {device}: choose eager"])
    if computation == Computation.plain:
        log.info("attention on %s: as transformers has it (%s)", device, asked)
        return AttentionChoice(asked, PLAIN, PLAIN)
    narrow = computes_in_16_bits(settings)
    rows = {"cpu": "blocks", "cuda": "flex"}.get(device, "masked") if asked != "sdpa" else "masked"
    flash = asked == "flash_attention_2" or (
        asked == "auto" and device == "cuda" and narrow and find_spec("flash_attn") is not None
    )
    windows = WINDOWS if asked == "auto" else "sdpa"
    decoding = "flash_attn" if flash else "torch"
    if settings.model.decoding == DecodingLoop.graph:
        decoding = "graph"
    choice = AttentionChoice("flash_attention_2" if flash else windows, rows, decoding)
    log.info("attention on %s: %s (vision), %s (packed rows)", device, choice.vision, choice.rows)
    log.info("attention while decoding: %s", choice.decoding)
    if device == "cpu" and onednn_is_faster():
        log.info("products of layers, in float32: oneDNN")
    return choice


def device_type(accelerator: str) -> str:
    """The kind of device that Lightning will choose for `cluster.accelerator`."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"
