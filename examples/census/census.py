"""Adding shards up, the serial pass, and the comparison of both, which must be exact."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Census = Mapping[str, Any]

SHARD_SOURCE = Path(__file__).with_name("shard.py").read_text(encoding="utf-8")
DIGEST_MODULUS = 2**256
TOP_IMPORTS = 10


def shard_command(index: int, count: int, library: Path | None = None) -> list[str]:
    """The command of one shard: nothing of it must lie on the machine but Python.

    `library` is another folder to count instead of the standard library.
    """
    more = [] if library is None else [str(library.resolve())]
    return [sys.executable, "-c", SHARD_SOURCE, str(index), str(count), *more]


def parse_shard(output: bytes) -> Census:
    """The one JSON line that a shard prints; ValueError for what is no JSON."""
    found: Census = json.loads(output)
    return found


def add_up(shards: Iterable[Census]) -> Census:
    """The sum of all shards, in any order."""
    total: dict[str, Any] = {}
    for shard in shards:
        for name, value in shard.items():
            total[name] = _add(total[name], value) if name in total else value
    return {name: _sorted(value) for name, value in total.items()}


def serial_pass(library: Path | None = None) -> Census:
    """The whole census by one child process."""
    done = subprocess.run(shard_command(0, 1, library), stdout=subprocess.PIPE, check=True)
    return parse_shard(done.stdout)


def differences(left: Census, right: Census, place: str = "") -> list[str]:
    """Every value in which two censuses differ, a line each; none when they agree exactly."""
    lines = []
    for name in sorted({*left, *right}):
        one, other = left.get(name), right.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += differences(one, other, f"{place}{name}.")
        elif one != other:
            lines.append(f"{place}{name}: {one} and {other}")
    return lines


def top_imports(census: Census) -> list[tuple[str, int]]:
    """The modules that are imported most, most first, names breaking ties."""
    found: Mapping[str, int] = census["imports"]
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP_IMPORTS]


def _add(one: Any, other: Any) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(one, Mapping):
        return dict(Counter(one) + Counter(other))
    if isinstance(one, str):  # the digest: a number of 64 hexadecimal digits
        return f"{(int(one, 16) + int(other, 16)) % DIGEST_MODULUS:064x}"
    return one + other


def _sorted(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    return dict(sorted(value.items())) if isinstance(value, Mapping) else value
