"""The bots.cfg in force, as immutable snapshots that never go backwards.

Kind `cfg` holds `bots.cfg!<revision>` (never changed), `bots.cfg!HEAD` (which revision is
in force), `bots.cfg!FILE` (which files on disk were acted on last) and `bots.cfg!REJECTED`
(why the files on disk are kept out). Their bodies are made and read here;
`transactions.push_config` writes them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from botapi.cfg.bundle import Meaning, Source, load
from botapi.clock import Clock
from botapi.concurrency import native_lock
from botapi.domain.bot_groups import BotsConfig
from botapi.domain.fleet_settings import FleetSettings
from botapi.domain.pools import PoolsConfig
from botapi.store.protocol import Doc, Store

KIND = "cfg"
TOPIC = "cfg"
HEAD_KEY = "bots.cfg!HEAD"
REJECTED_KEY = "bots.cfg!REJECTED"
FILE_KEY = "bots.cfg!FILE"
LOOK_AGAIN_S = 4.0
"""Longest that a process goes by what it knows, should a notification be lost: a change has to
reach all within five seconds."""
MAX_STORED_MISTAKES = 50
MAX_REVISIONS = 1_000
"""Revisions that are kept; a push deletes the oldest one beyond."""
_LAST_REV = 9_999_999_999


class Native(Protocol):
    """Runs something long without holding the server's loop (see `concurrency`)."""

    def __call__(self, fn: Callable[[], Meaning]) -> Meaning:
        """The result of `fn`."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """Which revision is in force. Before the first one: number 0, no digest, fetched at 0.

    `fetched_ms` grows with every revision (bot-api 2.7); `applied_at_ms` is the time of the
    push by the clock of the server that made it. `author` is a person's name, or `bots.cfg`
    for the files on disk.
    """

    rev: int = 0
    digest: str = ""
    fetched_ms: int = 0
    applied_at_ms: int = 0
    author: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Files that were kept out: their digest, when, and the mistakes, one line each.

    The digest is that of a source when the files are good and yet kept out, else `raw:...`.
    """

    digest: str
    at_ms: int
    mistakes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of the configuration and what it means; revision 0 is the built-in one."""

    meaning: Meaning
    source: Source
    digest: str
    fetched_ms: int
    rev: int
    applied_at_ms: int

    @property
    def bots(self) -> BotsConfig:
        """What bots.cfg says."""
        return self.meaning.bots

    @property
    def pools(self) -> PoolsConfig:
        """What pools.cfg says."""
        return self.meaning.pools

    @property
    def fleet(self) -> FleetSettings:
        """What settings.cfg says."""
        return self.meaning.fleet


def revision_key(rev: int) -> str:
    """Key of kind `cfg`: one revision."""
    return f"bots.cfg!{rev:010d}"


def revision_range(before_rev: int = 0) -> tuple[str, str]:
    """The keys of all revisions; of those before one when it is given."""
    hi = revision_key(before_rev) if before_rev else revision_key(_LAST_REV) + "\0"
    return revision_key(0), hi


def revision_body(source: Source, head: Head) -> dict[str, Any]:
    """The body of a revision: what was written, by whom, when."""
    return {
        "text": source.bots,
        "scripts": dict(source.scripts),
        "pools": source.pools,
        "settings": source.settings,
        **head_body(head),
    }


def read_source(body: Mapping[str, Any]) -> Source:
    """The source in a revision."""
    return Source(body["text"], body["scripts"], body.get("pools", ""), body.get("settings", ""))


def head_body(head: Head) -> dict[str, Any]:
    """The body of `bots.cfg!HEAD`."""
    return {
        "rev": head.rev,
        "digest": head.digest,
        "fetched_ms": head.fetched_ms,
        "applied_at_ms": head.applied_at_ms,
        "author": head.author,
        "reason": head.reason,
    }


def read_head(doc: Doc | None) -> Head:
    """The head in `bots.cfg!HEAD`; that of the built-in file when there is none."""
    return Head() if doc is None else head_of(doc.body)


def head_of(body: Mapping[str, Any]) -> Head:
    """The head in the body of `bots.cfg!HEAD` or of a revision."""
    return Head(
        rev=body["rev"],
        digest=body["digest"],
        fetched_ms=body["fetched_ms"],
        applied_at_ms=body["applied_at_ms"],
        author=body["author"],
        reason=body.get("reason", ""),
    )


def file_body(digest: str) -> dict[str, Any]:
    """The body of `bots.cfg!FILE`."""
    return {"digest": digest}


def read_file(doc: Doc | None) -> str:
    """The digest in `bots.cfg!FILE`; empty when no files have been acted on."""
    return "" if doc is None else str(doc.body["digest"])


def rejected_body(rejected: Rejected) -> dict[str, Any]:
    """The body of `bots.cfg!REJECTED`, with its first mistakes."""
    return {
        "digest": rejected.digest,
        "at_ms": rejected.at_ms,
        "mistakes": list(rejected.mistakes[:MAX_STORED_MISTAKES]),
    }


def read_rejected(doc: Doc | None) -> Rejected | None:
    """What `bots.cfg!REJECTED` says; None when no files are kept out."""
    if doc is None:
        return None
    mistakes: Iterable[str] = doc.body["mistakes"]
    return Rejected(doc.body["digest"], doc.body["at_ms"], tuple(mistakes))


class Provider:
    """The snapshots of one process.

    Any thread may call. A snapshot once given out by this provider is never followed by
    an older one. The errors of the store rise unchanged. A new revision is read on a native
    thread: parsing a large one takes a second.
    """

    def __init__(self, store: Store, clock: Clock, native: Native = lambda fn: fn()) -> None:
        self._store = store
        self._clock = clock
        self._native = native
        self._is_loading = False
        self._lock = native_lock()
        self._snapshot = Snapshot(Meaning(), Source("", {}), "", 0, 0, 0)
        self._is_stale = True
        self._looked_at = clock.monotonic()
        self._unsubscribe = store.subscribe(self._hear)

    def cached(self) -> Snapshot:
        """The snapshot of this process, no more than four seconds behind the store.

        While a newer one is being read it is the one before.
        """
        if self._is_loading:
            return self._snapshot if self._snapshot.rev else self.latest()
        if self._is_stale or self._clock.monotonic() - self._looked_at >= LOOK_AGAIN_S:
            return self.latest()
        return self._snapshot

    def latest(self) -> Snapshot:
        """The snapshot in force now, read from the store (a handshake asks so)."""
        now = self._clock.monotonic()
        self._is_stale = False
        try:
            head = read_head(self._store.get(KIND, HEAD_KEY)[0])
            found = self._snapshot if head.rev <= self._snapshot.rev else self._load(head)
        except BaseException:
            self._is_stale = True
            raise
        with self._lock:
            if found.rev > self._snapshot.rev:
                self._snapshot = found
            self._looked_at = max(now, self._looked_at)
            return self._snapshot

    def fresh_enough(self, seen_ms: int) -> Snapshot:
        """A snapshot no older than one that somebody has seen already (bot-api 2.7)."""
        snapshot = self.cached()
        return snapshot if snapshot.fetched_ms >= seen_ms else self.latest()

    def rejected(self) -> Rejected | None:
        """Why the files on disk are kept out; None when they are not. Reads the store."""
        return read_rejected(self._store.get(KIND, REJECTED_KEY)[0])

    def file_digest(self) -> str:
        """The digest of the files on disk that were acted on last. Reads the store."""
        return read_file(self._store.get(KIND, FILE_KEY)[0])

    def close(self) -> None:
        """Hear no more of the store."""
        self._unsubscribe()

    def _hear(self, topic: str) -> None:
        if topic in {TOPIC, "*"}:
            self._is_stale = True

    def _load(self, head: Head) -> Snapshot:
        (doc,) = self._store.get(KIND, revision_key(head.rev))
        if doc is None:
            raise LookupError(f"revision {head.rev} of bots.cfg is in force but not in the store")
        source = read_source(doc.body)
        self._is_loading = True
        try:
            meaning = self._native(lambda: load(source))
        finally:
            self._is_loading = False
        return Snapshot(
            meaning=meaning,
            source=source,
            digest=head.digest,
            fetched_ms=head.fetched_ms,
            rev=head.rev,
            applied_at_ms=head.applied_at_ms,
        )
