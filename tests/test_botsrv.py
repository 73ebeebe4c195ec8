"""The door of the bot path: every refusal of bot-api 0.3 to 0.5, and that it changes nothing."""

import base64
import json
import logging
import os
import random
import select
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from botpb import session_pb2
from msgspec.inspect import AnyType, type_info
from werkzeug.test import EnvironBuilder, run_wsgi_app

from botapi.auth.botsession import PREFIX, encode
from botapi.auth.hmactoken import Secret, tag
from botapi.botsrv import SMALL_BODY, UPDATE_BODY, WITH_SESSION, WITHOUT_SESSION
from botapi.domain.bot_groups import AuthMethod
from botapi.domain.errors import Code, Refusal
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import Outage, join_key
from tests.fakes.sim_bot import BOT_PATH, JSON
from tests.handlers.conftest import write_bot
from tests.handlers.test_life_of_a_bot import output_of, submit
from tests.ports import free_port
from tests.transactions.stores import dump

PATHS = [BOT_PATH + route.path for route in (*WITHOUT_SESSION, *WITH_SESSION)]
SESSION_PATHS = [BOT_PATH + route.path for route in WITH_SESSION]
JSON_PATHS = [BOT_PATH + route.path for route in WITH_SESSION if route.refuses_in_json]
LINE = "rpc error: code = {} desc = {}\n"


@pytest.fixture
def settings(tmp_path):
    archive = write_bot(tmp_path / "bot.zip")
    return Settings(data_dir=tmp_path / "data", bot_archive=archive, hold_min_s=5, hold_max_s=5)


@pytest.fixture
def bot(make_bot):
    return make_bot().start()


@contextmanager
def nothing_changes(store):
    before = dump(store)
    yield
    assert dump(store) == before


def post(client, path, body, content_type=JSON, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, data=data, headers={"Content-Type": content_type, **headers})


def says(response, status, code, text):
    """One line of text, exactly; JSON where a bot reads a 400 as such (bot-api 1.9)."""
    if status == 400 and response.request.path in JSON_PATHS:
        assert (response.status_code, response.get_json()) == (400, {"error": text})
        assert response.content_type == "application/json; charset=utf-8"
    else:
        assert (response.status_code, response.text) == (status, LINE.format(code, text))
        assert response.content_type == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-Id"]


@pytest.mark.spec("0.3.1.2", "0.4.1.2")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type", ["", "application/json", "text/plain; charset=utf-8", "application/json;"]
)
def test_call_is_refused_when_its_content_type_is_another(parts, client, path, content_type):
    with nothing_changes(parts.store):
        response = post(client, path, {}, content_type)
    line = f'Content-Type: "{content_type}" is not "application/json; charset=utf-8"'
    says(response, 400, "InvalidArgument", line)


@pytest.mark.spec("0.3.1.2")
def test_content_type_is_compared_in_lower_case(client):
    dims = {"dimensions": {"id": ["vm1"]}}
    for name in ("application/json; charset=UTF-8", "Application/JSON; Charset=utf-8"):
        assert post(client, BOT_PATH + "/handshake", dims, name).status_code == 200


BAD_JSON = {
    "empty": b"",
    "text": b"hello",
    "cut": b'{"dimensions": {"id": ["vm1"]',
    "tail": b"{} {}",
    "list": b"[]",
    "string": b'"x"',
    "null": b"null",
    "nan": b'{"state": {"a": NaN}}',
    "infinity": b'{"state": {"a": Infinity}}',
    "huge float": b'{"state": {"a": 1e999}}',
    "not utf-8": b'{"version": "\xff"}',
    "control character": b'{"version": "\x01"}',
    "half a surrogate pair": b'{"version": "\\ud800 abcdef"}',
    "low surrogate": b'{"version": "\\udc00 abcdef"}',
    "deep": b'{"state": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"state": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep unknown key": b'{"zzz": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
}


@pytest.mark.spec("0.3.1.1", "0.4.1.4")
@pytest.mark.parametrize("path", [BOT_PATH + "/handshake", BOT_PATH + "/poll"])
@pytest.mark.parametrize("name", BAD_JSON)
def test_body_that_is_no_json_object_is_refused(parts, client, path, name):
    with nothing_changes(parts.store):
        response = post(client, path, BAD_JSON[name])
    assert response.status_code == 400
    assert response.text.startswith("rpc error: code = InvalidArgument desc = body: ")
    assert response.text.count("\n") == 1


@pytest.mark.spec("0.3.1.7", "0.4.1.4")
@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/handshake", {"dimensions": {"id": "vm1"}}, "$.dimensions[...]"),
        ("/handshake", {"dimensions": {"id": [1]}}, "$.dimensions[...][0]"),
        ("/handshake", {"dimensions": ["id"]}, "$.dimensions"),
        ("/handshake", {"version": 5}, "$.version"),
        ("/handshake", {"session_id": {}}, "$.session_id"),
        ("/poll", {"session": 5}, "$.session"),
        ("/poll", {"dimensions": {"id": [None]}}, "$.dimensions[...][0]"),
        ("/poll", {"request_uuid": 1}, "$.request_uuid"),
        ("/claim", {"task_to_run_id": "1"}, "$.task_to_run_id"),
        ("/claim", {"claim_id": 1}, "$.claim_id"),
        ("/event", {"message": 1}, "$.message"),
        ("/task_update", {"exit_code": "0"}, "$.exit_code"),
        ("/task_update", {"exit_code": True}, "$.exit_code"),
        ("/task_update", {"output": 5}, "$.output"),
        ("/task_update", {"output_chunk_start": "0"}, "$.output_chunk_start"),
        ("/task_update", {"canceled": 1}, "$.canceled"),
        ("/task_update", {"duration": "1"}, "$.duration"),
        ("/task_error", {"client_error": []}, "$.client_error"),
        ("/task_error", {"client_error": {"missing_cas": [5]}}, "$.client_error.missing_cas[0]"),
        ("/rbe/session/update", {"lease": "x"}, "$.lease"),
        ("/rbe/session/update", {"nonblocking": "yes"}, "$.nonblocking"),
    ],
)
def test_wrong_type_is_refused_with_its_place(parts, client, path, body, place):
    with nothing_changes(parts.store):
        response = post(client, BOT_PATH + path, body)
    assert response.status_code == 400
    assert response.text.startswith("rpc error: code = InvalidArgument desc = body: Expected `")
    assert f"`{place}`" in response.text


@pytest.mark.spec("0.3.1.5", "0.3.1.8")
@pytest.mark.parametrize("path", ["/handshake", "/poll"])
def test_null_is_the_same_as_absent_and_unknown_keys_are_ignored(parts, client, bot, path):
    body = {"dimensions": bot.dims, "session": bot.session, "version": bot.version}
    nothing = {"state": None, "session_id": None, "request_uuid": None, "zzz": 1}
    assert post(client, BOT_PATH + path, body | nothing).status_code == 200
    (doc,) = parts.store.get(codec.BOT, join_key("vm1"))
    assert codec.read_bot(doc).quarantined == "", "a state of null is an empty one"


@pytest.mark.spec("0.3.1.5")
@pytest.mark.parametrize("path", PATHS)
def test_key_that_no_call_knows_changes_no_answer(client, bot, path):
    body = {"session": bot.session, "dimensions": bot.dims, "version": bot.version}
    without = post(client, path, body)
    with_key = post(client, path, body | {"zzz": [{"a": None}], "Zzz": 1})
    assert without.status_code == with_key.status_code
    if without.status_code != 200:
        assert without.data == with_key.data


@pytest.mark.control("requests.body-limits")
@pytest.mark.parametrize("path", PATHS)
def test_body_over_its_limit_is_refused_and_the_connection_closed(parts, client, path):
    limit = UPDATE_BODY if path.endswith("task_update") else SMALL_BODY
    with nothing_changes(parts.store):
        response = post(client, path, b" " * (limit + 1))
    assert (response.status_code, response.headers["Connection"]) == (413, "close")
    line = f"rpc error: code = InvalidArgument desc = the body is larger than {limit} bytes\n"
    assert response.text == line
    within = post(client, path, b"{}" + b" " * (limit - 2))
    assert within.status_code in {400, 401}


@pytest.mark.spec("0.4.1.5", "2.5.1.3")
@pytest.mark.parametrize("path", SESSION_PATHS)
def test_call_without_a_session_is_refused(parts, client, bot, path):
    for body in ({}, {"session": ""}, {"session": None}):
        with nothing_changes(parts.store):
            response = post(client, path, body)
        says(response, 401, "Unauthenticated", "session: missing; handshake first")


@pytest.mark.spec("0.4.1.6", "2.5.1.3")
@pytest.mark.parametrize("path", SESSION_PATHS)
def test_call_with_a_token_that_is_none_is_refused(parts, client, bot, path):
    for token in ("%%%", "aGVsbG8=", "x" * 100_000):
        with nothing_changes(parts.store):
            response = post(client, path, {"session": token})
        assert response.status_code == 401
        assert response.text.startswith("rpc error: code = Unauthenticated desc = session: ")
        assert token[:20] not in response.text


def test_call_is_refused_when_any_bit_of_its_token_is_flipped(parts, client, bot):
    raw = base64.b64decode(bot.session)
    bits = random.Random(1).sample(range(len(raw) * 8), 60)
    with nothing_changes(parts.store):
        for bit in bits:
            forged = bytearray(raw)
            forged[bit // 8] ^= 1 << bit % 8
            token = base64.b64encode(forged).decode()
            response = post(client, BOT_PATH + "/event", {"session": token, "event": "bot_log"})
            assert response.status_code == 401, bit


def test_call_is_refused_when_another_key_signed_its_token(parts, client, bot):
    token = encode(parts.bots.session_of(bot.session), Secret(b"x" * 32))
    with nothing_changes(parts.store):
        response = post(client, BOT_PATH + "/event", {"session": token, "event": "bot_log"})
    assert response.status_code == 401


@pytest.mark.spec("0.4.1.8", "2.5.1.3", "13.1.1")
def test_call_is_refused_when_its_session_is_expired(parts, clock, bot):
    clock.advance(3600)
    assert bot.call("/event", event="bot_log") == {}
    assert bot.status == 200
    clock.advance(0.001)
    with nothing_changes(parts.store):
        bot.call("/event", event="bot_log")
    line = LINE.format("Unauthenticated", "session: expired; poll or handshake again")
    assert (bot.status, bot.text) == (401, line)


def forget(store, bot_id):
    store.transact(lambda txn: txn.delete(codec.BOT, join_key(bot_id)), label="test")


@pytest.mark.spec("0.4.p1", "0.4.1.10")
@pytest.mark.parametrize("path", [route.path for route in WITH_SESSION])
def test_call_of_a_bot_nobody_knows_is_refused(parts, bot, path):
    forget(parts.store, "vm1")
    with nothing_changes(parts.store):
        bot.call(path)
    line = LINE.format("PermissionDenied", 'bot "vm1" is not known; poll or handshake')
    assert (bot.status, bot.text) == (403, line)


def test_poll_makes_a_deleted_bot_known_again(parts, bot):
    forget(parts.store, "vm1")
    assert bot.poll()["cmd"] == "rbe"
    bot.call("/event", event="bot_log")
    assert bot.status == 200


@pytest.mark.spec("0.4.1.12", "0.4.1.13")
@pytest.mark.parametrize(
    ("dimensions", "text"),
    [
        (("id:vm2", "pool:p"), 'stored dimensions of "vm1" name another id'),
        (("id:vm1",), 'bot "vm1" is in no pool'),
    ],
)
def test_call_fails_when_the_stored_dimensions_are_broken(parts, bot, dimensions, text):
    (doc,) = parts.store.get(codec.BOT, join_key("vm1"))
    broken = codec.bot_doc(replace(codec.read_bot(doc), dimensions=dimensions))
    parts.store.transact(lambda txn: txn.put(codec.BOT, broken), label="test")
    bot.call("/event", event="bot_log")
    assert (bot.status, bot.text) == (500, LINE.format("Internal", text))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("X-Luci-Gce-Vm-Token", "settings.cfg has no gce_vm_tokens"),
        ("X-Luci-Machine-Token", "not base64"),
        ("Authorization", "only Bearer tokens are understood"),
    ],
)
@pytest.mark.spec("0.4.1.1")
def test_call_with_a_bad_credential_is_refused_before_anything_else(parts, client, header, said):
    with nothing_changes(parts.store):
        response = post(client, BOT_PATH + "/handshake", "no object", **{header: "x"})
    says(response, 401, "Unauthenticated", f"{header}: {said}")


@pytest.mark.spec("C.1.1")
@pytest.mark.spec("1.1.1.5", "1.1.1.7", "1.1.1.8", "1.1.1.9", "1.1.1.11", "1.1.1.15", "1.1.1.16")
@pytest.mark.parametrize("path", PATHS)
def test_other_methods_are_not_allowed(client, path):
    assert client.get(path).status_code == 405
    assert client.put(path).status_code == 405


@pytest.mark.spec("1.1.1.1", "1.2.p1")
def test_ping_says_that_the_server_is_up(client):
    response = client.get(BOT_PATH + "/server_ping")
    assert (response.status_code, response.text) == (200, "Server up")
    assert response.content_type == "text/plain; charset=utf-8"


@pytest.mark.spec("0.3.1.3")
def test_reply_is_json_with_a_newline(client, bot):
    body = {"session": bot.session, "event": "bot_log"}
    response = post(client, BOT_PATH + "/event", body)
    assert (response.status_code, response.data) == (200, b"{}\n")
    assert response.content_type == "application/json; charset=utf-8"


@pytest.mark.spec("1.1.1.10")
def test_task_id_in_the_path_is_never_read(parts, client, bot):
    body = {"session": bot.session, "task_id": ""}
    response = post(client, BOT_PATH + "/task_update/76d00eba71beef11", body)
    says(response, 400, "InvalidArgument", "task_id: missing")


class Away:
    """A store whose every transaction fails."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def transact(self, *_args, **_more):
        raise Outage("the disk is gone")


def test_store_outage_is_answered_unavailable_and_try_again(parts, bot, client):
    from botapi import app as composition

    parts.bots = replace(parts.bots, store=Away(parts.store))
    client = composition.create_app(parts).test_client()
    with nothing_changes(parts.store):
        body = {"session": bot.session, "event": "bot_log"}
        response = post(client, BOT_PATH + "/event", body)
    says(response, 503, "Unavailable", "the disk is gone")
    assert response.headers["Retry-After"] == "2"


@pytest.fixture
def address(tmp_path):
    """A real `skep serve` on a free port; its output goes to a file."""
    place = ("127.0.0.1", free_port())
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SKEP_")}
    environ |= {"SKEP_DATA_DIR": str(tmp_path / "data"), "SKEP_PORT": str(place[1])}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "botapi.cli", "serve"], env=environ, stdout=log, stderr=log
        )
    tick = threading.Event()
    for _ in range(600):
        with suppress(OSError), socket.create_connection(place, timeout=1):
            break
        assert process.poll() is None, (tmp_path / "log").read_text()
        tick.wait(0.05)
    yield place
    process.terminate()
    process.wait(40)


@pytest.mark.control("requests.body-limits")
@pytest.mark.e2e
def test_server_cuts_a_huge_body_early_and_closes(address):
    """100 MB are offered; the answer comes and the pipe breaks long before that."""
    head = (
        f"POST {BOT_PATH}/task_update HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for announced in (False, True):
        text = head.replace("Transfer-Encoding: chunked", "Content-Length: 100000000")
        sent, reply = flood(address, text if announced else head, is_chunked=not announced)
        assert reply.split()[1] == b"413"
        assert b"connection: close" in reply.lower()
        assert sent < 50 * 2**20


@pytest.mark.control("requests.body-limits")
@pytest.mark.e2e
@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n0\r\n\r\n", b"3\r\nabcXX0\r\n\r\n", b"-5\r\nabc"])
@pytest.mark.parametrize(
    "path", [f"{BOT_PATH}/handshake", "/api/v1/tasks", "/prpc/swarming.v2.Bots/ListBots", "/signin"]
)
def test_malformed_chunks_are_the_callers_mistake(address, path, body):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    reply = b""
    with socket.create_connection(address, timeout=30) as link:
        link.sendall(f"{head}Content-Type: application/json; charset=utf-8\r\n\r\n".encode() + body)
        link.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := link.recv(65536):
                reply += part
    assert reply.split()[1] in {b"400", b"401"}


def flood(address, head, *, is_chunked):
    """Send 100 MB unless the server ends it; how much went out, and the reply."""
    block = b"x" * 65536
    piece = b"%x\r\n%s\r\n" % (len(block), block) if is_chunked else block
    sent = 0
    with socket.create_connection(address, timeout=30) as link:
        link.sendall(head.encode())
        reply = b""
        while sent < 100_000_000 and not select.select([link], [], [], 0)[0]:
            with suppress(ConnectionError):
                link.sendall(piece)
                sent += len(piece)
        with suppress(ConnectionError):
            while part := link.recv(65536):
                reply += part
    return sent, reply


HEADERS = ["X-Luci-Gce-Vm-Token", "X-Luci-Machine-Token", "Authorization"]


@pytest.mark.spec("0.4.1.1", "0.4.p1", "0.6.1.5", "0.6.1.6", "0.6.1.7")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", HEADERS)
def test_bad_credential_is_refused_before_type_and_body(parts, client, path, header):
    with nothing_changes(parts.store):
        response = post(client, path, b"no JSON", "text/plain", **{header: "Bearer x"})
    assert response.status_code == 401
    assert response.text.startswith("rpc error: code = Unauthenticated desc = ")
    assert response.text.count("\n") == 1
    without = post(client, path, b"no JSON", "text/plain")
    assert without.status_code == 400, "no header at all is an anonymous caller"


ORDER = [
    (b"no JSON", "text/plain", 400, "Content-Type"),
    (b"no JSON", JSON, 400, "body"),
    (b'{"session": 5}', JSON, 400, "body"),
    (b'{"event": "x"}', JSON, 401, "session: missing"),
    (b'{"session": "%%%", "event": "x"}', JSON, 401, "session: "),
]


@pytest.mark.spec("0.4.p1", "0.4.1.2", "0.4.1.4", "0.4.1.5", "0.4.1.6")
@pytest.mark.parametrize(("body", "content_type", "status", "said"), ORDER)
def test_checks_of_a_call_come_in_their_order(client, bot, body, content_type, status, said):
    """Each call has the faults of all later checks too, among them an event of no kind."""
    response = post(client, BOT_PATH + "/event", body, content_type)
    assert response.status_code == status
    assert f" desc = {said}" in response.text


def fix(parts, bot, **more):
    """The bot's token, signed again with these changes."""
    bot.session = parts.bots.token(replace(parts.bots.session_of(bot.session), **more))


@pytest.mark.spec("0.4.1.8", "0.4.1.9", "0.4.1.10", "0.4.1.12", "0.4.1.13")
def test_checks_of_a_session_come_in_their_order(parts, clock, bot):
    session = parts.bots.session_of(bot.session)
    strict = (AuthMethod(ip_whitelist="nowhere"),)
    refused = replace(session, bot_config=replace(session.bot_config, bot_auth=strict))
    (doc,) = parts.store.get(codec.BOT, join_key("vm1"))
    broken = codec.bot_doc(replace(codec.read_bot(doc), dimensions=("id:vm2",)))
    parts.store.transact(lambda txn: txn.put(codec.BOT, broken), label="test")
    calls = [
        ({"bot_config": refused.bot_config, "bot_id": "none", "expiry_ms": 1}, 401, "expired"),
        ({"bot_config": refused.bot_config, "bot_id": "none"}, 401, "nowhere"),
        ({"bot_id": "none"}, 403, "not known"),
        ({}, 500, "another id"),
    ]
    for changes, status, said in calls:
        bot.session = parts.bots.token(replace(session, **changes))
        bot.call("/event", event="none")
        assert (bot.status, said in bot.text) == (status, True), bot.text


@pytest.mark.spec("0.4.1.7")
@pytest.mark.parametrize(
    "name", ["bot_id", "session_id", "expiry", "bot_config", "last_seen_config"]
)
def test_token_of_ours_without_a_field_is_our_own_mistake(parts, bot, name):
    secret = parts.bots.keys.secret("session")
    envelope = session_pb2.SessionToken.FromString(base64.b64decode(bot.session))
    message = session_pb2.Session.FromString(envelope.hmac_tagged.session)
    message.ClearField(name)
    body = message.SerializeToString()
    tagged = session_pb2.SessionToken.HmacTagged(
        session=body, hmac_sha256=tag(secret, PREFIX, body)
    )
    token = session_pb2.SessionToken(hmac_tagged=tagged).SerializeToString()
    bot.session = base64.b64encode(token).decode()
    bot.call("/event", event="bot_log")
    assert (bot.status, bot.text) == (
        500,
        LINE.format("Internal", f"session: the session has no {name}"),
    )
    assert bot.poll()["message"] == "session expired", "a poll goes on without one"


@pytest.mark.spec("0.4.1.11")
def test_call_of_an_older_session_is_logged_and_goes_on(parts, bot, make_bot, caplog):
    other = make_bot()
    other.session_id = "second"
    other.handshake()
    caplog.set_level(logging.INFO)
    assert bot.call("/event", event="bot_log") == {}
    assert bot.status == 200
    assert 'bot "vm1": a call of its older session vm1-session/1' in caplog.messages


@pytest.mark.spec("0.4.1.14")
def test_handler_is_given_the_session_and_what_is_stored(parts, clock, bot):
    """The event route's handler is exchanged for one that keeps what it was given."""
    (route,) = [route for route in WITH_SESSION if route.path == "/event"]
    seen = []

    def keep(server, call, _body):
        seen.append((server, call))
        return was(server, call, _body)

    was = route.handle
    object.__setattr__(route, "handle", keep)
    try:
        bot.call("/event", event="bot_log")
    finally:
        object.__setattr__(route, "handle", was)
    ((server, call),) = seen
    assert call.session == parts.bots.session_of(bot.session)
    assert call.bot.dimensions == ("id:vm1", "os:Linux", "pool:default")
    assert (call.bot.task_id, call.bot.owners, call.identity.method) == ("", (), "ip_whitelist")
    assert server.last_seen.get("vm1")["vm1"].seen_ms == clock.now_ms()


class Torn:
    """A body that breaks off."""

    def read(self, _size=-1):
        raise ConnectionResetError


@pytest.mark.spec("0.4.1.3")
@pytest.mark.parametrize("length", [{"CONTENT_LENGTH": "10"}, {"wsgi.input_terminated": True}])
@pytest.mark.parametrize("path", [BOT_PATH + "/handshake", BOT_PATH + "/event"])
def test_body_that_breaks_off_is_an_internal_error_without_a_traceback(
    parts, client, path, length, caplog
):
    environ = EnvironBuilder(path, method="POST", headers={"Content-Type": JSON}).get_environ()
    environ |= {"wsgi.input": Torn(), "REMOTE_ADDR": "127.0.0.1", **length}
    with nothing_changes(parts.store):
        body, status, headers = run_wsgi_app(client.application, environ)
    assert status == "500 Internal Server Error"
    said = LINE.format("Internal", "the body could not be read to its end")
    assert b"".join(body).decode() == said
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert [record for record in caplog.records if record.exc_info] == []


STATUSES = [
    ("InvalidArgument", 400),
    ("FailedPrecondition", 400),
    ("OutOfRange", 400),
    ("Unauthenticated", 401),
    ("PermissionDenied", 403),
    ("NotFound", 404),
    ("AlreadyExists", 409),
    ("Aborted", 409),
    ("ResourceExhausted", 429),
    ("Canceled", 499),
    ("Internal", 500),
    ("Unknown", 500),
    ("DataLoss", 500),
    ("Unimplemented", 501),
    ("Unavailable", 503),
    ("DeadlineExceeded", 504),
]


@pytest.mark.spec("0.5.p1", "0.5.1.1", "0.5.1.2", "0.5.1.3", "0.5.1.4", "0.5.1.5")
@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_refusal_is_answered_with_the_status_of_its_code(
    parts, client, bot, monkeypatch, name, status
):
    assert {known.wire_name for known in Code} == {name for name, _ in STATUSES}
    (code,) = [known for known in Code if known.wire_name == name]

    def refuse(*_args, **_more):
        raise Refusal(code, "no\nwonder")

    monkeypatch.setattr(parts.last_seen, "touch", refuse)
    response = post(client, BOT_PATH + "/event", {"session": bot.session, "event": "bot_log"})
    if status == 404:
        assert response.json == {"error": "no wonder"}
        assert response.content_type == "application/json; charset=utf-8"
    else:
        says(response, status, name, "no wonder")
    assert response.status_code == status


NOWHERE = ["nothing", "poll/", "bot_code/", "task_update/", "task_update/a/b", "Poll", "rbe"]


@pytest.mark.spec("0.5.2.7")
@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize("path", NOWHERE)
def test_path_that_is_none_is_answered_404_in_json(client, method, path):
    response = client.open(f"{BOT_PATH}/{path}", method=method, data=b"{}")
    assert response.status_code == 404
    assert response.content_type == "application/json; charset=utf-8"
    assert response.json == {"error": f"no such path: {BOT_PATH}/{path}"}


@pytest.mark.parametrize(
    "path", [*PATHS, BOT_PATH + "/task_update/76d00eba71beef11", BOT_PATH + "/task_error/a"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_told_the_right_one(parts, client, path, method):
    with nothing_changes(parts.store):
        response = client.open(path, method=method)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    if method != "HEAD":
        assert response.text == f"{method} is not a method of this path; use POST\n"


@pytest.mark.spec("1.1.1.1", "1.1.1.4")
@pytest.mark.parametrize("path", ["/server_ping", "/bot_code", "/bot_code/" + "0" * 64])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_paths_to_read_take_nothing_else(client, path, method):
    response = client.open(BOT_PATH + path, method=method)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET")


def in_caps(value, known):
    """The JSON object with its own keys in capitals; what is free-form stays."""
    return {
        key.upper(): in_caps(item, known) if key in known else item for key, item in value.items()
    }


@pytest.mark.spec("0.3.1.6")
def test_keys_are_known_in_any_case(parts, client, bot):
    def call(path, body):
        response = post(client, BOT_PATH + path, in_caps(body, {"lease", "result"}))
        assert response.status_code == 200, response.text
        return response.json

    dims = {"id": ["vm1"], "OS": ["x"], "os": ["y"]}
    state = {"Disk": 5, "disk": 6, "client": {"name": "skep"}}
    body = {"dimensions": dims, "state": state, "session_id": "caps", "version": bot.version}
    session = call("/handshake", body)["session"]
    reply = call("/poll", {**body, "session": session})
    assert reply["cmd"] == "rbe"
    (doc,) = parts.store.get(codec.BOT, join_key("vm1"))
    stored = codec.read_bot(doc)
    assert stored.dimensions == ("OS:x", "id:vm1", "os:y", "pool:default")
    assert stored.session_id == "caps"
    assert parts.last_seen.get("vm1")["vm1"].state == state
    session = call("/rbe/session/create", {"session": session})["session"]
    lease = {"id": "x", "state": "COMPLETED", "result": {"skip_reason": "s"}}
    body = {"session": session, "status": "OK", "nonblocking": True, "lease": lease}
    assert call("/rbe/session/update", body)["status"] == "OK"
    assert call("/event", {"session": session, "event": "bot_log"}) == {}


@pytest.mark.spec("0.3.1.6")
def test_key_in_its_own_case_wins_and_a_wrong_type_has_its_place(client, bot):
    body = {"session": bot.session, "EVENT": "bot_log", "event": None, "Event": "none"}
    assert post(client, BOT_PATH + "/event", body).status_code == 400
    body = {"Session": bot.session, "EVENT": 5}
    response = post(client, BOT_PATH + "/event", body)
    assert "`$.event`" in response.text


@pytest.mark.spec("0.3.1.4")
def test_bytes_are_standard_base64_with_padding(parts, bot):
    """Tokens of several lengths: some need padding, some hold a `+` or a `/`."""
    session = parts.bots.session_of(bot.session)
    wrong = set()
    for length in range(1, 30):
        good = parts.bots.token(replace(session, rbe_bot_session_id="~" * length))
        assert base64.b64encode(base64.b64decode(good, validate=True)).decode() == good
        bot.session = good
        assert bot.call("/event", event="bot_log") == {}
        wrong |= {good.replace("+", "-").replace("/", "_"), good.rstrip("=")} - {good}
    assert {"=" in token for token in wrong} == {True, False}
    for bot.session in wrong:
        bot.call("/event", event="bot_log")
        assert bot.status == 401


@pytest.mark.spec("0.3.1.4")
@pytest.mark.parametrize(
    ("output", "status"), [("+/8=", 200), ("-_8=", 400), ("+/8", 400), ("+/8=\n", 400)]
)
def test_output_is_standard_base64_with_padding(parts, bot, output, status):
    request = submit(parts)
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    bot.call("/task_update", task_id=run_id, output=output)
    assert bot.status == status
    assert output_of(parts, request) == (b"\xfb\xff" if status == 200 else b"")


@pytest.mark.spec("0.3.1.11")
@pytest.mark.parametrize("duration", [1, 0.25, 1e3])
def test_durations_are_numbers_of_seconds(client, bot, duration):
    body = {"session": bot.session, "task_id": "76d00eba71beef11", "exit_code": 0}
    reply = post(client, BOT_PATH + "/task_update", {**body, "duration": duration})
    assert (reply.status_code, reply.json["ok"]) == (200, False)


@pytest.mark.spec("0.6.1.1", "0.6.1.2", "0.6.1.3", "0.6.1.4")
def test_other_headers_of_a_bot_decide_nothing(parts, client, bot):
    headers = {
        "User-Agent": "swarming_bot/1.0.0@elsewhere",
        "X-Luci-Swarming-Bot-ID": "other",
        "Cookie": "GOOGAPPUID=17",
    }
    body = {"session": bot.session, "event": "bot_log"}
    response = post(client, BOT_PATH + "/event", body, **headers)
    assert (response.status_code, response.data) == (200, b"{}\n")
    assert "Set-Cookie" not in response.headers
    assert parts.store.get(codec.BOT, join_key("other")) == [None]


def fields_of(path):
    """The keys of a call with their types; those that take anything are left out."""
    (route,) = [r for r in (*WITHOUT_SESSION, *WITH_SESSION) if BOT_PATH + r.path == path]
    fields = type_info(type(route.decode(b"{}"))).fields
    return {field.name: field.type for field in fields if not isinstance(field.type, AnyType)}


VALUES = {"text": "x", "number": 5, "flag": True, "list": ["x"], "object": {"x": 5}}
NUMBERS = "task_to_run_shard task_to_run_id output_chunk_start exit_code"
STATS = "cache_trim_stats cipd_stats cleanup_stats named_caches_stats isolated_stats"
KINDS = {
    "number": f"{NUMBERS} duration cost_usd bot_overhead".split(),
    "flag": ["force", "nonblocking", "hard_timeout", "io_timeout", "canceled"],
    "list": ["scopes"],
    "object": f"dimensions skep lease client_error worker_properties {STATS} "
    "cas_output_root cipd_pins".split(),
}
"""What a key holds, as bot-api 1.3 to 5.7 says; all others hold text."""


@pytest.mark.spec("0.3.1.7")
@pytest.mark.parametrize("path", PATHS)
def test_every_key_has_its_type(parts, client, bot, path):
    with nothing_changes(parts.store):
        for name in fields_of(path):
            right = next((kind for kind, names in KINDS.items() if name in names), "text")
            for kind, value in VALUES.items():
                if kind != right:
                    response = post(client, path, {"session": bot.session, name: value})
                    assert (response.status_code, name) == (400, name)
                    assert f"$.{name}" in response.text


@pytest.mark.spec("0.3.1.8", "0.3.1.7")
@pytest.mark.parametrize("path", PATHS)
def test_every_key_may_be_null_and_the_body_may_not(parts, client, bot, path):
    names = fields_of(path)
    session = {"session": bot.session} if "session" in names else {}
    absent = post(client, path, session)
    null = post(client, path, dict.fromkeys(names) | session)
    assert null.status_code == absent.status_code
    if absent.status_code != 200:
        assert null.data == absent.data
    with nothing_changes(parts.store):
        assert post(client, path, b"null").status_code == 400
