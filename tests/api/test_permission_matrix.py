"""One matrix: everybody who may ask, every call, the own pool and another one (prpc-api 8.1).

The tables below say who may do what in their own words, so that they do not follow the code.
A call that has no row here fails.
"""

import re
from dataclasses import replace

import pytest

from botapi import app as composition
from botapi.api.prpc.services import METHODS as PRPC_METHODS
from botapi.api.routes import ROOT, TABLE
from botapi.auth.access import new_api_key
from botapi.auth.directory import User
from botapi.cfg.bundle import Source
from botapi.concurrency import Threads
from botapi.domain.permissions import Grant, Role
from botapi.transactions.change_user import change_user
from botapi.transactions.create_api_key import create_api_key
from botapi.transactions.push_config import push_config
from botapi.web.site import CLOSED
from tests.fakes.person import Person, new_key
from tests.fakes.sim_bot import SimBot, flask_post

OWN, OTHER = "own", "other"
VIEW = {"peek", "task", "bots", "tasks"}
ROLES = {
    "admin": VIEW
    | {"cancel", "make", "delete", "terminate", "quarantine", "enrol"}
    | {"config", "configure", "see secrets", "set secrets", "audit", "administer"},
    "operator": VIEW | {"cancel", "delete", "terminate", "quarantine", "config"},
    "author": VIEW | {"make"},
    "viewer": VIEW,
    "bootstrap": {"peek", "enrol"},
}
"""What each role may do."""

TASK_BODY = {"command": ["x"], "dimensions": {"pool": ["{pool}"]}, "wait_for_capacity": True}
CALLS = {
    # how a call is made: (method, path, what it needs, on what, body)
    ("GET", "/tasks"): ("tasks", "some pool"),
    ("POST", "/tasks"): ("make", "pool", TASK_BODY),
    ("POST", "/tasks/collect"): ("task", "task", {"task_ids": ["{task}"]}),
    ("POST", "/tasks/cancel"): ("cancel", "pool", {"tags": ["pool:{pool}"], "limit": 10}),
    ("GET", "/tasks/<task_id>"): ("task", "task"),
    ("GET", "/tasks/<task_id>/why"): ("task", "task"),
    ("POST", "/tasks/<task_id>/cancel"): ("cancel", "task", {}),
    ("POST", "/tasks/<task_id>/retry"): ("make", "pool", {}),
    ("GET", "/tasks/<task_id>/output"): ("task", "task"),
    ("GET", "/tasks/<task_id>/outputs"): ("task", "task"),
    ("GET", "/tasks/<task_id>/outputs.<kind>"): ("task", "task"),
    ("GET", "/tasks/<task_id>/outputs/<path:path>"): ("task", "task"),
    ("POST", "/blobs/missing"): ("make", "some pool", {"digests": []}),
    ("GET", "/blobs/<digest>/<size>"): ("task", "some pool"),
    ("PUT", "/blobs/<digest>/<size>"): ("make", "some pool"),
    ("GET", "/trees/<digest>/<size>"): ("task", "some pool"),
    ("GET", "/bots"): ("bots", "some pool"),
    ("GET", "/bots/<path:bot_id>"): ("bots", "bot"),
    ("DELETE", "/bots/<path:bot_id>"): ("delete", "bot"),
    ("POST", "/bots/<path:bot_id>/terminate"): ("terminate", "bot", {}),
    ("GET", "/bots/<path:bot_id>/tasks"): ("tasks", "bot"),
    ("GET", "/bots/<path:bot_id>/events"): ("bots", "bot"),
    ("GET", "/bots/<path:bot_id>/timeline"): ("bots", "bot"),
    ("POST", "/bots/<path:bot_id>/quarantine"): ("quarantine", "bot", {"reason": "x"}),
    ("POST", "/bots/<path:bot_id>/release"): ("quarantine", "bot", {}),
    ("POST", "/bots/<path:bot_id>/pause"): ("quarantine", "bot", {"reason": "x"}),
    ("POST", "/bots/<path:bot_id>/resume"): ("quarantine", "bot", {}),
    ("POST", "/bots/<path:bot_id>/restart"): ("quarantine", "bot", {"reason": "x"}),
    ("GET", "/bootstrap-tokens"): (None, "self"),
    ("POST", "/bootstrap-tokens"): ("enrol", "pool", {"pool": "{pool}"}),
    ("POST", "/bootstrap-tokens/<token_id>/revoke"): ("enrol", "server", {}),
    ("GET", "/whoami"): (None, "self"),
    ("GET", "/openapi.json"): (None, "self"),
    ("GET", "/errors"): (None, "self"),
    ("GET", "/users"): (None, "self"),
    ("POST", "/users"): ("administer", "server", {}),
    ("PATCH", "/users/<identity>"): ("administer", "server", {}),
    ("GET", "/api-keys"): (None, "self"),
    ("POST", "/api-keys"): ("administer", "server", {"name": "x", "owner": "user:somebody"}),
    ("DELETE", "/api-keys/<key_id>"): (None, "hidden"),
    ("GET", "/config"): ("config", "server"),
    ("GET", "/config/bots.cfg"): ("config", "server"),
    ("GET", "/config/revisions"): ("config", "server"),
    ("GET", "/config/revisions/<rev>"): ("config", "server"),
    ("POST", "/config/validate"): ("config", "server", {}),
    ("POST", "/config/preview"): ("config", "server", {}),
    ("POST", "/config/apply"): ("configure", "server", {}),
    ("POST", "/config/rollback"): ("configure", "server", {}),
    ("GET", "/archives"): ("config", "server"),
    ("POST", "/archives"): ("administer", "server", {}),
    ("GET", "/archives/<release>"): ("config", "server"),
    ("GET", "/rollout"): ("config", "server"),
    ("POST", "/rollout"): ("administer", "server", {}),
    ("POST", "/rollout/halt"): ("administer", "server", {}),
    ("POST", "/rollout/resume"): ("administer", "server", {}),
    ("POST", "/rollout/rollback"): ("administer", "server", {}),
    ("POST", "/rollout/canary"): ("administer", "server", {}),
    ("GET", "/keys"): ("administer", "server"),
    ("POST", "/keys/<purpose>/rotate"): ("administer", "server", {}),
    ("POST", "/keys/<purpose>/revoke"): ("administer", "server", {}),
    ("GET", "/secrets"): (None, "self"),
    ("POST", "/secrets/rotate"): ("administer", "server", {}),
    ("PUT", "/secrets/<name>"): ("set secrets", "pool", {"pools": ["{pool}"], "value": "v"}),
    ("DELETE", "/secrets/<name>"): ("set secrets", "hidden"),
    ("GET", "/audit"): ("audit", "server"),
}
PAGES = {
    ("GET", "/"): (None, "self"),
    ("GET", "/bots"): ("bots", "some pool"),
    ("GET", "/bots/<path:bot_id>"): ("bots", "bot"),
    ("GET", "/tasks"): ("tasks", "some pool"),
    ("GET", "/tasks/<task_id>"): ("task", "task"),
    ("POST", "/tasks/<task_id>/cancel"): ("cancel", "task"),
    ("GET", "/tasks/<task_id>/output"): ("task", "task"),
    ("GET", "/audit"): ("audit", "server"),
}
BOT, TASK, POOL_TAG = {"botId": "{bot}"}, {"taskId": "{task}"}, {"tags": ["pool:{pool}"]}
POOL_DIMENSION = {"dimensions": [{"key": "pool", "value": "{pool}"}]}
NEW_TASK = {
    "name": "x",
    "priority": 100,
    "taskSlices": [
        {
            "expirationSecs": 100,
            "waitForCapacity": True,
            "properties": {
                "command": ["x"],
                "executionTimeoutSecs": 60,
                "gracePeriodSecs": 30,
                "dimensions": [{"key": "pool", "value": "{pool}"}],
            },
        }
    ],
}
METHODS = {
    ("Bots", "GetBot"): ("bots", "bot", BOT),
    ("Bots", "ListBotEvents"): ("bots", "bot", BOT),
    ("Bots", "ListBotTasks"): ("tasks", "bot", BOT | {"state": "QUERY_ALL"}),
    ("Bots", "DeleteBot"): ("delete", "bot", BOT),
    ("Bots", "TerminateBot"): ("terminate", "bot", BOT),
    ("Bots", "ListBots"): ("bots", "pool", POOL_DIMENSION),
    ("Bots", "CountBots"): ("bots", "pool", POOL_DIMENSION),
    ("Bots", "GetBotDimensions"): ("bots", "pool", {"pool": "{pool}"}),
    ("Tasks", "NewTask"): ("make", "pool", NEW_TASK),
    ("Tasks", "GetResult"): ("task", "task", TASK),
    ("Tasks", "BatchGetResult"): (None, "anybody", {"taskIds": ["{task}"]}),
    ("Tasks", "GetRequest"): ("task", "task", TASK),
    ("Tasks", "GetStdout"): ("task", "task", TASK),
    ("Tasks", "ListTaskStates"): ("task", "task", {"taskId": ["{task}"]}),
    ("Tasks", "CancelTask"): ("cancel", "task", TASK),
    ("Tasks", "CancelTasks"): ("cancel", "pool", POOL_TAG | {"limit": 10}),
    ("Tasks", "ListTasks"): ("tasks", "pool", POOL_TAG),
    ("Tasks", "ListTaskRequests"): ("tasks", "pool", POOL_TAG),
    ("Tasks", "CountTasks"): (
        "tasks",
        "pool",
        POOL_TAG | {"start": "2026-01-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"},
    ),
    ("Swarming", "GetDetails"): ("peek", "server", {}),
    ("Swarming", "GetToken"): ("enrol", "server", {}),
    ("Swarming", "GetPermissions"): (None, "anybody", {}),
}
SERVER_LISTS = {
    ("Bots", "ListBots"): "bots",
    ("Bots", "CountBots"): "bots",
    ("Tasks", "ListTasks"): "tasks",
    ("Tasks", "CancelTasks"): "cancel",
}
"""Methods that need the right for the whole server when no pool is named."""

SUBJECTS = {
    **{f"{role} of the server": (role, None) for role in ROLES},
    **{f"{role} of its pool": (role, OWN) for role in ROLES},
    "nobody with grants": (None, None),
    "admin with a key for viewing its pool": ("viewer", OWN),
    "viewer with a key for all in its pool": ("viewer", OWN),
    "anonymous": "stranger",
    "anybody, where anybody may read": ("viewer", None),
    "disabled admin": "stranger",
    "expired key of an admin": "stranger",
    "revoked key of an admin": "stranger",
}

GROUPS = """trusted_dimensions: "pool"
bot_group { bot_id: "own1" auth { ip_whitelist: "loopback" } dimensions: "pool:own" }
bot_group { bot_id: "other1" auth { ip_whitelist: "loopback" } dimensions: "pool:other" }
"""
POOLS = """pool { name: "own" realm: "p:own" default_task_realm: "p:own" }
pool { name: "other" realm: "p:other" default_task_realm: "p:other" }
"""


def expected(subject, needs, on, pool):
    """May the subject make a call that needs this, about something of that pool?"""
    role, of_pool = subject
    if needs is None:
        return True
    holds = needs in ROLES.get(role, ())
    if on == "server":
        return holds and of_pool is None
    if on == "some pool":
        return holds
    return holds and of_pool in {None, pool}


@pytest.fixture
def world(settings, store, clock, rng):
    """Two pools with a bot and a task each."""
    parts = composition.build(settings, store, Threads(), clock, rng)
    source = Source(GROUPS, {}, POOLS)
    push_config(store, source, parent="", author="test", now_ms=clock.now_ms())
    client = composition.create_app(parts).test_client()
    tasks = {}
    maker = Person(client, new_key(store, clock, rng, "maker"))
    for pool in (OWN, OTHER):
        SimBot(flask_post(client), f"{pool}1").start()
        body = {"dimensions": {"pool": [pool]}, "wait_for_capacity": True}
        tasks[pool] = maker.submit("x", **body)["task_id"]
    yield World(parts, client, tasks)
    parts.release()


class World:
    """The server, and what its calls are made about."""

    def __init__(self, parts, client, tasks):
        self.parts = parts
        self.client = client
        self.tasks = tasks

    def filled(self, value, pool):
        """A body or path with the names of that pool's things."""
        if isinstance(value, dict):
            return {key: self.filled(inner, pool) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner, pool) for inner in value]
        if not isinstance(value, str):
            return value
        names = {"bot": f"{pool}1", "task": self.tasks[pool], "pool": pool}
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        value = value.replace("<path:bot_id>", names["bot"]).replace("<task_id>", names["task"])
        return re.sub("<[^>]*>", "x", value)

    def key(self, name):
        """The API key of a subject; empty for those who have none."""
        role, of_pool = SUBJECTS[name] if isinstance(SUBJECTS[name], tuple) else ("admin", None)
        scope = expires_ms = None
        if name.startswith("any") or name == "anonymous":
            return ""
        if name.startswith("admin with"):
            role, of_pool, scope = "admin", None, {Grant(Role.VIEWER, OWN)}
        if name.startswith("viewer with"):
            role, of_pool, scope = "viewer", None, {Grant(Role.ADMIN, OWN)}
        clock, rng, store = self.parts.clock, self.parts.rng, self.parts.store
        if name.startswith("expired"):
            expires_ms = clock.now_ms() + 1
        who = "user:subject@example.com"
        grants = frozenset({Grant(Role(role), of_pool or "")} if role else ())
        disabled = 1 if name.startswith("disabled") else 0
        change_user(store, who, lambda _: User(who, grants, 1, disabled))
        text, key = new_api_key(
            "k",
            None,
            rng,
            now_ms=clock.now_ms(),
            owner=who,
            scope=None if scope is None else frozenset(scope),
            expires_ms=expires_ms or 0,
        )
        create_api_key(store, replace(key, revoked_ms=int(name.startswith("revoked"))))
        clock.advance(1)
        return text


@pytest.fixture(params=list(SUBJECTS))
def subject(request, world):
    """The name of a subject, its rights, and its headers."""
    name = request.param
    if name.startswith("anybody"):
        object.__setattr__(
            world.parts.api, "settings", replace(world.parts.settings, anonymous_read=True)
        )
    key = world.key(name)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return name, SUBJECTS[name], headers


def test_every_call_has_a_row():
    assert set(CALLS) == {(method, path) for path, found in TABLE.items() for method in found}
    assert set(PAGES) == {(route.method, route.path) for route in CLOSED}
    services = {(service.rpartition(".")[2], name) for service, name in PRPC_METHODS}
    assert set(METHODS) == services


@pytest.mark.slow
@pytest.mark.control("people.roles")
@pytest.mark.spec(
    "prpc:8.1.p1",
    "prpc:8.1.1.1",
    "prpc:8.1.1.2",
    "prpc:8.1.1.3",
    "prpc:8.1.1.4",
)
@pytest.mark.parametrize("pool", [OWN, OTHER])
def test_calls_of_the_api_by_role_and_pool(world, subject, pool):
    name, rights, headers = subject
    wrong = {}
    for (method, path), (needs, on, *body) in CALLS.items():
        reply = world.client.open(
            ROOT + world.filled(path, pool),
            method=method,
            headers=headers,
            json=world.filled(body[0], pool) if body else None,
        )
        if rights == "stranger" or (name.startswith("any") and method != "GET"):
            is_right = reply.status_code == 401
        elif on == "hidden":
            may = expected(rights, needs, "pool", pool)
            is_right = reply.status_code in ({200, 404} if may and needs else {404})
        else:
            may = expected(rights, needs, on, pool)
            is_right = reply.status_code not in {401, 403} if may else reply.status_code == 403
        if not is_right:
            wrong[method, path] = reply.status_code, reply.text[:200]
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.control("people.roles")
@pytest.mark.parametrize("pool", [OWN, OTHER])
def test_pages_by_role_and_pool(world, subject, pool):
    name, rights, headers = subject
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    session = ""
    if rights != "stranger" and key:
        cookie, person = world.parts.api.sign_in(key)
        world.client.set_cookie("skep_session", cookie)
        session = person.session_id
    form = {"reason": "x", "form_token": world.parts.api.form_token(session)}
    wrong = {}
    for (method, path), (needs, on) in PAGES.items():
        data = form if method == "POST" else None
        reply = world.client.open(world.filled(path, pool), method=method, data=data)
        to_sign_in = reply.headers.get("Location", "").startswith("/signin")
        if rights == "stranger":
            is_right = to_sign_in or reply.status_code == 401
        elif expected(rights, needs, on, pool) and not (name.startswith("any") and data):
            is_right = reply.status_code in {200, 303} and not to_sign_in
        else:
            is_right = reply.status_code == 403 or (to_sign_in and not key)
        if not is_right:
            wrong[method, path] = reply.status_code, to_sign_in
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.control("people.roles")
@pytest.mark.spec(
    "prpc:1.7.p1",
    *(f"prpc:8.1.2.{row}" for row in range(1, 13)),
)
@pytest.mark.parametrize("pool", [OWN, OTHER])
def test_methods_of_the_public_api_by_role_and_pool(world, subject, pool):
    _, rights, headers = subject

    def code(service, method, body):
        reply = world.client.post(
            f"/prpc/swarming.v2.{service}/{method}",
            json=world.filled(body, pool),
            headers=headers | {"Accept": "application/json"},
        )
        return reply.headers["X-Prpc-Grpc-Code"], reply.text[:200]

    wrong = {}
    for (service, method), (needs, on, body) in METHODS.items():
        got, text = code(service, method, body)
        if rights == "stranger" and headers:
            is_right = got == "16"
        elif rights == "stranger":
            is_right = got == ("0" if on == "anybody" else "7")
        else:
            may = expected(rights, needs, on, pool)
            is_right = got not in {"3", "7", "13", "16"} if may else got == "7"
        if not is_right:
            wrong[service, method] = got, text
    for (service, method), needs in SERVER_LISTS.items():
        body = {"limit": 10, "tags": ["a:b"]} if method == "CancelTasks" else {}
        got, text = code(service, method, body)
        if rights != "stranger" and (got == "0") != expected(rights, needs, "server", pool):
            wrong[service, method, "no pool"] = got, text
    assert wrong == {}


@pytest.mark.control("people.roles")
def test_lists_show_own_pools_only(world):
    key = world.key("viewer of its pool")
    person = Person(world.client, key)
    assert [bot["bot_id"] for bot in person.get("/bots").json["items"]] == ["own1"]
    assert sum(person.get("/bots").json["counts"].values()) == 1
    items = person.get("/tasks").json["items"]
    assert [task["task_id"] for task in items] == [world.tasks[OWN]]
    assert person.get("/tasks?tag=pool:other").status_code == 403
    then = "at=2026-03-04T06:06:07.089Z"
    assert [bot["bot_id"] for bot in person.get(f"/bots?{then}").json["items"]] == ["own1"]
    assert person.get(f"/bots?{then}&dimension=pool:other").status_code == 403
    assert person.get("/bots?dimension=pool:other").status_code == 403
    assert person.get("/tasks?q=pool:other").json.get("items", []) == []
    assert person.get("/bots?q=pool:other").json.get("items", []) == []
    assert person.get("/bots?dimension=pool:own|other").status_code == 403
