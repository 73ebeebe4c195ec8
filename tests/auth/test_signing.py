import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeTimedSerializer

from botapi.auth.signing import BadSignature, Expired, Purpose, sign, unsign

NOW = 1_772_604_367_000
KEYS = [b"old key", b"new key"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=40)
@given(value=JSON, purpose=st.sampled_from(Purpose))
def test_unsign_is_the_inverse_of_sign(value, purpose):
    text = sign(purpose, KEYS, value, now_ms=NOW)
    assert unsign(purpose, KEYS, text, now_ms=NOW, max_age_s=0) == value
    assert unsign(purpose, KEYS, text, now_ms=NOW + 10**12, max_age_s=None) == value


@pytest.mark.control("tokens.hmac")
@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 200), bit=st.integers(0, 6))
def test_unsign_refuses_any_flipped_bit(at, bit):
    text = sign(Purpose.CURSOR, KEYS, {"after": "x"}, now_ms=NOW)
    at %= len(text)
    garbled = text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :]
    if _significant(garbled) == _significant(text):
        return
    with pytest.raises(BadSignature):
        unsign(Purpose.CURSOR, KEYS, garbled, now_ms=NOW, max_age_s=60)


def _significant(text):
    """Base64 has spare bits in its last character; they mean nothing."""
    try:
        head, mac = text.rsplit(".", 1)
        return head, base64.urlsafe_b64decode(mac + "=" * (-len(mac) % 4))
    except ValueError:
        return text


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=40))
def test_unsign_raises_nothing_but_bad_signature(text):
    with pytest.raises(BadSignature):
        unsign(Purpose.CSRF, KEYS, text, now_ms=NOW, max_age_s=60)


@pytest.mark.control("tokens.domain-separation")
def test_unsign_refuses_a_text_signed_for_another_purpose():
    for made_for in Purpose:
        text = sign(made_for, KEYS, 1, now_ms=NOW)
        for asked_for in Purpose:
            if asked_for is made_for:
                continue
            with pytest.raises(BadSignature, match="bad signature"):
                unsign(asked_for, KEYS, text, now_ms=NOW, max_age_s=None)


def test_newest_key_signs_and_every_key_verifies():
    by_new = sign(Purpose.CURSOR, KEYS, 1, now_ms=NOW)
    assert by_new == sign(Purpose.CURSOR, KEYS[1:], 1, now_ms=NOW)
    by_old = sign(Purpose.CURSOR, KEYS[:1], 1, now_ms=NOW)
    assert unsign(Purpose.CURSOR, KEYS, by_old, now_ms=NOW, max_age_s=1) == 1
    with pytest.raises(BadSignature, match="bad signature"):
        unsign(Purpose.CURSOR, [b"other"], by_new, now_ms=NOW, max_age_s=1)


@pytest.mark.parametrize("keys", [[], [b""], [b"a", b""]])
def test_empty_key_signs_nothing(keys):
    with pytest.raises(ValueError, match="empty key"):
        sign(Purpose.CURSOR, keys, 1, now_ms=NOW)


def test_signature_expires():
    text = sign(Purpose.CURSOR, KEYS, 1, now_ms=NOW)
    assert unsign(Purpose.CURSOR, KEYS, text, now_ms=NOW + 60_000, max_age_s=60) == 1
    with pytest.raises(Expired, match="signed 61 s ago, good for 60 s"):
        unsign(Purpose.CURSOR, KEYS, text, now_ms=NOW + 61_000, max_age_s=60)


def test_signature_of_the_future_is_refused_beyond_a_little_skew():
    text = sign(Purpose.CURSOR, KEYS, 1, now_ms=NOW + 30_000)
    assert unsign(Purpose.CURSOR, KEYS, text, now_ms=NOW, max_age_s=60) == 1
    text = sign(Purpose.CURSOR, KEYS, 1, now_ms=NOW + 31_000)
    with pytest.raises(BadSignature, match="future"):
        unsign(Purpose.CURSOR, KEYS, text, now_ms=NOW, max_age_s=60)


@pytest.mark.control("tokens.size")
def test_text_that_is_too_long_is_refused_unread():
    with pytest.raises(BadSignature, match="too long: 16385 > 16384"):
        unsign(Purpose.CURSOR, KEYS, "x" * 16_385, now_ms=NOW, max_age_s=60)


def test_signature_is_not_the_one_of_the_library_s_default():
    # Its defaults are SHA-1 and "django-concat".
    text = sign(Purpose.CURSOR, KEYS, 1, now_ms=NOW)
    assert len(text.rsplit(".", 1)[1]) == 43
    loose = URLSafeTimedSerializer(KEYS, salt=Purpose.CURSOR.encode())
    assert loose.loads_unsafe(text)[0] is False
