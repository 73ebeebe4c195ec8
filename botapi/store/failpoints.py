"""Named points at which a test kills the process: before and after the commit of a transaction.

`claim_slice.before_commit:kill@3` kills at the third time that `claim_slice` is about to
commit, `claim_slice.after_commit:kill@1` right after its first commit, before anybody is
told. The label is the transaction's. Used through the setting `fault`, never by default.
"""

import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from botapi.store.protocol import Doc, Key, Store, StoreError, Txn

T = TypeVar("T")

_SPEC = re.compile(r"([a-z_.]+)\.(before_commit|after_commit):kill@([1-9][0-9]*)")


class BadFault(StoreError):
    """Not a fault specification; says what one looks like."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Kill at the n-th time that this label comes to this side of its commit."""

    label: str
    side: str
    nth: int


def parse(spec: str) -> Fault:
    """Read `label.before_commit:kill@n`. Raises BadFault."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise BadFault(f"{spec!r} is not like claim_slice.before_commit:kill@3")
    return Fault(match[1], match[2], int(match[3]))


class FailingStore:
    """A store that kills its process at one point; everything else is the store's own."""

    def __init__(self, store: Store, fault: Fault, kill: Callable[[], None] | None = None) -> None:
        self._store = store
        self._fault = fault
        self._count = 0
        self._kill = kill or _kill_this_process

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        return getattr(self._store, name)

    def transact(self, fn: Callable[[Txn], T], *, label: str, **more: Any) -> T:
        """As the store's, with the two points."""
        result = self._store.transact(self._before(fn, label), label=label, **more)
        self._reach(label, "after_commit")
        return result

    def take(
        self,
        kind: str,
        ranges: Sequence[tuple[Key, Key]],
        n: int,
        fn: Callable[[Txn, list[Doc]], T],
        *,
        label: str,
        **more: Any,
    ) -> T:
        """As the store's, with the two points."""

        def work(txn: Txn, docs: list[Doc]) -> T:
            result = fn(txn, docs)
            if docs:
                self._reach(label, "before_commit")
            return result

        result = self._store.take(kind, ranges, n, work, label=label, **more)
        self._reach(label, "after_commit")
        return result

    def _before(self, fn: Callable[[Txn], T], label: str) -> Callable[[Txn], T]:
        def work(txn: Txn) -> T:
            result = fn(txn)
            self._reach(label, "before_commit")
            return result

        return work

    def _reach(self, label: str, side: str) -> None:
        if (label, side) == (self._fault.label, self._fault.side):
            self._count += 1
            if self._count == self._fault.nth:
                self._kill()


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
