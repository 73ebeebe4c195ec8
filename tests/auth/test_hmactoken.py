import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.auth.hmactoken import NONCE_BYTES, Secret, seal, tag, unseal, verify

KEYS = st.binary(min_size=1, max_size=80)


@pytest.mark.spec("2.2.1.2", "2.2.1.4")
@pytest.mark.spec("2.2.1.2", "2.2.1.4", "13.1.5")
def test_tag_is_hmac_sha256_of_prefix_and_body():
    # RFC 4231, test case 2, split between prefix and body
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert tag(Secret(b"Jefe"), b"what do ya ", b"want for nothing?").hex() == expected


@pytest.mark.spec("2.3.p1")
@pytest.mark.spec("2.3.p1")
@given(active=KEYS, passive=st.lists(KEYS, max_size=3), body=st.binary())
def test_verify_accepts_the_active_and_every_passive_key(active, passive, body):
    secret = Secret(active, tuple(passive))
    for key in (active, *passive):
        assert verify(secret, b"p", body, tag(Secret(key), b"p", body))


@given(body=st.binary(), bit=st.integers(0, 255))
def test_verify_refuses_a_flipped_bit(body, bit):
    secret = Secret(b"active", (b"passive",))
    mac = bytearray(tag(secret, b"p", body))
    mac[bit // 8] ^= 1 << bit % 8
    assert not verify(secret, b"p", body, bytes(mac))


@pytest.mark.spec("2.2.1.3", "13.1.5")
@pytest.mark.spec("2.2.1.3", "13.1.5")
def test_verify_refuses_an_unknown_key_another_prefix_and_a_short_mac():
    secret = Secret(b"active", (b"passive",))
    assert not verify(secret, b"p", b"body", tag(Secret(b"other"), b"p", b"body"))
    assert not verify(secret, b"q", b"body", tag(secret, b"p", b"body"))
    assert not verify(secret, b"p", b"body", tag(secret, b"p", b"body")[:31])
    assert not verify(secret, b"p", b"body", b"")


@pytest.mark.parametrize(("active", "passive"), [(b"", ()), (b"a", (b"",))])
def test_secret_refuses_an_empty_key(active, passive):
    with pytest.raises(ValueError, match="empty key"):
        Secret(active, passive)


def test_secret_does_not_show_its_keys():
    assert "hunter" not in repr(Secret(b"hunter2", (b"hunter1",)))


@pytest.mark.spec("2.2.1.8")
def test_verify_compares_in_constant_time(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    secret = Secret(b"active", (b"passive",))
    good = tag(secret, b"p", b"body")
    assert verify(secret, b"p", b"body", good)
    assert not verify(secret, b"p", b"body", b"x" * 32)
    assert (good, good) in compared
    assert (good, b"x" * 32) in compared


NONCES = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


@given(active=KEYS, passive=st.lists(KEYS, max_size=3), body=st.binary(), nonce=NONCES)
def test_unseal_opens_what_the_active_or_a_passive_key_sealed(active, passive, body, nonce):
    secret = Secret(active, tuple(passive))
    for key in (active, *passive):
        assert unseal(secret, b"i", b"p", seal(Secret(key), b"i", b"p", body, nonce)) == body


@given(body=st.binary(max_size=40), nonce=NONCES, at=st.integers(0, 10**6))
def test_unseal_refuses_a_flipped_bit(body, nonce, at):
    sealed = bytearray(seal(Secret(b"k"), b"i", b"p", body, nonce))
    bit = at % (8 * len(sealed))
    sealed[bit // 8] ^= 1 << bit % 8
    assert unseal(Secret(b"k"), b"i", b"p", bytes(sealed)) is None


def test_unseal_refuses_an_unknown_key_another_purpose_and_a_short_box():
    sealed = seal(Secret(b"k"), b"i", b"p", b"body", b"n" * NONCE_BYTES)
    assert unseal(Secret(b"other", (b"third",)), b"i", b"p", sealed) is None
    assert unseal(Secret(b"k"), b"other", b"p", sealed) is None
    assert unseal(Secret(b"k"), b"i", b"other", sealed) is None
    for length in (0, NONCE_BYTES - 1, NONCE_BYTES, NONCE_BYTES + 15):
        assert unseal(Secret(b"k"), b"i", b"p", sealed[:length]) is None


@pytest.mark.parametrize("length", [0, 11, 13])
def test_seal_refuses_a_nonce_of_another_length(length):
    with pytest.raises(ValueError, match="a nonce has 12 bytes"):
        seal(Secret(b"k"), b"i", b"p", b"", b"n" * length)
