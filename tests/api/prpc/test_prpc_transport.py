"""From a request to a message and back: encodings, limits, errors, CORS, identity."""

import base64
import gzip
import json
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from google.protobuf.empty_pb2 import Empty
from swarmingpb import swarming_pb2 as pb

from botapi import app as composition
from botapi.api import answers, people
from botapi.api.prpc import bodies, transport
from botapi.api.prpc.call_headers import CallHeaders, Encoding
from botapi.api.prpc.errors import INSTEAD, NUMBERS, ProtocolError
from botapi.api.prpc.services import METHODS, Method
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.door import HTTP_STATUS
from botapi.store.protocol import Outage, TooLarge
from tests.api.prpc.conftest import PrpcClient

spec = pytest.mark.spec
BINARY = "application/prpc; encoding=binary"
STATE = "Swarming/GetPermissions"


@pytest.fixture
def answer(monkeypatch):
    """Have `Bots/GetBot` do something else."""

    def answered(handler, *, is_read=True):
        key = ("swarming.v2.Bots", "GetBot")
        monkeypatch.setitem(METHODS, key, Method(pb.BotRequest, handler, is_read))

    return answered


def raising(error):
    def handler(_call, _asked):
        raise error

    return handler


@pytest.fixture
def app_with(settings, store, clock, rng, parts):
    """A client of a server with other settings, over the same store."""

    def made(**changes):
        again = composition.build(replace(settings, **changes), store, Threads(), clock, rng)
        return composition.create_app(again).test_client()

    return made


@spec("prpc:1.1.p1", "prpc:1.5.1.1")
def test_every_method_of_the_three_services_answers():
    table = {
        (service.full_name, method.name)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(METHODS) == table
    assert {service for service, _ in table} == {
        "swarming.v2.Bots",
        "swarming.v2.Tasks",
        "swarming.v2.Swarming",
    }


@spec("prpc:1.1.p1", "prpc:1.3.2.1", "prpc:10.p1")
@pytest.mark.parametrize(
    "path",
    [
        "swarming.v2.Bots/Nothing",
        "swarming.v2.Bots/getBot",
        "swarming.v2.bots/GetBot",
        "swarming.v2.Bots/GetBot/",
        "swarming.v2.Bots",
        "Bots/GetBot",
        "a/b/c",
        "",
    ],
)
def test_unknown_method_is_code_12(client, path):
    reply = client.post(f"/prpc/{path}", json={})
    assert (reply.status_code, reply.headers["X-Prpc-Grpc-Code"]) == (501, "12")
    assert reply.content_type == "text/plain; charset=utf-8"
    assert reply.text == f"there is no method {path}\n"


@spec("prpc:10.p1", "prpc:1.3.p1")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_only_post_is_a_call(client, method):
    reply = client.open("/prpc/swarming.v2.Bots/GetBot", method=method)
    assert (reply.status_code, reply.headers["X-Prpc-Grpc-Code"]) == (405, "12")
    assert reply.headers["Allow"] == "OPTIONS, POST"


@spec("prpc:10.p1", "prpc:1.3.p1")
def test_path_that_no_route_takes_has_a_code_too(client):
    reply = client.post("/prpc//x/y", json={})
    assert (reply.status_code, reply.headers["X-Prpc-Grpc-Code"]) == (404, "5")
    assert reply.content_type == "text/plain; charset=utf-8"


@spec("prpc:9.1.3")
@spec("prpc:1.2.1.1", "prpc:1.2.1.2", "prpc:1.2.1.3", "prpc:1.2.1.4", "prpc:1.2.1.5")
def test_good_reply_in_json(prpc):
    reply = prpc.call(STATE)
    assert (reply.status, reply.headers["X-Prpc-Grpc-Code"]) == (200, "0")
    assert reply.http.content_type == "application/json"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.data.startswith(b")]}'\n{")
    assert reply.data.endswith(b"}\n")


@spec("prpc:1.2.1.3", "prpc:1.2.1.6", "prpc:1.5.1.1")
def test_good_reply_in_binary(prpc):
    found = pb.ClientPermissions.FromString(prpc.binary(STATE))
    assert found.cancel_tasks


@spec("prpc:9.1.2")
@spec("prpc:1.1.1.2")
def test_reply_is_binary_unless_json_is_asked_for(prpc):
    for accept, content_type in (
        (None, BINARY),
        ("*/*", BINARY),
        ("application/json", "application/json"),
        ("application/prpc; encoding=json", "application/json"),
    ):
        assert prpc.call(STATE, Accept=accept).http.content_type == content_type
    reply = prpc.call(STATE, Accept="text/html")
    assert (reply.status, reply.code) == (406, 3)


@spec("prpc:1.1.1.1")
def test_body_is_in_the_encoding_that_its_type_names(prpc):
    body = pb.BotRequest(bot_id="nobody").SerializeToString()
    for content_type in (None, BINARY, "application/grpc"):
        assert prpc.post("Bots/GetBot", body, Content_Type=content_type).code == 5
    assert prpc.post("Bots/GetBot", '{"botId":"nobody"}').code == 5
    for content_type in ("text/plain", "application/prpc; encoding=text"):
        reply = prpc.post("Bots/GetBot", body, Content_Type=content_type)
        assert (reply.status, reply.code) == (415, 3)


@spec("prpc:1.3.p1")
def test_error_is_plain_text_whatever_accept_says(prpc):
    for accept in (None, "application/json", BINARY):
        reply = prpc.call("Bots/GetBot", {"botId": "nobody"}, Accept=accept)
        assert (reply.status, reply.code, reply.text) == (404, 5, "no such bot: nobody")
        assert reply.data == b"no such bot: nobody\n"


@spec(*(f"prpc:1.3.1.{row}" for row in range(1, 10)))
def test_codes_have_the_numbers_and_statuses_of_the_table(answer, prpc):
    table = {
        1: ("CANCELED", 499),
        2: ("UNKNOWN", 500),
        3: ("INVALID_ARGUMENT", 400),
        4: ("DEADLINE_EXCEEDED", 504),
        5: ("NOT_FOUND", 404),
        6: ("ALREADY_EXISTS", 409),
        7: ("PERMISSION_DENIED", 403),
        8: ("RESOURCE_EXHAUSTED", 429),
        9: ("FAILED_PRECONDITION", 400),
        10: ("ABORTED", 409),
        11: ("OUT_OF_RANGE", 400),
        12: ("UNIMPLEMENTED", 501),
        13: ("INTERNAL", 500),
        14: ("UNAVAILABLE", 503),
        15: ("DATA_LOSS", 500),
        16: ("UNAUTHENTICATED", 401),
    }
    assert {NUMBERS[code]: (str(code), HTTP_STATUS[code]) for code in Code} == table
    for number, (name, status) in table.items():
        answer(raising(Refusal(Code(name), "the words of the handler")))
        reply = prpc.call("Bots/GetBot")
        assert (reply.code, reply.status) == (number, status)


@spec("prpc:9.1.1")
@spec("prpc:1.3.2.3")
def test_words_of_a_handler_are_hidden_from_500_on(answer, prpc, caplog):
    caplog.set_level("INFO")
    for code in Code:
        answer(raising(Refusal(code, f"secret of {code}")))
        text = prpc.call("Bots/GetBot").text
        if HTTP_STATUS[code] >= 500:
            assert text == INSTEAD[code]
            assert f"secret of {code}" in caplog.text
        else:
            assert text == f"secret of {code}"


@spec("prpc:1.3.2.3", "prpc:10.p1")
def test_crash_is_code_13_and_tells_nothing(answer, prpc, caplog):
    answer(raising(ValueError("a secret")))
    reply = prpc.call("Bots/GetBot")
    assert (reply.status, reply.code, reply.text) == (500, 13, "internal error")
    assert "a secret" in caplog.text
    assert reply.headers["X-Request-Id"] in caplog.text


@spec("prpc:10.p1")
def test_trouble_of_the_store_is_code_14(answer, prpc):
    answer(raising(Outage("the disk is gone")))
    reply = prpc.call("Bots/GetBot")
    assert (reply.status, reply.code) == (503, 14)
    assert "disk" not in reply.text
    assert reply.headers["Retry-After"]
    answer(raising(TooLarge("31 alternatives")))
    assert prpc.call("Bots/GetBot").code == 3


@spec("prpc:10.p1")
def test_calls_over_the_rate_have_a_code(app_with):
    client = app_with(rate_address=1)
    codes = [
        (reply.status_code, reply.headers["X-Prpc-Grpc-Code"])
        for reply in (client.post("/prpc/x/y", json={}) for _ in range(3))
    ]
    assert codes == [(501, "12"), (501, "12"), (429, "8")]


@spec("prpc:1.3.2.5")
def test_checks_come_in_their_order(client):
    """Encodings, other headers, the body, who asks, the handler."""
    good = {
        "Content_Type": "application/json",
        "Accept": "application/json",
        "X_Prpc_Grpc_Timeout": "5S",
        "data": '{"botId":""}',
        "Authorization": None,
    }
    wrong = [
        ("Content_Type", "text/plain", 415),
        ("Accept", "text/plain", 406),
        ("X_Prpc_Grpc_Timeout", "x", 400),
        ("data", "{", 400),
        ("Authorization", "Bearer no", 401),
    ]
    bad = good | {name: value for name, value, _ in wrong}
    for name, _, status in wrong:
        headers = dict(bad)
        assert (
            PrpcClient(client).post("Bots/GetBot", headers.pop("data"), **headers).status == status
        )
        bad[name] = good[name]
    reply = PrpcClient(client).post("Bots/GetBot", bad.pop("data"), **bad)
    assert (reply.code, reply.text) == (3, "bot_id is required")


@spec("prpc:1.1.1.8")
def test_call_data_that_is_not_base64_is_400(prpc):
    assert prpc.call(STATE, X_Trace_Bin="AAEC", X_Other="anything").code == 0
    reply = prpc.call(STATE, X_Trace_Bin="AAE")
    assert (reply.status, reply.code) == (400, 3)


@spec("prpc:1.1.1.4")
def test_call_that_passes_its_time_limit_is_code_4(answer, prpc, clock):
    def slow(_call, _asked):
        clock.advance(2)
        return pb.BotInfo(bot_id="x")

    answer(slow)
    assert prpc.call("Bots/GetBot", X_Prpc_Grpc_Timeout="3S").code == 0
    reply = prpc.call("Bots/GetBot", X_Prpc_Grpc_Timeout="2S")
    assert (reply.status, reply.code, reply.text) == (504, 4, INSTEAD[Code.DEADLINE_EXCEEDED])
    answer(slow, is_read=False)
    assert prpc.call("Bots/GetBot", X_Prpc_Grpc_Timeout="2S").code == 0


@spec("prpc:1.1.1.4")
def test_handler_is_not_asked_when_the_time_is_over_already(answer, prpc):
    answer(raising(AssertionError("asked")))
    assert prpc.call("Bots/GetBot", X_Prpc_Grpc_Timeout="0n").code == 4


@spec("prpc:1.1.1.5", "prpc:1.3.2.4")
def test_reply_larger_than_the_caller_takes_is_code_14_with_a_detail(answer, prpc):
    answer(lambda _call, _asked: pb.BotInfo(state="x" * 2000))
    size = len(prpc.call("Bots/GetBot").data)
    assert prpc.call("Bots/GetBot", X_Prpc_Max_Response_Size=str(size)).code == 0
    reply = prpc.call("Bots/GetBot", X_Prpc_Max_Response_Size=str(size - 1), Accept_Encoding="gzip")
    assert (reply.status, reply.code) == (503, 14)
    assert str(size) in reply.text, "a protocol error keeps its words"
    detail = json.loads(base64.b64decode(reply.headers["X-Prpc-Status-Details-Bin"]))
    assert detail["responseTooBig"] == {
        "responseSize": str(size),
        "responseLimit": str(size - 1),
    }


@spec("prpc:1.1.1.6")
def test_body_may_be_gzip(prpc):
    body = gzip.compress(b'{"botId":"nobody"}')
    reply = prpc.post("Bots/GetBot", body, Content_Encoding="gzip")
    assert (reply.code, reply.text) == (5, "no such bot: nobody")
    assert prpc.post("Bots/GetBot", b'{"botId":"nobody"}', Content_Encoding="identity").code == 5


@spec("prpc:1.1.1.6")
def test_body_that_is_no_gzip_is_refused(prpc):
    packed = gzip.compress(b'{"botId":"nobody"}')
    for body, encoding, status, code in (
        (b'{"botId":"x"}', "gzip", 400, 3),
        (packed + b"more", "gzip", 400, 3),
        (packed[:-9], "gzip", 499, 1),
        (b"", "gzip", 499, 1),
        (packed, "br", 415, 3),
    ):
        reply = prpc.post("Bots/GetBot", body, Content_Encoding=encoding)
        assert (reply.status, reply.code) == (status, code)


@spec("prpc:1.1.1.7")
def test_long_reply_is_gzip_for_who_takes_it(answer, prpc):
    answer(lambda _call, _asked: pb.BotInfo(state="x" * 2000))
    for accept in ("application/json", BINARY):
        plain = prpc.call("Bots/GetBot", Accept=accept)
        assert "Content-Encoding" not in plain.headers
        assert "gzip" not in prpc.call("Bots/GetBot", Accept_Encoding="gzip;q=0").headers.values()
        packed = PrpcClient(prpc.client, prpc.key).client.post(
            "/prpc/swarming.v2.Bots/GetBot",
            data="{}",
            headers={
                "Content-Type": "application/json",
                "Accept": accept,
                "Accept-Encoding": "gzip, br",
            },
        )
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.get_data()) == plain.data
    answer(lambda _call, _asked: pb.BotInfo(state="short"))
    assert "Content-Encoding" not in prpc.call("Bots/GetBot", Accept_Encoding="gzip").headers


@spec("prpc:1.1.p1")
def test_body_over_the_limit_is_code_14(prpc, monkeypatch):
    monkeypatch.setattr(transport, "MAX_BODY", 1000)
    text = json.dumps({"botId": "x", "more": "y" * 974})
    assert len(text) == 1000
    assert prpc.post("Bots/GetBot", text).code == 5
    reply = prpc.post("Bots/GetBot", text + " ")
    assert (reply.status, reply.code, reply.text) == (503, 14, "the body is larger than 1000 bytes")
    assert reply.headers["Connection"] == "close"


@spec("prpc:1.1.p1", "prpc:1.1.1.6")
def test_body_that_unpacks_to_more_than_the_limit_is_code_14(prpc, monkeypatch):
    monkeypatch.setattr(transport, "MAX_BODY", 1000)
    packed = gzip.compress(b" " * 998 + b"{}")
    assert prpc.post("Bots/GetBot", packed, Content_Encoding="gzip").code == 3
    reply = prpc.post("Bots/GetBot", gzip.compress(b" " * 999 + b"{}"), Content_Encoding="gzip")
    assert (reply.status, reply.code) == (503, 14)


def test_limits_of_bodies_are_those_of_the_page():
    assert transport.MAX_BODY == 64 * 1024 * 1024


@pytest.mark.control("people.roles")
def test_stranger_sends_no_long_bodies(client, monkeypatch, prpc):
    monkeypatch.setattr(transport, "MAX_STRANGERS_BODY", 1000)
    text = json.dumps({"more": "y" * 1000})
    assert prpc.post(STATE, text).code == 0
    assert PrpcClient(client).post(STATE, text).code == 14
    assert PrpcClient(client, "wrong").post(STATE, text).code == 14
    assert PrpcClient(client).post(STATE, "{}").code == 0


def test_little_gzip_does_not_become_much_memory():
    bomb = zlib.compressobj(9, zlib.DEFLATED, bodies.GZIP)
    packed = bomb.compress(b" " * 50_000_000) + bomb.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="larger than 1000 bytes"):
            bodies.unpacked(packed, "gzip", 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@spec("prpc:1.1.p1")
@pytest.mark.parametrize("terminated", [{}, {"wsgi.input_terminated": True}])
def test_body_that_ends_early_is_code_1(client, admin_key, terminated):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {admin_key}"}
    reply = client.post(
        "/prpc/swarming.v2.Bots/GetBot",
        data=b'{"botId"',
        headers=headers,
        environ_overrides={"CONTENT_LENGTH": "100", **terminated},
    )
    assert (reply.status_code, reply.headers["X-Prpc-Grpc-Code"]) == (499, "1")


@spec("prpc:1.6.p1")
@pytest.mark.parametrize("path", ["swarming.v2.Bots/GetBot", "no.such/Method"])
def test_preflight_without_an_origin_is_empty(client, path):
    reply = client.options(f"/prpc/{path}")
    assert (reply.status_code, reply.data) == (200, b"")
    assert not [name for name, _ in reply.headers if name.startswith("Access-Control")]


@spec(*(f"prpc:1.6.1.{row}" for row in range(1, 8)))
@pytest.mark.parametrize("allowed", [("https://ui.example.com",), ("*",)])
def test_allowed_origin_gets_the_headers(app_with, admin_key, allowed):
    client = app_with(cors_origins=allowed)
    origin = {"Origin": "https://ui.example.com"}
    preflight = client.options("/prpc/swarming.v2.Bots/GetBot", headers=origin)
    assert preflight.status_code == 200
    both = {
        "Access-Control-Allow-Origin": "https://ui.example.com",
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }
    assert cors(preflight) == both | {
        "Access-Control-Allow-Headers": (
            "Origin, Content-Type, Accept, Authorization, "
            "X-Prpc-Grpc-Timeout, X-Prpc-Max-Response-Size"
        ),
        "Access-Control-Allow-Methods": "OPTIONS, POST",
        "Access-Control-Max-Age": "600",
    }
    for path in (STATE, "Nothing/There"):
        posted = client.post(f"/prpc/swarming.v2.{path}", json={}, headers=origin)
        assert cors(posted) == both | {
            "Access-Control-Expose-Headers": "X-Prpc-Grpc-Code, X-Prpc-Status-Details-Bin"
        }


@spec("prpc:1.6.p2")
def test_other_origins_get_no_headers(app_with, client):
    for other in (client, app_with(cors_origins=("https://ui.example.com",))):
        for method in ("OPTIONS", "POST"):
            reply = other.open(
                f"/prpc/swarming.v2.{STATE}",
                method=method,
                json={},
                headers={"Origin": "https://evil.example.com"},
            )
            assert cors(reply) == {"Vary": "Origin"}


def cors(reply):
    return {
        name: value
        for name, value in reply.headers
        if name.startswith("Access-Control") or name == "Vary"
    }


@spec("prpc:1.6.p2", "prpc:10.p3", "prpc:1.5.1.3")
@pytest.mark.control("people.roles")
def test_cookie_is_nobody(parts, client, admin_key):
    cookie, _ = people.sign_in(parts.api, admin_key)
    client.set_cookie(people.SESSION_COOKIE, cookie)
    assert client.get("/api/v1/whoami").status_code == 200, "the cookie is a good one"
    client.set_cookie("Authorization", f"Bearer {admin_key}")
    stranger = PrpcClient(client)
    assert stranger.call(STATE).json == {}
    reply = stranger.call("Bots/ListBots")
    assert (reply.status, reply.code) == (403, 7)
    assert "anonymous:anonymous has no permission swarming.pools.listBots" in reply.text


@spec("prpc:1.7.p1", "prpc:1.1.1.3")
@pytest.mark.parametrize(
    "authorization",
    ["Bearer x", "Bearer", "Basic YTpi", "x", "Bearer skep_00000000_" + "x" * 43, "Bearer skept_x"],
)
def test_bad_token_is_code_16_for_every_method(client, authorization):
    for method in (STATE, "Bots/ListBots", "Swarming/GetDetails"):
        reply = PrpcClient(client).call(method, Authorization=authorization)
        assert (reply.status, reply.code) == (401, 16)
        assert reply.headers["WWW-Authenticate"] == "Bearer"


@spec("prpc:1.7.p1", "prpc:8.1.2.12")
def test_nobody_may_ask_what_he_may(stranger):
    assert stranger.call(STATE).json == {}


@spec("prpc:1.7.p1")
def test_anonymous_reading_is_a_setting(app_with):
    client = PrpcClient(app_with(anonymous_read=True))
    assert client.good("Bots/CountBots").keys() == {"now"}
    assert client.call("Swarming/GetToken").code == 7


@spec("prpc:1.7.p1")
def test_credentials_that_cannot_be_checked_are_code_13(client, prpc, monkeypatch):
    def broken(*_args):
        raise Outage("the disk is gone")

    monkeypatch.setattr(people, "caller_of_call", broken)
    reply = prpc.call(STATE)
    assert (reply.status, reply.code, reply.text) == (500, 13, INSTEAD[Code.INTERNAL])


def test_long_messages_are_made_beside_the_loop(answer, prpc, parts, monkeypatch):
    beside = []
    native = parts.concurrency.native

    def counted(fn):
        beside.append(fn)
        return native(fn)

    monkeypatch.setattr(parts.api.concurrency, "native", counted)
    answer(lambda _call, _asked: pb.BotInfo(state="x"))
    prpc.call("Bots/GetBot")
    assert not beside
    prpc.call("Bots/GetBot", {"botId": "x" * answers.LOOP_BYTES})
    assert len(beside) == 1
    answer(lambda _call, _asked: pb.BotInfo(state="x" * answers.LOOP_BYTES))
    prpc.call("Bots/GetBot")
    assert len(beside) == 2


def test_no_limits_are_no_limits():
    headers = CallHeaders(Encoding.JSON, Encoding.JSON, None, None)
    transport._check_size(2**40, headers)


def test_empty_message_takes_any_keys(prpc):
    assert METHODS["swarming.v2.Swarming", "GetDetails"].request is Empty
    assert prpc.call("Swarming/GetDetails", {"anything": [1]}).code == 0
