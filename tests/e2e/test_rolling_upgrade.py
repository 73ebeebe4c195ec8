"""Two releases on one store, under load: replaced one by one, then the schema is raised.

The next release is a copy of this one that knows one schema number more and keeps one field
more in every task.
"""

import shutil
import subprocess
from contextlib import closing

import pytest
from psycopg import sql

from botapi.store import codec
from botapi.store.documents import unpack_body
from botapi.store.protocol import SCHEMA_NUMBER
from tests.e2e.balancer import Balancer
from tests.e2e.fleet import REPOSITORY, SKEP, Api, Fleet, clean_environ, wait_until
from tests.e2e.submitter import Submitter

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("e2e-rolling"),
]

NEXT = SCHEMA_NUMBER + 1
FIELD = "of_the_next_release"
TURNED_AWAY_S = 90.0
"""A front end that has just started may tell a bot to come back within a minute."""
MORE = 4
"""Tasks that must come through in each step of the upgrade."""


def next_release(folder):
    """The sources of the release after this one."""
    made = folder / "next"
    shutil.copytree(
        REPOSITORY / "botapi", made / "botapi", ignore=shutil.ignore_patterns("__pycache__")
    )
    patch(made / "botapi/store/protocol.py", "SCHEMA_NUMBER = ", f"SCHEMA_NUMBER = {NEXT}  #")
    task = made / "botapi/domain/task.py"
    lines = task.read_text().splitlines()
    start = lines.index("class Task:")
    end = next(n for n in range(start + 1, len(lines)) if lines[n].startswith("    @property"))
    lines.insert(end, f'    {FIELD}: str = "kept"')
    task.write_text("\n".join(lines) + "\n")
    return made


def patch(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture
def fleet(own_postgres, tmp_path):
    """Two front ends of this release and a bot, behind a balancer."""
    fleet = Fleet(tmp_path, SKEP_STORE=own_postgres.new_database())
    fleet.postgres = own_postgres
    try:
        fleet.start()
        fleet.add_server().start()
        with closing(Balancer(server.port for server in fleet.servers)) as balancer:
            fleet.balancer = balancer
            fleet.api = Api(balancer.url, fleet.api.key)
            fleet.add_bots("bot1", server=balancer)
            yield fleet
            fleet.end()
    finally:
        fleet.end()


def upgrade(fleet, sources):
    """`skep store upgrade` of a release."""
    environ = clean_environ(SKEP_STORE=fleet.server.environ["SKEP_STORE"])
    return subprocess.run(
        [*SKEP, "store", "upgrade"],
        cwd=sources,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def replace_by(fleet, server, sources):
    """What an operator does with one front end: out of the balancer, stop, start, in again."""
    fleet.balancer.ports = [other.port for other in fleet.servers if other is not server]
    server.terminate(30)
    server.sources = sources
    server.start()
    fleet.balancer.ports = [each.port for each in fleet.servers]


def more_come_through(submitter):
    wanted = submitter.ended() + MORE
    wait_until("more tasks come through", lambda: submitter.ended() >= wanted, TURNED_AWAY_S)


def stored(fleet, task_id):
    """The body of a task as it is in the database: this release may not open it any more."""
    key = sql.Literal(codec.task_key(task_id).encode())
    statement = sql.SQL("SELECT body FROM d_task WHERE k = {}").format(key)
    ((body,),) = fleet.postgres.execute(statement, fleet.server.environ["SKEP_STORE"])
    return unpack_body(body)


def test_fleet_is_upgraded_one_front_end_after_the_other_under_load(fleet, tmp_path):
    bot = fleet.bots["bot1"]
    before = bot.pids(), len(fleet.api.events("bot1", "bot_connected"))
    first, second = fleet.servers
    newer = next_release(tmp_path)
    submitter = Submitter(fleet)
    more_come_through(submitter)

    replace_by(fleet, first, newer)
    more_come_through(submitter)
    mixed = Api(first.url, fleet.api.key).submit(
        "true", dimensions={"pool": ["sim"]}, wait_for_capacity=True
    )["task_id"]
    written = stored(fleet, mixed)
    assert (written[FIELD], written["v"]) == ("kept", SCHEMA_NUMBER)
    Api(second.url, fleet.api.key).post(f"/tasks/{mixed}/cancel", {"reason": "by the older one"})
    rewritten = stored(fleet, mixed)
    assert (rewritten[FIELD], rewritten["state"]) == ("kept", "CANCELED")

    refused = upgrade(fleet, newer)
    assert refused.returncode == 9
    assert f"do not know schema {NEXT}" in refused.stderr
    assert f"schema {SCHEMA_NUMBER})" in refused.stderr

    replace_by(fleet, second, newer)
    more_come_through(submitter)
    raised = upgrade(fleet, newer)
    assert raised.returncode == 0, raised.stderr
    assert f"schema {NEXT} is in force" in raised.stdout
    newest = lambda: list(submitter.tasks.values())[-1]  # noqa: E731
    wait_until("the number is written", lambda: stored(fleet, newest())["v"] == NEXT)
    more_come_through(submitter)
    submitter.check()
    assert (bot.pids(), len(fleet.api.events("bot1", "bot_connected"))) == before

    older = fleet.add_server()
    older.begin()
    assert older.process.wait(60) == 3
    assert f"needs schema {NEXT}" in older.text()
    assert "Traceback" not in older.text()
