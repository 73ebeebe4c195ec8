"""What the headers of a call say."""

import pytest

from botapi.api.prpc.call_headers import (
    Encoding,
    check_call_data,
    max_reply,
    reply_encoding,
    request_encoding,
    timeout,
)
from botapi.api.prpc.errors import ProtocolError
from botapi.domain.errors import Code

BINARY, JSON = Encoding.BINARY, Encoding.JSON


def status_of(call, *args):
    with pytest.raises(ProtocolError) as caught:
        call(*args)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.status


@pytest.mark.spec("prpc:1.1.1.1")
@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("Application/JSON ;charset=utf-8", JSON),
        ("application/prpc; encoding=binary", BINARY),
        ("application/prpc;encoding=binary", BINARY),
        ("application/prpc", BINARY),
        ('application/prpc; encoding="json"', JSON),
        ("application/prpc; encoding=json", JSON),
        ("", BINARY),
        ("*/*", BINARY),
        ("application/*", BINARY),
        ("application/grpc", BINARY),
    ],
)
def test_content_type_names_the_encoding_of_the_body(content_type, encoding):
    assert request_encoding(content_type) is encoding


@pytest.mark.spec("prpc:1.1.1.1")
@pytest.mark.parametrize(
    "content_type",
    [
        "application/prpc; encoding=text",
        "application/prpc; encoding=xml",
        "application/prpc; encoding=binary; charset=utf-8",
        "application/prpc; x=y",
        "text/plain",
        "application/x-www-form-urlencoded",
        "json",
        "/",
    ],
)
def test_other_content_types_are_415(content_type):
    assert status_of(request_encoding, content_type) == 415


@pytest.mark.spec("prpc:1.1.1.2")
@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("", BINARY),
        (" ", BINARY),
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/prpc", BINARY),
        ("application/prpc; encoding=json", JSON),
        ("*/*", BINARY),
        ("text/html, application/json", JSON),
        ("application/json, application/prpc", BINARY),
        ("application/json, */*", BINARY),
        ("application/json, application/prpc; q=0.9", JSON),
        ("application/json; q=0.1, application/prpc; encoding=binary; q=0.2", BINARY),
        ("application/json;q=0.2,application/prpc;encoding=json;q=.5,*/*;q=0.4", JSON),
        ("application/prpc; encoding=text, application/json; q=0.1", JSON),
        ("application/prpc; q=0, application/json; q=0.001", JSON),
        ("text/html; q=0.8,,application/json", JSON),
    ],
)
def test_accept_names_the_encoding_of_the_reply(accept, encoding):
    assert reply_encoding(accept) is encoding


@pytest.mark.spec("prpc:1.1.1.2")
@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/prpc; encoding=text", "application/xml, text/*", "*/*; q=0", ","],
)
def test_accept_of_nothing_that_we_can_write_is_406(accept):
    assert status_of(reply_encoding, accept) == 406


@pytest.mark.spec("prpc:1.1.1.2")
@pytest.mark.parametrize("quality", ["x", "", "-1", "0.5.5", "nan", "1e1", " "])
def test_unreadable_q_is_400(quality):
    assert status_of(reply_encoding, f"application/json; q={quality}") == 400
    assert status_of(reply_encoding, f"application/json, text/html; q={quality}") == 400


@pytest.mark.spec("prpc:1.1.1.4")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("2H", 7200),
        ("3M", 180),
        ("90S", 90),
        ("250m", 0.25),
        ("5u", 5e-6),
        ("7n", 7e-9),
        ("0S", 0),
    ],
)
def test_time_limit_is_digits_and_a_unit(text, seconds):
    assert timeout(text) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.spec("prpc:1.1.1.4")
@pytest.mark.parametrize("text", ["", "5", "S", "5s", "5h", "-5S", "5.5S", "5 S", "5SS", "\u0665S"])
def test_malformed_time_limit_is_400(text):
    assert status_of(timeout, text) == 400
    assert status_of(timeout, "1" * 20 + "S") == 400


@pytest.mark.spec("prpc:1.1.1.5")
def test_size_limit_is_a_positive_number():
    assert [max_reply(text) for text in (None, "1", "33521664")] == [None, 1, 33521664]
    for text in ("", "0", "-1", "1.5", "x", " 1", "1" * 20):
        assert status_of(max_reply, text) == 400


@pytest.mark.spec("prpc:1.1.1.8")
def test_binary_call_data_is_padded_base64():
    good = {"X-Any": "ä", "X-Trace-Bin": "AAEC", "x-more-bin": "AA==, +/8=", "X-Empty-Bin": ""}
    check_call_data(good.items())
    for value in ("AA", "A", "_-8=", "AA==x", "ä", "A A="):
        assert status_of(check_call_data, [("X-Trace-Bin", value)]) == 400
