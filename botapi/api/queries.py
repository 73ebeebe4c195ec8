"""Parameters behind the `?`, read strictly: a name that means nothing is an error."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from botapi.api.parts import Query
from botapi.domain import errors
from botapi.domain.dimensions import key_problem, value_problem

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
MAX_WAIT_S = 20.0
MAX_REASON = 1_000
MAX_ALTERNATIVES = 25
"""Most values of one filter, within what every store can answer."""

refuse = errors.refuse
"""A refusal in the one form: where, what, and what to do."""
MAX_TIME_CHARS = 40

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


def reason(text: str, most: int = MAX_REASON) -> str:
    """Why somebody wants a change, in one line. Raises Refusal for more than anybody reads."""
    if len(text) > most:
        raise refuse("/reason", f"has {len(text)} characters, at most {most}")
    return " ".join(text.split())


def check_names(query: Query, known: Collection[str]) -> None:
    """Refuse a parameter that the call does not have."""
    for name in query:
        if name not in known:
            offered = ", ".join(sorted(known)) or "none"
            raise refuse(f"?{name[:40]}", f"no such parameter; there are: {offered}")


def last(query: Query, name: str) -> str:
    """The last value of a parameter, empty when it is not given."""
    values = query.get(name, ())
    return values[-1] if values else ""


def given(query: Query, name: str) -> list[str]:
    """All values of a parameter that are not empty, each once."""
    return list(dict.fromkeys(value for value in query.get(name, ()) if value))


def number(query: Query, name: str, default: int, low: int, high: int) -> int:
    """A whole number within bounds."""
    text = last(query, name)
    if not text:
        return default
    value = int(text) if _NUMBER.fullmatch(text) else -1
    if not low <= value <= high:
        raise refuse(f"?{name}", f'"{text[:40]}" is not a whole number from {low} to {high}')
    return value


def page_limit(query: Query, most: int = MAX_LIMIT) -> int:
    """How many items a page has."""
    return number(query, "limit", min(DEFAULT_LIMIT, most), 1, most)


def time_ms(query: Query, name: str) -> int:
    """A moment in RFC 3339 with its zone, in ms since 1970; 0 when it is not given."""
    text = last(query, name)
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text) if len(text) <= MAX_TIME_CHARS else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment <= _EPOCH:
        example = "2026-01-31T14:00:00Z"
        raise refuse(f"?{name}", f'"{text[:40]}" is not a time with its zone, as {example}')
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def wait_s(query: Query) -> float:
    """How long the answer may be held."""
    text = last(query, "wait")
    if not text:
        return 0.0
    value = float(text) if _SECONDS.fullmatch(text) else -1.0
    if not 0 <= value <= MAX_WAIT_S:
        raise refuse("?wait", f'"{text[:40]}" is not a number of seconds from 0 to 20')
    return value


def dimensions(query: Query) -> list[frozenset[str]]:
    """The constraints `dimension=k:v`, each a set of flat alternatives."""
    found: list[frozenset[str]] = []
    for text in given(query, "dimension"):
        key, colon, values = text.partition(":")
        alternatives = values.split("|")
        problems = [key_problem(key), *(value_problem(key, value) for value in alternatives)]
        problem = next(filter(None, problems), "")
        if not colon or problem:
            why = problem if colon else "has no colon"
            raise refuse("?dimension", f'"{text[:80]}": {why}; write key:value or key:a|b')
        found.append(frozenset(f"{key}:{value}" for value in alternatives))
    if sum(map(len, found)) > MAX_ALTERNATIVES:
        raise refuse("?dimension", f"more than {MAX_ALTERNATIVES} values; ask for fewer")
    return found
