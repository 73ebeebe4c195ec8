"""A store that runs every transaction function twice, as a retry after a conflict would.

Whoever counts, appends or sends inside a transaction function does it twice here.
"""

from contextlib import suppress

from tests.fakes.wrapped_store import WrappedStore


class TwiceStore(WrappedStore):
    """First a rehearsal whose writes are thrown away, then the real run."""

    def attempt(self, fn, *, timeout_s):
        def rehearse(txn):
            fn(txn)
            raise _RehearsalOver

        with suppress(_RehearsalOver):
            self.inner.attempt(rehearse, timeout_s=timeout_s)
        return self.inner.attempt(fn, timeout_s=timeout_s)


class _RehearsalOver(Exception):
    """Rolls the rehearsal back; no one else may catch it."""
