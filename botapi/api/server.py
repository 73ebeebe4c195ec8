"""Everything that people can ask, as plain calls: the API and the pages are made of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from botapi.api import (
    access,
    audit,
    bootstrap,
    bots,
    config,
    config_push,
    outputs,
    people,
    task_lists,
    tasks,
)
from botapi.api.parts import ApiParts, Json, Query
from botapi.api.people import Person
from botapi.api.views import Output
from botapi.domain.errors import Refusal
from botapi.domain.permissions import Needs


@dataclass(kw_only=True)
class ApiServer(ApiParts):
    """The parts, and the questions that need no HTTP."""

    def close(self) -> None:
        """Answer every held call now: the process is about to stop."""
        self.waits.close()

    def tasks(self, person: Person, query: Query) -> Json:
        """One page of tasks, newest first."""
        return task_lists.listed(self, person.caller, query)

    def tasks_of_bot(self, bot_id: str, query: Query) -> Json:
        """One page of a bot's tasks, newest first."""
        return task_lists.of_bot(self, bot_id, query)

    def task(self, task_id: str, wait_s: float = 0.0) -> Json:
        """One task, held until it is final or the time is over."""
        return tasks.read(self, task_id, wait_s)

    def cancel(self, task_id: str, actor: str, reason: str, *, kill_running: bool) -> Json:
        """End a task; what came of it, and the task."""
        body = tasks.CancelBody(kill_running=kill_running, reason=reason)
        return tasks.cancel(self, task_id, actor, body)

    def output(self, task_id: str, offset: int, limit: int, wait_s: float = 0.0) -> Output:
        """Bytes of a task's output."""
        return outputs.read_output(self, task_id, offset, limit, wait_s)

    def bots(self, person: Person, query: Query, base_url: str) -> Json:
        """One page of bots by id, and counts by status."""
        return bots.listed(self, person.caller, query, base_url)

    def bot(self, bot_id: str, base_url: str) -> Json:
        """One bot."""
        return bots.read(self, bot_id, base_url)

    def origins(self, bot_id: str) -> dict[str, str]:
        """The dimensions of a bot that bots.cfg decides."""
        return bots.origins(self, bot_id)

    def events(self, bot_id: str, query: Query) -> Json:
        """One page of a bot's events, newest first."""
        return bots.events(self, bot_id, query)

    def timeline(self, bot_id: str, query: Query) -> Json:
        """What a bot was at over a span of time."""
        return bots.timeline(self, bot_id, query)

    def audit(self, query: Query) -> Json:
        """One page of the audit record, newest first."""
        return audit.listed(self, query)

    def bots_cfg(self) -> Json:
        """The bots.cfg in force."""
        return config.bots_cfg(self)

    def config_in_force(self) -> Json:
        """The configuration in force with its files, and what is on disk."""
        return config.in_force(self)

    def config_revisions(self, query: Query) -> Json:
        """One page of revisions, newest first."""
        return config.revisions(self, query)

    def config_revision(self, rev: str) -> Json:
        """One revision with its files."""
        return config.revision(self, rev)

    def validate_config(self, body: bytes) -> Json:
        """Digest and warnings of good files."""
        return config_push.validate(self, body)

    def preview_config(self, body: bytes) -> bytes:
        """What a change would do, as JSON."""
        return config_push.preview(self, body)

    def apply_config(self, actor: str, body: bytes, if_match: str) -> Json:
        """Put files in force."""
        return config_push.apply(self, actor, body, if_match)

    def roll_config_back(self, actor: str, body: bytes, if_match: str) -> Json:
        """Put an older revision in force again."""
        return config_push.rollback(self, actor, body, if_match)

    def bootstrap_token(self, actor: str, body: bootstrap.TokenBody, base_url: str) -> Json:
        """A new bootstrap token."""
        return bootstrap.create(self, actor, body, base_url)

    def sign_in(self, api_key: str) -> tuple[str, Person]:
        """A page session for the owner of an API key."""
        return people.sign_in(self, api_key)

    def person_of_session(self, cookie: str) -> Person | None:
        """The owner of a page session."""
        return people.person_of_session(self, cookie)

    def anybody(self) -> Person | None:
        """Who somebody is that has not signed in; None when such people may not read."""
        return people.anybody(self)

    def issuer(self) -> str:
        """Where people sign in; empty where an API key is the only way."""
        rule = self.config.cached().fleet.sign_in
        return urlsplit(rule.issuer).netloc if rule else ""

    def access_token(self, session_id: str) -> tuple[str, int]:
        """A token for scripts of this session's pages, and its end in s since 1970."""
        return people.access_token(self, session_id)

    def begin_sign_in(self, redirect_uri: str, following: str) -> tuple[str, str] | None:
        """Where to send a browser, and a cookie for it; None where there is no issuer."""
        return people.begin_sign_in(self, redirect_uri, following)

    def finish_sign_in(
        self, pending: str, redirect_uri: str, state: str, code: str
    ) -> tuple[str, str]:
        """A session's cookie for who came back from the issuer, and the path to go to."""
        return people.finish_sign_in(self, pending, redirect_uri, state, code)

    def sign_out(self, session_id: str) -> None:
        """End a page session."""
        people.sign_out(self, session_id)

    def check(self, person: Person, needs: Needs, path: Mapping[str, str]) -> None:
        """Raise Refusal unless the person may see this page or send its form."""
        access.check_call(self, person.caller, needs, path)

    def may(self, person: Person, needs: Needs, path: Mapping[str, str]) -> bool:
        """Would `check` let them?"""
        try:
            self.check(person, needs, path)
        except Refusal:
            return False
        return True

    def form_token(self, session_id: str) -> str:
        """The token that forms of this session carry."""
        return people.form_token(self, session_id)

    def is_form_token(self, session_id: str, text: str) -> bool:
        """Does the token belong to the session?"""
        return people.is_form_token(self, session_id, text)
