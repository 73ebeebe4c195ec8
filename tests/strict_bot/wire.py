"""How the bot speaks HTTP: what is an answer, what is tried again, what breaks it (bot-api 0.5).

Three outcomes of a call: a JSON object, `NoAnswer` (an upstream bot goes on by its own rules),
or `Violation` (the reply is one that the protocol page forbids).
"""

import base64
import binascii
import http.client
import json
import random
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

API = "/swarming/api/v1/bot"
ATTEMPTS = 30
WITHIN_S = 240.0
LONGEST_SLEEP_S = 10.0
READ_TIMEOUT_S = 60.0
MAX_REDIRECTS = 10
JSON_TYPE = "application/json; charset=utf-8"
NEVER_EMPTY = {
    *("handshake", "poll", "claim", "task_update"),
    *("rbe/session/create", "rbe/session/update", "oauth_token", "id_token"),
}
ERROR_IS_FAILURE = {"poll", "claim", "task_update"}
MINTING = {"oauth_token", "id_token"}


class Violation(Exception):
    """A reply that an unmodified bot could not work with. `row` is a row of the protocol page."""

    def __init__(self, row, text):
        super().__init__(f"bot-api {row}: {text}")
        self.row = row


class NoAnswer(Exception):
    """The call failed, in a way for which the bot has rules. `status` 0: no reply at all."""

    def __init__(self, text, status=0):
        super().__init__(text)
        self.status = status


class FatalMint(Exception):
    """A token call was answered with an error for whoever asked for the token (bot-api 1.9)."""


class RealClock:
    """Time and chance."""

    def __init__(self, seed=None):
        self._random = random.Random(seed)

    def monotonic(self):
        return time.monotonic()

    def sleep(self, seconds):
        time.sleep(seconds)

    def uniform(self, low, high):
        return self._random.uniform(low, high)


class Transcript:
    """Everything that was said and decided, one JSON object a line."""

    def __init__(self, path=None):
        self._file = open(path, "a", encoding="utf-8") if path else None  # noqa: SIM115
        self._lock = threading.Lock()
        self.lines = []

    def add(self, **what):
        with self._lock:
            self.lines.append(what)
            if self._file:
                self._file.write(json.dumps(what, sort_keys=True) + "\n")
                self._file.flush()

    def close(self):
        if self._file:
            self._file.close()


@dataclass
class Response:
    """One HTTP response as it came in; header names in lower case."""

    status: int
    headers: dict
    body: bytes

    @property
    def content_type(self):
        return self.headers.get("content-type", "")

    def shown(self):
        try:
            body = json.loads(self.body)
        except ValueError:
            body = self.body[:500].decode(errors="replace")
        return {"status": self.status, "headers": self.headers, "body": body}


def encode(body):
    """A request body as real bots write it (bot-api 0.3): sorted keys, no spaces, UTF-8."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass
class Wire:
    """The remote client of one bot process; `session` is the newest token."""

    url: str
    bot_id: str
    clock: object
    transcript: Transcript
    session: str = ""
    headers: dict = field(default_factory=dict)

    def __post_init__(self):
        self._cookie = f"GOOGAPPUID={min(999, int(self.clock.uniform(0, 1000)))}"

    # The calls.

    def post(self, name, body, *, task_id="", once=False):
        """The JSON object of a successful call. Raises NoAnswer, Violation or FatalMint."""
        path = f"{API}/{name}" + (f"/{task_id}" if task_id else "")
        content = encode(body)
        headers = {"Content-Type": "application/json; charset=UTF-8", **self._own_headers()}
        readable = {400} if name in MINTING else set()

        def answer(response):
            return self._json(name, response)

        return self._tries("POST", path, content, headers, answer, readable, once, name)

    def get(self, path, *, name, with_bot=True):
        """The response to a GET, redirects followed (bot-api 8.6), tried again like a post."""
        headers = self._own_headers() if with_bot else self._agent()

        def answer(response):
            return response

        return self._tries("GET", path, None, headers, answer, set(), False, name)

    def _own_headers(self):
        own = {"X-Luci-Swarming-Bot-ID": self.bot_id, "Cookie": self._cookie}
        return {**self._agent(), **own, **self.headers}

    def _agent(self):
        return {"User-Agent": f"swarming_bot/1.0.0@{socket.gethostname()}"}

    def _tries(self, method, path, content, headers, answer, readable, once, name):
        """At most 30 attempts within 240 s (bot-api 0.5)."""
        until = self.clock.monotonic() + WITHIN_S
        for number in range(1 if once else ATTEMPTS):
            try:
                response = self._exchange(method, path, content, headers, name=name, number=number)
            except (OSError, http.client.HTTPException) as error:
                failure = NoAnswer(f"{name}: {type(error).__name__}: {error}")
            else:
                if response.status < 300 or response.status in readable:
                    return answer(response)
                if method == "POST" and response.status < 400:
                    line = f"{name}: {response.status}; redirects are not followed"
                    raise Violation("0.5.2.3", line)
                failure = NoAnswer(f"{name}: {response.status}", response.status)
                if not is_transient(response, path):
                    break
            if self.clock.monotonic() > until:
                break
            if not once:
                self.clock.sleep(self._pause(number))
        raise failure

    def _pause(self, number):
        """Seconds after attempt `number`, counted from 0."""
        return min(LONGEST_SLEEP_S, self.clock.uniform(0, 1.5) + 1.5 ** (number - 1))

    def _exchange(self, method, path, content, headers, *, name, number):
        """One attempt. Redirects are followed for GET only; the last response is returned."""
        for _ in range(MAX_REDIRECTS):
            seen = {
                "call": name,
                "attempt": number,
                "at": self.clock.monotonic(),
                "request": {
                    "method": method,
                    "path": path,
                    "headers": headers,
                    "body": json.loads(content) if content else None,
                },
            }
            try:
                response = self.send(method, path, content, headers)
            except (OSError, http.client.HTTPException) as error:
                self.transcript.add(**seen, error=f"{type(error).__name__}: {error}")
                raise
            shown = response.shown()
            self.transcript.add(**seen, response=shown)
            if method != "GET" or not 300 <= response.status < 400:
                return response
            path = urllib.parse.urljoin(path, response.headers.get("location", ""))
        raise http.client.HTTPException(f"{MAX_REDIRECTS} redirects")

    def send(self, method, path, content, headers):
        """One request over a connection of its own."""
        base = urllib.parse.urlsplit(self.url)
        target = urllib.parse.urlsplit(path)
        kind = http.client.HTTPConnection
        if base.scheme == "https":
            kind = http.client.HTTPSConnection
        connection = kind(base.netloc, timeout=READ_TIMEOUT_S)
        try:
            where = target.path + (f"?{target.query}" if target.query else "")
            connection.request(method, where, content, headers)
            with connection.getresponse() as reply:
                found = {key.lower(): value for key, value in reply.getheaders()}
                return Response(reply.status, found, reply.read())
        finally:
            connection.close()

    # What a JSON reply must be.

    def _json(self, name, response):
        if response.status == 400:
            return self._mint_refusal(name, response)
        body = _object(name, response)
        token = body.get("session")
        if token:
            check_token(name, token)
            self.session = token
        if not body and name in NEVER_EMPTY:
            raise Violation("0.5.2.1", f"{name}: an empty object is no success")
        if body.get("error"):
            if name in MINTING:
                raise FatalMint(str(body["error"]))
            if name in ERROR_IS_FAILURE:
                raise Violation("0.5.2.9", f"{name}: {response.status} with error {body['error']}")
        for key, value in body.items():
            if value is None:
                raise Violation("0.3.1.9", f"{name}: {key} is null; leave it out")
        return body

    def _mint_refusal(self, name, response):
        """A 400 of a token call is read: JSON with `error`, else it looks transient."""
        try:
            body = json.loads(response.body)
        except ValueError:
            body = None
        if not isinstance(body, dict) or not body.get("error"):
            raise Violation("1.9.p1", f"{name}: a 400 without a JSON object with error")
        raise FatalMint(str(body["error"]))


def is_transient(response, path):
    """Is the call tried again after this response? (bot-api 0.5)"""
    if response.status in {408, 429} or response.status >= 500:
        return True
    is_json = response.content_type.startswith("application/json")
    return response.status == 404 and "/api/" in path and not is_json


def _object(name, response):
    """The JSON object in a 2xx; a bot takes anything else for no answer at all."""
    try:
        body = json.loads(response.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = response.body[:60]
        raise Violation("0.5.2.2", f"{name}: {response.status} without a JSON object: {text!r}")
    if response.content_type != JSON_TYPE or not response.body.endswith(b"\n"):
        line = f"{name}: not {JSON_TYPE!r} with a newline at the end: {response.content_type!r}"
        raise Violation("0.3.1.3", line)
    return body


def check_token(name, token):
    """Session tokens are standard base64 with padding (bot-api 0.3)."""
    try:
        base64.b64decode(token, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Violation("0.3.1.4", f"{name}: session is not base64") from None


def back_off_s(clock, failures, base):
    """Seconds to wait after that many failures in a row (bot-api A.3)."""
    if failures <= 1:
        return 0.0
    if base ** (failures - 1) >= 300:
        return 300.0
    return min(300.0, base ** (failures - 1) * clock.uniform(0.8, 1.2))
