import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth import bootstrap
from botapi.auth.bootstrap import (
    EnrolledDigests,
    check_bootstrap_token,
    new_token,
    sign_token,
)
from botapi.auth.signing import Purpose, sign
from botapi.domain.errors import Code, Refusal
from tests.auth.fixed import CountingRng

NOW = 1_772_604_367_000
KEYS = [b"old", b"new"]


def token(**fields):
    fields = {"uses": 2, "ttl_s": 3600, "pool": "ci", "creator": "alice"} | fields
    return new_token(**fields, rng=CountingRng(), now_ms=NOW)


def refusal(text, now_ms=NOW, keys=KEYS):
    with pytest.raises(Refusal) as caught:
        check_bootstrap_token(keys, text, now_ms=now_ms)
    assert caught.value.code is Code.PERMISSION_DENIED
    return caught.value.message


def test_signed_token_gives_its_id_until_it_expires():
    text = sign_token(token(), KEYS)
    assert text.isascii()
    assert check_bootstrap_token(KEYS, text, now_ms=NOW + 3_600_000) == token().token_id
    assert refusal(text, NOW + 3_600_001) == "the bootstrap token is expired"


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=60))
def test_anything_else_is_refused_in_one_line(text):
    assert refusal(text) == "the bootstrap token is not valid"


@pytest.mark.control("bots.enrolment")
def test_text_signed_by_others_or_for_something_else_is_refused():
    assert refusal(sign_token(token(), [b"other"])) == "the bootstrap token is not valid"
    value = {"i": "x", "x": NOW + 9}
    assert refusal(sign(Purpose.CURSOR, KEYS, value, now_ms=NOW)) == (
        "the bootstrap token is not valid"
    )


def test_record_is_good_until_it_is_used_up_expired_or_revoked():
    good = token()
    assert (good.uses, good.uses_left, good.expires_ms) == (2, 2, NOW + 3_600_000)
    assert good.problem(good.expires_ms) == ""
    assert good.problem(good.expires_ms + 1) == "the bootstrap token is expired"
    used = dataclasses.replace(good, uses_left=0)
    assert used.problem(NOW) == "the bootstrap token is used up"
    revoked = dataclasses.replace(good, revoked_ms=NOW)
    assert revoked.problem(NOW) == "the bootstrap token is revoked"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"uses": 0}, "uses is 0, not from 1 to 1000"),
        ({"uses": 1001}, "uses is 1001, not from 1 to 1000"),
        ({"ttl_s": 0}, "ttl_s is 0, not from 1 to 2592000"),
        ({"ttl_s": 2_592_001}, "ttl_s is 2592001, not from 1 to 2592000"),
    ],
)
def test_new_token_refuses_what_is_out_of_the_limits(fields, said):
    with pytest.raises(Refusal) as caught:
        token(**fields)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, said)


class Reader:
    """Digests by host, and how often somebody asked."""

    def __init__(self, **digests):
        self.digests = digests
        self.reads = 0

    def __call__(self, host):
        self.reads += 1
        return self.digests.get(host)


def test_digests_are_read_once_until_a_change_is_heard():
    reader = Reader(a=b"1")
    digests = EnrolledDigests(reader)
    assert [digests.digest("a"), digests.digest("a"), reader.reads] == [b"1", b"1", 1]
    reader.digests["a"] = b"2"
    digests.hear("bot")
    assert digests.digest("a") == b"1"
    digests.hear("enrol")
    assert digests.digest("a") == b"2"
    digests.hear("*")
    digests.digest("a")
    assert reader.reads == 3


def test_host_that_is_not_enrolled_is_asked_for_each_time():
    reader = Reader()
    digests = EnrolledDigests(reader)
    assert digests.digest("a") is None
    reader.digests["a"] = b"1"
    assert digests.digest("a") == b"1"


def test_change_heard_during_a_read_is_not_lost():
    digests = EnrolledDigests(lambda host: digests.hear("enrol") or b"old")
    assert digests.digest("a") == b"old"
    digests.read = lambda host: b"new"
    assert digests.digest("a") == b"new"


def test_number_of_remembered_hosts_is_bounded(monkeypatch):
    monkeypatch.setattr(bootstrap, "MAX_REMEMBERED_HOSTS", 2)
    reader = Reader(a=b"1", b=b"2", c=b"3")
    digests = EnrolledDigests(reader)
    for host in ("a", "b", "c", "c"):
        digests.digest(host)
    assert reader.reads == 3
