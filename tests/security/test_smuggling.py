"""Requests that two servers in a row could read in two ways, as bytes against a real server."""

import re
import socket

import pytest

from tests.e2e.fleet import ServerProcess, clean_environ

PATH = b"/swarming/api/v1/bot/poll"
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\n"
"""What an attacker wants to be read as a request of its own."""


def head(*headers, line=b"POST " + PATH + b" HTTP/1.1"):
    fixed = [line, b"Host: localhost", b"Content-Type: application/json; charset=utf-8"]
    return b"\r\n".join([*fixed, *headers, b"", b""])


REFUSED = {
    "length and chunks": head(b"Content-Length: 4", b"Transfer-Encoding: chunked")
    + b"0\r\n\r\n" + HIDDEN,
    "chunks and length": head(b"Transfer-Encoding: chunked", b"Content-Length: 4")
    + b"0\r\n\r\n" + HIDDEN,
    "two lengths": head(b"Content-Length: 2", b"Content-Length: 40") + b"{}" + HIDDEN,
    "two lengths in one": head(b"Content-Length: 2, 40") + b"{}" + HIDDEN,
    "length with a sign": head(b"Content-Length: +2") + b"{}" + HIDDEN,
    "negative length": head(b"Content-Length: -2") + HIDDEN,
    "length in hex": head(b"Content-Length: 0x2") + b"{}" + HIDDEN,
    "length with an underscore": head(b"Content-Length: 1_0") + b"{}" + HIDDEN,
    "unknown encoding": head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n" + HIDDEN,
    "chunked not last": head(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + HIDDEN,
    "chunked twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")
    + b"0\r\n\r\n" + HIDDEN,
    "encoding behind a tab": head(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n" + HIDDEN,
    "blank before the colon": head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n" + HIDDEN,
    "folded header": head(b"X-A: b", b" Transfer-Encoding: chunked") + b"0\r\n\r\n" + HIDDEN,
    "bare line feed in a header": head(b"X-A: b\nTransfer-Encoding: chunked") + b"0\r\n\r\n",
    "NUL in a header": head(b"X-A: b\x00c", b"Content-Length: 2") + b"{}",
    "chunk size in other words": head(b"Transfer-Encoding: chunked") + b"0x2\r\n{}\r\n0\r\n\r\n",
    "chunk size with a sign": head(b"Transfer-Encoding: chunked") + b"+2\r\n{}\r\n0\r\n\r\n",
    "chunk longer than it says": head(b"Transfer-Encoding: chunked")
    + b"2\r\n{}garbage\r\n0\r\n\r\n" + HIDDEN,
    "no protocol": b"POST " + PATH + b"\r\n\r\n" + HIDDEN,
    "version of its own": head(b"Content-Length: 2", line=b"POST " + PATH + b" HTTP/1.9x") + b"{}",
    "blank in the path": head(b"Content-Length: 2", line=b"POST " + PATH + b" x HTTP/1.1") + b"{}",
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    server = ServerProcess(tmp_path_factory.mktemp("server"), clean_environ())
    server.init()
    server.start()
    host, _, port = server.url.rpartition("/")[2].rpartition(":")
    yield host, int(port)
    server.end()


def answers(address, request):
    """Everything that comes back until the server closes or says nothing more."""
    with socket.create_connection(address, timeout=3) as link:
        link.sendall(request)
        link.shutdown(socket.SHUT_WR)
        received = b""
        while block := link.recv(65536):
            received += block
    return received


def statuses(received):
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", received)


@pytest.mark.e2e
@pytest.mark.control("requests.smuggling")
@pytest.mark.parametrize("name", REFUSED)
def test_request_that_can_be_read_in_two_ways_is_refused_and_hides_nothing(address, name):
    received = answers(address, REFUSED[name])
    assert len(statuses(received)) <= 1, received
    assert b"ok\n" not in received
    assert not {b"200", b"404"} & {*statuses(received)}, received


@pytest.mark.e2e
@pytest.mark.control("requests.smuggling")
def test_two_good_requests_in_one_packet_are_both_answered(address):
    """Otherwise the test above would hold of a server that answers nothing."""
    one = head(b"Content-Length: 2") + b"{}"
    assert statuses(answers(address, one + HIDDEN)) == [b"400", b"200"]
    chunked = head(b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    assert statuses(answers(address, chunked + HIDDEN)) == [b"400", b"200"]
