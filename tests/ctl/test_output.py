"""Forms of the results."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys

import pytest
import yaml

from botapi.ctl import output, progress, terminal
from botapi.ctl.command import Invocation
from botapi.ctl.errors import Invalid
from botapi.ctl.output import Listing, as_cell, key
from botapi.settings import Settings

LISTING = Listing("thing", (key("id"), key("state")))
ITEMS = [{"id": "a", "state": "x\ty"}, {"id": "b", "state": None}]


def test_table_is_tab_separated_without_titles_where_there_is_no_terminal(capsys):
    output.show_list("table", LISTING, ITEMS, {})
    assert capsys.readouterr().out == "a\tx\\ty\nb\t\n"


def test_json_is_exactly_what_the_api_gave(capsys):
    output.show_list("json", LISTING, ITEMS, {"items": ITEMS, "next_cursor": None})
    assert json.loads(capsys.readouterr().out) == {"items": ITEMS, "next_cursor": None}


def test_jsonl_is_typed_records_and_ends_with_a_summary(capsys):
    output.show_list("jsonl", LISTING, ITEMS, {})
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records == [
        {"kind": "thing", **ITEMS[0]},
        {"kind": "thing", **ITEMS[1]},
        {"kind": "summary", "count": 2},
    ]


def test_id_is_one_identifier_a_line(capsys):
    output.show_list("id", LISTING, ITEMS, {})
    assert capsys.readouterr().out == "a\nb\n"


def test_cells_are_one_line_and_carry_no_control_characters():
    assert as_cell("\x1b[31mred\n") == "\\x1b[31mred\\n"
    assert as_cell({"os": ["a", "b"], "x": None}) == "os=a,b x="
    values = (None, True, False, 0, 1.5)
    assert [as_cell(value) for value in values] == ["", "yes", "no", "0", "1.5"]


def test_table_on_a_terminal_never_shortens_identifiers():
    file = io.StringIO()
    long = "i" * 60
    terminal.show_table(["id", "text"], [[long, "t" * 200]], file)
    assert long in file.getvalue()
    assert "…" in file.getvalue()


@pytest.fixture
def look():
    """Show results so, for one test."""
    tokens = []

    def use(**how):
        tokens.append(output.LOOK.set(output.Look(**how)))

    yield use
    for token in reversed(tokens):
        output.LOOK.reset(token)


def test_csv_quotes_and_has_titles(capsys, look):
    items = [{"id": "a", "state": 'x,"y"'}]
    output.show_list("csv", LISTING, items, {})
    assert capsys.readouterr().out == 'id,state\na,"x,""y"""\n'
    look(has_header=False, cols=("state", "id"))
    output.show_list("csv", LISTING, items, {})
    assert capsys.readouterr().out == '"x,""y""",a\n'


def test_yaml_is_the_json_document(capsys):
    whole = {"items": [{"id": "a", "n": None, "text": "yes", "é": 1}]}
    output.show_list("yaml", LISTING, whole["items"], whole)
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == whole
    assert "é" in text


def test_columns_are_titles_or_keys_within_keys(capsys, look):
    look(cols=("a.b", "a.c.d", "state"))
    items = [{"id": "1", "state": "s", "a": {"b": [1, 2], "c.d": "point"}}]
    output.show_list("table", LISTING, items, {})
    assert capsys.readouterr().out == "1,2\tpoint\ts\n"
    look(cols=("a.b.x",))
    output.show_item("table", "thing", "1", {"a": {"b": {"x": True}}})
    assert capsys.readouterr().out == "yes\n"


def test_column_that_nothing_has_is_refused_unless_there_is_nothing(look, capsys):
    look(cols=("stat",))
    with pytest.raises(Invalid, match="no thing has 'stat'"):
        output.show_list("table", LISTING, ITEMS, {})
    output.show_list("table", LISTING, [], {})
    assert capsys.readouterr().out == ""


def test_wide_table_shortens_nothing_and_colour_can_be_forced():
    file = io.StringIO()
    terminal.show_table(["id", "text"], [["a", "t" * 200]], file, is_wide=True)
    assert "t" * 200 in file.getvalue()
    file = io.StringIO()
    terminal.show_table(["id"], [["a"]], file, color=True)
    assert "\x1b[" in file.getvalue()


@pytest.mark.parametrize(
    ("environ", "quiet", "is_terminal", "watched"),
    [
        ({}, False, True, True),
        ({}, True, True, False),
        ({}, False, False, False),
        ({"CI": "1"}, False, True, False),
        ({"TERM": "dumb"}, False, True, False),
    ],
)
def test_bar_is_drawn_only_for_somebody_who_watches(
    monkeypatch, environ, quiet, is_terminal, watched
):
    for name in ("CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    file = io.StringIO()
    file.isatty = lambda: is_terminal
    monkeypatch.setattr("sys.stderr", file)
    call = Invocation(Settings(), None, quiet)
    with progress.bar(call, "counting", 3) as advance:
        advance(2)
    assert bool(file.getvalue()) is watched


@pytest.mark.parametrize(
    ("count", "options", "is_paged"), [(60, [], True), (60, ["--no-pager"], False), (3, [], False)]
)
def test_table_that_is_longer_than_the_screen_goes_through_the_pager(
    script, tmp_path, count, options, is_paged
):
    bots = [{"bot_id": f"b{n}", "status": "idle", "task_id": None} for n in range(count)]
    script.reply(200, {"items": bots, "next_cursor": None})
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nsed 's/^/paged /'\n")
    pager.chmod(0o755)
    ours, theirs = pty.openpty()
    environ = {**os.environ, "SKEP_SERVER": script.url, "PAGER": str(pager), "LINES": "24"}
    with subprocess.Popen(
        [sys.executable, "-m", "botapi.cli", "bots", *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
    ) as child:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux tells the end of a pseudo-terminal
            while piece := os.read(ours, 65_536):
                shown += piece
    os.close(ours)
    assert child.returncode == 0
    lines = shown.decode().splitlines()
    assert sum(f"b{count - 1} " in line for line in lines) == 1, lines
    assert all(line.startswith("paged ") for line in lines) is is_paged
