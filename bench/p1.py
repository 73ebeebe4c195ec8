"""P1, throughput: durable tasks that start `/bin/true`, against threads that only start it."""

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.fleet import Fleet

BOTS = 4
SUBMITTERS = 8
FLOOR_THREADS = 4
COMMAND = ["/bin/true"]
ROUND_LIMIT_S = 600.0
HOLD_S = 20
FINAL_WELL = ("COMPLETED", 0)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the system: rates and what a task cost."""

    per_s: float
    server_cpu_ms: float
    bot_cpu_ms: float


def floor_per_s(count: int) -> float:
    """Children a second when nothing but the start of children happens."""

    def work(share: int) -> None:
        for _ in range(share):
            subprocess.run(COMMAND, check=True)

    return count / _timed(work, count, FLOOR_THREADS)


def system_round(fleet: Fleet, count: int) -> Round:
    """Submit `count` tasks, one request each, and wait until every one ended well."""
    server, bots = fleet.server_cpu_s(), fleet.bot_cpu_s()
    seconds = _timed(lambda share: _submit(fleet, share), count, SUBMITTERS)
    return Round(
        per_s=count / seconds,
        server_cpu_ms=1000 * (fleet.server_cpu_s() - server) / count,
        bot_cpu_ms=1000 * (fleet.bot_cpu_s() - bots) / count,
    )


def _submit(fleet: Fleet, share: int) -> None:
    """One submitter: its tasks one after the other, then the wait for all of them."""
    connection = fleet.connect()
    try:
        ids = [
            connection.call("POST", "/api/v1/tasks", {"command": COMMAND})["task_id"]
            for _ in range(share)
        ]
        wanted = {"task_ids": ids, "wait": HOLD_S, "known_final": len(ids) - 1}
        end = time.monotonic() + ROUND_LIMIT_S
        while True:
            found = connection.call("POST", "/api/v1/tasks/collect", wanted)["items"]
            left = [task for task in found if not task["completed_at"]]
            if not left:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{len(left)} of {share} tasks are not final")
    finally:
        connection.close()
    wrong = [t for t in found if (t["state"], t["exit_code"]) != FINAL_WELL]
    if wrong:
        raise RuntimeError(f"{len(wrong)} tasks did not end well: {wrong[0]}")


def _timed(work: Callable[[int], None], count: int, threads: int) -> float:
    """Seconds until all threads have done their shares; the first exception rises here."""
    errors: list[BaseException] = []

    def guarded(share: int) -> None:
        try:
            work(share)
        except BaseException as error:  # noqa: BLE001 - rises in the caller
            errors.append(error)

    shares = [count // threads + (number < count % threads) for number in range(threads)]
    workers = [
        threading.Thread(target=guarded, args=(share,), daemon=True) for share in shares if share
    ]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    if errors:
        raise errors[0]
    return seconds
