"""Every route of the application has a policy: closed, unless it stands in a short list."""

import re

import pytest

from botapi.app import create_app

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),  # from loopback; tests/test_observe.py holds who may read it
    *(("GET", f"/_ah/{name}") for name in ("start", "warmup")),  # the platform's, and empty
    ("GET", "/signin"),
    ("POST", "/signin"),  # needs the token of its own form
    *(("GET", f"/auth/openid/{name}") for name in ("state", "login", "callback", "logout")),
    ("GET", "/static/<name>"),
    ("GET", "/swarming/api/v1/bot/server_ping"),
    ("GET", "/.well-known/openid-configuration"),  # what checks our identity tokens reads these
    ("GET", "/.well-known/jwks.json"),
}
MACHINES = ("/api/", "/prpc/", "/_ah/", "/healthz", "/readyz", "/metrics", "/.well-known/")
BOT_PATHS = ("/swarming/", "/skep/", "/bot_code", "/bootstrap")
HEADERS = {
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def routes(app):
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            yield method, rule.rule


def concrete(path):
    return re.sub("<[^>]*>", "x", path)


@pytest.mark.control("requests.route-policy")
def test_every_route_refuses_a_stranger_unless_listed(parts):
    app = create_app(parts)
    seen = set()
    for method, path in routes(app):
        if (method, path) in OPEN:
            seen.add((method, path))
            continue
        reply = app.test_client().open(concrete(path), method=method, json={})
        if path.startswith("/api/"):
            assert reply.status_code == 401, (method, path)
        elif path.startswith("/prpc/"):  # each method is held by the matrix of permissions
            assert reply.headers["X-Prpc-Grpc-Code"] not in {"", "0"}, (method, path)
        elif path.startswith("/_ah/"):
            assert reply.status_code in {401, 403, 404, 405}, (method, path)
        elif path.endswith("<path:rest>"):  # what bots ask for in vain
            assert reply.status_code in {404, 405}, (method, path, reply.status)
        elif path.startswith(BOT_PATHS):
            assert reply.status_code in {400, 401, 403}, (method, path, reply.status)
        elif reply.status_code == 302:  # an old address leads to a closed page
            assert reply.headers["Location"].startswith(("/bot", "/task")), (method, path)
        elif reply.status_code == 401:
            assert path == "/tasks/<task_id>/output"
        else:
            location = reply.headers.get("Location", "")
            assert (reply.status_code, location.split("?")[0]) == (303, "/signin"), (method, path)
    assert seen == OPEN


def test_options_tells_a_stranger_nothing(client):
    for path in ("/bots", "/tasks/x/cancel", "/signin", "/api/v1/tasks"):
        assert client.options(path).status_code in {401, 405}, path


def check_headers(reply):
    assert reply.headers["Content-Security-Policy"] == CSP
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.control("people.xss")
def test_every_page_has_the_security_headers(parts, browser, stranger, admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    app = create_app(parts)
    paths = [
        path.replace("<path:bot_id>", "vm1").replace("<task_id>", task_id)
        for method, path in routes(app)
        if method == "GET" and not path.startswith((*BOT_PATHS, *MACHINES))
    ]
    assert len(paths) >= 9
    for path in [*paths, "/nope", "/bots/nobody", "/tasks/zz", "/bots?x=1"]:
        for who in (browser, stranger):
            reply = who.get(path)
            check_headers(reply)
            assert reply.headers["Cache-Control"] == "no-store", path


def test_static_files_are_immutable_and_named_by_content(stranger):
    page = stranger.get("/signin").text
    (sheet,) = re.findall(r'href="(/static/skep\.[0-9a-f]{16}\.css)"', page)
    reply = stranger.get(sheet)
    assert reply.content_type == "text/css; charset=utf-8"
    assert reply.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    check_headers(reply)
    for name in ("skep.css", "skep.0000000000000000.css", "..%2fsite.py", "live.js"):
        assert stranger.get(f"/static/{name}").status_code == 404


@pytest.mark.control("people.xss")
def test_pages_hold_no_inline_code(browser, admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    for path in ("/bots", "/bots/vm1", "/tasks", f"/tasks/{task_id}", "/audit", "/nope"):
        html = browser.get(path).text
        assert not re.search(r"<style|style=|\son\w+=|javascript:|<script>", html), path


@pytest.mark.parametrize("path", ["/swarming/api/v1/bot/nope", "/api/v1/nope", "/bootstrap/x"])
def test_machines_get_no_pages(browser, path):
    assert "<nav" not in browser.get(path).text


def test_unknown_page_and_method_are_one_clear_line(browser):
    reply = browser.get("/nope")
    assert (reply.status_code, reply.text.count("notice bad")) == (404, 1)
    reply = browser.send("/bots", {})
    assert (reply.status_code, reply.text.count("notice bad")) == (405, 1)
