"""The file bots.cfg and its scripts on disk: a good change goes in force, a bad one stays out.

Nothing here runs by itself: a sweep calls `check` now and then. While nothing changes
that costs a few calls of `stat`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from botapi.cfg import pools_cfg, settings_cfg
from botapi.cfg.bots_cfg import FILE_NAME
from botapi.cfg.bundle import Source, read
from botapi.cfg.mistakes import BadConfig, Mistake
from botapi.cfg.places import Place
from botapi.cfg.provider import Provider, Rejected

SCRIPTS = "scripts"
OTHER_FILES = (pools_cfg.FILE_NAME, settings_cfg.FILE_NAME)
"""May be absent."""

_Signature = tuple[tuple[str, int, int, int, int], ...]


class Push(Protocol):
    """Puts a source in force; bound to `transactions.push_config` by the composition root."""

    def __call__(self, source: Source, *, parent: str, now_ms: int) -> bool:
        """False when the revision in force is not `parent` any more."""
        ...


class Reject(Protocol):
    """Notes a rejected file; bound to `transactions.push_config` by the composition root."""

    def __call__(self, rejected: Rejected) -> None:
        """Write the note."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """A new revision is in force; digests of the one before and of this one."""

    before: str
    after: str


class Watcher:
    """Looks at one folder. `check` is called by one thread at a time."""

    def __init__(self, folder: Path, provider: Provider, push: Push, reject: Reject) -> None:
        self._folder = folder
        self._provider = provider
        self._push = push
        self._reject = reject
        self._seen: _Signature | None = None

    def check(self, now_ms: int) -> Change | Rejected | None:
        """Look once; None when nothing changed since the last look.

        A file that is being written right now is left for the next look, and so is one
        whose push lost a race. The errors of the store rise unchanged, and the next look
        tries again.
        """
        signature = self._signature()
        if signature == self._seen:
            return None
        outcome: Change | Rejected | None
        try:
            source = self._read()
        except BadConfig as error:
            if self._signature() != signature:
                return None
            outcome = self._keep_out(tuple(error.lines()), now_ms)
        else:
            if self._signature() != signature:
                return None
            parent = self._provider.latest().digest
            if source is None:
                outcome = self._file_is_gone(parent, now_ms)
            elif not self._push(source, parent=parent, now_ms=now_ms):
                return None
            else:
                after = source.digest()
                outcome = Change(parent, after) if after != parent else None
        self._seen = signature
        return outcome

    def _file_is_gone(self, parent: str, now_ms: int) -> Rejected | None:
        """No file at all is fine as long as there has never been one."""
        if not parent:
            return None
        gone = Mistake(FILE_NAME, Place(1, 1), "", "the file is gone; what it said stays in force")
        return self._keep_out((str(gone),), now_ms)

    def _keep_out(self, mistakes: tuple[str, ...], now_ms: int) -> Rejected:
        rejected = Rejected(self._raw_digest(), now_ms, mistakes)
        self._reject(rejected)
        return rejected

    def _signature(self) -> _Signature:
        return tuple(sorted(self._stats()))

    def _stats(self) -> Iterator[tuple[str, int, int, int, int]]:
        texts = (self._folder / name for name in (FILE_NAME, *OTHER_FILES))
        for path in (*texts, *self._scripts()):
            try:
                stat = path.stat()
            except OSError:
                continue
            yield path.name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino

    def _scripts(self) -> list[Path]:
        return sorted((self._folder / SCRIPTS).glob("*.py"))

    def _read(self) -> Source | None:
        """What is on disk, checked; None when there is no file. Raises BadConfig."""
        raw = _content(self._folder / FILE_NAME, FILE_NAME)
        if raw is None:
            return None
        others = {name: _content(self._folder / name, name) for name in OTHER_FILES}
        scripts = {
            f"{SCRIPTS}/{path.name}": _content(path, f"{SCRIPTS}/{path.name}")
            for path in self._scripts()
        }
        files = {FILE_NAME: raw, **others, **scripts}
        return read({name: body for name, body in files.items() if body is not None})[0]

    def _raw_digest(self) -> str:
        """Tells one bad file from the next; no relation to the digest of a good one."""
        try:
            return "raw:" + hashlib.sha256((self._folder / FILE_NAME).read_bytes()).hexdigest()
        except OSError:
            return "raw:"


def _content(path: Path, shown: str) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        said = f"cannot be read: {error.strerror}"
        raise BadConfig([Mistake(shown, Place(1, 1), "", said)]) from None
