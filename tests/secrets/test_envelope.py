"""Sealed values: what opens them and what does not."""

import os
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.clock import SystemRng
from botapi.secrets.envelope import BadSeal, KeyEncryptionKeys, Place
from botapi.secrets.key_file import KeyFileError, add_key, keep_active, make_key_file, read_keys

RNG = SystemRng()
KEYS = KeyEncryptionKeys((("first", bytes(range(32))),))
PLACE = Place("secret", "npm", 1)


@given(st.binary(max_size=200))
def test_sealed_value_opens_in_its_place(value):
    sealed = KEYS.seal(PLACE, value, RNG)
    assert KEYS.open(PLACE, sealed) == value
    assert len(value) < 8 or value not in sealed.ciphertext + sealed.wrapped_key


@pytest.mark.control("tasks.secrets")
@pytest.mark.parametrize(
    "other",
    [Place("task", "npm", 1), Place("secret", "npn", 1), Place("secret", "npm", 2)],
    ids=lambda place: f"{place.scope}-{place.name}-{place.version}",
)
def test_aad_swap_refused(other):
    sealed = KEYS.seal(PLACE, b"value", RNG)
    with pytest.raises(BadSeal):
        KEYS.open(other, sealed)
    with pytest.raises(BadSeal):
        KEYS.rewrap(other, sealed, RNG)


@given(st.text(), st.text(), st.integers(0, 99), st.text(), st.text(), st.integers(0, 99))
def test_no_two_places_are_bound_to_the_same_bytes(a, b, n, c, d, m):
    try:
        left, right = Place(a, b, n), Place(c, d, m)
        assert (left == right) == (left.bound == right.bound)
    except UnicodeEncodeError:
        pass


@pytest.mark.parametrize("field", ["wrapped_key", "ciphertext"])
def test_changed_byte_is_noticed(field):
    sealed = KEYS.seal(PLACE, b"value", RNG)
    raw = bytearray(getattr(sealed, field))
    raw[-1] ^= 1
    with pytest.raises(BadSeal):
        KEYS.open(PLACE, replace(sealed, **{field: bytes(raw)}))


def test_rewrapped_value_needs_the_new_key_only():
    sealed = KEYS.seal(PLACE, b"value", RNG)
    both = KeyEncryptionKeys((("second", bytes(32)), *KEYS.keys))
    new = both.rewrap(PLACE, sealed, RNG)
    assert new.ciphertext == sealed.ciphertext
    assert KeyEncryptionKeys((("second", bytes(32)),)).open(PLACE, new) == b"value"
    with pytest.raises(BadSeal):
        KEYS.open(PLACE, new)


def test_keys_never_show_in_a_repr():
    assert "first" not in repr(KEYS)
    assert "\\x01" not in repr(KEYS)


def test_key_file_is_made_once_and_only_for_its_owner(tmp_path):
    path = tmp_path / "keys"
    make_key_file(path, RNG)
    first = read_keys(path)
    make_key_file(path, RNG)
    assert read_keys(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert os.listdir(tmp_path) == ["keys"]


def test_new_key_wraps_and_the_old_one_still_opens(tmp_path):
    path = tmp_path / "keys"
    make_key_file(path, RNG)
    sealed = read_keys(path).seal(PLACE, b"value", RNG)
    both = add_key(path, RNG)
    assert both.open(PLACE, sealed) == b"value"
    assert both.active_id != sealed.key_id
    only = keep_active(path)
    assert [key_id for key_id, _ in only.keys] == [both.active_id]
    with pytest.raises(BadSeal):
        only.open(PLACE, sealed)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o400, "holds no keys"),
        ("abcd:short\n", 0o400, ":1: is not"),
        ("abcd:" + "A" * 43 + "=\n" + "abcd:" + "B" * 43 + "=\n", 0o400, "the same id"),
        ("abcd:" + "A" * 43 + "=\n", 0o440, "others may read it"),
        ("x" * 5000, 0o400, ":1: is not"),
    ],
    ids=["empty", "short", "twice", "open", "long"],
)
def test_unfit_key_file_is_refused_in_one_line(tmp_path, text, mode, said):
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=said) as caught:
        read_keys(path)
    assert "\n" not in str(caught.value)


def test_missing_key_file_is_named(tmp_path):
    with pytest.raises(KeyFileError, match="No such file"):
        read_keys(tmp_path / "none")
