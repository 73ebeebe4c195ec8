"""One task's files: inputs and named caches before the command, outputs and caches after it.

Runs beside the supervisor's main thread, on a thread of its own, so that updates go on; every
step asks whether it is to stop.
"""

import base64
import logging
import os
import zlib
from collections.abc import Iterable
from typing import IO, Any, Optional

from bot_client import task_env
from bot_client.blob_api import BlobApi, DiskTrouble, Missing, Stop, on_disk
from bot_client.cas import (
    EMPTY,
    INSTANCE,
    MAX_DEPTH,
    MAX_DIRECTORY_BYTES,
    MAX_ENTRIES,
    BadTree,
    Digest,
    Directory,
    FileNode,
    decode,
    stays_inside,
)
from bot_client.errors import BotError
from bot_client.manifest import Manifest
from bot_client.output_tree import OutputTree, TaskFault
from bot_client.storage import Room, Storage

log = logging.getLogger("bot.workspace")

Json = dict[str, Any]

PREPARE_LIMIT_S = 50 * 60.0
COLLECT_LIMIT_S = 50 * 60.0
MAX_SIZES = 4_000
"""Most sizes of files in one set of the statistics."""


class MissingInputs(BotError):
    """Inputs that do not exist: the task's author is to blame."""

    def __init__(self, digests: list[Digest]) -> None:
        """``digests`` are what the server does not have."""
        names = ", ".join(str(digest) for digest in digests[:5])
        super().__init__(f"the server does not have these inputs: {names}")
        self.digests = digests


class Tally:
    """Sizes of the files of one direction: moved, and already there."""

    def __init__(self, storage: Storage, stop: Stop) -> None:
        """The cache is counted as it is now."""
        self._items, self._size = len(storage.content), storage.content.size
        self._stop = stop
        self._started = stop.now()
        self.cold: list[int] = []
        self.hot: list[int] = []

    def stats(self) -> Json:
        """As bot-api 5.1 has it."""
        return {
            "duration": self._stop.now() - self._started,
            "initial_number_items": self._items,
            "initial_size": self._size,
            "items_cold": pack_sizes(self.cold),
            "items_hot": pack_sizes(self.hot),
        }


def pack_sizes(sizes: Iterable[int]) -> str:
    """Base64 of the packed form: sorted, differences as varints, deflated; empty for none."""
    out = bytearray()
    last = 0
    for size in sorted(sizes)[-MAX_SIZES:]:
        value, last = size - last, size
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return base64.b64encode(zlib.compress(bytes(out))).decode() if out else ""


class Workspace:
    """`prepare`, then the command, then `finish`; `finish` always."""

    def __init__(self, manifest: Manifest, storage: Storage, room: Room, blobs: BlobApi) -> None:
        """Nothing happens yet."""
        self._manifest = manifest
        self._storage = storage
        self._room = room
        self._blobs = blobs
        self._stop = blobs.stop
        self._entries = 0
        self._is_prepared = False
        self.stats: Json = {}
        self.notes: list[str] = []
        self.output_root: Optional[Json] = None
        self.undeleted: list[str] = []

    @property
    def stage(self) -> Optional[str]:
        """The run folder made ready; None when the runner is to make an empty one."""
        return self._storage.stage if self._is_prepared else None

    def begin(self, stop: Stop) -> None:
        """What ends the next phase."""
        self._stop = self._blobs.stop = stop

    def has_inputs(self) -> bool:
        """Is there anything to do before the command?"""
        return self._manifest.input_root is not None or bool(self._manifest.caches)

    def prepare(self) -> None:
        """Make the run folder ready.  MissingInputs, TaskFault, or what transfers raise."""
        manifest, storage = self._manifest, self._storage
        self._is_prepared = True
        started = self._stop.now()
        hints = [(cache.name, cache.hint) for cache in manifest.caches]
        storage.trim(storage.room_for(self._room, hints), self._stop.check)
        self.stats["cache_trim_stats"] = {"duration": self._stop.now() - started}
        _remove(storage.stage)
        on_disk(os.mkdir, storage.stage, 0o700)
        if manifest.input_root is not None:
            self._fetch_inputs(manifest.input_root)
        started = self._stop.now()
        try:
            for cache in manifest.caches:
                storage.named.install(cache.name, storage.stage, cache.path)
        except OSError as failure:
            raise TaskFault(str(failure)) from failure
        self.stats["named_caches_stats"] = {"install": {"duration": self._stop.now() - started}}

    def _fetch_inputs(self, root: Digest) -> None:
        tally = Tally(self._storage, self._stop)
        try:
            self._lay_out(root, tally)
        except Missing as missing:
            raise MissingInputs([missing.digest]) from missing
        except BadTree as defect:
            raise TaskFault(f"the inputs cannot be laid out: {defect}") from defect
        self.stats["isolated_stats"] = {"download": tally.stats()}

    def _lay_out(self, root: Digest, tally: Tally) -> None:
        waiting = [(root, "", 0)]
        while waiting:
            digest, path, depth = waiting.pop()
            if depth > MAX_DEPTH or digest.size > MAX_DIRECTORY_BYTES:
                raise BadTree(f"the folder {path!r} is too large or too deep")
            directory = self._folder(digest)
            self._entries += sum(len(nodes) for nodes in directory)
            if self._entries > MAX_ENTRIES:
                raise BadTree(f"more than {MAX_ENTRIES} entries")
            for folder in directory.directories:
                on_disk(os.mkdir, self._at(path + folder.name), 0o755)
                waiting.append((folder.digest, f"{path}{folder.name}/", depth + 1))
            for file in directory.files:
                self._lay_file(file, self._at(path + file.name), tally)
            for link in directory.symlinks:
                if not stays_inside(path + link.name, link.target):
                    raise BadTree(f"the link {path + link.name!r} leads out of the tree")
                on_disk(os.symlink, link.target, self._at(path + link.name))

    def _at(self, path: str) -> str:
        return os.path.join(self._storage.stage, *path.split("/"))

    def _folder(self, digest: Digest) -> Directory:
        if digest == EMPTY:
            return Directory([], [], [])
        with self._storage.content.new_file() as file:
            self._copy(digest, file)
            file.seek(0)
            return decode(file.read())

    def _lay_file(self, node: FileNode, target: str, tally: Tally) -> None:
        self._stop.check()
        with on_disk(open, target, "xb") as file:
            is_here = self._copy(node.digest, file)
            os.fchmod(file.fileno(), 0o755 if node.is_executable else 0o644)
        (tally.hot if is_here else tally.cold).append(node.digest.size)

    def _copy(self, digest: Digest, target: IO[bytes]) -> bool:
        """A blob's bytes, through the cache; was it there?"""
        if digest == EMPTY:
            return True
        content = self._storage.content
        for _ in range(2):
            is_here = content.has(digest)
            if not is_here:
                with on_disk(content.new_file) as file:
                    self._blobs.fetch(digest, file)
                    on_disk(content.keep, digest, file)
            if on_disk(content.copy, digest, target):
                return is_here
            target.seek(0)
            target.truncate()
        raise DiskTrouble(f"disk: {digest} is not what was written")

    def finish(self, handed_over: Optional[str], *, keep_outputs: bool) -> None:
        """After the command: `collect` if the runner left anything, and `clean_up` always."""
        try:
            if handed_over is not None:
                run, out = (os.path.join(handed_over, name) for name in ("ir", "io"))
                self._return_caches(run)
                if keep_outputs:
                    self._collect(run, out)
        finally:
            self._clean_up(handed_over)

    def _collect(self, run: str, out: str) -> None:
        tally = Tally(self._storage, self._stop)
        tree = OutputTree(self.notes)
        on_disk(tree.add_folder, out)
        for name in self._manifest.outputs:
            on_disk(tree.add, run, name)
        if tree.is_empty():
            return
        root = self._upload(tree, tally)
        self.output_root = {
            "cas_instance": INSTANCE,
            "digest": {"hash": root.hash, "size_bytes": root.size},
        }
        self.stats.setdefault("isolated_stats", {})["upload"] = tally.stats()

    def _return_caches(self, run: str) -> None:
        started = self._stop.now()
        for cache in self._manifest.caches:
            trouble = on_disk(self._storage.named.uninstall, cache.name, run)
            if trouble:
                self.notes.append(trouble)
        took = {"duration": self._stop.now() - started}
        self.stats.setdefault("named_caches_stats", {})["uninstall"] = took

    def _upload(self, tree: OutputTree, tally: Tally) -> Digest:
        files: dict[Digest, str] = {}
        folders: dict[Digest, bytes] = {}
        root = tree.digest(files, folders, self._stop)
        missing = self._blobs.missing([*files, *folders])
        for digest, path in files.items():
            is_missing = str(digest) in missing
            (tally.cold if is_missing else tally.hot).append(digest.size)
            if is_missing:
                with on_disk(open, path, "rb", 0) as file:
                    self._blobs.put(digest, file)
        for digest, content in folders.items():
            if str(digest) in missing:
                with self._storage.content.new_file() as file:
                    on_disk(file.write, content)
                    self._blobs.put(digest, file)
        return root

    def _clean_up(self, handed_over: Optional[str]) -> None:
        """Whatever happened: nothing of the task stays, caches go home, limits hold again."""
        started = self._stop.now()
        storage = self._storage
        self._blobs.close()
        try:
            storage.rescue()
            for folder in (storage.stage, handed_over or ""):
                self.undeleted += task_env.remove_tree(folder)
            self.stats["cleanup_stats"] = {"duration": self._stop.now() - started}
            storage.trim(self._room)
        except OSError as failure:
            log.warning("cleaning up after the task: %s", failure)


def _remove(folder: str) -> None:
    left = task_env.remove_tree(folder)
    if left:
        raise DiskTrouble(f"disk: {left[0]} of an earlier task cannot be deleted")
