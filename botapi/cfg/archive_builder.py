"""Bot archives made from the bot's sources and kept while these do not change.

The sources are a folder (the package `bot_client`, or another of the same shape) or a zip
made elsewhere. They may change while the server runs: an edit is served within a second,
and sources that cannot be read leave the last good archive in service.
"""

import ast
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from botapi.cfg.bot_archive import (
    CONFIG_JSON,
    HOOKS,
    MAIN,
    Archive,
    BadArchive,
    config_json,
    pack,
    unpack,
)
from botapi.clock import Clock
from botapi.concurrency import native_lock

PACKAGE = "bot_client"
ZIP_MAIN = "zip_main.py"
LOOK_AGAIN_S = 1.0
MAX_URLS = 16
MAX_VERSIONS = 256

_Signature = tuple[tuple[str, int, int, int, int], ...]


def packaged_bot() -> Path:
    """The folder of the bot that is installed beside this server."""
    return Path(__file__).resolve().parent.parent.parent / PACKAGE


@dataclass(frozen=True, slots=True)
class _Sources:
    """What was read, and the stat signature it was read under; members without config.json."""

    signature: _Signature
    members: dict[str, bytes]


class ArchiveBuilder:
    """Archives by server URL. Any thread may call; reading and packing block.

    `source` is a folder or a `.zip`; `hooks` is the file that becomes
    `config/bot_config.py` when it exists. Each look at the sources that finds them
    changed reads them all; a problem is kept for `problem` until it is gone.
    """

    def __init__(
        self, source: Path, hooks: Path, clock: Clock, *, look_again_s: float = LOOK_AGAIN_S
    ) -> None:
        self._look_again_s = look_again_s
        self._source = source
        self._hooks = hooks
        self._clock = clock
        self._lock = native_lock()
        self._sources: _Sources | None = None
        self._bad: tuple[_Signature, str] | None = None
        self._looked_at = float("-inf")
        self._generation = 0
        self._built: OrderedDict[str, Archive] = OrderedDict()
        self._versions: OrderedDict[str, None] = OrderedDict()

    def archive(self, server_url: str) -> Archive:
        """The archive for bots of this URL.

        Raises BadArchive only when the sources have never been readable.
        """
        sources = self._current()
        with self._lock:
            found = self._built.get(server_url)
            if found is not None:
                self._built.move_to_end(server_url)
                return found
        built = pack(sources.members | {CONFIG_JSON: config_json(server_url)})
        with self._lock:
            self._versions[built.version] = None
            while len(self._versions) > MAX_VERSIONS:
                self._versions.popitem(last=False)
            if self._sources is sources:
                self._built[server_url] = built
                while len(self._built) > MAX_URLS:
                    self._built.popitem(last=False)
        return built

    def knows(self, version: str) -> bool:
        """Has this process made an archive of this version, lately?"""
        return version in self._versions

    def is_current(self, version: str) -> bool:
        """Is this version made of the sources as they are now, for one URL or another?

        Raises as `archive`.
        """
        self._current()
        with self._lock:
            return any(built.version == version for built in self._built.values())

    def hooks_digest(self) -> str:
        """SHA-256, in hex, of the member `config/bot_config.py`; of nothing when it is absent.

        Raises as `archive`.
        """
        return sha256(self._current().members.get(HOOKS, b"")).hexdigest()

    def generation(self) -> int:
        """Grows whenever other sources come into service; looks at them at most once a second.

        A server that asks this regularly may leave the looking to it (`look_again_s`).
        Raises as `archive`.
        """
        self._current(LOOK_AGAIN_S)
        return self._generation

    def problem(self) -> str:
        """One line on why the sources as they are now are not served; empty when they are."""
        return self._bad[1] if self._bad is not None else ""

    def _current(self, look_again_s: float | None = None) -> _Sources:
        """The sources, looked at again at most once a second."""
        now = self._clock.monotonic()
        known = self._sources
        age_s = now - self._looked_at
        if known is not None and age_s < (look_again_s or self._look_again_s):
            return known
        signature = self._signature()
        self._looked_at = now
        if known is not None and signature == known.signature:
            self._bad = None
            return known
        if known is not None and self._bad is not None and self._bad[0] == signature:
            return known
        try:
            fresh = _Sources(signature, self._read())
            if known is not None and self._signature() != signature:
                return known  # being edited right now: look again in a second
        except BadArchive as error:
            self._bad = (signature, f"bot archive: {self._source}: {error}")
            if known is None:
                raise BadArchive(self._bad[1]) from None
            return known
        with self._lock:
            self._bad = None
            self._sources = fresh
            self._generation += 1
            self._built.clear()
        return fresh

    def _read(self) -> dict[str, bytes]:
        try:
            members = (
                _members_of_zip(self._source.read_bytes())
                if self._source.is_file()
                else _members_of_folder(self._source)
            )
            if self._hooks.is_file():
                members[HOOKS] = self._hooks.read_bytes()
        except OSError as error:
            raise BadArchive(f"cannot be read: {error.strerror}") from None
        pack(members)  # names that no archive can carry are found here, not while serving
        return members

    def _signature(self) -> _Signature:
        return tuple(sorted(self._stats()))

    def _stats(self) -> Iterator[tuple[str, int, int, int, int]]:
        files = [self._source] if self._source.is_file() else _python_files(self._source)
        for path in (*files, self._hooks):
            try:
                stat = path.stat()
            except OSError:
                continue
            yield str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _members_of_folder(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise BadArchive("there is no such folder or file")
    members = {
        f"{PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in _python_files(folder)
    }
    main = members.get(f"{PACKAGE}/{ZIP_MAIN}")
    if main is None:
        raise BadArchive(f"there is no {ZIP_MAIN} in it")
    for name, content in members.items():
        _check_syntax(name, content)
    return members | {MAIN: main}


def _check_syntax(name: str, content: bytes) -> None:
    """A half-saved module must not reach the fleet."""
    try:
        ast.parse(content, name)
    except (SyntaxError, ValueError) as error:
        raise BadArchive(f"{name} does not parse: {error}") from None


def _members_of_zip(content: bytes) -> dict[str, bytes]:
    members = unpack(content)
    if MAIN not in members:
        raise BadArchive(f"there is no {MAIN} in it")
    return members
