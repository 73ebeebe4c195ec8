"""A store that a newer release writes too: every document has a field that this code does not know.

What a transaction of this code puts over such a document must still have the field.
"""

from dataclasses import replace

from tests.fakes.wrapped_store import WrappedStore

FIELD = "of_the_next_release"


class NewerStore(WrappedStore):
    """`rewritten`: kinds that were put over a document; `lost`: those that dropped the field."""

    def __init__(self, inner):
        super().__init__(inner)
        self.rewritten = set()
        self.lost = set()

    def attempt(self, fn, *, timeout_s):
        return self.inner.attempt(lambda txn: fn(_Txn(txn, self)), timeout_s=timeout_s)


class _Txn:
    def __init__(self, txn, store):
        self._txn = txn
        self._store = store

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def put(self, kind, doc):
        (was,) = self._txn.get(kind, doc.key)
        if was is not None:
            self._store.rewritten.add(kind)
            if FIELD not in doc.body and kind != "schema":
                self._store.lost.add(kind)
        self._txn.put(kind, _newer(doc))

    def insert(self, kind, doc):
        self._txn.insert(kind, _newer(doc))


def _newer(doc):
    return replace(doc, body={**doc.body, FIELD: 1})
