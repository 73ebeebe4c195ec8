"""Reading transcripts, filling in what was bound, and comparing; README.md has the language."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PLACEHOLDER = re.compile(r"<([A-Za-z0-9]+)>")
SESSION = re.compile(r"T\d+")
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
Names = dict[str, str]
"""What the placeholders in upper case stand for in this replay."""


def names() -> list[str]:
    """Every transcript, without `.jsonl`, in the order of the protocol page."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def read(name: str) -> Iterator[dict[str, Any]]:
    """The exchanges of a transcript, after those of the one that it continues."""
    for text in (FOLDER / f"{name}.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "continues" in line:
            yield from read(line["continues"].removesuffix(".jsonl"))
        else:
            yield {**line, "file": name}


def fill(value: Any, bound: Mapping[str, str]) -> Any:
    """The value with every bound name put in. KeyError for a name that nothing bound yet."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: bound[found[1]], value)
    if isinstance(value, list):
        return [fill(item, bound) for item in value]
    if isinstance(value, dict):
        return {fill(key, bound): fill(item, bound) for key, item in value.items()}
    return value


def differences(expected: Any, found: Any, bound: Names, where: str = "") -> list[str]:
    """Where `found` is not as `expected`; binds the names that are met first here.

    Objects must have the same keys, numbers and booleans the same type.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        missing = [f"{where}.{key}: missing" for key in expected.keys() - found.keys()]
        more = [f"{where}.{key}: not expected" for key in found.keys() - expected.keys()]
        both = [key for key in expected if key in found]
        wrong = [differences(expected[key], found[key], bound, f"{where}.{key}") for key in both]
        return missing + more + [line for lines in wrong for line in lines]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        wrong = [differences(a, b, bound, f"{where}[{place}]") for place, (a, b) in pairs]
        return [line for lines in wrong for line in lines]
    if isinstance(expected, str) and PLACEHOLDER.search(expected):
        return [] if _fits(expected, found, bound) else [_unlike(where, expected, found, bound)]
    is_same = type(expected) is type(found) and expected == found
    return [] if is_same else [_unlike(where, expected, found, bound)]


def _unlike(where: str, expected: Any, found: Any, bound: Names) -> str:
    return f"{where}: {found!r} is not {expected!r} ({ {k: v[:70] for k, v in bound.items()} })"


def _fits(expected: str, found: Any, bound: Names) -> bool:
    if expected == "<any>":
        return found is not None
    if expected == "<number>":
        return isinstance(found, int | float) and not isinstance(found, bool)
    if not isinstance(found, str):
        return False
    new: list[str] = []
    pattern, end = "", 0
    for place in PLACEHOLDER.finditer(expected):
        pattern += re.escape(expected[end : place.start()]) + _pattern(place[1], bound, new)
        end = place.end()
    match = re.fullmatch(pattern + re.escape(expected[end:]), found, re.DOTALL)
    if match is None:
        return False
    bound.update(zip(new, match.groups(), strict=True))
    return True


def _pattern(name: str, bound: Names, new: list[str]) -> str:
    """What a placeholder stands for; a name that is met first is added to `new`."""
    if name in bound:
        return re.escape(bound[name])
    known = {"any": ".*", "text": ".+", "digest": "[0-9a-f]{64}"}
    if name in known:
        return known[name]
    new.append(name)
    return f"({BASE64.pattern})" if SESSION.fullmatch(name) else "([^/?]+)"
