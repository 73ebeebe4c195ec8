"""docs/conformance*.md: every row of the two protocol pages, and the tests that hold it.

A row's id is section.table.row, counted from 1; `p` stands for a paragraph, and `prpc:` before
it for the page of the public API. The rows stand in `tests/conformance/*rows.json`, made from a
page by `python -m tools.conformance rows [prpc:] PAGE`. A test names the rows it holds with
`@pytest.mark.spec("0.4.1.5", "prpc:1.3.1.2", ...)`. Rows that no test can hold, or that are not
done yet, are explained in `tests/conformance/*notes.toml`; a note about a row that tests hold
says what of it they do not.
"""

import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "conformance"
SHOWN_CHARS = 120
MARKERS = {"spec", "control"}

HEADING = re.compile(r"#+ (?:Appendix )?(?P<id>\d+(?:\.\d+)?|[A-D](?:\.\d+)?)\b\.? ?(?P<title>.*)")
TAG = re.compile(r"\[([WSNG?])\]")
HEAD = """\
# Conformance: {title}

Every row of the page of {title} and the tests that hold it; `make conformance` writes this page
from the markers in the tests, and `make docs-check` fails when it is stale.
An id is section.table.row (`p`: a paragraph). Tags: W wire-critical, S observable behaviour of the
reference server, N of its last native scheduler, G guidance, ? unconfirmed.

"""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that the page states."""

    id: str
    section: str
    tags: str
    text: str


@dataclass(frozen=True, slots=True)
class Book:
    """A protocol page: the prefix of its ids, and whether rows without a tag bind as well."""

    prefix: str
    title: str
    file: str
    binds_all: bool

    @property
    def rows(self) -> Path:
        """The rows as they were read from the page."""
        return DATA / f"{self.prefix.removesuffix(':')}_rows.json".removeprefix("_")

    @property
    def notes(self) -> Path:
        """Why rows have no test."""
        return DATA / f"{self.prefix.removesuffix(':')}_notes.toml".removeprefix("_")

    @property
    def page(self) -> Path:
        """What is written."""
        return ROOT / "docs" / self.file

    def binds(self, row: Row) -> bool:
        """Must a test hold it, or a note say why not?"""
        return self.binds_all or bool({"W", "S"} & {*row.tags})


BOOKS = (
    Book("", "the bot protocol", "conformance.md", binds_all=False),
    Book("prpc:", "the public API", "conformance-prpc.md", binds_all=True),
)


def rows_of(page: str) -> Iterator[Row]:
    """The rows of the protocol page, in its order."""
    section, inherited = "0", ""
    tables = row = paragraphs = 0
    in_table = in_code = False
    for line in page.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        if in_code:
            continue
        heading = HEADING.fullmatch(line)
        if heading:
            section, tables, paragraphs = heading["id"], 0, 0
            inherited = "".join(TAG.findall(heading["title"]))
        if not line.startswith("|"):
            in_table = False
            is_prose = bool(line) and not line.startswith(("#", "```"))
            is_step = re.match(r"\d+\. ", line) is not None
            is_first = not tables and not paragraphs and not line.startswith("Source")
            tags = "".join(TAG.findall(line))
            if is_prose and ({"W", "S", "N"} & {*tags} or is_first or is_step):
                paragraphs += 1
                yield Row(f"{section}.p{paragraphs}", section, tags or inherited, _plain(line))
            continue
        if not in_table:
            in_table, tables, row = True, tables + 1, 0
        elif set(line) - {"|", "-", " "}:
            row += 1
            tags = "".join(dict.fromkeys(inherited + "".join(TAG.findall(line))))
            yield Row(f"{section}.{tables}.{row}", section, tags, _plain(line))


def _plain(line: str) -> str:
    """A short text for people, with no markup that would break a table."""
    text = TAG.sub("", line.replace("\\|", "/").replace("**", "").replace("`", ""))
    text = " ".join(", ".join(cell.strip() for cell in text.strip("|").split("|")).split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


class _Markers:
    """A plugin of the test runner that keeps what the tests' markers name."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every test that was found, whatever is selected."""
        for item in items:
            name = item.nodeid.partition("[")[0]
            for marker in item.iter_markers():
                if marker.name in MARKERS:
                    for value in marker.args:
                        self.tests[marker.name][value][name] = None


@cache
def _collected() -> _Markers:
    markers = _Markers()
    quiet = ["--collect-only", "-qq", "-p", "no:randomly", str(ROOT / "tests")]
    with redirect_stdout(StringIO()):
        ended = pytest.main(quiet, plugins=[markers])
    if ended != pytest.ExitCode.OK:
        raise SystemExit("the tests cannot be collected: run pytest --collect-only")
    return markers


def marked(marker: str) -> dict[str, list[str]]:
    """The tests by what their marker names, as `file::test`, each once and in order."""
    found = _collected().tests[marker]
    return {value: sorted(names) for value, names in found.items()}


def _note(row: Row, notes: dict[str, dict[str, str]], *, is_held: bool) -> str:
    """A pattern speaks of rows without a test, an id of the row in any case."""
    for kind, by_pattern in notes.items():
        for pattern, reason in by_pattern.items():
            if row.id == pattern or (not is_held and fnmatchcase(row.id, pattern)):
                return f"{kind}: {reason}"
    return ""


def _idle_notes(rows: list[Row], notes: dict[str, dict[str, str]]) -> list[str]:
    patterns = [pattern for by_pattern in notes.values() for pattern in by_pattern]
    return [
        f"note about no row: {pattern}"
        for pattern in patterns
        if not any(fnmatchcase(row.id, pattern) for row in rows)
    ]


def render(book: Book) -> tuple[str, list[str]]:
    """The page, and what is wrong: unknown ids, binding rows without a test, idle notes."""
    rows = [Row(**row) for row in json.loads(book.rows.read_text(encoding="utf-8"))]
    notes = tomllib.loads(book.notes.read_text(encoding="utf-8"))
    tests = {
        row_id.removeprefix(book.prefix): where
        for row_id, where in marked("spec").items()
        if (":" in row_id) == bool(book.prefix) and row_id.startswith(book.prefix)
    }
    known = {row.id for row in rows}
    wrong = [
        f"no such row: {book.prefix}{row_id} ({where[0]})"
        for row_id, where in tests.items()
        if row_id not in known
    ]
    wrong += _idle_notes(rows, notes)
    sections: dict[str, list[str]] = defaultdict(list)
    held = noted = missing = 0
    for row in rows:
        where = ", ".join(f"`{name.removeprefix('tests/')}`" for name in tests.get(row.id, ()))
        note = _note(row, notes, is_held=bool(where))
        if where:
            held += 1
            where += f"; {note}" if note else ""
        elif note:
            noted += 1
        else:
            missing += 1
            where = "**missing**"
            if book.binds(row):
                wrong.append(f"no test: {book.prefix}{row.id} [{row.tags}] {row.text}")
        sections[row.section].append(f"| {row.id} | {row.tags} | {row.text} | {where or note} |")
    summary = (
        f"{len(rows)} rows: {held} held by tests, {noted} explained without one, "
        f"{missing} missing.\n"
    )
    tables = (
        f"\n## {section}\n\n| id | tags | row | held by |\n|---|---|---|---|\n" + "\n".join(lines)
        for section, lines in sections.items()
    )
    return HEAD.format(title=book.title) + summary + "\n".join(tables) + "\n", wrong


def read_page(book: Book, page: Path) -> None:
    """Write down the rows of a protocol page."""
    fields = [
        {"id": r.id, "section": r.section, "tags": r.tags, "text": r.text}
        for r in rows_of(page.read_text(encoding="utf-8"))
    ]
    lines = ",\n".join(json.dumps(row) for row in fields)
    book.rows.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """`rows [PREFIX] PAGE` reads a protocol page; `check` compares; nothing writes."""
    if arguments[:1] == ["rows"]:
        prefix = arguments[1] if len(arguments) > 2 else ""
        (book,) = (book for book in BOOKS if book.prefix == prefix)
        read_page(book, Path(arguments[-1]))
        return 0
    is_check = arguments == ["check"]
    failed = False
    for book in BOOKS:
        page, wrong = render(book)
        if is_check and book.page.read_text(encoding="utf-8") != page:
            wrong.append(f"docs/{book.file} is stale: make conformance")
        if not is_check:
            book.page.write_text(page, encoding="utf-8")
        for line in wrong:
            print(line)
        failed = failed or bool(wrong)
    return 1 if is_check and failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
