"""Completion: scripts of the shells, verbs and options, and what only the server knows."""

import os
import time

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from botapi.cli import main
from botapi.ctl import completion

BOTS = {
    "items": [
        {"bot_id": "vm1", "dimensions": {"os": ["Linux"], "id": ["vm1"]}},
        {"bot_id": "web2", "dimensions": {"gpu": ["none"]}},
    ]
}


@pytest.fixture
def offered(script, monkeypatch, tmp_path):
    """What is offered for the last word of a line."""
    monkeypatch.setenv("SKEP_SERVER", script.url)
    monkeypatch.setenv("SKEP_TOKEN", "k")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def offer(*words):
        *before, last = words
        shell = ShellComplete(main, {}, "skep", "_SKEP_COMPLETE")
        return [item.value for item in shell.get_completions(list(before), last)]

    return offer


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")]
)
def test_each_shell_has_a_script(shell, word):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert word in done.stdout
    assert "_SKEP_COMPLETE" in done.stdout


def test_shell_that_nobody_knows_is_a_usage_error():
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def test_verbs_and_options_need_no_server(offered, script):
    assert offered("cancel-t") == ["cancel-tasks"]
    assert "--dimension" in offered("run", "--dim")
    assert offered("task", "wh") == ["why"]
    assert script.calls == []


def test_bot_ids_and_dimension_keys_are_asked_for_once_a_minute(offered, script, tmp_path):
    script.reply(200, BOTS).reply(200, {"items": []})
    assert offered("bot", "show", "") == ["vm1", "web2"]
    assert offered("terminate", "w") == ["web2"]
    assert offered("run", "-d", "") == ["gpu=", "id=", "os="]
    assert offered("bots", "-d", "o") == ["os="]
    assert script.calls == ["GET /api/v1/bots?limit=1000"]
    (file,) = (tmp_path / "skep").iterdir()
    old = time.time() - completion.KEEP_S - 1
    os.utime(file, (old, old))
    assert offered("bot", "show", "") == []
    assert len(script.calls) == 2


def test_server_that_refuses_offers_nothing_and_is_asked_once(offered, script):
    script.refuse(503, "starting")
    assert offered("bot", "show", "") == []
    assert len(script.calls) == 1


@pytest.mark.slow
def test_server_that_does_not_answer_is_left_after_two_seconds(offered, script):
    script.hold()
    began = time.monotonic()
    assert offered("bot", "show", "") == []
    assert 1 < time.monotonic() - began < 5
