"""What is wrong with this host, as (code, text) pairs; and the care of the bot directory."""

import logging
import os
import tempfile
from typing import Any, NamedTuple, Optional

from bot_client import processes, task_env
from bot_client.clock import Clock

log = logging.getLogger("bot.health")

Json = dict[str, Any]

MIB = 1024 * 1024
GIB = 1024 * MIB
TEMP_ENTRIES = 1024
SKEW_REPORT_S = 60.0
SKEW_QUARANTINE_S = 300.0
MARKER_NAME = ".skep-bot-directory"
HOME_TEXT = "Can't run from the home directory"
_KEPT = {
    "swarming_bot.zip",
    "swarming_bot.1.zip",
    "swarming_bot.2.zip",
    "swarming.lck",
    "slots.json",
    "enrolled.json",
    "logs",
    "c",
    "cas_cache",
    "cas_kvs_cache_db",
    "cipd_cache",
    "tmp",
    "README",
    "README.md",
    ".vpython3",
    MARKER_NAME,
}

DEFAULT_SETTINGS: Json = {
    "free_partition": {
        "root": {"size": GIB, "max_percent": 10.0, "min_percent": 6.0},
        "bot": {"size": 4 * GIB, "max_percent": 15.0, "min_percent": 7.0, "wiggle": 250 * MIB},
    },
    "caches": {"isolated": {"size": 50 * GIB, "items": 51200}},
}


class Problem(NamedTuple):
    """One reason for quarantine."""

    code: str
    text: str


def merge_settings(wanted: object) -> tuple[Json, list[str]]:
    """The defaults with a hook's values over them; and the keys that mean nothing."""
    unknown: list[str] = []
    return _merge(DEFAULT_SETTINGS, wanted, "", unknown), unknown


def _merge(defaults: Json, wanted: object, path: str, unknown: list[str]) -> Json:
    merged = dict(defaults)
    for key, value in wanted.items() if isinstance(wanted, dict) else ():
        if key not in defaults:
            unknown.append(f"{path}{key}")
        elif isinstance(defaults[key], dict):
            merged[key] = _merge(defaults[key], value, f"{path}{key}.", unknown)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            merged[key] = value
        else:
            unknown.append(f"{path}{key}")
    return merged


def least_free(size: float, rule: Json) -> float:
    """Bytes that must stay free on a partition of that size."""
    limits = [limit for limit in (rule["size"], size * rule["max_percent"] / 100) if limit]
    return float(max(min(limits) if limits else 0.0, size * rule["min_percent"] / 100))


def disk_problem(bot_dir: str, settings: Json) -> Optional[Problem]:
    """Too little space on the root partition or on the bot's own."""
    same = _device("/") == _device(bot_dir)
    rules = settings["free_partition"]
    root = _space_problem("/", rules["root"])
    if root is not None:
        return root
    return _space_problem("/" if same else bot_dir, rules["bot"])


def _device(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _space_problem(path: str, rule: Json) -> Optional[Problem]:
    try:
        space = os.statvfs(path)
    except (OSError, AttributeError):
        return None
    free = space.f_bavail * space.f_frsize
    needed = least_free(space.f_blocks * space.f_frsize, rule)
    if free >= needed:
        return None
    text = f"Not enough free disk space on {path}: {free // MIB} MiB, {needed / MIB:.0f} needed"
    return Problem("disk", text)


def temp_problem(entries: Optional[int]) -> Optional[Problem]:
    """A temporary folder that is full of left-overs, or unreadable."""
    if entries is None:
        return Problem("temp", f"Cannot read the temporary folder {tempfile.gettempdir()}")
    if entries > TEMP_ENTRIES:
        return Problem("temp", f"More than {TEMP_ENTRIES} files in {tempfile.gettempdir()}")
    return None


def clock_problem(skew_s: Optional[float]) -> Optional[Problem]:
    """A clock so wrong that token checks are going to fail."""
    if skew_s is None or abs(skew_s) <= SKEW_QUARANTINE_S:
        return None
    return Problem("clock", f"The clock differs from the server's by {skew_s:.0f} s")


def is_home(bot_dir: str) -> bool:
    """Is the bot directory the user's home?"""
    home = os.path.expanduser("~")
    return os.path.realpath(bot_dir) == os.path.realpath(home)


def tidy_bot_directory(bot_dir: str, clock: Clock) -> None:
    """Delete what is not ours, but only in a directory that an earlier start marked as ours.

    The first start only marks, and only when the directory holds nothing unknown: the bot never
    deletes files that may have been there before it.
    """
    if is_home(bot_dir):
        return
    marker = os.path.join(bot_dir, MARKER_NAME)
    unknown = [name for name in sorted(os.listdir(bot_dir)) if not _is_ours(name)]
    if not os.path.exists(marker):
        if [name for name in unknown if name != "w"]:
            log.warning("not a directory of only the bot's; nothing will be deleted: %s", unknown)
            return
        with open(marker, "w", encoding="utf-8") as file:
            file.write("The bot deletes unknown files in this directory.\n")
    _end_earlier_tasks(bot_dir, clock)
    for name in unknown:
        failed = task_env.remove_tree(os.path.join(bot_dir, name))
        log.info("deleted %s%s", name, f", but not {failed}" if failed else "")


def _is_ours(name: str) -> bool:
    return name in _KEPT or name.endswith("-cacert.pem")


def _end_earlier_tasks(bot_dir: str, clock: Clock) -> None:
    """Kill commands of an earlier bot that still run below our work folder."""
    work = os.path.join(bot_dir, "w")
    if not os.path.isdir(work):
        return
    for pid in processes.pids_with_environment(f"LUCI_CONTEXT={work}/".encode()):
        log.warning("killing %s(%d) of an earlier task", processes.name_of(pid), pid)
        processes.signal_process(pid, processes.SIGKILL)
    clock.wait(0)
