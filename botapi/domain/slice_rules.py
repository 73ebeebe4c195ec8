"""What one slice of a task may say (bot-api 10.7); each function raises Refusal with the place.

A place is a JSON pointer, such as `/slices/0/env/PATH`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from botapi.domain.artifacts import CasReference, CipdInput, CipdPackage, NamedCache
from botapi.domain.dimensions import key_problem, value_problem
from botapi.domain.errors import refuse
from botapi.domain.matching import problems
from botapi.domain.names import utf8_length
from botapi.domain.task import Dimensions, Slice
from botapi.domain.value_rules import url_problem

MAX_ARGUMENTS = 128
MAX_ENV_KEYS = 64
MAX_ENV_KEY = 64
MAX_ENV_VALUE = 1024
MAX_PATH = 256
MAX_CACHES = 32
MAX_CACHE_NAME = 128
MAX_PACKAGES = 64
MAX_PACKAGE_NAME = 256
MAX_SERVER_URL = 1024
MAX_OUTPUTS = 4096
MAX_OUTPUT_PATH = 512
MIN_EXPIRATION_S = 30
MAX_EXPIRATION_S = 604_800
MAX_TIMEOUT_S = 601_140
"""7 days, less an hour, less a minute."""
MAX_GRACE_S = 3600
CONTAINMENT_TYPES = ("NOT_SPECIFIED", "NONE", "AUTO", "JOB_OBJECT")

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CACHE_NAME = re.compile(r"[a-z0-9_]+")
_CAS_INSTANCE = re.compile(r"projects/[a-z0-9-]+/instances/[a-z0-9-_]+")
_PINNED = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|[A-Za-z0-9_-]{44}|[^:]+:.+")
"""An instance of a package by its digest, or by a tag, which never moves; not a mere `latest`."""
_ROOT = "."


def check_dimensions(place: str, dimensions: Dimensions) -> None:
    """The rules of bot-api 10.1 for a slice with this place."""
    place = f"{place}/dimensions"
    for key, values in dimensions.items():
        problem = key_problem(key) or ("" if values else "has no values")
        if problem:
            raise refuse(f"{place}/{pointer(key)}", problem)
        for index, value in enumerate(values):
            for alternative in value.split("|"):
                problem = value_problem(key, alternative)
                if problem:
                    raise refuse(f"{place}/{pointer(key)}/{index}", problem)
    for problem in problems(dimensions):
        raise refuse(place, problem)


def check_slice(
    place: str, slice_: Slice, *, min_timeout_s: int, may_be_unlimited: bool = False
) -> None:
    """Everything but the dimensions. A timeout is at least `min_timeout_s`.

    `may_be_unlimited`: no execution timeout (0) is allowed too.
    """
    _check_command(f"{place}/command", slice_.command)
    _check_env(place, slice_)
    if slice_.relative_cwd:
        check_path(f"{place}/relative_cwd", slice_.relative_cwd, may_have_backslash=True)
    _check_times(place, slice_, min_timeout_s, may_be_unlimited=may_be_unlimited)
    _check_caches(f"{place}/caches", slice_.caches)
    if slice_.cipd_input is not None:
        _check_packages(f"{place}/cipd_input", slice_.cipd_input, slice_.caches)
        if slice_.idempotent:
            _check_pinned(f"{place}/cipd_input", slice_.cipd_input)
    if slice_.cas_input_root is not None:
        _check_cas(f"{place}/cas_input_root", slice_.cas_input_root)
    _check_outputs(f"{place}/outputs", slice_.outputs)
    _check_containment(f"{place}/containment", slice_)


def within(place: str, value: int, low: int, high: int, *, or_zero: bool = False) -> None:
    """Raise Refusal unless `low <= value <= high`, or 0 where that is said."""
    if not low <= value <= high and not (or_zero and value == 0):
        zero = "0 or " if or_zero and low > 1 else ""
        lowest = 0 if or_zero and low == 1 else low
        raise refuse(place, f"is {value}, not {zero}from {lowest} to {high}")


def at_most(place: str, items: Sequence[object] | Mapping[str, object], most: int) -> None:
    """Raise Refusal for more entries than that."""
    if len(items) > most:
        raise refuse(place, f"has {len(items)} entries, at most {most} are allowed")


def check_text(place: str, text: str, most: int | None = None) -> None:
    """Refuse what no process could be given, and what has more bytes than `most`."""
    length = utf8_length(text)
    if length is None or "\0" in text:
        raise refuse(place, "holds a NUL or half a surrogate pair; write plain Unicode text")
    if most is not None and length > most:
        raise refuse(place, f"has {length} bytes, at most {most} are allowed")


def check_path(
    place: str, path: str, most: int = MAX_PATH, *, may_have_backslash: bool = False
) -> None:
    """A path below the task's folder, in one way of writing only."""
    check_text(place, path, most)
    parts = re.split(r"[/\\]", path)
    is_odd = not {"", ".", ".."}.isdisjoint(parts) or re.match(r"[A-Za-z]:", path)
    if is_odd or ("\\" in path and not may_have_backslash):
        raise refuse(place, f'"{path[:80]}" is not a plain path below the task\'s folder, as a/b')


def check_env_keys(place: str, names: Iterable[str]) -> None:
    """Names of environment variables."""
    keys = list(names)
    if len(keys) > MAX_ENV_KEYS:
        raise refuse(place, f"has {len(keys)} keys, at most {MAX_ENV_KEYS} are allowed")
    for key in keys:
        if not _ENV_KEY.fullmatch(key) or len(key) > MAX_ENV_KEY:
            raise refuse(
                f"{place}/{pointer(key)}",
                f"is no variable name; use at most {MAX_ENV_KEY} letters, digits and _",
            )


def overlaps(one: str, other: str) -> bool:
    """Is one of two plain paths the other, or inside it?"""
    first, second = one.split("/"), other.split("/")
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def pointer(key: str) -> str:
    """A key as a part of a JSON pointer, cut to what is worth showing."""
    return key[:80].replace("~", "~0").replace("/", "~1")


def _check_command(place: str, command: Sequence[str]) -> None:
    if not 1 <= len(command) <= MAX_ARGUMENTS:
        raise refuse(place, f"has {len(command)} strings, not from 1 to {MAX_ARGUMENTS}")
    if not command[0]:
        raise refuse(f"{place}/0", "is empty; the first string is the program")
    for index, word in enumerate(command):
        check_text(f"{place}/{index}", word)


def _check_env(place: str, slice_: Slice) -> None:
    check_env_keys(f"{place}/env", slice_.env)
    for key, value in slice_.env.items():
        check_text(f"{place}/env/{key}", value, MAX_ENV_VALUE)
    check_env_keys(f"{place}/env_prefixes", slice_.env_prefixes)
    for key, paths in slice_.env_prefixes.items():
        here = f"{place}/env_prefixes/{key}"
        if not paths:
            raise refuse(here, "has no paths; give at least one or leave it out")
        for index, path in enumerate(paths):
            check_path(f"{here}/{index}", path, MAX_ENV_VALUE)


def _check_times(place: str, slice_: Slice, min_timeout_s: int, *, may_be_unlimited: bool) -> None:
    within(f"{place}/expiration_s", slice_.expiration_s, MIN_EXPIRATION_S, MAX_EXPIRATION_S)
    within(
        f"{place}/hard_timeout_s",
        slice_.hard_timeout_s,
        min_timeout_s,
        MAX_TIMEOUT_S,
        or_zero=may_be_unlimited,
    )
    within(f"{place}/io_timeout_s", slice_.io_timeout_s, min_timeout_s, MAX_TIMEOUT_S, or_zero=True)
    within(f"{place}/grace_period_s", slice_.grace_period_s, 0, MAX_GRACE_S)


def _check_caches(place: str, caches: Sequence[NamedCache]) -> None:
    at_most(place, caches, MAX_CACHES)
    for index, cache in enumerate(caches):
        here = f"{place}/{index}"
        if len(cache.name) > MAX_CACHE_NAME or not _CACHE_NAME.fullmatch(cache.name):
            raise refuse(f"{here}/name", f"is not 1 to {MAX_CACHE_NAME} of a-z, 0-9 and _")
        check_path(f"{here}/path", cache.path)
        for earlier in caches[:index]:
            if earlier.name == cache.name:
                raise refuse(f"{here}/name", f'"{cache.name}" is there twice')
            if overlaps(earlier.path, cache.path):
                said = f'"{cache.path}" overlaps "{earlier.path}" of an earlier cache'
                raise refuse(f"{here}/path", said)


def _check_packages(place: str, asked: CipdInput, caches: Sequence[NamedCache]) -> None:
    if asked.server:
        check_text(f"{place}/server", asked.server, MAX_SERVER_URL)
        problem = url_problem(asked.server, may_be_loopback_http=True)
        if problem:
            raise refuse(f"{place}/server", f"is {problem}")
    if asked.client_package is not None:
        _check_package(f"{place}/client_package", asked.client_package)
    at_most(f"{place}/packages", asked.packages, MAX_PACKAGES)
    seen: set[tuple[str | None, str | None]] = set()
    for here, package in _each(place, asked):
        _check_package(here, package)
        path = package.path or ""
        if path != _ROOT:
            check_path(f"{here}/path", path)
            for cache in caches:
                if overlaps(cache.path, path):
                    raise refuse(f"{here}/path", f'"{path}" overlaps the cache "{cache.name}"')
        if (package.package_name, path) in seen:
            raise refuse(here, "is there twice at one path")
        seen.add((package.package_name, path))


def _each(place: str, asked: CipdInput) -> Iterator[tuple[str, CipdPackage]]:
    for index, package in enumerate(asked.packages):
        yield f"{place}/packages/{index}", package


def _check_package(place: str, package: CipdPackage) -> None:
    for name in ("package_name", "version"):
        value = getattr(package, name)
        if not value:
            raise refuse(f"{place}/{name}", "is missing")
        check_text(f"{place}/{name}", value, MAX_PACKAGE_NAME)


def _check_pinned(place: str, asked: CipdInput) -> None:
    for here, package in _each(place, asked):
        if not _PINNED.fullmatch(package.version or ""):
            said = "is not pinned, as an idempotent task needs it; give a digest or a tag k:v"
            raise refuse(f"{here}/version", said)


def _check_cas(place: str, root: CasReference) -> None:
    instance, digest = root.cas_instance or "", root.digest
    if len(instance) > MAX_PATH or not _CAS_INSTANCE.fullmatch(instance):
        raise refuse(f"{place}/cas_instance", "is not projects/<project>/instances/<name>")
    if digest is None or not digest.hash:
        raise refuse(f"{place}/digest/hash", "is missing")
    check_text(f"{place}/digest/hash", digest.hash, MAX_PATH)
    if (digest.size_bytes or 0) < 0:
        raise refuse(f"{place}/digest/size_bytes", f"is {digest.size_bytes}, not 0 or more")


def _check_outputs(place: str, outputs: Sequence[str]) -> None:
    at_most(place, outputs, MAX_OUTPUTS)
    for index, path in enumerate(outputs):
        check_path(f"{place}/{index}", path, MAX_OUTPUT_PATH)


def _check_containment(place: str, slice_: Slice) -> None:
    within(f"{place}/containment_type", slice_.containment_type, 0, len(CONTAINMENT_TYPES) - 1)
    for name in ("limit_processes", "limit_total_committed_memory"):
        within(f"{place}/{name}", getattr(slice_, name), 0, 2**63 - 1)
