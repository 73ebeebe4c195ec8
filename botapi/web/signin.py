"""Signing in with an API key, signing out, and telling our own forms from others'."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from flask import Request, Response

from botapi.domain.errors import Code, Refusal
from botapi.web.asked import Person, Server

SESSION_COOKIE = "skep_session"
VISITOR_COOKIE = "skep_visitor"
"""Binds the sign-in form to the browser that asked for it, before there is a session."""
SESSION_LIFE_S = 12 * 3600
VISITOR_LIFE_S = 3600
TOKEN_FIELD = "form_token"  # noqa: S105 - the name of a field
MAX_NEXT = 2_000

_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


def person_of(server: Server, http: Request) -> Person | None:
    """Who looks: the owner of the session, else anybody where that is allowed, else None."""
    cookie = http.cookies.get(SESSION_COOKIE, "")
    person = server.person_of_session(cookie) if cookie else None
    return person or server.anybody()


def local_path(text: str) -> str:
    """A path of this server to go to; `/` for anything that might lead elsewhere."""
    return text if len(text) <= MAX_NEXT and _LOCAL.fullmatch(text) else "/"


def check_form(
    server: Server, http: Request, form: Mapping[str, str], session_id: str, base_url: str
) -> None:
    """Raise Refusal PERMISSION_DENIED unless one of our pages made this form for this session."""
    if _is_foreign(http, base_url):
        raise Refusal(
            Code.PERMISSION_DENIED, "the form came from another site; open this page here"
        )
    if not server.is_form_token(session_id, form.get(TOKEN_FIELD, "")):
        raise Refusal(
            Code.PERMISSION_DENIED,
            "the form's token is missing, too old or of another session; "
            "go back, reload the page, send it again",
        )


def _is_foreign(http: Request, base_url: str) -> bool:
    """Does the browser say that another site sent this?

    Our referrer policy makes browsers send `Origin: null`, so that alone says nothing.
    """
    site = http.headers.get("Sec-Fetch-Site", "")
    if site and site not in {"same-origin", "none"}:
        return True
    origin = http.headers.get("Origin", "null")
    ours = {http.host, urlsplit(base_url).netloc}
    return origin != "null" and urlsplit(origin).netloc not in ours


def keep(response: Response, name: str, value: str, life_s: int, *, is_https: bool) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send along with a form."""
    response.set_cookie(
        name, value, max_age=life_s, path="/", secure=is_https, httponly=True, samesite="Lax"
    )


def forget(response: Response, name: str, *, is_https: bool) -> None:
    """Remove a cookie."""
    response.delete_cookie(name, path="/", secure=is_https, httponly=True, samesite="Lax")
