"""Folders that a bot keeps from task to task, by name: moved in, moved back, oldest out first.

``c/<two letters>`` holds a cache, ``c/state.json`` is the index, ``c/named/<name>`` a link for
people.  A cache that is out with a task is written down before it moves, so that the next start
finds it again wherever a crash left it.
"""

import json
import logging
import os
import string
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Optional

from bot_client import task_env
from bot_client.clock import Clock

log = logging.getLogger("bot.caches")

Json = dict[str, Any]

_LETTERS = string.ascii_lowercase + string.digits


class NamedCaches:
    """The index in memory is the one on disk, always written first."""

    def __init__(self, folder: str, clock: Clock) -> None:
        """``load`` it before use."""
        self._folder = folder
        self._clock = clock
        self._items: dict[str, Json] = {}

    def load(self, run_folders: Iterable[str]) -> None:
        """Read the index, fetch back what a crash left in one of these folders, drop the rest."""
        self._items = self._read_index()
        self.rescue(run_folders)
        known = {item["dir"] for item in self._items.values()} | {"state.json", "named"}
        for name in os.listdir(self._folder) if os.path.isdir(self._folder) else ():
            if name not in known:
                log.warning("unknown %s among the caches: removed", name)
                task_env.remove_tree(os.path.join(self._folder, name))

    def _read_index(self) -> dict[str, Json]:
        try:
            with open(os.path.join(self._folder, "state.json"), encoding="utf-8") as file:
                items = json.load(file)["items"]
            return {str(name): _item(item) for name, item in items.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as defect:
            log.warning("the index of the caches cannot be read, all are dropped: %r", defect)
            return {}

    def rescue(self, run_folders: Iterable[str]) -> None:
        """Move caches that are out back, from wherever they are; forget the ones that are gone."""
        folders = [*run_folders] * 2  # an earlier runner may be moving its folder just now
        for name, item in list(self._items.items()):
            if item["out"] is None:
                continue
            for folder in folders:
                with suppress(OSError):
                    if not os.path.lexists(self._place(item)) and self._take_back(name, folder):
                        log.info("cache %s was found in %s", name, folder)
            item["out"] = None
            item["size"], _ = measure(self._place(item))
            if not os.path.isdir(self._place(item)):
                log.warning("cache %s is lost", name)
                del self._items[name]
            self._write_index()

    def install(self, name: str, run_folder: str, path: str) -> bool:
        """Move a cache to its path of a run folder, an empty one if there is none; was it known?

        OSError with a text for the task's author when the path cannot be had.
        """
        parent = make_parents(run_folder, path)
        target = os.path.join(run_folder, *path.split("/"))
        if os.path.lexists(target):
            try:
                os.rmdir(target)
            except OSError:
                raise OSError(f"cache {name}: its path {path} is among the inputs") from None
        item = self._items.get(name)
        if item is None:
            item = {"dir": self._free_dir(), "size": 0, "used": self._clock.wall(), "out": path}
            self._items[name] = item
            self._write_index()
            os.mkdir(target, 0o700)
            return False
        item["out"] = path
        self._write_index()
        os.rename(self._place(item), os.path.join(parent, os.path.basename(target)))
        return True

    def uninstall(self, name: str, run_folder: str) -> Optional[str]:
        """Move a cache back; a text that says what went wrong when it is lost."""
        item = self._items.get(name)
        if item is None or item["out"] is None:
            return None
        trouble = ""
        try:
            found = self._take_back(name, run_folder)
        except OSError as failure:
            found, trouble = False, f": {failure.strerror or failure}"
        if not found:
            del self._items[name]
            self._write_index()
            self._link(name, None)
            return f"cache {name} is lost, it cannot be moved back{trouble}"
        size, _ = measure(self._place(item))
        item.update(size=size, used=self._clock.wall(), out=None)
        self._write_index()
        self._link(name, item)
        return None

    def _take_back(self, name: str, run_folder: str) -> bool:
        """Only a real folder, reached without following a link."""
        item = self._items[name]
        source = run_folder
        for word in item["out"].split("/"):
            source = os.path.join(source, word)
            if os.path.islink(source) or not os.path.isdir(source):
                return False
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        os.rename(source, self._place(item))
        return True

    def names(self) -> list[str]:
        """What is here, for the ``caches`` dimension."""
        return sorted(name for name, item in self._items.items() if item["out"] is None)

    def state(self) -> Json:
        """name -> [[dir, size], last use], as the state shows it."""
        return {
            name: [[item["dir"], item["size"]], int(item["used"])]
            for name, item in sorted(self._items.items())
            if item["out"] is None
        }

    def has(self, name: str) -> bool:
        """Is it here?"""
        return name in self._items

    @property
    def size(self) -> int:
        """Bytes of all that are here."""
        return sum(item["size"] for item in self._items.values() if item["out"] is None)

    def __len__(self) -> int:
        return len(self._items)

    def oldest(self) -> float:
        """Unix time of the use that is longest ago, of those that may go; infinite without one."""
        return min((item["used"] for item in self._idle().values()), default=float("inf"))

    def drop_oldest(self) -> None:
        """Remove the cache that was not used for longest; never one that is out with a task."""
        idle = self._idle()
        if not idle:
            return
        name = min(idle, key=lambda name: float(idle[name]["used"]))
        log.info("cache %s is dropped", name)
        item = self._items.pop(name)
        self._write_index()
        self._link(name, None)
        task_env.remove_tree(self._place(item))

    def _idle(self) -> dict[str, Json]:
        return {name: item for name, item in self._items.items() if item["out"] is None}

    def _place(self, item: Json) -> str:
        return os.path.join(self._folder, item["dir"])

    def _free_dir(self) -> str:
        taken = {item["dir"] for item in self._items.values()}
        pairs = (a + b for a in _LETTERS for b in _LETTERS)
        return next(pair for pair in pairs if pair not in taken)

    def _write_index(self) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, "state.json")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump({"version": 1, "items": self._items}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)

    def _link(self, name: str, item: Optional[Json]) -> None:
        """``c/named/<name>``: for people, so trouble with it is no trouble."""
        path = os.path.join(self._folder, "named", name)
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            if os.path.lexists(path):
                os.unlink(path)
            if item is not None:
                os.symlink(os.path.join("..", item["dir"]), path)


def _item(raw: Json) -> Json:
    """A checked item of the index; ValueError."""
    name, out = str(raw["dir"]), raw["out"]
    if len(name) != 2 or any(letter not in _LETTERS for letter in name):
        raise ValueError(f"dir {name!r}")
    if out is not None and not all(word not in {"", ".", ".."} for word in str(out).split("/")):
        raise ValueError(f"out {out!r}")
    return {"dir": name, "size": int(raw["size"]), "used": float(raw["used"]), "out": out}


def make_parents(folder: str, path: str) -> str:
    """The folder in which ``path`` ends, made if missing; OSError when a link is on the way."""
    for word in path.split("/")[:-1]:
        folder = os.path.join(folder, word)
        if os.path.islink(folder):
            raise OSError(f"{path}: a link is on the way")
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
    return folder


def measure(folder: str) -> tuple[int, int]:
    """Bytes and number of the files below; links are not followed, what vanishes is no trouble."""
    size = count = 0
    for base, _folders, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(base, name)).st_size
                count += 1
    return size, count
