"""What clients and pages ask of a big database, over HTTP."""

import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

from bench.fleet import Fleet
from bench.wire import Connection

DAY_S = 86_400
STATES = (
    "QUERY_PENDING",
    "QUERY_RUNNING",
    "QUERY_COMPLETED",
    "QUERY_COMPLETED_SUCCESS",
    "QUERY_COMPLETED_FAILURE",
    "QUERY_EXPIRED",
    "QUERY_TIMED_OUT",
    "QUERY_BOT_DIED",
    "QUERY_CANCELED",
    "QUERY_ALL",
    "QUERY_DEDUPED",
    "QUERY_KILLED",
    "QUERY_NO_RESOURCE",
)
PAGES_DEEP = 20

REST = (
    "/api/v1/tasks?limit=100",
    "/api/v1/tasks?limit=1000",
    "/api/v1/tasks?state=BOT_DIED",
    "/api/v1/tasks?state=COMPLETED&tag=job:job-17",
    "/api/v1/tasks?state=NO_RESOURCE&tag=job:job-17&tag=os:Mac",
    "/api/v1/tasks?tag=pool:ci&tag=os:Linux&state=TIMED_OUT",
    "/api/v1/tasks?tag=pool:ci&state=pending",
    "/api/v1/tasks?user=user7@example.com&tag=job:job-3",
    "/api/v1/tasks?bot=seed-00017",
    "/api/v1/tasks?tag=pool:sim&tag=no:such",
    "/api/v1/bots?limit=1000",
    "/api/v1/bots?dimension=os:Linux&dimension=pool:seed&status=idle",
    "/api/v1/bots/seed-00017",
    "/tasks",
    "/bots",
)
"""Lists, filters and pages."""


def measure(fleet: Fleet, rounds: int) -> Iterator[tuple[str, list[float]]]:
    """Each query's name and its times in ms."""
    connection = fleet.connect()
    now_s = time.time()
    asked: list[tuple[str, Callable[[], object]]] = [
        (f"GET {path}", lambda path=path: _get(connection, path)) for path in REST
    ]
    asked.append((f"GET page {PAGES_DEEP} of /api/v1/tasks", _deep(connection)))
    for days in (1, 7):
        for tags in ([], ["pool:ci"], ["pool:ci", "os:Linux", "branch:main"]):
            for state in STATES:
                name = f"CountTasks {state} {' '.join(tags)} of {days} days"
                body = {"start": _time(now_s - days * DAY_S), "state": state, "tags": tags}
                asked.append((name, _call(connection, "Tasks/CountTasks", body)))
            body = {"state": "QUERY_ALL", "tags": tags, "limit": 100}
            name = f"ListTasks QUERY_ALL {' '.join(tags)} of {days} days"
            body |= {"start": _time(now_s - days * DAY_S), "end": _time(now_s)}
            asked.append((name, _call(connection, "Tasks/ListTasks", body)))
    dims = [{"key": "pool", "value": "seed"}, {"key": "os", "value": "Linux|Mac"}]
    asked.append(("CountBots", _call(connection, "Bots/CountBots", {"dimensions": dims})))
    alive = {"dimensions": dims, "limit": 1000, "isDead": "FALSE"}
    asked.append(("ListBots", _call(connection, "Bots/ListBots", alive)))
    asked.append(("GetBotDimensions", _call(connection, "Bots/GetBotDimensions", {})))
    for name, ask in asked:
        ask()
        yield name, [_timed(ask) for _ in range(rounds)]
    connection.close()


def _timed(ask: Callable[[], object]) -> float:
    before = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - before)


def _get(connection: Connection, path: str) -> bytes:
    status, _headers, body = connection.send("GET", path)
    if status != 200:
        raise RuntimeError(f"{path}: {status} {body[:300]!r}")
    return body


def _deep(connection: Connection) -> Callable[[], object]:
    """A page far behind the first one."""
    path = "/api/v1/tasks?limit=1000"
    for _ in range(PAGES_DEEP):
        cursor = json.loads(_get(connection, path))["next_cursor"]
        if not cursor:
            break
        path = f"/api/v1/tasks?limit=1000&cursor={quote(cursor)}"
    return lambda: _get(connection, path)


def _call(connection: Connection, method: str, body: dict[str, object]) -> Callable[[], object]:
    path = f"/prpc/swarming.v2.{method}"
    headers = {"Content-Type": "application/json", "Accept": "application/json"}

    def ask() -> bytes:
        status, _headers, reply = connection.send("POST", path, json.dumps(body).encode(), headers)
        if status != 200:
            raise RuntimeError(f"{method}: {status} {reply[:300]!r}")
        return reply

    return ask


def _time(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
