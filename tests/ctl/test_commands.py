"""The commands against a scripted server: what they ask, print and exit with."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from botapi.cli import main
from tests.ctl.conftest import make_task


def test_run_sends_the_options_and_prints_the_id(script, skep):
    script.reply(201, make_task("abc0", "PENDING"))
    done = skep(
        "run", "-d", "os=Linux|Mac", "-dimension", "os=Debian", "--pool", "ci", "--env", "A=1=2",
        "-tag", "build:7", "--priority", "5", "--expiration", "2h", "--hard-timeout", "90s",
        "--io-timeout", "0", "--name", "n", "--", "echo", "--wait", "-d",
    )  # fmt: skip
    assert (done.exit_code, done.stdout, done.stderr) == (0, "abc0\n", "")
    assert script.asked[0].body == {
        "command": ["echo", "--wait", "-d"],
        "dimensions": {"os": ["Linux|Mac", "Debian"], "pool": ["ci"]},
        "env": {"A": "1=2"},
        "tags": ["build:7"],
        "priority": 5,
        "expiration_s": 7200,
        "hard_timeout_s": 90,
        "io_timeout_s": 0,
        "name": "n",
    }


def test_run_leaves_to_the_server_what_was_not_given(script, skep):
    script.reply(201, make_task("abc0", "PENDING"))
    assert skep("run", "true", SKEP_USER="ann").exit_code == 0
    assert script.asked[0].body == {"command": ["true"], "user": "ann"}


@pytest.mark.slow
def test_run_waits_and_says_each_reason_once(script, skep):
    script.reply(201, make_task("a0", "PENDING"))
    for why in ("no bot fits", "no bot fits", "all bots are busy"):
        script.reply(200, make_task("a0", "PENDING", why=why))
    script.reply(200, make_task("a0", "COMPLETED", exit_code=3))
    done = skep("run", "--wait", "--", "false")
    assert (done.exit_code, done.stdout) == (1, "a0\n")
    assert done.stderr.splitlines() == [
        "pending: no bot fits",
        "pending: all bots are busy",
        "task a0: COMPLETED, exit code 3, on b1, in 0.5 s",
    ]


def test_run_returns_the_own_code_of_the_task_when_asked(script, skep):
    script.reply(201, make_task("a0", "PENDING"))
    script.reply(200, make_task("a0", "COMPLETED", exit_code=200))
    assert skep("run", "--wait", "--exit-code", "task", "--", "x").exit_code == 125


def test_run_prints_one_json_document_also_when_it_waits(script, skep):
    script.reply(201, make_task("a0", "PENDING")).reply(200, make_task("a0"))
    done = skep("run", "--wait", "-o", "json", "--", "x")
    assert json.loads(done.stdout) == make_task("a0")


def test_run_that_waits_in_vain_exits_6_and_leaves_the_id(script, skep):
    script.reply(201, make_task("a0", "PENDING")).reply(200, make_task("a0", "RUNNING"))
    done = skep("run", "--wait", "--timeout", "0", "--", "x")
    assert (done.exit_code, done.stdout) == (6, "a0\n")
    assert done.stderr.splitlines() == [
        "error: task a0: not final in the time given; it goes on",
        "hint: skep collect a0",
    ]


def test_follow_streams_exactly_the_bytes_of_the_output(script, skep):
    script.reply(201, make_task("a0", "PENDING"))
    script.reply(200, b"\x00\xff\r\n", X_Skep_Next_Offset="4", X_Skep_Final="0")
    script.reply(200, b"end", X_Skep_Next_Offset="7", X_Skep_Final="0")
    script.reply(200, b"", X_Skep_Next_Offset="7", X_Skep_Final="1")
    script.reply(200, make_task("a0"))
    done = skep("run", "--follow", "--", "x")
    assert (done.exit_code, done.stdout_bytes) == (0, b"\x00\xff\r\nend")
    assert [call.partition("&")[0] for call in script.calls[1:4]] == [
        "GET /api/v1/tasks/a0/output?offset=0",
        "GET /api/v1/tasks/a0/output?offset=4",
        "GET /api/v1/tasks/a0/output?offset=7",
    ]


def test_collect_asks_a_few_times_for_a_thousand_tasks(script, skep):
    ids = [f"{number:x}0" for number in range(1000)]
    half = [make_task(i, "COMPLETED" if n % 2 else "RUNNING") for n, i in enumerate(ids)]
    script.reply(200, {"items": half})
    script.reply(200, {"items": [make_task(i) for i in ids[::2]]})
    done = skep("collect", "-", "-o", "id", stdin="\n".join(ids))
    assert (done.exit_code, done.stdout.split()) == (0, ids)
    assert [len(asked.body["task_ids"]) for asked in script.asked] == [1000, 500]
    assert [asked.body["known_final"] for asked in script.asked] == [999, 499]


def test_collect_asks_for_a_thousand_at_most_in_one_call(script, skep):
    ids = [f"{number:x}0" for number in range(1500)]
    script.reply(200, {"items": [make_task(i) for i in ids[:1000]]})
    script.reply(200, {"items": [make_task(i) for i in ids[1000:]]})
    assert skep("collect", *ids).exit_code == 0
    assert [asked.body["task_ids"] for asked in script.asked] == [ids[:1000], ids[1000:]]


def test_collect_prints_in_the_order_asked_and_exits_with_the_worst(script, skep):
    tasks = [make_task("b0", "CANCELED"), make_task("a0", "COMPLETED", exit_code=1)]
    script.reply(200, {"items": tasks})
    done = skep("collect", "b0", "a0", "b0")
    assert done.exit_code == 10
    assert done.stdout == "b0\tCANCELED\t\t0.5\tb1\ttrue\na0\tCOMPLETED\t1\t0.5\tb1\ttrue\n"


def test_collect_eagerly_returns_with_the_first_final_task(script, skep):
    script.reply(200, {"items": [make_task("a0", "RUNNING"), make_task("b0")]})
    done = skep("collect", "--eager", "-o", "jsonl", "a0", "b0")
    assert done.exit_code == 0
    assert script.asked[0].body["known_final"] == 0


def test_collect_out_of_time_prints_what_is_known_and_the_ids(script, skep):
    script.reply(200, {"items": [make_task("a0"), make_task("b0", "RUNNING")]})
    script.reply(200, {"items": [make_task("b0", "RUNNING")]})
    done = skep("collect", "--timeout", "0", "a0", "b0")
    assert (done.exit_code, done.stdout.split("\t")[0]) == (6, "a0")
    assert "b0\tRUNNING" in done.stdout
    assert "hint: skep collect b0" in done.stderr


def test_collect_writes_outputs_to_a_folder(script, skep, tmp_path):
    script.reply(200, {"items": [make_task("a0")]})
    final = {"X_Skep_Task_State": "COMPLETED"}
    script.reply(200, b"ou", X_Skep_Next_Offset="2", X_Skep_Final="0", **final)
    script.reply(200, b"t", X_Skep_Next_Offset="3", X_Skep_Final="1", **final)
    assert skep("collect", "a0", "--output-dir", str(tmp_path / "o")).exit_code == 0
    assert (tmp_path / "o" / "a0.txt").read_bytes() == b"out"


AS_A_SHELL_STARTS_IT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from botapi.cli import main; main()"
)


def interrupt(process):
    """Ctrl-C, again when it came in the moment before a system call and is not seen in it."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5)
    process.kill()
    return process.communicate()


@pytest.mark.slow
def test_interrupted_spawn_leaves_the_ids_and_says_how_to_go_on(script, tmp_path):
    file = tmp_path / "requests.json"
    file.write_text(json.dumps([{"command": ["x"]}] * 3))
    script.reply(201, make_task("a0", "PENDING"))
    script.hold()
    environ = os.environ | {"SKEP_SERVER": script.url, "SKEP_TOKEN": "k", "SKEP_FORMAT": "id"}
    process = subprocess.Popen(
        [sys.executable, "-c", AS_A_SHELL_STARTS_IT, "spawn", str(file), "--jobs", "1"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while script.replies:
        assert script.arrived.wait(30)
        script.arrived.clear()
    out, err = interrupt(process)  # while the second submission is still held
    assert process.returncode == 130
    assert out.startswith(b"a0\n")
    assert b"of 3 made; the same command makes the rest" in err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["collect", "a0"], ["run", "--wait", "--", "x"]])
def test_interrupted_wait_leaves_the_ids_and_exits_130(script, arguments):
    if arguments[0] == "run":
        script.reply(201, make_task("a0", "PENDING"))
    script.hold()
    environ = os.environ | {"SKEP_SERVER": script.url, "SKEP_TOKEN": "k", "SKEP_FORMAT": "table"}
    process = subprocess.Popen(
        [sys.executable, "-c", AS_A_SHELL_STARTS_IT, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while script.replies:
        assert script.arrived.wait(30)
        script.arrived.clear()
    out, err = interrupt(process)
    assert process.returncode == 130
    assert out.startswith(b"a0")
    assert b"skep collect a0" in err


def test_tasks_pages_up_to_the_limit(script, skep):
    script.reply(200, {"items": [make_task("a0")] * 2, "next_cursor": "c+1"})
    script.reply(200, {"items": [make_task("b0")], "next_cursor": "d"})
    done = skep("tasks", "--state", "final", "--tag", "a:b", "--limit", "3", "-o", "id")
    assert done.stdout.split() == ["a0", "a0", "b0"]
    assert done.stderr == "there are more than 3: raise --limit\n"
    assert script.calls == [
        "GET /api/v1/tasks?state=final&tag=a%3Ab&limit=3",
        "GET /api/v1/tasks?state=final&tag=a%3Ab&limit=1&cursor=c%2B1",
    ]


def test_list_that_takes_many_pages_says_why_once(script, skep):
    for _ in range(25):
        script.reply(200, {"items": [], "next_cursor": "c"})
    script.reply(200, {"items": [make_task("a0")], "next_cursor": None})
    done = skep("tasks", "-q", "exit:3", "-o", "id")
    assert (done.exit_code, done.stdout) == (0, "a0\n")
    assert done.stderr == "0 found so far; a filter by tag, dimension or age is quicker\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["tasks"], 0), (["tasks", "--user", "ann"], 7), (["bots", "-d", "os=x", "--bare"], 7)],
)
def test_nothing_that_matches_a_filter_is_exit_7(script, skep, arguments, code):
    script.reply(200, {"items": [], "next_cursor": None})
    done = skep(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")


def test_cancel_tells_what_it_did(script, skep):
    canceled = {"canceled": True, "was_running": False, "task": make_task("a0", "CANCELED")}
    script.reply(200, canceled)
    done = skep("cancel", "--kill-running", "--reason", "old", "a0")
    assert (done.exit_code, done.stdout) == (0, "a0\tyes\tno\tCANCELED\n")
    assert script.asked[0].body == {"kill_running": True, "reason": "old"}


def test_cancel_of_a_running_task_without_kill_is_a_conflict(script, skep):
    running = {"canceled": False, "was_running": True, "task": make_task("a0", "RUNNING")}
    script.reply(200, running)
    done = skep("task", "cancel", "a0")
    assert done.exit_code == 9
    assert "hint: --kill-running" in done.stderr


def test_cancel_twice_is_no_conflict(script, skep):
    again = {"canceled": False, "was_running": False, "task": make_task("a0", "CANCELED")}
    script.reply(200, again)
    assert skep("cancel", "a0").exit_code == 0
    done = {"canceled": False, "was_running": False, "task": make_task("a0", "COMPLETED")}
    script.reply(200, done)
    assert skep("cancel", "a0").exit_code == 9


def test_task_log_prints_what_is_there(script, skep):
    running = {"X_Skep_Task_State": "RUNNING", "X_Skep_Final": "0"}
    script.reply(200, b"abc", X_Skep_Next_Offset="3", **running)
    assert skep("task", "log", "a0").stdout == "abc"
    assert len(script.asked) == 1


def test_bots_are_listed_and_counted(script, skep):
    bot = {"bot_id": "b1", "status": "idle", "dimensions": {"id": ["b1"], "os": ["L", "D"]}}
    script.reply(200, {"items": [bot], "next_cursor": None, "counts": {"idle": 1}})
    assert skep("bots").stdout == "b1\tidle\t\t\tos=L|D\n"
    script.reply(200, {"items": [bot], "next_cursor": None, "counts": {"busy": 0, "idle": 1}})
    assert skep("bots", "--count", "--status", "idle").stdout == "busy\t0\nidle\t1\n"
    assert script.calls[1] == "GET /api/v1/bots?status=idle&limit=1"


def test_bots_are_listed_as_they_were(script, skep):
    script.reply(200, {"items": [bot_of("b1", "paused")], "next_cursor": None, "counts": None})
    done = skep("bots", "--at", "2026-01-01T01:00:00+01:00", "--status", "paused", "--bare")
    assert (done.exit_code, done.stdout) == (0, "b1\n"), done.stderr
    assert script.calls == [
        "GET /api/v1/bots?status=paused&at=2026-01-01T00%3A00%3A00.000Z&limit=1000"
    ]
    done = skep("bots", "--at", "-1h", "--count")
    assert (done.exit_code, len(script.asked)) == (2, 1)
    assert "--count: is not known of a time that is past" in done.stderr


def test_bot_shows_itself_and_its_events(script, skep):
    script.reply(200, {"bot_id": "b/1", "status": "idle"})
    assert skep("bot", "show", "b/1").stdout == "bot_id\tb/1\nstatus\tidle\n"
    event = {"event_id": "1", "at": "t", "event": "bot_connected", "message": "m", "task_id": None}
    script.reply(200, {"items": [event], "next_cursor": None})
    assert skep("bot", "events", "b/1").stdout == "1\tt\tbot_connected\t\tm\n"
    assert script.calls[0] == "GET /api/v1/bots/b%2F1"


def test_bootstrap_prints_the_line_to_paste(script, skep):
    made = {"token": "t", "expires_at": "e", "uses": 4, "command": "curl x | python3 -"}
    script.reply(201, made)
    done = skep("bootstrap", "new", "--uses", "4", "--ttl", "30m", "--pool", "ci")
    assert done.stdout == "curl x | python3 -\n"
    assert script.asked[0].body == {"uses": 4, "ttl_s": 1800, "pool": "ci"}


def test_audit_and_whoami_print_what_the_server_says(script, skep):
    record = {"at": "t", "actor": "ann", "verb": "cancel", "target": "a0", "reason": "r"}
    script.reply(200, {"items": [record], "next_cursor": None})
    assert skep("audit").stdout == "t\tann\tcancel\ta0\tr\n"
    script.reply(200, {"actor": "ann", "role": "admin"})
    assert skep("whoami", "-o", "json").stdout == '{\n  "actor": "ann",\n  "role": "admin"\n}\n'


def test_options_after_the_command_go_before_those_in_front(script, skep):
    script.reply(200, {"actor": "ann", "role": "admin"})
    done = skep("-server", "http://127.0.0.1:1", "-o", "id", "whoami", "--server", script.url)
    assert (done.exit_code, done.stdout) == (0, "ann\n")


def test_key_is_read_from_a_file(script, skep, tmp_path):
    (tmp_path / "key").write_text("skep_other\n")
    script.reply(200, {"actor": "ann", "role": "admin"})
    assert skep("whoami", "--token-file", str(tmp_path / "key")).exit_code == 0
    assert script.asked[0].headers["Authorization"] == "Bearer skep_other"
    absent = skep("whoami", "--token-file", str(tmp_path / "absent"))
    assert absent.exit_code == 2
    assert "No such file" in absent.stderr


def test_errors_are_one_line_and_a_hint_and_the_request_id_with_debug(script, skep):
    script.refuse(404, "there is no task a0").refuse(404, "there is no task a0")
    plain = skep("task", "show", "a0")
    assert (plain.exit_code, plain.stdout) == (5, "")
    assert plain.stderr.splitlines() == [
        "error: task a0: there is no task a0",
        "hint: skep tasks, bots, config history, archive list and keys list show what exists",
    ]
    assert "request id: req-7" in skep("--debug", "task", "show", "a0").stderr


def test_errors_are_problem_objects_where_json_was_asked_for(script, skep):
    script.refuse(403, "no")
    done = skep("whoami", "-o", "json")
    assert done.exit_code == 4
    assert json.loads(done.stderr)["instance"] == "req-7"


def test_wrong_settings_are_exit_2(skep):
    done = skep("whoami", SKEP_TIMEOUT_S="soon")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: settings: SKEP_TIMEOUT_S='soon' is refused")


def test_settings_show_names_origins_and_unknown_variables(skep, script):
    done = skep("settings", "show", "--origin", SKEP_PROT="1", SKEP_PORT="99")
    rows = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert rows["SKEP_PORT"] == "99\tSKEP_PORT"
    assert rows["SKEP_TOKEN"] == "(set)\tSKEP_TOKEN"
    assert done.stderr == "warning: SKEP_PROT is no setting\n"


def test_settings_show_obeys_the_options_of_every_command(skep, tmp_path):
    done = skep("settings", "show", "--cols", "value", "--no-header", SKEP_PORT="99")
    assert "99" in done.stdout.splitlines()
    assert "SKEP_PORT" not in done.stdout
    (tmp_path / "key").write_text("k")
    done = skep("settings", "show", "--origin", "--token-file", str(tmp_path / "key"))
    assert "SKEP_TOKEN\t(set)\toption" in done.stdout.splitlines()
    skep("settings", "show", "--json-output", str(tmp_path / "shown.json"), SKEP_PORT="99")
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert {"variable": "SKEP_PORT", "value": "99"} in shown["items"]
    refused = skep("settings", "show", "-o", "json", SKEP_TIMEOUT_S="soon")
    assert refused.exit_code == 2
    assert "SKEP_TIMEOUT_S" in json.loads(refused.stderr)["detail"]


@pytest.mark.slow
def test_server_that_is_not_there_is_exit_3(script, skep):
    done = skep("whoami", SKEP_SERVER="http://127.0.0.1:1")
    assert done.exit_code == 3
    assert done.stderr.startswith("error: http://127.0.0.1:1: not reachable: Connection refused")


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["COMPLETED", "COMPLETED"], 0),
        (["COMPLETED", "TIMED_OUT"], 1),
        (["TIMED_OUT", "KILLED"], 10),
        (["CANCELED", "EXPIRED", "TIMED_OUT"], 11),
        (["COMPLETED", "RUNNING"], 8),
        (["RUNNING", "TIMED_OUT"], 1),
        (["BOT_DIED", "RUNNING"], 11),
        (["NO_RESOURCE"], 11),
        (["CLIENT_ERROR"], 1),
    ],
)
def test_the_worst_task_decides_the_exit_code(script, skep, states, code):
    tasks = [make_task(f"{number}0", state) for number, state in enumerate(states)]
    script.reply(200, {"items": tasks})
    ids = [task["task_id"] for task in tasks]
    assert skep("collect", "--no-wait", *ids).exit_code == code


def test_retry_asks_the_server_and_prints_the_new_id(script, skep):
    script.reply(201, make_task("b0", "PENDING"))
    done = skep("task", "retry", "a0", "--same-bot", "--reason", "flaky")
    assert (done.exit_code, done.stdout) == (0, "b0\n")
    assert script.calls == ["POST /api/v1/tasks/a0/retry"]
    assert script.asked[0].body == {"same_bot": True, "reason": "flaky"}
    assert "Idempotency-Key" in script.asked[0].headers
    script.refuse(404, "there is no task")
    assert skep("task", "retry", "a0").exit_code == 5


def test_cancel_by_tags_follows_the_cursor_up_to_the_limit(script, skep):
    script.reply(200, {"items": [], "count": 2500, "count_kind": "at_least"})
    script.reply(200, {"matched": 1000, "next_cursor": "c1"})
    script.reply(200, {"matched": 200, "next_cursor": "c2"})
    done = skep(
        *("cancel-tasks", "-tag", "a:b", "-start", "2026-01-01T00:00:00Z", "--limit", "1200"),
        *("--kill-running", "--reason", "r", "--yes", "-o", "id"),
    )
    assert (done.exit_code, done.stdout) == (0, "1200\n"), done.stderr
    assert done.stderr == (
        "at least 2500 task(s), pending or running, will be canceled, at most 1200 of them\n"
    )
    common = {"tags": ["a:b"], "kill_running": True, "reason": "r", "end": ""}
    common["start"] = "2026-01-01T00:00:00.000Z"
    assert [asked.body for asked in script.asked[1:]] == [
        common | {"limit": 1000, "cursor": ""},
        common | {"limit": 200, "cursor": "c1"},
    ]


def test_quarantine_by_filter_asks_and_waits_until_the_bots_run_nothing(script, skep):
    bots = [{"bot_id": f"b{n}", "status": "busy", "task_id": "a1"} for n in (1, 2)]
    page = {"items": bots, "next_cursor": None}
    words = ("bot", "quarantine", "-q", "os:linux", "--reason", "disk")
    script.reply(200, page)
    done = skep(*words)
    assert done.exit_code == 2
    assert "quarantine 2 bot(s): b1, b2" in done.stderr
    script.reply(200, page)
    for bot in (*bots, {**bots[0], "task_id": ""}, {**bots[1], "task_id": ""}):
        script.reply(200, bot)
    done = skep(*words, "--yes", "--wait")
    assert (done.exit_code, done.stdout) == (0, "b1\tbusy\t\t\t\nb2\tbusy\t\t\t\n"), done.stderr
    asked = [each.body for each in script.asked if each.body]
    assert asked == [{"reason": "disk"}] * 2
    script.reply(200, {"items": [], "next_cursor": None})
    assert skep(*words).exit_code == 7
    assert skep("bot", "quarantine", "--reason", "disk").exit_code == 2


def test_drain_pauses_for_a_time_and_waits_until_the_bots_run_nothing(script, skep):
    bot = {"bot_id": "b1", "status": "draining", "task_id": "a1"}
    script.reply(200, bot).reply(200, bot)
    script.reply(200, bot | {"status": "paused", "task_id": None})
    done = skep("-o", "id", "bot", "drain", "b1", "--reason", "disk", "--for", "1h30m")
    assert (done.exit_code, done.stdout) == (0, "b1\n"), done.stderr
    assert script.calls == ["POST /api/v1/bots/b1/pause"] + ["GET /api/v1/bots/b1"] * 2
    assert script.asked[0].body == {"reason": "disk", "for_s": 5400}


@pytest.mark.parametrize("verb", ["pause", "resume", "restart"])
def test_bots_are_steered_by_id_each_with_the_reason(script, skep, verb):
    for bot_id in ("b1", "b2"):
        script.reply(200, {"bot_id": bot_id, "status": "idle", "task_id": None})
    done = skep("-o", "id", "bot", verb, "b1", "b2", "b1", "--reason", "disk")
    assert (done.exit_code, sorted(done.stdout.split())) == (0, ["b1", "b2"]), done.stderr
    assert sorted(script.calls) == [f"POST /api/v1/bots/{i}/{verb}" for i in ("b1", "b2")]
    assert [asked.body for asked in script.asked] == [{"reason": "disk"}] * 2


def bot_of(bot_id, status="idle", session_id="s1", **more):
    bot = {"bot_id": bot_id, "status": status, "session_id": session_id, "task_id": None}
    return bot | {"version": "v1", "expected_version": "v2"} | more


@pytest.mark.parametrize("verb", ["pause", "quarantine", "drain"])
def test_bots_that_would_be_too_many_are_not_touched(script, skep, verb):
    page = [bot_of("b1"), bot_of("b2", "dead"), bot_of("b3"), bot_of("b4")]
    script.reply(200, {"items": page, "next_cursor": None})
    for bot_id in ("b1", "b2"):
        script.reply(200, bot_of(bot_id, "paused"))
    for bot_id in ("b1", "b2") if verb == "drain" else ():
        script.reply(200, bot_of(bot_id, "paused"))
    words = ("-q", "pool:a", "--yes", "--reason", "disk", "--max-unavailable", "50%")
    done = skep("bot", verb, *words)
    assert done.exit_code == 9
    why = "at most 2 may be unavailable"
    assert done.stdout == (
        "b1\tdone\tpaused\t\nb2\tdone\tpaused\t\n"
        f"b3\tnot touched\tidle\t{why}\nb4\tnot touched\tidle\t{why}\n"
    )
    assert f"error: bot {verb}: 2 done, 2 not touched: b3: {why}\n" in done.stderr
    assert script.replies == []
    posts = [call for call in script.calls if call.startswith("POST")]
    steer = "pause" if verb == "drain" else verb
    assert posts == [f"POST /api/v1/bots/{i}/{steer}" for i in ("b1", "b2")]


def test_named_bots_are_restarted_one_after_the_other(script, skep, monkeypatch):
    monkeypatch.setattr("botapi.ctl.in_turn.LOOK_S", 0.0)
    for bot in (bot_of("b1"), bot_of("b2"), bot_of("b1")):
        script.reply(200, bot)
    script.reply(200, bot_of("b1", "dead")).reply(200, bot_of("b1", session_id="s2"))
    script.reply(200, bot_of("b2")).reply(200, bot_of("b2", session_id="s2"))
    words = ("b1", "b2", "--reason", "x", "--max-unavailable", "1", "-o", "id")
    done = skep("bot", "restart", *words)
    assert (done.exit_code, done.stdout) == (0, "b1\nb2\n"), done.stderr
    assert script.calls[2:] == [
        "POST /api/v1/bots/b1/restart",
        "GET /api/v1/bots/b1",
        "GET /api/v1/bots/b1",
        "POST /api/v1/bots/b2/restart",
        "GET /api/v1/bots/b2",
    ]


def test_restart_says_what_was_done_failed_and_not_touched(script, skep):
    for bot_id in ("b1", "b2"):
        script.reply(200, bot_of(bot_id))
    script.refuse(403, "not yours")
    words = ("b1", "b2", "--reason", "x", "--max-unavailable", "1", "-o", "json")
    done = skep("bot", "restart", *words)
    assert done.exit_code == 1
    rows = json.loads(done.stdout)["items"]
    assert [(row["bot_id"], row["result"]) for row in rows] == [
        ("b1", "failed"),
        ("b2", "not touched"),
    ]
    assert "1 failed, 1 not touched: b1: restart b1: not yours" in done.stderr


def test_restart_that_waits_in_vain_is_exit_6(script, skep, monkeypatch):
    monkeypatch.setattr("botapi.ctl.in_turn.LOOK_S", 0.0)
    for _ in range(3):
        script.reply(200, bot_of("b1"))
    done = skep("bot", "restart", "b1", "--reason", "x", "--wait", "--timeout", "0")
    assert (done.exit_code, done.stdout.split("\t")[:2]) == (6, ["b1", "failed"]), done.stderr


def test_update_restarts_only_bots_that_run_another_version_than_they_should(script, skep):
    page = [
        bot_of("b1"),
        bot_of("b2", version="v2"),
        bot_of("b3", expected_version=None),
        bot_of("b4", "dead"),
    ]
    script.reply(200, {"items": page, "next_cursor": None}).reply(200, bot_of("b1"))
    done = skep("bot", "update", "-q", "pool:a", "--yes", "--reason", "x")
    assert done.exit_code == 9
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["b1", "done", "idle", ""],
        ["b2", "done", "idle", "it runs the expected version"],
        ["b3", "not touched", "idle", "the server expects no version of it"],
        ["b4", "not touched", "dead", "it is dead; it starts over by itself"],
    ]
    assert script.calls[1:] == ["POST /api/v1/bots/b1/restart"]
    assert script.asked[1].body == {"reason": "x"}


def test_update_waits_until_the_bot_runs_the_version_that_is_expected(script, skep, monkeypatch):
    monkeypatch.setattr("botapi.ctl.in_turn.LOOK_S", 0.0)
    script.reply(200, bot_of("b1")).reply(200, bot_of("b1"))
    script.reply(200, bot_of("b1", session_id="s2"))
    script.reply(200, bot_of("b1", session_id="s3", version="v2"))
    done = skep("bot", "update", "b1", "--reason", "x", "--wait")
    assert (done.exit_code, done.stdout) == (0, "b1\tdone\tidle\t\n"), done.stderr
    assert script.replies == []


@pytest.mark.parametrize("verb", ["pause", "quarantine", "drain"])
def test_time_that_is_none_is_refused_in_one_line(script, skep, verb):
    done = skep("bot", verb, "b1", "--reason", "x", "--for", "0")
    assert (done.exit_code, done.stdout, script.asked) == (2, "", [])
    assert "leave it out for 'until somebody ends it'" in done.stderr.splitlines()[-1]


def test_compare_shows_only_the_keys_that_differ(script, skep):
    for cores in ("4", "8"):
        dimensions = {"os": ["Linux"], "cores": [cores]}
        script.reply(200, {"bot_id": "b", "dimensions": dimensions, "state": {}})
    done = skep("bot", "compare", "b1", "b2")
    assert (done.exit_code, done.stdout) == (0, "dimensions.cores\t4\t8\n"), done.stderr
    script.reply(200, make_task("a0")).reply(200, make_task("a0", state="EXPIRED"))
    done = skep("-o", "json", "task", "compare", "a0", "c0", "--all")
    rows = {row["key"]: row for row in json.loads(done.stdout)["items"]}
    assert rows["state"] == {"key": "state", "first": "COMPLETED", "second": "EXPIRED"}
    assert rows["bot_id"]["first"] == rows["bot_id"]["second"] == "b1"
    script.reply(200, make_task("a0")).reply(200, make_task("a0"))
    assert "a0 and c0 are equal" in skep("task", "compare", "a0", "c0").stderr


def test_quarantine_gives_up_waiting_for_a_bot_that_works_on(script, skep):
    bot = {"bot_id": "b1", "status": "busy", "task_id": "a1"}
    script.reply(200, bot).reply(200, bot)
    done = skep("bot", "quarantine", "b1", "--reason", "disk", "--wait", "--timeout", "0")
    assert done.exit_code == 6
    assert "b1: still runs task a1; it gets no more work" in done.stderr


def test_terminate_waits_until_the_bot_has_exited(script, skep):
    script.reply(200, {"task_id": "a0"}).reply(200, make_task("a0", "RUNNING"))
    script.reply(200, make_task("a0"))
    done = skep("terminate", "vm1", "-wait", "--reason", "disk")
    assert (done.exit_code, done.stdout) == (0, "a0\n")
    assert script.asked[0].body == {"reason": "disk"}
    script.reply(200, {"task_id": "a0"}).reply(200, make_task("a0", "EXPIRED"))
    assert skep("terminate", "vm1", "--wait").exit_code == 11


def test_results_go_to_a_file_as_json_when_asked(script, skep, tmp_path):
    whole = {"items": [make_task()], "next_cursor": None}
    script.reply(200, whole).reply(200, whole).reply(200, whole)
    file = tmp_path / "tasks.json"
    assert skep("tasks", "-json-output", str(file)).stdout == ""
    assert json.loads(file.read_text()) == whole
    assert json.loads(skep("tasks", "--json-output", "-").stdout) == whole
    done = skep("tasks", "--json-output", "/nowhere/f")
    assert done.exit_code == 2
    assert "No such file" in done.stderr


def test_times_are_sent_in_full(script, skep):
    script.reply(200, {"items": [make_task()], "next_cursor": None})
    assert skep("tasks", "--from", "2026-01-01T01:00:00+01:00").exit_code == 0
    assert script.calls == ["GET /api/v1/tasks?from=2026-01-01T00%3A00%3A00.000Z&limit=100"]


def test_parent_and_timeout_come_from_the_environment(script, skep):
    script.reply(201, make_task("a0", "PENDING"))
    done = skep("run", "--", "x", SWARMING_TASK_ID="b1", SWARMING_USER="ann", SKEP_TIMEOUT="5")
    assert done.exit_code == 0, done.stderr
    assert script.asked[0].body == {"command": ["x"], "user": "ann", "parent_task_id": "b1"}
    shown = skep("settings", "show", "--origin", SKEP_TIMEOUT="5")
    assert "SKEP_TIMEOUT_S\t5\tSKEP_TIMEOUT" in shown.stdout
    assert "is no setting" not in shown.stderr


def test_version_is_of_skep_python_and_platform(skep):
    rows = dict(line.split("\t") for line in skep("version").stdout.splitlines())
    assert {"version", "python", "platform", "server"} <= set(rows)


def test_usage_errors_are_exit_2():
    assert CliRunner().invoke(main, ["run"]).exit_code == 2
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2


def event_of(number, kind="bot_polling"):
    event = {"event_id": f"e{number}", "at": "t", "event": kind, "task_id": None}
    return event | {"message": None}


def test_events_leave_out_what_happens_all_the_time_when_asked(script, skep):
    kinds = ("bot_connected", "bot_idle", "task_completed", "request_sleep")
    items = [event_of(n, kind) for n, kind in enumerate(kinds)]
    script.reply(200, {"items": items, "next_cursor": None})
    assert skep("-o", "id", "bot", "events", "b1", "--important").stdout == "e0\ne2\n"


def test_followed_events_come_oldest_first_and_each_once(script, skep, monkeypatch):
    monkeypatch.setattr("botapi.ctl.events.LOOK_S", 0.0)
    looks = [[2, 1], [2, 1], [4, 3, 2, 1], [4, 3, 2, 1]]
    for numbers in looks:
        items = [event_of(n, "bot_error" if n != 3 else "bot_idle") for n in numbers]
        script.reply(200, {"items": items, "next_cursor": None})
    words = ("bot", "events", "b1", "--follow", "--important")
    done = skep("-o", "id", *words)  # ends when the script is over
    assert (done.exit_code, done.stdout) == (3, "e1\ne2\ne4\n"), done.stderr
    script.reply(200, {"items": [event_of(1, "bot_error")], "next_cursor": None})
    done = skep("-o", "jsonl", *words, "--timeout", "0")
    assert (done.exit_code, json.loads(done.stdout)["event_id"]) == (0, "e1")


def test_followed_events_have_no_form_with_an_end(script, skep):
    assert skep("-o", "json", "bot", "events", "b1", "--follow").exit_code == 2
    assert script.asked == []


def test_log_prints_what_the_bot_said_oldest_first_with_the_whole_message(script, skep):
    items = [
        event_of(4, "bot_polling"),
        event_of(3, "bot_error") | {"at": "t3", "message": "Traceback\n  line 1\x1b[0m"},
        event_of(2, "task_update"),
    ]
    script.reply(200, {"items": items, "next_cursor": "c"})
    older = [event_of(1, "bot_log") | {"at": "t1", "message": "hello"}, event_of(0, "bot_log")]
    script.reply(200, {"items": older, "next_cursor": None})
    done = skep("bot", "log", "b1", "--limit", "2")
    assert (done.exit_code, done.stderr) == (0, "")
    shown = "t1 bot_log\n  hello\nt3 bot_error\n  Traceback\n    line 1\\x1b[0m\n"
    assert done.stdout == shown
    assert script.calls == [
        "GET /api/v1/bots/b1/events?limit=1000",
        "GET /api/v1/bots/b1/events?limit=997&cursor=c",
    ]


def test_log_has_the_forms_of_other_lists(script, skep):
    item = event_of(1, "bot_log") | {"message": "a\nb"}
    for _ in range(3):
        script.reply(200, {"items": [event_of(2), item], "next_cursor": None})
    shown = json.loads(skep("bot", "log", "b1", "-o", "json").stdout)
    assert shown == {"items": [item], "next_cursor": None}
    assert skep("bot", "log", "b1", "-o", "id").stdout == "e1\n"
    assert skep("bot", "log", "b1", "--cols", "event,message").stdout == "bot_log\ta\\nb\n"


def test_log_says_so_when_it_did_not_look_at_everything(script, skep, monkeypatch):
    monkeypatch.setattr("botapi.ctl.events.MAX_LOOKED", 2000)
    page = [event_of(n) for n in range(1000)]
    for cursor in ("c", "d"):
        script.reply(200, {"items": page, "next_cursor": cursor})
    done = skep("bot", "log", "b1")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "only the newest 2000 events were looked at\n"


def test_followed_log_goes_on_behind_what_was_shown(script, skep, monkeypatch):
    monkeypatch.setattr("botapi.ctl.events.LOOK_S", 0.0)
    first = [event_of(3), event_of(2, "bot_log"), event_of(1, "bot_error")]
    script.reply(200, {"items": first, "next_cursor": None})
    script.reply(200, {"items": first, "next_cursor": None})
    script.reply(200, {"items": [event_of(5, "bot_log"), event_of(4), *first], "next_cursor": None})
    done = skep("-o", "id", "bot", "log", "b1", "--follow")  # ends when the script is over
    assert (done.exit_code, done.stdout) == (3, "e1\ne2\ne5\n"), done.stderr
    assert skep("-o", "csv", "bot", "log", "b1", "--follow").exit_code == 2


def test_timeline_prints_intervals_and_sums_them_up(script, skep):
    interval = {"begin": "t1", "end": "t2", "seconds": 60.0, "state": "busy"}
    interval |= {"task_id": "a0", "reason": None}
    shares = [
        {"state": "busy", "seconds": 60.0, "share": 0.75},
        {"state": "unknown", "seconds": 20.0, "share": 0.25},
    ]
    found = {"from": "t0", "cut": True, "intervals": [interval], "shares": shares}
    for _ in range(3):
        script.reply(200, found)
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z")
    done = skep("bot", "timeline", "b1", *span)
    assert (done.exit_code, done.stdout) == (0, "t1\tt2\t60.0\tbusy\ta0\t\n")
    assert done.stderr == (
        "there was more than fits: this begins at t0\nbusy 75.0%, unknown 25.0%\n"
    )
    assert script.calls == [
        "GET /api/v1/bots/b1/timeline"
        "?from=2026-01-01T00%3A00%3A00.000Z&to=2026-01-02T00%3A00%3A00.000Z"
    ]
    done = skep("bot", "timeline", "b1", "--shares")
    assert done.stdout == "busy\t60.0\t0.75\nunknown\t20.0\t0.25\n"
    assert json.loads(skep("bot", "timeline", "b1", "-o", "json").stdout) == found
