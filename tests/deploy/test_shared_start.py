"""The first start on a store that servers share: `skep init` prepares it, servers make nothing."""

import logging
from dataclasses import replace

import pytest

from botapi import app as composition
from botapi import engines
from botapi.cfg import first_bots_cfg
from botapi.cfg.provider import Provider
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.first_start import prepare
from botapi.settings import Settings
from botapi.store.protocol import Outage


@pytest.fixture
def chosen(postgres, tmp_path):
    return Settings(data_dir=tmp_path / "data", store=postgres.new_database())


def opened(chosen):
    return engines.open_store(chosen, Threads(), SystemClock(), SystemRng())


@pytest.mark.slow
def test_server_makes_neither_key_nor_files_and_says_what_to_do(chosen, caplog):
    with caplog.at_level(logging.WARNING):
        assert prepare(chosen) == ""
    assert "skep init" in caplog.text
    assert not (chosen.data_dir / "secrets.keys").exists()
    assert not (chosen.data_dir / "config").exists()
    store = opened(chosen)
    assert [kind for kind in store.kinds() if kind != "schema"] == []
    store.close()


@pytest.mark.slow
def test_init_makes_all_of_it_once(chosen):
    key = prepare(chosen, is_init=True)
    assert key.startswith("skep_")
    assert (chosen.data_dir / "secrets.keys").exists()
    assert not (chosen.data_dir / "config").exists()
    store = opened(chosen)
    in_force = Provider(store, SystemClock()).latest()
    assert (in_force.rev, in_force.source.bots) == (1, first_bots_cfg.TEXT)
    assert prepare(chosen, is_init=True) == ""
    assert prepare(chosen) == ""
    assert prepare(chosen, is_init=True, new_admin_key=True) not in {"", key}
    assert Provider(store, SystemClock()).latest().rev == 1
    store.close()


@pytest.mark.slow
def test_server_without_the_files_of_the_configuration_is_no_mistake(chosen):
    prepare(chosen, is_init=True)
    store = opened(chosen)
    parts = composition.build(chosen, store, Threads(), SystemClock(), SystemRng())
    assert parts.watcher.check(1) is None
    assert parts.config.rejected() is None
    parts.close()


# The platform's clock.


@pytest.fixture
def timed(settings, store, clock, rng):
    chosen = replace(settings, cron_header="X-Appengine-Cron")
    parts = composition.build(chosen, store, Threads(), clock, rng)
    yield parts, composition.create_app(parts).test_client()
    parts.release()


def test_sweep_is_run_for_the_platform_alone(timed, monkeypatch):
    parts, client = timed
    rounds = []
    monkeypatch.setattr(type(parts.sweeps), "round", lambda _self: rounds.append(1))
    assert client.get("/internal/cron/sweep").status_code == 404
    assert client.get("/internal/cron/sweep", headers={"X-Appengine-Cron": "1"}).status_code == 404
    assert rounds == []
    good = client.get("/internal/cron/sweep", headers={"X-Appengine-Cron": "true"})
    assert (good.status_code, rounds) == (200, [1])


def test_sweep_that_meets_a_dead_store_is_503(timed, monkeypatch):
    parts, client = timed

    def fails(_self):
        raise Outage("away")

    monkeypatch.setattr(type(parts.sweeps), "round", fails)
    answer = client.get("/internal/cron/sweep", headers={"X-Appengine-Cron": "true"})
    assert answer.status_code == 503
    assert "away" not in answer.text


def test_sweep_by_http_is_not_there_unless_a_setting_opens_it(client):
    answer = client.get("/internal/cron/sweep", headers={"X-Appengine-Cron": "true"})
    assert answer.status_code == 404
