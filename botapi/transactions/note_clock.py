"""That the clock of a server lies behind its store stands in the record of changes."""

from botapi.store import codec
from botapi.store.protocol import Store

MINUTE_MS = 60_000


def note_clock(store: Store, *, now_ms: int, behind_ms: int) -> None:
    """Write it down, once a minute however many processes find it."""
    minute_ms = now_ms // MINUTE_MS * MINUTE_MS
    entry = codec.audit_doc(
        at_ms=minute_ms,
        entry_id="clock",
        actor="server",
        verb="clock.behind",
        target="server",
        reason=f"the newest stamp of the store is {behind_ms // 1000} s after this server's clock",
        before="",
        after="",
    )
    store.transact(lambda txn: txn.put(codec.AUDIT, entry), label="note_clock")
