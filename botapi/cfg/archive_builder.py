"""The bot's sources on this server's disk, read again whenever they change.

The sources are a folder (the package `bot_client`, or another of the same shape) or a zip
made elsewhere. They may change while the server runs: an edit is taken within a second,
and sources that cannot be read leave the last good ones in service.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from botapi.cfg.bot_archive import (
    CONFIG_JSON,
    MAIN,
    BadArchive,
    content_digest,
    pack,
    unpack,
)
from botapi.clock import Clock

PACKAGE = "bot_client"
ZIP_MAIN = "zip_main.py"
LOOK_AGAIN_S = 1.0

_Stats = tuple[tuple[str, int, int, int, int], ...]


def packaged_bot() -> Path:
    """The folder of the bot that is installed beside this server."""
    return Path(__file__).resolve().parent.parent.parent / PACKAGE


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read: the members without `config/config.json`, their digest, the hooks.

    `hooks` is the text of `scripts/bot_config.py`, None where there is no such file.
    """

    digest: str
    members: Mapping[str, bytes]
    hooks: bytes | None


class SourceReader:
    """The sources of one server. Any thread may call; reading blocks.

    `source` is a folder or a `.zip`; `hooks` is the file that becomes
    `config/bot_config.py` when it exists. Each look at the files that finds them changed
    reads them all; a problem is kept for `problem` until it is gone.
    """

    def __init__(self, source: Path, hooks: Path, clock: Clock) -> None:
        self._source = source
        self._hooks = hooks
        self._clock = clock
        self._current: tuple[_Stats, Sources] | None = None
        self._bad: tuple[_Stats, str] | None = None
        self._looked_at = float("-inf")

    def current(self) -> Sources:
        """The sources, looked at again at most once a second.

        Raises BadArchive only when they have never been readable.
        """
        now = self._clock.monotonic()
        known = self._current
        if known is not None and now - self._looked_at < LOOK_AGAIN_S:
            return known[1]
        stats = tuple(sorted(self._stats()))
        self._looked_at = now
        if known is not None and stats == known[0]:
            self._bad = None
            return known[1]
        if known is not None and self._bad is not None and self._bad[0] == stats:
            return known[1]
        try:
            fresh = self._read()
            if known is not None and tuple(sorted(self._stats())) != stats:
                return known[1]  # being edited right now: look again in a second
        except BadArchive as error:
            self._bad = (stats, f"bot archive: {self._source}: {error}")
            if known is None:
                raise BadArchive(self._bad[1]) from None
            return known[1]
        self._bad = None
        self._current = (stats, fresh)
        return fresh

    def problem(self) -> str:
        """One line on why the sources as they are now are not served; empty when they are."""
        return self._bad[1] if self._bad is not None else ""

    def _read(self) -> Sources:
        try:
            members = (
                members_of_zip(self._source.read_bytes())
                if self._source.is_file()
                else _members_of_folder(self._source)
            )
            hooks = self._hooks.read_bytes() if self._hooks.is_file() else None
        except OSError as error:
            raise BadArchive(f"cannot be read: {error.strerror}") from None
        pack(members)  # names that no archive can carry are found here, not while serving
        return Sources(content_digest(members), members, hooks)

    def _stats(self) -> Iterator[tuple[str, int, int, int, int]]:
        files = [self._source] if self._source.is_file() else _python_files(self._source)
        for path in (*files, self._hooks):
            try:
                stat = path.stat()
            except OSError:
                continue
            yield str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def members_of_zip(content: bytes) -> dict[str, bytes]:
    """The members of a bot archive made elsewhere, without `config/config.json`.

    Raises BadArchive.
    """
    members = unpack(content)
    if MAIN not in members:
        raise BadArchive(f"there is no {MAIN} in it")
    members.pop(CONFIG_JSON, None)
    return members


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
