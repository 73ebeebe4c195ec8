"""What is stored of a person, and their sessions at the pages."""

from collections.abc import Callable, Sequence

from botapi.auth.directory import KIND, SESSIONS, TOPIC, Session, User, read_user, session_doc
from botapi.auth.directory import user_doc as doc_of
from botapi.auth.directory import user_key as key_of
from botapi.store.protocol import Key, Store, Txn

Change = Callable[[User | None], User]
"""The user afterwards, from what is stored; may raise, and may run twice."""
Also = Callable[[Txn, User | None, User], None]
"""More writes of the same transaction, the audit entry for one: given before and after."""


def change_user(
    store: Store, identity: str, change: Change, *, also: Also | None = None
) -> tuple[User | None, User]:
    """The user before and after; without a difference nothing is written."""

    def work(txn: Txn) -> tuple[User | None, User]:
        (doc,) = txn.get(KIND, key_of(identity))
        before = read_user(doc)
        after = change(before)
        if after != before:
            txn.put(KIND, doc_of(after, doc))
            txn.notify(TOPIC)
            if also is not None:
                also(txn, before, after)
        return before, after

    return store.transact(work, label="change_user")


def open_session(store: Store, session: Session, over: Sequence[Key]) -> None:
    """A browser signed in; sessions that are `over` are removed with it."""

    def work(txn: Txn) -> None:
        for key in over:
            txn.delete(SESSIONS, key)
        txn.put(SESSIONS, session_doc(session))

    store.transact(work, label="open_session")


def end_session(store: Store, session_id: str) -> None:
    """A browser signed out; its tokens are void at once."""
    store.transact(lambda txn: txn.delete(SESSIONS, session_id), label="end_session")
