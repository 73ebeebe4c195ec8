"""What a worker sends, what it keeps of a held call, and how it looks at a new connection."""

import gc
import socket
import sys
import time
from types import SimpleNamespace

import gevent
import gevent.socket
import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import InvalidResponseHeader

from botapi import serve
from botapi import worker as serving
from botapi.admission import Admission
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Greenlets
from botapi.door import HeldAnswer
from botapi.settings import Settings
from botapi.worker import ONE_PIECE, Response, Worker, _settle, waited_s
from botapi.wsgi import IS_THERE

TICK_S = 0.02
"""The kernel's clock for this is coarse."""
LENGTH_5 = [("Content-Type", "text/plain"), ("Content-Length", "5")]


class Sent(list):
    """A socket that keeps each piece that is sent."""

    family = socket.AF_INET

    def fileno(self):
        return -1

    def sendall(self, data):
        self.append(bytes(data))


def answer(pieces, headers=LENGTH_5, *, method="GET", status="200 OK", is_last=False):
    """The pieces on the wire of an answer."""
    sent = Sent()
    request = SimpleNamespace(version=(1, 1), method=method, should_close=lambda: is_last)
    response = Response(request, sent, Config())
    response.start_response(status, list(headers))
    for piece in pieces:
        response.write(piece)
    response.close()
    assert response.headers_sent
    return sent


def test_answer_is_sent_in_one_piece():
    (sent,) = answer([b"hello"])
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert (first, body) == ("HTTP/1.1 200 OK", b"hello")
    assert {line.split(": ")[0] for line in lines} == {
        *("Server", "Date", "Connection", "Content-Type", "Content-Length")
    }
    assert "Connection: keep-alive" in lines


@pytest.mark.parametrize("name", ["X-Request-Id", "X-Other", "Content-Type"])
@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b"])
def test_header_that_would_break_the_answer_is_refused(name, value):
    with pytest.raises(InvalidResponseHeader):
        answer([], [(name, value)])


def test_headers_about_the_connection_are_the_servers_own():
    (sent,) = answer(
        [b"hello"], [*LENGTH_5, ("Connection", "upgrade"), ("Transfer-Encoding", "chunked")]
    )
    assert b"Connection: keep-alive" in sent
    assert b"Transfer-Encoding" not in sent


def test_no_header_of_a_caller_changes_what_wsgi_says_of_the_connection(tmp_path):
    server = serve.Server(Settings(data_dir=tmp_path))
    head = (
        "POST /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on\r\n"
        "X-Forwarded-Protocol: ssl\r\nSCRIPT_NAME: /x\r\nPATH_INFO: /y\r\n\r\n"
    )
    (request,) = get_parser(server.cfg, iter([head.encode()]), ("127.0.0.1", 1))
    assert request.scheme == "http"
    assert "SCRIPT_NAME" not in dict(request.headers)
    assert "PATH_INFO" not in dict(request.headers)


def test_answer_says_that_the_connection_ends_when_it_does():
    (sent,) = answer([b"hello"], is_last=True)
    assert b"\r\nConnection: close\r\n" in sent


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ({"pieces": [], "status": "304 Not Modified", "headers": []}, b""),
        ({"pieces": [b""], "status": "204 No Content", "headers": []}, b""),
        ({"pieces": [b"hello"], "method": "HEAD"}, b""),
        ({"pieces": [], "headers": [("Content-Length", "0")]}, b""),
        ({"pieces": [b""], "headers": [("Content-Length", "0")]}, b""),
        ({"pieces": [b"hel", b"lo"]}, b"hello"),
        ({"pieces": [b"hello, more than was promised"]}, b"hello"),
        ({"pieces": [b"hel", b"lo"], "headers": []}, b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
        ({"pieces": [], "headers": []}, b"0\r\n\r\n"),
    ],
)
def test_answer_of_any_kind_arrives_whole(pieces, said):
    head, _, body = b"".join(answer(**pieces)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert body == said


def test_large_body_is_not_copied_behind_its_head():
    body = bytes(ONE_PIECE + 1)
    head, rest = answer([body], [("Content-Length", str(len(body)))])
    assert head.endswith(b"\r\n\r\n")
    assert rest == body


def test_settled_settings_say_the_same():
    settled, plain = Config(), Config()
    _settle(settled)
    assert {name: getattr(settled, name) for name in plain.settings} == {
        name: getattr(plain, name) for name in plain.settings
    }
    assert "keepalive" in vars(settled)


class Broken(Sent):
    """A socket whose other end is gone."""

    def sendall(self, _data):
        raise BrokenPipeError


def handle(wsgi, sock):
    """One request through a worker."""
    worker = Worker.__new__(Worker)
    worker.cfg, worker.alive, worker.wsgi, worker._in_flight = Config(), True, wsgi, 0
    heard, said = socket.socketpair()
    with heard, said:
        said.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        request = next(get_parser(worker.cfg, heard, ("127.0.0.1", 1)))
        try:
            worker.handle_request(("127.0.0.1", 2), request, sock, ("127.0.0.1", 1))
        finally:
            assert worker._in_flight == 0


def good(_environ, start_response):
    start_response("200 OK", list(LENGTH_5))
    return [b"hello"]


def broken_off(_environ, start_response):
    start_response("200 OK", list(LENGTH_5))
    yield b"hel"
    raise ValueError("no more")


def test_connection_stays_for_the_next_request():
    sent = Sent()
    handle(good, sent)
    assert sent[0].endswith(b"\r\n\r\nhello")


def test_caller_that_hung_up_leaves_no_word_in_the_log(caplog):
    with pytest.raises(BrokenPipeError):
        handle(good, Broken())
    assert caplog.records == []


def test_answer_that_broke_off_is_logged_and_ends_the_connection(caplog):
    sent = Sent()
    with pytest.raises(StopIteration):
        handle(broken_off, sent)
    assert sent[0].endswith(b"\r\n\r\nhel")
    assert [record.getMessage() for record in caplog.records] == ["the answer broke off"]


LONG_S = 30.0
ASK = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """A worker on a socket of its own; the calls of `/held` wait for `done`."""

    def __init__(self):
        greenlets = Greenlets()
        self.done = greenlets.event()
        self.lines = []
        self.worker = worker = Worker.__new__(Worker)
        worker.cfg, worker.alive, worker.wsgi = Config(), True, self.wsgi
        worker.cfg.set("keepalive", int(LONG_S))
        worker.log = SimpleNamespace(debug=lambda *_words: None)
        worker._in_flight = worker._connections = 0
        admission = Admission(greenlets, SystemClock(), SystemRng())
        worker.app = SimpleNamespace(
            parts=SimpleNamespace(concurrency=greenlets, admission=admission)
        )
        listener = gevent.socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        worker.sockets = [listener]
        worker._servers = [worker._listen(listener)]
        self.address = listener.getsockname()

    def wsgi(self, environ, start_response):
        body = environ["wsgi.input"].read()
        self.lines.append(environ[IS_THERE])

        def answer():
            return good({}, start_response) if body else []

        return HeldAnswer(self.done, LONG_S, answer) if "held" in environ["PATH_INFO"] else answer()

    def call(self, *paths):
        """A new connection on which these were asked."""
        client = gevent.socket.create_connection(self.address)
        client.settimeout(LONG_S)
        client.sendall(b"".join(ASK % path.encode() for path in paths))
        return client

    def close(self):
        self.done.set()
        for server in self.worker._servers:
            server.close()


@pytest.fixture(name="server")
def fixture_server():
    server = Server()
    yield server
    server.close()


def until(condition):
    with gevent.Timeout(LONG_S):
        while not condition():
            gevent.sleep(0.001)


def answer_of(client, count=1):
    """What came, up to the end of so many answers."""
    said = b""
    while said.count(b"\r\n\r\nhello") < count:
        more = client.recv(4096)
        assert more, said
        said += more
    return said


def serving_greenlets():
    return {g for g in gc.get_objects() if isinstance(g, gevent.Greenlet) and not g.dead}


def test_held_call_keeps_no_greenlet_and_its_connection_goes_on(server):
    before = serving_greenlets()
    clients = [server.call("held") for _ in range(5)]
    until(lambda: server.worker._in_flight == 5)
    until(lambda: not serving_greenlets() - before)
    assert server.worker._connections == 5
    server.done.set()
    for client in clients:
        assert b"Connection: keep-alive" in answer_of(client)
    assert server.worker._in_flight == 0
    for client in clients:
        client.sendall(ASK % b"other")
        answer_of(client)
        client.sendall(ASK % b"held")
        answer_of(client)
        client.close()
    until(lambda: server.worker._connections == 0)


def test_request_that_is_sent_ahead_of_a_held_answer_is_not_lost(server):
    client = server.call("held", "other")
    until(lambda: server.worker._in_flight == 1)
    server.done.set()
    answer_of(client, 2)
    client.close()


def test_held_call_of_a_worker_that_ends_is_the_last_of_its_connection(server):
    client = server.call("held")
    until(lambda: server.worker._in_flight == 1)
    server.worker.alive = False
    server.done.set()
    assert b"Connection: close" in answer_of(client)
    assert client.recv(1) == b""
    client.close()
    until(lambda: server.worker._connections == server.worker._in_flight == 0)


def test_caller_that_hangs_up_while_it_is_held_leaves_no_word_in_the_log(server, caplog):
    client = server.call("held")
    until(lambda: server.worker._in_flight == 1)
    linger = socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    client.setsockopt(*linger)  # the connection is reset
    client.close()
    server.done.set()
    until(lambda: server.worker._connections == server.worker._in_flight == 0)
    assert caplog.records == []


def test_caller_is_there_until_it_hangs_up_or_says_more(server):
    clients = []
    for count in (1, 2, 3):
        clients.append(server.call("held"))
        until(lambda count=count: len(server.lines) == count)
    waits, ends, speaks = clients
    of_waits, of_ends, of_speaks = server.lines
    assert [line() for line in server.lines] == [True] * 3
    ends.close()
    speaks.sendall(b"more")
    until(lambda: not of_ends())
    until(lambda: not of_speaks())
    assert of_waits()
    linger = socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    waits.setsockopt(*linger)
    waits.close()
    until(lambda: not of_waits())
    speaks.close()
    server.done.set()
    until(lambda: server.worker._connections == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has them inherited")
def test_connection_to_a_machine_that_vanished_ends_within_half_a_minute(server):
    client = server.call("held")
    until(lambda: server.lines)
    fd = server.lines[0].__self__.fd
    kept = socket.socket(fileno=fd)
    seen = [
        kept.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in serving.KEEP_ALIVE
    ]
    asks = kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    kept.detach()
    idle_s, apart_s, count = seen
    assert asks
    assert idle_s + apart_s * count <= 30
    server.done.set()
    answer_of(client)
    client.close()


def test_held_calls_count_where_connections_are_bounded(server, monkeypatch):
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 1)
    first = server.call("held")
    until(lambda: server.worker._in_flight == 1)
    second = server.call("other")
    until(lambda: not server.worker._servers[0]._watcher)
    assert server.worker._connections == 1
    server.done.set()
    answer_of(first)
    first.close()
    answer_of(second)
    second.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it")
def test_time_that_a_connection_waited_to_be_accepted_is_known():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as bot:
            bot.sendall(b"POST ")
            client, _address = listener.accept()
            with client:
                while waited_s(client) < 0.05:
                    pass
                said_at = time.monotonic()
                bot.sendall(b"/x")
                assert client.recv(7, socket.MSG_WAITALL) == b"POST /x"
                assert waited_s(client) <= time.monotonic() - said_at + TICK_S
        assert waited_s(client) == 0, "it is closed"
