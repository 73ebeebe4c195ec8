"""The handshake, step by step and field by field (bot-api 1.3)."""

import pytest

from botapi import __version__
from botapi.domain.bot_groups import handshake_config_hash
from tests.handlers.configs import POOLS, SERIAL, configure, group
from tests.handlers.test_life_of_a_bot import events_of, stored_bot


def session_of(parts, bot):
    return parts.bots.session_of(bot.session)


def live_state(parts, bot_id="vm1"):
    return parts.last_seen.get(bot_id)[bot_id].state


@pytest.mark.spec("1.3.2.1")
def test_handshake_reads_the_configuration_that_is_in_force_now(parts, make_bot, monkeypatch):
    cached = parts.config.cached()
    configure(parts, bots=group('dimensions: "zone:eu"'))
    monkeypatch.setattr(type(parts.config), "cached", lambda _self: cached)
    reply = make_bot().handshake()
    assert reply["bot_group_cfg"]["dimensions"] == {"pool": ["default"], "zone": ["eu"]}


@pytest.mark.spec("1.3.2.3")
def test_handshake_of_a_bot_without_credentials_is_refused_before_its_session_id(parts, make_bot):
    configure(parts, bots=group(auth="auth { require_enrolled_secret: true }"))
    bot = make_bot()
    bot.handshake(session_id="NOT ONE")
    assert bot.status == 401
    assert "X-Skep-Bot-Secret is missing" in bot.text


@pytest.mark.spec("1.3.1.2", "1.3.1.3", "1.3.2.6")
def test_handshake_keeps_state_version_and_the_dimensions_as_sent(parts, make_bot):
    bot = make_bot()
    bot.handshake(state={"disk": 5}, version="v7", dimensions={"id": ["vm1"], "pool": ["mine"]})
    assert live_state(parts) == {
        "disk": 5,
        "handshaking": True,
        "initial_dimensions": {"id": ["vm1"], "pool": ["mine"]},
    }
    assert stored_bot(parts).version == "v7"
    assert stored_bot(parts).dimensions == ("id:vm1", "pool:default")


@pytest.mark.spec("1.3.2.6")
def test_handshake_keeps_bad_dimensions_too_but_not_without_end(parts, make_bot):
    bot = make_bot()
    bot.handshake(dimensions={"id": ["vm1"], "9": []})
    assert live_state(parts)["initial_dimensions"] == {"id": ["vm1"], "9": []}
    room = 16 * 1024 - len('{"id":["vm1"],"os":[""]}')
    for size, kept in [(room, True), (room + 1, False)]:
        bot.handshake(dimensions={"id": ["vm1"], "os": ["x" * size]}, session_id=f"s{size}")
        assert bool(live_state(parts)["initial_dimensions"]) is kept


@pytest.mark.spec("1.3.1.1", "1.3.p1")
def test_handshake_leaves_the_dimensions_of_a_bot_that_is_known(parts, make_bot):
    bot = make_bot().start()
    before = stored_bot(parts).dimensions
    bot.handshake(dimensions={"id": ["vm1"], "os": ["Other"]}, session_id="second")
    assert stored_bot(parts).dimensions == before
    assert events_of(parts)[-1] == "bot_connected"


@pytest.mark.spec("1.3.2.7", "6.2.1.8", "3.7.1.5")
def test_contradicting_pools_quarantine_from_the_handshake_on(parts, make_bot):
    other = POOLS.format(more="").replace("default", "b").replace("one", "two")
    configure(parts, bots=group(pools=("default", "b")), pools=POOLS.format(more="") + other)
    bot = make_bot()
    reply = bot.handshake()
    why = (
        "the pools name different RBE instances: projects/p/instances/one, projects/p/instances/two"
    )
    assert stored_bot(parts).quarantined == why
    assert reply["rbe"]["instance"] == "projects/local/instances/default"
    assert bot.poll()["cmd"] == "sleep"
    assert stored_bot(parts).quarantined == why


@pytest.mark.spec("1.3.2.9", "2.5.1.1", "2.6.1.1", "2.1.2.7")
def test_handshake_begins_a_session_and_ignores_the_token_it_is_given(parts, clock, make_bot):
    configure(parts, pools=SERIAL)
    bot = make_bot("vm1", dims={"serial": ["7"]}).start()
    old = session_of(parts, bot)
    assert old.rbe_bot_session_id
    assert old.bot_config.rbe_effective_bot_id == "default:serial:7"
    clock.advance(30)
    bot.session_id = "second/2"
    bot.handshake()
    new = session_of(parts, bot)
    assert (new.bot_id, new.session_id) == ("vm1", "second/2")
    assert new.rbe_bot_session_id == ""
    assert new.expiry_ms == clock.now_ms() + 3_600_000
    assert new.bot_config.expiry_ms == clock.now_ms() + 3_600_000
    assert new.last_seen_config_ms == parts.config.latest().fetched_ms
    config = new.bot_config
    assert config.rbe_effective_bot_id == ""
    assert config.rbe_effective_bot_id_dimension == "serial"
    assert config.rbe_instance == "projects/p/instances/one"
    bot.session = "%%%"
    bot.handshake()
    assert bot.status == 200


@pytest.mark.spec("1.3.3.1", "1.3.3.2", "1.3.3.3", "1.3.3.5", "1.3.3.6", "1.3.3.7")
def test_handshake_reply_without_hooks_has_its_fields(parts, make_bot):
    reply = make_bot(ours=False).handshake()
    assert sorted(reply) == [
        "bot_config_name",
        "bot_config_rev",
        "bot_group_cfg",
        "bot_version",
        "rbe",
        "server_version",
        "session",
    ]
    assert reply["bot_config_name"] == "bot_config.py"
    assert reply["server_version"] == __version__
    assert len(reply["bot_config_rev"]) == 64


@pytest.mark.spec("1.3.3.4", "1.3.3.5", "7.6.p1")
def test_hooks_of_the_group_travel_in_the_handshake(parts, make_bot):
    text = "# hooks: größe\ndef get_state(botobj):\n    return {}\n"
    configure(parts, bots=group('bot_config_script: "linux.py"'), linux=text)
    reply = make_bot().handshake()
    assert (reply["bot_config"], reply["bot_config_name"]) == (text, "linux.py")


@pytest.mark.spec("7.6.p1")
def test_script_that_is_missing_when_it_is_loaded_is_not_named(parts, make_bot):
    """The hash stays consistent, so that the bot does not restart for ever."""
    configure(parts, bots=group('bot_config_script: "gone.py"'))
    bot = make_bot()
    reply = bot.handshake()
    assert (reply["bot_config_name"], "bot_config" in reply) == ("bot_config.py", False)
    now = parts.config.latest().bots.group_of("vm1")
    assert session_of(parts, bot).handshake_config_hash == handshake_config_hash(now)
    assert bot.poll()["cmd"] == "rbe"
