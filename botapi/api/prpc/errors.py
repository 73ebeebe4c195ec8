"""Codes, statuses and what may be said of an error (prpc-api 1.3)."""

from collections.abc import Mapping

from botapi.domain.errors import Code, one_line
from botapi.door import HTTP_STATUS

NUMBERS: Mapping[Code, int] = {
    Code.CANCELED: 1,
    Code.UNKNOWN: 2,
    Code.INVALID_ARGUMENT: 3,
    Code.DEADLINE_EXCEEDED: 4,
    Code.NOT_FOUND: 5,
    Code.ALREADY_EXISTS: 6,
    Code.PERMISSION_DENIED: 7,
    Code.RESOURCE_EXHAUSTED: 8,
    Code.FAILED_PRECONDITION: 9,
    Code.ABORTED: 10,
    Code.OUT_OF_RANGE: 11,
    Code.UNIMPLEMENTED: 12,
    Code.INTERNAL: 13,
    Code.UNAVAILABLE: 14,
    Code.DATA_LOSS: 15,
    Code.UNAUTHENTICATED: 16,
}
"""The number of each code; 0 is success."""

INSTEAD: Mapping[Code, str] = {
    Code.UNKNOWN: "unknown error",
    Code.DEADLINE_EXCEEDED: "the call took longer than its time limit",
    Code.UNIMPLEMENTED: "not implemented",
    Code.INTERNAL: "internal error",
    Code.UNAVAILABLE: "the server cannot answer now; try again",
    Code.DATA_LOSS: "data was lost",
}
"""What callers see instead of a handler's own words: those of HTTP 500 and above."""

OF_STATUS: Mapping[int, Code] = {
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    429: Code.RESOURCE_EXHAUSTED,
    503: Code.UNAVAILABLE,
}
"""The code for what HTTP itself finds wrong."""


class ProtocolError(Exception):
    """The call itself is wrong: its words are shown whatever the code.

    `status` where it is not the usual one of the code. `details` are values of the header of
    details. `closes`: something of the body is left unread, so the connection ends.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int = 0,
        details: tuple[str, ...] = (),
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = one_line(message)
        self.status = status or HTTP_STATUS[code]
        self.details = details
        self.closes = closes


def bad_call(message: str, status: int = 400) -> ProtocolError:
    """Code 3, before any handler was asked."""
    return ProtocolError(Code.INVALID_ARGUMENT, message, status=status)


def shown(code: Code, message: str) -> str:
    """What of a handler's error may be shown."""
    return INSTEAD.get(code, message)
