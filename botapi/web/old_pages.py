"""Addresses of pages that other tools link to, sent on to ours (prpc-api 8.2)."""

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, urlencode

from flask import Blueprint, Response, request
from werkzeug.datastructures import MultiDict

Parameters = MultiDict[str, str]
Pairs = Iterable[tuple[str, str]]
TAG = "-tag"
"""Lists of tasks may mark a filter by a tag so: `pool-tag:ci`."""
STATES: Mapping[str, tuple[str, ...]] = {
    "ALL": (),
    "PENDING_RUNNING": ("PENDING", "RUNNING"),
    "COMPLETED_SUCCESS": ("COMPLETED",),
    "COMPLETED_FAILURE": ("COMPLETED",),
    "DEDUPED": ("COMPLETED",),
}
"""Filters by state that are no states, as near as ours come to them."""


def _bot(asked: Parameters) -> str:
    bot_id = asked.get("id", "")
    return f"/bots/{quote(bot_id)}" if bot_id else "/bots"


def _task(asked: Parameters) -> str:
    task_id = asked.get("id", "")
    return f"/tasks/{quote(task_id, safe='')}" if task_id else "/tasks"


def _bots(asked: Parameters) -> str:
    return _list("/bots", [("dimension", one) for one in asked.getlist("f")], asked)


def _tasks(asked: Parameters) -> str:
    filters = [pair for text in asked.getlist("f") for pair in _task_filters(text)]
    return _list("/tasks", filters, asked)


def _task_filters(text: str) -> Pairs:
    key, _, value = text.partition(":")
    if key == "state":
        return [("state", state) for state in STATES.get(value, (value,))]
    return [("tag", f"{key.removesuffix(TAG)}:{value}")]


def _list(path: str, filters: Pairs, asked: Parameters) -> str:
    limit = [("limit", asked["l"])] if asked.get("l") else []
    query = urlencode([*filters, *limit])
    return f"{path}?{query}" if query else path


def _old_list(path: str, name: str) -> Callable[[Parameters], str]:
    """A list of before, whose filters are in the parameter `name`."""

    def moved(asked: Parameters) -> str:
        limit = [("l", asked["limit"])] if asked.get("limit") else []
        query = urlencode([*limit, *(("f", one) for one in asked.getlist(name))])
        return f"{path}?{query}" if query else path

    return moved


MOVED: Mapping[str, Callable[[Parameters], str]] = {
    "/botlist": _bots,
    "/bot": _bot,
    "/tasklist": _tasks,
    "/task": _task,
    "/restricted/bots": _old_list("/botlist", "dimensions"),
    "/user/tasks": _old_list("/tasklist", "task_tag"),
}
"""Path to the address that it is sent on to."""


def blueprint() -> Blueprint:
    """Every old address; each is 302 to the one that took its place."""
    routes = Blueprint("old_pages", __name__)
    for path, moved in MOVED.items():
        routes.add_url_rule(path, path.replace("/", "_"), _view(moved))
    routes.add_url_rule("/restricted/bot/<path:name>", "bot", lambda name: _named("/bot", name))
    routes.add_url_rule("/user/task/<name>", "task", lambda name: _named("/task", name))
    return routes


def _view(moved: Callable[[Parameters], str]) -> Callable[[], Response]:
    return lambda: _to(moved(request.args))


def _named(path: str, name: str) -> Response:
    return _to(f"{path}?{urlencode({'id': name})}")


def _to(address: str) -> Response:
    return Response(status=302, headers={"Location": address})
