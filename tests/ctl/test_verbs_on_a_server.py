"""The verbs of a task's life against the real application: one good and one bad case each."""

import json
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from botapi.api.views import rfc3339
from botapi.auth.access import Role, new_api_key
from botapi.cli import main
from botapi.ctl.blobs import INSTANCE
from botapi.transactions.cancel_task import Actor, cancel_task
from botapi.transactions.create_api_key import create_api_key

pytestmark = pytest.mark.slow


@pytest.fixture
def requests() -> Counter[str]:
    """How often each path was asked for."""
    return Counter()


@pytest.fixture
def url(client, requests) -> Iterator[str]:
    """The application of `client` behind a real socket, its requests counted."""
    application = client.application

    def counting(environ, start_response):
        requests[f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"] += 1
        return application(environ, start_response)

    server = make_server("127.0.0.1", 0, counting, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def skep(parts, url) -> Callable[..., Result]:
    """Run a command with the key of an administrator; keywords are environment variables."""
    text, key = new_api_key("admin", Role.ADMIN, parts.rng, now_ms=parts.clock.now_ms())
    create_api_key(parts.store, key)

    def run(*arguments: str, stdin: str = "", **environ: str) -> Result:
        given = {"SKEP_SERVER": url, "SKEP_TOKEN": text, "SKEP_FORMAT": "table"} | environ
        return CliRunner().invoke(main, arguments, input=stdin, env=given)

    return run


@pytest.fixture
def bot(make_bot):
    return make_bot().start()


def run_next(bot, output=b"", exit_code=0):
    """Let the bot take one task and finish it."""
    bot.work(bot.update(nonblocking=False)["lease"], output, exit_code)


def submit(skep, *options, command=("x",)):
    """A new task that waits for whatever; its id."""
    done = skep("run", "--wait-for-capacity", *options, "--", *command)
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


def end(parts, *task_ids):
    """Cancel pending tasks without asking the server."""
    for task_id in task_ids:
        actor = Actor("test", "", task_id)
        cancel_task(parts.store, task_id, actor, kill_running=False, now_ms=parts.clock.now_ms())


# run


def test_run_says_everything_that_a_task_can_have(skep):
    task_id = submit(
        skep,
        *("-d", "os=Linux", "--pool", "default", "--env", "A=1", "--env-prefix", "PATH=bin"),
        *("--named-cache", "git=cache/git", "--output", "out/a.txt", "-output", "b"),
        *("--priority", "50", "--realm", "p:r", "--relative-cwd", "src", "--idempotent"),
        *("--optional-dimension", "gpu=nvidia:60", "-optional-dimension", "fast=1:120"),
        *("--expiration", "10m", "--user", "ann", "--max-retries", "2"),
    )
    task = json.loads(skep("task", "show", task_id, "-o", "json").stdout)
    assert [slice_["expiration_s"] for slice_ in task["slices"]] == [60, 60, 480]
    assert [sorted(slice_["dimensions"]) for slice_ in task["slices"]] == [
        ["fast", "gpu", "os", "pool"],
        ["fast", "os", "pool"],
        ["os", "pool"],
    ]
    for slice_ in task["slices"]:
        assert slice_["caches"] == [{"name": "git", "path": "cache/git"}]
        assert sorted(slice_["outputs"]) == ["b", "out/a.txt"]
        assert (slice_["env"], slice_["idempotent"]) == ({"A": "1"}, True)
    assert (task["priority"], task["user"], task["realm"]) == (50, "ann", "p:r")


def test_run_reads_a_whole_request_from_stdin(skep):
    body = {"command": ["x"], "wait_for_capacity": True, "name": "from stdin"}
    done = skep("run", "--file", "-", stdin=json.dumps(body), SKEP_USER="bob")
    assert done.exit_code == 0, done.stderr
    task = json.loads(skep("task", "show", done.stdout.strip(), "-o", "json").stdout)
    assert (task["name"], task["user"]) == ("from stdin", "bob")


def test_run_inside_a_task_makes_a_child(skep, bot):
    parent = submit(skep)
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    child = submit(skep, command=("y",))
    assert json.loads(skep("task", "show", child, "-o", "json").stdout)["parent_task_id"] is None
    done = skep("run", "--wait-for-capacity", "--", "y", SWARMING_TASK_ID=run_id)
    task = json.loads(skep("task", "show", done.stdout.strip(), "-o", "json").stdout)
    assert task["parent_task_id"] == run_id
    assert skep("tasks", "-q", f"parent:{parent}", "-o", "id").stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "no command"),
        (["run", "--optional-dimension", "a=b:30", "--expiration", "30s", "--", "x"], "leave"),
        (["run", "--optional-dimension", "a=b", "--", "x"], "k=v:secs"),
        (["run", "--file", "nowhere.json"], "No such file"),
        (["run", "--file", "-"], "not JSON"),
        (["run", "--file", "-", "--", "x"], "says everything already, beside command"),
        (["run", "--digest", "abc", "--", "x"], "is not HASH/SIZE"),
        (["run", "--input", "/nowhere", "--", "x"], "does not exist"),
        (["run", "--tag", "nocolon", "--", "x"], "has not the form k:v"),
        (["run", "--tag", "swarming.terminate:1", "--", "x"], "swarming.terminate"),
    ],
)
def test_run_refuses_what_makes_no_sense(skep, arguments, said):
    done = skep(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_dry_run_says_where_and_submits_nothing(skep, bot):
    done = skep("run", "--dry-run", "-d", "os=Linux", "-o", "json", "--", "x")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["request"]["slices"][0]["dimensions"]["os"] == ["Linux"]
    assert "slice 1 of 1: 1 known bot(s) match" in done.stderr
    assert skep("run", "--dry-run", "-d", "os=Plan9", "--", "x").exit_code == 11
    assert skep("tasks").stdout == ""


# spawn and collect


def request_file(folder, count, **more):
    file = folder / "requests.jsonl"
    bodies = [
        {"command": ["x"], "name": f"n{n}", "wait_for_capacity": True, **more} for n in range(count)
    ]
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return str(file)


def test_spawn_makes_the_tasks_in_order_and_a_repeat_makes_none(skep, tmp_path):
    file = request_file(tmp_path, 20)
    first = skep("spawn", file, "--cols", "task_id,name", "--jobs", "4")
    assert first.exit_code == 0, first.stderr
    rows = [line.split("\t") for line in first.stdout.splitlines()]
    assert [name for _id, name in rows] == [f"n{n}" for n in range(20)]
    again = skep("spawn", file)
    assert again.stdout.splitlines() == [task_id for task_id, _name in rows]
    assert "20 of these were made before" in again.stderr
    assert skep("tasks", "--count", "-o", "id").stdout == "20\n"
    new = skep("spawn", file, "--again", "2", "-o", "id")
    assert not set(new.stdout.split()) & set(again.stdout.split())


def test_spawn_stops_at_a_refusal_and_cancels_the_extra_ones(skep, tmp_path):
    file = Path(request_file(tmp_path, 3))
    file.write_text(file.read_text() + '{"command": []}\n')
    done = skep("spawn", str(file), "--jobs", "1", "--cancel-extra-on-error")
    assert done.exit_code == 2
    assert "error: request 4: /command: " in done.stderr
    assert "canceled 3 task(s)" in done.stderr
    assert skep("tasks", "-q", "state:canceled", "--count", "-o", "id").stdout == "3\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "holds no requests"),
        ('[{"command": ["x"]}, 5]', "request 2 is no JSON object"),
        ('{"command": ["x"]}\nnonsense', "line 2 is not JSON"),
    ],
)
def test_spawn_refuses_a_file_that_is_none(skep, text, said):
    done = skep("spawn", "-", stdin=text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_thousand_tasks_cost_collect_a_bounded_number_of_requests(
    skep, tmp_path, parts, requests
):
    printed = tmp_path / "tasks.json"
    done = skep("spawn", request_file(tmp_path, 1000), "--json-output", str(printed))
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    ids = [task["task_id"] for task in json.loads(printed.read_text())["tasks"]]
    assert len(set(ids)) == 1000
    end(parts, *ids[:400])
    requests.clear()
    late = skep("collect", "--requests-json", str(printed), "--timeout", "0", "-o", "id")
    assert late.exit_code == 6
    assert late.stdout.split() == ids
    assert sum(requests.values()) <= 3
    end(parts, *ids[400:])
    requests.clear()
    done = skep("collect", "-requests-json", str(printed), "-o", "id")
    assert (done.exit_code, done.stdout.split()) == (10, ids)
    assert sum(requests.values()) <= 3


def test_collect_brings_outputs_where_they_are_wanted(skep, bot, tmp_path):
    ids = [submit(skep), submit(skep)]
    run_next(bot, b"one\n")
    run_next(bot, b"two\n")
    console = skep("collect", *ids, "--task-output-stdout", "console", "-o", "id")
    assert console.stdout == f"one\ntwo\n{ids[0]}\n{ids[1]}\n"
    found = skep("collect", *ids, "-task-output-stdout", "json", "-o", "json")
    assert [task["output"] for task in json.loads(found.stdout)["items"]] == ["one\n", "two\n"]
    folder = tmp_path / "o"
    assert skep("collect", *ids, "--task-output-stdout", f"dir:{folder}").exit_code == 0
    assert (folder / f"{ids[1]}.txt").read_bytes() == b"two\n"
    both = skep(
        *("collect", ids[0], "--task-output-stdout", "dir", "--output-dir", str(tmp_path / "p")),
        *("--task-output-stdout", "none", "--perf"),
    )
    assert both.exit_code == 0
    assert (tmp_path / "p" / f"{ids[0]}.txt").read_bytes() == b"one\n"


def test_collect_without_waiting_shows_how_they_stand(skep, bot):
    ids = [submit(skep), submit(skep)]
    run_next(bot, exit_code=4)
    done = skep("collect", *ids, "--no-wait", "--cols", "state")
    assert (done.exit_code, done.stdout) == (1, "COMPLETED\nPENDING\n")
    assert skep("collect", ids[0], "--exit-code", "task").exit_code == 4
    assert skep("collect", ids[1], "--no-wait").exit_code == 8


def test_collect_brings_the_files_that_a_task_kept(skep, bot, tmp_path):
    source = tmp_path / "kept"
    source.mkdir()
    (source / "a.bin").write_bytes(b"\0kept")
    digest, _, size = skep("cas", "put", str(source)).stdout.strip().partition("/")
    task_id = submit(skep, "--output", "a.bin")
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    root = {"cas_instance": INSTANCE, "digest": {"hash": digest, "size_bytes": int(size)}}
    bot.finish(run_id, b"said\n", exit_code=0, cas_output_root=root)
    assert bot.status == 200, bot.text
    folder = tmp_path / "got"
    for _ in range(2):
        done = skep("collect", task_id, "--output-dir", str(folder))
        assert done.exit_code == 0, done.stderr
        assert (folder / task_id / "a.bin").read_bytes() == b"\0kept"
        assert (folder / f"{task_id}.txt").read_bytes() == b"said\n"
    assert "is there already" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["collect"], "", "no task ids"),
        (["collect", "--requests-json", "-"], "{}", "holds no task ids"),
        (["collect", "--requests-json", "-"], "x", "not JSON"),
        (["collect", "a", "--task-output-stdout", "dir"], "", "no folder"),
        (["collect", "a", "--task-output-stdout", "paper"], "", "is none of"),
        (["collect", "a", "b", "--exit-code", "task"], "", "2 tasks, not one"),
    ],
)
def test_collect_refuses_what_makes_no_sense(skep, arguments, stdin, said):
    done = skep(*arguments, stdin=stdin)
    assert done.exit_code == 2
    assert said in done.stderr


# lists


def test_tasks_are_filtered_counted_and_shown_by_columns(skep, bot, parts):
    submit(skep, "--tag", "build:1", "--name", "old")
    run_next(bot, exit_code=3)
    parts.clock.advance(60)
    new = submit(skep, "--tag", "build:2", "--name", "new")
    assert skep("tasks", "-q", "exit:3 build:1", "--cols", "name,exit_code").stdout == "old\t3\n"
    assert skep("tasks", "-q", "state:pending", "-o", "id").stdout == f"{new}\n"
    assert skep("tasks", "--count", "-q", "state:final", "-o", "id").stdout == "1\n"
    assert skep("tasks", "--count", "--estimate", "-q", "exit>2", "-o", "id").stdout == "1\n"
    csv = skep("tasks", "-o", "csv", "--cols", "name,slices").stdout.splitlines()
    assert csv[0] == "name,slices"
    assert skep("tasks", "-o", "csv", "--no-header", "--cols", "name").stdout == "new\nold\n"
    assert skep("tasks", "-o", "yaml").stdout.startswith("items:\n- name: new\n")
    assert skep("tasks", "--from", "1970-02-01", "--to", "2000-01-01").exit_code == 7
    listed = skep("bot", "tasks", "vm1", "--cols", "name", "--state", "final")
    assert listed.stdout == "old\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tasks", "-q", "stat:final"], 2, "do you mean state?"),
        (["bots", "-q", "status:tired"], 2, '"tired" at character 8'),
        (["tasks", "-q", "build:none"], 7, "nothing matches q=build:none"),
        (["tasks", "--from", "someday"], 2, "is not a time such as"),
        (["bot", "tasks", "vm1", "--bot", "vm2"], 2, "named already"),
    ],
)
def test_lists_refuse_what_makes_no_sense(skep, arguments, code, said):
    done = skep(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


def test_column_that_nothing_has_is_refused_with_those_there_are(skep):
    submit(skep)
    done = skep("tasks", "--cols", "stat")
    assert done.exit_code == 2
    assert "no task has 'stat'" in done.stderr
    assert "state" in done.stderr.splitlines()[-1]


def test_bots_are_filtered_and_counted(skep, make_bot):
    make_bot("vm1", dims={"cores": ["8"]}).start()
    make_bot("vm2", dims={"cores": ["4"]}).start()
    assert skep("bots", "-q", "cores>=8", "--bare").stdout == "vm1\n"
    assert skep("bots", "-q", "cores>=8", "--count").stdout == "count\t1\ncount_kind\texact\n"
    assert "idle\t2\n" in skep("bots", "-q", "os:Linux", "--count").stdout
    columns = skep("bots", "--cols", "bot_id,dimensions.cores").stdout
    assert columns == "vm1\t8\nvm2\t4\n"


# one task


def test_why_names_bots_and_what_would_help(skep, bot):
    task_id = submit(skep, "-d", "os=Plan9")
    done = skep("task", "why", task_id)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("vm1\t")
    assert "would help" in done.stderr
    assert skep("task", "why", task_id, "--all", "-o", "id").stdout == "vm1\n"
    assert skep("task", "why", "1234567890abcde0").exit_code == 5


def test_log_begins_and_greps_where_asked(skep, bot):
    task_id = submit(skep)
    run_next(bot, b"alpha\nbeta\ngamma\nalphabet")
    assert skep("task", "log", task_id, "--since", "6").stdout == "beta\ngamma\nalphabet"
    assert skep("task", "log", task_id, "--since", "-8").stdout == "alphabet"
    for follow in ([], ["--follow"]):
        grepped = skep("task", "log", task_id, "--grep", "^alpha", *follow)
        assert grepped.stdout == "alpha\nalphabet\n"
    assert skep("task", "log", task_id, "--grep", "(").exit_code == 2


def test_kill_stops_a_running_task(skep, bot):
    task_id = submit(skep)
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    assert skep("task", "cancel", task_id).exit_code == 9
    assert skep("task", "kill", task_id, "--reason", "enough").exit_code == 0
    assert bot.task_update(run_id, b"")["must_stop"] is True
    assert skep("task", "kill", "1234567890abcde0").exit_code == 5


def test_retry_with_changes_is_a_new_task_that_asks_for_the_same(skep, monkeypatch, parts):
    task_id = submit(skep, "-d", "os=Linux", "--tag", "a:b", "--env", "A=1", "--priority", "7")
    end(parts, task_id)

    def edit(text, **_more):
        body = json.loads(text)
        assert body["tags"] != []
        body["slices"][0]["command"] = ["changed"]
        return json.dumps(body)

    monkeypatch.setattr("click.edit", edit)
    done = skep("task", "retry", task_id, "--edit")
    assert done.exit_code == 0, done.stderr
    task = json.loads(skep("task", "show", done.stdout.strip(), "-o", "json").stdout)
    assert task["slices"][0]["command"] == ["changed"]
    assert (task["slices"][0]["env"], task["priority"]) == ({"A": "1"}, 7)
    assert "a:b" in task["tags"]
    monkeypatch.setattr("click.edit", lambda _text, **_more: None)
    assert skep("task", "retry", task_id, "--edit").exit_code == 2


def test_retry_is_a_new_task_on_the_server(skep, parts):
    task_id = submit(skep)
    assert skep("task", "retry", task_id).exit_code in {2, 9}
    end(parts, task_id)
    done = skep("task", "retry", task_id, "--reason", "flaky")
    assert done.exit_code == 0, done.stderr
    task = json.loads(skep("task", "show", done.stdout.strip(), "-o", "json").stdout)
    assert (task["retry_of"], task["state"]) == (task_id, "PENDING")


# many at once


def test_cancel_tasks_counts_asks_and_cancels(skep):
    for number in range(6):
        submit(skep, "--tag", f"n:{number % 2}")
    unasked = skep("cancel-tasks", "-q", "n:1")
    assert unasked.exit_code == 2
    assert "3 task(s), pending, will be canceled" in unasked.stderr
    done = skep("cancel-tasks", "-q", "-n:0", "--yes", "--reason", "old")
    assert (done.exit_code, done.stdout) == (0, "matched\t3\n"), done.stderr
    assert skep("tasks", "--state", "CANCELED", "--count", "-o", "id").stdout == "3\n"
    few = skep("cancel-tasks", "--tag", "n:0", "--limit", "2", "--yes")
    assert few.stdout == "matched\t2\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["cancel-tasks", "--yes"], 2, "no filter"),
        (["cancel-tasks", "--tag", "a:none", "--yes"], 7, "no task that could be canceled"),
        (["cancel-tasks", "-q", "statt:x", "--yes"], 2, "do you mean state?"),
        (["delete-bots", "--yes"], 2, "give ids, or a filter"),
        (["delete-bots", "nobody", "--yes"], 5, "there is no bot"),
        (["delete-bots", "-q", "status:dead", "--yes"], 7, "no dead bot"),
        (["terminate", "a:b"], 2, "bot_id"),
    ],
)
def test_steering_refuses_what_makes_no_sense(skep, arguments, code, said):
    done = skep(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


def test_terminate_makes_a_task_that_asks_the_bot_to_exit(skep, bot):
    done = skep("terminate", "vm1", "--reason", "disk")
    assert done.exit_code == 0, done.stderr
    again = skep("terminate", "vm1")
    assert again.stdout == done.stdout
    waited = skep("terminate", "vm1", "--wait", "--timeout", "0")
    assert waited.exit_code == 6
    claimed = bot.claim(bot.update(nonblocking=False)["lease"])
    assert claimed["cmd"] == "terminate"


def test_bots_are_deleted_after_a_question(skep, make_bot):
    make_bot("vm1").start()
    make_bot("vm2").start()
    alive = skep("delete-bots", "vm1", "--yes")
    assert alive.exit_code == 9
    unasked = skep("delete-bots", "vm1", "--force")
    assert unasked.exit_code == 2
    assert "1 bot(s) will be deleted: vm1" in unasked.stderr
    assert skep("delete-bots", "vm1", "--force", "--yes").stdout == "vm1\tyes\n"
    assert skep("delete-bots", "-q", "os:Linux", "--force", "--yes").stdout == "vm2\tyes\n"
    assert skep("bots", "--bare").stdout == ""


def test_bootstrap_tokens_are_listed_and_revoked(skep):
    made = json.loads(skep("bootstrap", "new", "-o", "json").stdout)
    assert skep("bootstrap", "list", "-o", "id").stdout == f"{made['token_id']}\n"
    assert made["token"] not in skep("bootstrap", "list", "-o", "json").stdout
    revoked = skep("bootstrap", "revoke", made["token_id"], "--reason", "leaked")
    assert revoked.stdout.endswith("\tthe bootstrap token is revoked\n")
    assert skep("bootstrap", "list").stdout == ""
    assert skep("bootstrap", "list", "--all", "-o", "id").stdout == f"{made['token_id']}\n"
    assert skep("bootstrap", "revoke", "0" * 20).exit_code == 5


# reproduce


def test_reproduce_runs_the_command_in_a_folder_of_its_own(skep, tmp_path, capfd):
    code = 'echo "$GREETING $PWD"; echo done > "${ISOLATED_OUTDIR}/f"; exit 3'
    task_id = submit(
        skep,
        *("--env", "GREETING=it's me", "--relative-cwd", "a/b", "--env-prefix", "PATH=bin"),
        command=("/bin/sh", "-c", code),
    )
    work = tmp_path / "w"
    done = skep("reproduce", task_id, "--work", str(work))
    assert done.exit_code == 3, done.stderr
    assert capfd.readouterr().out == f"it's me {work}/root/a/b\n"
    assert (work / "out" / "f").read_text() == "done\n"
    assert json.loads((work / "task.json").read_text())["task_id"] == task_id
    assert f"export PATH={work}/root/bin" in (work / "run.sh").read_text()
    again = skep("reproduce", task_id, "--work", str(work))
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_reproduce_has_the_input_files(skep, tmp_path, capfd):
    source = tmp_path / "src"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f.txt").write_text("input\n")
    options = ("--input", str(source), "--relative-cwd", "d")
    task_id = submit(skep, *options, command=("cat", "f.txt"))
    done = skep("reproduce", task_id, "--work", str(tmp_path / "w"))
    assert (done.exit_code, capfd.readouterr().out) == (0, "input\n"), done.stderr
    shown = json.loads(skep("task", "show", task_id, "-o", "json").stdout)
    digest = shown["slices"][0]["cas_input_root"]["digest"]
    again = submit(skep, "-digest", f"{digest['hash']}/{digest['size_bytes']}")
    shown = json.loads(skep("task", "show", again, "-o", "json").stdout)
    assert shown["slices"][0]["cas_input_root"]["digest"] == digest


def test_reproduce_only_prepares_and_says_what_is_missing(skep, tmp_path):
    task_id = submit(skep, "--named-cache", "git=c", command=("/bin/false",))
    done = skep("reproduce", task_id, "--no-run", "--work", str(tmp_path / "w"))
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/w/run.sh\n")
    assert "not reproduced: named caches git" in done.stderr
    assert stat.S_IMODE(os.stat(tmp_path / "w" / "run.sh").st_mode) == 0o700
    assert skep("reproduce", "1234567890abcde0").exit_code == 5


# bots as they were


def test_timeline_log_and_fleet_of_then_tell_of_the_same_bot(skep, bot, parts):
    began_ms = parts.clock.now_ms()
    parts.clock.advance(60)
    assert skep("bot", "pause", "vm1", "--reason", "disk").exit_code == 0
    bot.poll()
    bot.call("/event", event="bot_error", message="no space\nleft", request_uuid="u1")
    parts.clock.advance(40)
    then, now = rfc3339(began_ms), rfc3339(parts.clock.now_ms())
    rows = skep("bot", "timeline", "vm1", "--from", then, "--to", now, "--cols", "seconds,state")
    assert rows.stdout == "60.0\tidle\n40.0\tpaused\n", rows.stderr
    assert rows.stderr == "idle 60.0%, paused 40.0%\n"
    assert skep("bot", "log", "vm1").stdout.endswith("Z bot_error\n  no space\n  left\n")
    for when, status in ((then, "idle"), (now, "paused")):
        assert skep("bots", "--at", when, "--cols", "bot_id,status").stdout == f"vm1\t{status}\n"
    assert skep("bots", "--at", then, "--status", "paused").exit_code == 7


def test_update_leaves_a_bot_alone_that_runs_what_it_should(skep, make_bot, bot):
    old = make_bot("vm2", version="f" * 64)
    old.handshake()
    done = skep("bot", "update", "vm1", "vm2", "--reason", "new", "--cols", "bot_id,result,why")
    assert done.stdout == "vm1\tdone\tit runs the expected version\nvm2\tdone\t\n", done.stderr
    assert old.poll()["cmd"] == "update"
    assert bot.poll()["cmd"] == "rbe"
