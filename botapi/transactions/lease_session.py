"""The lease channel of a bot: opened, and closed."""

from dataclasses import replace

from botapi.store import codec
from botapi.store.codec import LeaseSession
from botapi.store.protocol import Store, Txn, join_key
from botapi.transactions.offer_lease import outstanding_offer


def open_lease_session(store: Store, session: LeaseSession) -> None:
    """The bot's only lease session from now on; an offer that the old one held stays with it.

    The bot is the same, so the offer is given to it again instead of waiting for its time.
    """

    def work(txn: Txn) -> None:
        (was,) = txn.get(codec.LSESSION, join_key(session.bot_id))
        held = ""
        if was is not None:
            old = codec.read_lease_session(was)
            if outstanding_offer(txn, old) is not None:
                held = old.offer_task
        txn.put(codec.LSESSION, codec.lease_session_doc(replace(session, offer_task=held), was))

    store.transact(work, label="open_lease_session")


def close_lease_session(store: Store, bot_id: str, lease_session_id: str) -> LeaseSession | None:
    """Close it and return it; None when it is not the open one of this bot."""

    def work(txn: Txn) -> LeaseSession | None:
        (was,) = txn.get(codec.LSESSION, join_key(bot_id))
        if was is None:
            return None
        session = codec.read_lease_session(was)
        if session.closed or session.lease_session_id != lease_session_id:
            return None
        txn.put(codec.LSESSION, codec.lease_session_doc(replace(session, closed=True), was))
        return session

    return store.transact(work, label="close_lease_session")
