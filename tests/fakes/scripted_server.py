"""A small real HTTP server that behaves as the specified one and can be told to misbehave.

It listens on 127.0.0.1, keeps connections open, records every call, and schedules leases the
way the protocol says.  Tests wait on it with limits; nothing here sleeps.
"""

import base64
import contextlib
import json
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
API = "/swarming/api/v1/bot/"
LIMIT_S = 20.0


@dataclass
class Call:
    """One request as it came in."""

    name: str
    path: str
    body: Json
    headers: dict[str, str]
    at: float


@dataclass
class Fault:
    """What to do to the next call of a name instead of, or after, answering it.

    ``status`` answers that; ``drop`` closes the connection unanswered, after the server acted
    when ``after`` is set; ``delay`` holds the answer until the server is told to let go.
    """

    status: int = 0
    body: bytes = b"scripted fault"
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    after: bool = False
    hold: bool = False


@dataclass
class Task:
    """What the server knows of one run."""

    manifest: Json
    lease_id: str
    output: bytearray = field(default_factory=bytearray)
    final: Json | None = None
    finals: int = 0
    errors: list[str] = field(default_factory=list)
    killing: bool = False
    lease_done: Json | None = None
    lease_state: str = "PENDING"
    claimed_at: float = 0.0


class ScriptedServer:
    """Start with ``with``; the address is `url`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.tasks: dict[str, Task] = {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.poll_replies: deque[Json] = deque()
        self.claim_replies: dict[str, Json] = {}
        self.handshake_extra: Json = {}
        self.archives: dict[str, bytes] = {}
        self.skep: Json = {}
        self.claims_for_bots = False
        self.loses_leases = 0
        """So many answers with a lease break off."""
        self.hold_s = 30.0
        self.tokens: dict[str, str] = {}
        self.secret_needed: str | None = None
        self.poll_now = False
        self.pending_raw: deque[Json] = deque()
        self._numbers = 0
        self._closing = False
        self._down = False
        self._held = threading.Event()
        self._changed = threading.Condition()
        self._offers: deque[str] = deque()
        self._httpd: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()
        self.port = 0

    def __enter__(self) -> "ScriptedServer":
        self._listen()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing = True
        self.release()
        self.stop_listening()

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def _listen(self) -> None:
        owner = self

        class Handler(_Handler):
            server_ref = owner

        self._httpd = _Httpd(("127.0.0.1", self.port), Handler)
        self.port = self._httpd.server_address[1]
        self._down = False
        threading.Thread(
            target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop_listening(self) -> None:
        """An outage: connections break, new ones are refused."""
        self._down = True
        self.notify()
        if self._httpd is not None:
            self._httpd.shutdown()
            self._httpd.server_close()
            self._httpd = None
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def listen_again(self) -> None:
        """The outage is over: same port, same memory."""
        self._listen()

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def release(self) -> None:
        """Let answers go that a fault holds back."""
        self._held.set()

    def wait_for(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        """Wait until the condition is true; its value.  AssertionError after the limit."""
        with self._changed:
            value = self._changed.wait_for(condition, limit_s)
        seen = [call.name for call in self.calls[-20:]]
        assert value, f"not within {limit_s} s; last calls: {seen}"
        return value

    def named(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def wait_calls(self, name: str, count: int = 1, limit_s: float = LIMIT_S) -> list[Call]:
        return self.wait_for(
            lambda: self.named(name) if len(self.named(name)) >= count else None, limit_s
        )

    def wait_final(self, task_id: str, limit_s: float = LIMIT_S) -> Task:
        """The task, once it was completed or failed for good."""
        task = self.tasks[task_id]
        self.wait_for(lambda: task.final is not None or task.errors, limit_s)
        return task

    def wait_lease_done(self, task_id: str, limit_s: float = LIMIT_S) -> Task:
        task = self.tasks[task_id]
        self.wait_for(lambda: task.lease_done is not None, limit_s)
        return task

    def wait_idle(self, count: int = 1) -> None:
        """Until a blocking session update is being held."""
        self.wait_for(lambda: self.holding >= count)

    holding = 0
    generation = 0

    def submit(self, command: list[str], **keys: Any) -> str:
        """Offer a task; returns its run id."""
        self._numbers += 1
        task_id = f"{self._numbers:015x}1"
        manifest: Json = {
            "task_id": task_id,
            "bot_id": "bot1",
            "bot_dimensions": {"id": ["bot1"], "pool": ["default"]},
            "dimensions": {"pool": ["default"]},
            "command": command,
            "hard_timeout": 60,
            "io_timeout": 0,
            "grace_period": 5,
            "env": {},
        }
        manifest.update(keys.pop("manifest_changes", {}))
        manifest.update(keys)
        manifest = {k: v for k, v in manifest.items() if v is not ...}
        with self._changed:
            self.tasks[task_id] = Task(manifest, f"lease-{task_id}")
            self._offers.append(task_id)
            self._changed.notify_all()
        return task_id

    def fault(self, name: str, *faults: Fault) -> None:
        self.faults[name].extend(faults)

    def answer(self, call: Call) -> tuple[int, Json | bytes]:
        """Dispatch by call name."""
        method = getattr(self, f"_on_{call.name.replace('/', '_')}", None)
        if method is None:
            return 404, {"error": "no such call"}
        return method(call)

    def _reply(self, **keys: Any) -> Json:
        if self.skep:
            keys["skep"] = dict(self.skep)
        return {"session": f"token-{len(self.calls):06d}-SECRET", **keys}

    def _rbe(self) -> Json:
        return {"instance": "local", "hybrid_mode": False, "sleep": 0, "poll_token": ""}

    def _on_handshake(self, call: Call) -> tuple[int, Json]:
        if self.secret_needed and call.headers.get("x-skep-bot-secret") != self.secret_needed:
            return 401, {"error": "who are you"}
        self.generation += 1
        self.holding = 0
        self.notify()
        extra = {"bot_group_cfg": {"dimensions": {"pool": ["default"]}}, "rbe": self._rbe()}
        extra.update(bot_version="v", server_version="s", bot_config_name="bot_config.py")
        extra.update(self.handshake_extra)
        return 200, self._reply(**extra)

    def _on_poll(self, call: Call) -> tuple[int, Json]:
        if self.poll_replies:
            return 200, {**self._reply(), **self.poll_replies.popleft()}
        return 200, self._reply(cmd="rbe", rbe=self._rbe())

    def _on_event(self, call: Call) -> tuple[int, Json]:
        return 200, {}

    def _on_enroll(self, call: Call) -> tuple[int, Json | bytes]:
        if call.body.get("token") not in self.tokens:
            return 403, b"bad token"
        return 200, {"secret": self.tokens[call.body["token"]]}

    def _on_claim(self, call: Call) -> tuple[int, Json]:
        task_id = call.body["task_id"][:-1] + "1"
        if task_id in self.claim_replies:
            return 200, self._reply(**self.claim_replies[task_id])
        task = self.tasks[task_id]
        task.claimed_at = time.monotonic()
        return 200, self._reply(cmd="run", task_id=task_id, manifest=task.manifest)

    def _on_task_update(self, call: Call) -> tuple[int, Json]:
        body = call.body
        task = self.tasks.get(body["task_id"])
        if task is None:
            return 200, self._reply(ok=True, must_stop=False)
        output = base64.b64decode(body.get("output", ""))
        start = body.get("output_chunk_start", 0)
        if output and start > len(task.output):
            return 409, f"stored={len(task.output)}".encode()  # type: ignore[return-value]
        if output:
            task.output[start : start + len(output)] = output
        if "exit_code" in body or body.get("canceled"):
            task.final = body
            task.finals += 1
        return 200, self._reply(ok=True, must_stop=task.killing and task.final is None)

    def _on_task_error(self, call: Call) -> tuple[int, Json]:
        task = self.tasks.get(call.body["task_id"])
        if task is not None:
            task.errors.append(call.body["message"])
        return 200, {}

    def _on_rbe_session_create(self, call: Call) -> tuple[int, Json]:
        return 200, self._reply(session_id=f"ls-{len(self.calls)}")

    def _on_rbe_session_update(self, call: Call) -> tuple[int, Json]:
        lease = call.body.get("lease")
        status = call.body["status"]
        if lease is not None:
            task = next((t for t in self.tasks.values() if t.lease_id == lease["id"]), None)
            if lease["state"] == "COMPLETED":
                if task is not None:
                    task.lease_done = lease["result"]
            else:
                state = task.lease_state if task is not None else "LOST"
                found = {} if state == "LOST" else {"lease": {"id": lease["id"], "state": state}}
                return 200, self._reply(status="OK", **found)
        if status != "OK":
            return 200, self._reply(status=status)
        return 200, self._offer(nonblocking=bool(call.body.get("nonblocking")))

    def _offer(self, *, nonblocking: bool) -> Json:
        with self._changed:
            self._changed.notify_all()
            generation = self.generation
            if not nonblocking:
                self.holding += 1
                self._changed.wait_for(
                    lambda: (
                        self._offers
                        or self.pending_raw
                        or self._closing
                        or self._down
                        or generation != self.generation
                        or self.poll_now
                    ),
                    self.hold_s,
                )
                self.holding -= generation == self.generation
            reply = self._reply(status="OK")
            if generation != self.generation:
                return reply
            if self.poll_now:
                self.poll_now = False
                reply["skep"] = {"poll": True}
            elif self.pending_raw:
                reply["lease"] = self.pending_raw.popleft()
            elif self._offers:
                task = self.tasks[self._offers.popleft()]
                task.lease_state = "ACTIVE"
                payload: Json = {"task_id": _public(task)}
                payload.update(task_to_run_shard=3, task_to_run_id=1)
                reply["lease"] = {"id": task.lease_id, "state": "PENDING", "payload": payload}
                if self.claims_for_bots:
                    reply["skep"] = {**self.skep, "claim": self._claimed(task)}
        return reply

    def _claimed(self, task: Task) -> Json:
        run_id = task.manifest["task_id"]
        run = {"cmd": "run", "task_id": run_id, "manifest": task.manifest}
        return self.claim_replies.get(run_id, run)


def _public(task: Task) -> str:
    return task.lease_id.removeprefix("lease-")[:-1] + "0"


class _Httpd(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_ref: ScriptedServer
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server_ref._open.add(self.connection)

    def finish(self) -> None:
        self.server_ref._open.discard(self.connection)
        super().finish()

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"{API}server_ping":
            self._serve("server_ping", {}, lambda _call: (200, b"Server up"))
        elif path.startswith(f"{API}bot_code/"):
            data = self.server_ref.archives.get(path.rpartition("/")[2])
            found = (200, data) if data is not None else (404, {"error": "no such version"})
            self._serve("bot_code", {}, lambda _call: found)
        else:
            self._serve("unknown", {}, lambda _call: (404, {"error": "no"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path
        name = "enroll" if path == "/skep/v1/enroll" else path.removeprefix(API)
        if name.startswith(("task_update/", "task_error/")):
            name = name.partition("/")[0]
        self._serve(name, body, self.server_ref.answer)

    def _serve(self, name: str, body: Json, act: Callable[[Call], tuple[int, Any]]) -> None:
        server = self.server_ref
        headers = {key.lower(): value for key, value in self.headers.items()}
        call = Call(name, self.path, body, headers, time.monotonic())
        with server._changed:
            server.calls.append(call)
            fault = server.faults[name].popleft() if server.faults[name] else None
        if fault is None:
            status, content = act(call)
            if server.loses_leases and isinstance(content, dict) and "lease" in content:
                server.loses_leases -= 1
                self._hang_up()
            else:
                self._send(status, content, {})
        else:
            self._misbehave(fault, call, act)
        server.notify()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _misbehave(self, fault: Fault, call: Call, act: Callable[[Call], tuple[int, Any]]) -> None:
        if fault.after:
            act(call)
        if fault.hold:
            self.server_ref.notify()
            self.server_ref._held.wait(LIMIT_S)
        if fault.drop or not fault.status:
            self._hang_up()
            return
        self._send(fault.status, fault.body, fault.headers)

    def _send(self, status: int, content: Json | bytes, headers: dict[str, str]) -> None:
        is_json = isinstance(content, dict)
        data = json.dumps(content).encode() if isinstance(content, dict) else content
        if status == 409 and data.startswith(b"stored="):
            headers = {**headers, "X-Skep-Committed": data[7:].decode()}
        self.send_response(status)
        if "Content-Type" not in headers:
            kind = "application/json" if is_json else "text/plain"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
