"""Whether a model's weights can be had is known within seconds, and each refusal says what to do."""

from __future__ import annotations

import http.server
import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spacer.config import model_files
from spacer.config.load import ConfigError
from spacer.config.model_files import check_model
from spacer.config.settings import ModelSettings


def write_model(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if name.endswith(".safetensors"):
            (folder / name).write_bytes(struct.pack("<Q", 2) + b"{}")
        else:
            (folder / name).write_text('{"model_type": "qwen2_5_vl"}')
    return folder


def refused(name: str | Path, revision: str | None = None) -> str:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        check_model(ModelSettings(name_or_path=str(name), revision=revision))
    assert time.monotonic() - started < 10
    (problem,) = caught.value.problems
    assert problem.startswith(f"model.name_or_path={name}: ")
    for remedy in (
        "set model.name_or_path=/path/to/folder",
        "HF_HUB_OFFLINE",
        "hf auth login",
        "HF_HOME",
        "model=tiny",
    ):
        assert remedy in problem
    return problem


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """As HF_ENDPOINT does, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_folder_that_holds_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("config.json", "model.safetensors", "tokenizer.json", "processor_config.json")
    folder = write_model(tmp_path / "org" / "name", *files)
    assert check_model(ModelSettings(name_or_path=str(folder))) == folder
    monkeypatch.chdir(tmp_path)
    assert check_model(ModelSettings(name_or_path="org/name")) == Path("org/name")  # a folder goes before the hub
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_model(ModelSettings(name_or_path="~/org/name")) == folder


def test_a_folder_that_lacks_something(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(tmp_path / "absent")
    assert "there is no such folder" in refused("./absent")
    assert "the folder lacks config.json, *.safetensors weights" in refused(write_model(tmp_path / "a", "pytorch.bin"))
    assert "the folder lacks *.safetensors weights." in refused(write_model(tmp_path / "b", "config.json"))
    assert "the folder lacks config.json." in refused(write_model(tmp_path / "c", "model.safetensors"))
    assert "it is a file" in refused(tmp_path / "c" / "model.safetensors")


def test_a_folder_that_lacks_a_shard(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "config.json", "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert "the folder lacks model-2.safetensors." in refused(folder)
    index.write_text("{broken")
    assert "cannot be read (JSONDecodeError" in refused(folder)
    index.write_text("{}")
    assert "cannot be read (KeyError" in refused(folder)


@pytest.mark.parametrize("name", ["qwen", "org/na me", "org/a--b", ""])
def test_neither_folder_nor_hub_id(name: str, empty_cache: Path) -> None:
    assert "neither an existing folder nor a hub id" in refused(name)


def test_a_model_in_the_cache_asks_no_network(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_request", lambda *_: pytest.fail("the hub was asked"))
    cached = empty_cache / "models--org--name"
    snapshot = write_model(cached / "snapshots" / "abc", "config.json", "model.safetensors")
    write_model(cached / "refs").joinpath("main").write_text("abc")
    assert check_model(ModelSettings(name_or_path="org/name")) == "org/name"
    assert check_model(ModelSettings(name_or_path="org/name", revision="abc")) == "org/name"
    monkeypatch.setattr(model_files, "_request", lambda *_: "the hub is away")
    (snapshot / "model.safetensors").unlink()
    assert "the folder lacks *.safetensors weights; and the hub is away" in refused("org/name")


def test_offline(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("org/name")


def test_unreachable_hub_ends_in_time(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the name is reserved never to resolve (RFC 6761), so that the test needs no closed network
    set_endpoint(monkeypatch, "https://hub.invalid")
    assert "https://hub.invalid cannot be reached" in refused("org/name")


def test_silent_name_server_ends_in_time(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(model_files, "ANSWER_SECONDS", 0.2)
    set_endpoint(monkeypatch, "https://hub.invalid")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: release.wait(30) and [])
    started = time.monotonic()
    assert "https://hub.invalid did not answer within 0.2 s" in refused("org/name")
    assert time.monotonic() - started < 5
    release.set()


ANSWERS = {  # what the hub answers: (status, X-Error-Code), and how we say it
    "here": (200, None, None),
    "gated": (403, "GatedRepo", "it is gated"),
    "unknown": (401, "RepoNotFound", "has no such model, or it is private"),
    "revised": (404, "RevisionNotFound", "has no model.revision=v2 of it"),
    "bare": (404, "EntryNotFound", "it holds no config.json"),
    "broken": (500, None, "cannot be reached or refused (HfHubHTTPError"),
}


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        if "/silent/" in self.path:
            time.sleep(1)
        status, code, _ = ANSWERS.get(self.path.split("/")[2], (500, None, None))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    set_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    server.shutdown()
    server.server_close()


def test_what_the_hub_answers(hub: None) -> None:
    assert check_model(ModelSettings(name_or_path="org/here")) == "org/here"
    for name, (_, _, said) in ANSWERS.items():
        if said:
            assert said in refused(f"org/{name}", revision="v2")


def test_a_silent_hub_is_asked_once(hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "REQUEST_SECONDS", 0.2)
    assert "cannot be reached or refused (ReadTimeout" in refused("silent/model")
