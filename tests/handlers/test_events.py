"""`POST /event`, field by field (bot-api 1.6)."""

import pytest

from botapi.handlers.event import MAX_MESSAGE_CHARS
from botapi.store import codec
from tests.handlers.test_life_of_a_bot import events_of, stored_bot, stored_task, submit
from tests.transactions.stores import dump


def newest_event(parts):
    (doc,) = parts.store.scan(codec.EVENT, "", "~", limit=1)
    return codec.read_event(doc)


def live(parts):
    return parts.last_seen.get("vm1")["vm1"]


@pytest.mark.spec("1.6.1.1", "1.6.1.2", "1.6.1.3", "1.1.2.4", "2.6.1.4")
@pytest.mark.parametrize("kind", ["bot_error", "bot_log", "bot_rebooting", "bot_shutdown"])
def test_event_is_kept_with_its_message_and_answered_with_nothing(parts, clock, bot, kind):
    clock.advance(100)
    message = "line\n\x1b[31m <b>%s</b> ü"
    assert bot.call("/event", event=kind, message=message) == {}
    assert (bot.status, bot.text) == (200, "{}\n")
    event = newest_event(parts)
    assert (event.kind, event.message) == (kind, message)
    assert live(parts).seen_ms == clock.now_ms()


@pytest.mark.spec("1.6.1.3")
def test_message_is_kept_to_its_limit(parts, bot):
    for length, kept in [(MAX_MESSAGE_CHARS, MAX_MESSAGE_CHARS), (20_000, MAX_MESSAGE_CHARS)]:
        bot.call("/event", event="bot_log", message="x" * length)
        assert len(newest_event(parts).message) == kept


@pytest.mark.spec("1.6.1.4", "6.2.1.2")
def test_state_of_an_event_decides_health_with_the_stored_dimension(parts, bot):
    bot.poll(dimensions={**bot.dims, "quarantined": ["no disk"]})
    bot.call("/event", event="bot_log", state={"a": 1})
    assert live(parts).state == {"a": 1}
    assert stored_bot(parts).quarantined == "no disk"
    bot.call("/event", event="bot_log", state={"quarantined": "mine", "maintenance": "m"})
    assert (stored_bot(parts).quarantined, stored_bot(parts).maintenance) == ("mine", "m")
    bot.call("/event", event="bot_log", state={"b": 1}, dimensions={"quarantined": [""]})
    assert (stored_bot(parts).quarantined, stored_bot(parts).maintenance) == ("no disk", "")


@pytest.mark.spec("1.6.1.4")
@pytest.mark.parametrize("state", [{}, None])
def test_event_without_a_state_changes_neither_state_nor_health(parts, bot, state):
    bot.poll(state={"maintenance": "m"})
    bot.call("/event", event="bot_log", state=state)
    assert stored_bot(parts).maintenance == "m"
    assert live(parts).state == {"maintenance": "m"}


@pytest.mark.spec("1.6.1.5")
def test_version_of_an_event_is_stored_when_there_is_one(parts, bot):
    version = stored_bot(parts).version
    for sent, kept in [(None, version), ("", version), ("v9", "v9")]:
        bot.call("/event", event="bot_log", version=sent)
        assert stored_bot(parts).version == kept
    before = dump(parts.store)
    bot.call("/event", event="bot_log", version="x" * 129)
    assert (bot.status, dump(parts.store)) == (400, before)
    bot.call("/event", event="bot_log", version="x" * 128)
    assert bot.status == 200


@pytest.mark.spec("1.6.1.7")
@pytest.mark.parametrize("dimensions", [{"id": ["other"], "pool": ["mine"]}, "text", [1], None])
def test_dimensions_of_an_event_are_not_looked_at(parts, bot, dimensions):
    before = stored_bot(parts).dimensions
    bot.call("/event", event="bot_log", dimensions=dimensions)
    assert (bot.status, stored_bot(parts).dimensions) == (200, before)


@pytest.mark.spec("1.6.1.6", "13.1.4", "1.1.3.4")
def test_event_with_a_uuid_of_fifty_characters_is_kept_once(parts, bot):
    for _ in range(2):
        assert bot.call("/event", event="bot_log", request_uuid="x" * 50) == {}
        assert bot.status == 200
    assert events_of(parts).count("bot_log") == 1
    bot.call("/event", event="bot_log", request_uuid="x" * 51)
    assert bot.status == 400


@pytest.mark.spec("6.5.1.3")
@pytest.mark.parametrize("state", [{"quarantined": "q"}, {"maintenance": "m"}])
def test_health_reported_by_an_event_does_not_interrupt_the_run(parts, bot, state):
    request = submit(parts)
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    bot.call("/event", event="bot_log", state=state)
    assert stored_bot(parts).task_id == run_id
    reply = bot.task_update(run_id, b"x")
    assert (reply["ok"], reply["must_stop"]) == (True, False)
    bot.finish(run_id, b"", 1)
    assert stored_task(parts, request).state == "COMPLETED"
