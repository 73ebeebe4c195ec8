"""A whole bot: tasks, their output and their ends, over real sockets and processes."""

import os
import signal

import pytest

from tests.bot_client.conftest import BotProcess, wait_until
from tests.fakes.scripted_server import Call, Fault, ScriptedServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SH = "/bin/sh"


def test_task_runs_with_three_calls_and_the_next_lease_in_the_last(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    seen = len(server.calls)
    first = server.submit([SH, "-c", "echo hello"])
    server.wait_lease_done(first)
    second = server.submit(["/bin/true"])
    server.wait_lease_done(second)
    names = [call.name for call in server.calls[seen:]]
    assert names[:6] == ["claim", "task_update", "rbe/session/update"] * 2
    task = server.tasks[first]
    assert (bytes(task.output), task.final["exit_code"], task.finals) == (b"hello\n", 0, 1)
    last = server.named("rbe/session/update")[-1].body
    assert (last["status"], last["lease"]["state"], "nonblocking" in last) == (
        "OK",
        "COMPLETED",
        False,
    )


def test_claimed_lease_is_run_without_a_claim(bot: BotProcess, server: ScriptedServer) -> None:
    server.claims_for_bots = True
    bot.start_idle()
    heard = [call.body["skep"]["lease"] for call in server.calls if _says_lease(call)]
    assert set(heard) == {""}
    seen = len(server.calls)
    first, second = (server.submit([SH, "-c", f"echo {word}"]) for word in "ab")
    assert bytes(server.wait_lease_done(first).output) == b"a\n"
    assert bytes(server.wait_lease_done(second).output) == b"b\n"
    names = [call.name for call in server.calls[seen:]]
    assert names[:4] == ["task_update", "rbe/session/update"] * 2
    heard = [call.body["skep"]["lease"] for call in server.calls[seen:] if _says_lease(call)]
    assert heard[:2] == [f"lease-{first}", f"lease-{second}"]


def _says_lease(call: Call) -> bool:
    return call.name in {"poll", "rbe/session/update"}


def test_bot_that_did_not_see_the_answer_does_not_say_that_it_heard(
    bot: BotProcess, server: ScriptedServer
) -> None:
    server.claims_for_bots = True
    server.loses_leases = 1
    bot.start_idle()
    seen = len(server.calls)
    lost = server.submit(["/bin/true"])
    server.wait_for(lambda: len(server.calls) > seen)
    heard = server.submit(["/bin/true"])
    server.wait_lease_done(heard)
    said = [call.body["skep"]["lease"] for call in server.calls[seen:] if _says_lease(call)]
    assert f"lease-{lost}" not in said
    assert said[-1] == f"lease-{heard}"


@pytest.mark.parametrize(
    ("claim", "result"),
    [
        ({"cmd": "skip", "reason": "expired"}, {"skip_reason": "expired"}),
        (
            {"cmd": "dance"},
            {"bot_internal_error": "claim: cannot understand command 'dance'"},
        ),
        ({}, {"bot_internal_error": "claim: cannot understand command None"}),
    ],
    ids=["skip", "unknown command", "no command"],
)
def test_claim_of_a_lease_that_tells_nothing_to_run_completes_it(
    bot: BotProcess, server: ScriptedServer, claim: dict[str, str], result: dict[str, str]
) -> None:
    server.claims_for_bots = True
    bot.start_idle()
    server.claim_replies["000000000000001" + "1"] = claim
    task_id = server.submit(["/bin/true"])
    assert server.wait_lease_done(task_id).lease_done == result
    assert not server.named("claim")


def test_calls_are_numbered_without_gaps(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    server.wait_lease_done(server.submit(["/bin/true"]))
    server.wait_idle()
    numbers = [call.body["skep"]["seq"] for call in server.calls if "skep" in call.body]
    assert numbers == list(range(1, len(numbers) + 1))
    unnumbered = {call.name for call in server.calls if "skep" not in call.body}
    assert unnumbered <= {"server_ping", "event", "task_error"}


def test_two_tasks_use_one_runner(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    runner = bot.runner_pid()
    ids = [server.submit([SH, "-c", "echo $PPID"]) for _ in range(2)]
    outputs = [bytes(server.wait_lease_done(i).output) for i in ids]
    assert outputs == [b"%d\n" % runner] * 2


def test_burst_of_ten_megabytes_and_binary_bytes_arrive_whole(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    code = "import os,sys; [sys.stdout.buffer.write(bytes(range(256))*4096) for _ in range(10)]"
    task = server.wait_lease_done(server.submit(["python3", "-c", code]), 30)
    assert task.output == bytes(range(256)) * 40960
    sizes = [len(c.body.get("output", "")) for c in server.named("task_update")]
    assert max(sizes) <= 333_336


def test_first_output_is_posted_before_the_end(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    task_id = server.submit([SH, "-c", "echo early; while :; do sleep 0.5; echo .; done"], env={})
    task = server.tasks[task_id]
    server.wait_for(lambda: task.output.startswith(b"early\n"))
    assert task.final is None
    server.tasks[task_id].killing = True
    server.wait_final(task_id)


def test_lost_reply_of_an_update_does_not_double_output(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    server.fault("task_update", Fault(drop=True, after=True))
    task = server.wait_lease_done(server.submit([SH, "-c", "echo once"]))
    assert bytes(task.output) == b"once\n"
    uuids = {call.body["request_uuid"] for call in server.named("task_update")}
    assert (len(uuids), len(server.named("task_update"))) == (1, 2)


def test_gap_answer_makes_the_bot_send_again_from_there(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    code = "import sys,time; print('a'*300000, flush=True); sys.stdin.read(); print('b')"
    task_id = server.submit(["python3", "-c", code])
    task = server.tasks[task_id]

    server.fault("task_update", Fault(status=200, body=b'{"ok":true,"must_stop":false}'))
    server.wait_lease_done(task_id, 30)
    assert bytes(task.output) == b"a" * 300000 + b"\nb\n"


def test_outage_keeps_the_task_running_and_loses_nothing(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    script = "for i in 1 2 3; do echo $i; sleep 0.3; done"
    task_id = server.submit([SH, "-c", script])
    server.wait_for(lambda: server.tasks[task_id].output)
    server.stop_listening()
    wait_until(lambda: not bot.task_pids())
    server.listen_again()
    task = server.wait_lease_done(task_id, 30)
    assert (bytes(task.output), task.final["exit_code"]) == (b"1\n2\n3\n", 0)


def test_must_stop_walks_the_ladder_and_reports_the_code(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; echo .; done"
    task_id = server.submit([SH, "-c", script])
    server.wait_for(lambda: server.tasks[task_id].output)
    server.tasks[task_id].killing = True
    task = server.wait_final(task_id)
    assert (task.final["exit_code"], task.output.endswith(b"bye\n")) == (7, True)
    assert not bot.task_pids()


@pytest.mark.spec("A.4.1.5")
def test_refused_update_kills_the_task_with_one_task_error(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    server.fault("task_update", Fault(status=400, body=b"no"))
    task_id = server.submit([SH, "-c", "echo x; sleep 100"])
    task = server.wait_lease_done(task_id)
    assert (task.final, len(task.errors), "HTTP 400" in task.errors[0]) == (None, 1, True)
    assert not bot.task_pids()


def test_contact_rule_stops_the_task(bot: BotProcess, server: ScriptedServer) -> None:
    server.skep = {"contact_s": 1}
    bot.start_idle()
    task_id = server.submit([SH, "-c", "echo up; sleep 100"])
    server.wait_for(lambda: server.tasks[task_id].output)
    server.stop_listening()
    wait_until(lambda: not bot.task_pids())
    server.listen_again()
    task = server.wait_lease_done(task_id, 30)
    assert ["no contact" in text for text in task.errors] == [True]


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ({"hard_timeout": ...}, "hard_timeout"),
        ({"dimensions": ...}, "dimensions"),
        ({"bot_dimensions": ...}, "bot_dimensions"),
        ({"command": "ls"}, "command"),
        ({"grace_period": "x"}, "grace_period"),
        ({"outputs": ["../a"]}, "outputs"),
    ],
)
def test_manifest_defect_ends_in_task_error(
    bot: BotProcess, server: ScriptedServer, broken: dict, word: str
) -> None:
    bot.start_idle()
    task = server.wait_lease_done(server.submit(["/bin/true"], manifest_changes=broken))
    assert (len(task.errors), word in task.errors[0]) == (1, True)
    assert "bot_internal_error" in task.lease_done
    server.wait_lease_done(server.submit(["/bin/true"]))


@pytest.mark.spec("4.2.1.1", "1.11.5.7")
def test_skip_noop_and_broken_leases_are_completed(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    skipped = server.submit(["/bin/true"])
    server.claim_replies[skipped] = {"cmd": "skip", "reason": "already claimed"}
    assert server.wait_lease_done(skipped).lease_done == {"skip_reason": "already claimed"}
    for lease_id, payload in (("n1", {"noop": True}), ("n2", {})):
        server.pending_raw.append({"id": lease_id, "state": "PENDING", "payload": payload})
        server.notify()
        done = server.wait_for(
            lambda lid=lease_id: [
                c.body["lease"]["result"]
                for c in server.named("rbe/session/update")
                if c.body.get("lease", {}).get("id") == lid
            ]
        )
        assert done[0] == (
            {} if lease_id == "n1" else {"bot_internal_error": "a lease without task_id"}
        )
    assert len(server.named("claim")) == 1


@pytest.mark.spec("4.2.1.2", "5.2.1.7", "A.1.1.6")
def test_terminate_reports_and_exits_zero(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    task_id = server.submit(["/bin/true"])
    server.claim_replies[task_id] = {"cmd": "terminate", "task_id": task_id}
    assert bot.wait() == 0
    task = server.tasks[task_id]
    assert (task.final["exit_code"], task.final["duration"], task.lease_done) == (0, 0, {})
    assert server.named("event")[-1].body["event"] == "bot_shutdown"
    assert server.named("rbe/session/update")[-1].body["status"] == "BOT_TERMINATING"


def test_killed_runner_is_reported_once_and_replaced(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    task_id = server.submit([SH, "-c", "echo up; sleep 1000 & sleep 1000"])
    server.wait_for(lambda: server.tasks[task_id].output)
    os.kill(bot.runner_pid(), signal.SIGKILL)
    task = server.wait_lease_done(task_id)
    assert (task.errors, task.final) == (["Execution failed: the runner process died (-9)"], None)
    assert bot.task_pids() == []
    assert server.wait_lease_done(server.submit(["/bin/true"])).final["exit_code"] == 0


def test_killed_supervisor_leaves_nothing_running_and_comes_back(
    bot: BotProcess, server: ScriptedServer
) -> None:
    bot.start_idle()
    task_id = server.submit([SH, "-c", "echo up; sleep 1000 & sleep 1000"])
    server.wait_for(lambda: server.tasks[task_id].output)
    os.kill(bot.supervisor_pid(), signal.SIGKILL)
    server.wait_calls("handshake", 2)
    assert bot.task_pids() == []
    texts = server.wait_calls("event")
    assert "ended unexpectedly: -9" in texts[0].body["message"]
    server.wait_lease_done(server.submit(["/bin/true"]))


def test_killed_starter_takes_the_supervisor_along(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    supervisor = bot.supervisor_pid()
    task_id = server.submit([SH, "-c", "echo up; sleep 1000"])
    server.wait_for(lambda: server.tasks[task_id].output)
    os.kill(bot.starter_pid, signal.SIGKILL)
    task = server.wait_final(task_id)
    assert task.errors == ["the task was stopped: the bot was told to shut down"]
    wait_until(lambda: not os.path.exists(f"/proc/{supervisor}/cmdline") or _is_zombie(supervisor))
    assert bot.task_pids() == []


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_canceled_lease_stops_the_task(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    task_id = server.submit([SH, "-c", "sleep 1000"], bot_id="bot1")
    server.wait_calls("claim")
    server.tasks[task_id].lease_state = "CANCELLED"
    task = server.wait_final(task_id, 30)
    assert task.final["exit_code"] == -15


def test_lease_lost_and_session_lost_are_survived(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    server.fault("claim", Fault(status=401, body=b"gone"))
    server.submit(["/bin/true"])
    server.wait_calls("handshake", 2)
    server.wait_lease_done(server.submit(["/bin/true"]))


def test_poll_is_made_at_once_when_the_server_asks(bot: BotProcess, server: ScriptedServer) -> None:
    bot.start_idle()
    polls = len(server.named("poll"))
    server.poll_now = True
    server.notify()
    server.wait_calls("poll", polls + 1)
    assert len({call.body["request_uuid"] for call in server.named("poll")}) == polls + 1


@pytest.mark.spec("3.3.1.8")
def test_unknown_command_is_reported_and_backed_off(
    bot: BotProcess, server: ScriptedServer
) -> None:
    server.poll_replies.append({"cmd": "dance"})
    bot.start_idle()
    assert len(server.named("poll")) == 2
    assert "unknown command: 'dance'" in server.named("event")[0].body["message"]


@pytest.mark.spec("3.3.1.1", "3.3.1.3")
def test_native_run_and_sleep_work_without_leases(bot: BotProcess, server: ScriptedServer) -> None:
    task_id = server.submit([SH, "-c", "echo native"])
    server._offers.clear()
    manifest = server.tasks[task_id].manifest
    server.handshake_extra = {"rbe": None}
    server.poll_replies.extend(
        [{"cmd": "run", "manifest": manifest}, {"cmd": "sleep", "duration": 60}]
    )
    bot.install()
    bot.start()
    task = server.wait_final(task_id)
    assert (bytes(task.output), task.final["exit_code"]) == (b"native\n", 0)
    server.wait_calls("poll", 2)
    assert server.named("rbe/session/create") == []


def test_secrets_never_reach_logs_or_the_task(bot: BotProcess, server: ScriptedServer) -> None:
    server.tokens["BOOT-TOKEN-12345678"] = "HOST-SECRET-87654321"
    server.secret_needed = "HOST-SECRET-87654321"
    bot.install(comment=b"BOOT-TOKEN-12345678")
    bot.env["LUCI_MACHINE_TOKEN"] = "MACHINE-99"
    bot.start_idle()
    server.fault("poll", Fault(status=500, body=b"no"))
    task = server.wait_lease_done(server.submit(["/usr/bin/env"], secret_bytes="c2VjcmV0LWJ5dGVz"))
    bot.signal()
    assert bot.wait() == 0
    texts = [path.read_text() for path in (bot.dir / "logs").iterdir()] + [bot.console()]
    texts.append(task.output.decode())
    for secret in (
        "BOOT-TOKEN-12345678",
        "HOST-SECRET-87654321",
        "-SECRET",
        "c2VjcmV0LWJ5dGVz",
        "MACHINE-99",
    ):
        assert not [text for text in texts if secret in text], secret
