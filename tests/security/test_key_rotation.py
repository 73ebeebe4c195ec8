"""Keys come and go without a refused call; a revoked key is of no use at once (docs/keys.md)."""

import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from botapi import app as composition
from botapi import engines
from botapi.auth.botsession import SESSION_LIFE_MS
from botapi.auth.keys import KIND, LOOK_AGAIN_S, OIDC, SESSION, SIGNING, read_keys
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.domain.errors import Code, Refusal
from botapi.domain.key_rotation import (
    Key,
    KeyState,
    Times,
    active_of,
    advance,
    begin,
    next_of,
    ordered,
    revoke,
)
from botapi.settings import Settings
from botapi.store import codec
from botapi.transactions.push_config import push_config
from botapi.transactions.rotate_keys import (
    PUBLISH_MS,
    PUBLISH_OIDC_MS,
    ROTATING,
    advance_rotation,
    begin_rotation,
    revoke_key,
)
from tests.e2e.fleet import Api, Connection, ServerProcess, wait_until
from tests.factories import NO_LIMITS, bots_cfg
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import SimBot, flask_post

TIMES = Times(publish_ms=120, overlap_ms=3_720)
STALE = 30
LIFE = 3_600
SKEW = 45


def key(name, state=KeyState.ACTIVE, since_ms=0):
    return Key(name, name.encode(), since_ms, state, since_ms)


FIRST = (key("first"),)


def states(keys):
    return [(key.key_id, str(key.state)) for key in keys]


# The rule.


@pytest.mark.spec("2.3.p1")
def test_rotate_goes_from_next_to_active_to_verify_to_retired():
    keys = begin(FIRST, key("second"), 1_000)
    assert states(keys) == [("second", "next"), ("first", "active")]
    assert advance(keys, TIMES, 1_119) == keys
    keys = advance(keys, TIMES, 1_120)
    assert states(keys) == [("first", "verify"), ("second", "active")]
    assert advance(keys, TIMES, 1_120 + 3_719) == keys
    assert states(advance(keys, TIMES, 1_120 + 3_720)) == [("second", "active")]


def test_rotate_is_refused_while_a_key_waits_and_its_repeat_is_not():
    keys = begin(FIRST, key("second"), 1_000)
    assert begin(keys, key("second"), 1_050) == keys
    with pytest.raises(Refusal, match="a rotation is under way: key second") as refused:
        begin(keys, key("third"), 1_050)
    assert refused.value.code is Code.ALREADY_EXISTS


def test_rotate_again_keeps_every_key_that_may_still_have_signed():
    keys = advance(begin(FIRST, key("second"), 0), TIMES, 120)
    keys = advance(begin(keys, key("third"), 121), TIMES, 241)
    assert states(keys) == [("first", "verify"), ("second", "verify"), ("third", "active")]
    assert states(advance(keys, TIMES, 120 + 3_720)) == [("second", "verify"), ("third", "active")]


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ("old", [("new", "next"), ("now", "active")]),
        ("new", [("old", "verify"), ("now", "active")]),
        ("now", [("old", "verify"), ("new", "active")]),
    ],
)
def test_revoke_takes_a_key_out_at_once(gone, left):
    keys = ordered([key("new", KeyState.NEXT), key("old", KeyState.VERIFY), key("now")])
    assert states(revoke(keys, gone, key("spare"), 5)) == left


def test_revoke_of_the_only_key_puts_a_fresh_one_in_its_place():
    assert states(revoke(FIRST, "first", key("spare"), 5)) == [("spare", "active")]


def test_revoke_of_an_unknown_key_is_refused():
    with pytest.raises(Refusal, match='there is no key "other"') as refused:
        revoke(FIRST, "other", key("spare"), 5)
    assert refused.value.code is Code.NOT_FOUND


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["rotate", "advance", "advance"]),
        st.sampled_from([0, -SKEW, SKEW]),
        st.sampled_from([0, 1, 10, 29, 30, 60, 90, 3_540, 3_570, 3_600]),
    ),
    min_size=5,
    max_size=25,
)


@pytest.mark.spec("2.3.p1")
@pytest.mark.control("tokens.rotation")
@hypothesis_settings(max_examples=200)
@given(steps=STEPS)
def test_rotate_never_makes_a_living_token_unknown_to_any_server(steps):
    """A server holds any version that was in force within the last 30 s; clocks differ."""
    now, keys = 10_000, FIRST
    versions = [(now, keys)]
    tokens = set()
    for number, (what, skew, pause) in enumerate(steps):
        now += pause
        clock = now + skew
        if what == "rotate" and next_of(keys) is None:
            keys = begin(keys, key(f"key {number}"), clock)
        elif what == "advance":
            keys = advance(keys, TIMES, clock)
        versions.append((now, keys))
        ends = [at for at, _ in versions[1:]] + [now + 1]
        versions = [v for v, end in zip(versions, ends, strict=True) if end > now - STALE]
        held = [version for _, version in versions]
        tokens.update((now, active_of(version).key_id) for version in held)
        tokens = {(at, key_id) for at, key_id in tokens if now - at <= LIFE}
        for version in held:
            assert {key_id for _, key_id in tokens} <= {key.key_id for key in version}
        assert [key.state for key in keys].count(KeyState.ACTIVE) == 1


def test_times_leave_room_for_a_server_that_hears_nothing():
    assert PUBLISH_MS >= 4 * LOOK_AGAIN_S * 1000
    assert PUBLISH_OIDC_MS >= PUBLISH_MS
    assert set(ROTATING) == {SESSION, SIGNING, OIDC}
    assert ROTATING[SESSION] == Times(PUBLISH_MS, SESSION_LIFE_MS + PUBLISH_MS)
    assert ROTATING[SIGNING].overlap_ms > 30 * 24 * 3_600_000
    assert ROTATING[OIDC].overlap_ms > 3_600_000


# Two servers over one database.


class Fleet:
    """Two servers, each with a store of its own over the same file, and bots that call both."""

    def __init__(self, stack, tmp_path, small_bot, *, deaf=False, envelope="hmac"):
        self.clock, self.rng = FakeClock(), FakeRng()
        settings = Settings(
            data_dir=tmp_path / "data",
            bot_archive=small_bot,
            session_envelope=envelope,
            **NO_LIMITS,
        )
        self.servers = []
        for _ in range(2):
            store = engines.SqliteStore(tmp_path / "store", Threads(), self.clock, self.rng)
            stack.callback(store.close)
            parts = composition.build(settings, store, Threads(), self.clock, self.rng)
            stack.callback(parts.release)
            self.servers.append(parts)
        self.store = self.servers[0].store
        push_config(self.store, bots_cfg(), parent="", author="test", now_ms=self.clock.now_ms())
        for parts in self.servers:
            parts.config.latest()
            if deaf:
                parts.bots.keys.close()
        self.posts = [flask_post(composition.create_app(p).test_client()) for p in self.servers]
        self.bots = [SimBot(self.posts[n % 2], f"vm{n}").start() for n in range(3)]
        self.said = set()

    def call(self, bot, server):
        """Every kind of call that checks a session, at this server."""
        bot.post = self.posts[server]
        for ask in (bot.update, lambda: bot.call("/event", event="bot_log"), bot.poll):
            ask()
            self.said.add(bot.status)
            assert bot.status == 200, bot.text
        assert bot.poll()["cmd"] == "rbe"  # a token that is refused gives `bot_restart`

    def everybody_calls(self):
        for number, bot in enumerate(self.bots):
            self.call(bot, number % 2)
            self.call(bot, 1 - number % 2)

    def advance_to(self, second):
        """So many seconds after the beginning."""
        self.clock.advance(second - (self.clock.monotonic() - 1_000.0))

    def key_set(self, purpose=SESSION):
        (doc,) = self.store.get(KIND, purpose)
        return read_keys(doc.body)

    def states(self, purpose=SESSION):
        return [str(key.state) for key in self.key_set(purpose)]

    def rotate(self, purpose=SESSION):
        begin_rotation(
            self.store,
            purpose,
            self.servers[0].bots.keys.new_key(purpose),
            actor="alice",
            entry_id=f"rotate-{self.clock.now_ms()}",
            now_ms=self.clock.now_ms(),
        )

    def sweep(self):
        self.servers[1].sweeps.next_slow = 0.0
        return self.servers[1].sweeps.round()


@pytest.fixture
def fleet(tmp_path, small_bot, request):
    with ExitStack() as stack:
        yield Fleet(stack, tmp_path, small_bot, **getattr(request, "param", {}))


@pytest.mark.slow
@pytest.mark.spec("2.3.p1")
@pytest.mark.control("tokens.rotation")
@pytest.mark.parametrize(
    "fleet",
    [{}, {"deaf": True}, {"envelope": "aead"}],
    indirect=True,
    ids=["heard at once", "servers that hear nothing", "encrypted"],
)
def test_rotate_refuses_no_call_of_any_bot_at_any_server(fleet):
    *busy, quiet = fleet.bots
    fleet.everybody_calls()
    old = fleet.key_set()[0]
    fleet.rotate()
    seen = []
    for minute in [1, 2, 3, 20, 40, 60, 63, 64, 65, 66, 67]:
        fleet.advance_to(minute * 60)
        fleet.sweep()
        seen.append(tuple(fleet.states()))
        for number, bot in enumerate(busy):
            fleet.call(bot, (number + minute) % 2)
            fleet.call(bot, (number + minute + 1) % 2)
        if minute in {1, 60}:  # its token is as old as it may be, and of the old key
            fleet.call(quiet, minute % 2)
    assert list(dict.fromkeys(seen)) == [
        ("next", "active"),
        ("verify", "active"),
        ("active",),
    ]
    assert old.key_id not in {key.key_id for key in fleet.key_set()}
    assert fleet.said == {200}


@pytest.mark.slow
def test_rotate_is_known_to_both_servers_before_the_new_key_signs(fleet):
    fleet.rotate()
    fleet.clock.advance(PUBLISH_MS / 1000 - 1)
    assert fleet.sweep()["keys"] == 0
    rings = [parts.bots.keys for parts in fleet.servers]
    assert [str(ring.key_set(SESSION)[0].state) for ring in rings] == ["next", "next"]
    before = {ring.secret(SESSION).active for ring in rings}
    fleet.clock.advance(1)
    assert fleet.sweep()["keys"] == 1
    assert fleet.states() == ["verify", "active"]
    assert {fleet.key_set()[0].secret} == before


@pytest.mark.slow
@pytest.mark.control("tokens.rotation")
@pytest.mark.parametrize("fleet", [{}, {"deaf": True}], indirect=True, ids=["heard", "deaf"])
def test_revoke_ends_sessions_that_servers_remember(fleet, request):
    """The remembered session of a token must not outlive the key that it was verified with."""
    is_deaf = "deaf" in request.node.name
    fleet.everybody_calls()
    (signed,) = fleet.key_set()
    revoke_key(
        fleet.store,
        SESSION,
        signed.key_id,
        fleet.servers[0].bots.keys.new_key(SESSION),
        actor="alice",
        reason="it leaked",
        entry_id="revoke-1",
        now_ms=fleet.clock.now_ms(),
    )
    if is_deaf:
        fleet.clock.advance(LOOK_AGAIN_S)
    for number, bot in enumerate(fleet.bots):
        bot.post = fleet.posts[number % 2]
        bot.update()
        assert (bot.status, "bad signature" in bot.text) == (401, True)
        assert bot.poll()["cmd"] == "bot_restart"
        bot.session = None
        bot.start()
    fleet.everybody_calls()
    assert signed.key_id not in {key.key_id for key in fleet.key_set()}


@pytest.mark.slow
def test_rotate_and_revoke_are_audited_and_repeats_change_nothing(fleet):
    key_id = fleet.key_set()[0].key_id
    spare = fleet.servers[0].bots.keys.new_key(SESSION)
    now_ms = fleet.clock.now_ms()
    for _ in range(2):
        begin_rotation(fleet.store, SESSION, spare, actor="alice", entry_id="r1", now_ms=now_ms)
        revoke_key(
            fleet.store,
            SESSION,
            key_id,
            replace(spare, key_id="spare"),
            actor="bob",
            reason="lost",
            entry_id="r2",
            now_ms=now_ms,
        )
    assert [key.key_id for key in fleet.key_set()] == [spare.key_id]
    entries = fleet.store.find(codec.AUDIT, [], after=None, limit=10).docs
    found = sorted(
        (doc.body["actor"], doc.body["verb"], doc.body["reason"], doc.body["before"])
        for doc in entries
        if doc.body["verb"].startswith("key.")
    )
    assert found == [
        ("alice", "key.rotate", "", f"{key_id} active"),
        ("bob", "key.revoke", "lost", f"{spare.key_id} next, {key_id} active"),
    ]
    assert not any(spare.secret.decode() in str(doc.body) for doc in entries)


def test_advance_without_a_key_set_does_nothing(store):
    assert not advance_rotation(store, SESSION, entry_id="a", now_ms=10**13)
    with pytest.raises(Refusal, match="there are no session keys yet"):
        begin_rotation(store, SESSION, key("x"), actor="a", entry_id="b", now_ms=1)


# Two server processes over one database.


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two `skep serve` on one data folder, and the key of their administrator."""
    folder = tmp_path_factory.mktemp("rotation")
    one_name = {"SKEP_PUBLIC_URL": "http://fleet.example"}
    first = ServerProcess(folder, one_name)
    second = ServerProcess(folder, one_name, data=first.data)
    api_key = first.init()
    try:
        first.start()
        second.start()
        yield [first, second], [Api(server.url, api_key) for server in (first, second)]
    finally:
        first.end()
        second.end()


class Caller:
    """Simulated bots that call both processes without pause; `statuses` is what they got."""

    def __init__(self, servers, count):
        self.connections = [Connection(server.url) for server in servers]
        self.bots = [SimBot(self.connections[0], f"sim{n}").start() for n in range(count)]
        self.statuses = set()
        self.rounds = 0
        self.failed = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.is_over.wait(0.01):
                self._round()
        except Exception as error:  # noqa: BLE001 - told by `end`
            self.failed.append(error)

    def _round(self):
        for bot in self.bots:
            for connection in self.connections:
                bot.post = connection
                bot.call("/event", event="bot_log")
                self.statuses.add(bot.status)
                reply = bot.poll()  # makes a token with the key of this moment
                self.statuses.add((bot.status, reply.get("cmd")))
        self.rounds += 1

    def go_round(self):
        """Return when every bot has called both processes once more."""
        before = self.rounds
        wait_until("another round", lambda: self.failed or self.rounds > before + 1)

    def end(self):
        self.is_over.set()
        self.thread.join(30)
        for connection in self.connections:
            connection.close()
        assert self.failed == []


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.control("tokens.rotation")
def test_rotate_and_revoke_reach_two_server_processes(processes):
    """As by `skep keys`; the two minutes between the steps are put past by hand."""
    servers, apis = processes
    database = engines.SqliteStore(servers[0].data, Threads(), SystemClock(), SystemRng())
    caller = Caller(servers, 4)

    def listed():
        """What each process holds of session keys."""
        return [
            [
                (k["key_id"], k["state"])
                for k in api.get("/keys")["items"]
                if k["purpose"] == SESSION
            ]
            for api in apis
        ]

    def step(after_ms):
        now_ms = SystemClock().now_ms() + after_ms
        assert advance_rotation(database, SESSION, entry_id=f"step-{after_ms}", now_ms=now_ms)

    try:
        ((old, _),) = listed()[0]
        new = apis[0].post("/keys/session/rotate", None)["keys"][0]["key_id"]
        wait_until("both to know", lambda: listed() == [[(new, "next"), (old, "active")]] * 2)
        caller.go_round()
        step(PUBLISH_MS)
        wait_until("both to sign", lambda: listed() == [[(old, "verify"), (new, "active")]] * 2)
        caller.go_round()
        step(PUBLISH_MS + ROTATING[SESSION].overlap_ms)
        wait_until("both to drop", lambda: listed() == [[(new, "active")]] * 2)
        caller.go_round()
    finally:
        caller.end()
        database.close()
    assert caller.statuses == {200, (200, "rbe")}
    apis[1].post("/keys/session/revoke", {"key_id": new, "reason": "test"})
    wait_until("both to forget", lambda: new not in str(listed()))
    late = SimBot(Connection(servers[0].url), "sim0")
    late.session, late.version = caller.bots[0].session, caller.bots[0].version
    try:
        late.update()
        assert late.status == 401
        late.session = None
        assert late.start().status == 200
    finally:
        late.post.close()
