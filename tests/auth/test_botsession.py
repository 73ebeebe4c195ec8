"""The token of bot-api 2 and its test vector (Appendix B)."""

import base64
import dataclasses

import pytest
from botpb import bots_pb2, session_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth import botsession
from botapi.auth.botsession import (
    BadMac,
    BadToken,
    BotConfig,
    DebugInfo,
    KnownSessions,
    MissingField,
    Session,
    UnsupportedFormat,
    decode,
    encode,
    encode_hidden,
)
from botapi.auth.hmactoken import Secret, tag
from botapi.domain.bot_groups import AuthMethod, BotGroup, Oidc, handshake_config_hash

SECRET = Secret(b"secret")
VECTOR = (
    "CqECCvwBCgZ2bTEtbTESJWYxZTJkM2M0YjVhNjk3ODg3NzY2NTU0NDMzMjIxMTAwLzQyNDIaBgjfs5/NBiIuCgYI"
    "z5efzQYSAnYxGiAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCpkCgYI37OfzQYSLgoGCM+Xn80GEgJ2"
    "MRogMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAaBhoEYm90cyIEbm9uZTIccHJvamVjdHMvcC9pbnN0"
    "YW5jZXMvZGVmYXVsdDIgWMoOL0mgSTWHajGImThuE8qIcOYXZxvZvyQstrCVM2JCCwjA9Z7NBhDAqdM6EiAgxj5N"
    "kd1d0jwxIF62aAlRCvXn8Sr7alRXjPABkMduQQ=="
)
_DEBUG = DebugInfo(1772604367_000, "v1", "0" * 32)
VECTOR_SESSION = Session(
    bot_id="vm1-m1",
    session_id="f1e2d3c4b5a697887766554433221100/4242",
    expiry_ms=1772607967_000,
    bot_config=BotConfig(
        expiry_ms=1772607967_000,
        debug_info=_DEBUG,
        bot_auth=(AuthMethod(ip_whitelist="bots"),),
        system_service_account="none",
        rbe_instance="projects/p/instances/default",
    ),
    last_seen_config_ms=1772600000_123,
    handshake_config_hash=handshake_config_hash(BotGroup(dimensions={"pool": ("ci",)})),
    debug_info=_DEBUG,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
MS = st.integers(0, 253402300799_999)
DEBUG = st.builds(DebugInfo, MS, TEXT, TEXT)
NAMES = st.lists(TEXT, max_size=2).map(tuple)
METHODS = st.builds(
    AuthMethod,
    require_luci_machine_token=st.booleans(),
    require_luci_machine_token_secure=st.none()
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple),
    require_service_account=NAMES,
    require_gce_vm_token=st.none() | TEXT,
    require_enrolled_secret=st.booleans(),
    require_oidc=st.none() | st.builds(Oidc, TEXT, TEXT, NAMES),
    require_client_cert=st.none() | NAMES,
    ip_whitelist=TEXT,
    log_if_failed=st.booleans(),
)
SESSIONS = st.builds(
    Session,
    bot_id=TEXT.map("b".__add__),
    session_id=TEXT.map("s".__add__),
    expiry_ms=MS,
    bot_config=st.builds(
        BotConfig, MS, DEBUG, st.lists(METHODS, max_size=2).map(tuple), TEXT, TEXT, TEXT, TEXT, TEXT
    ),
    last_seen_config_ms=MS,
    handshake_config_hash=st.binary(max_size=32),
    rbe_bot_session_id=TEXT,
    epoch=st.integers(0, 2**63 - 1),
    credential_sha256=st.binary(max_size=32),
    started_ms=MS,
    debug_info=DEBUG,
)


@pytest.mark.spec("2.1.1.1", "2.2.1.1", "2.2.1.2", "2.2.1.4", "2.2.1.5", "2.2.1.6", "2.2.1.7")
@pytest.mark.control("tokens.hmac")
def test_encode_gives_the_vector_of_the_specification_byte_by_byte():
    assert encode(VECTOR_SESSION, SECRET) == VECTOR


@pytest.mark.spec(
    "2.1.2.1",
    "2.1.2.2",
    "2.1.2.3",
    "2.1.2.4",
    "2.1.2.5",
    "2.1.2.6",
    "2.1.2.8",
    "2.1.3.1",
    "2.1.3.2",
    "2.1.3.3",
    "2.1.3.4",
    "2.1.3.6",
)
def test_decode_reads_the_vector_of_the_specification():
    assert decode(VECTOR, SECRET) == VECTOR_SESSION


@pytest.mark.spec("2.2.1.2", "2.2.1.3", "2.2.1.4", "13.1.5")
def test_mac_of_the_vector_is_the_one_of_the_specification():
    envelope = session_pb2.SessionToken.FromString(base64.b64decode(VECTOR))
    expected = "20c63e4d91dd5dd23c31205eb66809510af5e7f12afb6a54578cf00190c76e41"
    assert envelope.hmac_tagged.hmac_sha256.hex() == expected
    assert tag(SECRET, b"swarming.Session", envelope.hmac_tagged.session).hex() == expected


@pytest.mark.spec("2.1.2.7", "2.1.3.5", "2.1.3.7", "2.1.3.8")
@settings(deadline=None, max_examples=25)
@given(session=SESSIONS)
def test_decode_is_the_inverse_of_encode(session):
    assert decode(encode(session, SECRET), SECRET) == session


@pytest.mark.spec("0.4.1.6", "2.2.1.2")
@pytest.mark.control("tokens.hmac")
@given(bit=st.integers(0, len(base64.b64decode(VECTOR)) * 8 - 1))
def test_decode_refuses_any_flipped_bit(bit):
    raw = bytearray(base64.b64decode(VECTOR))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadToken):
        decode(base64.b64encode(raw).decode(), SECRET)


@given(at=st.integers(0, len(VECTOR) - 1), bit=st.integers(0, 6))
def test_decode_refuses_any_flipped_bit_of_the_text(at, bit):
    garbled = VECTOR[:at] + chr(ord(VECTOR[at]) ^ 1 << bit) + VECTOR[at + 1 :]
    with pytest.raises(BadToken):
        decode(garbled, SECRET)


@given(length=st.integers(0, len(VECTOR) - 1), tail=st.text(max_size=8))
def test_decode_raises_only_its_ladder_when_the_token_is_cut_or_garbled(length, tail):
    with pytest.raises(BadToken):
        decode(VECTOR[:length] + "!" + tail, SECRET)
    with pytest.raises(BadToken):
        decode(VECTOR[:length], SECRET)


@given(raw=st.binary(max_size=200))
def test_decode_raises_only_its_ladder_when_the_bytes_are_anything(raw):
    with pytest.raises(BadToken):
        decode(base64.b64encode(raw).decode(), SECRET)


@given(body=st.binary(max_size=200))
def test_decode_raises_only_its_ladder_when_signed_bytes_are_anything(body):
    with pytest.raises(BadToken):
        decode(_signed(body), SECRET)


@pytest.mark.spec("2.3.p1")
def test_decode_accepts_a_passive_key_and_refuses_an_unknown_one():
    token = encode(VECTOR_SESSION, Secret(b"old"))
    assert decode(token, Secret(b"new", (b"old",))) == VECTOR_SESSION
    with pytest.raises(BadMac, match="bad signature"):
        decode(token, Secret(b"new", (b"older",)))


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "unsupported kind of token: none"),
        ("not base64!", "not base64"),
        ("Ü" * 8, "not base64"),
        ("////", "not an envelope"),
        ("AB==", "not canonical base64"),
        ("A" * (16 * 1024 + 1), "too long: 16385 > 16384"),
    ],
)
def test_decode_says_why_when_there_is_no_envelope(token, reason):
    with pytest.raises(BadToken, match=reason):
        decode(token, SECRET)


@pytest.mark.spec("2.1.1.2", "2.2.1.7")
def test_decode_refuses_the_encrypted_kind():
    envelope = session_pb2.SessionToken(
        aead_encrypted=session_pb2.SessionToken.AeadEncrypted(cipher_text=b"x")
    )
    with pytest.raises(UnsupportedFormat, match="aead_encrypted"):
        decode(base64.b64encode(envelope.SerializeToString()).decode(), SECRET)


def test_decode_refuses_signed_bytes_that_are_no_session():
    with pytest.raises(BadToken, match="not a session"):
        decode(_signed(b"\xff\xff"), SECRET)


@pytest.mark.spec("0.4.1.7")
@pytest.mark.parametrize(
    "name", ["bot_id", "session_id", "expiry", "bot_config", "last_seen_config"]
)
def test_decode_names_the_missing_field(name):
    message = session_pb2.Session.FromString(
        session_pb2.SessionToken.FromString(base64.b64decode(VECTOR)).hmac_tagged.session
    )
    message.ClearField(name)
    with pytest.raises(MissingField, match=f"has no {name}"):
        decode(_signed(message.SerializeToString()), SECRET)


def test_unknown_fields_of_a_newer_server_are_ignored():
    newer = session_pb2.SessionToken.FromString(base64.b64decode(VECTOR)).hmac_tagged.session
    newer += b"\xf2\x06\x01x"  # field 110, one byte
    assert decode(_signed(newer), SECRET) == VECTOR_SESSION


@pytest.mark.spec("0.4.1.8", "13.1.1")
def test_session_is_expired_only_after_the_last_millisecond():
    assert not botsession.is_expired(VECTOR_SESSION, VECTOR_SESSION.expiry_ms)
    assert botsession.is_expired(VECTOR_SESSION, VECTOR_SESSION.expiry_ms + 1)


def test_session_is_too_old_after_seven_days_when_its_start_is_known():
    week = botsession.MAX_SESSION_AGE_MS
    session = dataclasses.replace(VECTOR_SESSION, started_ms=1_000)
    assert not botsession.is_too_old(session, 1_000 + week)
    assert botsession.is_too_old(session, 1_001 + week)
    assert not botsession.is_too_old(VECTOR_SESSION, 10**15)


@pytest.mark.spec("2.1.p1")
def test_schema_keeps_the_numbers_of_upstream_and_begins_ours_at_100():
    assert {f.name: f.number for f in session_pb2.Session.DESCRIPTOR.fields} == {
        "bot_id": 1,
        "session_id": 2,
        "expiry": 3,
        "debug_info": 4,
        "bot_config": 5,
        "handshake_config_hash": 6,
        "rbe_bot_session_id": 7,
        "last_seen_config": 8,
        "epoch": 100,
        "credential_sha256": 101,
        "started": 102,
    }
    assert bots_pb2.BotGroup.DESCRIPTOR.fields_by_name["bot_archive"].number == 100


NONCE = bytes(range(12))


def hidden(session=VECTOR_SESSION, secret=SECRET):
    return encode_hidden(session, secret, NONCE)


@settings(deadline=None, max_examples=25)
@given(session=SESSIONS, nonce=st.binary(min_size=12, max_size=12))
def test_decode_is_the_inverse_of_encode_hidden(session, nonce):
    token = encode_hidden(session, SECRET, nonce)
    assert decode(token, SECRET, takes_hidden=True) == session


@pytest.mark.control("tokens.aead")
@given(bit=st.integers(0, len(base64.b64decode(hidden())) * 8 - 1))
def test_decode_refuses_any_flipped_bit_of_the_hidden_kind(bit):
    raw = bytearray(base64.b64decode(hidden()))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadToken):
        decode(base64.b64encode(raw).decode(), SECRET, takes_hidden=True)


@pytest.mark.control("tokens.aead")
def test_hidden_kind_shows_nothing_of_the_session():
    raw = base64.b64decode(hidden())
    assert b"vm1" not in raw
    assert b"bots" not in raw


def test_decode_takes_both_kinds_when_it_takes_the_hidden_one():
    assert decode(VECTOR, SECRET, takes_hidden=True) == VECTOR_SESSION
    token = hidden(secret=Secret(b"old"))
    assert decode(token, Secret(b"new", (b"old",)), takes_hidden=True) == VECTOR_SESSION
    with pytest.raises(BadMac):
        decode(token, Secret(b"new"), takes_hidden=True)


@pytest.mark.spec("2.1.1.2", "2.2.1.7")
def test_decode_refuses_a_good_token_of_the_hidden_kind_when_it_is_not_in_use():
    with pytest.raises(UnsupportedFormat, match="aead_encrypted"):
        decode(hidden(), SECRET)


@pytest.mark.control("tokens.rotation")
def test_known_session_belongs_to_the_very_keys_it_was_verified_with():
    token = encode(VECTOR_SESSION, Secret(b"old"))
    both = Secret(b"new", (b"old",))
    known = KnownSessions()
    assert known.session(token, both) is known.session(token, Secret(b"new", (b"old",)))
    with pytest.raises(BadMac):
        known.session(token, Secret(b"new"))
    known.add(token, both, VECTOR_SESSION)
    with pytest.raises(BadMac):
        known.session(token, Secret(b"new"))


def test_known_session_of_the_hidden_kind_is_refused_when_it_is_not_in_use():
    known = KnownSessions()
    assert known.session(hidden(), SECRET, takes_hidden=True) == VECTOR_SESSION
    with pytest.raises(UnsupportedFormat):
        known.session(hidden(), SECRET)


def test_known_sessions_are_bounded_by_forgetting_the_oldest(monkeypatch):
    monkeypatch.setattr(botsession, "MAX_KNOWN_SESSIONS", 2)
    known = KnownSessions()
    for text in ("a", "b", "c"):
        known.add(text, SECRET, VECTOR_SESSION)
    assert known.session("b", SECRET) is known.session("c", SECRET) is VECTOR_SESSION
    with pytest.raises(BadToken):
        known.session("a", SECRET)


def test_known_session_is_forgotten_with_the_token_that_another_replaces():
    known = KnownSessions()
    known.add("a", SECRET, VECTOR_SESSION)
    known.add("b", SECRET, VECTOR_SESSION, instead_of="a")
    assert known.session("b", SECRET) is VECTOR_SESSION
    with pytest.raises(BadToken):
        known.session("a", SECRET)


def _signed(body):
    envelope = session_pb2.SessionToken(
        hmac_tagged=session_pb2.SessionToken.HmacTagged(
            session=body, hmac_sha256=tag(SECRET, botsession.PREFIX, body)
        )
    )
    return base64.b64encode(envelope.SerializeToString()).decode()
