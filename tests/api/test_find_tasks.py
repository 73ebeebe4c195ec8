"""Tasks and counts under one filter, against a plain loop over everything."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi import engines
from botapi.api.task_queries import (
    COUNTED,
    Only,
    TaskFilter,
    count_tasks,
    find_bot_tasks,
    find_tasks,
)
from botapi.concurrency import Threads
from botapi.domain.names import TASK_EPOCH_MS, new_request_id, task_id
from botapi.domain.task import Task, TaskState
from botapi.store import codec
from botapi.store.codec import RunTime
from botapi.transactions.delete_task import delete_task
from tests.fakes.clock import FakeClock, FakeRng

EPOCH = TASK_EPOCH_MS
NOW = 1_772_604_367_089
BOTS = ("vm1", "vm2", "vm!1")
TAGS = ("a:1", "a:2", "b:x|y", "pool:ci")


def make_task(created_ms=NOW, number=0, state=TaskState.PENDING, **more):
    """A task as it is stored; equal times and numbers give equal ids."""
    name = task_id(new_request_id(created_ms, number))
    values = {
        "name": "t",
        "user": "",
        "pool": "ci",
        "priority": 100,
        "tags": (),
        "created_ms": created_ms,
        "modified_ms": created_ms,
    }
    return Task(task_id=name, state=state, **{**values, **more})


def put_tasks(store, *tasks):
    store.write_many((codec.TASK, codec.task_doc(task)) for task in tasks)
    store.write_many(
        (codec.RUN_TIME, codec.run_time_doc(task, column))
        for task in tasks
        for column, at_ms in times(task)
        if at_ms and task.started_ms and not task.deduped_from
    )


def times(task):
    return (RunTime.STARTED, task.started_ms), (RunTime.COMPLETED, task.completed_ms)


class Holder:
    """As much of a server as queries need."""

    def __init__(self, store):
        self.store = store
        self.concurrency = Threads()


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
def holder(request, settings):
    clock, rng = FakeClock(), FakeRng()
    if request.param == "memory":
        store = engines.memory_store(Threads(), clock, rng)
    else:
        store = engines.open_store(settings, Threads(), clock, rng)
    yield Holder(store)
    store.close()


def fits(task, asked):
    """What `TaskFilter` promises, in plain words."""
    ran_on = "" if task.deduped_from else task.bot_id
    is_completed = task.state is TaskState.COMPLETED
    outcome = {
        None: True,
        Only.SUCCESS: is_completed and not task.failure,
        Only.FAILURE: is_completed and task.failure,
        Only.DEDUPED: bool(task.deduped_from),
    }[asked.only]
    return (
        outcome
        and (not asked.states or task.state in asked.states)
        and all(wanted & set(task.tags) for wanted in asked.tags)
        and (not asked.bots or ran_on in asked.bots)
        and (not asked.users or task.user in asked.users)
        and (not asked.pools or task.pool in asked.pools)
        and asked.start_ms <= task.created_ms
        and (not asked.end_ms or task.created_ms < asked.end_ms)
    )


STAMPS = st.sampled_from([EPOCH, EPOCH + 1, NOW - 1, NOW, NOW + 1, NOW + 5])


@st.composite
def stored_tasks(draw):
    state = draw(st.sampled_from(list(TaskState)))
    is_deduped = state is TaskState.COMPLETED and draw(st.booleans())
    return make_task(
        created_ms=draw(STAMPS),
        number=draw(st.integers(0, 3)),
        state=state,
        failure=not is_deduped and draw(st.booleans()),
        deduped_from="76d00eba71beef11" if is_deduped else "",
        tags=tuple(draw(st.sets(st.sampled_from(TAGS)))),
        user=draw(st.sampled_from(["", "ann", "bob"])),
        pool=draw(st.sampled_from(["", "ci", "gpu"])),
        bot_id=draw(st.sampled_from(["", *BOTS])),
    )


def some_of(values, least=0):
    return st.frozensets(st.sampled_from(values), min_size=least, max_size=2)


FILTERS = st.builds(
    TaskFilter,
    states=some_of(list(TaskState)),
    only=st.none() | st.sampled_from(Only),
    tags=st.lists(some_of(TAGS, 1), max_size=2).map(tuple),
    bots=some_of(BOTS),
    users=some_of(["ann", "bob"]),
    pools=some_of(["ci", "gpu"]),
    start_ms=st.just(0) | STAMPS | st.just(EPOCH - 1),
    end_ms=st.just(0) | STAMPS | st.just(EPOCH - 1) | st.just(EPOCH + (1 << 43)),
)


def pages(holder, asked, limit):
    after, found = None, []
    while True:
        tasks, after = find_tasks(holder, asked, after=after, limit=limit)
        found.append(tasks)
        if after is None:
            return found


@pytest.mark.slow
@pytest.mark.spec("prpc:10.p7")
@given(tasks=st.lists(stored_tasks(), max_size=8), asked=FILTERS, limit=st.integers(1, 3))
def test_pages_and_count_are_those_of_a_plain_loop(tasks, asked, limit):
    store = engines.memory_store(Threads(), FakeClock(), FakeRng())
    holder = Holder(store)
    put_tasks(store, *tasks)
    kept = {task.task_id: task for task in tasks}.values()
    expected = sorted(
        (task for task in kept if fits(task, asked)), key=lambda t: codec.task_key(t.task_id)
    )
    found = pages(holder, asked, limit)
    assert [task for page in found for task in page] == expected
    assert all(len(page) == limit for page in found[:-1])
    assert count_tasks(holder, asked) == len(expected)
    created = [task.created_ms for task in expected]
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (TaskFilter(), "fedcba"),
        (TaskFilter(states=frozenset({TaskState.COMPLETED})), "ecb"),
        (TaskFilter(only=Only.SUCCESS), "eb"),
        (TaskFilter(only=Only.FAILURE), "c"),
        (TaskFilter(only=Only.DEDUPED), "e"),
        (TaskFilter(start_ms=NOW + 2, end_ms=NOW + 4), "dc"),
        (TaskFilter(start_ms=NOW + 4), "fe"),
        (TaskFilter(end_ms=NOW + 1), "a"),
        (TaskFilter(start_ms=NOW + 4, end_ms=NOW + 4), ""),
        (TaskFilter(states=frozenset({TaskState.COMPLETED}), end_ms=NOW + 2), "b"),
        (TaskFilter(states=frozenset({TaskState.COMPLETED}), start_ms=NOW + 2), "ec"),
        (TaskFilter(bots=frozenset({"vm1"})), "cb"),
        (TaskFilter(bots=frozenset({"vm1"}), only=Only.SUCCESS, end_ms=NOW + 2), "b"),
    ],
)
def test_each_filter_selects_on_every_store(holder, asked, expected):
    done = TaskState.COMPLETED
    put_tasks(
        holder.store,
        make_task(NOW, name="a"),
        make_task(NOW + 1, name="b", state=done, bot_id="vm1"),
        make_task(NOW + 2, name="c", state=done, bot_id="vm1", failure=True),
        make_task(NOW + 3, name="d", state=TaskState.KILLED),
        make_task(NOW + 4, name="e", state=done, bot_id="vm1", deduped_from="b"),
        make_task(NOW + 5, name="f", state=TaskState.TIMED_OUT, failure=True),
    )
    found = [task.name for page in pages(holder, asked, 2) for task in page]
    assert "".join(found) == expected
    assert count_tasks(holder, asked) == len(expected) <= COUNTED


@pytest.mark.spec("prpc:2.2.1.5")
def test_pages_of_tasks_repeat_and_skip_nothing_while_others_come_and_go(holder):
    tasks = [make_task(NOW + n, name=str(n)) for n in range(0, 20, 2)]
    put_tasks(holder.store, *tasks)
    first, after = find_tasks(holder, TaskFilter(), after=None, limit=4)
    assert [task.name for task in first] == ["18", "16", "14", "12"]
    put_tasks(holder.store, make_task(NOW + 30), make_task(NOW + 13), make_task(NOW + 9, name="9"))
    gone = (tasks[6], tasks[5], tasks[3])
    for task in gone:
        put_tasks(holder.store, replace(task, state=TaskState.EXPIRED))
        assert delete_task(holder.store, codec.task_key(task.task_id))
    second, after = find_tasks(holder, TaskFilter(), after=after, limit=4)
    assert [task.name for task in second] == ["9", "8", "4", "2"]
    third, after = find_tasks(holder, TaskFilter(), after=after, limit=4)
    assert ([task.name for task in third], after) == (["0"], None)


def run(created_ms, started_ms, completed_ms=0, bot_id="vm1", **more):
    state = TaskState.COMPLETED if completed_ms else TaskState.RUNNING
    return make_task(
        created_ms,
        state=state,
        started_ms=started_ms,
        completed_ms=completed_ms,
        bot_id=bot_id,
        **more,
    )


def bot_pages(holder, bot_id, column, limit, **bounds):
    """Every page, until one is not full: only a full one has a key to go on behind."""
    after, found = None, []
    while True:
        tasks, after = find_bot_tasks(holder, bot_id, column, after=after, limit=limit, **bounds)
        found.append([task.name for task in tasks])
        assert (after is not None) == (len(tasks) == limit)
        if after is None:
            return found


@pytest.mark.spec("prpc:2.6.1.3")
@pytest.mark.parametrize(
    ("column", "bounds", "expected"),
    [
        (RunTime.STARTED, {}, "dabc"),
        (RunTime.COMPLETED, {}, "abc"),
        (RunTime.STARTED, {"start_ms": NOW + 25, "end_ms": NOW + 41}, "ab"),
        (RunTime.STARTED, {"start_ms": NOW + 40}, "da"),
        (RunTime.STARTED, {"end_ms": NOW + 40}, "bc"),
        (RunTime.COMPLETED, {"start_ms": NOW + 24, "end_ms": NOW + 34}, "c"),
        (RunTime.COMPLETED, {"start_ms": NOW + 40, "end_ms": NOW + 40}, ""),
        (RunTime.COMPLETED, {"start_ms": NOW + 41, "end_ms": NOW + 40}, ""),
        (RunTime.STARTED, {"start_ms": -5, "end_ms": 10**14}, "dabc"),
    ],
)
def test_runs_of_a_bot_come_by_their_own_time_whatever_their_creation(
    holder, column, bounds, expected
):
    put_tasks(
        holder.store,
        run(NOW + 1, NOW + 40, NOW + 44, name="a"),
        run(NOW + 2, NOW + 30, NOW + 34, name="b"),
        run(NOW + 3, NOW + 20, NOW + 24, name="c"),
        run(NOW + 4, NOW + 50, name="d"),
        run(NOW + 5, NOW + 45, NOW + 46, name="other", bot_id="vm10"),
        run(NOW + 6, NOW + 45, NOW + 46, name="other", bot_id="vm"),
        run(NOW + 7, NOW + 40, NOW + 44, name="deduped", deduped_from="a"),
    )
    for limit in (1, 2, 3, 60):
        found = bot_pages(holder, "vm1", column, limit, **bounds)
        assert "".join(name for page in found for name in page) == expected
    assert bot_pages(holder, "nobody", column, 2, **bounds) == [[]]


def test_page_of_a_bots_runs_is_filled_past_those_that_were_deleted(holder):
    tasks = [run(NOW + n, NOW + 10 * n, NOW + 10 * n + 5, name=str(n)) for n in range(6)]
    put_tasks(holder.store, *tasks)
    for task in tasks[2:5]:
        assert delete_task(holder.store, codec.task_key(task.task_id))
    assert bot_pages(holder, "vm1", RunTime.STARTED, 3) == [["5", "1", "0"], []]
    lo, hi = codec.run_time_range("vm1", RunTime.COMPLETED)
    assert len(holder.store.scan_keys(codec.RUN_TIME, lo, hi, limit=9)) == 3


@pytest.mark.slow
@given(
    starts=st.lists(st.integers(1, 30), max_size=8),
    column=st.sampled_from(RunTime),
    bounds=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_runs_of_a_bot_are_those_of_a_plain_loop(starts, column, bounds):
    store = engines.memory_store(Threads(), FakeClock(), FakeRng())
    tasks = [
        run(NOW + n, start, start + n % 3 if n % 4 else 0, name=str(n))
        for n, start in enumerate(starts)
    ]
    put_tasks(store, *tasks)
    start_ms, end_ms = bounds
    expected = [
        (at_ms, task.name)
        for task in tasks
        for which, at_ms in times(task)
        if which is column and at_ms and start_ms <= at_ms and (not end_ms or at_ms < end_ms)
    ]
    found = bot_pages(Holder(store), "vm1", column, 2, start_ms=start_ms, end_ms=end_ms)
    names = [name for page in found for name in page]
    assert sorted(names) == sorted(name for _, name in expected)
    at_of = {name: at_ms for at_ms, name in expected}
    assert [at_of[name] for name in names] == sorted(at_of.values(), reverse=True)
