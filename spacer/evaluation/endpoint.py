"""Asks a model behind a server that speaks OpenAI's chat protocol, many questions at once.

A question is tried again, after a pause that doubles, where the server is busy, fails, hangs up or sends what is no
answer. Where it refuses a question, that counts as wrong; where it refuses all, or is not there, the run ends: what was
answered is on disk by then, and the same command goes on with the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from spacer.config.settings import BenchmarkSettings, ModelSettings
from spacer.data.samples import Fault, Sample
from spacer.errors import SampleError, UserError
from spacer.evaluation.kept import Answer

log = logging.getLogger(__name__)

Messages = list[dict[str, Any]]
AGAIN = (408, 409, 425, 429)  # and all from 500 on: worth another attempt
ALL_ALIKE = (401, 403, 404, 405)  # no question would be answered
_SHOWN = 300  # characters of a reply in a message
_FEW = 5  # refused questions that are always tolerated
KEPT = "What was answered is kept: the same command asks the rest"


@dataclass(frozen=True)
class Usage:
    """Tokens of a question's prompt and completions, as the server counts them; 0 where it does not."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Asking:
    """What a question becomes and where its answer goes. `messages` may decode media, and runs in a thread."""

    messages: Callable[[Sample], Messages]
    answered: Callable[[Sample, Answer, Usage], None]
    refused: Callable[[Sample, Fault], None]


class _Refused(Exception):
    """The server refuses this question."""


class _Stopped(Exception):
    """Another question has ended the run."""


def ask_all(samples: Sequence[Sample], asking: Asking, model: ModelSettings, how: BenchmarkSettings, seed: int) -> None:
    """Asks every question, `endpoint.concurrency` at once. `answered` is called for each as it is answered.

    Questions that cannot be asked, or that the server refuses, go to `refused` at the end.

    Raises:
        UserError: the server cannot be reached, wants another key, does not know the model, keeps failing, or refuses
            more questions than `how.max_missing` allows.
    """
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)  # a line for each request
    asyncio.run(_Run(samples, asking, model, how, seed).all())


class _Run:
    def __init__(
        self, samples: Sequence[Sample], asking: Asking, model: ModelSettings, how: BenchmarkSettings, seed: int
    ) -> None:
        assert model.endpoint is not None and model.base_url is not None and model.name is not None
        self._left: Iterator[Sample] = iter(samples)
        self._most_refused = max(_FEW, how.max_missing * len(samples))
        self._asking, self._how, self._seed = asking, how, seed
        self._url, self._name, self._endpoint = model.base_url, model.name, model.endpoint
        self._pace = _Pace(model.endpoint.requests_per_minute)
        self._refused: list[tuple[Sample, Fault]] = []
        self._fatal: UserError | None = None

    async def all(self) -> None:
        # a key that is not set is one that the server does not want: the client insists on some text
        key = os.environ.get(self._endpoint.key_env) or "none"
        async with openai.AsyncOpenAI(
            base_url=self._url, api_key=key, timeout=self._endpoint.timeout_s, max_retries=0
        ) as client:
            self._client = client
            await asyncio.gather(*(self._one_after_another() for _ in range(self._endpoint.concurrency)))
        if self._fatal is not None:
            raise self._fatal
        for item, fault in self._refused:
            self._asking.refused(item, fault)

    async def _one_after_another(self) -> None:
        for item in self._left:
            try:
                await self._ask(item)
            except UserError as error:
                self._fatal = self._fatal or error
            except _Stopped:
                pass
            if self._fatal is not None:
                return

    async def _ask(self, item: Sample) -> None:
        try:
            messages = await asyncio.to_thread(self._asking.messages, item)
            replies = [await self._answer(messages, turn) for turn in range(self._how.samples)]
        except SampleError as error:
            self._refuse(item, Fault(item.id, "cannot be asked", str(error)))
        except _Refused as error:
            self._refuse(item, Fault(item.id, "refused by the server", str(error)))
        else:
            texts, usages = zip(*replies, strict=True)
            lengths = tuple(usage.completion_tokens for usage in usages)
            total = Usage(sum(usage.prompt_tokens for usage in usages), sum(lengths))
            self._asking.answered(item, Answer(texts, lengths), total)

    def _refuse(self, item: Sample, fault: Fault) -> None:
        self._refused.append((item, fault))
        if len(self._refused) > self._most_refused:
            raise UserError(
                f"{self._url}: {len(self._refused)} questions cannot be asked or are refused, more than "
                f"benchmark.max_missing={self._how.max_missing} allows, such as {fault.where}: {fault.detail}. {KEPT}."
            )

    async def _answer(self, messages: Messages, turn: int) -> tuple[str, Usage]:
        """One completion, after as many attempts as it takes, and no more than there may be."""
        said = ""
        for attempt in range(self._endpoint.retries + 1):
            if self._fatal is not None:
                raise _Stopped
            await self._pace.wait()
            wait = 0.0
            try:
                return _read(await self._request(messages, turn))
            except openai.APIStatusError as error:
                said = f"{error.status_code}: {str(error.message)[:_SHOWN]}"
                if error.status_code in ALL_ALIKE or error.code == "insufficient_quota":
                    raise UserError(
                        f"{self._url} answers {said}. Check model.base_url, model.name={self._name}, and the key in "
                        f"the environment variable {self._endpoint.key_env}. {KEPT}."
                    ) from error
                if error.status_code not in AGAIN and error.status_code < 500:
                    raise _Refused(said) from error
                wait = _retry_after(error)
            except openai.APIError as error:  # unreachable, cut off, timed out
                cause = f" ({error.__cause__})" if error.__cause__ else ""
                said = f"{error.message}{cause}"[:_SHOWN]
            except ValueError as error:  # no JSON, or no completion
                said = f"no completion: {error}"
            if attempt < self._endpoint.retries:
                pause = min(self._endpoint.max_pause_s, 2.0**attempt) * random.uniform(0.5, 1)
                log.info("attempt %d of %d failed (%s)", attempt + 1, self._endpoint.retries + 1, said)
                await self._sleep(max(pause, min(wait, self._endpoint.timeout_s)))
        raise UserError(
            f"{self._url} gave no answer in {self._endpoint.retries + 1} attempts, the last time: {said}. {KEPT}; "
            "model.endpoint.retries and max_pause_s wait longer."
        )

    async def _sleep(self, seconds: float) -> None:
        """Waits, or until the run has ended."""
        end = time.monotonic() + seconds
        while self._fatal is None and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.5))

    def _request(self, messages: Messages, turn: int) -> Awaitable[Any]:
        how = self._how
        asked: Any = messages
        return self._client.chat.completions.create(
            model=self._name,
            messages=asked,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_new_tokens,
            seed=self._seed + turn,
        )


class _Pace:
    """Lets so many requests begin in a minute, evenly spread; None: as many as come."""

    def __init__(self, per_minute: int | None) -> None:
        self._every = 0.0 if per_minute is None else 60 / per_minute
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._every
        if start > now:
            await asyncio.sleep(start - now)


def _read(reply: Any) -> tuple[str, Usage]:
    """The text of a reply, with the thinking that a server has split off from it: not closed where nothing follows it,
    since servers take all of a text whose thinking does not end for thinking.

    Raises:
        ValueError: it is no completion, such as a proxy's page.
    """
    if not isinstance(reply, ChatCompletion) or not reply.choices:
        said = reply if isinstance(reply, str) else repr(reply)
        raise ValueError(f"{said[:_SHOWN]!r}; model.base_url ends as the server's paths begin, most often in /v1")
    message = reply.choices[0].message
    extra = message.model_extra or {}
    thought = extra.get("reasoning_content") or extra.get("reasoning")
    text = message.content or ""
    usage = reply.usage
    counted = Usage(0, 0) if usage is None else Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)
    if isinstance(thought, str):
        text = f"<think>{thought}</think>{text}" if text else f"<think>{thought}"
    return text, counted


def _retry_after(error: openai.APIStatusError) -> float:
    """The seconds that the server asks to wait; 0 where it does not say."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0  # a date, which the doubling pauses stand in for
