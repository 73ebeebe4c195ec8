"""Errors of the API: one line as `application/problem+json` (RFC 9457)."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from flask import Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from botapi.api.capacity import NoCapacity
from botapi.api.config_push import ConfigRefusal
from botapi.api.error_codes import CODES, type_of
from botapi.domain.errors import Code, Refusal, one_line
from botapi.door import HTTP_STATUS, RETRY_AFTER_S, BodyTooLarge
from botapi.store.protocol import Outage, StoreError, TooLarge
from botapi.wire_json import dumps

PROBLEM_TYPE = "application/problem+json"
BUSY = frozenset({429, 503})
"""What goes away by itself."""

log = logging.getLogger(__name__)


def problem(
    status: int, code: str, detail: str, more: Mapping[str, object] | None = None
) -> Response:
    """The one form of an error; `more` are further members."""
    title = HTTPStatus(status).phrase if status in set(HTTPStatus) else code
    waits = {"retry_after_s": RETRY_AFTER_S} if status in BUSY else {}
    body = {
        "type": type_of(code),
        "title": title,
        "status": status,
        "detail": one_line(detail),
        "code": code,
        "instance": g.get("request_id", ""),
        **waits,
        **(more or {}),
    }
    response = Response(dumps(body) + b"\n", status, content_type=PROBLEM_TYPE)
    response.headers["Cache-Control"] = "no-store"
    if waits:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def of_refusal(error: Refusal) -> Response:
    """What the caller asked for is not to be had."""
    log.info("refused %s %s: %s", request.method, request.path, error.message)
    code, more = error.code.lower(), _places(error)
    if isinstance(error, NoCapacity):
        code = "no_capacity"
    elif isinstance(error, ConfigRefusal):
        code, more = error.word, error.details
    response = problem(CODES[code][0], code, error.message, more)
    if error.code is Code.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _places(error: Refusal) -> dict[str, object]:
    """`errors` with a JSON pointer (RFC 9457 3), for a complaint about a place in the body."""
    before = f"{error.place}: "
    if not (error.place.startswith("/") and error.message.startswith(before)):
        return {}
    return {"errors": [{"pointer": error.place, "detail": error.message[len(before) :]}]}


def of_body_too_large(error: BodyTooLarge) -> Response:
    """Nothing further was read, so the connection ends."""
    response = problem(413, "too_large", f"{error}; send less")
    response.headers["Connection"] = "close"
    return response


def of_store_error(error: StoreError) -> Response:
    """The store cannot answer, or not so much at once."""
    if isinstance(error, TooLarge):
        return problem(413, "too_large", f"more than can be stored: {error}; send less")
    log.error("store: %s", error)
    code = Code.UNAVAILABLE if isinstance(error, Outage) else Code.ABORTED
    response = problem(HTTP_STATUS[code], code.lower(), f"the store: {error}; try again")
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def of_http(error: HTTPException) -> Response:
    """What Werkzeug found wrong with the request itself."""
    status = error.code or 500
    detail = str(error.description or error.name)
    code = error.name.lower().replace(" ", "_")
    if code not in CODES:
        code = "bad_request" if status < 500 else "internal"
    response = problem(CODES[code][0], code, detail)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(error.valid_methods)
    return response


def of_bug(error: Exception) -> Response:
    """A mistake of ours: logged once with the request id."""
    request_id = g.get("request_id", "")
    log.error("request %s failed", request_id, exc_info=error)
    return problem(500, "internal", f"internal error; the server's log has request {request_id}")
