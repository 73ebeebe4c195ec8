"""Data outlives code: every database that an earlier release wrote is opened and goes on."""

import gzip
import json

import pytest

from botapi import app as composition
from botapi import engines
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.store import codec
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import SimBot, flask_post
from tests.store.old_databases import FOLDER, OUTPUT

NAMES = sorted(path.name.removesuffix(".sqlite.gz") for path in FOLDER.glob("*.sqlite.gz"))


@pytest.fixture(params=NAMES)
def old(request, tmp_path):
    """The parts of a server over an old database, its client, and what is known of it."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    packed = (FOLDER / f"{request.param}.sqlite.gz").read_bytes()
    (data / "skep.db").write_bytes(gzip.decompress(packed))
    clock, rng = FakeClock(), FakeRng()
    settings = Settings(data_dir=data, hold_min_s=5, hold_max_s=5)
    store = engines.open_store(settings, Threads(), clock, rng)
    parts = composition.build(settings, store, Threads(), clock, rng)
    parts.concurrency.spawn(parts.offers.run)
    known = json.loads((FOLDER / f"{request.param}.json").read_text())
    yield parts, composition.create_app(parts).test_client(), known
    parts.close()


def test_there_is_an_old_database():
    assert NAMES


@pytest.mark.slow
def test_old_database_shows_what_was_in_it(old):
    _parts, client, known = old
    headers = {"Authorization": f"Bearer {known['key']}"}
    states = {
        name: client.get(f"/api/v1/tasks/{known[name]}", headers=headers).json["state"]
        for name in ("done", "running", "pending")
    }
    assert states == {"done": "COMPLETED", "running": "RUNNING", "pending": "PENDING"}
    output = client.get(f"/api/v1/tasks/{known['done']}/output", headers=headers)
    assert output.data == OUTPUT
    (bot,) = client.get("/api/v1/bots", headers=headers).json["items"]
    assert (bot["bot_id"], bot["status"]) == ("vm1", "busy")
    events = client.get("/api/v1/bots/vm1/events", headers=headers).json["items"]
    assert "as it was" in [event["message"] for event in events]


@pytest.mark.slow
def test_old_database_goes_on_where_it_was(old):
    parts, client, known = old
    bot = SimBot(flask_post(client))
    bot.session = known["session"]
    bot.seq = 100
    run_id = known["running"][:-1] + "1"
    assert bot.finish(run_id, b"half and half", 0)["ok"] is True
    lease = bot.update(nonblocking=False)["lease"]
    assert lease["payload"]["task_id"] == known["pending"]
    bot.work(lease)
    for name in ("running", "pending"):
        (doc,) = parts.store.get(codec.TASK, codec.task_key(known[name]))
        assert codec.read_task(doc).state == "COMPLETED"
