"""`/prpc/<service>/<method>` over Flask: from a request to a message, and back (prpc-api 1).

Every answer below `/prpc/` has a code in its header, whatever went wrong. The order is that
of prpc-api 1.3: encodings, other headers, body, who asks, and then the handler.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from flask import Blueprint, Flask, Response, g, request
from google.protobuf.message import Message
from swarmingpb.prpc_error_pb2 import ErrorDetails, ResponseTooBig
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from botapi.api import people
from botapi.api.answers import GZIP_OVER, LOOP_BYTES, packed
from botapi.api.parts import ApiParts
from botapi.api.prpc import bodies, codec
from botapi.api.prpc.call import Call
from botapi.api.prpc.call_headers import CallHeaders, read_headers
from botapi.api.prpc.errors import NUMBERS, OF_STATUS, ProtocolError, shown
from botapi.api.prpc.services import METHODS, Method
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import ANONYMOUS, Caller
from botapi.door import HTTP_STATUS, RETRY_AFTER_S, VERBS, Door
from botapi.store.protocol import StoreError, TooLarge
from botapi.wsgi import TEXT_TYPE

ROOT = "/prpc/"
MAX_BODY = 64 * 1024 * 1024
"""Bytes of a body, as it comes and unpacked."""
MAX_STRANGERS_BODY = 1024 * 1024
"""The same from somebody whose credentials are none, or no good."""
CODE_HEADER = "X-Prpc-Grpc-Code"
DETAILS_HEADER = "X-Prpc-Status-Details-Bin"
ALLOWED_HEADERS = (
    "Origin, Content-Type, Accept, Authorization, X-Prpc-Grpc-Timeout, X-Prpc-Max-Response-Size"
)

T = TypeVar("T")

log = logging.getLogger(__name__)


class PrpcRoutes:
    """The Flask side of the public API."""

    def __init__(self, parts: ApiParts, door: Door) -> None:
        self._parts = parts
        self._door = door

    def install(self, app: Flask) -> None:
        """Every path below `/prpc/`: what is no method of ours is answered here too."""
        app.register_blueprint(self._blueprint())
        app.after_request(self._finished)

    def _blueprint(self) -> Blueprint:
        routes = Blueprint("prpc", __name__)
        for path, name in ((ROOT, "root"), (ROOT + "<path:rest>", "method")):
            routes.add_url_rule(
                path,
                name,
                self._view,
                methods=VERBS,
                provide_automatic_options=False,
                merge_slashes=False,
            )
        routes.register_error_handler(ProtocolError, _of_protocol_error)
        routes.register_error_handler(Refusal, _of_refusal)
        routes.register_error_handler(StoreError, _of_store_error)
        for kind in (404, 405, HTTPException):  # the pages have 404 and 405 for the application
            routes.register_error_handler(kind, _of_http)
        routes.register_error_handler(Exception, _of_bug)
        return routes

    def _view(self, rest: str = "") -> Response:
        if request.method == "OPTIONS":
            return Response(headers={CODE_HEADER: "0"}, content_type="text/plain")
        if request.method != "POST":
            raise MethodNotAllowed(["OPTIONS", "POST"], "use POST here")
        service, _, name = rest.partition("/")
        method = METHODS.get((service, name))
        if method is None:
            raise ProtocolError(Code.UNIMPLEMENTED, f"there is no method {rest[:160]}")
        return self._answer(method)

    def _answer(self, method: Method) -> Response:
        began = self._parts.clock.monotonic()
        headers = read_headers(request.headers)
        caller = self._caller()
        message = self._message(method, headers, caller)
        if isinstance(caller, Refusal):
            raise caller
        self._check_time(began, headers)
        call = Call(self._parts, caller, self._door.base_url(request))
        reply = method.handler(call, message)
        if method.is_read:  # of a change that is done its caller has to hear, however late
            self._check_time(began, headers)
        return self._good(reply, headers)

    def _caller(self) -> Caller | Refusal:
        """Who asks, by the header alone and never by a cookie; else what to refuse with."""
        authorization = request.headers.get("Authorization", "")
        try:
            return people.caller_of_call(self._parts, authorization)
        except Refusal as error:
            return error
        except StoreError as error:
            return Refusal(Code.INTERNAL, f"the credentials could not be checked: {error}")

    def _message(self, method: Method, headers: CallHeaders, caller: Caller | Refusal) -> Message:
        is_known = isinstance(caller, Caller) and caller.identity != ANONYMOUS
        limit = MAX_BODY if is_known else MAX_STRANGERS_BODY
        body = bodies.read(request, limit)
        packing = request.headers.get("Content-Encoding", "")

        def decode() -> Message:
            plain = bodies.unpacked(body, packing, limit)
            return codec.decode(plain, headers.request, method.request)

        return self._aside(decode, is_long=bool(packing) or len(body) > LOOP_BYTES)

    def _check_time(self, began: float, headers: CallHeaders) -> None:
        passed = self._parts.clock.monotonic() - began
        if headers.timeout_s is not None and passed >= headers.timeout_s:
            raise Refusal(Code.DEADLINE_EXCEEDED, f"{passed:.3f} s, limit {headers.timeout_s} s")

    def _good(self, reply: Message, headers: CallHeaders) -> Response:
        packs = request.accept_encodings["gzip"] > 0

        def encode() -> tuple[bytes, bool]:
            data = codec.encode(reply, headers.reply)
            _check_size(len(data), headers)
            if not packs or len(data) <= GZIP_OVER:
                return data, False
            return packed(data), True

        data, is_packed = self._aside(encode, is_long=reply.ByteSize() > LOOP_BYTES)
        response = Response(data, content_type=str(headers.reply), headers={CODE_HEADER: "0"})
        if is_packed:
            response.headers["Content-Encoding"] = "gzip"
            response.vary.add("Accept-Encoding")
        return response

    def _aside(self, fn: Callable[[], T], *, is_long: bool) -> T:
        """Here when it is short, else on a native thread."""
        return self._parts.concurrency.native(fn) if is_long else fn()

    def _finished(self, response: Response) -> Response:
        """A code in every answer, and what pages of other origins may see (prpc-api 1.6)."""
        if not request.path.startswith(ROOT):
            return response
        if CODE_HEADER not in response.headers:  # no route of ours took it: `/prpc//x`
            response = _of_status(response.status_code, "there is nothing here")
        response.headers["Cache-Control"] = "no-store"
        origin = request.headers.get("Origin", "")
        if not origin:
            return response
        response.vary.add("Origin")
        if not {"*", origin} & {*self._parts.settings.cors_origins}:
            return response
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
            response.headers["Access-Control-Allow-Methods"] = "OPTIONS, POST"
            response.headers["Access-Control-Max-Age"] = "600"
        else:
            response.headers["Access-Control-Expose-Headers"] = f"{CODE_HEADER}, {DETAILS_HEADER}"
        return response


def _check_size(size: int, headers: CallHeaders) -> None:
    limit = headers.max_reply_bytes
    if limit is None or size <= limit:
        return
    too_big = ResponseTooBig(response_size=size, response_limit=limit)
    detail = codec.encode_detail(ErrorDetails(response_too_big=too_big), headers.reply)
    raise ProtocolError(
        Code.UNAVAILABLE,
        f"the reply has {size} bytes, more than X-Prpc-Max-Response-Size allows; ask for less",
        details=(detail,),
    )


def _error(code: Code, message: str, status: int = 0) -> Response:
    """The one form of an error (prpc-api 1.3)."""
    status = status or HTTP_STATUS[code]
    response = Response(f"{message}\n", status, content_type=TEXT_TYPE)
    response.headers[CODE_HEADER] = str(NUMBERS[code])
    if code is Code.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if code is Code.UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _of_protocol_error(error: ProtocolError) -> Response:
    """Said in its own words."""
    log.info("refused %s: %s", request.path, error.message)
    response = _error(error.code, error.message, error.status)
    for detail in error.details:
        response.headers.add(DETAILS_HEADER, detail)
    if error.closes:
        response.headers["Connection"] = "close"
    return response


def _of_refusal(error: Refusal) -> Response:
    """What was asked for is not to be had; the words of our own trouble stay in the log."""
    log.info("refused %s: %s: %s", request.path, error.code, error.message)
    return _error(error.code, shown(error.code, error.message))


def _of_store_error(error: StoreError) -> Response:
    """The store cannot answer, or not so much at once."""
    if isinstance(error, TooLarge):
        return _error(Code.INVALID_ARGUMENT, f"more than can be stored: {error}; send less")
    log.error("store: %s", error)
    return _error(Code.UNAVAILABLE, shown(Code.UNAVAILABLE, ""))


def _of_http(error: HTTPException) -> Response:
    """What Werkzeug found wrong with the request itself."""
    response = _of_status(error.code or 500, str(error.description or error.name))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(error.valid_methods)
    return response


def _of_status(status: int, message: str) -> Response:
    code = OF_STATUS.get(status, Code.INTERNAL if status >= 500 else Code.INVALID_ARGUMENT)
    return _error(code, message, status)


def _of_bug(error: Exception) -> Response:
    """A mistake of ours: logged once, with the request id that stands in the reply's headers."""
    log.error("request %s failed", g.get("request_id", ""), exc_info=error)
    return _error(Code.INTERNAL, shown(Code.INTERNAL, ""))
