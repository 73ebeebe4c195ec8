"""A store around a store: what is not overridden goes straight to the inner one."""

from botapi.store.retry import Transactions


class WrappedStore(Transactions):
    """Passes reads on, and runs the retry loop on top of its own `attempt`."""

    def __init__(self, inner, rng=None):
        super().__init__(inner.concurrency, inner.clock, rng or inner.rng)
        self.inner = inner
        self.get = inner.get
        self.scan = inner.scan
        self.scan_keys = inner.scan_keys
        self.find = inner.find
        self.count = inner.count
        self.kinds = inner.kinds
        self.watch = inner.watch
        self.subscribe = inner.subscribe
        self.schema = inner.schema
        self.capabilities = inner.capabilities
        self.close = inner.close

    def attempt(self, fn, *, timeout_s):
        return self.inner.attempt(fn, timeout_s=timeout_s)
