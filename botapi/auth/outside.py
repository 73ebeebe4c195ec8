"""Asking servers of others: over TLS or on this machine, no redirects, bounded in size and time.

Everything here blocks its thread.
"""

import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import urllib3

from botapi.domain.value_rules import is_loopback


class TooLong(Exception):
    """An answer of more bytes than were asked for."""


class TooSlow(Exception):
    """An answer that is not there within its time."""


def http_pool(headers: Mapping[str, str], timeout_s: float) -> urllib3.PoolManager:
    """For a few requests to the outside: without retries, with the system's certificates.

    The TLS context is made here and now: urllib3 was imported before gevent replaced the
    one of the standard library, and contexts that it makes itself recurse without end.
    """
    return urllib3.PoolManager(
        retries=False,
        timeout=urllib3.Timeout(total=timeout_s),
        headers=headers,
        ssl_context=ssl.create_default_context(),
    )


def read_body(reply: urllib3.BaseHTTPResponse, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises TooLong or TooSlow."""
    pieces: list[bytes] = []
    size = 0
    end = time.monotonic() + timeout_s
    while piece := reply.read1(16 * 1024, decode_content=False):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise TooLong(f"more than {max_bytes} bytes")
        if time.monotonic() > end:
            raise TooSlow(f"slower than {timeout_s} s")
    return b"".join(pieces)


def url_problem(url: str) -> str:
    """Why nothing is asked there; empty when it may be."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return f"not a URL: {url[:200]}"
    if not host or parts.username is not None or parts.scheme not in {"http", "https"}:
        return f"not a plain https URL: {url[:200]}"
    if parts.scheme == "http" and not is_loopback(host):
        return f"not https: {url[:200]}"
    return ""
