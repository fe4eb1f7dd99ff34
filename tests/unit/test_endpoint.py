"""Asking a server: storms of faults lose nothing, nothing is asked again that was answered, and ends are clear."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from openai.types.chat import ChatCompletion

from spacer.config.choices import Control, EndpointVideo, OnBad
from spacer.config.settings import BenchmarkSettings, DatasetSettings, EndpointSettings, ModelSettings, VideoSettings
from spacer.data.samples import Fault, Medium, Sample
from spacer.errors import MediaError, UserError
from spacer.evaluation.endpoint import Asking, Usage, _read, ask_all
from spacer.evaluation.kept import Answer
from spacer.evaluation.messages import Messages
from tests.loopback import FAULTS, serving, text_of
from tests.unit.data.making import sample
from tests.written_files import picture

STORM = ("429", "500", "502 page", "200 page", "cut", "hang up", "no choices")
SAMPLES = [sample(str(number), problem=f"Question {number}?") for number in range(40)]


class Kept:
    """What came of each question."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.usage: list[Usage] = []
        self.faults: dict[str, Fault] = {}

    def answered(self, item: Sample, answer: Answer, usage: Usage) -> None:
        assert item.id not in self.answers
        self.answers[item.id] = answer.texts[0]
        self.usage.append(usage)

    def refused(self, item: Sample, fault: Fault) -> None:
        self.faults[item.id] = fault

    def asking(self) -> Asking:
        return Asking(lambda item: [{"role": "user", "content": item.problem}], self.answered, self.refused)


def ask(url: str, kept: Kept, samples: list[Sample] = SAMPLES, samples_each: int = 1, **options: Any) -> None:
    endpoint = EndpointSettings(**{"max_pause_s": 0.02, "timeout_s": 5.0, "concurrency": 8, **options})
    model = ModelSettings("endpoint", base_url=url, name="m", endpoint=endpoint)
    how = BenchmarkSettings("vsi_bench", max_new_tokens=7, samples=samples_each)
    ask_all(samples, kept.asking(), model, how, seed=3)


def test_storms_lose_nothing_and_nothing_is_asked_twice_to_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    rng = random.Random(0)
    with serving(lambda number, _: rng.choice(STORM) if rng.random() < 0.6 else f"answer {number}") as server:
        kept = Kept()
        ask(server.url, kept, retries=40)
    assert set(kept.answers) == {item.id for item in SAMPLES} and not kept.faults
    assert Counter(server.completed) == Counter(item.problem for item in SAMPLES)
    assert len(server.requests) > 60 and server.most_at_once <= 8 and server.keys == {"Bearer sk-of-the-test"}
    assert all(usage == Usage(11, 3) for usage in kept.usage)
    one = server.requests[0]
    assert (one["model"], one["max_tokens"], one["temperature"], one["seed"]) == ("m", 7, 0.0, 3)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "gave no answer in 3 attempts, the last time: 429"),
        ("500", "gave no answer in 3 attempts, the last time: 500"),
        ("502 page", "gave no answer in 3 attempts, the last time: 502"),
        ("200 page", "model.base_url ends as the server's paths begin"),
        ("cut", "gave no answer in 3 attempts"),
        ("no choices", "no completion"),
        ("401", "Check model.base_url, model.name=m, and the key in the environment variable OPENAI_API_KEY"),
        ("400", "questions cannot be asked or are refused, more than benchmark.max_missing=0.02"),
    ],
)
def test_a_server_that_answers_some_and_then_only_fails_ends_the_run(fault: str, said: str) -> None:
    assert fault in FAULTS
    with serving(lambda number, _: fault if number >= 5 else "B") as server:
        kept = Kept()
        with pytest.raises(UserError, match="asks the rest") as caught:
            ask(server.url, kept, retries=2)
    assert said in str(caught.value) and len(kept.answers) == 5 and not kept.faults
    # the same command, with the server well again, asks the rest
    left = [item for item in SAMPLES if item.id not in kept.answers]
    with serving(lambda *_: "B") as well:
        ask(well.url, kept, left)
    assert set(kept.answers) == {item.id for item in SAMPLES} and len(well.requests) == 35


def test_a_server_that_is_not_there_is_named() -> None:
    with serving(lambda *_: "B") as server:
        url = server.url
    with pytest.raises(UserError, match="Connection error") as caught:
        ask(url, Kept(), retries=1)
    assert url in str(caught.value)


def test_a_server_that_hangs_times_out() -> None:
    with serving(lambda number, _: "slow" if number == 0 else "B") as server:
        kept = Kept()
        ask(server.url, kept, SAMPLES[:3], timeout_s=0.3)
    assert len(kept.answers) == 3 and len(server.requests) == 4


def test_a_server_that_goes_and_comes_back_is_asked_on() -> None:
    first = serving(lambda number, _: "hang up" if number > 9 else "B")
    with first as server:
        kept = Kept()
        with pytest.raises(UserError):
            ask(server.url, kept, retries=1)
        port = server.port
    before = dict(kept.answers)
    with serving(lambda *_: "B", port) as again:
        ask(again.url, kept, [item for item in SAMPLES if item.id not in before])
    assert len(kept.answers) == 40 and set(again.completed).isdisjoint(server.completed)


def test_a_question_that_is_refused_counts_and_the_others_go_on() -> None:
    with serving(lambda _, request: "400" if text_of(request) == "Question 7?" else "B") as server:
        kept = Kept()
        ask(server.url, kept)
    assert len(kept.answers) == 39 and set(kept.faults) == {"7"}
    assert kept.faults["7"].kind == "refused by the server" and "400" in kept.faults["7"].detail
    assert len(server.requests) == 40


def test_several_answers_to_a_question_differ_in_their_seeds() -> None:
    with serving(lambda *_: "B") as server:
        ask(server.url, Kept(), SAMPLES[:2], samples_each=3)
    assert sorted(request["seed"] for request in server.requests) == [3, 3, 4, 4, 5, 5]


def test_requests_per_minute_are_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import spacer.evaluation.endpoint as endpoint

    pace = endpoint._Pace(600)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(endpoint.asyncio, "sleep", sleep)
    monkeypatch.setattr(endpoint.time, "monotonic", lambda: 5.0)
    import asyncio

    for _ in range(4):
        asyncio.run(pace.wait())
    assert waited == pytest.approx([0.1, 0.2, 0.3])


PROMPTS = {"plain": "$question$options", "numerical": "", "multiple choice": "", "system": "Be brief."}
MEDIA = DatasetSettings(prompts=PROMPTS, on_bad=OnBad.skip, video=VideoSettings(max_pixels=2_000), image_max_pixels=900)


def described(messages: list[dict[str, Any]]) -> list[str]:
    return [part["text"] if part["type"] == "text" else part["type"] for part in messages[-1]["content"]]


def test_media_stand_in_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(9))
    images = Sample(**{**vars(sample(problem="Is <image> in <image>?")), "images": [picture(1), picture(2)]})
    made = Messages(MEDIA, EndpointVideo.frames)(images)
    assert made[0] == {"role": "system", "content": "Be brief."}
    assert described(made) == ["Is ", "image_url", " in ", "image_url", "?"]
    assert described(Messages(MEDIA, EndpointVideo.frames, Control.none)(images)) == ["Is  in ?"]
    media = (Medium("image", tmp_path / "a.png"), Medium("image", tmp_path / "a.png"))
    before = Sample(**{**vars(sample(problem="Which?", path=media[0].path)), "media": media})
    assert described(Messages(MEDIA, EndpointVideo.frames)(before)) == ["image_url", "image_url", "Which?"]
    gone = Sample(**{**vars(sample(data_type="image", path=tmp_path / "none.png"))})
    with pytest.raises(MediaError):
        Messages(MEDIA, EndpointVideo.frames)(gone)


def test_pictures_are_within_the_protocols_pixels() -> None:
    import base64
    from io import BytesIO

    from PIL import Image

    one = Sample(**{**vars(sample(problem="?")), "images": [picture(77)]})
    shades = []
    for control in (None, Control.grey):
        (part, _) = Messages(MEDIA, EndpointVideo.frames, control)(one)[-1]["content"]
        data = part["image_url"]["url"].removeprefix("data:image/png;base64,")
        image = Image.open(BytesIO(base64.b64decode(data)))
        assert image.size == (30, 30)
        shades.append(image.getpixel((9, 9)))
    assert shades == [(77, 77, 77), (127, 127, 127)]


def test_a_request_is_plain_json() -> None:
    one = Sample(**{**vars(sample(problem="?")), "images": [picture(77)]})
    assert json.loads(json.dumps(Messages(MEDIA, EndpointVideo.frames)(one)))


@pytest.mark.parametrize(
    ("thought", "content", "text"),
    [
        ("a room", "<answer>B</answer>", "<think>a room</think><answer>B</answer>"),
        # a thought that does not end is all that servers find
        ("a room <answer>B</answer>", None, "<think>a room <answer>B</answer>"),
        (None, "<think>a room</think>B", "<think>a room</think>B"),
    ],
)
def test_thinking_that_the_server_has_split_off_is_put_back(
    thought: str | None, content: str | None, text: str
) -> None:
    message = {"role": "assistant", "content": content, "reasoning_content": thought}
    reply = ChatCompletion.model_validate(
        {
            "id": "0",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }
    )
    assert _read(reply) == (text, Usage(0, 0))
