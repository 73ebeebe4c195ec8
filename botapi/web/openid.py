"""`/auth/openid/*`: who is signed in, for scripts of pages, and signing in at an issuer.

The paths and the answer are those of prpc-api 8.3. The access token is good as a bearer
token on `/prpc` and `/api/v1`, and dies with the session, its key and its owner.
"""

from flask import Blueprint, Response, request

from botapi.domain.access_rules import USER
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import ANONYMOUS
from botapi.door import Door
from botapi.web import signin, words
from botapi.web.asked import Server
from botapi.wire_json import dumps

PREFIX = "/auth/openid"
PENDING_COOKIE = "skep_signing_in"


class OpenId:
    """The Flask side."""

    def __init__(self, server: Server, door: Door) -> None:
        self._server = server
        self._door = door

    def add(self, routes: Blueprint) -> None:
        """Every route, beside those of the pages."""
        for name, view in (
            ("state", self._state),
            ("login", self._login),
            ("callback", self._callback),
            ("logout", self._logout),
        ):
            routes.add_url_rule(
                f"{PREFIX}/{name}",
                f"openid_{name}",
                view,
                methods=["GET"],
                provide_automatic_options=False,
            )

    def _state(self) -> Response:
        """Who is signed in here, and a token for the scripts of this page."""
        _check_same_site()
        cookie = request.cookies.get(signin.SESSION_COOKIE, "")
        person = self._server.person_of_session(cookie) if cookie else None
        found: dict[str, object] = {"identity": ANONYMOUS}
        if person is not None:
            identity = person.caller.identity
            token, expiry_s = self._server.access_token(person.session_id)
            found = {
                "identity": identity,
                "email": identity.removeprefix(USER),
                "accessToken": token,
                "accessTokenExpiry": expiry_s,
                "accessTokenExpiresIn": expiry_s - self._server.clock.now_ms() // 1000,
            }
        response = Response(dumps(found), content_type="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    def _login(self) -> Response:
        """To the issuer, or to our own page where there is none; then back to `r`."""
        following = signin.local_path(request.args.get("r", ""))
        begun = self._server.begin_sign_in(self._redirect_uri(), following)
        if begun is None:
            return _redirect(f"/signin?{words.query_string([('next', following)])}")
        location, pending = begun
        response = _redirect(location)
        signin.keep(response, PENDING_COOKIE, pending, 600, is_https=self._is_https())
        return response

    def _callback(self) -> Response:
        """The issuer sent the browser back."""
        error = request.args.get("error", "")
        if error:
            raise Refusal(Code.PERMISSION_DENIED, f'the issuer says "{error[:80]}"')
        cookie, following = self._server.finish_sign_in(
            request.cookies.get(PENDING_COOKIE, ""),
            self._redirect_uri(),
            request.args.get("state", ""),
            request.args.get("code", ""),
        )
        response = _redirect(following)
        is_https = self._is_https()
        signin.keep(
            response, signin.SESSION_COOKIE, cookie, signin.SESSION_LIFE_S, is_https=is_https
        )
        signin.forget(response, PENDING_COOKIE, is_https=is_https)
        return response

    def _logout(self) -> Response:
        """End the session; a link on another site does not."""
        if request.headers.get("Sec-Fetch-Site", "") == "cross-site":
            raise Refusal(Code.PERMISSION_DENIED, "another site may not sign you out")
        cookie = request.cookies.get(signin.SESSION_COOKIE, "")
        person = self._server.person_of_session(cookie) if cookie else None
        if person is not None:
            self._server.sign_out(person.session_id)
        response = _redirect(signin.local_path(request.args.get("r", "")))
        signin.forget(response, signin.SESSION_COOKIE, is_https=self._is_https())
        return response

    def _redirect_uri(self) -> str:
        return f"{self._door.base_url(request)}{PREFIX}/callback"

    def _is_https(self) -> bool:
        return self._door.base_url(request).startswith("https:")


def _check_same_site() -> None:
    """Browsers say over https who asks; without a word it is no page of another site's."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Refusal(Code.PERMISSION_DENIED, "only pages of this server may ask")


def _redirect(location: str) -> Response:
    return Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})
