"""Vectors of every signed or sealed text, and that none can be used for another purpose."""

import base64
import dataclasses
import hashlib
import hmac
import itertools

import itsdangerous.signer
import pytest
from botpb import session_pb2
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from botapi.auth import botsession, hmactoken, signing
from botapi.auth.botsession import (
    AEAD_INFO,
    AEAD_PURPOSE,
    MAX_SESSION_AGE_MS,
    MAX_TOKEN_CHARS,
    PREFIX,
    SESSION_LIFE_MS,
    BadMac,
    BadToken,
    decode,
    encode,
    encode_hidden,
)
from botapi.auth.hmactoken import Secret, seal, tag
from botapi.auth.signing import BadSignature, Purpose, sign, unsign
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import join_key
from tests.auth.test_botsession import SECRET, VECTOR, VECTOR_SESSION
from tests.factories import NO_LIMITS

KEY = b"secret"
NONCE = bytes(range(12))
NOW_MS = 1_772_604_367_000
HIDDEN_KEY = "422db7eacaf71d6f0fd9ef08e5f49e9ee59c253bb93afc9b80b59bf0acb94c1b"
HIDDEN_SHA256 = "a2fc15180793df65dbc6e44eb9444e8ef5b4a9c3e8d679958a7b2c34d777a907"
SIGNED = "eyJpIjoidDEifQ.aafLzw.G8VdZ3ZyoDZJ_C7rcmY_5A6gi-dculxhngUjMQnMGc8"


def inner_bytes():
    envelope = session_pb2.SessionToken.FromString(base64.b64decode(VECTOR))
    return envelope.hmac_tagged.session


def hkdf(key, info):
    """RFC 5869 with SHA-256, no salt, 32 bytes: by hand."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@pytest.mark.spec("2.2.1.2", "2.2.1.3", "2.2.1.5", "2.2.1.6")
def test_token_vectors():
    """The token of bot-api, Appendix B, put together byte by byte."""
    assert encode(VECTOR_SESSION, SECRET) == VECTOR
    body = inner_bytes()
    mac = hmac.digest(KEY, b"swarming.Session" + body, hashlib.sha256)
    by_hand = b"\x0a" + varint(2 + varlen(body) + len(body) + 34)
    by_hand += b"\x0a" + varint(len(body)) + body + b"\x12\x20" + mac
    assert base64.b64encode(by_hand).decode() == VECTOR


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def varlen(body):
    return len(varint(len(body))) - 1


@pytest.mark.control("tokens.aead")
def test_token_vectors_of_the_encrypted_kind():
    key = hkdf(KEY, b"skep.session.aead.v1")
    assert key.hex() == HIDDEN_KEY
    encryptor = Cipher(algorithms.AES(key), modes.GCM(NONCE)).encryptor()
    encryptor.authenticate_additional_data(b"skep.Session")
    cipher_text = encryptor.update(inner_bytes()) + encryptor.finalize()
    sealed = NONCE + cipher_text + encryptor.tag
    envelope = session_pb2.SessionToken(
        aead_encrypted=session_pb2.SessionToken.AeadEncrypted(cipher_text=sealed)
    )
    token = base64.b64encode(envelope.SerializeToString()).decode()
    assert encode_hidden(VECTOR_SESSION, SECRET, NONCE) == token
    assert hashlib.sha256(token.encode()).hexdigest() == HIDDEN_SHA256
    assert decode(token, SECRET, takes_hidden=True) == VECTOR_SESSION


def test_token_vectors_of_signed_texts():
    assert sign(Purpose.BOOTSTRAP, [KEY], {"i": "t1"}, now_ms=NOW_MS) == SIGNED
    derived = hmac.digest(KEY, b"skep.bootstrap", hashlib.sha256)
    payload, _, signature = SIGNED.rpartition(".")
    mac = hmac.digest(derived, payload.encode(), hashlib.sha256)
    assert base64.urlsafe_b64encode(mac).decode().rstrip("=") == signature


@pytest.mark.spec("2.2.1.3")
@pytest.mark.control("tokens.domain-separation")
def test_token_domain_separation():
    """One key for everything, and yet no text is good for another purpose."""
    for one, other in itertools.permutations(Purpose, 2):
        text = sign(one, [KEY], "x", now_ms=NOW_MS)
        assert unsign(one, [KEY], text, now_ms=NOW_MS, max_age_s=1) == "x"
        with pytest.raises(BadSignature):
            unsign(other, [KEY], text, now_ms=NOW_MS, max_age_s=1)
        with pytest.raises(BadToken):
            decode(text, SECRET, takes_hidden=True)
    for token in (VECTOR, encode_hidden(VECTOR_SESSION, SECRET, NONCE)):
        for purpose in Purpose:
            with pytest.raises(BadSignature):
                unsign(purpose, [KEY], token, now_ms=NOW_MS, max_age_s=None)


@pytest.mark.control("tokens.domain-separation")
@pytest.mark.parametrize("prefix", [b"", b"swarming.Session2", b"swarming.Sessio", *Purpose])
def test_token_domain_separation_of_tags_under_the_session_key(prefix):
    prefix = prefix.encode() if isinstance(prefix, str) else prefix
    body = inner_bytes()
    envelope = session_pb2.SessionToken(
        hmac_tagged=session_pb2.SessionToken.HmacTagged(
            session=body, hmac_sha256=tag(SECRET, prefix, body)
        )
    )
    with pytest.raises(BadMac):
        decode(base64.b64encode(envelope.SerializeToString()).decode(), SECRET)


@pytest.mark.control("tokens.domain-separation")
@pytest.mark.parametrize(
    ("info", "purpose"), [(AEAD_INFO, b"other"), (b"other", AEAD_PURPOSE), (b"", b"")]
)
def test_token_domain_separation_of_boxes_under_the_session_key(info, purpose):
    sealed = seal(SECRET, info, purpose, inner_bytes(), NONCE)
    envelope = session_pb2.SessionToken(
        aead_encrypted=session_pb2.SessionToken.AeadEncrypted(cipher_text=sealed)
    )
    token = base64.b64encode(envelope.SerializeToString()).decode()
    with pytest.raises(BadMac):
        decode(token, SECRET, takes_hidden=True)


def test_no_purpose_begins_with_another():
    names = [PREFIX, AEAD_PURPOSE, *(purpose.encode() for purpose in Purpose)]
    assert not [pair for pair in itertools.permutations(names, 2) if pair[0].startswith(pair[1])]


@pytest.mark.spec("2.2.1.8")
@pytest.mark.control("tokens.hmac")
def test_token_constant_time_api(monkeypatch):
    """What `compare_digest` says is all that decides, for every kind of MAC."""
    asked = []

    def says(answer):
        def compare(one, other):
            asked.append((len(one), len(other)))
            return answer

        return compare

    forged = encode(VECTOR_SESSION, Secret(b"forged"))
    text = sign(Purpose.CSRF, [KEY], "x", now_ms=NOW_MS)
    monkeypatch.setattr(hmactoken.hmac, "compare_digest", says(True))
    assert decode(forged, SECRET) == VECTOR_SESSION
    monkeypatch.setattr(hmactoken.hmac, "compare_digest", says(False))
    with pytest.raises(BadMac):
        decode(VECTOR, SECRET)
    assert asked == [(32, 32)] * 2
    assert itsdangerous.signer.hmac is hmactoken.hmac  # so what was patched is theirs too
    with pytest.raises(BadSignature):
        unsign(Purpose.CSRF, [KEY], text, now_ms=NOW_MS, max_age_s=1)
    assert len(asked) == 3


@pytest.mark.control("tokens.hmac")
@given(body=st.binary(max_size=60))
def test_token_is_verified_before_it_is_parsed(body):
    """Bytes that are no session are refused for their MAC, never for what is in them."""
    envelope = session_pb2.SessionToken(
        hmac_tagged=session_pb2.SessionToken.HmacTagged(session=body, hmac_sha256=b"m" * 32)
    )
    with pytest.raises(BadMac):
        decode(base64.b64encode(envelope.SerializeToString()).decode(), SECRET)


@pytest.mark.control("tokens.size")
def test_token_over_16_kib_is_refused_unread(monkeypatch):
    def never(*_args, **_more):
        raise AssertionError("it was read")

    monkeypatch.setattr(botsession, "b64decode", never)
    with pytest.raises(BadToken, match="too long"):
        decode("A" * (MAX_TOKEN_CHARS + 1), SECRET)
    with pytest.raises(BadSignature, match="too long"):
        unsign(Purpose.CSRF, [KEY], "A" * (signing.MAX_CHARS + 1), now_ms=NOW_MS, max_age_s=1)


# Sessions of a bot, through the server.


@pytest.fixture
def settings(tmp_path, small_bot, request):
    return Settings(
        data_dir=tmp_path / "data",
        bot_archive=small_bot,
        session_envelope=getattr(request, "param", "hmac"),
        **NO_LIMITS,
    )


@pytest.fixture
def bot(make_bot):
    return make_bot().start()


both_kinds = pytest.mark.parametrize("settings", ["hmac", "aead"], indirect=True)


@both_kinds
@pytest.mark.spec("13.1.1", "2.1.2.3", "2.5.1.3")
@pytest.mark.control("tokens.session-life")
def test_session_lives_an_hour_after_its_last_refresh_and_no_longer(bot, clock):
    for _ in range(3):
        clock.advance(SESSION_LIFE_MS / 1000)
        bot.update()
        assert bot.status == 200
    clock.advance(SESSION_LIFE_MS / 1000)
    clock.advance(0.001)
    bot.update()
    assert (bot.status, "session: expired" in bot.text) == (401, True)


@pytest.mark.control("tokens.session-life")
@pytest.mark.slow
def test_session_ends_after_seven_days_of_refreshes(bot, clock, parts):
    started = parts.bots.session_of(bot.session).started_ms
    while clock.now_ms() + SESSION_LIFE_MS <= started + MAX_SESSION_AGE_MS:
        clock.advance(SESSION_LIFE_MS / 1000)
        assert bot.poll()["cmd"] == "rbe"
    clock.advance((started + MAX_SESSION_AGE_MS - clock.now_ms()) / 1000)
    assert bot.poll()["cmd"] == "rbe"
    assert parts.bots.session_of(bot.session).started_ms == started
    clock.advance(0.001)
    bot.update()
    assert (bot.status, "session: expired" in bot.text) == (401, True)
    assert bot.poll()["cmd"] == "bot_restart"
    bot.session = None
    assert bot.start().session


@pytest.mark.control("tokens.session-life")
def test_session_is_bound_to_its_bot_id(bot, make_bot, parts):
    """What another bot does with a copied token it does as the bot of the token."""
    other = make_bot("vm2")
    other.session = bot.session
    reply = other.poll(dimensions={"id": ["vm2"], "os": ["Linux"]})
    assert reply["cmd"] == "sleep"  # the bot of the token is quarantined for this
    assert parts.store.get(codec.BOT, join_key("vm2")) == [None]
    session = parts.bots.session_of(bot.session)
    forged = encode(dataclasses.replace(session, bot_id="vm2"), Secret(b"x" * 32))
    other.session = forged
    other.update()
    assert (other.status, "bad signature" in other.text) == (401, True)


@pytest.mark.control("tokens.session-life")
def test_session_keeps_id_epoch_and_start_through_every_refresh(bot, clock, parts):
    first = parts.bots.session_of(bot.session)
    for refresh in (bot.poll, bot.update, bot.open_lease_session):
        clock.advance(600)
        refresh()
        now = parts.bots.session_of(bot.session)
        for name in ("bot_id", "session_id", "epoch", "started_ms", "handshake_config_hash"):
            assert getattr(now, name) == getattr(first, name)
        assert now.expiry_ms == clock.now_ms() + SESSION_LIFE_MS


@pytest.mark.control("tokens.session-life")
def test_session_of_a_later_process_has_a_later_epoch(bot, make_bot, parts):
    later = make_bot()
    later.session_id = "vm1-later"
    later.handshake()
    before, after = (parts.bots.session_of(b.session).epoch for b in (bot, later))
    assert after == before + 1


@pytest.mark.parametrize("settings", ["aead"], indirect=True)
@pytest.mark.control("tokens.aead")
def test_session_tokens_are_encrypted_when_the_setting_says_so(bot, parts):
    raw = base64.b64decode(bot.session)
    assert session_pb2.SessionToken.FromString(raw).WhichOneof("kind") == "aead_encrypted"
    assert b"vm1" not in raw
    session = parts.bots.session_of(bot.session)
    bot.session = encode(session, parts.bots.keys.secret("session"))  # as made before the switch
    bot.update()
    assert bot.status == 200


@pytest.mark.spec("2.1.1.2", "2.5.1.3", "2.5.1.2")
@pytest.mark.control("tokens.aead")
def test_session_token_of_the_encrypted_kind_is_401_by_default(bot, parts):
    session = parts.bots.session_of(bot.session)
    bot.session = encode_hidden(session, parts.bots.keys.secret("session"), NONCE)
    bot.update()
    assert (bot.status, "unsupported kind of token: aead_encrypted" in bot.text) == (401, True)
    assert bot.poll()["cmd"] == "bot_restart"


@pytest.mark.parametrize("settings", ["aead"], indirect=True)
def test_session_tokens_never_share_a_nonce(bot, parts):
    session = parts.bots.session_of(bot.session)
    raws = [base64.b64decode(parts.bots.token(session)) for _ in range(50)]
    envelopes = [session_pb2.SessionToken.FromString(raw) for raw in raws]
    assert len({envelope.aead_encrypted.cipher_text[:12] for envelope in envelopes}) == 50
