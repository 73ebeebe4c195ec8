"""A consistent copy of a SQLite database that is in use, and the check of such a copy."""

import sqlite3
from contextlib import closing
from pathlib import Path

from botapi.clock import Clock
from botapi.store import sqlite_files
from botapi.store.documents import SCHEMA_KEY, SCHEMA_KIND, unpack_body
from botapi.store.protocol import SCHEMA_NUMBER, SchemaMismatch, StoreError

PAGES = 4_096
"""Pages copied in one step; between two steps others may write."""
KIND_PREFIX = "d_"
CHECK_STEPS = 100
"""Steps of SQLite's machine between two looks at the clock."""
MAX_DAMAGE = 20
"""Most lines that SQLite gives of a damaged database."""


def copy_database(data_dir: Path, target: Path) -> None:
    """Copy the database of a data folder, as it is at one moment, while servers use it.

    Raises StoreError in one line; `target` must not exist.
    """
    source = data_dir / sqlite_files.DATABASE
    if not source.exists():
        raise StoreError(f"{source}: there is no database")
    try:
        with (
            closing(sqlite_files.connect(source)) as before,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # One reading transaction: what others write meanwhile is not in the copy.
            before.execute("BEGIN")
            before.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            before.backup(copy, pages=PAGES)
            before.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise sqlite_files.translated(error) from None


def check_database(path: Path) -> dict[str, int]:
    """How many documents of each kind a copy holds. Raises StoreError when it is damaged."""
    try:
        with closing(sqlite_files.connect(path)) as con:
            said = con.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if said != "ok":
                raise StoreError(f"{path}: the database is damaged: {said}")
            _check_schema(con, path)
            names = con.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            tables = [name for (name,) in names if name.startswith(KIND_PREFIX)]
            return {
                name.removeprefix(KIND_PREFIX): con.execute(
                    f"SELECT count(*) FROM {name}"  # noqa: S608 - a name out of the schema
                ).fetchone()[0]
                for name in tables
            }
    except sqlite3.Error as error:
        raise StoreError(f"{path}: is no database of Skep: {error}") from None


def damage(path: Path) -> list[str]:
    """What SQLite finds wrong in a database, which may be in use; empty when nothing is."""
    try:
        with closing(sqlite_files.connect(path)) as con:
            said = _lines(con, f"PRAGMA integrity_check({MAX_DAMAGE})")
    except sqlite3.Error as error:
        return [f"{path}: is no database of Skep: {error}"]
    return [] if said == ["ok"] else said


def quick_damage(path: Path, until: float, clock: Clock) -> list[str]:
    """As `damage` without the indexes, as far as it comes until then on the monotonic clock."""
    try:
        with closing(sqlite_files.connect(path)) as con:
            con.set_progress_handler(lambda: clock.monotonic() > until, CHECK_STEPS)
            said = _lines(con, f"PRAGMA quick_check({MAX_DAMAGE})")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return []
        return [str(error)]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if said == ["ok"] else said


def _lines(con: sqlite3.Connection, pragma: str) -> list[str]:
    """What a check says, without the headings."""
    lines = "\n".join(row[0] for row in con.execute(pragma)).splitlines()
    return [line for line in lines if not line.startswith("***")]


def _check_schema(con: sqlite3.Connection, path: Path) -> None:
    row = con.execute(
        f"SELECT body FROM d_{SCHEMA_KIND} WHERE k = ?",  # noqa: S608 - a constant
        (SCHEMA_KEY,),
    ).fetchone()
    if row is None:
        raise StoreError(f"{path}: says no schema number")
    number = unpack_body(row[0])["number"]
    if number > SCHEMA_NUMBER:
        raise SchemaMismatch(f"{path}: schema {number} is newer than this Skep's {SCHEMA_NUMBER}")
