"""All of a range or a query, page by page: what changes meanwhile is seen or not."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from botapi.store.protocol import AnyOf, Doc, Key, Store

T = TypeVar("T")

END = "\U0010ffff"
"""No key comes after it."""
PAGE = 500
"""Documents or keys in one read."""


def pages(
    store: Store, kind: str, lo: Key = "", hi: Key = END, *, limit: int = PAGE
) -> Iterator[list[Doc]]:
    """The documents with lo <= key < hi in key order, in lists of at most `limit`, none empty."""
    return _pages(lambda at: store.scan(kind, at, hi, limit=limit), lambda doc: doc.key, lo, limit)


def key_pages(
    store: Store, kind: str, lo: Key = "", hi: Key = END, *, limit: int = PAGE
) -> Iterator[list[Key]]:
    """The same of keys, without reading the bodies."""
    return _pages(lambda at: store.scan_keys(kind, at, hi, limit=limit), lambda key: key, lo, limit)


def walk(
    store: Store, kind: str, lo: Key = "", hi: Key = END, *, limit: int = PAGE
) -> Iterator[Doc]:
    """The same documents, one after the other."""
    for docs in pages(store, kind, lo, hi, limit=limit):
        yield from docs


def find_pages(
    store: Store, kind: str, all_of: Sequence[AnyOf], *, limit: int = PAGE
) -> Iterator[list[Doc]]:
    """Those with these tags in key order, in lists of at most `limit`; some may be empty."""
    at = None
    while True:
        page = store.find(kind, all_of, after=at, limit=limit)
        yield page.docs
        at = page.after
        if at is None:
            return


def find_all(
    store: Store, kind: str, all_of: Sequence[AnyOf], *, limit: int = PAGE
) -> Iterator[Doc]:
    """The same documents, one after the other."""
    for docs in find_pages(store, kind, all_of, limit=limit):
        yield from docs


def key_after(key: Key) -> Key:
    """The first key that comes after this one."""
    return key + "\0"


def _pages(
    read: Callable[[Key], list[T]], key_of: Callable[[T], Key], at: Key, limit: int
) -> Iterator[list[T]]:
    while page := read(at):
        yield page
        if len(page) < limit:
            return
        at = key_after(key_of(page[-1]))
