"""Who may read the metrics, when a server is ready, and what several workers show together."""

import dataclasses
import ipaddress
import os
import threading
import time

import pytest

from botapi import app as composition
from botapi import metrics, observe
from botapi.auth.access import new_api_key
from botapi.clock import SystemRng
from botapi.concurrency import Threads
from botapi.domain.names import new_request_id, task_id
from botapi.domain.permissions import Role
from botapi.observe import WorkerFiles, counted_here, merged, rendered
from botapi.scheduler.latest import Latest
from botapi.scheduler.readiness import CLOCK_TOLERANCE_MS
from botapi.secrets.key_file import make_key_file
from botapi.secrets.vault import NAMED
from botapi.store import codec
from botapi.store.protocol import Doc, Outage, join_key
from botapi.transactions.create_api_key import create_api_key
from tests.e2e.fleet import Api, ServerProcess, kill, wait_until
from tests.fakes.person import Person, new_key

FOREIGN = {"REMOTE_ADDR": "192.0.2.7"}


def read(client, *, key="", environ=None, **headers):
    if key:
        headers["Authorization"] = f"Bearer {key}"
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get("/metrics", headers=headers, environ_overrides=environ or {})


def client_with(settings, store, clock, rng, **changes):
    chosen = dataclasses.replace(settings, **changes)
    parts = composition.build(chosen, store, Threads(), clock, rng)
    return composition.create_app(parts).test_client()


def test_metrics_are_open_to_loopback_and_to_nobody_who_was_forwarded(client):
    assert read(client).status_code == 200
    assert read(client, environ={"REMOTE_ADDR": "::1"}).status_code == 200
    for header in ("X_Forwarded_For", "Forwarded", "X_Real_IP", "Via"):
        assert read(client, **{header: "192.0.2.7"}).status_code == 401


def test_metrics_ask_others_for_a_viewer_of_the_whole_server(client, store, clock, rng):
    assert read(client, environ=FOREIGN).status_code == 401
    assert read(client, environ=FOREIGN, key="nonsense").status_code == 401
    for role, status in ((Role.VIEWER, 200), (Role.BOOTSTRAP, 403)):
        text, key = new_api_key(f"a-{role}", role, rng, now_ms=clock.now_ms())
        create_api_key(store, key)
        assert read(client, environ=FOREIGN, key=text).status_code == status, role


def test_setting_opens_the_metrics_or_closes_them(settings, store, clock, rng):
    everywhere = (ipaddress.ip_network("0.0.0.0/0"),)
    is_open = client_with(settings, store, clock, rng, metrics_from=everywhere)
    assert read(is_open, environ=FOREIGN).status_code == 200
    closed = client_with(settings, store, clock, rng, metrics_from=())
    assert read(closed).status_code == 401


def lines(text):
    """The value of each sample, by name with labels."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_metrics_show_the_fleet_as_it_is(client, make_bot, store, clock, rng):
    person = Person(client, new_key(store, clock, rng))
    make_bot("vm1").start()
    person.submit("x", wait_for_capacity=True)
    clock.advance(30)
    shown = lines(read(client).text)
    assert shown['skep_bots{pool="default",status="idle"}'] == 1
    assert shown['skep_bots{pool="default",status="dead"}'] == 0
    assert shown['skep_tasks{pool="default",state="PENDING"}'] == 1
    assert shown['skep_task_oldest_pending_seconds{pool="default"}'] == 30
    assert shown["skep_config_revision"] == 1
    assert [value for name, value in shown.items() if name.startswith("skep_bots_version")] == [1]
    person.submit("x", wait_for_capacity=True)
    assert lines(read(client).text)['skep_tasks{pool="default",state="PENDING"}'] == 1
    clock.advance(11)
    shown = lines(read(client).text)
    assert shown['skep_tasks{pool="default",state="PENDING"}'] == 2
    assert shown['skep_task_oldest_pending_seconds{pool="default"}'] == 41


def test_metrics_are_text_that_prometheus_reads(client):
    from prometheus_client.parser import text_string_to_metric_families

    reply = read(client)
    families = {family.name for family in text_string_to_metric_families(reply.text)}
    assert {"skep_http_requests", "skep_ready", "skep_build_info"} <= families
    assert reply.content_type.startswith("text/plain; version=")


# readiness


def readyz(client, path="/readyz", **headers):
    reply = client.get(path, headers=headers)
    return reply.status_code, reply.text


def test_ready_server_says_so_in_words_and_in_json(client):
    assert readyz(client) == (200, "ready\n")
    said = '{"ready":true,"failing":[],"warnings":[]}\n'
    assert readyz(client, "/readyz?format=json") == (200, said)
    assert readyz(client, Accept="application/json") == (200, said)
    assert readyz(client, Accept="*/*") == (200, "ready\n")


def test_server_is_not_ready_while_the_store_is_away_and_recovers(
    client, store, clock, monkeypatch
):
    def away(*_args, **_more):
        raise Outage("gone")

    with monkeypatch.context() as broken:
        broken.setattr(store, "schema", away)
        reply = client.get("/readyz?format=json")
        assert (reply.status_code, reply.json["failing"]) == (503, ["store"])
        assert reply.headers["Retry-After"]
        assert client.get("/healthz").text == "ok\n"
    assert readyz(client)[0] == 503, "an answer is kept for two seconds"
    clock.advance(3)
    assert readyz(client) == (200, "ready\n")
    assert metrics.REGISTRY.get_sample_value("skep_ready", {"check": "store"}) == 1


def test_value_that_never_comes_is_waited_for_once(clock):
    class Ticking(type(clock)):
        def monotonic(self):
            return time.monotonic()

    stuck = threading.Event()
    slow = Latest(stuck.wait, Threads(), Ticking(), keep_s=0.0, wait_s=0.1)
    began = time.monotonic()
    assert slow.get() is None
    first = time.monotonic() - began
    assert first >= 0.1
    began = time.monotonic()
    assert [slow.get() for _ in range(50)] == [None] * 50
    assert time.monotonic() - began < first, "nobody waits for one that is overdue"
    stuck.set()


def newest(store, clock, ahead_ms, kind):
    """A stamp that far ahead of the clock."""
    at_ms = clock.now_ms() + ahead_ms
    if kind == "task":
        key = codec.task_key(task_id(new_request_id(at_ms, 7)))
        doc = Doc(key, {})
    elif kind == "audit":
        doc = codec.audit_doc(
            at_ms=at_ms, entry_id="e", actor="a", verb="v", target="t",
            reason="", before="", after="",
        )  # fmt: skip
    else:
        doc = Doc("sweeper", {"holder": "h", "until_ms": at_ms + 10_000, "fence": 1})
    store.transact(lambda txn: txn.put(kind, doc), label="test")


def test_server_without_the_key_file_is_not_ready_once_there_is_a_secret(
    parts, client, store, clock, caplog
):
    path = parts.bots.vault.path
    path.unlink(missing_ok=True)
    assert readyz(client) == (200, "ready\n"), "nothing is sealed"
    store.write_many([(NAMED, Doc(join_key("token"), {"v": 1}))])  # as another front end does
    clock.advance(6)
    assert readyz(client) == (503, "failing: secrets\n")
    clock.advance(6)
    assert readyz(client)[0] == 503
    events = [record.event for record in caplog.records if hasattr(record, "event")]
    assert events.count("secrets_cannot_be_opened") == 1, "it is said once"
    path.parent.mkdir(parents=True, exist_ok=True)
    make_key_file(path, SystemRng())
    clock.advance(6)
    assert readyz(client) == (200, "ready\n")


@pytest.mark.parametrize("kind", ["task", "audit", "duty"])
def test_server_whose_clock_is_behind_the_store_is_not_ready(client, store, clock, caplog, kind):
    newest(store, clock, CLOCK_TOLERANCE_MS - 1_000, kind)
    assert readyz(client) == (200, "ready\n")
    clock.advance(6)
    newest(store, clock, CLOCK_TOLERANCE_MS + 60_000, kind)
    assert readyz(client) == (503, "failing: clock\n")
    assert metrics.REGISTRY.get_sample_value("skep_clock_behind_store_seconds") == 360
    clock.advance(6)
    assert readyz(client)[0] == 503
    events = [record.event for record in caplog.records if hasattr(record, "event")]
    assert events.count("clock_behind_store") == 1, "it is said once"
    entries = store.scan(codec.AUDIT, "", "\U0010ffff", limit=50)
    assert [e.body["verb"] for e in entries].count("clock.behind") == 1
    clock.advance(60)
    assert readyz(client) == (200, "ready\n")


def test_clock_is_watched_also_when_nobody_asks(parts, store, clock, caplog):
    newest(store, clock, CLOCK_TOLERANCE_MS + 90_000, "task")
    readiness = parts.observed.readiness
    readiness.watch()
    assert not caplog.records, "not yet"
    clock.advance(61)
    readiness.watch()
    assert "clock_behind_store" in {getattr(record, "event", "") for record in caplog.records}


def test_server_watches_its_clock_from_its_start(parts, monkeypatch):
    begun = []
    monkeypatch.setattr(Threads, "spawn", lambda _self, fn, *_args: begun.append(fn))
    parts.start()
    assert parts.observed.run in begun
    assert parts.sweeps.run in begun
    assert parts.offers.run in begun


# several workers


def counters(text):
    found = lines(rendered(text).decode())
    return {name: value for name, value in found.items() if name.startswith("skep_leases")}


def sample(families, name, value):
    """The families, with this value of one sample."""
    for family in families:
        for key in family.samples:
            if key[0] == name:
                family.samples[key] = value
    return families


def test_workers_are_added_up_and_gauges_as_they_should(tmp_path):
    one, other = counted_here(), counted_here()
    for name, here, there in (
        ("skep_leases_expired_total", 3, 4),
        ("skep_held_calls", 10, 5),
        ("skep_config_revision", 7, 6),
        ("skep_workers", 1, 1),
    ):
        sample(one, name, here)
        sample(other, name, there)
    shown = lines(rendered(merged(one, [other])).decode())
    assert shown["skep_leases_expired_total"] == 7
    assert shown["skep_held_calls"] == 15
    assert shown["skep_config_revision"] == 7
    assert shown["skep_workers"] == 2


def publish_as(folder, pid, leases):
    """A worker's file with so many expired leases."""
    families = sample(counted_here(), "skep_leases_expired_total", leases)
    name = f"{pid}-{os.urandom(8).hex()}"
    (folder / name).write_bytes(observe._encode(families))
    return folder / name


def test_worker_that_ended_counts_on_and_its_file_goes(tmp_path):
    files, lock = WorkerFiles.make(tmp_path)
    (folder,) = (tmp_path / "metrics").iterdir()
    ended = publish_as(folder, 101, 5)
    publish_as(folder, 102, 7)
    total = lambda: counters(merged([], files.others()))  # noqa: E731
    assert total() == {"skep_leases_expired_total": 12}
    content = ended.read_bytes()
    files.bury(101)
    assert not ended.exists()
    assert total() == {"skep_leases_expired_total": 12}
    ended.write_bytes(content)
    assert total() == {"skep_leases_expired_total": 12}, "a file that is buried counts once"
    ended.unlink()
    publish_as(folder, 101, 1)
    assert total() == {"skep_leases_expired_total": 13}, "a number of a process comes again"
    lock.close()


def test_folders_of_servers_that_ended_are_removed_and_no_other(tmp_path):
    _, lock = WorkerFiles.make(tmp_path)
    (first,) = (tmp_path / "metrics").iterdir()
    _, second = WorkerFiles.make(tmp_path)
    assert first.exists()
    lock.close()
    _, third = WorkerFiles.make(tmp_path)
    assert not first.exists()
    for held in (second, third):
        held.close()


PING = "/swarming/api/v1/bot/server_ping"


@pytest.fixture
def server(tmp_path):
    """Two workers."""
    server = ServerProcess(tmp_path, {"SKEP_WORKERS": "2"})
    key = server.init()
    server.start()
    yield server, Api(server.url, key)
    server.end()


@pytest.mark.e2e
def test_one_scrape_shows_both_workers_and_one_that_was_killed(server):
    process, api = server
    shown = lambda: lines(api.send("GET", "/metrics")[0].decode())  # noqa: E731
    pings = f'skep_http_requests_total{{code="200",method="GET",route="{PING}"}}'
    for _ in range(40):
        api.send("GET", PING)
    wait_until("both workers are shown", lambda: shown()["skep_workers"] == 2)
    wait_until("all requests are counted", lambda: shown().get(pings) == 40)
    victim = process.workers()[0]
    kill(victim)
    counts = lambda: [path.name for path in (process.data / "metrics").glob("*/[0-9]*")]  # noqa: E731
    is_theirs = lambda: [name for name in counts() if name.startswith(f"{victim}-")]  # noqa: E731
    wait_until("it is buried", lambda: victim not in process.workers() and not is_theirs())
    wait_until("both workers are shown", lambda: shown()["skep_workers"] == 2)
    assert shown()[pings] == 40
    process.terminate()
    assert list((process.data / "metrics").iterdir()) == []
