"""A store whose commits sometimes end with `Ambiguous`: a connection that broke in between.

The fault is injected below the retry loop, so that the transaction function runs again.
"""

import random

from botapi.clock import SystemRng
from botapi.store.protocol import Ambiguous
from tests.fakes.wrapped_store import WrappedStore


class FaultyStore(WrappedStore):
    """Fails with the given probabilities, in an order that the seed decides.

    `before`: nothing was written.  `after`: everything was written, and yet it fails.
    `surface`: do not retry, the caller gets the Ambiguous.
    """

    def __init__(self, inner, *, seed, before=0.0, after=0.0, surface=False):
        super().__init__(inner, rng=_Impatient())
        self.before = before
        self.after = after
        self.surface = surface
        self.faults = 0
        self._random = random.Random(seed)

    def attempt(self, fn, *, timeout_s):
        self._fail(self.before, "before the commit")
        result = self.inner.attempt(fn, timeout_s=timeout_s)
        self._fail(self.after, "after the commit")
        return result

    def until_done(self, fn, label, deadline_s):
        if self.surface:
            return self.attempt(fn, timeout_s=deadline_s)
        return super().until_done(fn, label, deadline_s)

    def _fail(self, probability, moment):
        if self._random.random() < probability:
            self.faults += 1
            raise Ambiguous(f"injected {moment}")


class _Impatient(SystemRng):
    """Retries at once, so that tests with many faults take no time."""

    def uniform(self, low, high):
        return low
