"""The configuration as files in a folder: read, and checked without a server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botapi.cfg import bots_cfg, pools_cfg, settings_cfg
from botapi.cfg.bundle import SCRIPTS, read
from botapi.cfg.mistakes import BadConfig, Mistake
from botapi.cfg.places import Place

OTHER_FILES = (pools_cfg.FILE_NAME, settings_cfg.FILE_NAME)
"""May be absent."""

Signature = tuple[tuple[str, int, int, int, int], ...]
"""Name, times, size and inode of every file: changes when a file is written."""


def signature(folder: Path) -> Signature:
    """What a few calls of `stat` tell of the files."""
    return tuple(sorted(_stats(folder)))


def content(folder: Path) -> dict[str, bytes] | None:
    """The files as `bundle.read` takes them; None without a bots.cfg. Raises BadConfig."""
    raw = _content(folder / bots_cfg.FILE_NAME, bots_cfg.FILE_NAME)
    if raw is None:
        return None
    others = {name: _content(folder / name, name) for name in OTHER_FILES}
    scripts = {
        SCRIPTS + path.name: _content(path, SCRIPTS + path.name) for path in _scripts(folder)
    }
    files = {bots_cfg.FILE_NAME: raw, **others, **scripts}
    return {name: body for name, body in files.items() if body is not None}


def check(folder: Path) -> dict[str, Any]:
    """Every mistake and warning, one line each, and the digest (null with a mistake).

    What `POST /config/validate` says of the same files (docs/api.md).
    """
    try:
        files = content(folder)
        if files is None:
            raise no_file(f"there is no such file in {folder}")
        source, meaning = read(files)
    except BadConfig as error:
        return {"digest": None, "mistakes": error.lines(), "warnings": []}
    warnings = [str(warning) for warning in meaning.warnings]
    return {"digest": source.digest(), "mistakes": [], "warnings": warnings}


def no_file(said: str) -> BadConfig:
    """A complaint about bots.cfg as a whole."""
    return BadConfig([Mistake(bots_cfg.FILE_NAME, Place(1, 1), "", said)])


def _stats(folder: Path) -> Iterator[tuple[str, int, int, int, int]]:
    texts = (folder / name for name in (bots_cfg.FILE_NAME, *OTHER_FILES))
    for path in (*texts, *_scripts(folder)):
        try:
            stat = path.stat()
        except OSError:
            continue
        yield path.name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _scripts(folder: Path) -> list[Path]:
    return sorted((folder / SCRIPTS).glob("*.py"))


def _content(path: Path, shown: str) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        said = f"cannot be read: {error.strerror}"
        raise BadConfig([Mistake(shown, Place(1, 1), "", said)]) from None
