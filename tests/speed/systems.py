"""A step of GRPO in three systems, on one model, with completions of a fixed length: ours, the released one, TRL's."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from spacer.attention.backends import AttentionChoice
from spacer.attention.interface import WINDOWS
from spacer.config.choices import Checkpointing, Positions
from spacer.config.settings import ModelSettings, ObjectiveSettings, OptimizerSettings, RewardSettings
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Sample
from spacer.models.families import position_rule
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import ModelProbe, probe_model
from spacer.rewards import Scorer
from spacer.training.grpo import GrpoModule
from spacer.training.tree_module import Training

SIDE = 16  # patches: 224 pixels, 64 tokens a pair of frames
TOKENS_A_STEP = (SIDE // 2) ** 2

QUESTION = 46  # tokens of text in a prompt
MODEL = ModelSettings(
    str(Path(__file__).resolve().parents[2] / "spacer/assets/tiny"), gradient_checkpointing=Checkpointing.none
)
OPTIMIZER = OptimizerSettings(learning_rate=1e-6)
ON_CPU = AttentionChoice(WINDOWS, "blocks", "torch")


@dataclass(frozen=True)
class Bench:
    """What is measured on: a model, the kind of device, and ours' attention there. The released algorithm attends as
    PyTorch does, and to pictures with flash-attn where ours does."""

    model: ModelSettings = MODEL
    device: str = "cpu"
    attention: AttentionChoice = ON_CPU


CPU = Bench()


@dataclass(frozen=True)
class Cell:
    """What is measured: tokens of a prompt, completions of a prompt and their length, questions about one video."""

    prompt_tokens: int
    group_size: int
    completion_tokens: int
    questions_per_video: int

    @property
    def video_tokens(self) -> int:
        """Tokens of the prompt that questions about one video share: the video between its two marks."""
        return self.steps * TOKENS_A_STEP + 2

    @property
    def steps(self) -> int:
        """The video's length in pairs of frames."""
        return (self.prompt_tokens - QUESTION) // TOKENS_A_STEP


def prompts(cell: Cell, count: int, model: ModelSettings = MODEL) -> list[Prompt]:
    """Random questions of `QUESTION` tokens, `cell.questions_per_video` of them about each random video."""
    from transformers import AutoConfig

    rng = np.random.default_rng(0)
    config: Any = AutoConfig.from_pretrained(model.name_or_path)
    rule = position_rule(config, Positions.original)
    grid = (cell.steps, SIDE, SIDE)
    found = []
    for n in range(count):
        if n % cell.questions_per_video == 0:
            pixels = torch.from_numpy(rng.normal(size=(cell.steps * SIDE**2, 1176)).astype(np.float32))
        text = torch.from_numpy(rng.integers(300, 550, QUESTION - 2))
        seen = torch.full((cell.steps * TOKENS_A_STEP,), config.video_token_id)
        ends = torch.tensor([config.vision_start_token_id]), torch.tensor([config.vision_end_token_id])
        ids = torch.cat([ends[0], seen, ends[1], text])
        types = 2 * (ids == config.video_token_id).long()
        sample = Sample(
            **{"id": str(n), "problem": "?", "problem_type": "free-form", "options": (), "solution": "a"},
            **{"data_type": "video", "path": Path(str(n // cell.questions_per_video)), "source": "", "scene": ""},
            **{"question_type": "", "reasoning": None, "true_map": None},
        )
        positions = rule.positions(types, [], [grid], [1.0])
        frame = np.zeros((1, 1, 3), np.uint8)
        found.append(Prompt(sample, "video", ids, types, positions, pixels, torch.tensor([grid]), None, frame))
    return found


class System(Protocol):
    """A system to be measured; `questions` are those of one step."""

    questions: int

    def prepared(self) -> Callable[[], None]:
        """Makes ready, and returns the step that is measured."""


@dataclass
class OneBatch:
    """A loader of one batch."""

    batch: PromptBatch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter([self.batch])


def endless(model: ModelSettings) -> ModelProbe:
    """What is read of a model whose completions never end, so that all systems write as many tokens."""
    return replace(probe_model(model), end_ids=(-1,))


@dataclass(frozen=True)
class Plan:
    """How ours is run: questions a rollout, tokens a row, whether the vision tower keeps its activations or computes
    them again."""

    questions: int
    row_tokens: int
    vision_again: bool


class Spacer:
    """A training step as `stage=train` takes it, through Lightning, on batches that are decoded already."""

    def __init__(self, cell: Cell, plan: Plan, bench: Bench = CPU) -> None:
        self.questions = plan.questions
        self._device = bench.device
        self._batch = collate(prompts(cell, plan.questions, bench.model))
        objective = ObjectiveSettings(group_size=cell.group_size, max_completion_length=cell.completion_tokens)
        self._module = GrpoModule(
            load_policy(bench.model, bench.attention.vision).train(),
            load_reference(bench.model, bench.attention.vision),
            endless(bench.model),
            objective,
            Scorer(RewardSettings()),
            ComputeOptions(bench.attention.rows, plan.row_tokens, plan.vision_again, bench.attention.decoding),
            Training(OPTIMIZER, clip=5.0, self_check=False),
            seed=0,
        )

    def prepared(self) -> Callable[[], None]:
        """A trainer about to take one step."""
        trainer = pl.Trainer(
            max_steps=1,
            accelerator=self._device,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return lambda: trainer.fit(self._module, OneBatch(self._batch))


class Released:
    """The published trainer's algorithm: generate with G returned sequences, pixels and prompt repeated G times, policy
    and reference forward on G full rows, logits over the vocabulary at every token; one prompt a step."""

    def __init__(self, cell: Cell, bench: Bench = CPU) -> None:
        from transformers import AutoModelForImageTextToText

        self.questions = 1
        self._cell = cell
        self._device = bench.device
        self._prompt = prompts(replace(cell, questions_per_video=1), 1, bench.model)[0]
        flash = bench.attention.vision == "flash_attention_2"
        self._policy, self._reference = (
            AutoModelForImageTextToText.from_pretrained(
                bench.model.name_or_path,
                dtype=getattr(torch, bench.model.dtype),
                attn_implementation={
                    "text_config": "sdpa",  # on a GPU PyTorch's own flash kernel
                    "vision_config": "flash_attention_2" if flash else "sdpa",
                },
            ).to(bench.device)
            for _ in "12"
        )
        self._policy.train()
        self._reference.requires_grad_(False)
        self._optimizer = torch.optim.AdamW(self._policy.parameters(), lr=OPTIMIZER.learning_rate)

    def prepared(self) -> Callable[[], None]:
        """A step."""
        return self._step

    def _step(self) -> None:
        prompt, group = self._prompt, self._cell.group_size
        with torch.no_grad():
            ids_BL = self._policy.generate(
                **self._inputs(prompt.ids_L[None].to(self._device), 1),
                do_sample=True,
                top_p=0.95,
                top_k=0,
                temperature=1.0,
                num_return_sequences=group,
                min_new_tokens=self._cell.completion_tokens,
                max_new_tokens=self._cell.completion_tokens,
            )
        config, start = self._policy.config, len(prompt.ids_L)
        written = ids_BL[:, start:]
        # a sampled token that stands for a picture would be looked for among the pixels
        written[(written == config.video_token_id) | (written == config.image_token_id)] = 300
        inputs = self._inputs(ids_BL, group)
        logp = self._logps(self._policy, ids_BL, inputs)
        with torch.no_grad():
            reference = self._logps(self._reference, ids_BL, inputs)
        d = reference - logp
        advantages = torch.linspace(-1, 1, group, device=self._device)[:, None]
        loss = -(torch.exp(logp - logp.detach()) * advantages - 0.04 * (torch.exp(d) - d - 1)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._policy.parameters(), 5.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _inputs(self, ids_BL: Tensor, times: int) -> dict[str, Any]:
        assert self._prompt.pixels_PD is not None and self._prompt.grid_thw is not None
        return {
            "input_ids": ids_BL,
            "attention_mask": torch.ones_like(ids_BL),
            "mm_token_type_ids": 2 * (ids_BL == self._policy.config.video_token_id).int(),
            "pixel_values_videos": self._prompt.pixels_PD.repeat(times, 1).to(self._device),
            "video_grid_thw": self._prompt.grid_thw.repeat(times, 1).to(self._device),
            "second_per_grid_ts": [1.0] * times,
        }

    def _logps(self, model: Any, ids_BL: Tensor, inputs: dict[str, Any]) -> Tensor:
        start = len(self._prompt.ids_L)
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        rows = [
            row.log_softmax(-1).gather(1, ids[:, None])[:, 0] for row, ids in zip(logits, ids_BL[:, 1:], strict=True)
        ]
        return torch.stack(rows)[:, start - 1 :]


class Trl:
    """TRL's GRPOTrainer, with each pair of frames as an image; its step includes its own handling of the pictures.

    On a GPU it computes in bfloat16, and samples with vLLM where that is installed."""

    def __init__(self, cell: Cell, questions: int, bench: Bench = CPU) -> None:
        self.questions = questions
        self.engine = "vllm" if bench.device == "cuda" and find_spec("vllm") is not None else "transformers"
        self._cell = cell
        self._bench = bench
        self._processor = probe_model(bench.model).processor

    def prepared(self) -> Callable[[], None]:
        """A trainer about to take one step of `questions` prompts, generated together, trained on one by one."""
        from datasets import Dataset
        from transformers import AutoModelForImageTextToText
        from trl import GRPOConfig, GRPOTrainer

        rng = np.random.default_rng(0)
        steps, group = self._cell.steps, self._cell.group_size
        pictures = [Image.fromarray(rng.integers(0, 255, (14 * SIDE, 14 * SIDE, 3), np.uint8)) for _ in range(steps)]
        text = self._processor.tokenizer.decode(rng.integers(300, 550, 20))
        parts = [{"type": "image", "text": None}] * steps + [{"type": "text", "text": text}]
        rows = [{"prompt": [{"role": "user", "content": parts}], "images": pictures} for _ in range(self.questions)]
        on_gpu, tokens = self._bench.device == "cuda", self._cell.completion_tokens
        sampling: dict[str, Any] = {"generation_kwargs": {"min_new_tokens": tokens}}
        if self.engine == "vllm":
            longest = self._cell.prompt_tokens + tokens
            sampling = {"use_vllm": True, "vllm_mode": "colocate", "generation_kwargs": {"min_tokens": tokens}}
            sampling |= {"vllm_gpu_memory_utilization": 0.3, "vllm_max_model_length": longest + 64}
        arguments = GRPOConfig(
            output_dir="/tmp/spacer_speed_trl",
            per_device_train_batch_size=group,
            gradient_accumulation_steps=self.questions,
            num_generations=group,
            max_completion_length=tokens,
            **sampling,
            top_p=0.95,
            beta=0.04,
            max_steps=1,
            learning_rate=1e-6,
            gradient_checkpointing=False,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        with _silence():
            trainer = GRPOTrainer(
                model=AutoModelForImageTextToText.from_pretrained(
                    self._bench.model.name_or_path, dtype=self._bench.model.dtype
                ),
                reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
                args=arguments,
                train_dataset=Dataset.from_list(rows),
                processing_class=self._processor,
            )

        def run() -> None:
            with _silence():
                trainer.train()

        return run


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
        yield
