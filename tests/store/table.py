"""Which groups of the suite run on which engine: `python -m tests.store.table` writes the table.

It is read from the test modules, and what an engine declares from the engine itself.
"""

import dataclasses
from pathlib import Path

from botapi.store.datastore import DatastoreStore
from botapi.store.memory import MemoryStore
from botapi.store.postgres import PostgresStore
from botapi.store.sqlite import SqliteStore
from tests.store import test_datastore, test_memory, test_postgres, test_shared_engines, test_sqlite
from tests.store.conformance.suite import SharedConformance, StoreConformance

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stores.md"
BEGIN, END = "<!-- suite: begin -->", "<!-- suite: end -->"
MODULES = (test_memory, test_sqlite, test_postgres, test_datastore, test_shared_engines)
ENGINES = {
    "memory": MemoryStore,
    "sqlite": SqliteStore,
    "postgres": PostgresStore,
    "datastore": DatastoreStore,
}


def declared(name):
    """The capabilities of an engine; no database is needed to say them."""
    return ENGINES[name].capabilities(None)


def groups():
    """The classes of the suite that hold tests, in its order."""
    suites = (StoreConformance, SharedConformance)
    return [each for suite in suites for each in suite.__bases__]


def classes_of(name):
    """The test classes of an engine, by its name in theirs."""
    word = name.capitalize()
    found = [(key, value) for module in MODULES for key, value in vars(module).items()]
    return {
        key: value for key, value in found if key.startswith((f"Test{word}", f"TestShared{word}"))
    }


def runs_on(group, name):
    """The forms of an engine that a group runs on."""
    classes = classes_of(name).items()
    return [key for key, value in classes if issubclass(value, group)]


def tests_of(group):
    return [key for key in vars(group) if key.startswith("test_")]


def rows():
    """The two tables, line by line."""
    names = list(ENGINES)
    yield "| group of tests | tests | " + " | ".join(names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for group in groups():
        cells = [_cell(group, name) for name in names]
        module = group.__module__.rpartition(".")[2]
        yield f"| `{module}` | {len(tests_of(group))} | " + " | ".join(cells) + " |"
    yield ""
    yield "Google's emulator is wrong in some cases, which are left out there and shown by a test:"
    for test, fault in test_datastore.EMULATOR_FAULTS.items():
        yield f"- `{test}`: it {fault}"
    yield ""
    yield "| declared | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    for field in dataclasses.fields(declared("memory")):
        if field.name != "engine":
            cells = [_said(getattr(declared(name), field.name)) for name in names]
            yield f"| `{field.name}` | " + " | ".join(cells) + " |"


def _cell(group, name):
    forms = runs_on(group, name)
    return {0: "not declared", 1: "plain", 3: "plain, twice, faulty"}[len(forms)]


def _said(value):
    return {True: "yes", False: "no"}.get(value, f"{value:,}") if value is not None else "none"


def page():
    """docs/stores.md with the tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([head + BEGIN, "", *rows(), "", END]) + tail


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
