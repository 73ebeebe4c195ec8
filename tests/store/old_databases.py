"""Small databases as earlier releases wrote them: `python -m tests.store.old_databases NAME`.

Each is made once, by the code of its time, and never again; every later code opens it.
"""

import gzip
import json
import sqlite3
import sys
import tempfile
from pathlib import Path

from botapi import app as composition
from botapi import engines
from botapi.auth.access import new_api_key
from botapi.concurrency import Threads
from botapi.domain.permissions import Role
from botapi.settings import Settings
from botapi.transactions.create_api_key import create_api_key
from botapi.transactions.create_task import create_task
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg, make_request, make_slice
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import SimBot, flask_post

FOLDER = Path(__file__).parent / "databases"
OUTPUT = b"hello from an earlier release\n"


def write(data: Path) -> dict[str, str]:
    """A fleet of one bot: a finished task with output, a running and a pending one."""
    clock, rng = FakeClock(), FakeRng()
    store = engines.open_store(Settings(data_dir=data), Threads(), clock, rng)
    parts = composition.build(
        Settings(data_dir=data, hold_min_s=5, hold_max_s=5), store, Threads(), clock, rng
    )
    push_config(store, bots_cfg(), parent="", author="test", now_ms=clock.now_ms())
    text, key = new_api_key("admin", Role.ADMIN, rng, now_ms=clock.now_ms())
    create_api_key(store, key)
    parts.concurrency.spawn(parts.offers.run)
    bot = SimBot(flask_post(composition.create_app(parts).test_client())).start()
    tasks = [make_request(number, clock.now_ms(), tags=("a:b",)) for number in (1, 2)]
    tasks.append(make_request(3, slices=[make_slice(), make_slice(expiration_s=60)]))
    for request in tasks:
        create_task(store, request, request_uuid=f"uuid-{request.task_id}")
    lease = bot.update(nonblocking=False)["lease"]
    bot.work(lease, OUTPUT, exit_code=3)
    done = {"id": lease["id"], "state": "COMPLETED", "result": {}}
    run_id = bot.claim(bot.update(nonblocking=False, lease=done)["lease"])["task_id"]
    bot.task_update(run_id, b"half", 0)
    bot.call("/event", event="bot_log", message="as it was", request_uuid="event-1")
    session = bot.session
    parts.close()
    ids = {name: r.task_id for name, r in zip(("done", "running", "pending"), tasks, strict=True)}
    return {**ids, "key": text, "session": session}


def main(name: str) -> None:
    """Make `databases/<name>.sqlite.gz` and what is in it, `<name>.json`."""
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"{name}.sqlite.gz"
    if target.exists():
        sys.exit(f"{target.name} is there already: an old database is never made again")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        known = write(data)
        connection = sqlite3.connect(data / "skep.db")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        target.write_bytes(gzip.compress((data / "skep.db").read_bytes(), mtime=0))
    (FOLDER / f"{name}.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
