"""Tasks in every state, made through the public API and the bots' own calls."""

from dataclasses import replace

from google.protobuf import json_format

from botapi.api.prpc.call import Call
from botapi.api.prpc.tasks import METHODS
from botapi.domain.permissions import Caller, Grant, Role
from botapi.store import codec
from tests.fakes.prpc_client import messages

NO_MISSING = {"missing_cas": [], "missing_cipd": []}


def one_slice(pool="default", expiration=3600, wait=False, **properties):
    """A slice of the message, in JSON."""
    values = {
        "command": ["/bin/true"],
        "dimensions": [{"key": "pool", "value": pool}],
        "executionTimeoutSecs": 600,
        "gracePeriodSecs": 30,
    }
    slice_ = {"properties": values | properties, "expirationSecs": expiration}
    return slice_ | ({"waitForCapacity": True} if wait else {})


def new_task(*slices, **more):
    """A `NewTaskRequest`, in JSON."""
    return {
        "name": "build",
        "priority": 100,
        "realm": "proj:ci",
        "taskSlices": list(slices) or [one_slice()],
    } | more


def direct(parts, caller, method, body=None):
    """The reply message of a method, asked past the transport by whomever a test needs."""
    request, _ = messages("Tasks", method)
    message = json_format.ParseDict(body or {}, request())
    return METHODS[method](Call(parts.api, caller, "http://localhost"), message)


def caller(role=None, *pools, name="bob"):
    """Somebody with this role in these pools, in all of them without a name."""
    grants = frozenset(Grant(role, pool) for pool in pools or ("",)) if role else frozenset()
    return Caller(f"user:{name}", grants)


ADMIN = caller(Role.ADMIN, name="root")


class Tasks:
    """Tasks by the calls that make and end them."""

    def __init__(self, swarming, parts, make_bot, clock):
        self.swarming = swarming
        self.parts = parts
        self.make_bot = make_bot
        self.bot = None
        self.clock = clock

    def made(self, *slices, **more):
        """Pending; its task id."""
        answer = self.swarming.json("NewTask", new_task(*slices, **more))
        assert not answer.code, answer.text
        return answer.reply["taskId"]

    def claimed(self, *slices, **more):
        """Running on `vm1`; its run id and the bot."""
        task_id = self.made(*slices, **more)
        bot = self.bot = self.bot or self.make_bot("vm1").start()
        claimed = bot.claim(bot.update()["lease"])
        assert claimed["cmd"] == "run", claimed
        assert claimed["task_id"][:-1] == task_id[:-1]
        return claimed["task_id"], bot

    def finished(self, *slices, exit_code=0, output=b"", end=None, **more):
        """Ended by its bot; its task id."""
        run_id, bot = self.claimed(*slices, **more)
        self.clock.advance(1)
        bot.finish(run_id, output, exit_code=exit_code, **(end or {}))
        assert bot.status == 200, bot.text
        return run_id[:-1] + "0"

    def failed(self, client_error=None, **more):
        """Ended by its bot's own trouble; its task id."""
        run_id, bot = self.claimed(**more)
        self.clock.advance(1)
        error = client_error or NO_MISSING
        bot.call(f"/task_error/{run_id}", task_id=run_id, message="broke", client_error=error)
        assert bot.status == 200, bot.text
        return run_id[:-1] + "0"

    def killed(self, **more):
        """Ended by its bot after somebody wanted it to stop; its task id."""
        run_id, bot = self.claimed(**more)
        self.clock.advance(1)
        self.swarming.json("CancelTask", {"taskId": run_id, "killRunning": True})
        self.clock.advance(1)
        bot.finish(run_id, exit_code=-9)
        return run_id[:-1] + "0"

    def canceled(self, **more):
        """Canceled before any bot took it; its task id."""
        task_id = self.made(**more)
        self.clock.advance(1)
        assert self.swarming.json("CancelTask", {"taskId": task_id}).reply == {"canceled": True}
        return task_id

    def expired(self, **more):
        """Not taken by any bot in time; its task id."""
        task_id = self.made(one_slice(expiration=30, wait=True), **more)
        self.clock.advance(31)
        self.parts.sweeps.round()
        return task_id

    def result(self, task_id, **more):
        """How it stands, asked in both encodings."""
        answer = self.swarming("GetResult", {"taskId": task_id} | more)
        assert not answer.code, answer.text
        return answer.reply

    def stored(self, task_id):
        """Its record."""
        (doc,) = self.parts.store.get(codec.TASK, codec.task_key(task_id))
        return codec.read_task(doc)

    def change(self, task_id, **changes):
        """Write something into its record that no call does (yet)."""
        key = codec.task_key(task_id)

        def work(txn):
            (doc,) = txn.get(codec.TASK, key)
            txn.put(codec.TASK, codec.task_doc(replace(codec.read_task(doc), **changes), doc))

        self.parts.store.transact(work, label="test")
