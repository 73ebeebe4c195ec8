"""Documents as rows: every SQL statement of the PostgreSQL engine.

Kind `x` is a table `d_x(k, body, exp, tags)` and a table `t_x(tag, k)` that triggers keep in
step with the column `tags`, so that no writer has to know which tags a document had.

Keys and tags are `bytea`, their UTF-8: it compares byte by byte under every locale, and it
holds the NUL that text cannot. `convert_from(k, 'UTF8')` shows a key.

A kind becomes part of a statement's text, so it has passed `check_kind`; everything else
is bound.
"""
# ruff: noqa: S608 - see the last sentence above

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b

from botapi.store.documents import NO_TAGS, Write, check_kind, unpack_body
from botapi.store.postgres_wire import (
    Row,
    Statement,
    Value,
    bytea_array,
    from_bytea_array,
    from_int8,
    int8,
    int8_array,
)
from botapi.store.protocol import AnyOf, Doc, Key

_QUEUE = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000"
_REWRITTEN = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02"
HINTS = {
    "pend": _QUEUE,
    "due": _QUEUE,
    "offer": _QUEUE,
    "live": _REWRITTEN,
    "outpos": _REWRITTEN,
    "task": _REWRITTEN,
    "lsession": _REWRITTEN,
}
"""How the rows of a kind live, for the server to plan its cleaning; nothing depends on it.

In a queue rows come and go at one end: its dead ones must go soon. Rows that are rewritten
find room for their new version on the same page. It is not for every kind: a table that
only grows would be vacuumed for nothing, and scanned whole each time.
"""

BULK = 200
"""From how many new keys of a kind on a transaction locks the kind's absent keys as one: the
server's table of locks holds some thousands for everybody."""

ESTIMATE = 2_000
"""How many rows of each alternative are counted to choose the one that drives a query."""

Bounds = tuple[Key | None, Key, Key | None]
"""`after`, `lo`, `hi` of a query."""


class Sql:
    """The statements of one kind."""

    def __init__(self, kind: str) -> None:
        check_kind(kind)
        self.kind, self.docs, self.tags = kind, f"d_{kind}", f"t_{kind}"
        columns = f"SELECT k, body, exp, tags FROM {self.docs} WHERE "
        within = "k >= $1::bytea AND k < $2::bytea ORDER BY k"
        self.get = (columns + "k = ANY($1::bytea[])").encode()
        self.get_locked = (columns + "k = ANY($1::bytea[]) ORDER BY k FOR UPDATE").encode()
        self.scan = {
            False: (columns + within + " LIMIT $3::bigint").encode(),
            True: (columns + within + " DESC LIMIT $3::bigint").encode(),
        }
        self.scan_keys = {
            reverse: sql.replace(b"k, body, exp, tags", b"k", 1)
            for reverse, sql in self.scan.items()
        }
        self.heads = (
            columns + "k >= $1::bytea AND k < $2::bytea AND NOT k = ANY($4::bytea[]) "
            "ORDER BY k LIMIT $3::bigint FOR UPDATE SKIP LOCKED"
        ).encode()
        self.expired = (
            f"SELECT k FROM {self.docs} WHERE exp <= $1::bigint LIMIT $2::bigint "
            "FOR UPDATE SKIP LOCKED"
        ).encode()
        self.lock = (
            f"SELECT 1 FROM {self.docs} WHERE k = ANY($1::bytea[]) ORDER BY k FOR UPDATE"
        ).encode()
        self.lock_appeared = self.lock + b" NOWAIT"
        self.lock_new = (
            f"WITH held AS MATERIALIZED (SELECT k FROM {self.docs} "
            "WHERE k = ANY($1::bytea[]) ORDER BY k FOR UPDATE) "
            "SELECT pg_advisory_xact_lock(new.h) FROM unnest($2::bytea[], $3::bigint[]) "
            "AS new (k, h) WHERE new.k NOT IN (SELECT k FROM held)"
        ).encode()
        insert = (
            f"INSERT INTO {self.docs} (k, body, exp, tags) "
            "SELECT $1::bytea, $2::bytea, $3::bigint, $4::bytea[]"
        )
        self.insert = insert.encode()
        self.put = (
            insert + " ON CONFLICT (k) "
            "DO UPDATE SET body = excluded.body, exp = excluded.exp, tags = excluded.tags"
        ).encode()
        self.delete = f"DELETE FROM {self.docs} WHERE k = ANY($1::bytea[])".encode()


sql_of = cache(Sql)

BEGIN = Statement(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
COMMIT = Statement(b"COMMIT")
ROLLBACK = Statement(b"ROLLBACK")
KINDS = Statement(
    b"SELECT substr(relname::text, 3)::bytea FROM pg_class WHERE relkind = 'r' "
    rb"AND relnamespace = current_schema()::regnamespace AND relname LIKE 'd\_%'"
)
CHANNEL = Statement(b"SELECT current_schema()::text::bytea, current_setting('synchronous_commit')")
LOCK_ABSENT = b"SELECT pg_advisory_xact_lock(h) FROM unnest($1::bigint[]) AS h"
SHARE_KIND = b"SELECT pg_advisory_xact_lock_shared($1::bigint)"
LOCK_KIND = b"SELECT pg_advisory_xact_lock($1::bigint)"
NOTIFY = b"SELECT pg_notify(convert_from($1::bytea, 'UTF8'), convert_from($2::bytea, 'UTF8'))"


def lock_number(*names: str) -> int:
    """The advisory lock of a kind, or of a kind and a key that may be absent."""
    digest = blake2b("\0".join(("skep", *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def get(kind: str, keys: Sequence[Key], *, locked: bool = False) -> Statement:
    """The documents of these keys; `locked`: for update, in the order of their keys."""
    sql = sql_of(kind)
    return Statement(sql.get_locked if locked else sql.get, [_keys(keys)])


def scan(kind: str, lo: Key, hi: Key, limit: int, *, reverse: bool) -> Statement:
    """Documents of a key range."""
    return Statement(sql_of(kind).scan[reverse], [lo.encode(), hi.encode(), int8(limit)])


def scan_keys(kind: str, lo: Key, hi: Key, limit: int, *, reverse: bool) -> Statement:
    """Keys of a key range."""
    return Statement(sql_of(kind).scan_keys[reverse], [lo.encode(), hi.encode(), int8(limit)])


def heads(kind: str, lo: Key, hi: Key, n: int, without: Sequence[Key]) -> Statement:
    """Up to n documents of a range that nobody else holds, locked."""
    values = [lo.encode(), hi.encode(), int8(n), _keys(without)]
    return Statement(sql_of(kind).heads, values)


def expired(kind: str, now_ms: int, limit: int) -> Statement:
    """Keys whose expiry is at or before now and that nobody else holds, locked."""
    return Statement(sql_of(kind).expired, [int8(now_ms), int8(limit)])


def lock_absent(kind: str, keys: Sequence[Key]) -> list[Statement]:
    """Hold these keys, which had no row: nobody can make one before the end."""
    if len(keys) >= BULK:
        return [Statement(LOCK_KIND, [int8(lock_number(kind))])]
    numbers = sorted(lock_number(kind, key) for key in keys)
    return [
        Statement(SHARE_KIND, [int8(lock_number(kind))]),
        Statement(LOCK_ABSENT, [int8_array(numbers)]),
    ]


def lock_written(
    kind: str, puts: Sequence[Key], deletes: Sequence[Key], *, waits_on: bool
) -> list[Statement]:
    """Hold what is about to be written and was not read: rows in key order, then absent keys.

    A key that is deleted needs no lock while it has no row: nobody can tell that it was.

    While this waits, a key that had no row can get one, which somebody else may hold who waits
    for a row of ours.  With `waits_on` (the transaction has more to lock or to write) such rows
    are held without waiting; when one is not to be had, the server refuses (55P03) and the
    transaction runs again, this time with the row in its order.
    """
    sql = sql_of(kind)
    keys = _keys([*puts, *deletes])
    if not puts:
        return [Statement(sql.lock, [keys])]
    if len(puts) >= BULK:
        return [
            Statement(LOCK_KIND, [int8(lock_number(kind))]),
            Statement(sql.lock, [keys]),
        ]
    numbered = sorted((lock_number(kind, key), key) for key in puts)
    new = [_keys([key for _, key in numbered]), int8_array(number for number, _ in numbered)]
    locks = [
        Statement(SHARE_KIND, [int8(lock_number(kind))]),
        Statement(sql.lock_new, [keys, *new]),
    ]
    if waits_on:
        locks.append(Statement(sql.lock_appeared, [keys]))
    return locks


def write(kind: str, writes: dict[Key, Write], absent: set[Key]) -> list[Statement]:
    """What brings the rows to these writes. `absent`: keys known to have no row.

    The insert of a key that is not known is refused (23505) when it has a row.
    """
    sql = sql_of(kind)
    made = []
    deletes = [key for key, each in writes.items() if each.packed is None]
    if deletes:
        made.append(Statement(sql.delete, [_keys(deletes)]))
    for key, each in writes.items():
        if each.packed is None:
            continue
        packed = each.packed
        is_new = each.must_be_new and key not in absent
        values: list[Value] = [
            key.encode(),
            packed.body,
            None if packed.expire_at is None else int8(packed.expire_at),
            bytea_array(sorted(tag.encode() for tag in packed.tags)) if packed.tags else None,
        ]
        made.append(Statement(sql.insert if is_new else sql.put, values))
    return made


def find(kind: str, all_of: Sequence[AnyOf], bounds: Bounds, limit: int) -> Statement:
    """The first documents that match; the first AnyOf drives."""
    values: list[Value] = [int8(limit)]
    first = " OFFSET 0)", " ORDER BY m.k LIMIT $1::bigint"
    keys = _matching(sql_of(kind), all_of, bounds, values, first)
    text = (
        f"SELECT m.k, d.body, d.exp, d.tags FROM ({keys} ORDER BY k LIMIT $1::bigint) AS m "
        f"CROSS JOIN LATERAL (SELECT body, exp, tags FROM {sql_of(kind).docs} WHERE k = m.k "
        "OFFSET 0) AS d ORDER BY m.k"
    )
    return Statement(text.encode(), values, kept=False)


def count(kind: str, all_of: Sequence[AnyOf], bounds: Bounds, up_to: int) -> Statement:
    """How many match, counting no further than `up_to`; the first AnyOf drives."""
    values: list[Value] = [int8(up_to)]
    keys = _matching(sql_of(kind), all_of, bounds, values, (")", " LIMIT $1::bigint"))
    text = f"SELECT count(*) FROM ({keys} LIMIT $1::bigint) AS m"
    return Statement(text.encode(), values, kept=False)


def estimate(kind: str, all_of: Sequence[AnyOf], bounds: Bounds) -> Statement:
    """How many rows each AnyOf has within the bounds, counted up to ESTIMATE."""
    values: list[Value] = []
    within = _within(bounds, values)
    counted = (
        f"(SELECT count(*) FROM (SELECT FROM {sql_of(kind).tags} AS m WHERE m.tag = "
        f"ANY({_bind(values, _tags(any_of))}::bytea[]) AND {within} LIMIT {ESTIMATE}) AS e)"
        for any_of in all_of
    )
    return Statement(f"SELECT {', '.join(counted)}".encode(), values, kept=False)


def create(kind: str) -> list[Statement]:
    """Make the tables of a kind that has none."""
    sql = sql_of(kind)
    docs, tags = sql.docs, sql.tags
    hints = HINTS.get(kind, "")
    plain = hints.replace("fillfactor = 70, ", "")
    texts = [
        f"CREATE TABLE {docs} (k bytea PRIMARY KEY, body bytea NOT NULL, exp bigint, "
        f"tags bytea[]){f' WITH ({hints})' if hints else ''}",
        f"ALTER TABLE {docs} ALTER body SET STORAGE EXTERNAL",
        f"CREATE INDEX x_{kind} ON {docs} (exp) WHERE exp IS NOT NULL",
        f"CREATE TABLE {tags} (tag bytea, k bytea, PRIMARY KEY (tag, k))"
        f"{f' WITH ({plain})' if plain else ''}",
        f"CREATE OR REPLACE FUNCTION f_{kind}() RETURNS trigger LANGUAGE plpgsql "
        "SET search_path FROM CURRENT AS $$ BEGIN "
        "IF TG_OP <> 'INSERT' AND OLD.tags IS NOT NULL THEN "
        f"DELETE FROM {tags} WHERE k = OLD.k AND tag = ANY(ARRAY("
        "SELECT unnest(OLD.tags) EXCEPT SELECT unnest(NEW.tags))); END IF; "
        "IF TG_OP <> 'DELETE' AND NEW.tags IS NOT NULL THEN "
        f"INSERT INTO {tags} (tag, k) SELECT unnest(NEW.tags), NEW.k ON CONFLICT DO NOTHING; "
        "END IF; RETURN NULL; END $$",
    ]
    for event, condition in (
        ("INSERT", "NEW.tags IS NOT NULL"),
        ("UPDATE", "OLD.tags IS DISTINCT FROM NEW.tags"),
        ("DELETE", "OLD.tags IS NOT NULL"),
    ):
        texts.append(
            f"CREATE TRIGGER {event.lower()}_{kind} AFTER {event} ON {docs} FOR EACH ROW "
            f"WHEN ({condition}) EXECUTE FUNCTION f_{kind}()"
        )
    return [Statement(text.encode(), kept=False) for text in texts]


def to_doc(row: Row) -> Doc:
    """A row of four columns as a document."""
    key, body, expire_at, tags = row
    assert key is not None  # noqa: S101 - the two columns are NOT NULL
    assert body is not None  # noqa: S101
    names = frozenset(map(bytes.decode, from_bytea_array(tags))) if tags else NO_TAGS
    return Doc(key.decode(), unpack_body(body), names, from_int8(expire_at))


def _matching(
    sql: Sql, all_of: Sequence[AnyOf], bounds: Bounds, values: list[Value], ends: tuple[str, str]
) -> str:
    """A SELECT of the matching keys, which the caller orders and limits.

    Every tag of the driver is a list in key order, of which no more is read than gives the
    first matches. `ends` are what closes a look-up and a list: with OFFSET 0 each key of the
    driver is looked up in the other AnyOf, whatever the server's statistics say; without,
    the server may merge them.
    """
    probed, first = ends
    within = _within(bounds, values)
    if not all_of:
        return f"SELECT k FROM {sql.docs} AS m WHERE {within}"
    driver, *others = all_of
    probes = "".join(
        f" AND EXISTS (SELECT FROM {sql.tags} AS o WHERE o.k = m.k AND o.tag = "
        f"ANY({_bind(values, _tags(any_of))}::bytea[]){probed}"
        for any_of in others
    )
    each = [
        f"(SELECT m.k FROM {sql.tags} AS m WHERE m.tag = {_bind(values, tag.encode())}::bytea "
        f"AND {within}{probes}{first})"
        for tag in sorted(driver)
    ]
    return f"SELECT {'DISTINCT ' if len(each) > 1 else ''}k FROM ({' UNION ALL '.join(each)}) AS u"


def _within(bounds: Bounds, values: list[Value]) -> str:
    after, lo, hi = bounds
    if after is not None and after.encode() >= lo.encode():
        text = f"m.k > {_bind(values, after.encode())}::bytea"
    else:
        text = f"m.k >= {_bind(values, lo.encode())}::bytea"
    return text if hi is None else f"{text} AND m.k < {_bind(values, hi.encode())}::bytea"


def _bind(values: list[Value], value: Value) -> str:
    values.append(value)
    return f"${len(values)}"


def _keys(keys: Sequence[Key]) -> bytes:
    return bytea_array(key.encode() for key in keys)


def _tags(any_of: AnyOf) -> bytes:
    return bytea_array(sorted(tag.encode() for tag in any_of))
