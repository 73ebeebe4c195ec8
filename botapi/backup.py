"""`skep backup` and `skep restore`: one file with everything that a server on SQLite keeps.

A tar file: the database as it was at one moment, the configuration, the blobs, and last
`manifest.json` with the length and SHA-256 of every other member (docs/backup.md).
"""

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import click

from botapi import __version__, settings
from botapi.settings import Settings, SettingsError
from botapi.store.protocol import StoreError
from botapi.store.sqlite_copy import check_database, copy_database
from botapi.store.sqlite_files import DATABASE

FORMAT = 1
MANIFEST = "manifest.json"
CONFIG = "config"
BLOBS = "blobs"
KEYS = "secrets.keys"
CHUNK_BYTES = 1024 * 1024
USAGE, FAILED, CONFLICT = 2, 3, 9


class BackupError(Exception):
    """One line: what, where, what to do; `code` is the exit code."""

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a backup, by its name in the tar file."""

    name: str
    path: Path


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data-dir", metavar="DIR", help="what to save (SKEP_DATA_DIR)")
@click.option("--config-dir", metavar="DIR", help="the folder of bots.cfg (SKEP_CONFIG_DIR)")
@click.option("--with-keys", is_flag=True, help="Save the key file of the secrets too.")
@click.option("--no-blobs", is_flag=True, help="Leave inputs and outputs of tasks out.")
@click.option("--force", is_flag=True, help="Replace FILE.")
def backup(
    file: Path,
    data_dir: str | None,
    config_dir: str | None,
    *,
    with_keys: bool,
    no_blobs: bool,
    force: bool,
) -> None:
    """Save everything into FILE, while the server goes on."""
    chosen = _settings(data_dir, config_dir)
    try:
        said = make_backup(chosen, file, with_keys=with_keys, with_blobs=not no_blobs, force=force)
    except BackupError as error:
        _fail(error)
    click.echo(json.dumps(said, indent=2))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data-dir", metavar="DIR", help="the folder to make (SKEP_DATA_DIR)")
@click.option("--check", is_flag=True, help="Only look whether the file is whole.")
def restore(file: Path, data_dir: str | None, *, check: bool) -> None:
    """Make a data folder out of a backup; the folder must hold no database yet."""
    chosen = _settings(data_dir, None)
    try:
        said = restore_backup(file, None if check else chosen.data_dir)
    except BackupError as error:
        _fail(error)
    click.echo(json.dumps(said, indent=2))


def _settings(data_dir: str | None, config_dir: str | None) -> Settings:
    try:
        return settings.load(os.environ, {"data_dir": data_dir, "config_dir": config_dir})
    except SettingsError as error:
        _fail(BackupError(str(error)))


def _fail(error: BackupError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(error.code)


def make_backup(
    chosen: Settings, file: Path, *, with_keys: bool, with_blobs: bool, force: bool
) -> dict[str, Any]:
    """Write the file; what is in it. A file that is not whole never has its name.

    Raises BackupError.
    """
    if chosen.is_shared:
        raise BackupError(
            "SKEP_STORE names a database that servers share: save that with its own means "
            "(pg_dump, gcloud datastore export), or copy it with skep store copy (docs/backup.md)"
        )
    if file.exists() and not force:
        raise BackupError(f"{file}: is there already; --force replaces it", CONFLICT)
    part = file.with_name(file.name + ".part")
    try:
        with tempfile.TemporaryDirectory(prefix="skep-backup-", dir=file.parent) as folder:
            copy = Path(folder) / DATABASE
            copy_database(chosen.data_dir, copy)
            counts = check_database(copy)
            members = [Member(DATABASE, copy), *_members(chosen, with_keys, with_blobs)]
            said = _write(part, members, counts, chosen)
        part.replace(file)
    except StoreError as error:
        raise BackupError(str(error), FAILED) from None
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BackupError(f"{error.filename or file}: {error.strerror}", FAILED) from None
    return {"file": str(file), "bytes": file.stat().st_size, **said}


def _members(
    chosen: Settings,
    with_keys: bool,  # noqa: FBT001 - passed on
    with_blobs: bool,  # noqa: FBT001 - passed on
) -> Iterator[Member]:
    yield from _below(chosen.config_dir, CONFIG)
    keys = chosen.secrets_keys or chosen.data_dir / KEYS
    if with_keys and keys.exists():
        yield Member(KEYS, keys)
    if with_blobs and chosen.blobs == "disk":
        yield from _below(chosen.data_dir / BLOBS, BLOBS)


def _below(folder: Path, name: str) -> Iterator[Member]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            yield Member(f"{name}/{path.relative_to(folder).as_posix()}", path)


def _write(
    part: Path, members: list[Member], counts: dict[str, int], chosen: Settings
) -> dict[str, Any]:
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            described = [_add(tar, member) for member in members]
            kept = [entry for entry in described if entry is not None]
            said = {
                "format": FORMAT,
                "version": __version__,
                "documents": counts,
                "blobs": chosen.blobs,
                "members": kept,
            }
            _add_bytes(tar, MANIFEST, json.dumps(said).encode())
        out.flush()
        os.fsync(out.fileno())
    return {"documents": counts, "files": len(kept)}


def _add(tar: tarfile.TarFile, member: Member) -> dict[str, Any] | None:
    """Add a file; None for a blob that retention has removed meanwhile."""
    try:
        with member.path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            info = _info(member.name, length)
            reader = _Hashing(file, length)
            tar.addfile(info, reader)  # type: ignore[arg-type]
    except FileNotFoundError:
        return None
    return {"name": member.name, "length": length, "sha256": reader.digest.hexdigest()}


class _Hashing:
    """Reads a file and hashes what was read, no further than its length at the beginning."""

    def __init__(self, file: Any, length: int) -> None:  # noqa: ANN401 - an open file
        self._file = file
        self._left = length
        self.digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data: bytes = self._file.read(min(count, self._left))
        self._left -= len(data)
        self.digest.update(data)
        return data


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_info(name, len(data)), io.BytesIO(data))


def _info(name: str, length: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = length, 0o600
    return info


def restore_backup(file: Path, data_dir: Path | None) -> dict[str, Any]:
    """Unpack beside the place, check every byte, then put it there; None only checks.

    Raises BackupError, and leaves nothing behind then.
    """
    if data_dir is not None and (data_dir / DATABASE).exists():
        raise BackupError(
            f"{data_dir}: holds a database already; stop its server and move it away", CONFLICT
        )
    near = data_dir.parent if data_dir is not None else file.parent
    try:
        near.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".skep-restore-", dir=near) as name:
            folder = Path(name) / "data"
            folder.mkdir(mode=0o700)
            said = _unpacked(file, folder)
            if data_dir is not None:
                _put(folder, data_dir)
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(f"{file}: is no backup, or cut off: {error}") from None
    except StoreError as error:
        raise BackupError(str(error)) from None
    except OSError as error:
        raise BackupError(f"{error.filename or file}: {error.strerror}", FAILED) from None
    return said


def _unpacked(file: Path, folder: Path) -> dict[str, Any]:
    with tarfile.open(file, "r:") as tar:
        for info in tar:
            _unpack(file, tar, info, folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise BackupError(f"{file}: is no backup, or cut off: it has no {MANIFEST}")
    try:
        said = json.loads(manifest.read_bytes())
        members = {entry["name"]: entry for entry in said["members"]}
        is_known = said["format"] == FORMAT
    except (ValueError, TypeError, KeyError):
        raise BackupError(f"{file}: its {MANIFEST} is damaged") from None
    if not is_known:
        raise BackupError(f"{file}: is of format {said['format']}; this Skep reads {FORMAT}")
    manifest.unlink()
    _check_members(file, folder, members)
    counts = check_database(folder / DATABASE)
    if counts != said["documents"]:
        raise BackupError(f"{file}: the database holds other documents than {MANIFEST} says")
    return {"version": said["version"], "documents": counts, "files": len(members)}


def _unpack(file: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, folder: Path) -> None:
    """Write one file of the backup, private to its owner; anything but a file below is refused.

    Not `extractall` with its filter, which the first releases of Python 3.11 have not.
    """
    name = PurePosixPath(info.name)
    content = tar.extractfile(info) if info.isreg() else None
    if content is None or name.is_absolute() or not name.parts or ".." in name.parts:
        raise BackupError(f"{file}: {info.name} is no file that a backup holds")
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise BackupError(f"{file}: {info.name} is in it twice") from None
    with os.fdopen(handle, "wb") as out:
        shutil.copyfileobj(content, out, CHUNK_BYTES)


def _check_members(file: Path, folder: Path, members: dict[str, Any]) -> None:
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name in sorted(there.keys() ^ members.keys()):
        raise BackupError(f"{file}: {name} is not both in the file and in its {MANIFEST}")
    for name, path in there.items():
        digest = hashlib.sha256()
        with path.open("rb") as content:
            while piece := content.read(CHUNK_BYTES):
                digest.update(piece)
        if digest.hexdigest() != members[name]["sha256"]:
            raise BackupError(f"{file}: {name} is damaged")


def _put(folder: Path, data_dir: Path) -> None:
    """Rename into place: the whole folder, or what is in it when the place is there already."""
    keys = folder / KEYS
    if keys.exists():
        keys.chmod(0o400)
    if not data_dir.exists():
        folder.rename(data_dir)
        return
    for item in sorted(folder.iterdir(), key=lambda path: path.name == DATABASE):
        if (data_dir / item.name).exists():
            raise BackupError(f"{data_dir / item.name}: is there already; move it away", CONFLICT)
    for item in sorted(folder.iterdir(), key=lambda path: path.name == DATABASE):
        shutil.move(item, data_dir / item.name)
