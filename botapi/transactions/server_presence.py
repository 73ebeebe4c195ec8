"""Which server processes there are, and what they know: kind `server`, key: the process's id.

A process says every few seconds that it is there, and in the same transaction reads the
schema number in force. So nobody raises the number above what a living process knows, and
a process that slept through a raise finds out.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from botapi.clock import DAY_MS
from botapi.store import codec, schema
from botapi.store.documents import SCHEMA_KEY, SCHEMA_KIND
from botapi.store.protocol import SCHEMA_NUMBER, Doc, SchemaMismatch, Store, Txn
from botapi.store.walk import END, PAGE, key_after
from botapi.wire_json import reader

KIND = "server"
ALIVE_MS = 60_000
"""A process that has said nothing for so long is gone."""


@dataclass(frozen=True, slots=True)
class Server:
    """One process: the newest schema number it knows, and where it keeps blobs.

    `blobs` names the folder of blobs, or the bucket. Times in ms.
    """

    server_id: str
    host: str
    version: str
    knows: int
    blobs: str
    seen_ms: int

    @property
    def named(self) -> str:
        """For a person."""
        return f"{self.server_id} on {self.host} (Skep {self.version}, schema {self.knows})"


_read_server = reader(Server)


def announce(store: Store, server: Server) -> int:
    """Say that the process is there; the schema number in force.

    Raises SchemaMismatch, and says nothing, when that is newer than the process knows.
    """
    doc = Doc(server.server_id, schema.body(asdict(server)), expire_at=server.seen_ms + DAY_MS)

    def work(txn: Txn) -> int:
        (active,) = txn.get(SCHEMA_KIND, SCHEMA_KEY)
        number = int(active.body["number"]) if active is not None else SCHEMA_NUMBER
        if number > server.knows:
            raise SchemaMismatch(
                f"the database needs schema {number} now; this Skep knows {server.knows}"
            )
        txn.put(KIND, doc)
        return number

    return store.transact(work, label="announce_server")


def leave(store: Store, server_id: str) -> None:
    """The process ends."""
    store.transact(lambda txn: txn.delete(KIND, server_id), label="leave_server")


def living(store: Store, now_ms: int) -> list[Server]:
    """The processes that were there within the last minute."""
    found: list[Server] = []
    lo = ""
    while docs := store.scan(KIND, lo, END, limit=PAGE):
        lo = key_after(docs[-1].key)
        found += [_read_server(doc.body) for doc in docs]
    return [server for server in found if now_ms - server.seen_ms < ALIVE_MS]


def keeps_elsewhere(servers: Iterable[Server], here: str) -> Server | None:
    """One of the processes that keeps its blobs in another place; None when all share ours."""
    return next((server for server in servers if here and server.blobs != here), None)


def raise_schema(store: Store, number: int, *, entry_id: str, now_ms: int) -> int:
    """Put a schema number in force, once for all processes; the one before.

    It never goes back: a number that is in force already, or was, changes nothing. Whether
    every living process knows it is for the caller to ask first.
    """

    def work(txn: Txn) -> int:
        (doc,) = txn.get(SCHEMA_KIND, SCHEMA_KEY)
        before = int(doc.body["number"]) if doc is not None else 0
        if before < number:
            body = {} if doc is None else doc.body
            txn.put(SCHEMA_KIND, Doc(SCHEMA_KEY, {**body, "number": number}))
            txn.put(codec.AUDIT, _entry(before, number, entry_id, now_ms))
        return before

    return store.transact(work, label="raise_schema")


def _entry(before: int, number: int, entry_id: str, now_ms: int) -> Doc:
    return codec.audit_doc(
        at_ms=now_ms,
        entry_id=entry_id,
        actor="skep store upgrade",
        verb="schema.raise",
        target="schema",
        reason="every server process knows the new number",
        before=str(before),
        after=str(number),
    )
