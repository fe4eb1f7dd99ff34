"""A benchmark's questions as samples, their lines, the conditions of a run, and memory that runs out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spacer.benchmarks.question import Kind, Question
from spacer.config.choices import Subtitles
from spacer.config.settings import AskingSettings, BenchmarkSettings, ModelSettings, RewardSettings, VideoSettings
from spacer.data.captions import Caption
from spacer.data.processing import collate
from spacer.data.samples import Fault
from spacer.errors import UserError
from spacer.evaluation.answering import EvaluationRequest
from spacer.evaluation.asked import answered_row, as_samples, check_media, failed_row, media_settings, vote
from spacer.evaluation.conditions import conditions, require_same_conditions
from spacer.evaluation.kept import Answer, by_medium, key_of
from spacer.evaluation.predict import PredictModule, reward_row
from spacer.models.digests import weights_digest
from spacer.models.forward import ComputeOptions
from spacer.rewards import Scorer
from spacer.rollout import asked
from tests.unit.data.making import about, sample

OPTIONS = ("A. left", "B. right")


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {"id": "7", "task": "OCR Problems", "kind": Kind.choice, "text": "Where?"}
    values |= {"options": OPTIONS, "truth": "B", "cluster": "scene", "video": Path("/v/scene.mp4")}
    return Question(**{**values, **changes})


def test_questions_become_samples_in_order() -> None:
    asked = [
        question(),
        question(id="8", kind=Kind.number, options=(), truth="2.5"),
        question(id="9", kind=Kind.text, options=(), truth="Caption A", video=None, images=(b"one", b"two")),
    ]
    samples = as_samples(asked, BenchmarkSettings("video_mme"))
    assert [item.id for item in samples] == ["7", "8", "9"]
    assert [item.problem_type for item in samples] == ["multiple choice", "numerical", "free-form"]
    assert [item.data_type for item in samples] == ["video", "video", "image"]
    assert samples[0].path == Path("/v/scene.mp4") and samples[0].options == OPTIONS
    assert samples[2].images == (b"one", b"two")
    assert (samples[1].solution, samples[1].scene, samples[1].question_type) == ("2.5", "scene", "OCR Problems")
    assert {item.source for item in samples} == {"video_mme"} and samples[0].problem == "Where?"


def test_a_held_out_question_is_scored_with_its_options_where_the_reward_is_not_strict() -> None:
    (item,) = as_samples([question()], BenchmarkSettings("video_mme"))
    answer = Answer(("<think></think><answer>It is on the right.</answer>", ""), (9, 0))
    said = Answer(("<think></think><answer>Right</answer>",), (9,))
    found = {
        strict: [reward_row(item, each, Scorer(RewardSettings(strict=strict))) for each in (answer, said)]
        for strict in (True, False)
    }
    assert [row["reward"]["answer"] for row in found[True]] == [0, 0]
    assert [(row["reward"]["answer"], row["extracted"]) for row in found[False]] == [(0, False), (1, True)]


def test_subtitles_stand_where_they_are_wanted(tmp_path: Path) -> None:
    file = tmp_path / "a.srt"
    file.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:09,000 --> 00:00:10,000\nthere\n")
    asked = [question(subtitles=file), question(id="8", subtitles=file, subtitles_from=5.0), question(id="9")]
    there = Caption(9.0, 10.0, "there")
    for place in Subtitles:
        samples = as_samples(asked, BenchmarkSettings("video_mme", subtitles=place))
        assert [item.problem for item in samples] == ["Where?"] * 3
        assert {item.captioned for item in samples} == {place}
        wanted = [(Caption(1.0, 2.0, "Hello"), there), (Caption(4.0, 5.0, "there"),), ()]
        assert [item.captions for item in samples] == ([()] * 3 if place == Subtitles.none else wanted)


def test_media_are_processed_as_the_benchmark_says() -> None:
    video = VideoSettings(max_frames=8, fps=2.0, max_pixels=12345)
    made = media_settings(BenchmarkSettings("x", video=video, image_max_pixels=999, max_prompt_length=77, workers=3))
    assert (made.video, made.image_max_pixels, made.max_prompt_length, made.workers) == (video, 999, 77, 3)
    assert made.too_long == "thin"


def test_missing_videos_are_counted_once_and_refused_beyond_the_share(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.mp4").touch()
    asked = [question(id=str(n), video=tmp_path / f"{n % 4}.mp4") for n in range(12)]
    asked.append(question(id="pictures", video=None, images=(b"",)))
    (fault,) = check_media(asked, BenchmarkSettings("x", max_missing=0.25))  # one of four
    assert fault.where == str(tmp_path / "3.mp4") and fault.kind == "missing file"
    with pytest.raises(UserError, match=r"1 of 4 files of x are missing(.|\n)*3\.mp4(.|\n)*max_missing"):
        check_media(asked, BenchmarkSettings("x", max_missing=0.24))
    assert check_media(asked[:3], BenchmarkSettings("x", max_missing=0.0)) == []
    many = [question(id=str(n), video=tmp_path / f"none{n:02}.mp4") for n in range(13)]
    with pytest.raises(UserError, match="and 3 more"):
        check_media(many, BenchmarkSettings("x"))


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        (("A",), 0),
        (("A", "B", "<answer>B</answer>"), 1),
        (("B", "A", "A. left", "B"), 0),  # equally common: the first
        (("what?", "A"), 1),
        (("what?", "", "no idea", "B", "what?"), 3),  # what cannot be read has no vote
        (("what?", ""), 0),
        (("<think>A", "A", "B", "B", "A"), 1),
    ],
)
def test_the_commonest_answer_wins(texts: tuple[str, ...], chosen: int) -> None:
    assert vote(question(), texts, "video_mme") == chosen


def test_the_line_of_an_answer() -> None:
    (item,) = as_samples([question()], BenchmarkSettings("video_mme"))
    by_id = {"7": question()}
    thought = '<think> Hm. <map>{"bed":[[1,2]]}</map> </think><answer>B</answer>'
    assert answered_row(item, Answer((thought,), (5,)), by_id, "video_mme") == {
        "id": "7",
        "task": "OCR Problems",
        "question": "Where?",
        "options": list(OPTIONS),
        "prediction": thought,
        "completion_tokens": 5,
        "thinking": 'Hm. <map>{"bed":[[1,2]]}</map>',
        "map": '{"bed":[[1,2]]}',
    }
    several = answered_row(item, Answer(("A", "B", "(B)"), (1, 2, 3)), by_id, "video_mme")
    assert (several["prediction"], several["completion_tokens"], several["samples"]) == ("B", 2, ["A", "B", "(B)"])
    assert several["thinking"] is None and several["map"] is None


def test_the_line_of_a_question_that_could_not_be_asked() -> None:
    (item,) = as_samples([question()], BenchmarkSettings("video_mme"))
    row = failed_row(item, Fault("7", "unreadable media", "why"))
    assert (row["id"], row["prediction"], row["error"]) == ("7", "", "unreadable media: why")
    assert row.keys() - {"error"} == answered_row(item, Answer(("B",), (1,)), {"7": question()}, "video_mme").keys()


def weights(folder: Path, fill: bytes, size: int = 3 << 20, config: str = "{}") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"\x00" * (size - 8) + fill * 8)
    return folder


def test_the_digest_tells_weights_and_configurations_apart(tmp_path: Path) -> None:
    folders = [
        weights(tmp_path / "a", b"1"),
        weights(tmp_path / "b", b"2"),
        weights(tmp_path / "c", b"1", size=(3 << 20) + 1),
        weights(tmp_path / "d", b"1", config='{"a": 1}'),
        weights(tmp_path / "e", b"1", size=16),
    ]
    (weights(tmp_path / "f", b"1") / "chat_template.jinja").write_text("{{ messages }}")
    (weights(tmp_path / "g", b"1") / "tokenizer.json").write_text("{}")
    folders += [tmp_path / "f", tmp_path / "g"]
    assert len({weights_digest(folder) for folder in folders}) == 7
    assert weights_digest(folders[0]) == weights_digest(weights(tmp_path / "again", b"1"))


def test_answers_of_one_file_have_one_set_of_conditions(tmp_path: Path) -> None:
    model = ModelSettings(str(weights(tmp_path / "m", b"1")))
    asked = BenchmarkSettings("x", prompts={"plain": "$question"})
    file = tmp_path / "predictions/x.conditions.json"

    def held(model: ModelSettings = model, seed: int = 0, **changes: Any) -> None:
        now = BenchmarkSettings(**{"name": "x", "prompts": asked.prompts, **changes})
        require_same_conditions(file, conditions(model, now, seed, "32-true", {"rows": "blocks"}))

    held()
    first = file.read_text()
    assert json.loads(first)["benchmark"]["video"]["max_frames"] == 32
    held()
    # none of these changes what is answered
    free = {"limit": 3, "tasks": ("t",), "batch_size": 1, "batch_tokens": 9, "workers": 1}
    held(**free, root="/elsewhere", max_missing=0.5)
    for change, told in (
        ({"video": VideoSettings(8, 1.0, 448 * 448, 448)}, r"benchmark\.video\.max_frames: 32 then, 8 now"),
        ({"prompts": {"plain": "$question!"}}, r"benchmark\.prompts\.plain: '\$question' then, '\$question!' now"),
        ({"temperature": 0.5}, "temperature: 0.0 then, 0.5 now"),
        ({"samples": 3}, "samples: 1 then, 3 now"),
        ({"subtitles": Subtitles.before}, "subtitles: 'none' then, 'before' now"),
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"model": ModelSettings(str(weights(tmp_path / "n", b"2")))}, r"model\.weights: '\w{16}' then, '\w{16}' now"),
    ):
        with pytest.raises(UserError, match=told):
            held(**change)
    assert file.read_text() == first


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks questions about videos of a device that holds so many at once: the rows, and how many were tried."""

    def ask(room: int, never: str = "", counts: tuple[int, ...] = (4, 3)) -> tuple[list[dict], list[int]]:
        tried: list[int] = []
        prompts = [
            about(f"/{video}.mp4", [10 * video + n], mark=100.0 * video, wide=2)
            for video, count in enumerate(counts, 1)
            for n in range(count)
        ]

        def answer(_sampler: Any, forest: Any, _vision: Any, seeds: list) -> Any:
            words = [str(int(forest.prompt(n).ids_L[-1])) for n in range(len(forest.ends))]
            assert len(seeds) == len(words)
            tried.append(len(words))
            if len(words) > room or never in words:
                raise torch.OutOfMemoryError("no room")
            of_each = {
                "texts": tuple(words),
                "lengths": [1] * len(words),
                "truncated_B": torch.zeros(len(words)).bool(),
            }
            return SimpleNamespace(**of_each, completions=lambda _: [], sampled=[])

        monkeypatch.setattr(asked.Sampler, "sample", answer)
        monkeypatch.setattr(asked, "encode_vision", lambda *_: None)
        dataset: Any = SimpleNamespace(samples=[prompt.sample for prompt in prompts])
        request = EvaluationRequest(
            None,  # type: ignore[arg-type]
            dataset,
            AskingSettings(),
            0,
            ComputeOptions("blocks", 1000),
            False,
            lambda item, found: {"id": item.id, "prediction": found.texts[0]},
            failed_row,
        )
        rows = PredictModule(torch.nn.Module(), request, "under these", range(len(prompts))).predict_step(
            collate(prompts), 0
        )
        for row, prompt in zip(rows, prompts, strict=True):
            assert row.pop("key") == key_of("under these", prompt.sample)
        return rows, tried

    return ask


@pytest.mark.parametrize("room", [7, 6, 4, 3, 2, 1])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(asked_of: Any, room: int) -> None:
    rows, tried = asked_of(room)
    # each question still gets the answer to its own prompt, which ends with its id
    assert rows == [{"id": name, "prediction": name} for name in ("10", "11", "12", "13", "20", "21", "22")]
    assert sum(count for count in tried if count <= room) == 7


def test_a_question_that_never_fits_is_an_error_and_the_others_are_answered(asked_of: Any) -> None:
    rows, _ = asked_of(7, never="12")
    assert [row["id"] for row in rows] == ["10", "11", "12", "13", "20", "21", "22"]
    assert [row["id"] for row in rows if "error" in row] == ["12"]
    assert rows[2]["error"].startswith("out of memory: ") and rows[2]["prediction"] == ""
    assert all(row["prediction"] == row["id"] for row in rows if row["id"] != "12")


def test_questions_about_a_video_are_asked_together_however_the_file_has_them() -> None:
    samples = [sample(str(n), path=Path(f"/{n % 3}.mp4")) for n in range(8)]
    assert by_medium([0, 1, 2, 3, 4, 5, 6, 7], samples) == [0, 3, 6, 1, 4, 7, 2, 5]
    assert by_medium([7, 2, 4, 5], samples) == [7, 4, 2, 5]
    assert by_medium([], samples) == []
