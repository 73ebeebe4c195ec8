"""Blobs that nobody needs any more: found by what the kept tasks name, deleted by their age.

A sweep touches everything below the roots of inputs and outputs that any kept task names, then
deletes what nobody has touched for the time of the settings. Whoever is told that a blob is
here touches it as well: it lives on from that moment, whatever a sweep has begun to think.
Two sweeps at once do no harm.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from botapi.blobs.protocol import PARTS, BlobStore, Swept, Usage, read_all
from botapi.clock import Clock
from botapi.concurrency import Concurrency
from botapi.domain.artifacts import CasReference
from botapi.domain.cas import INSTANCE, BadTree, Digest, MissingBlob, folders
from botapi.store import codec
from botapi.store.protocol import Doc, Key, Store, StoreError
from botapi.store.walk import END, PAGE, key_after

EVERY_S = 6 * 3600.0
FIRST_S = 600.0
"""After the start of a process."""
TOUCHED_AT_ONCE = 1_000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class BlobSweep:
    """The sweeper of one process; `keep_ms` is how long an unneeded blob lives."""

    store: Store
    blobs: BlobStore
    concurrency: Concurrency
    clock: Clock
    keep_ms: int
    next_s: float = 0.0
    is_running: bool = False

    def round(self) -> None:
        """Begin a sweep beside everything else when one is due."""
        now_s = self.clock.monotonic()
        if not self.next_s:
            self.next_s = now_s + FIRST_S
        if self.is_running or now_s < self.next_s:
            return
        self.next_s = now_s + EVERY_S
        self.is_running = True
        self.concurrency.spawn(self._run)

    def _run(self) -> None:
        try:
            swept = self.sweep()
            log.info(
                "blobs: %d of %d bytes deleted",
                swept.deleted.size_bytes,
                swept.deleted.size_bytes + swept.kept.size_bytes,
            )
        except StoreError as error:
            log.warning("blobs are not swept: %s", error)
        finally:
            self.is_running = False

    def sweep(self) -> Swept:
        """Mark, then delete. Nothing is deleted when marking fails."""
        before_ms = self.clock.now_ms() - self.keep_ms
        for root in self._roots():
            self.concurrency.outside(partial(self._touch_tree, root))
        kept, deleted = Usage(), Usage()
        for part in range(PARTS):
            found = self.concurrency.outside(partial(self.blobs.sweep, part, before_ms))
            kept, deleted = _sum(kept, found.kept), _sum(deleted, found.deleted)
        self.concurrency.outside(lambda: self.blobs.note_usage(kept))
        return Swept(kept, deleted)

    def _roots(self) -> set[Digest]:
        """Everything that a kept task names."""
        roots: set[Digest] = set()
        for kind, named in ((codec.REQ, _inputs), (codec.TASK, _outputs)):
            lo = ""
            while page := self.concurrency.native(partial(self._page, kind, named, lo)):
                found, lo = page
                roots |= found
        return roots

    def _page(
        self, kind: str, named: Callable[[Doc], set[Digest]], lo: Key
    ) -> tuple[set[Digest], Key] | None:
        """What some documents name, and where the next ones begin; None at the end."""
        docs = self.store.scan(kind, lo, END, limit=PAGE)
        if not docs:
            return None
        return set[Digest]().union(*map(named, docs)), key_after(docs[-1].key)

    def _touch_tree(self, root: Digest) -> None:
        """Of a tree that is not whole, what is there and can be found."""
        digests = {root: None}
        try:
            for digest, _path, directory in folders(root, partial(read_all, self.blobs)):
                digests[digest] = None
                digests |= dict.fromkeys(file.digest for file in directory.files)
        except (BadTree, MissingBlob) as error:
            log.info("blobs: the tree %s is not whole: %s", root, error)
        found = list(digests)
        for start in range(0, len(found), TOUCHED_AT_ONCE):
            self.blobs.missing(found[start : start + TOUCHED_AT_ONCE])


def _inputs(doc: Doc) -> set[Digest]:
    """Of a request; most name none, so it is looked at as it is stored."""
    if not any(slice_.get("cas_input_root") for slice_ in doc.body["slices"]):
        return set()
    slices = codec.read_request(doc).slices
    return set[Digest]().union(*(_root(slice_.cas_input_root) for slice_ in slices))


def _outputs(doc: Doc) -> set[Digest]:
    """Of a task."""
    if not doc.body.get("cas_output_root"):
        return set()
    return _root(codec.read_task(doc).cas_output_root)


def _root(reference: CasReference | None) -> set[Digest]:
    if reference is None or reference.cas_instance != INSTANCE or reference.digest is None:
        return set()
    try:
        return {Digest.parse(f"{reference.digest.hash}/{reference.digest.size_bytes or 0}")}
    except ValueError:
        return set()


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(one.blobs + other.blobs, one.size_bytes + other.size_bytes)
