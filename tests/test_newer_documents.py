"""Two releases on one store: what the newer one wrote survives whatever the older one does."""

import shutil
from dataclasses import replace

import pytest

from botapi import engines
from botapi.concurrency import Threads
from botapi.secrets.key_file import make_key_file
from tests.fakes.newer_store import NewerStore
from tests.fakes.person import Person, new_key

KINDS = {
    *("apikey", "archive", "bot", "cfg", "duty", "enrol", "key", "live", "lsession"),
    *("outpos", "queue", "secret", "task", "tsecret", "user"),
}
"""Every kind whose documents are rewritten in place by something in this test."""


@pytest.fixture
def settings(settings, tmp_path):
    """With sources that may be edited."""
    sources = shutil.copytree(settings.bot_archive, tmp_path / "bot")
    settings.data_dir.mkdir()
    return replace(settings, bot_archive=sources)


@pytest.fixture
def store(clock, rng):
    with_field = NewerStore(engines.memory_store(Threads(), clock, rng))
    yield with_field
    with_field.close()


@pytest.fixture
def admin(parts, client, store, clock, rng):
    make_key_file(parts.bots.vault.path, rng)
    return Person(client, new_key(store, clock, rng))


def a_task_lives(admin, bot, parts, clock):
    task = admin.submit(secret_bytes_b64="c2VjcmV0")
    run_id = bot.claim(bot.update()["lease"])["task_id"]
    bot.task_update(run_id, b"one", 0)
    bot.task_update(run_id, b"two", 3)
    clock.advance(120)
    parts.last_seen.flush()
    admin.post(f"/tasks/{task['task_id']}/cancel", {"kill_running": True, "reason": "x"})
    bot.finish(run_id, b"end", 6)
    admin.post(f"/tasks/{task['task_id']}/retry", {"reason": "again"})
    clock.advance(2 * 24 * 3600)
    admin.submit("/bin/true")


def people_change(admin, clock):
    admin.post("/users", {"identity": "user:a@b.com", "grants": []})
    admin.call("PATCH", "/users/user:a@b.com", json={"disabled": True, "reason": "x"})
    made = admin.post("/api-keys", {"name": "ci"}).json
    clock.advance(61)
    admin.call("DELETE", f"/api-keys/{made['key_id']}")
    token = admin.post("/bootstrap-tokens", {}).json
    admin.post(f"/bootstrap-tokens/{token['token_id']}/revoke", {"reason": "x"})


def keys_and_files_change(admin, parts):
    for value in ("first value", "second value"):
        admin.call("PUT", "/secrets/pw", json={"pools": ["*"], "value": value, "reason": "x"})
    admin.post("/secrets/rotate", {"new_key": True, "reason": "x"})
    admin.post("/keys/session/rotate", {"reason": "x"})
    for number in (1, 2):
        now = admin.get("/config").json
        text = now["files"]["bots.cfg"] + f"\n# {number}\n"
        files = {**now["files"], "bots.cfg": text}
        body = {"files": files, "reason": "x", "parent": now["digest"]}
        assert admin.post("/config/apply", body).status_code == 200
    sources = parts.settings.bot_archive / "zip_main.py"
    sources.write_text(sources.read_text() + "\n# changed\n")
    parts.archives.look()


@pytest.mark.slow
def test_fields_of_a_newer_release_stay_when_this_one_rewrites_a_document(
    parts, store, admin, make_bot, clock
):
    bot = make_bot("vm1").start()
    parts.sweeps.round()
    a_task_lives(admin, bot, parts, clock)
    people_change(admin, clock)
    bot.start()
    keys_and_files_change(admin, parts)
    parts.sweeps.look()
    clock.advance(11)
    parts.sweeps.round()
    assert store.lost == set()
    assert KINDS - store.rewritten == set()
