"""What a group says of its bots, and where that ends up (bot-api 7.1, 7.2)."""

import logging
from uuid import uuid4

import pytest

from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg
from tests.handlers.test_claims import lease_of
from tests.handlers.test_life_of_a_bot import stored_bot, stored_task, submit
from tests.transactions.stores import FAMILY, store_of


@pytest.fixture(params=FAMILY)
def store(request, clock, rng):
    with store_of(request, clock, rng) as store:
        yield store


def push(parts, more, trusted='"pool"'):
    text = f"""trusted_dimensions: [{trusted}]
        bot_group {{ auth {{ ip_whitelist: "loopback" }} dimensions: "pool:default" {more} }}"""
    head = parts.config.latest()
    now_ms = parts.clock.now_ms()
    push_config(parts.store, bots_cfg(text), parent=head.digest, author="t", now_ms=now_ms)


@pytest.mark.spec("7.1.2.5", "7.1.2.11")
def test_owners_and_logs_project_are_copied_to_the_bot_and_to_what_it_runs(parts, bot):
    push(parts, 'owners: ["a@example.com", "b@example.com"] logs_cloud_project: "logs"')
    bot.poll()
    assert stored_bot(parts).owners == ("a@example.com", "b@example.com")
    request = submit(parts)
    bot.claim(lease_of(request))
    task = stored_task(parts, request)
    assert task.bot_owners == ("a@example.com", "b@example.com")
    assert task.bot_logs_cloud_project == "logs"


def test_dropped_value_of_a_trusted_key_is_logged_once(parts, bot, caplog):
    key = f"rack-{uuid4().hex}"  # what was logged is remembered by the process
    push(parts, "", trusted=f'"pool", "{key}"')
    bot.dims |= {key: ["r1"]}
    with caplog.at_level(logging.WARNING):
        bot.poll()
        bot.poll()
    assert f"{key}:r1" not in stored_bot(parts).dimensions
    assert [r.getMessage() for r in caplog.records if key in r.getMessage()] == [
        f'bot "vm1": only its group may set the trusted dimensions {key}; its own are dropped'
    ]
