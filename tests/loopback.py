"""A server with OpenAI's chat protocol on the loopback, whose answers and faults tests choose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# number of the request, from 0, and its JSON → a fault's name, or the text that answers
Script = Callable[[int, dict[str, Any]], str]
FAULTS = ("429", "500", "502 page", "200 page", "cut", "hang up", "no choices", "401", "400", "slow")
PAGE = b"<html><body>502 Bad Gateway: nginx</body></html>"


def text_of(request: dict[str, Any]) -> str:
    """The text of the last message."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Server:
    """Counts the requests that it answers to completion, by the text of the question."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.completed: list[str] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append(request)
                    outer.keys.add(self.headers["authorization"])
                    outer._now += 1
                    outer.most_at_once = max(outer.most_at_once, outer._now)
                try:
                    outer._reply(self, script(number, request), request)
                except OSError:
                    pass  # the client has gone
                finally:
                    with outer._lock:
                        outer._now -= 1

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _reply(self, handler: BaseHTTPRequestHandler, said: str, request: dict[str, Any]) -> None:
        if said == "hang up":
            handler.close_connection = True
            handler.connection.close()
            return
        if said == "slow":
            time.sleep(2)
        body: dict[str, Any] = {"error": {"message": f"fault {said}", "code": None}}
        page = said.endswith("page")
        status = int(said[:3]) if said[:3].isdigit() and said in FAULTS else 200
        if status == 200 and not page:
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
            usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
            body = {"id": "x", "object": "chat.completion", "created": 1, "model": request["model"], "usage": usage}
            body["choices"] = [] if said == "no choices" else [choice]
        data = PAGE if page else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("content-type", "text/html" if page else "application/json")
        handler.send_header("content-length", str(len(data)))
        if status == 429:
            handler.send_header("retry-after", "0")
        handler.end_headers()
        if said == "cut":
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
            return
        handler.wfile.write(data)
        handler.wfile.flush()
        if said not in FAULTS:
            with self._lock:
                self.completed.append(text_of(request))


@contextmanager
def serving(script: Script, port: int = 0) -> Iterator[Server]:
    """A server for the length of a block."""
    server = Server(script, port)
    try:
        yield server
    finally:
        server.close()
