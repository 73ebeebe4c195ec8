"""Cheap fresh databases: a schema of a PostgreSQL database is made in a hundredth of the time."""

from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

END = "\U0010ffff"


@pytest.fixture(scope="session")
def postgres_schema(_postgres_server):
    """An address whose tables stay: whoever opens it empties it first."""
    dsn = _postgres_server.new_database()
    yield fresh_schema(dsn, "kept")
    _postgres_server.drop_database(dsn)


def fresh_schema(dsn, name):
    """An address of the same database whose tables are made, and looked for, in a new schema."""
    with psycopg.connect(dsn, autocommit=True) as con:
        con.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    parts = urlsplit(dsn)
    option = "options=" + quote(f"-csearch_path={name}")
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, option)))))


def clear(store):
    """Delete every document but the schema number."""
    for kind in store.kinds():
        keys = store.scan_keys(kind, "\x01", END, limit=10_000) if kind != "schema" else []
        if keys:
            store.transact(
                lambda txn, kind=kind, keys=keys: [txn.delete(kind, key) for key in keys],
                label="clear",
            )
