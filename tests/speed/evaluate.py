"""What evaluation costs a question: ours, beside the released loop, one question at a time and in its best batches.

    python -m tests.speed.evaluate [--videos N] [--questions N] [--tokens N] [--json FILE]

The released loop decodes, processes, encodes and prefills for each question anew; in batches, for each question of the
batch. All three ask the same questions of the same videos (of 32 frames), with the embedded model in float32, greedily,
positions as transformers has them, and write as many tokens as asked for; the answers must be equal token for token.
Times are of whole runs, model loading left out: ours with its data worker and files, theirs from files to text too.
The last table is what one more question about the same video costs ours: a straight line through 1 to 18 questions.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers import AutoModelForImageTextToText
from transformers.video_utils import VideoMetadata

from spacer.attention.interface import WINDOWS
from spacer.config.choices import Positions
from spacer.config.settings import AskingSettings, ModelSettings, RoomsSettings, VideoSettings
from spacer.data.loading import PromptDataset
from spacer.data.prompts import prompt_text
from spacer.data.samples import Sample, read_maps, read_samples
from spacer.data.scenes import rooms
from spacer.data.video import read_video
from spacer.evaluation.answering import EvaluationRequest
from spacer.evaluation.kept import Answer, Row
from spacer.evaluation.predict import predict
from spacer.models.families import position_rule
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy
from spacer.models.probe import probe_model
from tests.speed.measure import timed
from tests.speed.systems import endless

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = ModelSettings(str(REPOSITORY / "spacer/assets/tiny"), positions=Positions.transformers)
VIDEO = VideoSettings(max_frames=32, fps=1.0, max_pixels=200_704, max_side=448)
BATCHES = (2, 4, 8)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--questions", type=int, default=18, help="of a video")
    parser.add_argument("--tokens", type=int, default=64, help="that each answer has")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    with TemporaryDirectory() as folder:
        result = compare(Path(folder), arguments.videos, arguments.questions, arguments.tokens)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def compare(folder: Path, videos: int, questions: int, tokens: int) -> dict[str, Any]:
    """All systems on the same questions: seconds a question, and whether the answers agree."""
    samples, settings = asked(folder, videos, questions)
    released, spacer = Released(settings, tokens), Spacer(settings, tokens, folder)
    for warm in (released.answers, spacer.answers):
        warm(samples[:2], 2)
    ours: dict[int, dict[str, float]] = {}
    answers: dict[str, str] = {}
    for count in sorted({1, max(1, questions // 3), 2 * questions // 3, questions}):
        some = [sample for i, sample in enumerate(samples) if i % questions < count]
        rows: list[Row] = []
        cpu, wall = timed(partial(_keep, rows, spacer.answers, some, count))
        ours[count] = {"cpu_s": cpu / videos, "wall_s": wall / videos}
        answers = {row["id"]: row["text"] for row in rows}
    systems = {"ours": {name: value / questions for name, value in ours[questions].items()}}
    equal = {}
    for size in (1, *BATCHES):
        # the slow loops are measured on the first video alone: theirs share nothing between videos
        some = samples[:questions]
        texts: list[str] = []
        cpu, wall = timed(partial(_keep, texts, released.answers, some, size))
        systems[f"released, {size} at once"] = {"cpu_s": cpu / questions, "wall_s": wall / questions}
        equal[size] = sum(answers[sample.id] == text for sample, text in zip(some, texts, strict=True)) / questions
    counts = np.array(sorted(ours))
    slope, start = np.polyfit(counts, [ours[count]["wall_s"] for count in counts], 1)
    return {
        "videos": videos,
        "questions_per_video": questions,
        "answer_tokens": tokens,
        "seconds_per_question": systems,
        "equal_answers": equal,
        "seconds_per_video": {str(count): ours[count] for count in counts},
        "one_more_question_s": slope,
        "first_s": start,
    }


def _keep(found: list[Any], run: Callable[..., list[Any]], *arguments: Any) -> None:
    found += run(*arguments)


def asked(folder: Path, videos: int, questions: int) -> tuple[list[Sample], RoomsSettings]:
    """So many questions about each of the videos of 32 seconds."""
    prompts = OmegaConf.load(REPOSITORY / "conf/dataset/prompts/default.yaml")
    settings = RoomsSettings(
        root=str(folder / "rooms"),
        train_scenes=max(videos, questions),
        heldout_scenes=1,
        questions_per_scene=6,
        seconds=32.0,
        video_fps=1,
        video=VIDEO,
        max_prompt_length=16_384,
        prompts={str(name): str(text) for name, text in prompts.items()},
    )
    made = rooms.build(settings)
    pool, _ = read_samples(made / "train.jsonl", made, read_maps(made / "cognitive_map.jsonl"))
    paths = list(dict.fromkeys(sample.path for sample in pool))[:videos]
    texts = list({sample.problem: sample for sample in pool}.values())
    found = [
        replace(texts[(number * questions + i) % len(texts)], id=f"{number}.{i}", path=path, scene=path.stem)
        for number, path in enumerate(paths)
        for i in range(questions)
    ]
    return found, settings


class Spacer:
    """Ours, as stage=evaluate asks: data workers, batches by tokens, answers on disk."""

    def __init__(self, settings: RoomsSettings, tokens: int, folder: Path) -> None:
        self._settings = settings
        self._tokens = tokens
        self._folder = folder
        self._processor = probe_model(MODEL).processor
        self._policy = load_policy(MODEL, WINDOWS).eval()

    def answers(self, samples: Sequence[Sample], run: int) -> list[Row]:
        """The answers; `run` names the file that they are written to."""
        rule = position_rule(self._policy.config, MODEL.positions)
        request = EvaluationRequest(
            probe=endless(MODEL),
            dataset=PromptDataset(samples, self._processor, self._settings, rule=rule),
            how=AskingSettings(max_new_tokens=self._tokens),
            seed=0,
            compute=ComputeOptions("blocks", MODEL.row_tokens),
            self_check=False,
            row_of=_text_row,
            row_of_fault=lambda item, fault: {"id": item.id, "text": str(fault)},
        )
        path = self._folder / f"{len(samples)}_{run}.jsonl"
        return predict({"accelerator": "cpu", "enable_model_summary": False}, self._policy, request, "", path)


def _text_row(item: Sample, answer: Answer) -> Row:
    return {"id": item.id, "text": answer.texts[0]}


class Released:
    """The released loop with transformers' own generate."""

    def __init__(self, settings: RoomsSettings, tokens: int) -> None:
        self._settings = settings
        self._tokens = tokens
        self._processor: Any = probe_model(MODEL).processor
        self._model: Any = AutoModelForImageTextToText.from_pretrained(MODEL.name_or_path, dtype=torch.float32).eval()
        self._model.generation_config.eos_token_id = None  # every answer is as long

    @torch.no_grad()
    def answers(self, samples: Sequence[Sample], at_once: int) -> list[str]:
        """The answers, so many questions at once; each decodes its video anew."""
        texts: list[str] = []
        for start in tqdm(range(0, len(samples), at_once), desc=f"released, {at_once} at once"):
            inputs = self._inputs(samples[start : start + at_once])
            ids = self._model.generate(**inputs, max_new_tokens=self._tokens, do_sample=False)
            new = ids[:, inputs["input_ids"].shape[1] :]
            texts += self._processor.batch_decode(new, skip_special_tokens=True)
        return texts

    def _inputs(self, samples: Sequence[Sample]) -> Any:
        chats, videos, metadata = [], [], []
        for sample in samples:
            video = read_video(sample.path, self._settings.video)
            text = prompt_text(sample, self._settings.prompts)
            turn: Any = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}
            chats.append(self._processor.apply_chat_template([turn], add_generation_prompt=True))
            videos.append(torch.from_numpy(video.frames_THWC).permute(0, 3, 1, 2))
            metadata.append(
                VideoMetadata(total_num_frames=video.total_frames, fps=video.fps, frames_indices=list(video.indices))
            )
        return self._processor(
            text=chats,
            videos=videos,
            padding=True,
            padding_side="left",
            videos_kwargs={
                "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": VIDEO.max_pixels},
                "do_sample_frames": False,
                "cap_pixels_per_frame": False,
                "video_metadata": metadata,
            },
            return_tensors="pt",
        )


def show(result: dict[str, Any]) -> None:
    """Prints both tables."""
    console = Console()
    table = Table(title=f"{result['questions_per_video']} questions a video, seconds a question")
    for name in ("system", "CPU s", "wall s", "ours is faster, CPU", "wall", "equal answers"):
        table.add_column(name, justify="left" if name == "system" else "right")
    ours = result["seconds_per_question"]["ours"]
    for name, row in result["seconds_per_question"].items():
        size = name.partition(", ")[2].partition(" ")[0]
        same = "" if name == "ours" else f"{result['equal_answers'][int(size)]:.0%}"
        ratios = [f"{row[unit] / ours[unit]:.1f}x" for unit in ("cpu_s", "wall_s")]
        table.add_row(name, f"{row['cpu_s']:.2f}", f"{row['wall_s']:.2f}", *ratios, same)
    console.print(table)
    more = Table(title="ours, a video")
    for name in ("questions", "CPU s", "wall s"):
        more.add_column(name, justify="right")
    for count, row in result["seconds_per_video"].items():
        more.add_row(count, f"{row['cpu_s']:.2f}", f"{row['wall_s']:.2f}")
    console.print(more)
    console.print(f"one more question: {result['one_more_question_s']:.3f} s; the video: {result['first_s']:.2f} s")


if __name__ == "__main__":
    main()
