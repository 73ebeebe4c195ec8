"""The commands against the real application, so that both sides of docs/api.md meet."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from botapi.auth.access import new_api_key
from botapi.cli import main
from botapi.domain.permissions import Role
from botapi.transactions.create_api_key import create_api_key

pytestmark = pytest.mark.slow


@pytest.fixture
def url(client) -> Iterator[str]:
    """The application of `client` behind a real socket."""
    server = make_server("127.0.0.1", 0, client.application, threaded=True)
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

    def run(*arguments: str, **environ: str) -> Result:
        given = {"SKEP_SERVER": url, "SKEP_TOKEN": text, "SKEP_FORMAT": "table"} | environ
        return CliRunner().invoke(main, arguments, env=given)

    return run


def run_next(bot, output=b"", exit_code=0):
    """Let the bot take one task and finish it."""
    bot.work(bot.update(nonblocking=False)["lease"], output, exit_code)


def test_whole_life_of_a_task_by_the_commands(skep, make_bot):
    bot = make_bot().start()
    submitted = skep("run", "-d", "os=Linux", "--tag", "a:b", "--user", "ann", "--", "echo", "hi")
    assert submitted.exit_code == 0, submitted.stderr
    task_id = submitted.stdout.strip()
    assert skep("tasks", "--state", "pending", "-o", "id").stdout == submitted.stdout
    run_next(bot, b"hi\n")
    collected = skep("collect", task_id)
    assert collected.stdout.startswith(f"{task_id}\tCOMPLETED\t0\t")
    assert skep("task", "log", task_id).stdout == "hi\n"
    assert skep("task", "log", "--follow", task_id).stdout == "hi\n"
    assert "why" in json.loads(skep("task", "show", task_id, "-o", "json").stdout)
    for filters in (["--tag", "a:b"], ["--user", "ann"], ["--bot", "vm1"], ["--state", "final"]):
        assert skep("tasks", *filters, "-o", "id").stdout == submitted.stdout
    assert skep("tasks", "--tag", "a:c").exit_code == 7


def test_failed_and_canceled_tasks_have_their_exit_codes(skep, make_bot):
    bot = make_bot().start()
    failed = skep("run", "--", "false").stdout.strip()
    run_next(bot, exit_code=3)
    canceled = skep("run", "--wait-for-capacity", "-d", "os=Plan9", "--", "x").stdout.strip()
    shown = skep("cancel", canceled, "--reason", "no such bot")
    assert shown.stdout == f"{canceled}\tyes\tno\tCANCELED\n"
    assert skep("cancel", canceled).exit_code == 0
    assert skep("cancel", failed).exit_code == 9
    assert skep("collect", failed).exit_code == 1
    assert skep("collect", failed, canceled).exit_code == 10
    assert "\ttask.cancel\t" in skep("audit").stdout


def test_pending_task_says_why_and_the_wait_ends(skep):
    done = skep(
        *("run", "--wait-for-capacity", "-d", "os=Plan9", "--wait", "--timeout", "0", "--", "x")
    )
    assert done.exit_code == 6
    assert done.stderr.startswith("pending: ")


def test_task_that_no_bot_could_run_is_refused_with_a_way_out(skep):
    done = skep("run", "-d", "os=Plan9", "--", "x")
    assert (done.exit_code, done.stdout) == (11, "")
    assert "--wait-for-capacity" in done.stderr.splitlines()[-1]


def test_bots_are_seen_and_counted(skep, make_bot):
    make_bot("vm1").start()
    make_bot("vm2").start()
    assert skep("bots", "--bare").stdout == "vm1\nvm2\n"
    assert skep("bots", "-d", "id=vm2|vm3", "--status", "idle", "--bare").stdout == "vm2\n"
    assert "idle\t2\n" in skep("bots", "--count").stdout
    assert "os=Linux" in skep("bot", "show", "vm1").stdout
    assert "bot_connected" in skep("bot", "events", "vm1").stdout
    assert skep("bots", "-o", "jsonl").stdout.splitlines()[-1] == '{"kind": "summary", "count": 2}'


def test_bootstrap_line_is_one_line_to_paste(skep, url):
    done = skep("bootstrap", "new", "--uses", "3", "--ttl", "30m", "--pool", "default")
    assert done.stdout.count("\n") == 1
    assert f"{url}/bootstrap?tok=" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "code"),
    [
        (["whoami"], {}, 0),
        (["whoami"], {"SKEP_TOKEN": "skep_wrong"}, 4),
        (["whoami"], {"SKEP_TOKEN": ""}, 4),
        (["task", "show", "1234567890abcde0"], {}, 5),
        (["bot", "show", "nobody"], {}, 5),
        (["collect", "1234567890abcde0"], {}, 5),
        (["run", "--tag", "a:b", "--expiration", "1s", "--", "x"], {}, 2),
        (["tasks", "--state", "nonsense"], {}, 2),
    ],
)
def test_refusals_have_their_exit_codes(skep, arguments, environ, code):
    done = skep(*arguments, **environ)
    assert done.exit_code == code, done.stderr
    if code:
        assert done.stderr.startswith("error: ")
        assert done.stdout == ""


def test_keys_are_listed_rotated_and_revoked(skep):
    listed = skep("keys", "list")
    assert listed.exit_code == 0, listed.stderr
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    assert [row[1:3] for row in rows] == [[p, "active"] for p in ("session", "signing", "oidc")]
    old = rows[0][0]
    rotated = skep("keys", "rotate", "session")
    assert rotated.exit_code == 0, rotated.stderr
    assert [line.split("\t")[2] for line in rotated.stdout.splitlines()] == ["next", "active"]
    assert " signs from " in rotated.stderr
    assert skep("keys", "rotate", "session").exit_code == 9
    unasked = skep("keys", "revoke", "session", old, "--reason", "lost")
    assert unasked.exit_code == 2
    assert "revoking it stops: every bot whose session it signed" in unasked.stderr
    revoked = skep("keys", "revoke", "session", old, "--reason", "lost", "--yes")
    assert revoked.exit_code == 0, revoked.stderr
    assert [line.split("\t")[2] for line in revoked.stdout.splitlines()] == ["active"]
    assert old not in skep("keys", "list", "-o", "id").stdout
    for arguments in (["revoke", "session", old, "--reason", "r", "--yes"], ["rotate", "nope"]):
        assert skep("keys", *arguments).exit_code == 5
    audit = [tuple(line.split("\t")[2:]) for line in skep("audit").stdout.splitlines()]
    assert sorted(audit) == [
        ("key.revoke", "session keys", "lost"),
        ("key.rotate", "session keys", ""),
    ]
