"""The claim: every row of bot-api 4, as a bot meets it."""

import json
from dataclasses import replace

import pytest

from botapi import __version__
from botapi import app as composition
from botapi.domain.artifacts import CasDigest, CasReference, CipdInput, CipdPackage, NamedCache
from botapi.domain.bot_event import BotUpdate, EventKind
from botapi.domain.matching import shard
from botapi.store import codec
from botapi.store.protocol import Conflict, Outage, join_key
from botapi.transactions.update_bot import update_bot
from tests.factories import make_slice
from tests.fakes.person import Person, new_key
from tests.fakes.sim_bot import BOT_PATH, JSON, flask_post
from tests.handlers.test_life_of_a_bot import events_of, stored_bot, stored_task, submit
from tests.handlers.test_refusals import REFUSED, nothing_changes

ANY = {"pool": ("default",)}


@pytest.fixture
def admin(client, store, clock, rng):
    """Somebody who may do everything, through the API."""
    return Person(client, new_key(store, clock, rng))


def lease_of(request, index=0, lease_id="lease"):
    """The lease of a slice, as `rbe/session/update` would give it."""
    payload = {
        "task_id": request.task_id,
        "task_to_run_shard": shard(request.slices[index].dimensions),
        "task_to_run_id": 1 + 16 * index,
    }
    return {"id": lease_id, "payload": payload}


def claim_body(request, **changes):
    lease = lease_of(request)
    return {"claim_id": "c", **lease["payload"], **changes}


def skips(parts, bot, lease, reason):
    with nothing_changes(parts.store):
        assert bot.claim(lease) == {"cmd": "skip", "reason": reason}
    assert bot.status == 200


# 4.1


@pytest.mark.spec("4.1.1.1", "4.3.1.1")
def test_claim_without_a_session_is_401(parts, bot):
    request = submit(parts)
    with nothing_changes(parts.store):
        bot.session = None
        bot.claim(lease_of(request))
    assert bot.status == 401


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"claim_id": None}, "claim_id: missing", marks=pytest.mark.spec("4.1.1.2")),
        pytest.param({"claim_id": ""}, "claim_id: missing", marks=pytest.mark.spec("4.1.1.2")),
        pytest.param({"task_id": None}, "task_id: missing", marks=pytest.mark.spec("4.1.1.3")),
        pytest.param(
            {"task_id": "7 6"}, "task_id: not a task id: '7 6'", marks=pytest.mark.spec("4.1.1.3")
        ),
        pytest.param(
            {"task_to_run_shard": 16},
            "task_to_run_shard: not 0 to 15: 16",
            marks=pytest.mark.spec("4.1.1.4", "13.1.45"),
        ),
        pytest.param(
            {"task_to_run_shard": -1},
            "task_to_run_shard: not 0 to 15: -1",
            marks=pytest.mark.spec("4.1.1.4"),
        ),
        pytest.param(
            {"task_to_run_id": None}, "task_to_run_id: missing", marks=pytest.mark.spec("4.1.1.5")
        ),
        pytest.param(
            {"task_to_run_id": 0}, "task_to_run_id: missing", marks=pytest.mark.spec("4.1.1.5")
        ),
        pytest.param(
            {"task_to_run_id": 16},
            "task_to_run_id: not 1 + 16 * slice: 16",
            marks=pytest.mark.spec("4.1.1.5"),
        ),
    ],
)
@pytest.mark.spec("4.3.1.1")
def test_claim_with_a_wrong_field_is_400(parts, bot, changes, text):
    request = submit(parts)
    with nothing_changes(parts.store):
        bot.call("/claim", **claim_body(request, **changes))
    assert (bot.status, bot.text) == (400, REFUSED.format(text))


@pytest.mark.spec("4.1.1.4", "13.1.45")
@pytest.mark.parametrize("wrong", [0, 14])
def test_slice_is_not_found_in_another_shard(parts, bot, wrong):
    request = submit(parts)
    assert shard(request.slices[0].dimensions) != wrong
    with nothing_changes(parts.store):
        reply = bot.call("/claim", **claim_body(request, task_to_run_shard=wrong))
    assert reply == {"cmd": "skip", "reason": "no such task"}


@pytest.mark.spec("4.1.1.4")
def test_shard_is_0_when_it_is_not_said(parts, bot):
    bot.dims["n"] = [str(n) for n in range(99)]
    bot.poll()
    place = next(n for n in range(99) if shard({**ANY, "n": (str(n),)}) == 0)
    request = submit(parts, slices=[make_slice(dimensions={**ANY, "n": (str(place),)})])
    body = claim_body(request)
    del body["task_to_run_shard"]
    assert bot.call("/claim", **body)["cmd"] == "run"


@pytest.mark.spec("4.1.1.6")
def test_state_of_a_claim_replaces_the_stored_one(parts, bot):
    bot.state = {"disk_mb": 7}
    bot.claim(lease_of(submit(parts)))
    assert parts.last_seen.get("vm1")["vm1"].state == {"disk_mb": 7}


@pytest.mark.spec("4.1.1.6")
@pytest.mark.parametrize("state", ["broken", [1], {"a": 2**70}, {"a": "x" * 140_000}])
def test_bad_state_of_a_claim_is_ignored_with_a_log_line(parts, bot, state, caplog):
    before = parts.last_seen.get("vm1")["vm1"].state
    bot.state = state
    assert bot.claim(lease_of(submit(parts)))["cmd"] == "run"
    assert parts.last_seen.get("vm1")["vm1"].state == before
    assert stored_bot(parts).quarantined == ""
    assert "claim of vm1: state ignored: bad state dict" in caplog.text


@pytest.mark.control("bots.claim-match")
@pytest.mark.spec("4.1.1.7", "4.3.1.3")
def test_dimensions_and_version_of_a_claim_count_for_nothing(parts, bot):
    wanted = {**ANY, "os": ("Plan9",)}
    request = submit(parts, slices=[make_slice(dimensions=wanted)])
    version = stored_bot(parts).version
    said = {"dimensions": {"os": ["Plan9"], "id": 5}, "version": ["x"]}
    with nothing_changes(parts.store):
        reply = bot.call("/claim", **claim_body(request, **said))
    assert reply == {"cmd": "skip", "reason": "dimensions mismatch: the slice asks for os:Plan9"}
    fitting = submit(parts, 2)
    assert bot.call("/claim", **claim_body(fitting, **said))["cmd"] == "run"
    assert stored_bot(parts).version == version


# 4.2, 4.3


@pytest.mark.spec("4.2.1.1", "4.3.1.2")
def test_claim_of_a_slice_that_does_not_exist_is_skipped(parts, bot):
    request = submit(parts)
    skips(
        parts,
        bot,
        {**lease_of(request), "payload": lease_of(request)["payload"] | {"task_to_run_id": 17}},
        "no such task",
    )
    gone = submit(parts, 2)
    parts.store.transact(
        lambda txn: txn.delete(codec.TASK, codec.task_key(gone.task_id)), label="test"
    )
    skips(parts, bot, lease_of(gone), "no such task")


@pytest.mark.spec("4.3.1.8")
def test_claim_of_a_task_without_its_request_is_skipped(parts, bot):
    gone = submit(parts)
    parts.store.transact(
        lambda txn: txn.delete(codec.REQ, codec.task_key(gone.task_id)), label="test"
    )
    skips(parts, bot, lease_of(gone), "no such task")


class Broken:
    """A store whose transactions fail."""

    def __init__(self, store, error):
        self._store = store
        self._error = error

    def __getattr__(self, name):
        return getattr(self._store, name)

    def transact(self, *_args, **_more):
        raise self._error


@pytest.mark.spec("4.3.1.2", "4.3.1.8", "4.3.1.9")
@pytest.mark.parametrize("error", [Outage("the disk is gone"), Conflict("lost every race")])
def test_claim_during_a_storage_failure_is_a_server_error(parts, bot, error):
    """Bots try a 5xx again, and give up at a 4xx; ours is 503 rather than 500."""
    request = submit(parts)
    parts.bots = replace(parts.bots, store=Broken(parts.store, error))
    bot.post = flask_post(composition.create_app(parts).test_client())
    with nothing_changes(parts.store):
        bot.claim(lease_of(request))
    assert bot.status == 503


@pytest.mark.control("bots.claim-match")
@pytest.mark.spec("4.3.1.3")
def test_task_of_another_pool_is_refused_whatever_its_state(parts, bot):
    """A bot may know ids of tasks in other pools; it learns nothing about who has them."""
    foreign = make_slice(dimensions={"pool": ("secret",)})
    request = submit(parts, slices=[foreign])
    reason = "dimensions mismatch: the slice asks for pool:secret"
    skips(parts, bot, lease_of(request), reason)
    (was,) = parts.store.get(codec.TASK, codec.task_key(request.task_id))
    taken = replace(codec.read_task(was), state="RUNNING", claim_id="vm9:x", bot_id="vm9")
    parts.store.transact(lambda txn: txn.put(codec.TASK, codec.task_doc(taken, was)), label="test")
    skips(parts, bot, lease_of(request), reason)


@pytest.mark.spec("4.3.1.4", "4.3.1.6")
def test_same_claim_id_of_two_bots_is_two_claims(parts, bot, make_bot):
    request = submit(parts)
    other = make_bot("vm2").start()
    assert bot.claim(lease_of(request))["cmd"] == "run"
    assert stored_task(parts, request).claim_id == "vm1:lease"
    skips(parts, other, lease_of(request), 'already claimed by "vm1:lease"')


@pytest.mark.spec("4.3.1.6")
def test_another_claim_of_the_same_bot_is_skipped_and_names_the_first(parts, bot):
    request = submit(parts)
    bot.claim(lease_of(request, lease_id="one"))
    skips(parts, bot, lease_of(request, lease_id="two"), 'already claimed by "vm1:one"')


@pytest.mark.spec("4.3.1.5", "5.9.1.1")
def test_claim_of_a_canceled_slice_is_skipped(parts, bot, admin):
    request = submit(parts)
    lease = bot.update(nonblocking=False)["lease"]
    reply = admin.post(f"/tasks/{request.task_id}/cancel", {}).json
    assert (reply["canceled"], reply["was_running"]) == (True, False)
    skips(parts, bot, lease, "slice has expired")
    assert stored_task(parts, request).claim_id == ""
    assert "lease" not in bot.update()


@pytest.mark.spec("4.3.1.5")
def test_claim_of_an_earlier_or_later_slice_is_skipped(parts, bot):
    slices = [make_slice(env={"A": str(n)}) for n in range(3)]
    request = submit(parts, slices=slices)
    for index in (1, 2):
        skips(parts, bot, lease_of(request, index), "slice has expired")
    assert bot.claim(lease_of(request, 0))["cmd"] == "run"


@pytest.mark.spec("4.3.1.7")
@pytest.mark.parametrize("is_over", [False, True])
def test_claim_again_is_run_again_and_writes_nothing(parts, bot, is_over):
    request = submit(parts)
    first = bot.claim(lease_of(request))
    if is_over:
        bot.finish(first["task_id"], b"x")
    with nothing_changes(parts.store):
        again = bot.claim(lease_of(request))
    assert again["cmd"] == "run"
    assert again["manifest"] == first["manifest"]
    if is_over:
        reply = bot.task_update(first["task_id"])
        assert (reply["ok"], reply["must_stop"]) == (False, True)


@pytest.mark.spec("4.3.1.9", "9.5.1.7", "9.5.1.8", "9.1.1.7", "9.1.1.8")
def test_claim_makes_the_task_running_the_slice_consumed_and_the_bot_busy(parts, bot, clock):
    idle_since = clock.now_ms()
    bot.state["rbe_idle"] = True
    bot.poll()
    clock.advance(3)
    request = submit(parts, name="build", bot_ping_tolerance_s=60)
    pend = stored_task(parts, request).pend_key
    lease = bot.update(nonblocking=False)["lease"]
    before = stored_bot(parts)
    clock.advance(1)
    run = bot.claim(lease)["task_id"]
    task, after = stored_task(parts, request), stored_bot(parts)
    assert (task.state, task.bot_id, task.claim_id) == ("RUNNING", "vm1", f"vm1:{lease['id']}")
    assert task.started_ms == task.modified_ms == clock.now_ms()
    assert (task.bot_version, task.bot_dimensions) == (before.version, before.dimensions)
    assert (task.bot_idle_since_ms, task.slice_index) == (idle_since, 0)
    assert (task.bot_owners, task.bot_logs_cloud_project) == (before.owners, "")
    assert task.server_versions == (__version__,)
    assert parts.store.get(codec.PEND, pend) == [None]
    assert parts.store.scan_keys(codec.OFFER, "", "~", limit=9) == []
    assert parts.store.scan_keys(codec.DUE, "", "~", limit=9) == []
    assert (after.task_id, after.task_name, after.task_flags) == (run, "build", 0)
    assert (after.is_busy, after.dead) == (True, False)
    assert after.last_event_dedup_key == f"request_task:{lease['id']}"
    assert events_of(parts)[-1] == "request_task"


@pytest.mark.spec("4.3.1.9")
def test_bot_that_never_was_idle_is_idle_since_its_claim(parts, bot, clock):
    request = submit(parts)
    clock.advance(5)
    bot.claim(lease_of(request))
    assert stored_task(parts, request).bot_idle_since_ms == clock.now_ms()


@pytest.mark.spec("4.3.1.9")
def test_claim_of_a_bot_that_vanished_meanwhile_is_500(parts, bot, monkeypatch):
    request = submit(parts)
    real = parts.store.transact

    def vanish_first(work, *, label, **more):
        real(lambda txn: txn.delete(codec.BOT, join_key("vm1")), label="test")
        return real(work, label=label, **more)

    monkeypatch.setattr(parts.store, "transact", vanish_first)
    bot.claim(lease_of(request))
    assert bot.status == 500
    assert stored_task(parts, request).state == "PENDING"


@pytest.mark.spec("4.2.1.2", "4.3.1.9", "5.2.1.7", "9.1.1.8", "9.1.1.16", "9.2.1.12", "10.6.p1")
def test_termination_task_is_claimed_as_terminate(parts, bot):
    request = submit(
        parts, priority=0, slices=[make_slice(command=(), dimensions={"id": ("vm1",)})]
    )
    lease = bot.update(nonblocking=False)["lease"]
    run = request.task_id[:-1] + "1"
    assert bot.claim(lease) == {"cmd": "terminate", "task_id": run}
    found = stored_bot(parts)
    assert (found.task_id, found.task_flags) == (run, 1)
    assert events_of(parts)[-1] == "bot_terminate"
    with nothing_changes(parts.store):
        assert bot.claim(lease) == {"cmd": "terminate", "task_id": run}
    assert bot.task_update(run, duration=0, exit_code=0)["ok"] is True
    assert stored_task(parts, request).state == "COMPLETED"
    bot.call("/event", event="bot_shutdown")
    assert stored_bot(parts).termination_task_id == run


@pytest.mark.spec("4.2.1.3", "4.3.1.10", "13.1.2", "2.6.1.3")
def test_run_gives_a_session_that_outlives_the_task(parts, bot, clock):
    request = submit(parts, slices=[make_slice(hard_timeout_s=5_000, grace_period_s=70)])
    clock.advance(100)
    old = parts.bots.session_of(bot.session)
    reply = bot.claim(lease_of(request))
    assert set(reply) == {"cmd", "manifest", "task_id", "session"}
    assert reply["task_id"] == request.task_id[:-1] + "1"
    new = parts.bots.session_of(reply["session"])
    assert new.expiry_ms == clock.now_ms() + 3_600_000
    assert new.bot_config.expiry_ms == clock.now_ms() + 5_370_000
    assert (new.session_id, new.rbe_bot_session_id) == (old.session_id, old.rbe_bot_session_id)


@pytest.mark.spec("4.2.1.1")
def test_skip_gives_no_session(parts, bot):
    reply = bot.call("/claim", claim_id="c", task_id="76d00eba71beef10", task_to_run_id=1)
    assert reply == {"cmd": "skip", "reason": "no such task"}


# 4.4


def manifest_of(parts, bot, **slice_):
    request = submit(parts, slices=[make_slice(**slice_)])
    return request, bot.claim(lease_of(request))["manifest"]


@pytest.mark.spec("4.4.p1", "4.4.1.22")
def test_manifest_of_the_smallest_task_has_the_required_keys_and_no_empty_ones(parts, bot):
    request, manifest = manifest_of(parts, bot)
    service_accounts = manifest.pop("service_accounts")
    assert manifest == {
        "task_id": request.task_id[:-1] + "1",
        "bot_id": "vm1",
        "bot_dimensions": {"id": ["vm1"], "os": ["Linux"], "pool": ["default"]},
        "dimensions": {"pool": ["default"]},
        "hard_timeout": 3600,
        "io_timeout": 0,
        "grace_period": 30,
        "command": ["/bin/true"],
        "bot_authenticated_as": manifest["bot_authenticated_as"],
    }
    assert {type(manifest[key]) for key in ("hard_timeout", "io_timeout", "grace_period")} == {int}
    assert set(service_accounts) == {"system", "task"}


FULL = {
    "command": ("python3", "x.py"),
    "dimensions": {**ANY, "os": ("Mac|Linux",)},
    "hard_timeout_s": 0,
    "io_timeout_s": 20,
    "grace_period_s": 7,
    "relative_cwd": "a/b",
    "env": {"A": "1", "B": ""},
    "env_prefixes": {"PATH": ("bin", "a/bin")},
    "outputs": ("out/x", "out/y"),
    "containment_type": 2,
    "caches": (NamedCache("git", "cache/git"),),
    "cas_input_root": CasReference("projects/p/instances/i", CasDigest("ab", 12)),
    "cipd_input": CipdInput(
        "https://packages",
        CipdPackage("client/x", "v1", ".client"),
        (CipdPackage("tool", "v2", "tools"),),
    ),
}
PACKAGES = {
    "server": "https://packages",
    "client_package": {"package_name": "client/x", "version": "v1", "path": ".client"},
    "packages": [{"package_name": "tool", "version": "v2", "path": "tools"}],
}
CAS = {"cas_instance": "projects/p/instances/i", "digest": {"hash": "ab", "size_bytes": 12}}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("bot_id", "vm1", marks=pytest.mark.spec("4.4.1.2")),
        pytest.param(
            "bot_dimensions",
            {"id": ["vm1"], "os": ["Linux"], "pool": ["default"]},
            marks=pytest.mark.spec("4.4.1.3"),
        ),
        pytest.param(
            "dimensions",
            {"os": ["Mac|Linux"], "pool": ["default"]},
            marks=pytest.mark.spec("4.4.1.4"),
        ),
        pytest.param("hard_timeout", 0, marks=pytest.mark.spec("4.4.1.5")),
        pytest.param("io_timeout", 20, marks=pytest.mark.spec("4.4.1.6")),
        pytest.param("grace_period", 7, marks=pytest.mark.spec("4.4.1.7")),
        pytest.param("command", ["python3", "x.py"], marks=pytest.mark.spec("4.4.1.8")),
        pytest.param("relative_cwd", "a/b", marks=pytest.mark.spec("4.4.1.9")),
        pytest.param("env", {"A": "1", "B": ""}, marks=pytest.mark.spec("4.4.1.10")),
        pytest.param(
            "env_prefixes", {"PATH": ["bin", "a/bin"]}, marks=pytest.mark.spec("4.4.1.11")
        ),
        pytest.param(
            "caches",
            [{"name": "git", "path": "cache/git", "hint": "-1"}],
            marks=pytest.mark.spec("4.4.1.12"),
        ),
        pytest.param("cas_input_root", CAS, marks=pytest.mark.spec("4.4.1.13")),
        pytest.param("cipd_input", PACKAGES, marks=pytest.mark.spec("4.4.1.14")),
        pytest.param("outputs", ["out/x", "out/y"], marks=pytest.mark.spec("4.4.1.15")),
        pytest.param("containment", {"containment_type": 2}, marks=pytest.mark.spec("4.4.1.17")),
    ],
)
def test_manifest_says_what_was_asked(parts, bot, key, expected):
    _request, manifest = manifest_of(parts, bot, **FULL)
    assert manifest[key] == expected


@pytest.mark.spec("4.4.1.1", "9.4.1.4", "9.4.1.6")
def test_manifest_names_the_run_which_is_used_in_every_update(parts, bot):
    request, manifest = manifest_of(parts, bot, **FULL)
    assert manifest["task_id"] == request.task_id[:-1] + "1"
    assert bot.task_update(manifest["task_id"])["ok"] is True
    assert bot.task_update(request.task_id)["ok"] is False


@pytest.mark.spec("4.4.1.21")
def test_manifest_says_as_whom_the_bot_is_known(parts, bot):
    _request, manifest = manifest_of(parts, bot)
    assert manifest["bot_authenticated_as"] == stored_bot(parts).authenticated_as != ""


@pytest.mark.spec("4.4.1.3")
def test_manifest_has_the_stored_dimensions_not_those_of_the_moment(parts, bot):
    bot.dims["os"] = ["Linux", "Debian"]
    request = submit(parts)
    manifest = bot.call("/claim", **claim_body(request, dimensions=bot.dims))["manifest"]
    assert manifest["bot_dimensions"]["os"] == ["Linux"]


@pytest.mark.spec("5.6.1.1")
def test_bot_still_named_as_busy_gets_nothing_more(parts, bot, clock):
    """Stricter than the reference server, where the second claim would abandon the first run."""
    first, second = submit(parts, 1), submit(parts, 2)
    run = bot.claim(lease_of(first))["task_id"]
    skips(parts, bot, lease_of(second, lease_id="two"), f"this bot is still running {run}")
    bot.poll()
    assert stored_task(parts, first).state == "BOT_DIED"
    assert bot.claim(lease_of(second, lease_id="two"))["cmd"] == "run"


@pytest.mark.spec("5.6.1.1")
def test_run_is_abandoned_when_the_bot_takes_another_task(parts, bot, clock):
    """The rule by itself: whatever sets another task abandons the one before."""
    first = submit(parts)
    bot.claim(lease_of(first))
    other = BotUpdate(EventKind.REQUEST_TASK, task_id="76d00eba71beef11")
    stamp = replace(parts.bots.stamp(call_of(parts)), event_id="other")
    update_bot(parts.store, "vm1", other, stamp)
    assert stored_task(parts, first).state == "BOT_DIED"
    assert stored_bot(parts).last_abandoned_task == first.task_id[:-1] + "1"


def call_of(parts):
    from botapi.auth.credentials import Presented
    from botapi.bot_call import Call

    return Call(parts.clock.now_ms(), "request", "http://localhost", Presented("127.0.0.1"))


@pytest.mark.spec("0.3.1.6")
def test_keys_of_a_claim_and_of_an_update_are_known_in_any_case(parts, bot):
    request = submit(parts)

    def call(path, body):
        raw = json.dumps({"SESSION": bot.session, **body}).encode()
        return json.loads(bot.post(BOT_PATH + path, raw, {"Content-Type": JSON})[2])

    claimed = {key.title(): value for key, value in claim_body(request).items()}
    run = call("/claim", claimed)["task_id"]
    pins = {"Packages": [{"PATH": "p"}]}
    body = {"Task_ID": run, "Output": "aGk=", "CIPD_pins": pins, "Exit_Code": 0, "Duration": 1}
    assert call("/task_update", body)["ok"] is True
    task = stored_task(parts, request)
    assert (task.state, task.output_bytes) == ("COMPLETED", 2)
    assert task.cipd_pins.packages[0].path == "p"


@pytest.mark.spec("4.3.1.9", "9.1.1.4", "9.5.1.8")
def test_claim_keeps_owners_and_logs_project_and_who_called(parts, bot):
    (was,) = parts.store.get(codec.BOT, join_key("vm1"))
    known = replace(codec.read_bot(was), owners=("ann@example.com",), external_ip="old")
    parts.store.transact(lambda txn: txn.put(codec.BOT, codec.bot_doc(known, was)), label="test")
    session = parts.bots.session_of(bot.session)
    config = replace(session.bot_config, logs_cloud_project="logs")
    bot.session = parts.bots.token(replace(session, bot_config=config))
    request = submit(parts)
    bot.claim(lease_of(request))
    task = stored_task(parts, request)
    assert (task.bot_owners, task.bot_logs_cloud_project) == (("ann@example.com",), "logs")
    assert stored_bot(parts).external_ip == "127.0.0.1"


def test_skipped_claim_says_nothing_of_the_run_that_goes_on(parts, bot, clock):
    run_ms = clock.now_ms()
    bot.claim(lease_of(submit(parts, 1)))
    clock.advance(9)
    assert bot.claim(lease_of(submit(parts, 2), lease_id="two"))["cmd"] == "skip"
    live = parts.last_seen.get("vm1")["vm1"]
    assert (live.run_seen_ms, live.seen_ms) == (run_ms, clock.now_ms())
