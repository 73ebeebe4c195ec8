"""Several processes on one database: exactly once, nothing lost, nothing half.

For engines that declare `shared`. `address` is a new database for each test, `children` are
processes that stay for a class, `child` starts one of its own.
"""

import json
import os
import queue
import random
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from botapi.store.protocol import AlreadyExists
from tests.store.conformance import schedules
from tests.store.conformance.support import Effort, counted, doc, opened, put

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 60.0


def start(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.child", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


class Children:
    """Four processes that carry out orders; 0 and 1 can meet. Started when first asked for."""

    def __init__(self, stack):
        self._stack = stack
        self._started = []

    def __getitem__(self, number):
        while len(self._started) <= number:
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for half in pair:
                process = start("serve", half.fileno(), pass_fds=[half.fileno()])
                half.close()
                self._stack.enter_context(process)
                self._stack.callback(process.kill)
                self._started.append(process)
        return self._started[number]

    def order(self, number, address, role, *arguments):
        """Begin a role in a child; what it says is read by `answer`."""
        print(json.dumps([address, role, *arguments]), file=self[number].stdin, flush=True)

    def answer(self, number):
        """The lines of the last order, without the last."""
        lines = []
        for line in self[number].stdout:
            if line == "end\n":
                return lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"child {number} ended after {lines[-3:]}")

    def all(self, address, role, *arguments):
        """The same role in all four, whose first argument is a name; their lines."""
        for number in range(4):
            self.order(number, address, role, "abcd"[number], *arguments)
        return [self.answer(number) for number in range(4)]


def check_pairs(store, acknowledged):
    """Every acknowledged key is there at once, and each pair is whole with its tag.

    A commit that a killed writer sent may land between two of the reads, so they are made again
    until they agree; half a pair never does.
    """
    give_up = time.monotonic() + LIMIT_S
    while True:
        left = store.scan_keys("left", "0", "z", limit=999_999)
        assert acknowledged - set(left) == set()
        right = store.scan_keys("right", "0", "z", limit=999_999)
        tagged = [each.key for each in every(store, "left", frozenset({"tagged"}))]
        if left == right == tagged or time.monotonic() > give_up:
            break
    assert (right, tagged) == (left, left)


def every(store, kind, tags):
    after = None
    while True:
        page = store.find(kind, [tags], after=after, limit=1_000)
        yield from page.docs
        after = page.after
        if after is None:
            return


class Processes(Effort):
    @pytest.fixture(scope="class")
    @classmethod
    def children(cls):
        with ExitStack() as stack:
            yield Children(stack)

    @pytest.fixture
    def child(self, address):
        """Starts a child in a role; whoever still runs at the end is killed."""
        with ExitStack() as stack:

            def started(role, *arguments):
                process = start(address, role, *arguments)
                stack.enter_context(process)
                stack.callback(process.kill)
                return process

            yield started

    def test_engine_declares_that_it_is_shared(self, address):
        with opened(address) as store:
            assert store.capabilities().shared

    @pytest.mark.parametrize("name", schedules.CASES)
    def test_outcome_is_that_of_an_order_when_two_processes_meet(self, address, children, name):
        case = schedules.CASES[name]
        with opened(address) as store:
            for number, schedule in enumerate(schedules.schedules(case)):
                prefix = f"{number}!"
                schedules.prepare(store, case, prefix)
                for who in (0, 1):
                    order = ("schedule", name, number, who, prefix, self.patience_s)
                    children.order(who, address, *order)
                said = [json.loads(children.answer(who)[0]) for who in (0, 1)]
                results = [
                    AlreadyExists("", "") if "exists" in each else each["result"] for each in said
                ]
                schedules.judge(store, name, schedule, prefix, results)

    def test_take_claims_each_document_once_when_four_processes_compete(self, address, children):
        expected = {f"q!{n:05}" for n in range(self.crowd)}
        with opened(address) as store:
            store.write_many(("pend", doc(key)) for key in expected)
            said = children.all(address, "claim", 4)
            claimed = [key for lines in said for line in lines for key in line.split()]
            assert len(claimed) == self.crowd
            assert set(claimed) == expected
            assert store.scan_keys("pend", "q", "r", limit=9) == []
            tasks = store.scan("task", "q", "r", limit=self.crowd + 1)
            assert {each.key: each.body["by"] for each in tasks} == {
                key: name
                for name, lines in zip("abcd", said, strict=True)
                for line in lines
                for key in line.split()
            }

    def test_counter_is_exact_when_four_processes_increment(self, address, children):
        for number in range(4):
            children.order(number, address, "count", self.rounds, 2)
        assert [children.answer(number) for number in range(4)] == [[]] * 4
        with opened(address) as store:
            assert counted(store) == 4 * 2 * self.rounds

    def test_insert_has_one_winner_when_four_processes_insert_the_same(self, address, children):
        said = children.all(address, "insert", self.rounds)
        won = [(key, name) for name, keys in zip("abcd", said, strict=True) for key in keys]
        with opened(address) as store:
            stored = store.scan("thing", "k", "l", limit=self.rounds + 1)
        assert sorted(won) == [(each.key, each.body["by"]) for each in stored]
        assert len(won) == self.rounds

    @pytest.mark.slow
    def test_acknowledged_writes_survive_when_writers_are_killed(self, address, child):
        seed = random.randrange(2**32)
        print("seed", seed)  # noqa: T201 - shown when the test fails
        dice = random.Random(seed)
        acknowledged = set()
        with opened(address) as store:
            for turn in range(2):
                writers = [child("write", f"{turn}{name}", 4) for name in "ab"]
                for writer in writers:
                    for _ in range(dice.randrange(self.rounds // 5, self.rounds * 2)):
                        acknowledged.add(writer.stdout.readline().strip())
                    writer.kill()
                for writer in writers:
                    lines = [line for line in writer.stdout if line.endswith("\n")]
                    acknowledged.update(line.strip() for line in lines)
                    writer.wait(LIMIT_S)
                put(store, "thing", doc(f"the survivor writes on {turn}"))
                check_pairs(store, acknowledged)
        with opened(address) as store:
            check_pairs(store, acknowledged)

    def test_notification_reaches_another_process_when_the_engine_pushes(self, address, child):
        heard = queue.SimpleQueue()
        with opened(address) as store:
            if not store.capabilities().push_wakeup:
                with opened(address) as other:
                    put(other, "thing", doc("k"))
                assert store.get("thing", "k") == [doc("k")]  # whoever looks again sees it
                return
            echo = child("echo", "ping", "pong")
            assert echo.stdout.readline() == "ready\n"
            store.subscribe(heard.put)
            took_ms = []
            for _ in range(self.rounds):
                started = time.perf_counter()
                store.transact(lambda txn: txn.notify("ping"), label="test")
                while heard.get(timeout=LIMIT_S) != "pong":
                    pass
                took_ms.append((time.perf_counter() - started) * 500)
            middle = sorted(took_ms)[len(took_ms) // 2]
            print(f"one way, with its commit: p50 {middle:.2f} ms")  # noqa: T201 - a measurement
            assert middle < 250
            echo.communicate("", timeout=LIMIT_S)
