"""Callers have a budget each; wrong credentials have a small one."""

import pytest

from botapi import app as composition
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg
from tests.fakes.sim_bot import SimBot, flask_post


@pytest.fixture
def limited(tmp_path, small_bot, store, clock, rng):
    """A server that takes 5 calls a second of a bot, 20 of an address, 1 with bad credentials."""
    settings = Settings(
        data_dir=tmp_path, bot_archive=small_bot, rate_bot=5, rate_address=20, rate_refused=1
    )
    parts = composition.build(settings, store, Threads(), clock, rng)
    push_config(store, bots_cfg(), parent="", author="test", now_ms=clock.now_ms())
    yield composition.create_app(parts)
    parts.release()


def bot_at(app, address, bot_id="vm1"):
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = address
    return SimBot(flask_post(client), bot_id)


@pytest.mark.control("requests.rate-limits")
def test_bot_that_calls_too_often_is_slowed_and_others_are_not(limited, clock):
    noisy = bot_at(limited, "127.0.0.1").start()
    quiet = bot_at(limited, "127.0.0.2", "vm2").start()
    statuses = []
    for _ in range(12):
        noisy.call("/event", event="bot_log")
        statuses.append(noisy.status)
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert noisy.headers["Retry-After"]
    assert "too many calls" in noisy.text
    quiet.call("/event", event="bot_log")
    assert quiet.status == 200
    clock.advance(1)
    noisy.call("/event", event="bot_log")
    assert noisy.status == 200


@pytest.mark.control("requests.rate-limits")
def test_address_that_calls_too_often_is_slowed_on_every_path(limited):
    client = limited.test_client()
    statuses = [client.get("/api/v1/nothing").status_code for _ in range(3)]
    assert 429 not in statuses
    for path in ("/swarming/api/v1/bot/server_ping", "/api/v1/bots", "/signin"):
        while client.get("/swarming/api/v1/bot/server_ping").status_code != 429:
            pass
        response = client.get(path)
        assert response.status_code == 429, path
        assert response.headers["Retry-After"]


@pytest.mark.control("requests.rate-limits")
def test_wrong_credentials_are_limited_and_running_bots_behind_the_address_are_not(limited):
    running = bot_at(limited, "127.0.0.3").start()
    guesser = bot_at(limited, "127.0.0.3", "vm9")
    statuses = []
    for number in range(12):
        guesser.session = None
        guesser.secret = f"guess-{number}"
        guesser.handshake()
        statuses.append(guesser.status)
    assert statuses[0] == 401
    assert statuses[-1] == 429
    running.call("/event", event="bot_log")
    assert running.status == 200
    elsewhere = bot_at(limited, "127.0.0.4", "vm3")
    elsewhere.handshake()
    assert elsewhere.status == 200


@pytest.mark.control("requests.rate-limits")
def test_what_somebody_may_not_do_is_no_wrong_credential(limited):
    client = limited.test_client()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    paths = ["/prpc/swarming.v2.Bots/ListBots"] * 20
    assert {client.post(p, data=b"{}", headers=headers).status_code for p in paths} == {403}
    assert client.get("/signin").status_code == 200
    statuses = [client.get("/api/v1/whoami").status_code for _ in range(12)]
    assert (statuses[0], statuses[-1]) == (401, 429)


def test_limits_are_off_when_they_are_zero(tmp_path, small_bot, store, clock, rng):
    settings = Settings(
        data_dir=tmp_path, bot_archive=small_bot, rate_bot=0, rate_address=0, rate_refused=0
    )
    parts = composition.build(settings, store, Threads(), clock, rng)
    client = composition.create_app(parts).test_client()
    statuses = {client.get("/swarming/api/v1/bot/server_ping").status_code for _ in range(200)}
    assert statuses == {200}
    parts.release()


def test_api_says_how_many_calls_are_left(limited, clock):
    client = limited.test_client()
    replies = [client.get(f"/api/v1/{path}") for path in ("whoami", "nothing")]
    assert {reply.headers["RateLimit-Policy"] for reply in replies} == {'"address";q=40;w=2'}
    assert [reply.headers["RateLimit"] for reply in replies] == [
        '"address";r=39',
        '"address";r=38',
    ]
    while client.get("/swarming/api/v1/bot/server_ping").status_code != 429:
        pass
    assert client.get("/api/v1/whoami").headers["RateLimit"] == '"address";r=0'
    clock.advance(1)
    assert client.get("/api/v1/whoami").headers["RateLimit"] == '"address";r=19'
