"""Known secrets replaced in a task's output before it leaves the machine.

Looked for as they are and as they are commonly written: base64 at any alignment, hex, in URLs,
in JSON strings.  A secret that is cut by the end of one piece of output is found with the next.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

REPLACEMENT = b"[REDACTED]"
MIN_PLAIN_BYTES = 4
MIN_ENCODED_BYTES = 8
MAX_FORM_BYTES = 4096


class Redactor:
    """A stream of bytes with the secrets taken out; ``count`` says how many were."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        """Without secrets the stream passes through unchanged."""
        forms = sorted({form for secret in secrets for form in forms_of(secret)}, key=len)
        self._forms = tuple(forms)
        self._longest = len(forms[-1]) if forms else 0
        self._firsts = frozenset(form[0] for form in forms)
        # The longest form first: where two begin at the same byte, that one counts.
        self._pattern = re.compile(b"|".join(re.escape(form) for form in reversed(forms)))
        self._held = b""
        self.count = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes that may leave now; the beginning of what may be a secret is held back."""
        if not self._forms:
            return data
        data = self._held + data
        out = bytearray()
        at = 0
        end = self._first_doubt(data)
        while True:
            found = self._pattern.search(data, at)
            if found is None or found.start() >= end:
                break
            out += data[at : found.start()] + REPLACEMENT
            self.count += 1
            at = found.end()
        end = max(at, end)
        out += data[at:end]
        self._held = data[end:]
        return bytes(out)

    def flush(self) -> bytes:
        """What was held back: no more output follows, so it is no whole secret."""
        held, self._held = self._held, b""
        return self._pattern.sub(self._replace, held) if self._forms else held

    def _replace(self, _found: "re.Match[bytes]") -> bytes:
        self.count += 1
        return REPLACEMENT

    def _first_doubt(self, data: bytes) -> int:
        """Where the first byte is that may begin a secret which goes on behind the data."""
        for start in range(max(0, len(data) - self._longest + 1), len(data)):
            if data[start] in self._firsts:
                rest = data[start:]
                if any(len(form) > len(rest) and form.startswith(rest) for form in self._forms):
                    return start
        return len(data)


def forms_of(secret: bytes) -> Iterator[bytes]:
    """The ways in which a secret may be written; long ones in pieces, texts line by line."""
    lines = [line.strip(b"\r") for line in secret.split(b"\n")]
    for plain in (secret, *lines) if len(lines) > 1 else (secret,):
        yield from _pieces(plain, MIN_PLAIN_BYTES if plain == secret else MIN_ENCODED_BYTES)
    for encoded in _encoded(secret):
        yield from _pieces(encoded, MIN_ENCODED_BYTES)


def _pieces(form: bytes, least: int) -> Iterator[bytes]:
    for start in range(0, len(form), MAX_FORM_BYTES):
        piece = form[start : start + MAX_FORM_BYTES]
        if len(piece) >= least:
            yield piece


def _encoded(secret: bytes) -> Iterator[bytes]:
    for shift, skipped in ((0, 0), (1, 2), (2, 3)):
        whole = (len(secret) + shift) * 8 // 6
        padded = bytes(shift) + secret
        yield base64.b64encode(padded)[skipped:whole]
        yield base64.urlsafe_b64encode(padded)[skipped:whole]
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield quote(secret, safe="").encode()
    text = secret.decode("utf-8", "replace")
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
