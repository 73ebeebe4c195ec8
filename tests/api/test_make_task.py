"""Who may make which task, and in which order that is found out (prpc-api 6.1, 8.1)."""

from dataclasses import replace

import pytest

from botapi.api.new_tasks import make_task
from botapi.cfg.bundle import Source
from botapi.domain.errors import Code, Refusal
from botapi.domain.new_task import NewTask
from botapi.domain.permissions import Caller, Grant, Role
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.create_task import create_task
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG, make_slice

ACCOUNT = "builder@example.com"
POOLS = f"""
pool {{ name: "default" realm: "a:pool" default_task_realm: "a:tasks"
  allowed_service_account: "{ACCOUNT}" }}
pool {{ name: "other" realm: "b:pool" default_task_realm: "b:tasks" }}
"""
ADMIN = Caller("user:root", frozenset({Grant(Role.ADMIN)}))
AUTHOR = Caller("user:ann", frozenset({Grant(Role.AUTHOR, "default")}))
NOBODY = Caller("user:bob")
GOOD = NewTask(name="n", slices=(make_slice(),))


@pytest.fixture
def make(parts, clock):
    """Makes a task with pools.cfg in force; what was made."""
    push_config(
        parts.store,
        Source(LOOPBACK_CFG, {}, POOLS),
        parent=parts.config.latest().digest,
        author="test",
        now_ms=clock.now_ms(),
    )

    def call(caller=ADMIN, **changes):
        return make_task(parts.api, caller, replace(GOOD, **changes))

    return call


def code_of(make, caller, **changes):
    with pytest.raises(Refusal) as caught:
        make(caller, **changes)
    return caught.value.code, caught.value.message


def in_pool(*names, **more):
    return tuple(make_slice(dimensions={"pool": (name,)}, **more) for name in names)


def test_author_of_a_pool_makes_tasks_there(make):
    made = make(AUTHOR)
    assert (made.is_new, made.task.state) == (True, "PENDING")
    assert made.request.realm == "a:tasks"
    assert made.request.authenticated == "user:ann"


@pytest.mark.spec("prpc:6.1.p1", "prpc:8.1.1.2")
def test_unknown_and_forbidden_pools_look_alike(make):
    forbidden = code_of(make, AUTHOR, slices=in_pool("other"))
    unknown = code_of(make, AUTHOR, slices=in_pool("no-such"))
    assert forbidden[0] is unknown[0] is Code.PERMISSION_DENIED
    assert forbidden[1].replace("other", "no-such") == unknown[1]


@pytest.mark.spec("prpc:6.1.p1")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"slices": ()}, Code.INVALID_ARGUMENT),
        ({"slices": in_pool("default", "other")}, Code.INVALID_ARGUMENT),
        ({"slices": in_pool("a|b")}, Code.INVALID_ARGUMENT),
        ({"priority": 0}, Code.PERMISSION_DENIED),
        ({"slices": in_pool("default", hard_timeout_s=1)}, Code.PERMISSION_DENIED),
        ({"has_resultdb": True}, Code.PERMISSION_DENIED),
    ],
)
def test_only_slices_and_their_pool_are_looked_at_before_the_permission(make, changes, code):
    assert code_of(make, NOBODY, **changes)[0] is code


@pytest.mark.spec("prpc:6.1.p1")
def test_checks_come_in_their_order(make):
    """Each step mends what was refused first; what is wrong later has waited its turn."""
    wrong = {
        "priority": 0,
        "has_resultdb": True,
        "realm": "b:tasks",
        "service_account": "stranger@example.com",
        "parent_task_id": "76d00eba71bee010",
    }
    mended = [
        ("priority", 20, Code.INVALID_ARGUMENT, "/priority"),
        ("has_resultdb", False, Code.FAILED_PRECONDITION, "/resultdb"),
        ("realm", "", Code.PERMISSION_DENIED, "swarming.tasks.createInRealm for realm b:tasks"),
        ("service_account", ACCOUNT, Code.PERMISSION_DENIED, "may not act as stranger"),
        ("parent_task_id", "", Code.NOT_FOUND, "/parent_task_id"),
    ]
    for name, value, code, words in mended:
        found, message = code_of(make, AUTHOR, **wrong)
        assert (found, words in message) == (code, True), message
        wrong[name] = value
    assert make(AUTHOR, **wrong).is_new


@pytest.mark.spec("prpc:8.1.2.10")
def test_realm_is_granted_by_a_pool_that_names_it_or_for_the_server(make):
    assert make(AUTHOR, realm="a:pool").request.realm == "a:pool"
    assert make(ADMIN, realm="b:tasks").request.realm == "b:tasks"
    assert make(ADMIN, realm="c:unheard-of").request.realm == "c:unheard-of"
    for realm in ("b:tasks", "c:unheard-of"):
        code, message = code_of(make, AUTHOR, realm=realm)
        assert code is Code.PERMISSION_DENIED
        assert message.endswith(f"swarming.tasks.createInRealm for realm {realm}")
    both = replace(AUTHOR, grants=AUTHOR.grants | {Grant(Role.AUTHOR, "other")})
    assert make(both, realm="b:tasks").request.realm == "b:tasks"


@pytest.mark.spec("10.3.p1", "13.1.39", "prpc:6.1.1.4")
@pytest.mark.parametrize(
    ("caller", "asked", "got"),
    [(AUTHOR, 1, 20), (AUTHOR, 19, 20), (AUTHOR, 20, 20), (AUTHOR, 255, 255), (ADMIN, 1, 1)],
)
def test_high_priority_needs_a_permission_and_is_raised_without(make, caller, asked, got):
    made = make(caller, priority=asked)
    assert (made.request.priority, made.task.priority) == (got, got)
    assert f"priority:{got}" in made.request.tags


@pytest.mark.spec("prpc:6.1.1.14", "10.5.1.1")
def test_repeat_of_a_uuid_gives_what_is_stored(make, clock):
    first = make(AUTHOR, request_uuid="u")
    clock.advance(1)
    again = make(AUTHOR, request_uuid="u", name="other", tags=("a:b",))
    assert (again.is_new, again.request, again.task) == (False, first.request, first.task)
    assert make(ADMIN, request_uuid="u").is_new


def test_child_is_refused_when_its_parent_ends_while_it_is_made(parts, make, monkeypatch):
    parent = make()

    def ends_first(store, request, **more):
        actor = Actor("alice", "", "entry")
        now_ms = parts.clock.now_ms()
        cancel_task(store, parent.request.task_id, actor, kill_running=False, now_ms=now_ms)
        return create_task(store, request, **more)

    monkeypatch.setattr("botapi.api.new_tasks.create_task", ends_first)
    code, message = code_of(make, ADMIN, parent_task_id=parent.request.task_id)
    assert code is Code.FAILED_PRECONDITION
    assert "has ended" in message
