"""The pages say what is true: links, limits, settings, events, endpoints."""

import importlib
import re
from pathlib import Path

import pytest

from botapi import botsrv
from botapi.domain.task import TaskState

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "config/README.md"])
LIMIT = re.compile(r"^\| `([a-z_.]+\.[A-Z_]+)` \| ([0-9,.]+) \|", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_links_to_files_that_exist(page):
    missing = [
        target
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).resolve().exists()
    ]
    assert missing == []


def limits():
    return LIMIT.findall((ROOT / "docs/limits.md").read_text())


def test_limits_page_has_every_row_it_should():
    assert len(limits()) > 40


@pytest.mark.parametrize(("name", "shown"), limits())
def test_limits_page_shows_the_value_in_the_code(name, shown):
    module, attribute = name.rsplit(".", 1)
    assert float(shown.replace(",", "")) == getattr(importlib.import_module(module), attribute)


def test_api_page_names_every_task_state():
    page = (ROOT / "docs/api.md").read_text()
    assert [state for state in TaskState if f"`{state}`" not in page] == []


def test_readme_begins_with_the_two_commands():
    head = (ROOT / "README.md").read_text().splitlines()[:8]
    assert any(line.startswith("make demo") for line in head)
    assert any(line.startswith("make test") for line in head)


def test_architecture_page_names_every_room():
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = [
        path.name
        for path in (ROOT / "botapi").iterdir()
        if path.is_dir() and (path / "__init__.py").exists()
    ]
    assert [room for room in rooms if f"botapi/{room}" not in page] == []


def test_body_limits_of_the_routes_are_those_of_the_limits_page():
    assert {route.limit for route in (*botsrv.WITHOUT_SESSION, *botsrv.WITH_SESSION)} == {
        botsrv.SMALL_BODY,
        botsrv.UPDATE_BODY,
    }
