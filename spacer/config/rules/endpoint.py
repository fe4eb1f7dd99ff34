"""Rules about a model behind a server."""

from __future__ import annotations

import re
from importlib.util import find_spec

from spacer.config.derived import names_benchmarks
from spacer.config.rules.rule import Rule
from spacer.config.settings import Settings


def _asks(s: Settings) -> bool:
    return s.model.endpoint is not None and s.stage.name == "evaluate"


def client_is_installed(s: Settings) -> str | None:
    if _asks(s) and find_spec("openai") is None:
        return "model=endpoint needs a package that is not installed: pip install -e '.[endpoint]'"
    return None


def endpoint_evaluates(s: Settings) -> str | None:
    if s.model.endpoint is not None and s.stage.needs_model and s.stage.name != "evaluate":
        return (
            f"stage.name={s.stage.name} needs a model's weights, and model=endpoint has none here: choose another model"
        )
    return None


def endpoint_answers_benchmarks(s: Settings) -> str | None:
    if _asks(s) and not names_benchmarks(s):
        return "model=endpoint answers benchmarks: choose benchmark=vsi_bench benchmark.root=DIR"
    return None


def endpoint_is_named(s: Settings) -> str | None:
    if _asks(s) and not (s.model.base_url and s.model.name):
        return "model=endpoint needs a server and a model: set model.base_url=http://HOST:PORT/v1 model.name=NAME"
    return None


def url_has_no_password(s: Settings) -> str | None:
    if s.model.base_url and not re.match(r"https?://[^/@\s]+(/|$)", s.model.base_url):
        return (
            "model.base_url must be http://HOST:PORT/PATH or https, without a name or password in it: the key belongs "
            "in the environment"
        )
    return None


def url_is_of_an_endpoint(s: Settings) -> str | None:
    if s.model.endpoint is None and (s.model.base_url or s.model.name):
        return "model.base_url and model.name are of a server: choose model=endpoint"
    return None


def endpoint_is_asked_by_one_process(s: Settings) -> str | None:
    if _asks(s) and (s.cluster.num_nodes > 1 or s.cluster.devices not in (1, "auto")):
        return "model=endpoint asks from one process: leave cluster.devices at 1, and raise model.endpoint.concurrency"
    return None


RULES: tuple[Rule, ...] = (
    client_is_installed,
    endpoint_evaluates,
    endpoint_answers_benchmarks,
    endpoint_is_named,
    url_has_no_password,
    url_is_of_an_endpoint,
    endpoint_is_asked_by_one_process,
)
