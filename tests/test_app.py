"""The composition root: what runs beside the requests, and who is written down for it."""

import pytest

from botapi import app as composition
from botapi import engines
from botapi.concurrency import Threads
from botapi.first_start import prepare
from botapi.store import codec
from botapi.store.protocol import Outage
from tests.factories import LOOPBACK_CFG


def audit_of(store):
    docs = store.scan(codec.AUDIT, "", "\U0010ffff", limit=10)
    return [(doc.body["actor"], doc.body["verb"], doc.body["target"]) for doc in docs]


def test_changed_bots_cfg_is_audited_once(settings, store, clock, rng):
    parts = composition.build(settings, store, Threads(), clock, rng)
    settings.config_dir.mkdir(parents=True)
    path = settings.config_dir / "bots.cfg"
    path.write_text(LOOPBACK_CFG)
    parts.watcher.check(clock.now_ms())
    parts.watcher.check(clock.now_ms())
    assert audit_of(store) == [("bots.cfg", "config.apply", "bots.cfg")]
    clock.advance(5)
    path.write_text("bot_group {")
    parts.watcher.check(clock.now_ms())
    assert len(audit_of(store)) == 1, "a file that is refused changes nothing"


def test_init_ends_with_one_line_when_the_store_goes_away_amid_it(
    settings, store, monkeypatch, capsys
):
    def gone(*_, **__):
        raise Outage("the database is away")

    monkeypatch.setattr(store, "scan_keys", gone)
    monkeypatch.setattr(engines, "open_store", lambda *_: store)
    with pytest.raises(SystemExit):
        prepare(settings, is_init=True)
    assert capsys.readouterr().err == "error: the database is away\n"


@pytest.mark.slow
def test_admin_key_made_on_the_server_is_audited(settings, clock, rng):
    text = prepare(settings)
    store = engines.open_store(settings, Threads(), clock, rng)
    key_id = text.split("_")[1]
    assert audit_of(store) == [("skep init", "apikey.create", f"apikey {key_id}")]
    store.close()
