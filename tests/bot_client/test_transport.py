"""The transport over a real socket: what is transient, what is final, and when to try again."""

import io
import socket
import threading
from collections.abc import Iterator

import pytest

from bot_client.clock import Backoff
from bot_client.errors import BadReply, BotError, Fatal, Refused, SessionLost, Transient
from bot_client.server_api import Attributes, OutputPiece, ServerApi
from bot_client.transport import (
    STUBBORN,
    Schedule,
    Transport,
    is_direct,
    proxy_for,
    retry_pause,
    with_retries,
)
from tests.fakes.bot_clock import FakeClock
from tests.fakes.scripted_server import Fault, ScriptedServer

SELF = Attributes({"id": ["bot1"]}, {}, "v")


@pytest.fixture
def fake() -> FakeClock:
    return FakeClock()


@pytest.fixture
def api(server: ScriptedServer, fake: FakeClock) -> Iterator[ServerApi]:
    made = ServerApi(Transport(server.url), fake, "bot1", "test")
    yield made
    made.transport.close()


@pytest.mark.spec("13.1.56")
def test_retry_pauses_follow_the_schedule(fake: FakeClock) -> None:
    pauses = [round(retry_pause(n, fake), 2) for n in range(8)]
    assert pauses == [1.42, 1.75, 2.25, 3.0, 4.12, 5.81, 8.34, 10.0]


@pytest.mark.spec("A.3.p1", "13.1.58")
def test_backoff_is_zero_then_grows_to_a_jittered_cap(fake: FakeClock) -> None:
    backoff = Backoff(fake, 2.0)
    assert [backoff.fail() for _ in range(10)] == [0, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    backoff.succeed()
    assert backoff.fail() == 0


@pytest.mark.spec("13.1.56")
def test_retries_end_with_the_budget_or_the_attempts(fake: FakeClock) -> None:
    tries = []

    def fail() -> None:
        tries.append(fake.now())
        raise Transient("no")

    with pytest.raises(Transient):
        with_retries(fail, fake, STUBBORN)
    assert (len(tries), round(fake.now() - 1000)) == (30, 240)
    tries.clear()
    with pytest.raises(Transient):
        with_retries(fail, fake, Schedule(3, 1000))
    assert len(tries) == 3


def test_retry_after_is_honoured_up_to_a_minute(
    api: ServerApi, server: ScriptedServer, fake: FakeClock
) -> None:
    server.fault(
        "handshake",
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=429, headers={"Retry-After": "900"}),
    )
    api.handshake(SELF, "s")
    assert fake.waits == [pytest.approx(7.7), 66]  # the middle of 7 to 8.4, and of 60 to 72


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("fault", "kind", "tries"),
    [
        (Fault(drop=True), None, 2),
        (Fault(status=408), None, 2),
        (Fault(status=429), None, 2),
        (Fault(status=500), None, 2),
        (Fault(status=503), None, 2),
        (Fault(status=404), None, 2),
        (Fault(status=404, headers=JSON), Refused, 1),
        (Fault(status=401), SessionLost, 1),
        (Fault(status=403), SessionLost, 1),
        (Fault(status=400), Refused, 1),
        (Fault(status=413), Refused, 1),
        (Fault(status=302, headers={"Location": "/x"}), Refused, 1),
    ],
)
@pytest.mark.spec("0.5.2.3", "0.5.2.4", "0.5.2.5", "0.5.2.6", "0.5.2.7", "0.5.2.8")
def test_outcomes_of_a_retried_call(
    api: ServerApi, server: ScriptedServer, fault: Fault, kind: type[BotError] | None, tries: int
) -> None:
    server.fault("handshake", fault)
    if kind is None:
        assert api.handshake(SELF, "s")["session"]
    else:
        with pytest.raises(kind):
            api.handshake(SELF, "s")
    calls = server.named("handshake")
    assert len(calls) == tries
    assert len({call.body["skep"]["seq"] for call in calls}) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b"{}", b'{"error": "x"}'])
@pytest.mark.spec("0.5.2.1", "0.5.2.2", "0.5.2.9")
def test_useless_success_is_a_failure_without_a_repeat(
    api: ServerApi, server: ScriptedServer, body: bytes
) -> None:
    server.fault("poll", Fault(status=200, body=body))
    with pytest.raises(BadReply):
        api.poll(SELF, "u")
    assert len(server.named("poll")) == 1


def test_poll_is_tried_once(api: ServerApi, server: ScriptedServer) -> None:
    server.fault("poll", Fault(status=500))
    with pytest.raises(Transient):
        api.poll(SELF, "u")
    assert len(server.named("poll")) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b'{"resp": 1}', b'{"x": 2}'])
@pytest.mark.spec("A.4.1.7")
def test_reply_of_task_error_is_ignored(
    api: ServerApi, server: ScriptedServer, body: bytes
) -> None:
    server.fault("task_error", Fault(status=200, body=body))
    api.task_error("11", "text")
    assert "client_error" not in server.named("task_error")[0].body


def test_stale_connection_is_replaced_at_once(server: ScriptedServer, fake: FakeClock) -> None:
    transport = Transport(server.url)
    path = "/swarming/api/v1/bot/server_ping"
    assert transport.request("GET", path).status == 200
    server.stop_listening()
    server.listen_again()
    assert transport.request("GET", path).status == 200
    assert fake.waits == []
    transport.close()


def test_refused_connection_is_transient() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(Transient):
        Transport(f"http://127.0.0.1:{port}").request("GET", "/")


def test_slow_reply_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(Transient):
        Transport(f"http://127.0.0.1:{sock.getsockname()[1]}").request("GET", "/", timeout_s=0.05)


def test_cut_reply_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def serve() -> None:
            peer, _ = sock.accept()
            peer.recv(1000)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}")
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(Transient):
            Transport(f"http://127.0.0.1:{sock.getsockname()[1]}").request("GET", "/")


@pytest.mark.spec("0.5.2.10")
def test_token_is_renewed_by_any_reply_and_sent(api: ServerApi, server: ScriptedServer) -> None:
    first = api.handshake(SELF, "s")["session"]
    api.poll(SELF, "u")
    assert server.named("handshake")[0].body["session"] is None
    assert server.named("poll")[0].body["session"] == first
    assert api.session_token != first


def test_contact_counts_from_sending(
    api: ServerApi, server: ScriptedServer, fake: FakeClock
) -> None:
    server.skep = {"contact_s": 77, "poll_s": 9}
    api.handshake(SELF, "s")
    assert (api.contact_s, api.poll_s, api.last_contact_at) == (77, 9, 1000)
    fake.at = 2000
    server.fault("poll", Fault(status=500))
    with pytest.raises(Transient):
        api.poll(SELF, "u")
    assert api.last_contact_at == 1000


def test_output_goes_with_its_offset_and_never_empty(
    api: ServerApi, server: ScriptedServer
) -> None:
    api.task_update("11", {}, OutputPiece(5, b"\xff\x00"))
    api.task_update("11", {}, OutputPiece(5, b""))
    full, empty = (call.body for call in server.named("task_update"))
    assert (full["output"], full["output_chunk_start"]) == ("/wA=", 5)
    assert "output" not in empty
    assert server.named("task_update")[0].path.endswith("/task_update/11")


def test_refused_credentials_are_renewed_once(api: ServerApi, server: ScriptedServer) -> None:
    asked = []

    def headers(renew: bool) -> dict[str, str]:
        asked.append(renew)
        return {"Authorization": "Bearer new" if renew else "Bearer old"}

    api.auth_headers = headers
    server.fault("poll", Fault(status=401))
    api.poll(SELF, "u")
    sent = [call.headers["authorization"] for call in server.named("poll")]
    assert (sent, asked) == (["Bearer old", "Bearer new"], [False, True])


def test_download_follows_redirects_and_has_a_limit(server: ScriptedServer) -> None:
    server.archives["good"] = b"x" * 1000
    transport = Transport(server.url)
    path = "/swarming/api/v1/bot/bot_code/"
    server.fault("bot_code", Fault(status=302, headers={"Location": f"{path}good"}))
    sink = io.BytesIO()
    transport.download(f"{path}other", sink, {}, 1000)
    assert sink.getvalue() == b"x" * 1000
    with pytest.raises(Refused, match="larger than 999"):
        transport.download(f"{path}good", io.BytesIO(), {}, 999)
    with pytest.raises(Refused):
        transport.download(f"{path}none", io.BytesIO(), {}, 999)
    server.fault(
        "bot_code", *[Fault(status=302, headers={"Location": f"{path}good"}) for _ in range(5)]
    )
    with pytest.raises(Refused, match="circles"):
        transport.download(f"{path}good", io.BytesIO(), {}, 1000)


def test_no_proxy_and_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.parse import urlsplit

    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,.inner.example")
    assert proxy_for(urlsplit("https://a.example")).hostname == "proxy.example"
    assert proxy_for(urlsplit("https://x.inner.example")) is None
    assert is_direct("localhost")
    assert not is_direct("otherlocalhost")


def test_plain_http_to_a_public_address_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    from bot_client import transport

    class Peer:
        def getpeername(self) -> tuple[str, int]:
            return ("8.8.8.8", 80)

    class Connection:
        sock = Peer()

        def close(self) -> None:
            """Nothing to close."""

    with pytest.raises(Fatal, match="use https"):
        transport._refuse_public_peer(Connection(), Transport("http://h")._parts)


def test_line_breaks_in_headers_are_refused(server: ScriptedServer) -> None:
    with pytest.raises(Refused):
        Transport(server.url).request("GET", "/", headers={"X": "a\r\nY: b"})
