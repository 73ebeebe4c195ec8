"""Forms of the results."""

import io
import json

from botapi.ctl import output, terminal
from botapi.ctl.output import Listing, as_cell, key

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
