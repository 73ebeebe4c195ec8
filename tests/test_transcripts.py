"""The worked transcript of the protocol page, replayed into the server and against our bot."""

import contextlib
import json
from base64 import b64encode
from dataclasses import asdict, replace

import msgspec
import pytest

from botapi.domain.task import NamedCache
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.create_task import create_task
from botapi.transactions.offer_lease import return_offer
from botapi.transactions.push_config import push_config
from botapi.transactions.terminate_bot import terminate_bot, termination_request
from tests.bot_client.conftest import BotProcess
from tests.bot_client.test_bot_update import publish
from tests.factories import NO_LIMITS, make_request, make_slice
from tests.fakes.scripted_server import LIMIT_S, Fault, ScriptedServer
from tests.handlers.conftest import write_bot
from tests.handlers.test_refusals import bootstrap_token
from tests.transactions.stores import ENGINES, store_of
from tests.transcripts import language

HOLD_S = {"postgres": 0.5, "emulator": 1.0}
"""How long an engine may need to hand a lease to a request that is held."""
BOT_ID = "vm1-m1"
RUN = "76d00eba71beef1"
"""What the id of the task and that of its run begin with."""
BOTS_CFG = """\
trusted_dimensions: "pool"
bot_group {
  bot_id: "vm{1..10}-m1"
  auth { ip_whitelist: "bots" }
  dimensions: "pool:ci"
}
"""
SETTINGS_CFG = 'ip_allowlist { name: "bots" subnet: "127.0.0.1/32" }\n'
# Into the server.


@pytest.fixture
def bot_archive(tmp_path):
    return write_bot(tmp_path / "bot.zip")


@pytest.fixture
def settings(request, tmp_path, bot_archive):
    hold_s = HOLD_S.get(request.node.callspec.params["store"], 0.05)
    return Settings(
        data_dir=tmp_path / "data",
        bot_archive=bot_archive,
        hold_min_s=hold_s,
        hold_max_s=hold_s,
        **NO_LIMITS,
    )


@pytest.fixture(params=ENGINES)
def store(request, clock, rng):
    with store_of(request, clock, rng) as store:
        yield store


@pytest.mark.spec(
    "0.3.1.1",
    "0.3.1.2",
    "0.3.1.3",
    "0.3.1.4",
    "0.3.1.9",
    "1.11.3.1",
    "1.11.3.2",
    "1.11.3.3",
    "1.11.4.1",
    "1.11.4.2",
    "1.11.p2",
    "1.2.p1",
    "1.3.2.10",
    "1.3.2.6",
    "1.3.3.1",
    "1.3.3.2",
    "1.3.3.3",
    "1.3.3.5",
    "1.3.3.6",
    "1.3.3.7",
    "1.3.3.8",
    "1.3.p2",
    "12.4.p1",
    "12.p1",
    "3.3.1.2",
    "3.3.1.5",
    "4.2.1.1",
    "4.2.1.2",
    "4.2.1.3",
    "4.3.1.6",
    "4.3.1.7",
    "4.3.1.9",
    "4.4.1.12",
    "4.4.1.18",
    "4.4.1.20",
    "5.2.1.1",
    "5.2.1.3",
    "5.2.1.4",
    "5.2.1.5",
    "5.2.1.7",
    "5.3.1.2",
    "5.3.1.4",
    "5.3.1.5",
    "5.3.1.6",
    "5.5.1.3",
    "5.5.1.6",
    "5.7.2.5",
    "5.7.p1",
    "8.4.1.1",
    "8.4.1.4",
    "8.5.p2",
)
@pytest.mark.parametrize("name", language.names())
def test_server_answers_as_in_the_transcript(parts, client, bot_archive, name):
    head = parts.config.latest()
    source = replace(head.source, bots=BOTS_CFG, settings=SETTINGS_CFG)
    push_config(parts.store, source, parent=head.digest, author="t", now_ms=parts.clock.now_ms())
    replay = ServerReplay(parts, client, bot_archive)
    for line in language.read(name):
        replay.step(line)


class ServerReplay:
    """Sends what the lines say and compares."""

    def __init__(self, parts, client, bot_archive):
        self.parts = parts
        self.client = client
        self.bot_archive = bot_archive
        self.bound = {"D1": self.current_version()}
        self.task_id = RUN + "0"
        self.seen = 0

    def current_version(self):
        reply = self.client.get("/bot_code", headers={"X-Luci-Swarming-Bot-ID": BOT_ID})
        assert reply.status_code == 302, reply.text
        return reply.headers["Location"].rpartition("/")[2]

    def step(self, line):
        for what, value in line.get("before", {}).items():
            getattr(self, what)(value)
        request = language.fill(line["request"], self.bound)
        bot_id = request["headers"].get("X-Luci-Swarming-Bot-ID", BOT_ID)
        before = len(self.events(bot_id))
        self.parts.clock.advance(20)
        reply = self.client.open(
            request["path"],
            method=request["method"],
            headers=request["headers"],
            data=None if request["body"] is None else wire(request["body"]),
        )
        where = f"{line['file']}: {line['step']}"
        expected = line["response"]
        wrong = [] if reply.status_code == expected["status"] else [reply.text]
        for key, value in expected["headers"].items():
            found = reply.headers.get(key)
            wrong += language.differences(value, found, self.bound, f"header {key}")
        if expected["body"] is not None:
            found = reply.json if isinstance(expected["body"], dict) else reply.text
            wrong += language.differences(expected["body"], found, self.bound, "body")
        if reply.is_json and not reply.text.endswith("}\n"):
            wrong.append(f"body: no newline at its end: {reply.text[-20:]!r}")
        wrong += self.stored(line["db"], bot_id, before)
        assert wrong == [], where

    # What is stored.

    def stored(self, db, bot_id, before):
        """Where the store is not as the line says."""
        db = language.fill(db, self.bound)
        new = [msgspec.to_builtins(event) for event in self.events(bot_id)[before:]]
        wanted = db.pop("events", [])
        if bot_id == BOT_ID:
            found = [subset(*pair) for pair in zip(new, wanted, strict=False)]
            wrong = language.differences(wanted, found + new[len(wanted) :], self.bound, "events")
        else:
            wrong = []
        for what, value in db.items():
            wrong += language.differences(value, self.fact(what, value, bot_id), self.bound, what)
        return wrong

    def fact(self, what, wanted, bot_id):
        match what:
            case "bot":
                bot = self.read(codec.BOT, join_key(bot_id), codec.read_bot)
                return subset({**asdict(bot), "composite": bot.composite}, wanted)
            case "task":
                return subset(asdict(self.task()), wanted)
            case "performance":
                return subset(asdict(self.task().performance), wanted)
            case "state":
                return subset(self.parts.last_seen.get(bot_id)[bot_id].state, wanted)
            case "output":
                where = codec.output_range(self.task_id)
                docs = self.parts.store.scan(codec.OUT, *where, limit=100)
                return b"".join(codec.read_output(doc)[1] for doc in docs).decode()
            case "no_bot":
                return self.parts.store.get(codec.BOT, join_key(bot_id)) == [None]
            case "lease_session_closed":
                return self.read(codec.LSESSION, join_key(bot_id), codec.read_lease_session).closed
            case "expiration_cleared":
                pending = self.parts.store.scan(codec.PEND, "", "\U0010ffff", limit=10)
                offers = self.parts.store.scan(codec.OFFER, "", "\U0010ffff", limit=10)
                return not pending and not offers
        raise AssertionError(f"unknown key in db: {what}")

    def read(self, kind, key, reader):
        (doc,) = self.parts.store.get(kind, key)
        assert doc is not None, (kind, key)
        return reader(doc)

    def task(self):
        return self.read(codec.TASK, codec.task_key(self.task_id), codec.read_task)

    def events(self, bot_id):
        where = (join_key(bot_id) + "!", join_key(bot_id) + '"')
        docs = self.parts.store.scan(codec.EVENT, *where, limit=200)
        return [codec.read_event(doc) for doc in reversed(docs)]

    # What somebody else does.

    def create_task(self, asked):
        slices = [
            make_slice(
                **{
                    **fields,
                    "command": tuple(fields["command"]),
                    "caches": tuple(NamedCache(**c) for c in fields.get("caches", ())),
                }
            )
            for fields in asked["slices"]
        ]
        request = make_request(now_ms=self.parts.clock.now_ms(), **{**asked, "slices": slices})
        self.task_id = request.task_id
        create_task(self.parts.store, request, request_uuid="")

    def terminate_bot(self, asked):
        request = termination_request(
            asked["bot_id"],
            asked["task_id"],
            caller="user:test",
            reason=asked["reason"],
            instance="",
            now_ms=self.parts.clock.now_ms(),
        )
        self.task_id = request.task_id
        terminate_bot(self.parts.store, request, Actor("test", asked["reason"], "terminate-1"))

    def kill_task(self, task_id):
        actor = Actor("user:test", "enough", "kill-1")
        now_ms = self.parts.clock.now_ms()
        cancel_task(self.parts.store, task_id, actor, kill_running=True, now_ms=now_ms)

    def lapse_offer(self, task_id):
        offer = self.read(codec.OFFER, codec.task_key(task_id), codec.read_offer)
        now_ms = self.parts.clock.now_ms()
        assert return_offer(self.parts.store, offer, now_ms, "not claimed in time")

    def bootstrap_token(self, name):
        self.bound[name], _token_id = bootstrap_token(self.parts)

    def new_archive(self, name):
        write_bot(self.bot_archive, **{"bot_client/__init__.py": "# new\n"})
        self.parts.clock.advance(60)
        self.parts.sweeps.look()
        self.bound[name] = self.current_version()
        assert self.bound[name] != self.bound["D1"]


def wire(body):
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def subset(found, wanted):
    """The wanted keys of `found`, tuples as lists."""
    plain = json.loads(json.dumps(found, default=str))
    return {key: plain[key] for key in wanted if key in plain}


# Against our bot.

SAME = {
    *("status", "lease", "claim_id", "task_id", "task_to_run_id", "task_to_run_shard", "id"),
    *("exit_code", "output", "output_chunk_start", "hard_timeout", "io_timeout", "event"),
    "version",
}
"""What a request says must be the same, where the transcript says it."""
THERE = {"dimensions", "state", "session_id", "request_uuid", "bot_version", "duration", "message"}
"""What a request must have, where the transcript has it."""


class Invented(dict):
    """What the placeholders of a response stand for when nothing is known of them."""

    def __missing__(self, name):
        value = f"made up {name}"
        if language.SESSION.fullmatch(name):
            value = b64encode(value.encode()).decode()
        self[name] = value
        return value


class Player(ScriptedServer):
    """Plays the responses of a transcript; holds every call that comes after the last."""

    def __init__(self, lines, command, go):
        super().__init__()
        self.lines = [line for line in lines if line.get("bot", True)]
        self.posts = [line for line in self.lines if line["request"]["method"] == "POST"]
        self.command = command
        self.go = go
        self.bound = Invented()
        self.token = ""
        self.wrong = []
        self.answered = 0

    @property
    def is_over(self):
        return self.wrong or self.answered == len(self.posts)

    def answer(self, call):
        if self.is_over:
            self.wait_for(lambda: self._closing, LIMIT_S)
            return 503, b"the end"
        line = self.posts[self.answered]
        self.wrong = self.differences(line, call)
        if self.wrong:
            self.wrong.insert(0, f"{line['file']}: {line['step']}: {call.path} {call.body}")
            return 503, b"not as in the transcript"
        body = language.fill(line["response"]["body"], self.bound)
        if not line.get("lost"):
            self.token = body.get("session", self.token)
        if "manifest" in body:
            body["manifest"] |= self.command
            body["manifest"] = {k: v for k, v in body["manifest"].items() if v is not None}
        if "output" in line["request"]["body"]:
            self.go.touch()
        self.answered += 1
        if not self.is_over and self.posts[self.answered].get("lost"):
            self.fault("task_update", Fault(drop=True, after=True))
        return line["response"]["status"], body

    def differences(self, line, call):
        """Where the bot's request is not as in the transcript."""
        wanted = language.fill(line["request"], self.bound)
        wrong = [] if call.path == wanted["path"] else [f"{call.path}, not {wanted['path']}"]
        found, expected = call.body, wanted["body"]
        wrong += [f"no {key}" for key in THERE & expected.keys() - found.keys()]
        for key in SAME & expected.keys():
            wrong += language.differences(expected[key], found.get(key), {}, key)
        if "session" in expected and found.get("session") != self.token:
            wrong.append(f"session: {found.get('session')}, not the newest: {self.token}")
        if found.get("event") and found["message"] != expected["message"]:
            wrong.append(f"message: {found['message']}")
        if "dimensions" in expected and found["dimensions"]["id"] != [BOT_ID]:
            wrong.append(f"dimensions: {found['dimensions']}")
        for key in ("content-type", "x-luci-swarming-bot-id"):
            value = {name.lower(): text for name, text in wanted["headers"].items()}[key]
            wrong += language.differences(value, call.headers.get(key), {}, key)
        return wrong


@pytest.fixture
def play(tmp_path):
    """Play a transcript to our bot until its last line."""
    with contextlib.ExitStack() as stack:

        def play(name):
            go = tmp_path / "go"
            player = stack.enter_context(
                Player(
                    language.read(name),
                    {**TASKS.get(name, {}), "caches": None, "env": {"GO": str(go)}},
                    go,
                )
            )
            bot = BotProcess(tmp_path / "bot", player)
            bot.env["SWARMING_BOT_ID"] = BOT_ID
            stack.callback(bot.destroy)
            player.bound["D1"] = bot.install()
            player.bound["D2"] = publish(player, tmp_path)
            bot.start()
            player.wait_for(lambda: player.is_over)
            assert not player.wrong, "\n".join(player.wrong)
            return player, bot

        yield play


STREAM = "echo hello; while ! test -e $GO; do sleep 0.05; done; echo done"
TASKS = {
    "12.4": {"command": ["/bin/sh", "-c", STREAM]},
    "12.4-kill": {"command": ["/bin/sh", "-c", "echo hello; exec sleep 600"]},
    "12.4-late-final": {"command": ["/bin/sh", "-c", "echo done"]},
    "12.4-failure": {"hard_timeout": None},
}
"""What the bot is given to run instead; None takes a required key away, as for named caches,
which our bot refuses."""


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.spec(
    "0.5.2.10",
    "1.3.1.1",
    "1.3.1.3",
    "1.3.1.4",
    "12.4.p1",
    "12.p1",
    "3.3.1.2",
    "3.3.1.5",
    "4.2.1.1",
    "4.2.1.2",
    "5.2.1.3",
    "5.2.1.4",
    "5.2.1.7",
    "8.6.1.1",
    "8.6.1.3",
    "8.6.1.5",
    "A.1.1.2",
    "A.1.1.3",
    "A.2.1.1",
)
@pytest.mark.parametrize("name", sorted({*language.names()} - {"12.1", "12.5"}))
def test_bot_asks_as_in_the_transcript(play, name):
    player, _bot = play(name)
    calls = [call.path for call in player.calls]
    wanted = [language.fill(line["request"]["path"], player.bound) for line in player.lines]
    assert calls[: len(wanted)] == wanted


# The language itself.


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": "1"}, {"a": 1}),
        ([1], [1, 2]),
        ("<any>", None),
        ("<text>", ""),
        ("<number>", "1"),
        ("<number>", True),
        ("<digest>", "A" * 64),
        ("<T1>", "no base64!"),
        ("<LS>", 1),
        ("/x/<D1>", "/x/y/z"),
        ("x.y", "xzy"),
        (["<A>", "<A>"], ["1", "2"]),
        ("<B> <A>", "2 1"),
    ],
)
def test_difference_is_told(expected, found):
    bound = {"B": "1"}
    assert language.differences(expected, found, bound)


def test_names_are_bound_where_they_are_met_first_and_filled_in_later():
    bound = {}
    found = {"session": "bmV3", "path": "/bot_code/d1?tok=t", "n": 1.5}
    expected = {"session": "<T1>", "path": "/bot_code/<D1>?tok=<TOK>", "n": "<number>"}
    assert language.differences(expected, found, bound) == []
    assert bound == {"T1": "bmV3", "D1": "d1", "TOK": "t"}
    assert language.fill(["<T1>", {"<D1>": 1}], bound) == ["bmV3", {"d1": 1}]
    with pytest.raises(KeyError):
        language.fill("<T2>", bound)
