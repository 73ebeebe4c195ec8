"""What the pages ask of the server: the same questions that the API answers.

The pages know the API by this shape only, and every fact they show is the API's own JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from botapi.clock import Clock
from botapi.domain.permissions import Caller, Needs

Json = dict[str, Any]
Query = Mapping[str, Sequence[str]]


class Person(Protocol):
    """Who looks at a page."""

    @property
    def name(self) -> str:
        """What the audit record says."""
        ...

    @property
    def role(self) -> str:
        """In one word."""
        ...

    @property
    def session_id(self) -> str:
        """Empty for somebody who has not signed in."""
        ...

    @property
    def caller(self) -> Caller:
        """What was granted to them."""
        ...

    @property
    def is_anonymous(self) -> bool:
        """Has nobody in particular asked?"""
        ...


class Output(Protocol):
    """Some bytes of a task's output."""

    @property
    def data(self) -> bytes:
        """The bytes."""
        ...

    @property
    def state(self) -> str:
        """The task's state before they were read."""
        ...

    @property
    def final(self) -> bool:
        """Is the task final, and follows nothing?"""
        ...


class Server(Protocol):
    """The questions; `botapi.api.server` says what each means."""

    @property
    def clock(self) -> Clock:
        """The server's clock."""
        ...

    def tasks(self, person: Any, query: Query) -> Json:  # noqa: ANN401 - a Person of the server's
        """One page of tasks."""
        ...

    def task(self, task_id: str, wait_s: float = 0.0) -> Json:
        """One task."""
        ...

    def cancel(self, task_id: str, actor: str, reason: str, *, kill_running: bool) -> Json:
        """End a task."""
        ...

    def output(self, task_id: str, offset: int, limit: int, wait_s: float = 0.0) -> Output:
        """Bytes of a task's output."""
        ...

    def bots(self, person: Any, query: Query, base_url: str) -> Json:  # noqa: ANN401 - as above
        """One page of bots."""
        ...

    def bot(self, bot_id: str, base_url: str) -> Json:
        """One bot."""
        ...

    def origins(self, bot_id: str) -> dict[str, str]:
        """The dimensions that bots.cfg decides."""
        ...

    def events(self, bot_id: str, query: Query) -> Json:
        """One page of a bot's events."""
        ...

    def audit(self, query: Query) -> Json:
        """One page of the audit record."""
        ...

    def sign_in(self, api_key: str) -> tuple[str, Person]:
        """A new session."""
        ...

    def new_id(self) -> str:
        """A name that nobody guesses."""
        ...

    def person_of_session(self, cookie: str) -> Person | None:
        """The owner of a session."""
        ...

    def anybody(self) -> Person | None:
        """Who somebody is that has not signed in; None when such people may not read."""
        ...

    def issuer(self) -> str:
        """Where people sign in, in a word; empty where an API key is the only way."""
        ...

    def access_token(self, session_id: str) -> tuple[str, int]:
        """A token for scripts of this session's pages, and its end in s since 1970."""
        ...

    def begin_sign_in(self, redirect_uri: str, following: str) -> tuple[str, str] | None:
        """Where to send a browser, and a cookie for it; None where there is no issuer."""
        ...

    def finish_sign_in(
        self, pending: str, redirect_uri: str, state: str, code: str
    ) -> tuple[str, str]:
        """A session's cookie for who came back from the issuer, and the path to go to."""
        ...

    def sign_out(self, session_id: str) -> None:
        """End a session."""
        ...

    def check(self, person: Any, needs: Needs, path: Mapping[str, str]) -> None:  # noqa: ANN401 - a Person of the server's
        """Raise Refusal unless the person may see this page or send its form."""
        ...

    def may(self, person: Any, needs: Needs, path: Mapping[str, str]) -> bool:  # noqa: ANN401 - as above
        """Would `check` let them?"""
        ...

    def form_token(self, session_id: str) -> str:
        """The token that forms of this session carry."""
        ...

    def is_form_token(self, session_id: str, text: str) -> bool:
        """Does the token belong to the session?"""
        ...
