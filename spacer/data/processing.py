"""Samples → `Prompt`s (token ids, positions, patches) → `PromptBatch`es. Runs in data workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

from spacer.data.decode import MediaError, read_image, read_video
from spacer.data.prompts import prompt_text
from spacer.data.samples import Fault, Sample
from spacer.positions import mrope_positions
from spacer.settings import DatasetSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


@dataclass(frozen=True)
class Prompt:
    """A sample made ready for the model. `frame_HWC` (uint8) is one picture of it, for people to look at."""

    sample: Sample
    ids_L: Tensor
    positions_3L: Tensor
    pixels_PD: Tensor
    grid_thw: Tensor
    target_ids: Tensor | None
    frame_HWC: np.ndarray
    shuffled_pixels_PD: Tensor | None = None


# Not a dataclass: Lightning's half- and double-precision plugins take those apart and refuse frozen ones. The model
# casts patches to its own precision.
@attrs.frozen
class PromptBatch:
    """Prompts padded on the left to one length L, patches of all of them in one row.

    `targets_BC` and `target_mask_BC` are completions to imitate, padded on the right; None outside of sft.
    `faults` are samples that could not be read and are not among the B.
    """

    samples: tuple[Sample, ...]
    frames: tuple[np.ndarray, ...]
    ids_BL: Tensor
    mask_BL: Tensor
    positions_3BL: Tensor
    image_pixels: Tensor | None
    image_grids: Tensor | None
    video_pixels: Tensor | None
    video_grids: Tensor | None
    targets_BC: Tensor | None
    target_mask_BC: Tensor | None
    shuffled_video_pixels: Tensor | None
    faults: tuple[Fault, ...]
    reuse: int = 0  # how often this batch's rollout has been trained on before

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PromptBatch:
        """The batch with all tensors on `device`; Lightning calls this."""
        moved: dict[str, Any] = {
            entry.name: value.to(device, non_blocking=non_blocking)
            for entry in attrs.fields(PromptBatch)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }
        return attrs.evolve(self, **moved)

    def shuffled(self) -> PromptBatch:
        """The same questions about the same frames in random order (T-GRPO); images stay as they are."""
        return attrs.evolve(self, video_pixels=self.shuffled_video_pixels)


def prepare(
    sample: Sample,
    processor: Qwen2_5_VLProcessor,
    settings: DatasetSettings,
    *,
    tokens_per_second: float,
    target: str | None = None,
    shuffle: np.random.Generator | None = None,
) -> Prompt | Fault:
    """Decodes the sample's media and processes its prompt; what cannot be read becomes a `Fault`.

    With `shuffle`, the frames of a video are also processed in an order that it draws.
    """
    text = prompt_text(sample, settings.prompts)
    turn: Any = {"role": "user", "content": [{"type": sample.data_type}, {"type": "text", "text": text}]}
    chat: Any = processor.apply_chat_template([turn], add_generation_prompt=True)
    shuffled = None
    seconds: tuple[float, ...] = ()
    try:
        if sample.data_type == "video":
            video = read_video(sample.path, settings.video)
            frame = video.frames_THWC[len(video.frames_THWC) // 2]
            inputs = _process_video(processor, chat, video.frames_THWC, video.indices, video, settings)
            grid, pixels = inputs["video_grid_thw"], inputs["pixel_values_videos"]
            seconds = tuple(float(s) for s in inputs["second_per_grid_ts"])
            if shuffle is not None:
                order = shuffle.permutation(len(video.frames_THWC))
                mixed = _process_video(processor, chat, video.frames_THWC[order], video.indices, video, settings)
                shuffled = mixed["pixel_values_videos"]
        else:
            image = read_image(sample.path)
            frame = np.asarray(image)
            size = {"shortest_edge": 4 * 28 * 28, "longest_edge": settings.image_max_pixels}
            inputs = processor(text=[chat], images=[image], images_kwargs={"size": size}, return_tensors="pt")
            grid, pixels = inputs["image_grid_thw"], inputs["pixel_values"]
    except MediaError as error:
        return Fault(sample.id, "unreadable media", str(error))
    except ValueError as error:  # of the processor: a picture too thin, or its own marks in a question
        return Fault(sample.id, "cannot be processed", f"{sample.path}: {error}")
    ids = inputs["input_ids"][0]
    if len(ids) > settings.max_prompt_length:
        detail = f"{len(ids)} tokens, over dataset.max_prompt_length={settings.max_prompt_length}"
        detail += "; fewer or smaller frames (dataset.video) shorten it"
        return Fault(sample.id, "prompt too long", detail)
    is_video = sample.data_type == "video"
    positions = mrope_positions(
        inputs["mm_token_type_ids"][0],
        image_grids=() if is_video else grid.tolist(),
        video_grids=grid.tolist() if is_video else (),
        seconds_per_grid=seconds,
        merge=processor.video_processor.merge_size,
        tokens_per_second=tokens_per_second,
    )
    target_ids = None
    if target is not None:
        eos = processor.tokenizer.eos_token_id
        target_ids = torch.tensor([*processor.tokenizer(target)["input_ids"], eos])
    return Prompt(sample, ids, positions, pixels, grid, target_ids, frame, shuffled)


def _process_video(processor, chat, frames, indices, video, settings):  # type: ignore[no-untyped-def]
    metadata = VideoMetadata(
        total_num_frames=video.total_frames,
        fps=video.fps,
        duration=video.total_frames / video.fps,
        frames_indices=list(indices),
        height=frames.shape[1],
        width=frames.shape[2],
    )
    video_settings = {
        "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": settings.video.max_pixels},
        "do_sample_frames": False,  # decord sampled them
        "cap_pixels_per_frame": False,  # the bound is settings.video.max_pixels, a frame
        "video_metadata": [metadata],
    }
    return processor(
        text=[chat],
        videos=[torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)],
        videos_kwargs=video_settings,
        return_tensors="pt",
    )


def collate(items: Sequence[Prompt | Fault], pad_id: int) -> PromptBatch:
    """Joins prompts into a batch; an all-faulty batch has B = 0."""
    prompts = [item for item in items if isinstance(item, Prompt)]
    faults = tuple(item for item in items if isinstance(item, Fault))
    longest = max((len(prompt.ids_L) for prompt in prompts), default=0)
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    positions = torch.zeros(3, len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        length = len(prompt.ids_L)
        ids[row, longest - length :] = prompt.ids_L
        mask[row, longest - length :] = 1
        positions[:, row, longest - length :] = prompt.positions_3L
    images = [p for p in prompts if p.sample.data_type == "image"]
    videos = [p for p in prompts if p.sample.data_type == "video"]
    targets, target_mask = _targets(prompts, pad_id)
    return PromptBatch(
        samples=tuple(prompt.sample for prompt in prompts),
        frames=tuple(prompt.frame_HWC for prompt in prompts),
        ids_BL=ids,
        mask_BL=mask,
        positions_3BL=positions,
        image_pixels=_cat([p.pixels_PD for p in images]),
        image_grids=_cat([p.grid_thw for p in images]),
        video_pixels=_cat([p.pixels_PD for p in videos]),
        video_grids=_cat([p.grid_thw for p in videos]),
        targets_BC=targets,
        target_mask_BC=target_mask,
        shuffled_video_pixels=_cat([p.shuffled_pixels_PD for p in videos if p.shuffled_pixels_PD is not None]),
        faults=faults,
    )


def _cat(tensors: list[Tensor]) -> Tensor | None:
    return torch.cat(tensors) if tensors else None


def _targets(prompts: list[Prompt], pad_id: int) -> tuple[Tensor | None, Tensor | None]:
    given = [prompt.target_ids for prompt in prompts if prompt.target_ids is not None]
    if not given:
        return None, None
    longest = max(len(ids) for ids in given)
    targets = torch.full((len(given), longest), pad_id)
    mask = torch.zeros(len(given), longest, dtype=torch.bool)
    for row, ids in enumerate(given):
        targets[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return targets, mask
