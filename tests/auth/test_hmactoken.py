import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.auth.hmactoken import Secret, tag, verify

KEYS = st.binary(min_size=1, max_size=80)


@pytest.mark.spec("2.2.1.2", "2.2.1.4")
def test_tag_is_hmac_sha256_of_prefix_and_body():
    # RFC 4231, test case 2, split between prefix and body
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert tag(Secret(b"Jefe"), b"what do ya ", b"want for nothing?").hex() == expected


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
