"""The bot path: its route table, its two doors, its order of checks (bot-api 0.3 to 0.5).

`with_session` runs the whole pipeline of bot-api 0.4; `without_session` is for handshake
and poll, which must work with a broken session. Flask ends here. Its routing is passed by
where nine of ten requests are, at the calls of bots: the `Gate` finds them by their path.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Blueprint, Flask, Response, current_app, g, request

from botapi import logs
from botapi.admission import Admission
from botapi.auth.botsession import BadToken, MissingField, Session, is_expired, is_too_old
from botapi.auth.oidc_issuer import CONFIGURATION_PATH, JWKS_PATH
from botapi.blobs.transfer import Piece
from botapi.bot_call import (
    AnyReply,
    Archive,
    BotCall,
    BotServer,
    Call,
    Redirect,
    Reply,
    Said,
    Script,
    SessionCall,
    Text,
)
from botapi.concurrency import Held
from botapi.domain.errors import Code, Refusal, one_line
from botapi.door import (
    HTTP_STATUS,
    RETRY_AFTER_S,
    VERBS,
    BodyTooLarge,
    Door,
    HeldAnswer,
    finish,
    internal_error,
    read_body,
)
from botapi.handlers import (
    blobs,
    bootstrap,
    bot_code,
    claim,
    enroll,
    event,
    handshake,
    poll,
    rbe_session,
    task_error,
    task_token,
    task_update,
)
from botapi.scheduler.offers import cannot_tell
from botapi.store.protocol import StoreError, TooLarge
from botapi.wire_json import WireError, any_case, decoder, dumps
from botapi.wsgi import IS_THERE, TEXT_TYPE, Answer, BotRequest, Http

BOT_PATH = "/swarming/api/v1/bot"
BLOB_PATH = "/skep/v1/blobs"
JSON_TYPE = "application/json; charset=utf-8"
SMALL_BODY = 1024 * 1024
UPDATE_BODY = 4 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """A JSON endpoint. `decode` gives the typed body.

    A body without a value of a `needed` key may have its keys in another case: that is
    what `decode_any_case` is for.
    """

    path: str
    decode: Callable[[bytes], Any]
    decode_any_case: Callable[[bytes], Any]
    handle: Callable[..., Said | Held[Reply]]
    needed: tuple[str, ...] = ("session",)
    limit: int = SMALL_BODY
    has_task_in_path: bool = False
    is_expensive: bool = False
    """Has it to wait for a place when many come at once (`botapi.admission`)?"""
    refuses_in_json: bool = False
    """Is a 400 JSON, because bots read it there (bot-api 1.9)?"""

    def read(self, body: bytes) -> Any:  # noqa: ANN401 - the type is the route's
        """The typed body. Raises WireError."""
        value = self.decode(body)
        if any(getattr(value, name) is None for name in self.needed):
            value = self.decode_any_case(body)
        return value


def _route(
    path: str, kind: type[Any], handle: Callable[..., Said | Held[Reply]], **more: Any
) -> Route:
    return Route(path, decoder(kind).decode, any_case(kind), handle, **more)


Pairs = Sequence[tuple[str, str]]
_Way = Callable[[Route, Http, str], Said | Held[Reply]]

WITHOUT_SESSION = (
    _route(
        "/handshake",
        handshake.HandshakeRequest,
        handshake.handshake,
        needed=("dimensions",),
        is_expensive=True,
    ),
    _route("/poll", poll.PollRequest, poll.poll, needed=("dimensions", "session")),
)
WITH_SESSION = (
    _route("/claim", claim.ClaimRequest, claim.claim, needed=("session", "claim_id")),
    _route("/event", event.EventRequest, event.event, needed=("session", "event")),
    _route(
        "/task_update",
        task_update.TaskUpdateRequest,
        task_update.task_update,
        limit=UPDATE_BODY,
        has_task_in_path=True,
    ),
    _route(
        "/task_error", task_error.TaskErrorRequest, task_error.task_error, has_task_in_path=True
    ),
    _route("/oauth_token", task_token.TokenRequest, task_token.oauth_token, refuses_in_json=True),
    _route("/id_token", task_token.TokenRequest, task_token.id_token, refuses_in_json=True),
    _route("/rbe/session/create", rbe_session.CreateRequest, rbe_session.create),
)
WAITING = (
    _route(
        "/rbe/session/update",
        rbe_session.UpdateRequest,
        rbe_session.update,
        needed=("session", "status"),
    ),
)
"""With a session, too; whether the store is asked about the bot is the handler's to say."""


class BotRoutes:
    """The Flask side of the bot calls."""

    def __init__(self, server: BotServer, door: Door, admission: Admission) -> None:
        self._server = server
        self._door = door
        self._admission = admission

    def blueprint(self) -> Blueprint:
        """Every bot route."""
        routes = Blueprint("bots", __name__)
        for route in WITHOUT_SESSION:
            self._add(routes, route, self._without_session)
        for route in WITH_SESSION:
            self._add(routes, route, self._with_session)
        for route in WAITING:
            self._add(routes, route, self._waiting)
        self._add_plain(routes)
        routes.register_error_handler(Refusal, lambda error: _refused(error, request))
        routes.register_error_handler(BodyTooLarge, _too_large)
        routes.register_error_handler(StoreError, _outage)
        return routes

    def gate(self, inner: WSGIApplication) -> "Gate":
        """The way in that comes before Flask."""
        doors = {
            **dict.fromkeys(WITHOUT_SESSION, self._without_session),
            **dict.fromkeys(WITH_SESSION, self._with_session),
            **dict.fromkeys(WAITING, self._waiting),
        }
        answers = {
            BOT_PATH + route.path: partial(self._answer, route, door)
            for route, door in doors.items()
        }
        with_task = tuple(BOT_PATH + r.path + "/" for r in doors if r.has_task_in_path)
        return Gate(inner, self._door, answers, with_task)

    def _answer(self, route: Route, door: _Way, http: Http, rid: str) -> Answer | Held[Answer]:
        """One call of a bot, whatever comes of it. `rid` is the request id."""
        try:
            reply = door(route, http, rid)
            if isinstance(reply, Held):
                return reply.then(_answer) if reply.timeout_s else _answer(reply.make())
            return _answer(reply)
        except Refusal as error:
            self._door.limits.note(self._door.address(http), HTTP_STATUS[error.code])
            return _refused(error, http, as_json=route.refuses_in_json)
        except BodyTooLarge as error:
            return _too_large(error)
        except StoreError as error:
            first_words = f"POST {BOT_PATH}{route.path} ".encode()
            return _outage(error, self._admission.after_outage_s(first_words, RETRY_AFTER_S))
        except Exception:  # noqa: BLE001 - the outermost frame of a bot's call
            return internal_error(rid)

    def _add(self, routes: Blueprint, route: Route, door: _Way) -> None:
        def view(**_path: str) -> Answer:
            answer = self._answer(route, door, request, g.request_id)
            return answer.get() if isinstance(answer, Held) else answer

        name = route.path.strip("/").replace("/", "_")
        _only(routes, BOT_PATH + route.path, name, view, "POST")
        if route.has_task_in_path:
            _only(routes, f"{BOT_PATH}{route.path}/<task_id>", f"{name}_of", view, "POST")

    def _add_plain(self, routes: Blueprint) -> None:
        def get(path: str, name: str, view: Callable[..., AnyReply]) -> None:
            def respond(**path_values: str) -> Response | Answer:
                with self._admission.place():
                    return _response(view(**path_values))

            _only(routes, path, name, respond, "GET")

        server = self._server
        _only(routes, f"{BOT_PATH}/server_ping", "server_ping", _ping, "GET")
        get(
            "/bootstrap",
            "bootstrap",
            lambda: bootstrap.bootstrap(server, self._flask_call(), request.args.get("tok", "")),
        )
        for path in ("/bot_code", f"{BOT_PATH}/bot_code"):
            get(path, f"bot_code{len(path)}", lambda: self._bot_code(""))
        get(f"{BOT_PATH}/bot_code/<version>", "bot_code_of", self._bot_code)
        get(
            "/skep/v1/bot_code/<version>",
            "bot_code_enrolling",
            lambda version: bot_code.with_token(
                server, self._flask_call(), version, request.args.get("tok", "")
            ),
        )
        get(
            CONFIGURATION_PATH,
            "openid_configuration",
            lambda: task_token.openid_configuration(server, self._flask_call()),
        )
        get(JWKS_PATH, "jwks", lambda: task_token.jwks(server))
        _only(routes, "/skep/v1/enroll", "enroll", self._enroll, "POST")
        _only(routes, BLOB_PATH + "/missing", "blobs_missing", self._missing_blobs, "POST")
        one = f"{BLOB_PATH}/<digest>/<size>"
        _only(routes, one, "blob_get", self._get_blob, "GET")
        _only(routes, one, "blob_put", self._put_blob, "PUT")
        routes.add_url_rule(f"{BOT_PATH}/<path:rest>", "unknown", _unknown, methods=VERBS)

    def _bot_code(self, version: str) -> AnyReply:
        asked = bot_code.Asked(
            version=version,
            token=request.args.get("tok"),
            bot_id=request.args.get("bot_id") or request.headers.get("X-Luci-Swarming-Bot-ID", ""),
            has_query=bool(request.query_string),
            authorization=request.headers.get("Authorization", ""),
        )
        return bot_code.bot_code(self._server, self._flask_call(), asked)

    def _enroll(self) -> Answer:
        with self._admission.place():
            body = _json(_ENROLL, request)
            return _answer(enroll.enroll(self._server, self._flask_call(), body))

    def _missing_blobs(self) -> Answer:
        call, body = self._of_session(_MISSING, request, g.request_id)
        return _answer(blobs.missing(self._server, self._server.known(call), body))

    def _get_blob(self, digest: str, size: str) -> Response:
        call, task_id = self._blob_call()
        asked = request.headers.get("Range", "")
        piece = blobs.fetch(self._server, call, task_id, f"{digest}/{size}", asked)
        return _blob(piece)

    def _put_blob(self, digest: str, size: str) -> Response:
        call, task_id = self._blob_call()
        is_new = blobs.keep(
            self._server,
            call,
            task_id,
            f"{digest}/{size}",
            request.stream,
            request.content_length,
        )
        return Response("kept\n", 201 if is_new else 200, content_type="text/plain")

    def _blob_call(self) -> tuple[BotCall, str]:
        """A call whose body is a blob: session and run stand in headers (docs/blobs.md).

        It does not count for the bot's own rate: a tree of small files is one piece of work.
        """
        call = self._server.verified(self._flask_call())
        token = request.headers.get("X-Skep-Session", "")
        session = self._session(token, call)
        known = self._server.known(self._session_call(token, session, call))
        return known, request.headers.get("X-Skep-Task", "")

    def _flask_call(self) -> Call:
        return self._call(request, g.request_id)

    def _call(self, http: Http, request_id: str) -> Call:
        return Call(
            now_ms=self._server.clock.now_ms(),
            request_id=request_id,
            base_url=self._door.base_url(http),
            presented=self._door.caller(http),
            is_there=http.environ.get(IS_THERE, cannot_tell),
        )

    def _without_session(self, route: Route, http: Http, rid: str) -> Said | Held[Reply]:
        with self._admission.place() if route.is_expensive else nullcontext():
            call, body = self._read(route, http, rid, is_stranger=True)
            return route.handle(self._server, call, body)

    def _with_session(self, route: Route, http: Http, rid: str) -> Said | Held[Reply]:
        call, body = self._of_session(route, http, rid)
        return route.handle(self._server, self._server.known(call), body)

    def _waiting(self, route: Route, http: Http, rid: str) -> Said | Held[Reply]:
        call, body = self._of_session(route, http, rid)
        return route.handle(self._server, call, body)

    def _of_session(self, route: Route, http: Http, rid: str) -> tuple[SessionCall, Any]:
        """Steps 1 to 10 of bot-api 0.4, in their order."""
        call, body = self._read(route, http, rid, is_stranger=False)
        session = self._session(body.session, call)
        self._door.limits.admit_bot(session.bot_id)
        return self._session_call(body.session, session, call), body

    def _session_call(self, token: str, session: Session, call: Call) -> SessionCall:
        """Steps 9 and 10 of bot-api 0.4: is it the session of who calls?"""
        logs.note(bot_id=session.bot_id)
        identity = self._server.authorize_session(session, call)
        return SessionCall(call, token, session, identity)

    def _read(self, route: Route, http: Http, rid: str, *, is_stranger: bool) -> tuple[Call, Any]:
        """Steps 1 to 4 of bot-api 0.4: who calls, and the typed body."""
        call = self._call(http, rid)
        self._door.limits.admit(call.presented.peer_ip, is_stranger=is_stranger)
        call = self._server.verified(call)
        return call, _json(route, http)

    def _session(self, token: str | None, call: Call) -> Session:
        """Steps 5 to 8 of bot-api 0.4."""
        if not token:
            raise Refusal(Code.UNAUTHENTICATED, "session: missing; handshake first")
        try:
            session = self._server.session_of(token)
        except MissingField as error:
            raise Refusal(Code.INTERNAL, f"session: {error}") from None
        except BadToken as error:
            raise Refusal(Code.UNAUTHENTICATED, f"session: {error}; handshake again") from None
        if is_expired(session, call.now_ms) or is_too_old(session, call.now_ms):
            raise Refusal(Code.UNAUTHENTICATED, "session: expired; poll or handshake again")
        return session


@dataclass(frozen=True, slots=True)
class Gate:
    """Answers the POST calls of bots, and leaves everything else to `inner`."""

    inner: WSGIApplication
    door: Door
    answers: Mapping[str, Callable[[Http, str], Answer | Held[Answer]]]
    with_task: tuple[str, ...]
    """Paths that a task id follows, which nobody reads."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        answer, route = None, ""
        if environ["REQUEST_METHOD"] == "POST":
            route = self._route_of(environ["PATH_INFO"])
            answer = self.answers.get(route)
        if answer is None:
            return self.inner(environ, start_response)
        http = BotRequest(environ)
        request_id = self.door.request_id(http)
        self.door.learn(http, request_id, route)
        response = answer(http, request_id)
        if isinstance(response, Held):
            send = partial(_late, response.make, request_id, start_response)
            return HeldAnswer(response.done, response.timeout_s, send)
        finish(response, request_id)
        return response(environ, start_response)

    def _route_of(self, path: str) -> str:
        if path.startswith(self.with_task):
            route, _, task_id = path.rpartition("/")
            return route if task_id else path
        return path


def _late(
    make: Callable[[], Answer], request_id: str, start_response: StartResponse
) -> Iterable[bytes]:
    """The answer to a call that was held."""
    try:
        response = make()
    except StoreError as error:
        response = _outage(error)
    except Exception:  # noqa: BLE001 - the outermost frame of a held call
        response = internal_error(request_id)
    finish(response, request_id)
    return response({"REQUEST_METHOD": "POST"}, start_response)


_MISSING = _route("/missing", blobs.MissingRequest, blobs.missing, limit=UPDATE_BODY)
_ENROLL = _route("/enroll", enroll.EnrollRequest, enroll.enroll, needed=("bot_id",))


def _only(
    routes: Blueprint, path: str, name: str, view: Callable[..., Response | Answer], method: str
) -> None:
    """A route that takes this method and no other, not even OPTIONS."""
    routes.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)


def _ping() -> Answer:
    return _answer(Text("Server up"))


def _unknown(rest: str) -> Answer:
    """No such path, or not with this method, in a form that bots give up on (bot-api 0.5)."""
    adapter = current_app.create_url_adapter(request)
    if adapter is None:
        raise Refusal(Code.INTERNAL, "no address map")
    known = [m for m in ("GET", "POST") if adapter.match(method=m)[0] != request.endpoint]
    if not known:
        raise Refusal(Code.NOT_FOUND, f"no such path: {BOT_PATH}/{rest}")
    allowed = ", ".join(known)
    line = f"{request.method} is not a method of this path; use {allowed}\n"
    return _text(line, 405, (("Allow", allowed),))


def _json(route: Route, http: Http) -> Any:  # noqa: ANN401 - the type is the route's
    """The typed body, after the checks of bot-api 0.3."""
    content_type = http.headers.get("Content-Type", "")
    if content_type.lower() != JSON_TYPE:
        raise Refusal(Code.INVALID_ARGUMENT, f'Content-Type: "{content_type}" is not "{JSON_TYPE}"')
    body = read_body(http, route.limit)
    try:
        return route.read(body)
    except (WireError, UnicodeDecodeError, RecursionError) as error:
        coding = http.headers.get("Content-Encoding")
        said = f'Content-Encoding: "{coding}" is not taken; send plain JSON' if coding else error
        raise Refusal(Code.INVALID_ARGUMENT, f"body: {said}") from None


def _answer(reply: Said) -> Answer:
    if isinstance(reply, Text):
        return _text(reply.line, reply.status, reply.headers)
    return _object(reply.body, 200, reply.headers)


def _object(body: Mapping[str, object], status: int, headers: Pairs = ()) -> Answer:
    return Answer(dumps(body) + b"\n", status, {"Content-Type": JSON_TYPE, **dict(headers)})


def _text(line: str, status: int, headers: Pairs = ()) -> Answer:
    return Answer(line.encode(), status, {"Content-Type": TEXT_TYPE, **dict(headers)})


def _response(reply: AnyReply) -> Response | Answer:
    match reply:
        case Reply() | Text():
            return _answer(reply)
        case Redirect(location, version):
            response = Response(status=302, headers={"Location": location})
            del response.headers["Content-Type"]  # there is no body (bot-api 8.4)
            if version:
                response.headers["X-Skep-Archive-Version"] = version
            return response
        case Script(content):
            return _download(content.encode(), "text/x-python", "swarming_bot_bootstrap.py")
        case Archive():
            return _archive(reply)


def _archive(reply: Archive) -> Response:
    response = _download(reply.content, "application/octet-stream", "swarming_bot.zip")
    response.headers["X-Skep-Archive-Version"] = reply.version
    if not reply.is_public:
        response.headers["Cache-Control"] = "no-store"
        return response
    response.headers["Cache-Control"] = "public, max-age=3600, immutable"
    response.set_etag(reply.version)
    response.make_conditional(request)
    return response


def _blob(piece: Piece) -> Response:
    status = 206 if piece.is_part else 200
    return Response(piece.pieces, status, piece.headers(), content_type="application/octet-stream")


def _download(content: bytes, content_type: str, name: str) -> Response:
    response = Response(content, content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _refused(error: Refusal, http: Http, *, as_json: bool = False) -> Answer:
    """One line of text; JSON for 404, which bots would otherwise retry (bot-api 0.5).

    With `as_json` a 400 is JSON too.
    """
    status = HTTP_STATUS[error.code]
    if not error.retry_after_s:
        log.info("refused %s %s: %s", http.method, http.path, error.message)
    line = f"rpc error: code = {error.code.wire_name} desc = {error.message}\n"
    if status == 404 or (status == 400 and as_json):
        return _object({"error": error.message}, status)
    headers: Pairs = ()
    if error.retry_after_s:  # whoever comes back on a new connection is turned away cheaply
        headers = ("Retry-After", str(error.retry_after_s)), ("Connection", "close")
    return _text(line, status, headers)


def _too_large(error: BodyTooLarge) -> Answer:
    line = f"rpc error: code = InvalidArgument desc = {error}\n"
    return _text(line, 413, (("Connection", "close"),))


def _outage(error: StoreError, wait_s: int = RETRY_AFTER_S) -> Answer:
    """The store cannot answer: nothing was acknowledged, try again (bots do so at a 5xx only).

    A herd that is sent away for two seconds keeps the store down.
    """
    log.error("store: %s", error)
    code = Code.INVALID_ARGUMENT if isinstance(error, TooLarge) else Code.UNAVAILABLE
    line = f"rpc error: code = {code.wire_name} desc = {one_line(str(error))}\n"
    return _text(line, HTTP_STATUS[code], (("Retry-After", str(wait_s)),))


def install(app: Flask, server: BotServer, door: Door, admission: Admission) -> None:
    """Add the bot routes to the application."""
    routes = BotRoutes(server, door, admission)
    app.register_blueprint(routes.blueprint())
    app.wsgi_app = routes.gate(app.wsgi_app)  # type: ignore[method-assign] # Flask's own advice
