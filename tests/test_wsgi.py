"""The request and the answer of bots' calls: as Werkzeug's in everything that is asked of them."""

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Request, Response

from botapi.wsgi import Answer, BotRequest

ASKED = ("method", "path", "scheme", "host", "remote_addr", "content_length")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"PATH_INFO": "/caf\xc3\xa9"},
        {"REMOTE_ADDR": "10.0.0.7"},
        {"wsgi.url_scheme": "https", "HTTP_HOST": "skep.example.com:443"},
        {"HTTP_HOST": "skep.example.com:8443"},
        {"HTTP_HOST": "[::1]:8080"},
        {"HTTP_HOST": "not a host/"},
        {"HTTP_HOST": ""},
        {"HTTP_HOST": None},
        {"HTTP_HOST": None, "SERVER_NAME": "::1", "SERVER_PORT": "80"},
        {"HTTP_HOST": None, "SERVER_NAME": "/run/skep.sock", "SERVER_PORT": None},
        {"CONTENT_LENGTH": None},
        {"CONTENT_LENGTH": "-1"},
        {"CONTENT_LENGTH": "1e3"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
    ],
)
def test_request_of_a_bot_says_what_werkzeugs_says(change):
    environ = EnvironBuilder("/a/b", method="POST", data=b"{}").get_environ()
    environ = {
        k: v for k, v in (environ | {"REMOTE_ADDR": "::1"} | change).items() if v is not None
    }
    ours, theirs = BotRequest(environ), Request(environ, populate_request=False)
    assert {name: getattr(ours, name) for name in ASKED} == {
        name: getattr(theirs, name) for name in ASKED
    }


def test_request_of_a_bot_has_headers_in_any_case():
    sent = {"X-Request-Id": "r", "Content-Type": "application/json"}
    http = BotRequest(EnvironBuilder(headers=sent).get_environ())
    assert http.headers.get("x-request-id") == http.headers.get("X-Request-Id", "") == "r"
    assert http.headers.get("content-TYPE", "") == "application/json"
    assert (http.headers.get("X-Absent"), http.headers.get("X-Absent", "no")) == (None, "no")


def test_request_of_a_bot_reads_its_body_to_the_end_and_no_further():
    environ = EnvironBuilder(method="POST", data=b"onetwo").get_environ()
    environ["CONTENT_LENGTH"] = "3"
    assert BotRequest(environ).stream.read() == b"one"


@pytest.mark.parametrize("status", [200, 429, 499, 503])
def test_answer_is_what_werkzeug_would_send(status):
    headers = {"Content-Type": "text/plain; charset=utf-8", "Retry-After": "7"}
    body = "caf\xe9\n".encode()
    environ = EnvironBuilder(method="POST").get_environ()
    ours = run_wsgi_app(Answer(body, status, dict(headers)), environ)
    theirs = run_wsgi_app(Response(body, status, headers), environ)
    assert b"".join(ours[0]) == b"".join(theirs[0])
    assert ours[1].split()[0] == theirs[1].split()[0]
    assert sorted(ours[2]) == sorted(theirs[2])
