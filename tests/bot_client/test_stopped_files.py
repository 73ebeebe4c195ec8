"""A task that is stopped while its files are moved: told at once, and truthfully."""

import pytest

from bot_client import poster
from bot_client.clock import Clock
from bot_client.manifest import parse
from bot_client.storage import Room, Storage
from bot_client.task import TaskRun
from bot_client.workspace import Workspace
from tests.bot_client.test_task_files import GOOD


class Transport:
    base_url = "http://127.0.0.1:9"


class Api:
    """A server that says stop, and keeps what it is told."""

    transport = Transport()
    session_token = "t"
    contact_s = 300.0

    def __init__(self, clock):
        self.last_contact_at = clock.now()
        self.updates = []
        self.errors = []

    def task_update(self, _task_id, fields, _output, *_more):
        self.updates.append(fields)
        return {"ok": True, "must_stop": True, "stop_reason": "being killed"}

    def task_error(self, _task_id, message, client_error=None):
        self.errors.append((message, client_error))


class Link:
    """A runner that must not be asked for anything."""

    def ensure(self):
        pass

    def __getattr__(self, name):
        raise AssertionError(f"the runner was asked to {name}")


class Signals:
    count = 0
    first_at = None
    leash_lost = False

    def stop_now(self):
        return False


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(poster, "HEARTBEAT_PERIOD_S", 0.05)
    clock = Clock()
    storage = Storage(str(tmp_path), clock)
    storage.load()
    api = Api(clock)
    task = TaskRun(api, clock, Link(), Signals(), storage, Room(0, 1 << 40, 1 << 40))
    return task, api, storage


def test_cancel_while_inputs_are_fetched_is_told_as_canceled(run, monkeypatch, tmp_path):
    task, api, storage = run
    prepare = Workspace.prepare

    def slowly(self):
        prepare(self)
        while True:  # until it is told to stop
            self._stop.check()
            self._stop.wait(0.01)

    monkeypatch.setattr(Workspace, "prepare", slowly)
    raw = {**GOOD, "caches": [{"name": "git", "path": "c", "hint": "-1"}]}
    verdict = task.run(parse(raw), None)
    assert api.updates[-1] == {"canceled": True, "cost_usd": 0.0}
    assert (api.errors, verdict.internal) == ([], None)
    assert storage.named.names() == ["git"]
    assert not (tmp_path / "wi").exists()


def test_input_that_is_missing_is_told_with_its_digest(run, monkeypatch):
    task, api, _ = run
    from bot_client.cas import INSTANCE, digest_of
    from bot_client.workspace import MissingInputs

    gone = digest_of(b"gone")

    def prepare(_self):
        raise MissingInputs([gone])

    monkeypatch.setattr(Workspace, "prepare", prepare)
    reference = {
        "cas_instance": INSTANCE,
        "digest": {"hash": gone.hash, "size_bytes": gone.size},
    }
    task.run(parse({**GOOD, "cas_input_root": reference}), None)
    ((message, client_error),) = api.errors
    assert str(gone) in message
    assert client_error == {"missing_cas": [{"instance": INSTANCE, "digest": str(gone)}]}
