"""No secret of the environment is written, and offline nothing is sent."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spacer.sweeping.callback import MaskedSecrets
from spacer.terminal.masking import Masking, masked, masked_values
from spacer.tracking.runs import make_loggers
from tests.cli.forks import ROOT
from tests.unit.configs import load

SECRET, OTHER = "tops3cret-0123456789", "an0ther-s3cret-value"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    monkeypatch.setenv("OTHER_API_KEY", OTHER)
    monkeypatch.setenv("HARMLESS", "seen-by-everybody")
    monkeypatch.setenv("SHORT_KEY", "true")  # as a flag might be
    monkeypatch.setenv("KEY_FILE", str(ROOT))


def held(folder: Path) -> list[Path]:
    """The files that hold a secret."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if any(one.encode() in file.read_bytes() for one in (SECRET, OTHER))]


def test_what_is_masked(secret: None) -> None:
    assert masked(f"a={SECRET},b={OTHER}") == "a=${oc.env:MY_TOKEN},b=${oc.env:OTHER_API_KEY}"
    same = f"true seen-by-everybody {ROOT}"
    assert masked(same) == same
    assert masked_values({"a": [SECRET, 3], "b": {"c": None}}) == {"a": ["${oc.env:MY_TOKEN}", 3], "b": {"c": None}}


def test_a_secret_that_holds_another_is_masked_whole(secret: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG_TOKEN", f"{SECRET}-and-more")
    assert masked(f"{SECRET}-and-more") == "${oc.env:LONG_TOKEN}"


def test_lines_of_the_log_are_masked(secret: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(masking := Masking())
    try:
        logging.getLogger("a").warning("with %s", SECRET)
        try:
            raise ValueError(OTHER)
        except ValueError:
            logging.getLogger("a").exception("failed")
    finally:
        caplog.handler.removeFilter(masking)
    assert "with ${oc.env:MY_TOKEN}" in caplog.text and "ValueError: ${oc.env:OTHER_API_KEY}" in caplog.text
    assert SECRET not in caplog.text and OTHER not in caplog.text


def test_wandb_is_told_no_secret(secret: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", f"logger.entity={SECRET}"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    settings = load(logger__kind="wandb", logger__name="${oc.env:OTHER_API_KEY}x", output_dir=str(tmp_path))
    loggers = make_loggers(settings, tmp_path)
    loggers[1].experiment.finish()
    assert held(tmp_path) == []
    config = dict(loggers[1].experiment.config)
    assert config["logger/name"] == "${oc.env:OTHER_API_KEY}x" and SECRET not in str(config)


@pytest.mark.long
def test_a_run_writes_no_secret(secret: None, tmp_path: Path) -> None:
    """By the command line: interpolated, and filled in by the shell."""
    words = [
        *("stage=plan", "logger.project=${oc.env:MY_TOKEN}", f"logger.group={OTHER}", "trainer.max_steps=3"),
        *("dataset.train_scenes=4", f"hydra.run.dir={tmp_path / 'run'}"),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert held(tmp_path) == []
    assert SECRET not in done.stdout + done.stderr and OTHER not in done.stdout + done.stderr
    assert "${oc.env:OTHER_API_KEY}" in (tmp_path / "run/.hydra/config.yaml").read_text()
    wrong = [*words, "objective.beta=-1", f"stage.name={SECRET}"]
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), *wrong], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "${oc.env:MY_TOKEN}" in done.stderr and SECRET not in done.stderr


# ---- W&B


def mode(home: Path, code: str = "", **env: str) -> str:
    """What a process in that home folder says of W&B's mode, after some code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
    program = textwrap.dedent(code) + "\nfrom spacer.tracking.offline import wandb_mode\nprint(wandb_mode())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout.split()[-1] if done.returncode == 0 else done.stderr


def test_logged_in_is_what_wandb_has_written_itself(tmp_path: Path) -> None:
    assert mode(tmp_path) == "offline"
    logs_in = f"""
        import wandb
        from wandb.sdk.lib import wbauth  # what `wandb login` calls once it has been answered
        wbauth.write_netrc_auth(host=wandb.Settings().base_url, api_key="{"0123456789" * 4}")
    """
    assert mode(tmp_path, logs_in) == "online"
    assert mode(tmp_path) == "online"
    assert mode(tmp_path, WANDB_BASE_URL="https://wandb.example.org") == "offline"
    assert mode(tmp_path, WANDB_MODE="offline") == "offline"
    assert "wandb login --relogin" in mode(tmp_path, WANDB_API_KEY="short")


@pytest.fixture
def server() -> Iterator[tuple[str, list[object]]]:
    """The address of a server that hangs up, and who has called it."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            while True:
                try:
                    connection, address = listening.accept()
                except OSError:
                    return
                calls.append(address)
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", calls


def test_whether_it_is_logged_in_is_asked_of_no_server(tmp_path: Path, server: tuple[str, list[object]]) -> None:
    address, calls = server
    assert mode(tmp_path, WANDB_BASE_URL=address, WANDB_API_KEY="0123456789" * 4) == "online"
    assert calls == []


def test_offline_nothing_leaves_the_machine(tmp_path: Path, server: tuple[str, list[object]]) -> None:
    proxy, calls = server
    logs = f"""
        import os, sys
        sys.path.insert(0, {str(ROOT)!r})
        import run
        from spacer.tracking.offline import wandb_mode
        assert os.environ["WANDB_ERROR_REPORTING"] == "false"
        assert wandb_mode() == "offline" and os.environ["WANDB_MODE"] == "offline"
        import wandb
        made = wandb.init(project="p", dir={str(tmp_path)!r}, settings={{"silent": True, "console": "off"}})
        made.log({{"a": 1}})
        made.finish()
    """
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    assert mode(tmp_path, logs, **dict.fromkeys(names, proxy), NO_PROXY="127.0.0.1") == "offline"
    assert list(tmp_path.glob("wandb/offline-run-*")) and calls == []


@pytest.mark.parametrize("subfolder", [None, ".hydra"])
def test_the_log_is_masked_where_hydra_writes_no_files_too(subfolder: str | None, tmp_path: Path) -> None:
    """As in the processes that Lightning starts."""
    values = {"hydra": {"runtime": {"output_dir": str(tmp_path)}, "output_subdir": subfolder}}
    before = [len(handler.filters) for handler in logging.getLogger().handlers]
    MaskedSecrets().on_job_start(OmegaConf.create(values))
    for handler, filters in zip(logging.getLogger().handlers, before, strict=True):
        handler.filters[filters:] = []
