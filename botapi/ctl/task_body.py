"""The body of `POST /tasks` from what was given on the command line."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botapi.ctl.errors import Invalid

Json = dict[str, Any]
Pairs = Sequence[tuple[str, str]]

STDIN = "-"
DEFAULT_EXPIRATION_S = 3600
"""What a slice has when nobody says how long it may be pending (docs/api.md)."""
SLICE_KEYS = frozenset(
    {
        "command",
        "dimensions",
        "env",
        "env_prefixes",
        "relative_cwd",
        "expiration_s",
        "hard_timeout_s",
        "io_timeout_s",
        "grace_period_s",
        "wait_for_capacity",
        "idempotent",
        "caches",
        "cas_input_root",
        "outputs",
    }
)


def task_request(
    defaults: Mapping[str, str],
    command: Sequence[str],
    dimensions: Pairs = (),
    pool: str | None = None,
    optional_dimensions: Sequence[tuple[str, str, int]] = (),
    **given: Any,
) -> Json:
    """What is asked for; what was not given is left to the server, `defaults` fill the rest.

    Of `given` the pairs of `PAIRS` are brought into the form of the API.
    """
    wanted = [*dimensions, *([("pool", pool)] if pool else [])]
    body: Json = {"command": list(command), "dimensions": _grouped(wanted), **given}
    body |= {name: as_json(body[name]) for name, as_json in PAIRS.items() if body.get(name)}
    body = {name: value for name, value in body.items() if not _is_absent(value)}
    if optional_dimensions:
        body = _sliced(body, optional_dimensions)
    return {**{name: value for name, value in defaults.items() if value}, **body}


def from_file(name: str, defaults: Mapping[str, str]) -> Json:
    """The body in a file of JSON, `-` for stdin. Raises Invalid."""
    text = read_text(name)
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Invalid(f"--file {name}", f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Invalid(f"--file {name}", "is not a JSON object", "docs/api.md has its keys")
    return {**{key: value for key, value in defaults.items() if value}, **body}


def read_text(name: str) -> str:
    """The text of a file, of stdin for `-`. Raises Invalid."""
    try:
        return sys.stdin.read() if name == STDIN else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Invalid(name, reason) from error


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, (str, list, tuple, dict)) and not value)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _sliced(body: Json, optional: Sequence[tuple[str, str, int]]) -> Json:
    """One slice for each time at which optional dimensions are given up, and a last without."""
    whole = body.get("expiration_s", DEFAULT_EXPIRATION_S)
    ends = sorted({seconds for _name, _value, seconds in optional})
    if ends[-1] >= whole:
        problem = f"{ends[-1]} s leave nothing of the {whole} s that the task may be pending"
        raise Invalid("--optional-dimension", problem, "raise --expiration, or lower the seconds")
    common = {name: value for name, value in body.items() if name in SLICE_KEYS}
    slices = []
    for begin, end in zip([0, *ends], [*ends, whole], strict=True):
        extra = [(name, value) for name, value, seconds in optional if seconds >= end]
        dimensions = {**common.get("dimensions", {})}
        for name, values in _grouped(extra).items():
            dimensions[name] = [*dimensions.get(name, []), *values]
        slices.append(common | {"dimensions": dimensions, "expiration_s": end - begin})
    return {k: v for k, v in body.items() if k not in SLICE_KEYS} | {"slices": slices}


PAIRS: Mapping[str, Callable[[Pairs], object]] = {
    "env": dict,
    "env_prefixes": _grouped,
    "tags": lambda pairs: [f"{name}:{value}" for name, value in pairs],
    "caches": lambda pairs: [{"name": name, "path": path} for name, path in pairs],
    "secrets": dict,
}
"""Options that are given as pairs, and how the API writes them."""
