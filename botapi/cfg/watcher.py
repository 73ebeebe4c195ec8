"""The configuration files on disk: a good change goes in force, a bad one stays out.

Nothing here runs by itself: a sweep calls `check` now and then. While nothing changes
that costs a few calls of `stat`.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from botapi.cfg import folder as files
from botapi.cfg.bots_cfg import FILE_NAME
from botapi.cfg.bundle import Meaning, Source, read
from botapi.cfg.mistakes import BadConfig
from botapi.cfg.provider import Provider, Rejected


class Push(Protocol):
    """Puts a source in force; bound to `transactions.push_config` by the composition root."""

    def __call__(self, source: Source, *, parent: str, now_ms: int) -> bool | None:
        """Is a new revision in force? None when `parent` is not the one in force any more."""
        ...


_NOT_READ = "%s is not read: servers share the configuration in the store; use skep config apply"

log = logging.getLogger(__name__)

Reject = Callable[[Rejected], None]
"""Notes files that are kept out; bound to `transactions.push_config` as well."""

Guard = Callable[[Meaning, Meaning], str]
"""Why a good change of one meaning into another stays out, in one line; empty when it may go."""


class Native(Protocol):
    """Runs something long without holding the server's loop (see `concurrency`)."""

    def __call__(self, fn: "Callable[[], _Looked]") -> "_Looked":
        """The result of `fn`."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """A new revision is in force; digests of the one before and of this one."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Looked:
    """What is on disk: a good source, or mistakes, or neither without a file.

    `parent` is the revision in force, `digest` tells these files from others.
    """

    parent: str
    digest: str
    source: Source | None = None
    mistakes: tuple[str, ...] = ()


class Watcher:
    """Looks at one folder. `check` is called by one thread at a time.

    Unless the folder `is_needed` it may give the first revision and no other: many servers
    of one store may have different files, and each would undo what another one did.
    """

    def __init__(
        self,
        folder: Path,
        provider: Provider,
        push: Push,
        reject: Reject,
        guard: Guard,
        native: Native = lambda fn: fn(),
        *,
        is_needed: bool = True,
    ) -> None:
        self._folder = folder
        self._is_needed = is_needed
        self._provider = provider
        self._push = push
        self._reject = reject
        self._guard = guard
        self._native = native
        self._seen: files.Signature | None = None

    def check(self, now_ms: int) -> Change | Rejected | None:
        """Look once; None when nothing changed since the last look.

        A file that is being written right now is left for the next look, and so is one
        whose push lost a race. The errors of the store rise unchanged, and the next look
        tries again.
        """
        signature = files.signature(self._folder)
        if signature == self._seen:
            return None
        looked = self._native(self._look)
        if files.signature(self._folder) != signature:
            return None
        outcome: Change | Rejected | None = None
        if looked.source is not None:
            is_new = self._push(looked.source, parent=looked.parent, now_ms=now_ms)
            if is_new is None:
                return None
            outcome = Change(looked.parent, looked.digest) if is_new else None
        elif looked.mistakes:
            outcome = Rejected(looked.digest, now_ms, looked.mistakes)
            self._reject(outcome)
        self._seen = signature
        return outcome

    def _look(self) -> _Looked:
        """Read, check, and find out what the change would do to the fleet."""
        snapshot = self._provider.latest()
        parent = snapshot.digest
        try:
            found = files.content(self._folder)
            if parent and not self._is_needed:
                if found is not None:
                    log.warning(_NOT_READ, self._folder)
                return _Looked(parent, "")
            if found is None:
                if not parent:  # no file at all is fine as long as there has never been one
                    return _Looked(parent, "")
                raise files.no_file("the file is gone; what it said stays in force")
            source, meaning = read(found)
            digest = source.digest()
            if digest not in {parent, self._provider.file_digest()}:
                refusal = self._guard(snapshot.meaning, meaning)
                if refusal:
                    said = files.no_file(refusal).lines()
                    return _Looked(parent, digest, mistakes=tuple(said))
        except BadConfig as error:
            return _Looked(parent, self._raw_digest(), mistakes=tuple(error.lines()))
        return _Looked(parent, digest, source)

    def _raw_digest(self) -> str:
        """Tells one bad file from the next; no relation to the digest of a good one."""
        try:
            return "raw:" + hashlib.sha256((self._folder / FILE_NAME).read_bytes()).hexdigest()
        except OSError:
            return "raw:"
