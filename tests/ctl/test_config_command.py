"""`skep config`: what is asked of the server, what is printed, and every exit code."""

import json
import threading

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from botapi.cfg.first_bots_cfg import TEXT
from botapi.cli import main
from tests.factories import LOOPBACK_CFG
from tests.fakes.person import new_key

PREVIEWED = {
    "parent": "d1",
    "parent_rev": 4,
    "digest": "d2",
    "is_new": True,
    "files": ["bots.cfg"],
    "warnings": [],
    "live_bots": 40,
    "changed_bots": 2,
    "restarting_bots": 1,
    "dropped_bots": 1,
    "max_dropped_percent": 5,
    "needs_drop": False,
    "bots": [
        {
            "bot_id": "x1",
            "live": True,
            "changes": ["group", "dimensions"],
            "group_before": "default group (bots.cfg:2)",
            "group_after": "bot_id x1 (bots.cfg:6)",
            "dimensions_added": ["pool:other"],
            "dimensions_removed": ["pool:default"],
            "restarts": True,
            "dropped": None,
        },
        {
            "bot_id": "x2",
            "live": False,
            "changes": ["auth"],
            "group_before": "default group (bots.cfg:2)",
            "group_after": "default group (bots.cfg:3)",
            "dimensions_added": [],
            "dimensions_removed": [],
            "restarts": False,
            "dropped": "x2 is not enrolled",
        },
    ],
    "bots_cut": False,
    "tasks": [{"task_id": "t1", "slice_index": 1, "wants": ["os:a|os:b", "pool:ci"]}],
    "tasks_cut": False,
}
UNCHANGED = PREVIEWED | {"is_new": False, "files": [], "bots": [], "tasks": []}
APPLIED = {"rev": 5, "digest": "d2", "is_new": True, "author": "ann", "reason": "r"}


@pytest.fixture
def folder(tmp_path):
    """Files as they lie on a disk."""
    (tmp_path / "bots.cfg").write_text(TEXT)
    (tmp_path / "settings.cfg").write_text("# é\n")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "s.py").write_text("pass\n")
    (tmp_path / "scripts" / "note.txt").write_text("no script")
    return tmp_path


SENT = {"bots.cfg": TEXT, "settings.cfg": "# é\n", "scripts/s.py": "pass\n"}


# without a server


def test_validate_needs_no_server_and_no_key(skep, folder, script):
    done = skep("config", "validate", str(folder), SKEP_TOKEN=None)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "good, 0 warning(s)" in done.stderr
    assert script.asked == []


def test_validate_takes_the_folder_of_the_settings(skep, folder):
    assert skep("config", "validate", SKEP_CONFIG_DIR=str(folder)).exit_code == 0
    assert skep("config", "validate", SKEP_CONFIG_DIR=str(folder / "scripts")).exit_code == 2


def test_validate_prints_every_mistake_with_its_place(skep, folder):
    (folder / "bots.cfg").write_text('bot_group {\n  dimensions: "x"\n}\n')
    (folder / "pools.cfg").write_text("pool {\n")
    done = skep("config", "validate", str(folder))
    lines = done.stdout.splitlines()
    assert done.exit_code == 2
    assert len(lines) > 2
    assert any(line.startswith("bots.cfg:2:3: ") for line in lines)
    assert any(line.startswith("pools.cfg:") for line in lines)
    assert f"error: {folder}: {len(lines)} mistake(s)" in done.stderr


def test_validate_prints_warnings_and_is_content(skep, folder):
    (folder / "pools.cfg").write_text(
        'pool {\n  name: "default"\n  realm: "a:b"\n}\nbot_monitoring {}\n'
    )
    done = skep("config", "validate", str(folder), "-o", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    shown = skep("config", "validate", str(folder)).stdout.splitlines()
    assert shown == [f"{line} (warning)" for line in found["warnings"]]
    assert (found["mistakes"], len(found["warnings"]) > 0) == ([], True)


def test_validate_in_json_and_lines_of_json(skep, folder):
    good = json.loads(skep("config", "validate", str(folder), "-o", "json").stdout)
    assert set(good) == {"digest", "mistakes", "warnings"}
    assert skep("config", "validate", str(folder), "-o", "id").stdout == good["digest"] + "\n"
    (folder / "bots.cfg").write_text("bot_group {")
    bad = skep("config", "validate", str(folder), "-o", "jsonl")
    records = [json.loads(line) for line in bad.stdout.splitlines()]
    assert [record["kind"] for record in records] == ["mistake", "summary"]
    assert (records[0]["text"], records[1]["digest"]) == ('bots.cfg:1:11: Expected "}".', None)
    assert json.loads(bad.stderr)["code"] == "USAGE"


def test_validate_says_when_there_is_no_file(skep, tmp_path):
    done = skep("config", "validate", str(tmp_path))
    assert done.exit_code == 2
    assert done.stdout == f"bots.cfg:1:1: there is no such file in {tmp_path}\n"


# against a script


def in_force(**more):
    on_disk = {"state": "in_force", "digest": "d1", "mistakes": [], "kept_out_at": None}
    return {
        "rev": 4,
        "digest": "d1",
        "author": "ann",
        "reason": "r",
        "applied_at": "2026-01-01T00:00:00.000Z",
        "in_force": True,
        "files": {"bots.cfg": "# é\n", "pools.cfg": ""},
        "on_disk": on_disk | more,
    }


def test_show_prints_the_revision_and_no_contents(skep, script):
    script.reply(200, in_force())
    done = skep("config", "show")
    assert script.calls == ["GET /api/v1/config"]
    assert "author\tann\n" in done.stdout
    assert "files\tbots.cfg\n" in done.stdout
    assert "on_disk\tin_force\n" in done.stdout
    assert (done.exit_code, done.stderr) == (0, "")


def test_show_tells_that_the_files_on_disk_differ(skep, script):
    script.reply(200, in_force(state="differs")).reply(
        200, in_force(state="kept_out", mistakes=["bots.cfg:1:1: bad"])
    )
    assert "differ from what is in force" in skep("config", "show").stderr
    assert "bots.cfg:1:1: bad" in skep("config", "show").stderr


def test_show_prints_one_file_of_an_older_revision(skep, script):
    revision = {name: value for name, value in in_force().items() if name != "on_disk"}
    script.reply(200, revision).reply(200, revision)
    assert (
        skep("config", "show", "--rev", "3", "--file", "bots.cfg").stdout_bytes == "# é\n".encode()
    )
    assert script.calls == ["GET /api/v1/config/revisions/3"]
    missing = skep("config", "show", "--rev", "3", "--file", "x")
    assert (missing.exit_code, missing.stdout) == (5, "")
    assert "bots.cfg, pools.cfg" in missing.stderr


def test_show_in_json_is_what_the_api_says(skep, script):
    script.reply(200, in_force())
    assert json.loads(skep("config", "show", "-o", "json").stdout) == in_force()


def test_preview_prints_bots_and_tasks(skep, script, folder):
    script.reply(200, PREVIEWED)
    done = skep("config", "preview", str(folder))
    assert script.asked[0].body == {"files": SENT}
    assert done.stdout.splitlines() == [
        "x1\tbot\tgroup,dimensions,restart\tdefault group (bots.cfg:2) -> bot_id x1 (bots.cfg:6)"
        " -pool:default +pool:other",
        "x2\tbot\tauth,dead\tdropped: x2 is not enrolled",
        "t1\ttask\tno bot\tslice 1 wants os:a|os:b pool:ci",
    ]
    assert done.stderr == (
        "bots.cfg change: of 40 live bots 1 will restart, 1 will be dropped; "
        "2 known bots change; 1 pending tasks lose their last bot\n"
    )
    assert done.exit_code == 0


def test_preview_says_that_nothing_changes(skep, script, folder):
    script.reply(200, UNCHANGED)
    done = skep("config", "preview", str(folder))
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "nothing changes: revision 4 says the same\n"


@pytest.mark.parametrize(("answer", "code"), [(UNCHANGED, 0), (PREVIEWED, 1)])
def test_preview_tells_by_its_exit_code_when_asked(skep, script, folder, answer, code):
    script.reply(200, answer)
    assert skep("config", "preview", str(folder), "--exit-code").exit_code == code


def test_preview_of_a_revision(skep, script):
    script.reply(200, PREVIEWED)
    assert skep("config", "preview", "--rev", "3").exit_code == 0
    assert script.asked[0].body == {"rev": 3}


def test_preview_in_lines_of_json(skep, script, folder):
    script.reply(200, PREVIEWED)
    done = skep("config", "preview", str(folder), "-o", "jsonl")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["kind"] for record in records] == ["bot", "bot", "task", "summary"]
    assert records[-1]["dropped_bots"] == 1


def test_mistakes_are_printed_a_line_each(skep, script, folder):
    lines = ["bots.cfg:1:1: one", "pools.cfg:2:2: two\x1b"]
    problem = {"status": 400, "code": "bad_config", "detail": f"{lines[0]} (and 1 more)"}
    for _ in range(2):
        script.reply(400, problem | {"mistakes": lines}, Content_Type="application/problem+json")
    done = skep("config", "preview", str(folder))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[:3] == [
        "bots.cfg:1:1: one",
        "pools.cfg:2:2: two\\x1b",
        "error: configuration: bots.cfg:1:1: one (and 1 more)",
    ]
    as_json = skep("config", "preview", str(folder), "-o", "json")
    assert json.loads(as_json.stderr)["mistakes"] == lines


def test_apply_sends_the_files_with_the_revision_it_was_compared_with(skep, script, folder):
    script.reply(200, PREVIEWED).reply(200, APPLIED)
    done = skep("config", "apply", str(folder), "--reason", "r", "--drop", "1", "--yes")
    assert script.calls == ["POST /api/v1/config/preview", "POST /api/v1/config/apply"]
    assert script.asked[1].body == {"files": SENT, "reason": "r", "parent": "d1", "drop": 1}
    assert "rev\t5\n" in done.stdout
    assert "1 will be dropped" in done.stderr
    assert done.exit_code == 0


def test_apply_wants_a_reason(skep, script, folder):
    done = skep("config", "apply", str(folder), "--yes")
    assert (done.exit_code, script.asked) == (2, [])


def test_apply_asks_nobody_and_does_nothing_without_a_terminal(skep, script, folder):
    script.reply(200, PREVIEWED)
    done = skep("config", "apply", str(folder), "--reason", "r")
    assert (done.exit_code, len(script.asked)) == (2, 1)
    assert "give --yes to go on" in done.stderr


@pytest.mark.parametrize(("answer", "calls", "code"), [("y\n", 2, 0), ("n\n", 1, 2)])
def test_apply_asks_on_a_terminal(skep, script, folder, monkeypatch, answer, calls, code):
    monkeypatch.setattr("botapi.ctl.config.is_terminal", lambda: True)
    script.reply(200, PREVIEWED).reply(200, APPLIED)
    done = skep("config", "apply", str(folder), "--reason", "r", stdin=answer)
    assert (done.exit_code, len(script.asked)) == (code, calls)


def test_apply_of_no_change_is_not_asked_about(skep, script, folder):
    script.reply(200, UNCHANGED).reply(200, APPLIED | {"is_new": False})
    done = skep("config", "apply", str(folder), "--reason", "r")
    assert done.exit_code == 0
    assert done.stderr == "nothing changes: revision 5 says the same\n"


def test_apply_that_would_drop_too_many_bots_is_a_conflict_with_the_number(skep, script, folder):
    detail = "would drop 12 of 40 live bots; to go on, give drop=12"
    problem = {"code": "would_drop", "detail": detail, "dropped_bots": 12, "live_bots": 40}
    script.reply(200, PREVIEWED).reply(409, problem, Content_Type="application/problem+json")
    done = skep("config", "apply", str(folder), "--reason", "r", "--yes")
    assert done.exit_code == 9
    assert f"error: configuration: {detail}" in done.stderr
    assert "--drop 12 goes on" in done.stderr


def test_files_that_cannot_be_sent_are_told(skep, script, tmp_path):
    assert skep("config", "preview", str(tmp_path)).exit_code == 2
    (tmp_path / "bots.cfg").write_bytes(b"\xff")
    done = skep("config", "preview", str(tmp_path))
    assert (done.exit_code, script.asked) == (2, [])
    assert "a file is not UTF-8 text" in done.stderr
    (tmp_path / "bots.cfg").unlink()
    (tmp_path / "bots.cfg").mkdir()
    done = skep("config", "preview", str(tmp_path))
    assert (done.exit_code, "Is a directory" in done.stderr) == (2, True)


def test_history_lists_revisions(skep, script):
    item = {
        "rev": 4,
        "applied_at": "T",
        "author": "ann",
        "in_force": True,
        "digest": "d",
        "reason": "r",
    }
    script.reply(200, {"items": [item], "next_cursor": None})
    done = skep("config", "history")
    assert (done.exit_code, done.stdout) == (0, "4\tT\tann\tyes\td\tr\n")
    assert script.calls == ["GET /api/v1/config/revisions?limit=20"]


def test_rollback_goes_back_on_the_revision_it_was_compared_with(skep, script):
    script.reply(200, PREVIEWED).reply(200, APPLIED)
    done = skep("config", "rollback", "3", "--reason", "r", "--yes")
    assert [one.body for one in script.asked] == [
        {"rev": 3},
        {"rev": 3, "reason": "r", "parent": "d1"},
    ]
    assert (script.calls[1], done.exit_code) == ("POST /api/v1/config/rollback", 0)


# against the real application


@pytest.mark.slow
def test_whole_life_of_a_change_by_the_commands(client, store, clock, rng, folder, make_bot):
    server = make_server("127.0.0.1", 0, client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    environ = {"SKEP_SERVER": url, "SKEP_TOKEN": new_key(store, clock, rng), "SKEP_FORMAT": None}

    def skep(*words):
        return CliRunner().invoke(main, ("config", *words), env=environ)

    try:
        make_bot("vm1").start()
        refused = skep("apply", str(folder), "--reason", "enrol", "--yes")
        assert (refused.exit_code, "would drop 1 of 1" in refused.stderr) == (9, True)
        clock.advance(1)
        made = skep("apply", str(folder), "--reason", "enrol", "--yes", "--drop", "1")
        assert made.exit_code == 0, made.output
        assert skep("show", "--file", "bots.cfg").stdout == TEXT
        assert skep("show", "--rev", "1", "--file", "bots.cfg").stdout == LOOPBACK_CFG
        clock.advance(1)
        assert skep("rollback", "1", "--reason", "no", "--yes").exit_code == 0
        rows = [line.split("\t") for line in skep("history").stdout.splitlines()]
        assert [(row[0], row[2], row[5]) for row in rows] == [
            ("3", "alice", "back to revision 1: no"),
            ("2", "alice", "enrol"),
            ("1", "test", ""),
        ]
        assert skep("rollback", "9", "--reason", "no", "--yes").exit_code == 5
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
