"""Every `code` that a problem of `/api/v1` has, with its status and what it means.

docs/errors.md shows the same; the `type` of a problem leads to `GET /api/v1/errors`.
"""

from collections.abc import Mapping

from botapi.api.parts import Json
from botapi.domain.errors import Code
from botapi.door import HTTP_STATUS

PLACE = "/api/v1/errors"

_MEANINGS: Mapping[Code, str] = {
    Code.CANCELED: "The call was given up before it was answered.",
    Code.INVALID_ARGUMENT: "The request is wrong; `detail` says where, and what would be right.",
    Code.DEADLINE_EXCEEDED: "The answer took longer than the call allowed.",
    Code.NOT_FOUND: "There is no such thing, or no such path.",
    Code.ALREADY_EXISTS: "It is there already.",
    Code.PERMISSION_DENIED: "You may not do this, or may not see what it is about.",
    Code.RESOURCE_EXHAUSTED: "Too many calls, or too many of a thing; try again later.",
    Code.FAILED_PRECONDITION: "The thing is not in a state that allows this.",
    Code.ABORTED: "Somebody else changed the same thing; look again and repeat.",
    Code.OUT_OF_RANGE: "It lies behind the end.",
    Code.UNIMPLEMENTED: "This server does not do that.",
    Code.INTERNAL: "A mistake of the server; its log has the request id.",
    Code.UNAVAILABLE: "The store or another service is away; try again.",
    Code.UNAUTHENTICATED: "No good API key, token or session came with the call.",
    Code.UNKNOWN: "A mistake of the server; its log has the request id.",
    Code.DATA_LOSS: "What was stored cannot be read.",
}

CODES: Mapping[str, tuple[int, str]] = {
    **{code.lower(): (HTTP_STATUS[code], text) for code, text in _MEANINGS.items()},
    "bad_request": (400, "The request is no proper HTTP."),
    "bad_config": (400, "Files of a configuration have mistakes; `mistakes` lists them."),
    "method_not_allowed": (405, "The path takes other methods; `Allow` lists them."),
    "no_capacity": (409, "No known bot could run the task, and it does not say that it waits."),
    "outdated": (409, "Another revision than `parent` is in force; `rev` is its number."),
    "would_drop": (409, "The change drops more bots than allowed; `drop` with their number goes."),
    "precondition_failed": (412, "Another revision than `If-Match` names is in force."),
    "too_large": (413, "The body, or what would be stored, is too large."),
    "precondition_required": (428, "Say with `parent` or `If-Match` what the change is based on."),
}


def type_of(code: str) -> str:
    """Where a code is explained: the `type` of a problem (RFC 9457), relative to the server."""
    return f"{PLACE}#{code}"


def listed() -> Json:
    """All of them, by code."""
    found = [
        {"code": code, "status": status, "meaning": meaning}
        for code, (status, meaning) in sorted(CODES.items())
    ]
    return {"items": found, "next_cursor": None}
