"""Secrets in a task's output never leave the machine."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_client.redaction import MAX_FORM_BYTES, REPLACEMENT, Redactor

SECRET = b'p@ss "w\xc3\xb6rd"/42'


def through(secrets, *pieces):
    redactor = Redactor(secrets)
    return b"".join([*map(redactor.feed, pieces), redactor.flush()])


@pytest.mark.control("tasks.secrets")
@given(st.data())
def test_redaction_chunk_boundaries(data):
    text = b"a p@ss before " + SECRET + b" between " + SECRET[:-1] + b" and " + SECRET
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    said = through([SECRET], *pieces)
    assert said == text.replace(SECRET, REPLACEMENT)


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        base64.b64encode(SECRET),
        base64.b64encode(b"user:" + SECRET + b":more"),
        base64.b64encode(b"u:" + SECRET),
        base64.urlsafe_b64encode(b"x" + SECRET),
        SECRET.hex().encode(),
        SECRET.hex().upper().encode(),
        quote(SECRET, safe="").encode(),
        json.dumps(SECRET.decode()).encode(),
    ],
    ids=["plain", "b64", "b64-2", "b64-3", "b64url", "hex", "HEX", "url", "json"],
)
def test_secret_is_found_as_it_is_commonly_written(written):
    said = through([SECRET], b"before " + written + b" after")
    assert REPLACEMENT in said
    assert SECRET not in said
    assert base64.b64encode(SECRET)[4:-4] not in said
    assert said.startswith(b"before ")
    assert said.endswith(b" after")


def test_lines_of_a_key_are_found_one_by_one():
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
    said = through([key], b"line: MIIEvQIBADANBgkq\n")
    assert said == b"line: [REDACTED]\n"


def test_long_secret_is_found_whole():
    secret = bytes(range(33, 127)) * 100
    said = through([secret], b"<", secret[:5000], secret[5000:], b">")
    assert secret[:MAX_FORM_BYTES] not in said
    assert said.replace(REPLACEMENT, b"") == b"<>"


def test_output_that_cannot_be_a_secret_is_not_held_back():
    redactor = Redactor([b"secret"])
    assert redactor.feed(b"progress 10%\r") == b"progress 10%\r"
    assert redactor.feed(b"a sec") == b"a "
    assert redactor.feed(b"ond") == b"second"
    assert redactor.count == 0


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_without_secrets_bytes_pass_unchanged(pieces):
    assert through([], *pieces) == b"".join(pieces)


@given(st.lists(st.binary(min_size=4, max_size=8), min_size=1, max_size=3), st.data())
def test_no_secret_is_ever_whole_in_what_leaves(secrets, data):
    parts = data.draw(st.lists(st.one_of(st.sampled_from(secrets), st.binary(max_size=5))))
    redactor = Redactor(secrets)
    said = b"".join([*(redactor.feed(part) for part in parts), redactor.flush()])
    whole = b"".join(parts)
    if not any(secret in whole for secret in secrets):
        return
    assert redactor.count > 0
    assert all(secret not in said or _made_by(secret) for secret in secrets)


def _made_by(secret):
    """A secret that is a part of the replacement itself cannot be hidden by it."""
    return secret in REPLACEMENT * 2 or any(
        piece and piece in secret for piece in (REPLACEMENT[-1:], REPLACEMENT[:1])
    )
