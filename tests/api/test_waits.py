"""Held reads: at once when there is an answer, promptly when one comes, never for ever."""

import threading
import time

import pytest

from botapi.api.waits import Waits
from botapi.concurrency import Threads

LIMIT_S = 10.0


@pytest.fixture
def running(admin, ready_bot):
    task_id = admin.submit("x")["task_id"]
    run_id = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    return task_id, run_id, ready_bot


class Held:
    """A call on a thread of its own."""

    def __init__(self, call):
        self.reply = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        self.reply = self._call()

    def answer(self):
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "still held"
        return self.reply


def until_held(parts, count=1):
    """Wait until calls are held for so many tasks."""
    end = time.monotonic() + LIMIT_S
    while parts.api.waits.waiting_count() < count:
        assert time.monotonic() < end, "nothing is held"
        threading.Event().wait(0.002)


def test_wait_on_a_final_task_returns_at_once(admin, parts, running):
    task_id, run_id, bot = running
    bot.finish(run_id)
    assert admin.get(f"/tasks/{task_id}?wait=20").json["state"] == "COMPLETED"
    body = {"task_ids": [task_id], "wait": 20}
    assert admin.post("/tasks/collect", body).json["items"][0]["state"] == "COMPLETED"
    assert admin.get(f"/tasks/{task_id}/output?wait=20").headers["X-Skep-Final"] == "1"
    assert parts.api.waits.waiting_count() == 0


def test_wait_ends_when_the_task_becomes_final(admin, parts, running):
    task_id, run_id, bot = running
    held = Held(lambda: admin.get(f"/tasks/{task_id}?wait=20"))
    until_held(parts)
    bot.task_update(run_id, b"noise")
    bot.finish(run_id, offset=5)
    assert held.answer().json["state"] == "COMPLETED"
    assert parts.api.waits.waiting_count() == 0


def test_wait_is_over_after_its_seconds(admin, running):
    task = admin.get(f"/tasks/{running[0]}?wait=0.01").json
    assert task["state"] == "RUNNING"


def test_create_with_wait_returns_the_final_task(admin, parts, ready_bot):
    held = Held(lambda: admin.post("/tasks?wait=20", {"command": ["x"]}))
    until_held(parts)
    ready_bot.work(ready_bot.update()["lease"])
    reply = held.answer()
    assert (reply.status_code, reply.json["state"]) == (201, "COMPLETED")


def test_output_wait_ends_with_new_bytes(admin, parts, running):
    task_id, run_id, bot = running
    held = Held(lambda: admin.get(f"/tasks/{task_id}/output?wait=20&offset=0"))
    until_held(parts)
    bot.task_update(run_id, b"news")
    assert held.answer().data == b"news"


def test_output_wait_ends_with_the_task(admin, parts, running):
    task_id, run_id, bot = running
    held = Held(lambda: admin.get(f"/tasks/{task_id}/output?wait=20"))
    until_held(parts)
    bot.finish(run_id)
    assert held.answer().headers["X-Skep-Final"] == "1"


def test_collect_waits_for_one_more_than_known(admin, parts, make_bot):
    bots = [make_bot(f"vm{n}").start() for n in range(2)]
    made = [admin.submit("x", dimensions={"id": [f"vm{n}"]})["task_id"] for n in range(2)]
    bots[0].work(bots[0].update()["lease"])
    held = Held(
        lambda: admin.post("/tasks/collect", {"task_ids": made, "wait": 20, "known_final": 1})
    )
    until_held(parts, 2)
    bots[1].work(bots[1].update()["lease"])
    states = [task["state"] for task in held.answer().json["items"]]
    assert states == ["COMPLETED", "COMPLETED"]


def test_known_final_never_asks_for_more_than_there_are(admin, running):
    task_id, run_id, bot = running
    bot.finish(run_id)
    body = {"task_ids": [task_id, task_id], "wait": 20, "known_final": 7}
    assert len(admin.post("/tasks/collect", body).json["items"]) == 2


def test_close_ends_every_wait_at_once(admin, parts, running):
    task_id = running[0]
    held = [
        Held(lambda: admin.get(f"/tasks/{task_id}?wait=20")),
        Held(lambda: admin.get(f"/tasks/{task_id}/output?wait=20")),
        Held(lambda: admin.post("/tasks/collect", {"task_ids": [task_id], "wait": 20})),
    ]
    until_held(parts)
    parts.api.close()
    assert [call.answer().status_code for call in held] == [200, 200, 200]
    assert admin.get(f"/tasks/{task_id}?wait=20").json["state"] == "RUNNING"


class Deaf:
    """A store that never tells anybody anything."""

    def subscribe(self, callback):
        self.callback = callback
        return lambda: None


def test_lost_hint_is_made_good_by_looking_again(clock, monkeypatch):
    monkeypatch.setattr("botapi.api.waits.LOOK_AGAIN_S", 0.005)
    looks = []

    def look(task_ids):
        looks.append(set(task_ids))
        return len(looks) == 4

    assert Waits(Deaf(), Threads(), clock).until(["a", "b"], 20.0, look)
    assert looks == [{"a", "b"}] * 4


def test_only_what_changed_is_looked_at(clock):
    store = Deaf()
    waits = Waits(store, Threads(), clock)
    looks = []

    def look(task_ids):
        looks.append(set(task_ids))
        topics = ["task!b", "pend!x", "task!z"] if len(looks) == 1 else ["*"]
        for topic in topics:
            store.callback(topic)
        return len(looks) == 3

    assert waits.until(["a", "b", "c"], 20.0, look)
    assert looks == [{"a", "b", "c"}, {"b"}, {"a", "b", "c"}]
    assert waits.waiting_count() == 0


@pytest.mark.parametrize("wait", ["21", "-1", "x", "1e1", "nan"])
def test_wrong_wait_is_400(admin, wait):
    assert admin.get(f"/tasks/76d045a8f1001990?wait={wait}").status_code == 400
