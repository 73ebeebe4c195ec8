"""A server that answers from a script, and the skep command run against it."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from botapi.cli import main

KEY = "skep_key"


@dataclass
class Asked:
    """One request as the script saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Script:
    """Replies in order; a reply is (status, JSON value or bytes, headers), or a function."""

    url: str = ""
    replies: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def reply(self, status: int, body: Any = None, **headers: str) -> "Script":
        self.replies.append((status, body, {k.replace("_", "-"): v for k, v in headers.items()}))
        return self

    def hold(self) -> "Script":
        """Do not answer the next request until the test is over."""
        self.replies.append(None)
        return self

    def refuse(self, status: int, detail: str, **headers: str) -> "Script":
        body = {"status": status, "detail": detail, "code": "SOME_CODE", "instance": "req-7"}
        return self.reply(status, body, Content_Type="application/problem+json", **headers)

    @property
    def calls(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.asked]


class Server(ThreadingHTTPServer):
    """A client that hung up is no news: a trace of it would stand in a later test's stderr."""

    def handle_error(self, *_args: object) -> None:
        """Nothing."""


@pytest.fixture
def script() -> Iterator[Script]:
    told = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length)
            is_file = self.headers.get("Content-Type") == "application/octet-stream"
            body = json.loads(content) if content and not is_file else content or None
            told.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            answer = told.replies.pop(0) if told.replies else (599, "the script is over", {})
            told.arrived.set()
            if answer is None:
                told.released.wait(30)
                return
            self._answer(*answer)

        do_POST = do_GET  # noqa: N815 - the library's name

        def _answer(self, status: int, body: Any, headers: dict[str, str]) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield told
    told.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def skep(script: Script) -> Callable[..., Result]:
    """Run a command against the script; keywords are environment variables."""

    def run(*arguments: str, stdin: str = "", **environ: str | None) -> Result:
        given = {"SKEP_SERVER": script.url, "SKEP_TOKEN": KEY, "SKEP_FORMAT": None} | environ
        return CliRunner().invoke(main, arguments, input=stdin, env=given)

    return run


def make_task(task_id: str = "a0", state: str = "COMPLETED", **more: Any) -> dict[str, Any]:
    """A task as the API gives it; only what the commands look at."""
    exit_code = 0 if state == "COMPLETED" else None
    return {
        "task_id": task_id,
        "state": state,
        "name": "true",
        "cause": None,
        "exit_code": exit_code,
        "bot_id": "b1",
        "duration_s": 0.5,
        "tags": [],
        "created_at": "2026-01-01T00:00:00.000Z",
        "why": None,
    } | more
