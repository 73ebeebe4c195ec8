"""Count one shard of the standard library: `shard.py INDEX COUNT [FOLDER]`.

Parses every module file whose place in the sorted list is INDEX modulo COUNT, and prints one
line of JSON. The standard library only: the source of this file is the task's command, so that
nothing of it must lie on the bot. Every value is a sum, so shards add up in any order.
"""

import ast
import collections
import hashlib
import json
import os
import sys
import sysconfig
import warnings
from typing import Any

FOREIGN = ("site-packages", "dist-packages", "__pycache__")
DIGEST_MODULUS = 2**256


def module_files(folder: str) -> list[str]:
    """Paths of all .py files below the folder, relative, with slashes, sorted."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in FOREIGN]
        paths = (os.path.join(place, name) for name in names if name.endswith(".py"))
        found.extend(os.path.relpath(path, folder).replace(os.sep, "/") for path in paths)
    return sorted(found)


def count_shard(folder: str, index: int, count: int) -> dict[str, Any]:
    """The sums of one shard; files that do not parse (test data) are only counted."""
    sums: collections.Counter[str] = collections.Counter()
    imports: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[type] = collections.Counter()
    digest = 0
    for path in module_files(folder)[index::count]:
        with open(os.path.join(folder, path), "rb") as file:
            source = file.read()
        digest += int.from_bytes(hashlib.sha256(path.encode() + b"\0" + source).digest(), "big")
        tree = parse(source)
        if tree is None:
            sums["skipped"] += 1
            continue
        sums.update(modules=1, bytes=len(source), lines=len(source.splitlines()))
        nodes = list(ast.walk(tree))
        kinds.update(map(type, nodes))
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imports.update(imported(node))
    by_kind = {kind.__name__: number for kind, number in kinds.items()}
    sums["functions"] = kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef]
    sums["classes"] = kinds[ast.ClassDef]
    sums["nodes"] = kinds.total()
    names = ("modules", "skipped", "lines", "bytes", "functions", "classes", "nodes")
    return {
        **{name: sums[name] for name in names},
        "imports": dict(sorted(imports.items())),
        "nodes_by_kind": dict(sorted(by_kind.items())),
        "digest": f"{digest % DIGEST_MODULUS:064x}",
    }


def parse(source: bytes) -> ast.Module | None:
    """The syntax tree, or None for what this interpreter refuses."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Top-level names of the modules that an import statement names; none for relative ones."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if node.level or not node.module:
        return []
    return [node.module.partition(".")[0]]


def main(arguments: list[str]) -> None:
    """Print the shard that the arguments name."""
    warnings.simplefilter("ignore")  # about the modules' own escapes and comparisons
    index, count = int(arguments[0]), int(arguments[1])
    folder = arguments[2] if len(arguments) > 2 else sysconfig.get_path("stdlib")
    print(json.dumps(count_shard(folder, index, count)))


if __name__ == "__main__":
    main(sys.argv[1:])
