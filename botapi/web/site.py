"""The pages over Flask: a table of routes, one way into them, one way out.

A route is closed unless the table says that it is open. Every answer leaves through
`_secured`, so that no page lacks a header.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, quote

from flask import Blueprint, Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from botapi.domain.errors import Refusal, one_line
from botapi.domain.permissions import Needs, On, Permission
from botapi.door import HTTP_STATUS, RETRY_AFTER_S, BodyTooLarge, Door, read_body
from botapi.store.protocol import StoreError
from botapi.web import old_pages, pages, signin, words
from botapi.web.asked import Person, Server
from botapi.web.openid import OpenId
from botapi.web.pages import Page, PlainText, Redirect, Shown, Visit
from botapi.web.render import Templates
from botapi.web.static_files import StaticFiles
from botapi.wsgi import TEXT_TYPE

P = Permission
FORM_LIMIT = 64 * 1024
YEAR_S = 365 * 24 * 3600
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MACHINES = ("/swarming/", "/skep/", "/api/", "/bot_code", "/bootstrap", "/prpc/")
"""Paths whose errors are not for people."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """A page and what it needs. `is_fetched`: by the script, which wants a status instead of
    the sign-in page.
    """

    path: str
    show: Callable[..., Shown]
    needs: Needs
    method: str = "GET"
    is_fetched: bool = False


CLOSED = (
    Route("/", pages.home, Needs(None, On.NOTHING)),
    Route("/bots", pages.bots, Needs(P.LIST_BOTS, On.ITEMS)),
    Route("/bots/<path:bot_id>", pages.bot, Needs(P.LIST_BOTS, On.BOT)),
    Route("/tasks", pages.tasks, Needs(P.LIST_TASKS, On.ITEMS)),
    Route("/tasks/<task_id>", pages.task, Needs(P.TASKS_GET, On.TASK)),
    Route("/tasks/<task_id>/cancel", pages.cancel, pages.CANCEL, method="POST"),
    Route("/tasks/<task_id>/output", pages.output, Needs(P.TASKS_GET, On.TASK), is_fetched=True),
    Route("/audit", pages.audit, Needs(P.VIEW_AUDIT)),
)
"""Every page that needs somebody who may look; the open ones stand in `Site.blueprint`."""


@dataclass(slots=True)
class Site:
    """The Flask side of the pages."""

    server: Server
    door: Door
    files: StaticFiles = field(default_factory=StaticFiles)
    templates: Templates = field(init=False)

    def __post_init__(self) -> None:
        self.templates = Templates(self.files)

    def blueprint(self) -> Blueprint:
        """Every route of the pages."""
        routes = Blueprint("web", __name__)
        for route in CLOSED:
            name = f"{route.method} {route.path}".replace(".", "_")
            _add(routes, route.path, name, self._closed(route), route.method)
        _add(routes, "/signin", "signin", self._sign_in_page, "GET")
        _add(routes, "/signin", "sign_in", self._sign_in, "POST")
        _add(routes, "/signout", "sign_out", self._sign_out, "POST")
        _add(routes, "/static/<name>", "static_file", self._static, "GET")
        OpenId(self.server, self.door).add(routes)
        routes.after_request(_secured)
        routes.register_error_handler(Refusal, self.of_refusal)
        routes.register_error_handler(BodyTooLarge, self._of_body_too_large)
        routes.register_error_handler(StoreError, self._of_store_error)
        routes.register_error_handler(HTTPException, self.of_http)
        routes.register_error_handler(Exception, self._of_bug)
        return routes

    def _closed(self, route: Route) -> Callable[..., Response]:
        def view(**path_values: str) -> Response:
            person = signin.person_of(self.server, request)
            if person is None:
                return self._to_sign_in(route)
            g.person = person
            visit = self._visit(person)
            if route.method == "POST":
                signin.check_form(
                    self.server, request, visit.form, person.session_id, visit.base_url
                )
            try:
                self.server.check(person, route.needs, path_values)
            except Refusal:
                if person.is_anonymous:
                    return self._to_sign_in(route)
                raise
            return self._response(route.show(visit, **path_values), visit)

        return view

    def _visit(self, person: Person) -> Visit:
        form = {}
        if request.method == "POST":
            body = read_body(request, FORM_LIMIT).decode("utf-8", "replace")
            form = dict(parse_qsl(body, keep_blank_values=True))
        return Visit(
            server=self.server,
            person=person,
            query=request.args.to_dict(flat=False),
            form=form,
            base_url=self.door.base_url(request),
            now_ms=self.server.clock.now_ms(),
        )

    def _to_sign_in(self, route: Route) -> Response:
        if route.is_fetched:
            return _plain("sign in first\n", 401)
        if route.method != "GET" or request.path == "/":
            return _redirect("/signin")
        asked = f"{quote(request.path)}?{request.query_string.decode('latin-1')}".rstrip("?")
        return _redirect(f"/signin?{words.query_string([('next', asked)])}")

    def _response(self, shown: Shown, visit: Visit) -> Response:
        match shown:
            case Page(template, values):
                return self._html(template, visit.person, values)
            case Redirect(location):
                return _redirect(location)
            case PlainText(text, headers):
                response = _plain(text, 200)
                response.headers.update(headers)
                return response

    def _html(
        self, template: str, person: Person | None, values: Mapping[str, object], status: int = 200
    ) -> Response:
        session_id = person.session_id if person else ""
        html = self.templates.html(
            template,
            person=person,
            form_token=self.server.form_token(session_id) if session_id else "",
            now_ms=self.server.clock.now_ms(),
            path=request.path,
            **values,
        )
        return Response(html, status, content_type="text/html; charset=utf-8")

    def _sign_in_page(self) -> Response:
        return self._sign_in_form(request.args.get("next", ""), "", 200)

    def _sign_in_form(self, following: str, complaint: str, status: int) -> Response:
        visitor = request.cookies.get(signin.VISITOR_COOKIE, "")[:64] or self.server.new_id()
        values = {
            "next": signin.local_path(following),
            "complaint": complaint,
            "visitor_token": self.server.form_token(visitor),
            "issuer": self.server.issuer(),
        }
        response = self._html("signin.html", None, values, status)
        signin.keep(
            response,
            signin.VISITOR_COOKIE,
            visitor,
            signin.VISITOR_LIFE_S,
            is_https=self._is_https(),
        )
        return response

    def _sign_in(self) -> Response:
        body = read_body(request, FORM_LIMIT).decode("utf-8", "replace")
        form = dict(parse_qsl(body, keep_blank_values=True))
        visitor = request.cookies.get(signin.VISITOR_COOKIE, "")
        base_url = self.door.base_url(request)
        signin.check_form(self.server, request, form, visitor, base_url)
        try:
            cookie, person = self.server.sign_in(form.get("api_key", "").strip())
        except Refusal as error:
            log.info("a sign-in was refused")
            return self._sign_in_form(form.get("next", ""), error.message, 401)
        log.info("%s signed in", person.name)
        response = _redirect(signin.local_path(form.get("next", "")))
        is_https = self._is_https()
        signin.keep(
            response, signin.SESSION_COOKIE, cookie, signin.SESSION_LIFE_S, is_https=is_https
        )
        signin.forget(response, signin.VISITOR_COOKIE, is_https=is_https)
        return response

    def _sign_out(self) -> Response:
        person = signin.person_of(self.server, request)
        if person is None or not person.session_id:
            return _redirect("/signin")
        visit = self._visit(person)
        signin.check_form(self.server, request, visit.form, person.session_id, visit.base_url)
        self.server.sign_out(person.session_id)
        response = _redirect("/signin")
        signin.forget(response, signin.SESSION_COOKIE, is_https=self._is_https())
        return response

    def _is_https(self) -> bool:
        return self.door.base_url(request).startswith("https:")

    def _static(self, name: str) -> Response:
        file = self.files.get(name)
        if file is None:
            return self._error(404, f"there is no file {name}")
        response = Response(file.content, content_type=file.content_type)
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        return response

    def _error(self, status: int, line: str) -> Response:
        title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
        values = {"status": status, "title": title, "line": one_line(line)}
        return self._html("error.html", g.get("person"), values, status)

    def of_refusal(self, error: Refusal) -> Response:
        """What was asked for is not to be had."""
        log.info("refused %s %s: %s", request.method, request.path, error.message)
        return self._error(HTTP_STATUS[error.code], error.message)

    def of_http(self, error: HTTPException) -> Response | HTTPException:
        """No such page, or not with this method; bots and scripts get what they know."""
        if request.path.startswith(MACHINES):
            return error
        return _secured(self._error(error.code or 500, error.description or error.name))

    def _of_body_too_large(self, error: BodyTooLarge) -> Response:
        response = self._error(413, str(error))
        response.headers["Connection"] = "close"
        return response

    def _of_store_error(self, error: StoreError) -> Response:
        log.error("store: %s", error)
        response = self._error(503, "the store cannot answer now; try again")
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    def _of_bug(self, error: Exception) -> Response:
        request_id = g.get("request_id", "")
        log.error("request %s failed", request_id, exc_info=error)
        return self._error(500, f"internal error; the server's log has request {request_id}")


def install(app: Flask, server: Server, door: Door) -> None:
    """Add the pages, and the error pages of paths that nobody has."""
    site = Site(server, door)
    app.register_blueprint(site.blueprint())
    moved = old_pages.blueprint()
    moved.after_request(_secured)
    app.register_blueprint(moved)
    for status in (404, 405):
        app.register_error_handler(status, site.of_http)


def _add(
    routes: Blueprint, path: str, name: str, view: Callable[..., Response], method: str
) -> None:
    routes.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)


def _plain(text: str, status: int) -> Response:
    return Response(text, status, content_type=TEXT_TYPE)


def _redirect(location: str) -> Response:
    return Response(status=303, headers={"Location": location})


def _secured(response: Response) -> Response:
    """Nothing foreign is loaded, nobody frames a page, nothing personal is kept."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response
