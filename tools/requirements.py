"""requirements.txt, cut out of requirements.lock: `python -m tools.requirements [check]`.

For App Engine and containers: what skep needs with every engine and the bucket, each package at
the version and with the hashes of the lock.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("bucket", "datastore", "postgresql")
TARGET = ROOT / "requirements.txt"
HEAD = """\
# What App Engine and the container install (docs/deploy): cut out of requirements.lock by
# `python -m tools.requirements`; a test fails when it is stale.
"""
_NAME = re.compile(r"([A-Za-z0-9._-]+)")


def normal(name: str) -> str:
    """A package's name as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def blocks() -> dict[str, tuple[str, set[str]]]:
    """Of each package in the lock: its lines without comments, and who needs it."""
    found: dict[str, tuple[str, set[str]]] = {}
    text = (ROOT / "requirements.lock").read_text()
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        lines = block.splitlines()
        said = [line for line in lines if not line.lstrip().startswith("#")]
        names = [line.strip(" #").removeprefix("via").strip() for line in lines if "#" in line]
        parents = {normal(match[1]) for name in names if (match := _NAME.match(name))}
        found[normal(said[0].partition("==")[0])] = ("\n".join(said) + "\n", parents)
    return found


def wanted() -> set[str]:
    """The names that pyproject.toml itself gives."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    given = list(project["dependencies"])
    for extra in EXTRAS:
        given += project["optional-dependencies"][extra]
    return {normal(match[1]) for text in given if (match := _NAME.match(text))}


def render() -> str:
    """The whole file."""
    known, members = blocks(), wanted()
    while more := {name for name, (_, of) in known.items() if of & members} - members:
        members |= more
    return HEAD + "".join(known[name][0] for name in sorted(members))


def main() -> None:
    """Write the file, or with `check` fail when it is stale."""
    if sys.argv[1:] == ["check"]:
        if TARGET.read_text() != render():
            sys.exit("requirements.txt is stale: python -m tools.requirements")
        return
    TARGET.write_text(render())


if __name__ == "__main__":
    main()
