"""People as generators: they create, repeat, cancel, kill, terminate, delete, steer and read."""

from dataclasses import replace
from functools import partial

from botapi.api import bots, ending
from botapi.api.new_tasks import make_task
from botapi.api.task_queries import TaskFilter
from botapi.domain.new_task import Form, NewTask
from botapi.domain.permissions import Caller, Grant, Role
from botapi.domain.task import Slice
from botapi.store import codec
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.steer_bot import Steer
from tests.sim.net import Request, Sleep
from tests.sim.server import CANARY, FLAKY, GRACE_S, TOLERANCE_S, Answer

LONG_S = 170
FORM = Form(min_timeout_s=1, may_be_unlimited=True)
"""What `/api/v1` allows."""


def random_task(sim, name):
    """What somebody asks for: mostly small, now and then long, split, or impossible."""
    random = sim.world.random
    pools = ["one" if bot[0] == "a" else "two" for bot in sim.plan.bots]
    pool = random.choice((*pools, *pools, *pools, "one", "two"))
    count = random.choice((1, 1, 1, 2, 3))
    slices = []
    while len(slices) < count:
        made = _slice(random, pool)
        if made not in slices:
            slices.append(made)
    return NewTask(
        name=name,
        slices=tuple(slices),
        priority=random.choice((20, 100, 100, 100, 200)),
        tags=(f"batch:{random.choice('xy')}",),
        bot_ping_tolerance_s=TOLERANCE_S,
        request_uuid=name,
        secret_bytes=CANARY if any(slice_.has_secret_bytes for slice_ in slices) else b"",
        max_retries=random.choice((0, 1)),
    )


def _slice(random, pool):
    dims = {"pool": (pool,)}
    roll = random.random()
    if roll < 0.15:
        dims["size"] = ("big",)
    elif roll < 0.3:
        dims["os"] = ("Linux|Mac",)
    elif roll < 0.35:
        dims["size"] = ("huge",)  # nobody has that
    seconds = random.choice((0.0, 0.3, 1.0, 2.0, 4.0, 9.0, 25.0))
    size = random.choice((0, 10, 300, 900, 2_000, 3_500))
    exit_code = random.choice((0, 0, 0, 1))
    if random.random() < 0.25:
        return _flaky(pool)
    return Slice(
        command=("work", str(seconds), str(size), str(exit_code)),
        dimensions=dims,
        expiration_s=random.choice((30, 40, 60)),
        hard_timeout_s=random.choice((0, 30, 30, 5)),
        grace_period_s=GRACE_S,
        wait_for_capacity=random.random() < 0.3,
        has_secret_bytes=random.random() < 0.1,
    )


def _flaky(pool):
    """Idempotent, and the same for everybody; it fails now and then."""
    return Slice(
        command=("work", "1.5", "10", FLAKY),
        dimensions={"pool": (pool,)},
        expiration_s=30,
        hard_timeout_s=30,
        grace_period_s=GRACE_S,
        idempotent=True,
    )


def caller(user):
    return Caller(f"user:{user}", frozenset({Grant(Role.ADMIN)}))


def create(wanted, user, process):
    """What `POST /tasks` does, inside a server process."""
    made = make_task(process.parts.api, caller(user), wanted, form=FORM)
    return Answer(200, {"task_id": made.task.task_id, "is_new": made.is_new})


def cancel(task, user, kill_running, process):
    """What `POST /tasks/<id>/cancel` does."""
    actor = Actor(f"user:{user}", "", process.parts.api.new_id())
    done = cancel_task(
        process.store, task, actor, kill_running=kill_running, now_ms=process.clock.now_ms()
    )
    if done is None:
        return Answer(404, {})
    return Answer(200, {"canceled": done.canceled, "was_running": done.was_running})


def cancel_many(user, tag, kill_running, process):
    """What `POST /tasks/cancel` does."""
    asked = TaskFilter(tags=(frozenset({tag}),))
    queued = ending.cancel_many(
        process.parts.api,
        caller(user),
        asked,
        limit=100,
        after=None,
        kill_running=kill_running,
        reason="",
    )
    return Answer(200, {"matched": queued.matched})


def terminate(user, bot_id, process):
    """What `POST /bots/<id>/terminate` does."""
    made = ending.terminate(process.parts.api, caller(user), bot_id, "enough")
    return Answer(200, {"task_id": made.task.task_id, "is_new": made.is_new})


def delete(user, bot_id, process):
    """What `DELETE /bots/<id>` does."""
    ending.delete(process.parts.api, caller(user), bot_id, "gone")
    return Answer(200, {})


def steer(user, bot_id, verb, for_s, process):
    """What `POST /bots/<id>/pause` and its like do."""
    body = bots.SteerBody(reason="looks at it", for_s=for_s)
    bots.steer(process.parts.api, bot_id, verb, f"user:{user}", body, "http://skep")
    return Answer(200, {})


def read(task, process):
    """State and output of a task, as a reader puts them together."""
    (doc,) = process.store.get(codec.TASK, codec.task_key(task))
    if doc is None:
        return Answer(404, {})
    found = process.parts.api.output(task, 0, 1 << 20)
    return Answer(200, {"state": doc.body["state"], "output": bytes(found.data)})


class Person:
    """One submitter."""

    def __init__(self, sim, name, tasks):
        self.sim = sim
        self.random = sim.world.random
        self.name = name
        self.calls = 0
        self.tasks = tasks
        self.made = []

    def life(self):
        for number in range(self.tasks):
            yield Sleep(self.random.expovariate(1 / self.sim.plan.between_tasks_s))
            wanted = random_task(self.sim, f"{self.name}-{number}")
            if self.made and self.random.random() < self.sim.plan.child:
                wanted = self._child(wanted)
            yield from self._task(wanted)
            if self.random.random() < self.sim.plan.steer:
                yield from self._steer()
        yield from self._end_some()

    def _child(self, wanted):
        """Of a task made before; half of them wait for long and only their parent ends them."""
        if self.random.random() < 0.5:
            dims = {"pool": wanted.slices[0].dimensions["pool"], "size": ("huge",)}
            only = replace(
                wanted.slices[0],
                dimensions=dims,
                expiration_s=LONG_S,
                wait_for_capacity=True,
                idempotent=False,
            )
            wanted = replace(wanted, slices=(only,))
        return replace(wanted, parent_task_id=self.random.choice(self.made)[:-1] + "1")

    def _task(self, wanted):
        task = yield from self._create(wanted)
        if task is None:
            return
        self.made.append(task)
        if self.random.random() < self.sim.plan.cancel:
            yield Sleep(self.random.choice((0.0, 0.1, 1.0, 6.0)) * self.random.random())
            yield from self._cancel(task, kill_running=self.random.random() < 0.6)
        if self.random.random() < 0.3:
            yield from self._call("read", partial(read, task), (task,), 1)
        if self.random.random() < 0.1:
            yield from self._create(wanted)

    def _steer(self):
        """Keep a bot from work for a while, let it work again, have it start over."""
        bot_id, verb = self.random.choice(self.sim.plan.bots), self.random.choice(list(Steer))
        for_s = self.random.randint(1, 20) if verb in {Steer.PAUSE, Steer.QUARANTINE} else 0
        act = partial(steer, self.name, bot_id, verb, for_s)
        yield from self._call("steer", act, (bot_id, str(verb), for_s), 3)

    def _end_some(self):
        """Cancel many, and send a bot away."""
        plan = self.sim.plan
        yield Sleep(self.random.uniform(0.0, 10.0))
        if self.random.random() < plan.cancel_many:
            tag, kill = f"batch:{self.random.choice('xy')}", self.random.random() < 0.5
            act = partial(cancel_many, self.name, tag, kill)
            yield from self._call("cancel_many", act, (tag, kill), 3)
        bot_id = self.random.choice(plan.bots)
        if self.random.random() < plan.terminate:
            act = partial(terminate, self.name, bot_id)
            yield from self._call("terminate", act, (bot_id,), 3)
        elif self.random.random() < plan.delete:
            yield from self._call("delete", partial(delete, self.name, bot_id), (bot_id,), 1)

    def _call(self, what, act, note, tries):
        """With repeats after losses; None when nobody ever answered."""
        history = self.sim.history
        for _ in range(tries):
            self.calls += 1
            history.add(self.name, "invoke", what, note)
            answer = yield Request(self.name, self.calls, what, {}, act, 8.0)
            kind = {0: "info", 503: "info", 200: "ok"}.get(answer.status, "fail")
            history.add(self.name, kind, what, (*note, answer.body))
            if kind != "info":
                return answer
            yield Sleep(self.random.uniform(0.1, 2.0))
        return None

    def _create(self, wanted):
        act = partial(create, wanted, self.name)
        answer = yield from self._call("create", act, (wanted.request_uuid,), 5)
        return answer.body["task_id"] if answer is not None and answer.status == 200 else None

    def _cancel(self, task, *, kill_running):
        act = partial(cancel, task, self.name, kill_running)
        yield from self._call("cancel", act, (task, kill_running), 4)
