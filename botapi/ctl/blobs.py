"""`skep cas`: files and folders to and from the server by their digest (docs/blobs.md).

`put` and `get` are what `skep run --input` and `skep collect --output-dir` are made of.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import CtlError, Invalid, ServerFault, plain
from botapi.ctl.http import Client, Json, segment

ASKED_AT_ONCE = 5_000
PIECE_BYTES = 1024 * 1024
INSTANCE = "projects/local/instances/default"

Files = Iterable[tuple[str, str, bool]]
Named = Iterable[tuple[str, str]]


@dataclass(slots=True)
class Upload:
    """A tree before it is sent: where the bytes of every digest are."""

    files: dict[str, Path] = field(default_factory=dict)
    folders: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


def put(client: Client, path: Path) -> str:
    """Upload a file or folder, of it only what the server lacks; its digest `<hash>/<size>`.

    A link must stay inside the folder. Raises Invalid.
    """
    upload = Upload()
    try:
        root = _add_folder(upload, path, path) if path.is_dir() else _add_file(upload, path)
    except OSError as error:
        raise Invalid(str(error.filename or path), error.strerror or str(error)) from error
    asked = [*upload.files, *upload.folders]
    for start in range(0, len(asked), ASKED_AT_ONCE):
        body = {"digests": asked[start : start + ASKED_AT_ONCE]}
        for digest in client.ask("blobs", "/blobs/missing", body)["missing"]:
            if digest in upload.folders:
                client.put_bytes(f"blob {digest}", f"/blobs/{digest}", upload.folders[digest])
            else:
                client.put_file(f"blob {digest}", f"/blobs/{digest}", upload.files[digest])
    return root


def get(client: Client, digest: str, folder: Path) -> int:
    """Download a tree into a folder that is not there yet or empty; how many files it has."""
    return _download(client, f"/trees/{digest}", folder)


def get_outputs(client: Client, task_id: str, folder: Path) -> int:
    """Download what a task left behind; how many files. 0 when it left nothing."""
    task = client.get(f"task {task_id}", f"/tasks/{segment(task_id)}")
    if not task.get("cas_output_root"):
        return 0
    return _download(client, f"/tasks/{segment(task_id)}/outputs", folder)


def input_root(digest: str) -> Json:
    """A digest as `cas_input_root` of a slice."""
    name, _, size = digest.partition("/")
    return {"cas_instance": INSTANCE, "digest": {"hash": name, "size_bytes": int(size or 0)}}


@click.group()
def cas() -> None:
    """Keep files and folders by their digest, and fetch them."""


@cas.command("put")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@client_command
def put_command(call: Invocation, path: Path) -> None:
    """Upload a file or folder; print its digest."""
    click.echo(put(call.client, path))


@cas.command("get")
@click.argument("digest")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@client_command
def get_command(call: Invocation, digest: str, folder: Path) -> None:
    """Download a folder by its digest."""
    count = get(call.client, digest, folder)
    call.note(f"{count} files in {plain(str(folder))}")


def _add_folder(upload: Upload, folder: Path, top: Path) -> str:
    files, folders, links = [], [], []
    for name in sorted(os.listdir(folder)):
        path = folder / name
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            links.append((name, _target(path, top)))
        elif stat.S_ISDIR(mode):
            folders.append((name, _add_folder(upload, path, top)))
        elif stat.S_ISREG(mode):
            files.append((name, _add_file(upload, path), bool(mode & 0o100)))
        else:
            raise Invalid(str(path), "neither a file nor a folder nor a link")
    content = encode_folder(files, folders, links)
    digest = f"{hashlib.sha256(content).hexdigest()}/{len(content)}"
    upload.folders[digest] = content
    return digest


def _add_file(upload: Upload, path: Path) -> str:
    hasher, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
            size += len(piece)
    digest = f"{hasher.hexdigest()}/{size}"
    upload.files[digest] = path
    upload.size += size
    return digest


def _target(path: Path, top: Path) -> str:
    target = os.readlink(path)
    where = os.path.normpath(os.path.join(path.parent.relative_to(top), target))
    if os.path.isabs(target) or where == ".." or where.startswith("../"):
        raise Invalid(str(path), f"a link to {target}, which leads out of {top}")
    return target


def _download(client: Client, path: str, folder: Path) -> int:
    if folder.exists() and any(folder.iterdir()):
        raise Invalid(str(folder), "there is something in it; name an empty or new folder")
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for item in _items(client, path):
            place = folder / _safe(item["path"])
            place.parent.mkdir(parents=True, exist_ok=True)
            if "target" in item:
                os.symlink(item["target"], place)
                continue
            _fetch(client, item, place)
            count += 1
    except OSError as error:
        raise Invalid(str(error.filename or folder), error.strerror or str(error)) from error
    return count


def _items(client: Client, path: str) -> Iterator[Json]:
    """Files first, then links: nothing is ever written through a link."""
    links: list[Json] = []
    cursor = ""
    while True:
        page = client.get("files", path, [("cursor", cursor)] if cursor else [])
        for item in page["items"]:
            if "target" in item:
                links.append(item)
            else:
                yield item
        cursor = page.get("next_cursor") or ""
        if not cursor:
            yield from links
            return


def _fetch(client: Client, item: Json, place: Path) -> None:
    mode = 0o755 if item.get("is_executable") else 0o644
    hasher = hashlib.sha256()
    with place.open("xb") as file:
        for piece in client.stream(f"blob {item['digest']}", f"/blobs/{item['digest']}"):
            hasher.update(piece)
            file.write(piece)
        os.fchmod(file.fileno(), mode)
    if hasher.hexdigest() != item["digest"].partition("/")[0]:
        place.unlink()
        raise ServerFault(item["path"], "other bytes came than its digest says")


def _safe(path: str) -> str:
    words = path.split("/")
    if any(word in {"", ".", ".."} for word in words) or "\0" in path:
        raise CtlError(path, "not a path below a folder: nothing is written there")
    return path


def encode_folder(files: Files, folders: Named, links: Named) -> bytes:
    """A `Directory` of the Remote Execution API; digests are `<hash>/<size>`."""
    out = bytearray()
    for name, digest, is_executable in sorted(files, key=_by_name):
        body = _field(1, name.encode()) + _field(2, _digest(digest))
        out += _field(1, body + (b"\x20\x01" if is_executable else b""))
    for name, digest in sorted(folders, key=_by_name):
        out += _field(2, _field(1, name.encode()) + _field(2, _digest(digest)))
    for name, target in sorted(links, key=_by_name):
        out += _field(3, _field(1, name.encode()) + _field(2, target.encode()))
    return bytes(out)


def _by_name(node: tuple[str, ...] | tuple[str, str, bool]) -> bytes:
    return str(node[0]).encode()


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _digest(text: str) -> bytes:
    name, _, size = text.partition("/")
    return _field(1, name.encode()) + (b"\x10" + _varint(int(size)) if int(size) else b"")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
