"""Messages between supervisor and runner: one letter, a length, a payload.

Towards the runner: ``RUN`` (JSON), ``STOP`` (JSON: reason), ``KILL``.  From the runner:
``READY``, ``STARTED`` (JSON), ``OUTPUT`` (raw bytes), ``DONE`` (JSON).  End of file is the leash.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

RUN = b"R"
STOP = b"S"
KILL = b"K"
READY = b"H"
STARTED = b"B"
OUTPUT = b"O"
DONE = b"D"

_HEADER = struct.Struct(">cI")
MAX_PAYLOAD = 64 * 1024 * 1024


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    """One message as bytes."""
    return _HEADER.pack(kind, len(payload)) + payload


def pack_json(kind: bytes, value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """One message whose payload is the JSON of value."""
    return pack(kind, json.dumps(value).encode())


class FrameReader:
    """Cuts a byte stream back into messages; ValueError on a length beyond the cap."""

    def __init__(self) -> None:
        """Start with nothing buffered."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take bytes as they came, yield each complete (kind, payload)."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise ValueError(f"message of {length} bytes from the other process")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, payload
