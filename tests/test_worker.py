"""What a worker sends, and how it looks at a new connection."""

import socket
import sys
import time
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from botapi.worker import ONE_PIECE, Response, _settle, waited_s

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
