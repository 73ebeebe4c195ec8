"""What a worker sends, and how it looks at a new connection."""

import socket
import sys
import time
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser

from botapi.worker import ONE_PIECE, Response, Worker, _settle, waited_s

TICK_S = 0.02
"""The kernel's clock for this is coarse."""
LENGTH_5 = [("Content-Type", "text/plain"), ("Content-Length", "5")]


class Sent(list):
    """A socket that keeps each piece that is sent."""

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


class Broken:
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
