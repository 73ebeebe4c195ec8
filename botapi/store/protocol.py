"""The seam between Skep and its databases: an ordered document store with tags.

The docstrings here are the specification; every engine passes one conformance suite
(`tests/store/conformance`). Three rules make the engines equivalent:

1. A read-write transaction reads **by key only**.  Scans happen before it, and every
   candidate is read again by key inside.
2. Writes are buffered: a transaction does not see its own writes, and all of them
   take effect at commit or none.
3. The transaction function **may run more than once**, also after a commit that in
   fact succeeded.  It touches nothing but its transaction, and it is idempotent by an
   identifier chosen before the first try.

Keys are text compared byte-wise in UTF-8, 1 to 1,400 bytes, their components joined
by `!` (see `join_key`).  Bodies are JSON-like mappings in which `bytes` are allowed, at
most 900 KiB encoded.  Kinds are lower-case words of at most 40 letters, digits and `_`.
The store knows nothing of bots or tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Key = str
AnyOf = frozenset[str]
"""A non-empty set of tags; a document matches when it holds at least one of them."""

T = TypeVar("T")

MAX_KEY_BYTES = 1_400
MAX_BODY_BYTES = 900 * 1024
MAX_TAG_BYTES = 500
MAX_TAGS = 400
MAX_ALTERNATIVES = 30
"""Most tags over all AnyOf of one `find` or `count` (the smallest engine's limit)."""

SCHEMA_NUMBER = 1
"""The number this code writes; it reads this one and the one before."""


class StoreError(Exception):
    """Base of everything a store raises on purpose."""


class Conflict(StoreError):
    """Lost a race; retried inside `transact`, surfaces only past the deadline."""


class Outage(StoreError):
    """The store cannot answer now; nothing is known to be written. Try again later."""


class Ambiguous(Outage):
    """A commit whose outcome is unknown, still so at the deadline; run the same call again."""


class StoreFull(Outage):
    """No space left: reads work, writes do not until space returns."""


class TooLarge(StoreError):
    """A key, body, tag, or number of tags, alternatives or documents over its limit."""


class UnfitAddress(StoreError):
    """No store can have this address; says why, and shows nothing that may be a password."""


class AlreadyExists(StoreError):
    """`insert` met a document of that key; nothing of the transaction was written."""

    def __init__(self, kind: str, key: Key) -> None:
        super().__init__(f"{kind} {key!r} exists already")
        self.kind = kind
        self.key = key


class SchemaMismatch(StoreError):
    """The database was written by a newer Skep; says which schema number it needs."""


@dataclass(frozen=True, slots=True)
class Doc:
    """One document. `tags` are equality-indexed; `expire_at` (ms) is lazy, never relied on."""

    key: Key
    body: Mapping[str, Any]
    tags: frozenset[str] = frozenset()
    expire_at: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in key order; `after` resumes behind the last one, None when there is no more."""

    docs: list[Doc]
    after: Key | None


@dataclass(frozen=True, slots=True)
class SchemaInfo:
    """`active`: the number writers use; `known`: the newest number this code can read."""

    active: int
    known: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine declares of itself; the conformance suite adapts to nothing else.

    `push_wakeup`: `notify` reaches watchers in other processes without polling.
    `shared`: several processes may open the same database at the same time.
    `durable`: an acknowledged write survives the end of the process.
    `group_commit`: what one process asks for, one transaction after the other, runs in this
    order, and commits together where the second is there before the first has ended.
    `max_txn_docs`: most documents one transaction may write.
    `max_txn_bytes`: most bytes they may have together, keys and tags included; None for any.
    """

    engine: str
    push_wakeup: bool
    shared: bool
    durable: bool
    max_txn_docs: int
    max_txn_bytes: int | None = None
    group_commit: bool = False


class ReadTxn(Protocol):
    """Reads inside a transaction."""

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """The documents in the order of the keys, None where there is none."""
        ...


class Txn(ReadTxn, Protocol):
    """What a transaction function is given. Every write is buffered until commit."""

    def put(self, kind: str, doc: Doc) -> None:
        """Insert or replace. Raises TooLarge at once."""
        ...

    def insert(self, kind: str, doc: Doc) -> None:
        """Write a document that must not exist; `transact` raises AlreadyExists otherwise.

        The condition stays when the same transaction then puts or deletes that key.
        """
        ...

    def delete(self, kind: str, key: Key) -> None:
        """Remove; a document that is not there is no error. The last write of a key wins."""
        ...

    def notify(self, topic: str) -> None:
        """Wake watchers of the topic, one line of text, after the commit.

        A hint: it may be lost or doubled.
        """
        ...


class Store(Protocol):
    """One database. Limits and counts asked for are at least 1; less is a ValueError."""

    def get(self, kind: str, *keys: Key) -> list[Doc | None]:
        """A strong read by key, in the order of the keys, None where there is none."""
        ...

    def scan(self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False) -> list[Doc]:
        """Documents with lo <= key < hi in key order, descending when `reverse`."""
        ...

    def scan_keys(
        self, kind: str, lo: Key, hi: Key, *, limit: int, reverse: bool = False
    ) -> list[Key]:
        """The keys of `scan`, without reading the bodies."""
        ...

    def find(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        after: Key | None,
        limit: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> Page:
        """Documents matching every AnyOf, in key order, behind `after`, within [lo, hi).

        An empty `all_of` matches every document. A cursor (`after`) stays valid while
        documents come and go. Raises TooLarge over MAX_ALTERNATIVES, ValueError for an
        empty AnyOf.
        """
        ...

    def count(
        self,
        kind: str,
        all_of: Sequence[AnyOf],
        *,
        up_to: int,
        lo: Key = "",
        hi: Key | None = None,
    ) -> int:
        """How many documents match within [lo, hi), counting no further than `up_to`."""
        ...

    def kinds(self) -> list[str]:
        """The kinds that hold documents, in order; one that is empty by now may be among them."""
        ...

    def transact(self, fn: Callable[[Txn], T], *, label: str, deadline_s: float = 10.0) -> T:
        """Run fn in a transaction and commit; return what fn returned.

        Retries Conflict and Ambiguous by running fn again, with full-jitter pauses, up to
        `deadline_s` seconds. An exception of fn rolls back and rises unchanged. When this
        returns, the writes are durable. `label` names the transaction in metrics.
        """
        ...

    def take(
        self,
        kind: str,
        ranges: Sequence[tuple[Key, Key]],
        n: int,
        fn: Callable[[Txn, list[Doc]], T],
        *,
        label: str,
        deadline_s: float = 10.0,
    ) -> T:
        """Give fn up to n documents **of each range** [lo, hi), lowest keys first, range by range.

        No two running `take` transactions are given the same document. What fn does not
        delete or replace stays as it was. Otherwise as `transact`.
        """
        ...

    def write_many(self, docs: Iterable[tuple[str, Doc]]) -> None:
        """Blind, unordered, idempotent puts; may commit in several parts.

        A server that was halted may apply a part late, after newer writes: fit only for what
        is written again before long (last seen), or never in two forms.
        """
        ...

    def sweep_expired(self, kind: str, now_ms: int, limit: int) -> int:
        """Delete at most `limit` documents of the kind whose `expire_at` is at or before now.

        Returns how many. Until it is swept an expired document is read as any other.
        """
        ...

    def watch(self, topics: Sequence[str], timeout_s: float) -> set[str]:
        """Wait for a notification of any of these topics; the empty set after the timeout.

        Returns the topics that were notified. A topic ending in `*` matches by prefix;
        `"*"` in the answer means that any of them may have been. Notifications since the
        previous call of `watch` for the same topics by the same watcher may be reported
        at once. May be spurious, may miss: callers look again by themselves now and then.
        """
        ...

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback(topic)` after each commit that notifies, here or in another process.

        Runs on an arbitrary native thread and must return at once. The topic `"*"` means
        that something may have been missed. Returns the function that ends the subscription.
        """
        ...

    def schema(self) -> SchemaInfo:
        """The numbers in force; `active` is in the document `ACTIVE` of the kind `schema`."""
        ...

    def capabilities(self) -> Capabilities:
        """What this engine declares of itself."""
        ...

    def close(self) -> None:
        """Finish what is in hand and release everything. Idempotent."""
        ...


_ESCAPES = {chr(code): f"%{code:02X}" for code in range(0x21)} | {
    c: f"%{ord(c):02X}" for c in "%!/\x7f"
}
_ESCAPE_TABLE = str.maketrans(_ESCAPES)


def join_key(*components: str) -> Key:
    """Join components by `!`; `%`, `!`, `/` and everything up to blank are percent-escaped.

    Keys compare as their lists of components do, since `!` sorts below every character
    that is left unescaped; an escaped character sorts as `%` does.
    """
    return "!".join(component.translate(_ESCAPE_TABLE) for component in components)


def split_key(key: Key) -> list[str]:
    """The components that `join_key` joined."""
    return [_unescape(part) for part in key.split("!")]


def _unescape(part: str) -> str:
    if "%" not in part:
        return part
    head, *rest = part.split("%")
    return head + "".join(chr(int(piece[:2], 16)) + piece[2:] for piece in rest)


def prefix_range(*components: str) -> tuple[Key, Key]:
    """The range of all keys that begin with these components and have at least one more."""
    prefix = join_key(*components)
    return prefix + "!", prefix + '"'
