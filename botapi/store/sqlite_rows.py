"""Documents as rows: every SQL statement of the SQLite engine.

Kind `x` is a table `d_x(k, body, exp, tags)`, and from its first tagged document on also
`t_x(tag, k)`.  The tags stand in the row too: a read needs one table, and a write that
replaces a document knows which tag rows really change.

A kind becomes part of a statement's text, so it has passed `check_kind`; everything else
is bound.
"""
# ruff: noqa: S608 - see the last sentence above

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from typing import Any

from botapi.concurrency import giving_way
from botapi.store.documents import (
    Write,
    check_kind,
    pack_tags,
    unpack_body,
    unpack_tags,
)
from botapi.store.protocol import AlreadyExists, AnyOf, Doc, Key

WITH_ROWID = frozenset({"out", "blob"})
"""Kinds with large bodies: a row too big for a B-tree page is cheaper behind a rowid."""

LARGEST_IN = 1024
"""Most keys bound in one statement; numbers below are rounded up to a power of two."""

ESTIMATES = (200, 5_000, 50_000)
"""How many rows of each tag are counted to choose the tag that drives a query: further only
while several have as many, for a wrong choice costs a look-up for each of its rows."""

Row = tuple[Key, bytes, int | None, bytes | None]


class Sql:
    """The statements of one kind."""

    def __init__(self, kind: str) -> None:
        check_kind(kind)
        columns = f"SELECT k, body, exp, tags FROM d_{kind}"
        self.docs, self.tags = f"d_{kind}", f"t_{kind}"
        self.get = columns + " WHERE k IN "
        self.scan = {
            False: columns + " WHERE k >= ? AND k < ? ORDER BY k LIMIT ?",
            True: columns + " WHERE k >= ? AND k < ? ORDER BY k DESC LIMIT ?",
        }
        self.scan_keys = {
            reverse: text.replace("k, body, exp, tags", "k") for reverse, text in self.scan.items()
        }
        self.heads = columns + " WHERE k >= ? AND k < ? ORDER BY k"
        self.expired = f"SELECT k FROM d_{kind} WHERE exp <= ? LIMIT ?"
        self.exists = f"SELECT 1 FROM d_{kind} WHERE k = ?"
        self.old_tags = f"SELECT tags FROM d_{kind} WHERE k = ?"
        self.put = (
            f"INSERT INTO d_{kind} (k, body, exp, tags) VALUES (?, ?, ?, ?) ON CONFLICT (k) "
            "DO UPDATE SET body = excluded.body, exp = excluded.exp, tags = excluded.tags"
        )
        self.delete = f"DELETE FROM d_{kind} WHERE k = ?"
        self.add_tag = f"INSERT OR IGNORE INTO t_{kind} (tag, k) VALUES (?, ?)"
        self.drop_tag = f"DELETE FROM t_{kind} WHERE tag = ? AND k = ?"
        rowid = "" if kind in WITH_ROWID else " WITHOUT ROWID"
        self.create_docs = (
            f"CREATE TABLE IF NOT EXISTS d_{kind} "
            f"(k TEXT PRIMARY KEY NOT NULL, body BLOB NOT NULL, exp INTEGER, tags BLOB){rowid}",
            f"CREATE INDEX IF NOT EXISTS x_{kind} ON d_{kind} (exp) WHERE exp IS NOT NULL",
        )
        self.create_tags = (
            f"CREATE TABLE IF NOT EXISTS t_{kind} "
            "(tag TEXT NOT NULL, k TEXT NOT NULL, PRIMARY KEY (tag, k)) WITHOUT ROWID"
        )


sql_of = cache(Sql)


def kinds(con: sqlite3.Connection) -> list[str]:
    """The kinds that have a table."""
    rows = con.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'd_*'")
    return sorted(name[2:] for (name,) in rows)


def get(con: sqlite3.Connection, kind: str, keys: Sequence[Key]) -> list[Doc | None]:
    """The documents in the order of the keys, None where there is none."""
    sql = sql_of(kind)
    found: dict[Key, Doc] = {}
    for start in range(0, len(keys), LARGEST_IN):
        some = keys[start : start + LARGEST_IN]
        places = 1 << (len(some) - 1).bit_length()
        padded = [*some, *[some[-1]] * (places - len(some))]
        for row in giving_way(_rows(con, sql.get + _marks(places), padded)):
            found[row[0]] = to_doc(row)
    return [found.get(key) for key in keys]


def scan(
    con: sqlite3.Connection, kind: str, lo: Key, hi: Key, limit: int, *, reverse: bool
) -> list[Doc]:
    """Documents of a key range."""
    return [to_doc(row) for row in _rows(con, sql_of(kind).scan[reverse], (lo, hi, limit))]


def scan_keys(
    con: sqlite3.Connection, kind: str, lo: Key, hi: Key, limit: int, *, reverse: bool
) -> list[Key]:
    """Keys of a key range."""
    return [row[0] for row in _rows(con, sql_of(kind).scan_keys[reverse], (lo, hi, limit))]


def heads(
    con: sqlite3.Connection, kind: str, ranges: Sequence[tuple[Key, Key]], n: int
) -> list[Doc]:
    """Up to n documents of each range, each document once."""
    taken: dict[Key, Doc] = {}
    for lo, hi in ranges:
        _heads_of_range(con, sql_of(kind).heads, (lo, hi), n, taken)
    return list(taken.values())


def expired(con: sqlite3.Connection, kind: str, now_ms: int, limit: int) -> list[Key]:
    """Keys whose expiry is at or before now, in no particular order."""
    return [row[0] for row in _rows(con, sql_of(kind).expired, (now_ms, limit))]


def find(
    con: sqlite3.Connection,
    kind: str,
    all_of: Sequence[AnyOf],
    bounds: tuple[Key | None, Key, Key | None],
    limit: int,
) -> list[Doc]:
    """The first documents that match every AnyOf within `bounds` (after, lo, hi)."""
    keys, bound = _matching(con, kind, all_of, bounds)
    text = (
        f"SELECT d.k, d.body, d.exp, d.tags FROM ({keys} ORDER BY k LIMIT ?) AS m "
        f"CROSS JOIN {sql_of(kind).docs} AS d ON d.k = m.k ORDER BY m.k"
    )
    return [to_doc(row) for row in giving_way(_rows(con, text, [*bound, limit]))]


def count(
    con: sqlite3.Connection,
    kind: str,
    all_of: Sequence[AnyOf],
    within: tuple[Key, Key | None],
    up_to: int,
) -> int:
    """How many documents match within [lo, hi), counting no further than `up_to`."""
    keys, bound = _matching(con, kind, all_of, (None, *within), is_count=True)
    rows = _rows(con, f"SELECT count(*) FROM ({keys} ORDER BY k LIMIT ?)", [*bound, up_to])
    return int(rows[0][0]) if rows else 0


def to_doc(row: Row) -> Doc:
    """A row of four columns as a document."""
    key, body, expire_at, tags = row
    return Doc(key, unpack_body(body), unpack_tags(tags), expire_at)


class Catalog:
    """Which tables exist, as the writer's connection sees it within a transaction."""

    def __init__(self, con: sqlite3.Connection) -> None:
        self._con = con
        self._version = -1
        self._tables: set[str] = set()

    def refresh(self) -> None:
        """Notice tables that another process made; to be called in every new transaction."""
        version = self._con.execute("PRAGMA schema_version").fetchone()[0]
        if version != self._version:
            rows = self._con.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            self._tables = {row[0] for row in rows}
            self._version = version

    def forget(self) -> None:
        """Look again next time: a transaction that made tables was rolled back."""
        self._version = -1

    def has(self, table: str) -> bool:
        """Does the table exist?"""
        return table in self._tables

    def make(self, table: str, statements: Iterable[str]) -> None:
        """Make the table if it is missing."""
        if table not in self._tables:
            for statement in statements:
                self._con.execute(statement)
            self._tables.add(table)


def apply(
    con: sqlite3.Connection, catalog: Catalog, writes_of: dict[str, dict[Key, Write]]
) -> None:
    """Write a transaction's buffer. AlreadyExists is raised before anything is written.

    So no savepoint is needed: within the write transaction nobody else can make an insert
    fail after it was checked, and any other failure undoes the whole batch anyway.
    """
    for kind, writes in writes_of.items():
        if catalog.has(sql_of(kind).docs):
            _check_inserts(con, kind, writes)
    for kind, writes in writes_of.items():
        _apply_kind(con, catalog, sql_of(kind), writes)


def _check_inserts(con: sqlite3.Connection, kind: str, writes: dict[Key, Write]) -> None:
    exists = sql_of(kind).exists
    for key, write in writes.items():
        if write.must_be_new and con.execute(exists, (key,)).fetchone():
            raise AlreadyExists(kind, key)


def _apply_kind(
    con: sqlite3.Connection, catalog: Catalog, sql: Sql, writes: dict[Key, Write]
) -> None:
    puts = [
        (key, write.packed.body, write.packed.expire_at, pack_tags(write.packed.tags))
        for key, write in writes.items()
        if write.packed
    ]
    if puts:
        catalog.make(sql.docs, sql.create_docs)
    elif not catalog.has(sql.docs):
        return
    if any(row[3] for row in puts):
        catalog.make(sql.tags, [sql.create_tags])
    if catalog.has(sql.tags):
        _apply_tags(con, sql, writes)
    if len(puts) < len(writes):
        con.executemany(sql.delete, [(key,) for key, write in writes.items() if not write.packed])
    if puts:
        con.executemany(sql.put, puts)


def _apply_tags(con: sqlite3.Connection, sql: Sql, writes: dict[Key, Write]) -> None:
    """Bring the tag rows from the stored tags to the new ones, touching only the difference."""
    dropped: list[tuple[str, Key]] = []
    added: list[tuple[str, Key]] = []
    for key, write in writes.items():
        row = con.execute(sql.old_tags, (key,)).fetchone()
        old = unpack_tags(row[0]) if row else frozenset()
        new = write.packed.tags if write.packed else frozenset()
        dropped += [(tag, key) for tag in old - new]
        added += [(tag, key) for tag in new - old]
    if dropped:
        con.executemany(sql.drop_tag, dropped)
    if added:
        con.executemany(sql.add_tag, added)


def _matching(
    con: sqlite3.Connection,
    kind: str,
    all_of: Sequence[AnyOf],
    bounds: tuple[Key | None, Key, Key | None],
    *,
    is_count: bool = False,
) -> tuple[str, list[Any]]:
    """A SELECT of the matching keys, which the caller orders and limits, and its values.

    The rarest AnyOf drives: the union of its tags' key-ordered rows, merged by SQLite
    without sorting. The others are looked up for each key. To count what many documents
    have in common, all lists are merged instead: half the time of looking up each.
    """
    sql = sql_of(kind)
    within, bound = _bounds(*bounds)
    if not all_of:
        return f"SELECT k FROM {sql.docs} WHERE {within}", bound
    (driver, *others), is_rare = _rarest_first(con, sql, all_of, (within, bound))
    if is_count and not is_rare and all(len(any_of) == 1 for any_of in all_of):
        each = f"SELECT k FROM {sql.tags} WHERE tag = ? AND {within}"
        merged = [value for (tag,) in all_of for value in (tag, *bound)]
        return " INTERSECT ".join([each] * len(all_of)), merged
    probes = "".join(
        f" AND EXISTS (SELECT 1 FROM {sql.tags} AS o WHERE o.tag IN {_marks(len(any_of))}"
        " AND o.k = m.k)"
        for any_of in others
    )
    one = f"SELECT k FROM {sql.tags} AS m WHERE tag = ? AND {within}{probes}"
    probed = [tag for any_of in others for tag in sorted(any_of)]
    values = [value for tag in sorted(driver) for value in (tag, *bound, *probed)]
    return " UNION ".join([one] * len(driver)), values


def _bounds(after: Key | None, lo: Key, hi: Key | None) -> tuple[str, list[Any]]:
    if after is not None and after >= lo:
        text, bound = "k > ?", [after]
    else:
        text, bound = "k >= ?", [lo]
    return (text + " AND k < ?", [*bound, hi]) if hi is not None else (text, bound)


def _rarest_first(
    con: sqlite3.Connection,
    sql: Sql,
    all_of: Sequence[AnyOf],
    bounds: tuple[str, list[Any]],
) -> tuple[list[AnyOf], bool]:
    """The AnyOf with the fewest rows within the bounds first, as far as that is cheap to know.

    And whether those are few.
    """
    within, bound = bounds
    text = f"SELECT count(*) FROM (SELECT 1 FROM {sql.tags} WHERE tag = ? AND {within} LIMIT ?)"
    found = list(all_of)
    for most in ESTIMATES:
        if len(found) == 1:
            return found, True
        rows = {any_of: _count_rows(con, text, any_of, bound, most) for any_of in found}
        found.sort(key=rows.__getitem__)
        if rows[found[0]] < most:
            return found, True
    return found, False


def _count_rows(
    con: sqlite3.Connection, text: str, any_of: AnyOf, bound: list[Any], most: int
) -> int:
    counted = (_rows(con, text, [tag, *bound, most]) for tag in any_of)
    return sum(rows[0][0] for rows in counted if rows)


def _heads_of_range(
    con: sqlite3.Connection, text: str, within: tuple[Key, Key], n: int, taken: dict[Key, Doc]
) -> None:
    room = len(taken) + n
    with closing(con.execute(text, within)) as rows:
        for row in rows:
            taken.setdefault(row[0], to_doc(row))
            if len(taken) == room:
                return


def _marks(number: int) -> str:
    return "(" + ",".join("?" * number) + ")"


def _rows(con: sqlite3.Connection, text: str, values: Sequence[Any]) -> list[Any]:
    """All rows; none when the table was never made, for a kind is made by its first write."""
    try:
        return list(giving_way(con.execute(text, values)))
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such table: "):
            return []
        raise
