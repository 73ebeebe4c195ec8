"""What the bot says of itself: dimensions for matching, state for people.

Probes have cost classes: constant ones run once, slow ones every ten minutes, cheap ones with a
poll but at most every five seconds.  A probe that fails keeps its last value and is named in
``state.probe_errors``; it never stops the cycle.
"""

import getpass
import locale
import logging
import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Optional

from bot_client import __version__, health
from bot_client.clock import Clock
from bot_client.errors import EXIT_CONFIG, Fatal
from bot_client.storage import Storage
from bot_client.task import architecture

log = logging.getLogger("bot.attributes")

Json = dict[str, Any]
Dimensions = dict[str, list[str]]

CONSTANT_S = float("inf")
SLOW_S = 600.0
CHEAP_S = 5.0
MIB = 1024 * 1024
_BOT_ID = re.compile(r"[a-z0-9\-_.]{1,128}")
_KEY = re.compile(r"[a-zA-Z\-_.][0-9a-zA-Z\-_.]{0,63}")
_SHOWN_ENV = ("PATH", "SWARMING_EXTERNAL_BOT_SETUP", "SWARMING_NEVER_REBOOT", "ISOLATED_CACHE_SIZE")
_CPU_KINDS = {"amd64": "x86", "x86_64": "x86", "i386": "x86", "i686": "x86", "aarch64": "arm64"}


def bot_id_from_environment() -> str:
    """``SWARMING_BOT_ID``, else the short host name.  Fatal when it cannot be an id."""
    bot_id = os.environ.get("SWARMING_BOT_ID") or socket.gethostname().partition(".")[0].lower()
    if not _BOT_ID.fullmatch(bot_id):
        raise Fatal(f"not a usable bot id: {bot_id!r}; set SWARMING_BOT_ID", EXIT_CONFIG)
    return bot_id


def check_dimensions(value: object, bot_id: str) -> Dimensions:
    """Dimensions with sorted values; ValueError says what is wrong with them."""
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind for every defect
    checked = {}
    for key, items in value.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(f"bad key {key!r}")
        if not isinstance(items, (list, tuple)) or not all(map(_is_value, items)):
            raise ValueError(f"bad values for {key}: {items!r}")
        if len(set(items)) != len(items):
            raise ValueError(f"repeated value for {key}")
        checked[key] = sorted(items)
    if checked.get("id", [bot_id]) != [bot_id]:
        raise ValueError(f"id must stay {bot_id}")
    return checked


def _is_value(item: object) -> bool:
    return isinstance(item, str) and 0 < len(item) <= 256 and item == item.strip()


class Probes:
    """The collectors with their caches."""

    def __init__(
        self, bot_dir: str, bot_id: str, clock: Clock, storage: Optional[Storage] = None
    ) -> None:
        """Nothing is probed before it is asked for.  ``storage`` knows the named caches."""
        self._storage = storage
        self._bot_dir = bot_dir
        self._bot_id = bot_id
        self._clock = clock
        self._values: dict[str, tuple[float, Any]] = {}
        self._errors: set[str] = set()
        self._started_at = clock.now()
        self._started_wall = int(clock.wall())

    def cached(self, name: str, period_s: float, probe: Callable[[], Any]) -> Any:  # noqa: ANN401
        """The probe's value, at most period_s seconds old; the last one when it fails."""
        now = self._clock.now()
        expires_at, value = self._values.get(name, (-1.0, None))
        if now < expires_at:
            return value
        try:
            value = probe()
            self._errors.discard(name)
        except Exception as failure:  # noqa: BLE001 - no probe may stop the cycle
            if name not in self._errors:
                log.warning("probe %s: %r", name, failure)
            self._errors.add(name)
        self._values[name] = (now + period_s, value)
        return value

    def dimensions(self) -> Dimensions:
        """The default ``get_dimensions``.  No ``pool``: that is the server's to say."""
        constant: Dimensions = self.cached("dimensions", CONSTANT_S, _constant_dimensions) or {}
        slow: Dimensions = self.cached("slow dimensions", SLOW_S, _slow_dimensions) or {}
        names = self._storage.named.names() if self._storage is not None else []
        caches = {"caches": names} if names else {}
        return {**constant, **slow, **caches, "id": [self._bot_id]}

    def state(self) -> Json:
        """The default ``get_state``."""
        state: Json = dict(self.cached("state", CONSTANT_S, self._constant_state) or {})
        state.update(self.cached("cheap state", CHEAP_S, self._cheap_state) or {})
        if self._storage is not None:
            state["named_caches"] = self._storage.named.state()
        state["running_time"] = int(self._clock.now() - self._started_at)
        if self._errors:
            state["probe_errors"] = sorted(self._errors)
        return state

    def disk_problem(self, settings: Json) -> Optional[health.Problem]:
        """Too little space, even after the caches have given back what they must."""
        problem = health.disk_problem(self._bot_dir, settings)
        if problem is None or self._storage is None:
            return problem
        self._storage.trim(self._storage.room(settings))
        return health.disk_problem(self._bot_dir, settings)

    def temp_entries(self) -> Optional[int]:
        """Entries in the system's temporary folder; None when it cannot be read."""
        found = self.cached("temp", CHEAP_S, lambda: len(os.listdir(tempfile.gettempdir())))
        return None if found is None else int(found)

    def _constant_state(self) -> Json:
        return {
            "client": {"name": "skep", "version": __version__, "features": ["lease", "drain"]},
            "cost_usd_hour": 0.0,
            "cpu_name": _cpu_name(),
            "cwd": self._bot_dir,
            "env": _shown_environment(),
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "python": {"executable": sys.executable, "version": sys.version, "packages": None},
            "ram": _ram_mib(),
            "started_ts": self._started_wall,
            "user": _user(),
            "docker_host_hostname": os.environ.get("DOCKER_HOST_HOSTNAME"),
        }

    def _cheap_state(self) -> Json:
        entries = self.temp_entries()
        state: Json = {
            "disks": {path: _space(path) for path in {"/", self._bot_dir} if os.path.isdir(path)},
            "nb_files_in_temp": "N/A" if entries is None else entries,
            "uptime": _uptime(),
            "load": {"average": [round(load, 2) for load in os.getloadavg()]},
        }
        if os.path.exists("/var/run/reboot-required"):
            state["reboot_required"] = True
        return state


def health_problems(probes: Probes, settings: Json) -> list[health.Problem]:
    """What quarantines the bot by itself, in order of precedence."""
    disk = probes.cached("disk", CHEAP_S, lambda: probes.disk_problem(settings))
    found = [disk, health.temp_problem(probes.temp_entries())]
    return [problem for problem in found if problem is not None]


def _constant_dimensions() -> Dimensions:
    version = sys.version_info
    dimensions = {
        "os": _os_values(),
        "cpu": _cpu_values(),
        "cipd_platform": [f"{_cipd_os()}-{architecture()}"],
        "python": [str(version[0]), f"{version[0]}.{version[1]}", platform.python_version()],
        "gce": ["0"],
        "inside_docker": _container(),
    }
    language = ".".join(part for part in locale.getlocale() if part)
    if language:
        dimensions["locale"] = [language]
    if sys.platform == "linux":
        dimensions["kernel"] = [platform.release()]
        dimensions["kvm"] = [str(int(os.path.exists("/dev/kvm")))]
    return dimensions


def _slow_dimensions() -> Dimensions:
    dimensions = {"cores": [str(_usable_cores())], "gpu": _gpus()}
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor:
        dimensions["cpu_governor"] = [governor]
    ssd = _has_ssd()
    if ssd is not None:
        dimensions["ssd"] = [str(int(ssd))]
    return dimensions


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def _os_values() -> list[str]:
    """General to precise: Linux, Debian, Debian-12, Debian-12.5."""
    if sys.platform == "darwin":
        words = platform.mac_ver()[0].split(".")
        return ["Mac", *(f"Mac-{'.'.join(words[:n])}" for n in range(1, len(words) + 1))]
    if sys.platform != "linux":
        return [platform.system() or sys.platform]
    facts = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', _read("/etc/os-release"), re.MULTILINE))
    name = facts.get("ID", "").capitalize()
    if not name:
        return ["Linux"]
    number = facts.get("VERSION_ID", "")
    precise = _read("/etc/debian_version").strip() if name == "Debian" else ""
    words = (precise if re.fullmatch(r"[\d.]+", precise) else number).split(".")
    parts = [f"{name}-{'.'.join(words[:n])}" for n in range(1, len(words) + 1) if words[0]]
    return ["Linux", name, *parts]


def _cipd_os() -> str:
    return {"darwin": "mac", "win32": "windows"}.get(sys.platform, sys.platform)


def _cpu_values() -> list[str]:
    machine = platform.machine().lower()
    kind = _CPU_KINDS.get(machine, machine)
    bits = "64" if sys.maxsize > 2**32 else "32"
    values = [kind, f"{kind}-{bits}"]
    if kind == "x86" and " avx2 " in _read("/proc/cpuinfo"):
        values.append(f"{kind}-{bits}-avx2")
    return ["arm", f"arm-{bits}", *values] if kind.startswith("arm") else values


def _cpu_name() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1) if found else platform.processor()


def _usable_cores() -> int:
    """Logical processors this process may use, minding affinity and the cgroup quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // max(1, int(quota[1]))))
    return cores


def _ram_mib() -> Optional[int]:
    """Memory of the host, or the cgroup's limit when that is lower."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    total = int(found.group(1)) // 1024 if found else None
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if total is not None and limit.isdigit():
        total = min(total, int(limit) // MIB)
    return total


def _container() -> list[str]:
    marked = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    words = ("docker", "kubepods", "containerd", "lxc", "libpod")
    grouped = any(word in _read("/proc/1/cgroup") for word in words)
    return ["1", "stock"] if marked or grouped else ["0"]


def _gpus() -> list[str]:
    """PCI display controllers by vendor and device; a VMware card counts as none."""
    values = set()
    with suppress(OSError):
        for name in os.listdir("/sys/bus/pci/devices"):
            below = f"/sys/bus/pci/devices/{name}/"
            vendor = _read(f"{below}vendor").strip()[2:]
            if _read(f"{below}class").startswith("0x03") and vendor not in {"", "15ad"}:
                values |= {vendor, f"{vendor}:{_read(f'{below}device').strip()[2:]}"}
    return sorted(values) or ["none"]


def _has_ssd() -> Optional[bool]:
    flags: list[str] = []
    with suppress(OSError):
        flags = [
            _read(f"/sys/block/{name}/queue/rotational").strip()
            for name in os.listdir("/sys/block")
            if not name.startswith(("loop", "ram", "zram", "sr"))
        ]
    return any(flag == "0" for flag in flags) if flags else None


def _space(path: str) -> Json:
    space = os.statvfs(path)
    return {
        "free_mb": round(space.f_bavail * space.f_frsize / MIB, 1),
        "size_mb": round(space.f_blocks * space.f_frsize / MIB, 1),
    }


def _uptime() -> Optional[int]:
    words = _read("/proc/uptime").split()
    return int(float(words[0])) if words else None


def _user() -> Optional[str]:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None


def _shown_environment() -> Json:
    shown: Json = {name: os.environ[name] for name in _SHOWN_ENV if name in os.environ}
    if "LUCI_MACHINE_TOKEN" in os.environ:
        shown["LUCI_MACHINE_TOKEN"] = "<set>"  # noqa: S105 - that it is set, not the value
    return shown
