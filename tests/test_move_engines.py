"""A whole life moved from engine to engine and back: the same in every one of them."""

import itertools
import json

import pytest

from botapi import app as composition
from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.scheduler.store_check import check_store
from botapi.settings import Settings
from botapi.store import copying
from botapi.store.protocol import Doc, StoreError
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import SimBot, flask_post
from tests.store import old_databases
from tests.test_move import everything, put, run

pytestmark = pytest.mark.slow


def opened(address):
    return engines.open_address(address, Settings(), Threads(), SystemClock(), SystemRng())


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """Tasks, bots and what else a document may be, on SQLite; what is known of it."""
    folder = tmp_path_factory.mktemp("life") / "data"
    known = old_databases.write(folder)
    found = opened(f"sqlite:{folder}")
    put(
        found,
        "odd",
        *(Doc(f"{number:04d}%21ü!é", {"n": number}, frozenset({"a:b"})) for number in range(250)),
        Doc(
            "~",
            {"b": bytes(range(256)), "deep": {"x": [1, 2.5, None, True, -(2**40)]}},
            expire_at=7,
        ),
        Doc("big", {"b": b"x" * 800_000}),
    )
    found.close()
    return f"sqlite:{folder}", known


def moved(source, target):
    """The tallies that the command printed."""
    return json.loads(run("copy", source, target, "-o", "json").stdout)["kinds"]


def test_life_goes_round_all_engines_and_comes_back_the_same(life, postgres, emulator, tmp_path):
    source, _known = life
    stations = [
        source,
        postgres.new_database(),
        emulator.new_address(),
        f"sqlite:{tmp_path / 'back'}",
    ]
    told = [moved(one, two) for one, two in itertools.pairwise(stations)]
    assert told[0] == told[1] == told[2]
    assert told[0]["odd"]["documents"] == 252
    first, *others = [opened(address) for address in stations]
    for other in others:
        assert {kind: copying.tally(other, kind) for kind in told[0]} == {
            kind: copying.tally(first, kind) for kind in told[0]
        }
    assert everything(others[-1]) == everything(first)
    tagged = others[-1].find("odd", [frozenset({"a:b"})], after=None, limit=300).docs
    assert len(tagged) == 250
    for store in (first, *others):
        store.close()


@pytest.mark.parametrize("engine", ["postgres", "emulator"])
def test_server_on_the_copy_goes_on_with_tasks_and_bots(life, engine, request, tmp_path):
    source, known = life
    fixture = request.getfixturevalue(engine)
    target = fixture.new_database() if engine == "postgres" else fixture.new_address()
    moved(source, target)
    chosen = Settings(data_dir=tmp_path, store=target, hold_min_s=5, hold_max_s=5)
    clock, rng = FakeClock(), FakeRng()
    store = engines.open_store(chosen, Threads(), clock, rng)
    parts = composition.build(chosen, store, Threads(), clock, rng)
    parts.concurrency.spawn(parts.offers.run)
    bot = SimBot(flask_post(composition.create_app(parts).test_client()))
    bot.session, bot.seq = known["session"], 100
    assert bot.finish(known["running"][:-1] + "1", b"half and half", 0)["ok"] is True
    lease = bot.update(nonblocking=False)["lease"]
    assert lease["payload"]["task_id"] == known["pending"]
    bot.work(lease)
    assert [one.kind for one in check_store(store).findings] == ["odd"]
    parts.close()


def test_copy_that_broke_off_goes_on_between_engines(life, postgres):
    source, _known = life
    target = postgres.new_database()
    before, after = opened(source), opened(target)
    seen = []

    def breaks(kind, documents):
        seen.append(kind)
        if len(seen) == 6:
            raise StoreError("the line is cut")

    with pytest.raises(StoreError):
        copying.copy_all(before, after, breaks)
    put(after, "odd", Doc("0001-not-there-any-more", {}), Doc("0001%21ü!é", {"n": -1}))
    assert copying.is_unfinished(after)
    run("copy", source, target, code=9)
    run("copy", source, target, "--resume")
    assert everything(after) == everything(before)
    before.close()
    after.close()
