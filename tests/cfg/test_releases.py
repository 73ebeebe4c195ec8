"""Releases in the store: every server gives the same archive; nothing is read twice."""

import json
import threading
from base64 import b64encode
from dataclasses import replace
from hashlib import sha512

import pytest

from botapi import app as composition
from botapi import engines
from botapi.auth.release_signing import verify_archive
from botapi.cfg.bot_archive import config_json, content_digest, unpack
from botapi.cfg.releases import (
    CHUNK_BYTES,
    KIND,
    MAX_VERSIONS,
    BoundedCache,
    chunk_docs,
    read_release,
    read_versions,
    versions_doc,
)
from botapi.concurrency import Threads
from botapi.domain.bot_groups import BotGroup
from botapi.domain.errors import Refusal
from botapi.domain.manifest import Label
from botapi.settings import Settings
from botapi.transactions.change_deployment import Author
from botapi.transactions.delete_releases import delete_releases
from botapi.transactions.push_config import push_config
from botapi.transactions.upload_archive import upload_archive
from tests.factories import bots_cfg
from tests.fakes.signed_zip import PUBLIC, signed, zipped
from tests.fakes.wrapped_store import WrappedStore

URL = "http://localhost"
GROUP = BotGroup()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "zip_main.py").write_text("print('bot')\n")
    return folder


@pytest.fixture
def settings(tmp_path, folder):
    return Settings(data_dir=tmp_path / "data", bot_archive=folder)


@pytest.fixture
def make_server(settings, clock, rng):
    """Server processes on one store."""
    made = []

    def make(store, **changes):
        parts = composition.build(replace(settings, **changes), store, Threads(), clock, rng)
        made.append(parts)
        return parts

    yield make
    for parts in made:
        parts.release()


@pytest.fixture
def server(make_server, store):
    push_config(store, bots_cfg(), parent="", author="t", now_ms=1)
    return make_server(store)


def edit(folder, clock, *servers, text="x = 1\n", name="extra.py"):
    (folder / name).write_text(text)
    clock.advance(2)
    for server in servers:
        server.archives.look()


@pytest.mark.spec("8.1.p1", "8.1.1.2", "8.2.p1")
def test_archive_is_the_sources_the_server_and_the_manifest(server):
    members = unpack(server.archives.archive(URL).content)
    assert {*members} == {
        "__main__.py",
        "bot_client/__init__.py",
        "bot_client/zip_main.py",
        "config/config.json",
        "manifest.json",
        "manifest.sig",
    }
    assert members["config/config.json"] == config_json(URL)
    assert server.archives.archive(URL).version == content_digest(members)


@pytest.mark.spec("8.1.1.1")
def test_archive_holds_the_hooks_of_the_server_when_there_are_some(server, settings, clock):
    before = server.archives.archive(URL)
    release = server.archives.expected_release("vm1", GROUP)
    nothing = server.archives.hooks_digest(release)
    scripts = settings.config_dir / "scripts"
    scripts.mkdir(parents=True)
    generation = server.archives.generation()
    edit(scripts, clock, server, name="bot_config.py", text="# hooks\n")
    after = server.archives.archive(URL)
    assert unpack(after.content)["config/bot_config.py"] == b"# hooks\n"
    assert after.version != before.version
    assert server.archives.expected_release("vm1", GROUP) == release, "the same release"
    assert server.archives.hooks_digest(release) != nothing
    assert server.archives.generation() > generation
    verify_archive(unpack(after.content), server.archives.trust())


def test_own_build_is_signed_with_the_development_key(server):
    members = unpack(server.archives.archive(URL).content)
    found = verify_archive(members, server.archives.trust())
    assert (found.label, found.manifest.release) == (Label.DEVELOPMENT, 1)
    assert json.loads(members["manifest.sig"])["kind"] == "development"


def test_release_number_grows_with_each_build_and_is_drawn_once(server, folder, clock):
    def number():
        members = unpack(server.archives.archive(URL).content)
        return json.loads(members["manifest.json"])["release"]

    first = server.archives.archive(URL)
    edit(folder, clock, server)
    assert number() == 2
    (folder / "extra.py").unlink()
    clock.advance(2)
    server.archives.look()
    assert number() == 1
    assert server.archives.archive(URL) == first


@pytest.mark.control("archive.digest")
def test_reproducible_archive(server, make_server, store):
    """Two servers, and one that starts later, give the same bytes for the same sources."""
    other = make_server(store)
    assert other.archives.archive(URL) == server.archives.archive(URL)
    assert other.archives.archive("http://b") == server.archives.archive("http://b")
    assert other.archives.archive("http://b") != server.archives.archive(URL)
    assert len(store.scan(KIND, "chunk", "chunk~", limit=100)) == 1


class Noted(threading.Event):
    """An event that tells who waits for it."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def wait(self, timeout=None):
        self.waits.release()
        return super().wait(timeout)


def test_first_calls_at_once_read_and_build_once_and_all_get_the_version(server, monkeypatch):
    """A fleet that comes back asks a server that has nothing in memory yet, all at once."""
    others, natives, found, waits = 7, [], [], threading.Semaphore(0)
    native = server.concurrency.native

    def held(fn):
        natives.append(fn)
        if len(natives) == 1:
            assert all(waits.acquire(timeout=5) for _ in range(others))
        return native(fn)

    monkeypatch.setattr(server.concurrency, "event", lambda: Noted(waits))
    monkeypatch.setattr(server.concurrency, "native", held)
    group = BotGroup()
    ask = lambda: found.append(server.archives.expected_version("vm1", group, URL))  # noqa: E731
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(others + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [server.archives.archive(URL).version] * (others + 1)
    assert len(natives) <= 5  # sources, build, unpack, version, and the archive just asked for


def test_servers_with_other_sources_all_give_the_newest(
    server, make_server, store, folder, clock, tmp_path
):
    server.archives.look()
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    (other_folder / "zip_main.py").write_text("print('newer')\n")
    other = make_server(store, bot_archive=other_folder)
    newer = other.archives.archive(URL)
    assert b"newer" in unpack(newer.content)["__main__.py"]
    assert server.archives.archive(URL) == newer
    edit(folder, clock, server, other)
    assert other.archives.archive(URL) == server.archives.archive(URL) != newer


def test_version_is_answered_from_memory(server, store, make_server, monkeypatch):
    for _ in range(2):
        server.archives.expected_version("vm1", GROUP, URL)

    def fail(*_args, **_more):
        raise AssertionError("the store was asked")

    for name in ("get", "scan", "find", "transact", "write_many"):
        monkeypatch.setattr(type(store), name, fail)
    assert server.archives.expected_version("vm1", GROUP, URL)
    assert server.archives.peek("vm2", GROUP, "", URL)
    assert server.archives.find(server.archives.expected_version("vm1", GROUP, URL), URL)


def test_version_that_a_bot_was_told_is_remembered_by_every_server(
    server, make_server, store, folder, clock
):
    told = server.archives.expected_version("vm1", GROUP, "http://name-one")
    asked = server.archives.archive("http://asked-by-a-stranger").version
    edit(folder, clock, server)
    later = make_server(store)
    assert later.archives.knows(told), "the first call of a server may ask for it"
    assert not later.archives.knows(asked)
    assert later.archives.release_of(told) != later.archives.expected_release("vm1", GROUP)


def test_version_of_another_name_of_the_server_is_as_good(server):
    mine = server.archives.expected_version("vm1", GROUP, "http://a")
    server.archives.warm("http://b")
    assert server.archives.peek("vm1", GROUP, mine, "http://b") == mine
    assert server.archives.peek("vm1", GROUP, "f" * 64, "http://b") not in {"", mine}


def test_question_for_a_version_under_another_address_builds_and_keeps_nothing(server, monkeypatch):
    version = server.archives.expected_version("vm1", GROUP, URL)
    assert server.archives.find(version, URL).version == version
    packed = []
    monkeypatch.setattr("botapi.cfg.releases.pack", packed.append)
    for number in range(10):
        stranger = f"http://stranger-{number}.example"
        assert server.archives.find(version, stranger) is None
        assert server.archives.peek("vm1", GROUP, "", stranger) == ""
    assert not packed


def test_remembered_versions_are_bounded_and_the_newest():
    many = {f"v{n}": ("r", n) for n in range(MAX_VERSIONS + 5)}
    kept = read_versions(versions_doc(many))
    assert len(kept) == MAX_VERSIONS
    assert "v4" not in kept
    assert kept["v5"] == ("r", 5)


@pytest.mark.spec("13.1.52")
def test_release_is_stored_in_pieces_of_307200_bytes(store):
    packed = bytes(range(256)) * 3000
    docs = list(chunk_docs("r", packed))
    assert [len(doc.body["data"]) for doc in docs] == [CHUNK_BYTES, CHUNK_BYTES, 153_600]
    assert CHUNK_BYTES == 307_200
    assert b"".join(doc.body["data"] for doc in docs) == packed


@pytest.mark.slow
def test_large_release_is_read_back_whole(server, store, folder, clock):
    noise = "".join(f"# {sha512(b'%d' % n).hexdigest()}\n" for n in range(20_000))
    edit(folder, clock, server, text=noise)
    release = server.archives.expected_release("vm1", GROUP)
    assert len(store.scan_keys(KIND, "chunk", "chunk~", limit=100)) > 3
    members = read_release(store, Threads(), release)
    assert members["bot_client/extra.py"].decode() == noise


def test_last_good_release_is_served_when_the_sources_break(server, folder, clock):
    before = server.archives.archive(URL)
    edit(folder, clock, server, text="def (:\n")
    assert server.archives.archive(URL) == before
    assert "does not parse" in server.archives.problem()
    edit(folder, clock, server, text="x = 2\n")
    assert server.archives.problem() == ""
    assert server.archives.archive(URL) != before


def test_server_whose_sources_were_never_good_serves_what_the_store_has(
    server, make_server, store, tmp_path
):
    good = server.archives.archive(URL)
    broken = make_server(store, bot_archive=tmp_path / "nowhere")
    assert broken.archives.archive(URL) == good
    assert "there is no such folder or file" in broken.archives.problem()


def test_server_without_any_release_says_so(make_server, clock, rng, tmp_path):
    store = engines.memory_store(Threads(), clock, rng)
    server = make_server(store, bot_archive=tmp_path / "nowhere")
    for ask in (
        lambda: server.archives.archive(URL),
        lambda: server.archives.expected_version("vm1", GROUP, URL),
    ):
        with pytest.raises(Refusal, match="there is no such folder or file"):
            ask()


def test_signed_zip_on_disk_is_served_only_when_its_key_is_trusted(
    server, make_server, store, tmp_path
):
    good = server.archives.archive(URL)
    path = tmp_path / "release.zip"
    path.write_bytes(zipped(signed(7)))
    stranger = make_server(store, bot_archive=path)
    assert stranger.archives.archive(URL) == good
    assert "no release key 'main' is trusted here" in stranger.archives.problem()
    head = server.config.latest()
    public = b64encode(PUBLIC).decode()
    trusting = f'release_key {{ id: "main" public_key: "{public}" role: RELEASE }}'
    source = replace(bots_cfg(), settings=trusting)
    push_config(store, source, parent=head.digest, author="t", now_ms=2)
    friend = make_server(store, bot_archive=path)
    shown = friend.archives.archive(URL)
    assert friend.archives.problem() == ""
    assert verify_archive(unpack(shown.content), friend.archives.trust()).manifest.release == 7


def test_first_build_of_a_new_server_is_nothing_to_audit_and_a_changed_one_is(
    server, store, folder, clock
):
    server.archives.look()
    assert store.scan("audit", "", "\U0010ffff", limit=9) == []
    edit(folder, clock, server)
    (entry,) = store.scan("audit", "", "\U0010ffff", limit=9)
    assert (entry.body["actor"], entry.body["verb"]) == ("rollout", "archive.source")


def test_changed_sources_begin_a_rollout_when_settings_cfg_says_so(server, store, folder, clock):
    old = server.archives.expected_release("vm1-m1", GROUP)
    head = server.config.latest()
    rule = "rollout { ring_percent: 10 soak_secs: 60 max_failed_percent: 10 }"
    source = replace(bots_cfg(), settings=rule)
    push_config(store, source, parent=head.digest, author="t", now_ms=2)
    edit(folder, clock, server)
    new = server.archives.expected_release("vm2-m1", GROUP)
    assert new != old
    assert server.archives.expected_release("vm1-m1", GROUP) == old
    assert server.archives.channels().stable == old, "/bot_code gives stable"


# Deleting.


def test_builds_that_nobody_runs_are_deleted_with_all_their_pieces(server, store, folder, clock):
    for number in range(30):
        edit(folder, clock, server, text=f"x = {number}\n")
    server.sweeps.rollouts.round(clock.now_ms())
    kept = {release.release_id for release in server.archives.deployed().releases}
    assert len(kept) == 22  # 20, stable, and the former one
    keys = store.scan_keys(KIND, "chunk", "chunk~", limit=1000)
    assert {key.split("!")[1] for key in keys} == kept
    clock.advance(25 * 3600)
    server.sweeps.rollouts.round(clock.now_ms())
    assert len(server.archives.deployed().releases) == 2
    assert server.archives.archive("http://elsewhere")


def test_pieces_of_an_upload_that_was_never_finished_are_deleted_the_second_time(
    server, store, clock
):
    server.archives.look()
    store.write_many((KIND, doc) for doc in chunk_docs("9" * 64, b"x"))
    for _ in range(2):
        clock.advance(3601)
        assert store.get(KIND, f"chunk!{'9' * 64}!0000") != [None]
        server.sweeps.rollouts.round(clock.now_ms())
    assert store.get(KIND, f"chunk!{'9' * 64}!0000") == [None]


def test_release_that_is_in_use_is_not_deleted_whoever_asks(server, store):
    stable = server.archives.expected_release("vm1", GROUP)
    stored = {stable: [f"chunk!{stable}!0000"]}
    assert delete_releases(store, stored, (), now_ms=10**15, change_id="c") == ()
    assert server.archives.archive("http://elsewhere")


def test_upload_that_is_deleted_meanwhile_is_not_noted(server, store, clock, admin_release):
    class Forgetful(WrappedStore):
        def write_many(self, docs):
            """As if somebody deleted them at once."""
            list(docs)

    with pytest.raises(Refusal, match="upload it again"):
        upload_archive(Forgetful(store), admin_release, b"x", Author("a", "v", "", "", 1, "c"))
    assert server.archives.deployed().get(admin_release.release_id) is None


@pytest.fixture
def admin_release(server):
    release = server.archives.deployed().releases[0]
    return replace(release, release_id="9" * 64)


# Memory.


def test_cache_keeps_what_was_used_last_up_to_its_bytes():
    cache = BoundedCache(10, len)
    cache.put("a", b"aaaa")
    cache.put("b", b"bbbb")
    assert cache.get("a") == b"aaaa"
    cache.put("c", b"cccc")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"aaaa", None, b"cccc")
    cache.put("a", b"a")
    cache.put("d", b"ddddd")
    assert (cache.get("a"), cache.get("c"), cache.get("d")) == (b"a", b"cccc", b"ddddd")
    cache.put("huge", b"x" * 11)
    assert [cache.get(key) for key in ("a", "c", "d", "huge")] == [None] * 4
