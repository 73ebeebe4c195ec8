"""Updates, ends and errors of a run: every row of bot-api 5, as a bot and a person meet it."""

from dataclasses import replace

import pytest

from botapi import __version__
from botapi import app as composition
from botapi.domain.bot import LiveBot
from botapi.store import codec
from botapi.store.protocol import Conflict, Outage
from botapi.transactions.bot_missing import bot_missing
from botapi.transactions.late_output import LATE_LIMIT_BYTES, MAX_LATE_PIECES
from botapi.transactions.update_bot import Stamp
from tests.fakes.person import Person, new_key
from tests.fakes.sim_bot import flask_post
from tests.handlers.test_claims import Broken
from tests.handlers.test_life_of_a_bot import (
    events_of,
    output_of,
    stored_bot,
    stored_task,
    submit,
)
from tests.handlers.test_refusals import REFUSED, nothing_changes

CAS = {"cas_instance": "projects/p/instances/i", "digest": {"hash": "ab", "size_bytes": 12}}
PINS = {
    "client_package": {"package_name": "client", "version": "v1", "path": ".c"},
    "packages": [{"package_name": "tool", "version": "v2", "path": "t"}],
}
STATS = {
    "cache_trim_stats": {"duration": 0.5},
    "cipd_stats": {"duration": 1},
    "cleanup_stats": {"duration": 2.25},
    "named_caches_stats": {"install": {"duration": 3.0}, "uninstall": {"duration": 4.0}},
    "isolated_stats": {
        "download": {
            "duration": 5.0,
            "initial_number_items": 6,
            "initial_size": 7,
            "items_cold": "AQI=",
            "items_hot": "Aw==",
        },
        "upload": {"duration": 8.0, "items_cold": "BA=="},
    },
}


@pytest.fixture
def bot(make_bot):
    """An upstream bot: it says nothing of `skep`."""
    return make_bot(ours=False).start()


@pytest.fixture
def admin(client, store, clock, rng):
    return Person(client, new_key(store, clock, rng))


@pytest.fixture
def request_(parts):
    return submit(parts)


@pytest.fixture
def run(request_, bot):
    """The bot runs the task; the run id."""
    return bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]


def task_of(parts, run):
    (doc,) = parts.store.get(codec.TASK, codec.task_key(run))
    return codec.read_task(doc)


def put_task(parts, run, **changes):
    (was,) = parts.store.get(codec.TASK, codec.task_key(run))
    task = replace(codec.read_task(was), **changes)
    parts.store.transact(lambda txn: txn.put(codec.TASK, codec.task_doc(task, was)), label="test")


def kill(admin, run):
    reply = admin.post(f"/tasks/{run}/cancel", {"kill_running": True}).json
    return reply["canceled"], reply["was_running"]


def die(parts):
    """The server gives the bot up; BotInfo goes on naming the task."""
    seen = LiveBot("vm1", parts.clock.now_ms() + 10**9)
    assert bot_missing(
        parts.store, seen, stored_bot(parts), Stamp(parts.clock.now_ms(), "missing", 10**12)
    )
    assert stored_bot(parts).task_id


def last_event(parts):
    (doc,) = parts.store.scan(codec.EVENT, "vm1!", 'vm1"', limit=1)
    return codec.read_event(doc)


def refuses(parts, bot, text, **body):
    with nothing_changes(parts.store):
        bot.call("/task_update", **body)
    assert (bot.status, bot.text) == (400, REFUSED.format(text))


# 5.1


@pytest.mark.spec("5.1.1.1", "5.7.1.1")
@pytest.mark.parametrize("path", ["/task_update", "/task_error"])
def test_call_about_a_task_needs_a_session(parts, bot, run, path):
    with nothing_changes(parts.store):
        bot.session = None
        bot.call(path, task_id=run)
    assert bot.status == 401


@pytest.mark.spec("5.1.1.2", "9.4.1.6", "5.7.2.1")
def test_task_id_must_be_exactly_the_run_that_is_recorded(parts, bot, run):
    for other in (run[:-1] + "0", run[:-1] + "2", "0" + run, run.upper(), run + " "):
        with nothing_changes(parts.store):
            assert bot.task_update(other, b"x")["ok"] is False
            assert bot.finish(other)["ok"] is False
            assert bot.call("/task_error", task_id=other) == {}


@pytest.mark.spec("5.1.1.3")
def test_bot_id_in_the_body_counts_for_nothing(parts, bot, run):
    assert bot.task_update(run, b"x", id="somebody-else")["ok"] is True
    assert bot.finish(run, b"y", 1, id="")["ok"] is True
    assert output_of(parts, task_of(parts, run)) == b"xy"


@pytest.mark.spec("5.1.1.4", "5.7.1.3")
@pytest.mark.parametrize("uuid", ["a-b/c", "no, not a uuid", "ü" * 5_000, "x" * 51])
@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/task_update", "task_completed", {"exit_code": 0, "duration": 1}),
        ("/task_error", "task_error", {}),
    ],
)
def test_request_uuid_is_the_key_of_the_event_and_may_be_anything(
    parts, bot, run, uuid, path, kind, body
):
    bot.call(path, task_id=run, request_uuid=uuid, **body)
    assert bot.status == 200
    key = stored_bot(parts).last_event_dedup_key
    assert key.startswith(f"{kind}:")
    assert key == f"{kind}:{uuid}" or (len(key) < 90 and uuid != "a-b/c")


@pytest.mark.spec("5.1.1.5", "5.1.1.6", "5.4.1.5")
def test_output_goes_to_its_absolute_offset_and_is_stored_once(parts, bot, run):
    bot.task_update(run, b"abc", 0)
    bot.task_update(run, b"abc", 0)
    bot.task_update(run, b"bcde", 1)
    assert bot.task_update(run)["ok"] is True
    bot.finish(run, b"e!", 4)
    assert output_of(parts, task_of(parts, run)) == b"abcde!"
    assert task_of(parts, run).missing_bytes == 0


@pytest.mark.spec("5.1.1.7", "5.1.1.8", "5.1.1.9", "5.1.1.10")
@pytest.mark.parametrize(
    ("body", "ended"),
    [
        ({"exit_code": 0, "duration": 2.5}, ("COMPLETED", 0, 2.5)),
        ({"exit_code": -9, "duration": 0}, ("COMPLETED", -9, 0.0)),
        ({"hard_timeout": True}, ("TIMED_OUT", -1, 4.0)),
        ({"io_timeout": True}, ("TIMED_OUT", -1, 4.0)),
        ({"canceled": True}, ("CANCELED", None, None)),
        ({"hard_timeout": False, "io_timeout": False, "canceled": False}, ("RUNNING", None, None)),
        ({"exit_code": None, "hard_timeout": None, "canceled": None}, ("RUNNING", None, None)),
        ({}, ("RUNNING", None, None)),
    ],
)
def test_call_completes_when_one_of_four_fields_says_so(parts, bot, run, clock, body, ended):
    clock.advance(4)
    assert bot.task_update(run, **body)["ok"] is True
    task = task_of(parts, run)
    assert (str(task.state), task.exit_code, task.duration_s) == ended


@pytest.mark.spec("5.1.1.11")
def test_cost_is_the_greatest_that_an_end_has_named(parts, bot, run, admin):
    assert bot.task_update(run, b"x", cost_usd=9.0)["ok"] is True
    assert task_of(parts, run).cost_usd == 0.0
    bot.task_update(run, exit_code=0, duration=1, cost_usd=0.25)
    assert admin.get(f"/tasks/{run}").json["cost_usd"] == 0.25


@pytest.mark.spec("5.1.1.12", "5.1.1.13", "5.5.2.10")
def test_digest_and_pins_are_kept_at_the_end_only_and_shown(parts, bot, run, admin):
    bot.task_update(run, b"x", cas_output_root=CAS, cipd_pins=PINS)
    assert task_of(parts, run).cas_output_root is None
    bot.task_update(run, exit_code=0, duration=1, cas_output_root=CAS, cipd_pins=PINS)
    shown = admin.get(f"/tasks/{run}").json
    assert (shown["cas_output_root"], shown["cipd_pins"]) == (CAS, PINS)


@pytest.mark.spec("5.5.2.10")
def test_digest_and_pins_are_overwritten_even_with_nothing(parts, bot, run, admin):
    put_task(parts, run, error="before")
    bot.task_update(run, exit_code=0, duration=1)
    shown = admin.get(f"/tasks/{run}").json
    assert (shown["cas_output_root"], shown["cipd_pins"], shown["error"]) == (None, None, None)


@pytest.mark.spec("5.1.1.14", "5.1.1.15", "5.1.1.16", "5.1.1.17", "5.5.2.11", "9.5.1.11")
def test_statistics_are_kept_and_shown_when_the_overhead_is_named(parts, bot, run, admin):
    bot.task_update(run, exit_code=0, duration=1, bot_overhead=1.5, **STATS)
    assert admin.get(f"/tasks/{run}").json["performance"] == {
        "bot_overhead": 1.5,
        "cache_trim": {"duration": 0.5},
        "cipd": {"duration": 1.0},
        "cleanup": {"duration": 2.25},
        "named_caches": STATS["named_caches_stats"],
        "isolated": STATS["isolated_stats"],
    }


@pytest.mark.spec("5.1.1.14", "5.5.2.11")
def test_statistics_without_the_overhead_are_not_kept(parts, bot, run, admin):
    assert bot.task_update(run, exit_code=0, duration=1, **STATS)["ok"] is True
    assert admin.get(f"/tasks/{run}").json["performance"] is None


def test_huge_sets_of_items_are_left_out_and_their_numbers_kept(parts, bot, run, caplog):
    huge = {"duration": 1.0, "items_cold": "A" * 16_388, "items_hot": "A" * 16_384}
    stats = {"isolated_stats": {"download": huge}}
    assert bot.task_update(run, exit_code=0, duration=1, bot_overhead=0.0, **stats)["ok"] is True
    kept = task_of(parts, run).performance.isolated.download
    assert (kept.duration, kept.items_cold, len(kept.items_hot)) == (1.0, None, 16_384)
    assert "over 16384 characters" in caplog.text


@pytest.mark.spec("5.1.1.15")
@pytest.mark.parametrize(
    "body",
    [
        {"cipd_stats": 5},
        {"cleanup_stats": {"duration": "1"}},
        {"isolated_stats": {"download": [1]}},
        {"cas_output_root": {"digest": {"size_bytes": "x"}}},
        {"cipd_pins": {"packages": {}}},
        {"canceled": 1},
        {"exit_code": 1.5},
    ],
)
def test_field_of_a_wrong_type_is_400(parts, bot, run, body):
    with nothing_changes(parts.store):
        bot.task_update(run, **body)
    assert bot.status == 400


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"cost_usd": -1, "duration": -1}, "cost_usd: negative: -1.0"),
        ({"duration": -1, "bot_overhead": 1}, "duration: negative: -1.0"),
        ({"duration": -1}, "duration: negative: -1.0"),
        ({"duration": 1, "bot_overhead": 1}, "duration and exit_code: both or none"),
        ({"exit_code": 1, "bot_overhead": 1}, "duration and exit_code: both or none"),
        ({"bot_overhead": 1}, "bot_overhead: needs duration"),
        ({"hard_timeout": True, "duration": 2}, "duration and exit_code: both or none"),
        ({"canceled": True, "bot_overhead": 2}, "bot_overhead: needs duration"),
    ],
)
def test_first_mistake_in_the_order_of_the_page_is_named(parts, bot, run, body, text):
    with nothing_changes(parts.store):
        bot.task_update(run, **body)
    assert bot.status == 400
    assert f"desc = {text}" in bot.text


@pytest.mark.spec("5.3.1.8")
def test_missing_task_is_said_before_a_mistake_in_the_numbers(parts, bot, run):
    parts.store.transact(lambda txn: txn.delete(codec.TASK, codec.task_key(run)), label="test")
    with nothing_changes(parts.store):
        bot.task_update(run, cost_usd=-1)
    assert bot.status == 404


# 5.2


@pytest.mark.spec("5.2.1.1", "5.3.1.5")
def test_first_update_of_a_real_bot_says_its_cost_only(parts, bot, run):
    with nothing_changes(parts.store):
        reply = bot.call(f"/task_update/{run}", id="vm1", task_id=run, cost_usd=0.01)
    assert reply == {"ok": True, "must_stop": False, "session": bot.session}


@pytest.mark.spec("5.2.1.2", "5.5.1.1")
def test_bot_told_to_stop_before_it_began_reports_canceled(parts, bot, run, admin):
    assert kill(admin, run) == (True, True)
    assert bot.task_update(run, cost_usd=0.01)["must_stop"] is True
    reply = bot.task_update(run, cost_usd=0.01, canceled=True)
    assert (reply["ok"], reply["must_stop"]) == (True, False)
    task = task_of(parts, run)
    assert (task.state, task.killing) == ("CANCELED", False)
    assert events_of(parts)[-1] == "task_completed"


@pytest.mark.spec("5.2.1.3")
def test_update_with_a_full_buffer_is_stored(parts, bot, run):
    text = bytes(range(250)) * 1_000
    for part in range(4):
        reply = bot.task_update(run, text, part * 250_000, cost_usd=0.1)
        assert (reply["ok"], reply["must_stop"]) == (True, False)
    assert output_of(parts, task_of(parts, run)) == text * 4


@pytest.mark.spec("5.2.1.4")
def test_normal_end_of_a_real_bot(parts, bot, run):
    reply = bot.task_update(
        run,
        b"the end",
        exit_code=0,
        duration=1.25,
        cost_usd=0.1,
        io_timeout=False,
        hard_timeout=False,
        cas_output_root=CAS,
        bot_overhead=0.5,
        cipd_pins=PINS,
        **STATS,
    )
    assert reply["ok"] is True
    task = task_of(parts, run)
    assert (task.state, task.exit_code, task.output_bytes) == ("COMPLETED", 0, 7)


@pytest.mark.spec("5.2.1.5", "5.5.1.5", "5.7.2.5")
def test_internal_failure_is_an_update_and_then_an_error(parts, bot, run):
    said = {"cost_usd": 0.1, "io_timeout": False, "hard_timeout": False}
    reply = bot.task_update(run, b"last words", **said)
    assert (reply["ok"], reply["must_stop"]) == (True, False)
    assert task_of(parts, run).state == "RUNNING"
    nothing = {"missing_cas": [], "missing_cipd": []}
    body = {"id": "vm1", "task_id": run, "message": "no fork", "client_error": nothing}
    assert bot.call(f"/task_error/{run}", **body) == {}
    task = task_of(parts, run)
    assert (task.state, task.error, task.output_bytes) == ("BOT_DIED", "no fork", 10)


@pytest.mark.spec("5.2.1.6")
def test_command_that_could_not_start_is_a_normal_end(parts, bot, run):
    bot.task_update(run, b"no such file", exit_code=1, duration=0.0, cost_usd=0.0)
    task = task_of(parts, run)
    assert (task.state, task.exit_code, task.failure) == ("COMPLETED", 1, True)
    assert task.internal_failure is False


# 5.3


def stops(reply, *, ok, has_session):
    assert set(reply) == {"ok", "must_stop", "stop_reason"} | ({"session"} & set(reply))
    assert (reply["ok"], reply["must_stop"], "session" in reply) == (ok, True, has_session)
    assert reply["stop_reason"]


@pytest.mark.spec("5.3.1.1", "5.3.1.2")
def test_update_of_a_run_that_is_not_the_bots_own(parts, bot, run):
    bot.finish(run)
    with nothing_changes(parts.store):
        for output in (b"", b"late"):
            stops(bot.task_update(run, output), ok=False, has_session=False)
        assert bot.finish(run) == {"ok": False, "must_stop": False}


@pytest.mark.spec("5.3.1.3")
def test_update_of_a_run_that_the_server_has_ended(parts, bot, run):
    die(parts)
    with nothing_changes(parts.store):
        stops(bot.task_update(run), ok=True, has_session=True)


@pytest.mark.spec("5.3.1.4")
@pytest.mark.parametrize("output", [b"", b"more"])
def test_update_of_a_run_that_is_being_killed(parts, bot, run, admin, output):
    kill(admin, run)
    stops(bot.task_update(run, output), ok=True, has_session=True)
    assert output_of(parts, task_of(parts, run)) == output


@pytest.mark.spec("5.3.1.5", "5.3.1.6")
def test_update_that_is_accepted(bot, run):
    for reply in (bot.task_update(run, b"a"), bot.finish(run, b"b", 1)):
        assert reply == {"ok": True, "must_stop": False, "session": bot.session}


@pytest.mark.spec("5.3.1.7", "5.7.2.4")
def test_run_recorded_for_another_bot_is_400(parts, bot, run):
    put_task(parts, run, bot_id="vm9")
    text = 'task_id: this run is recorded for "vm9"'
    refuses(parts, bot, text, task_id=run)
    refuses(parts, bot, text, task_id=run, output="aGk=")
    refuses(parts, bot, text, task_id=run, exit_code=0, duration=1)
    with nothing_changes(parts.store):
        bot.call("/task_error", task_id=run)
    assert bot.status == 400


@pytest.mark.spec("5.3.1.8", "5.7.2.3", "D.1.6")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/task_update", {}),
        ("/task_update", {"output": "aGk="}),
        ("/task_update", {"exit_code": 0, "duration": 1}),
        ("/task_error", {}),
    ],
)
def test_task_that_is_gone_is_404_in_json_which_ends_the_retries(parts, bot, run, path, body):
    parts.store.transact(lambda txn: txn.delete(codec.TASK, codec.task_key(run)), label="test")
    with nothing_changes(parts.store):
        bot.call(path, task_id=run, **body)
    assert bot.status == 404
    assert bot.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.spec("5.3.1.9")
@pytest.mark.parametrize("error", [Outage("the disk is gone"), Conflict("lost every race")])
def test_storage_failure_is_a_server_error_that_bots_try_again(parts, bot, run, error):
    parts.bots = replace(parts.bots, store=Broken(parts.store, error))
    bot.post = flask_post(composition.create_app(parts).test_client())
    with nothing_changes(parts.store):
        bot.finish(run, b"x")
        assert bot.status == 503
        bot.call("/task_error", task_id=run)
        assert bot.status == 503


@pytest.mark.spec("D.1.8", "5.3.1.6", "C.1.2")
@pytest.mark.parametrize("is_killed", [False, True])
def test_late_completion_frees_the_bot_and_leaves_the_result(parts, bot, run, admin, is_killed):
    """The edge of 5.3: the server ended the run, and the bot still names it."""
    if is_killed:
        kill(admin, run)
    die(parts)
    before = task_of(parts, run)
    assert before.state == ("KILLED" if is_killed else "BOT_DIED")
    reply = bot.finish(run, b"late", exit_code=3)
    assert (reply["ok"], reply["must_stop"]) == (True, False)
    assert task_of(parts, run) == replace(before, late_bytes=4, late_pieces=1)
    assert stored_bot(parts).task_id == ""
    event = last_event(parts)
    assert event.kind == ("task_killed" if is_killed else "task_completed")
    assert event.task_id == run
    assert event.message == (
        f"late result of {run}, which had ended as {before.state}: "
        "exit code 3, 0.1 s, 4 bytes of output from 0 on kept apart"
    )


def late_of(admin, run, query=""):
    return admin.get(f"/tasks/{run}/output?late=1{query}")


def test_late_output_is_kept_beside_the_result_and_once(parts, bot, run, admin):
    bot.task_update(run, b"abc", 0)
    die(parts)
    before = task_of(parts, run)
    for _ in range(2):
        stops(bot.task_update(run, b"def", 3), ok=True, has_session=True)
    bot.task_update(run, b"efgh", 4)
    bot.finish(run, b"z", 20, exit_code=0)
    assert admin.get(f"/tasks/{run}/output").data == b"abc"
    assert task_of(parts, run) == replace(before, late_bytes=8, late_pieces=3)
    late = late_of(admin, run)
    assert (late.data, late.headers["X-Skep-Final"]) == (b"defghz", "1")
    part = late_of(admin, run, "&offset=1&limit=2")
    assert (part.data, part.headers["X-Skep-Final"]) == (b"ef", "0")


def test_late_output_is_kept_up_to_its_limit(parts, bot, run, admin):
    die(parts)
    for number in range(3):
        bot.task_update(run, b"x" * 600_000, number * 600_000)
    assert task_of(parts, run).late_bytes == LATE_LIMIT_BYTES
    assert len(late_of(admin, run).data) == LATE_LIMIT_BYTES


@pytest.mark.slow
def test_late_output_comes_in_a_bounded_number_of_pieces(parts, bot, run, admin):
    die(parts)
    for number in range(MAX_LATE_PIECES + 2):
        bot.task_update(run, b"x", number)
    assert len(late_of(admin, run).data) == MAX_LATE_PIECES


def test_output_of_a_run_that_goes_on_has_no_late_part(bot, run, admin):
    bot.task_update(run, b"abc", 0)
    late = late_of(admin, run)
    assert (late.data, late.headers["X-Skep-Final"]) == (b"", "0")


def test_late_output_goes_with_its_task(parts, bot, run, clock):
    bot.task_update(run, b"abc", 0)
    die(parts)
    bot.finish(run, b"late", 3, exit_code=0)
    clock.advance(91 * 86_400)
    parts.sweeps.round()
    assert parts.store.scan_keys(codec.OUT, "", "\U0010ffff", limit=9) == []


# 5.4, as decided: a gap is refused, the limit is a setting, and what is missing is counted


def test_output_over_the_limit_is_dropped_and_counted_and_the_call_succeeds(parts, bot, run, admin):
    limits = replace(parts.bots.settings, output_limit_bytes=10)
    parts.bots = replace(parts.bots, settings=limits)
    bot.post = flask_post(composition.create_app(parts).test_client())
    assert bot.task_update(run, b"0123456789abc", 0)["ok"] is True
    assert bot.finish(run, b"def", 13)["ok"] is True
    shown = admin.get(f"/tasks/{run}").json
    assert (shown["output_bytes"], shown["missing_bytes"]) == (10, 6)
    assert shown["output_limit_hit"] is True


def test_gap_is_refused_until_the_end_where_it_is_counted(parts, bot, run, admin):
    """Nothing is ever filled with zeros; an upstream bot's end says how much is missing."""
    bot.task_update(run, b"abc", 0)
    with nothing_changes(parts.store):
        bot.task_update(run, b"xyz", 10)
        assert (bot.status, bot.headers["X-Skep-Committed"]) == (409, "3")
    assert bot.finish(run, b"xyz", 10)["ok"] is True
    shown = admin.get(f"/tasks/{run}").json
    assert (shown["output_bytes"], shown["missing_bytes"]) == (6, 7)
    assert output_of(parts, task_of(parts, run)) == b"abcxyz"


# 5.5


@pytest.mark.parametrize(
    ("body", "killing", "state", "event"),
    [
        pytest.param(
            {"canceled": True},
            False,
            "CANCELED",
            "task_completed",
            marks=pytest.mark.spec("5.5.1.1"),
        ),
        pytest.param(
            {"canceled": True, "hard_timeout": True},
            True,
            "CANCELED",
            "task_completed",
            marks=pytest.mark.spec("5.5.1.1"),
        ),
        pytest.param(
            {"hard_timeout": True, "exit_code": -9, "duration": 1},
            True,
            "TIMED_OUT",
            "task_completed",
            marks=pytest.mark.spec("5.5.1.2"),
        ),
        pytest.param(
            {"io_timeout": True},
            False,
            "TIMED_OUT",
            "task_completed",
            marks=pytest.mark.spec("5.5.1.2"),
        ),
        pytest.param(
            {"exit_code": 0, "duration": 1},
            True,
            "KILLED",
            "task_killed",
            marks=pytest.mark.spec("5.5.1.3"),
        ),
        pytest.param(
            {"exit_code": 0, "duration": 1},
            False,
            "COMPLETED",
            "task_completed",
            marks=pytest.mark.spec("5.5.1.6"),
        ),
    ],
)
def test_end_of_a_run_gives_its_state_and_its_event(
    parts, bot, run, admin, body, killing, state, event
):
    if killing:
        kill(admin, run)
    assert bot.task_update(run, **body)["ok"] is True
    assert (task_of(parts, run).state, events_of(parts)[-1]) == (state, event)
    assert last_event(parts).task_id == run
    assert stored_bot(parts).last_finished_task == run


MISSING = {"missing_cas": [{"instance": "i", "digest": "ab/12"}]}


@pytest.mark.parametrize(
    ("client_error", "killing", "state"),
    [
        pytest.param(MISSING, True, "KILLED", marks=pytest.mark.spec("5.5.1.3")),
        pytest.param(MISSING, False, "CLIENT_ERROR", marks=pytest.mark.spec("5.5.1.4")),
        pytest.param(None, False, "BOT_DIED", marks=pytest.mark.spec("5.5.1.5")),
        pytest.param({}, False, "BOT_DIED", marks=pytest.mark.spec("5.5.1.5", "5.7.1.4")),
        pytest.param(
            {"missing_cas": [], "missing_cipd": []},
            False,
            "BOT_DIED",
            marks=pytest.mark.spec("5.5.1.5", "5.7.1.4"),
        ),
    ],
)
def test_task_error_gives_its_state_and_its_event(
    parts, bot, run, admin, client_error, killing, state
):
    if killing:
        kill(admin, run)
    assert bot.call("/task_error", task_id=run, client_error=client_error) == {}
    assert (task_of(parts, run).state, events_of(parts)[-1]) == (state, "task_error")
    assert stored_bot(parts).task_id == ""


@pytest.mark.spec("5.5.1.3", "5.5.1.5", "5.6.1.1", "9.2.1.1")
@pytest.mark.parametrize("killing", [False, True])
def test_abandoned_run_is_bot_died_or_killed(parts, bot, run, admin, killing):
    if killing:
        kill(admin, run)
    bot.session_id = "another/2"
    bot.handshake()
    assert task_of(parts, run).state == ("KILLED" if killing else "BOT_DIED")
    assert events_of(parts)[-1] == "bot_connected"
    assert last_event(parts).message == f"Abandoned task {run}"
    assert stored_bot(parts).last_abandoned_task == run


@pytest.mark.spec("5.5.2.1", "5.5.2.2", "5.5.2.12")
def test_end_sets_its_times_and_what_the_api_shows_of_it(parts, bot, run, admin, clock):
    kill(admin, run)
    clock.advance(7)
    bot.finish(run, b"x", exit_code=2)
    shown = admin.get(f"/tasks/{run}").json
    assert shown["completed_at"] == "2026-03-04T06:06:14.089Z"
    assert (shown["killing"], shown["abandoned_at"]) == (False, "2026-03-04T06:06:07.089Z")
    assert (shown["exit_code"], shown["duration_s"], shown["output_bytes"]) == (2, 0.1, 1)
    task = task_of(parts, run)
    assert task.modified_ms == task.completed_ms == clock.now_ms()


@pytest.mark.spec("5.5.2.12")
def test_result_names_every_server_version_that_had_a_hand_in_it(parts, bot, run):
    put_task(parts, run, server_versions=("0.0.1",))
    bot.finish(run)
    assert task_of(parts, run).server_versions == ("0.0.1", __version__)


# 5.7


@pytest.mark.spec("5.7.1.1", "5.7.p1", "5.7.2.5")
def test_task_error_is_answered_with_exactly_an_empty_object(parts, bot, run):
    bot.call(f"/task_error/{run}", id="vm1", task_id=run, message="m")
    assert (bot.status, bot.text) == (200, "{}\n")
    bot.call(f"/task_error/{run}", id="vm1", task_id=run, message="m")
    assert (bot.status, bot.text) == (200, "{}\n")


@pytest.mark.spec("5.7.1.2")
def test_message_of_a_task_error_is_that_of_the_event_and_bounded(parts, bot, run, admin):
    bot.call("/task_error", task_id=run, message="two\nlines" + "x" * 20_000)
    message = last_event(parts).message
    assert message.startswith("two\nlines")
    assert len(message) == 16_384
    assert admin.get(f"/tasks/{run}").json["error"] == message


@pytest.mark.spec("5.7.1.4", "5.5.2.9")
def test_missing_inputs_are_kept_and_shown(parts, bot, run, admin, clock):
    clock.advance(2)
    package = {"package_name": "tool", "version": "v2", "path": "t"}
    client_error = {**MISSING, "missing_cipd": [package]}
    assert bot.call("/task_error", task_id=run, client_error=client_error) == {}
    shown = admin.get(f"/tasks/{run}").json
    assert shown["missing_cas"] == [
        {"cas_instance": "i", "digest": {"hash": "ab", "size_bytes": 12}}
    ]
    assert shown["missing_cipd"] == [package]
    assert (shown["state"], shown["internal_failure"]) == ("CLIENT_ERROR", True)
    assert (shown["exit_code"], shown["duration_s"]) == (-1, 2.0)
    assert shown["abandoned_at"] == shown["completed_at"] == "2026-03-04T06:06:09.089Z"


def test_missing_inputs_are_bounded(parts, bot, run):
    many = [{"instance": "i" * 5_000, "digest": f"ab/{n}"} for n in range(101)]
    packages = [{"package_name": "p" * 5_000, "version": None}] * 101
    client_error = {"missing_cas": many, "missing_cipd": packages}
    assert bot.call("/task_error", task_id=run, client_error=client_error) == {}
    task = task_of(parts, run)
    assert (len(task.missing_cas), len(task.missing_cipd)) == (100, 100)
    assert len(task.missing_cas[0].cas_instance) == 1_024
    assert len(task.missing_cipd[0].package_name) == 1_024


@pytest.mark.spec("5.7.2.2")
@pytest.mark.parametrize(
    "body",
    [
        {"task_id": None},
        {"task_id": ""},
        *(
            {"client_error": {"missing_cas": [{"digest": digest}]}}
            for digest in (None, "", "ab", "/1", "ab/", "ab/x", "ab/-1", "ab/1/2", "ab/" + "9" * 19)
        ),
        {"client_error": {"missing_cas": [{"digest": 5}]}},
        {"client_error": {"missing_cipd": ["x"]}},
    ],
)
def test_task_error_that_makes_no_sense_is_400(parts, bot, run, body):
    with nothing_changes(parts.store):
        bot.call("/task_error", **{"task_id": run, **body})
    assert bot.status == 400
    assert bot.text.count("\n") == 1


@pytest.mark.spec("5.7.2.2", "5.1.1.2")
@pytest.mark.parametrize("path", ["/task_update", "/task_error"])
def test_malformed_task_id_is_400_even_when_the_bot_is_recorded_with_it(parts, bot, path):
    """Only a mistake of ours could record such an id; the check is there all the same."""
    (was,) = parts.store.get(codec.BOT, "vm1")
    broken = codec.bot_doc(replace(codec.read_bot(was), task_id="not hex"))
    parts.store.transact(lambda txn: txn.put(codec.BOT, broken), label="test")
    with nothing_changes(parts.store):
        bot.call(path, task_id="not hex")
    assert bot.status == 400


@pytest.mark.spec("5.7.2.1")
def test_task_error_of_another_task_records_nothing(parts, bot, run):
    with nothing_changes(parts.store):
        bot.call("/task_error", task_id="76d00eba71beef11", message="m")
    assert (bot.status, bot.text) == (200, "{}\n")


@pytest.mark.spec("5.7.2.5")
def test_task_error_of_a_run_that_has_ended_frees_the_bot(parts, bot, run):
    die(parts)
    before = task_of(parts, run)
    assert bot.call("/task_error", task_id=run, message="late") == {}
    assert task_of(parts, run) == before
    assert (stored_bot(parts).task_id, events_of(parts)[-1]) == ("", "task_error")


# 5.9


def cancel(admin, run, *, kill_running):
    reply = admin.post(f"/tasks/{run}/cancel", {"kill_running": kill_running}).json
    return reply["canceled"], reply["was_running"], reply["task"]["state"]


@pytest.mark.spec("5.9.1.1", "5.8.1.7")
@pytest.mark.parametrize("kill_running", [False, True])
@pytest.mark.parametrize("is_offered", [False, True])
def test_pending_task_is_canceled_at_once(parts, bot, admin, request_, kill_running, is_offered):
    if is_offered:
        assert bot.update(nonblocking=False)["lease"]
    done = cancel(admin, request_.task_id, kill_running=kill_running)
    assert done == (True, False, "CANCELED")
    task = stored_task(parts, request_)
    now = parts.clock.now_ms()
    assert (task.completed_ms, task.abandoned_ms, task.claim_id) == (now, now, "")
    for kind in (codec.PEND, codec.OFFER, codec.DUE):
        assert parts.store.scan_keys(kind, "", "~", limit=9) == []
    assert "lease" not in bot.update()


@pytest.mark.spec("5.9.1.2")
def test_running_task_goes_on_when_it_may_not_be_killed(parts, admin, run):
    with nothing_changes(parts.store):
        assert cancel(admin, run, kill_running=False) == (False, True, "RUNNING")


@pytest.mark.spec("5.9.1.3", "5.9.1.4", "5.8.1.9")
def test_running_task_is_killed_once_and_runs_until_the_bot_reports(parts, bot, admin, run, clock):
    clock.advance(1)
    assert cancel(admin, run, kill_running=True) == (True, True, "RUNNING")
    task = task_of(parts, run)
    assert (task.killing, task.abandoned_ms) == (True, clock.now_ms())
    clock.advance(1)
    with nothing_changes(parts.store):
        assert cancel(admin, run, kill_running=True) == (False, True, "RUNNING")
    bot.finish(run, exit_code=-15)
    assert task_of(parts, run).state == "KILLED"


@pytest.mark.spec("5.9.1.5")
@pytest.mark.parametrize("kill_running", [False, True])
def test_final_task_stays_as_it_is(parts, bot, admin, run, kill_running):
    bot.finish(run)
    with nothing_changes(parts.store):
        assert cancel(admin, run, kill_running=kill_running) == (False, False, "COMPLETED")
