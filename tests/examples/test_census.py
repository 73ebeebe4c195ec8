"""The census: any sharding adds up to the serial pass, exactly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.census import census, shard

FILES = {
    "a.py": "import os, sys\nfrom json import loads\n",
    "b/__init__.py": "from . import c\n",
    "b/c.py": "class A:\n    async def f(self): ...\n    def g(self): ...\n",
    "b/d.py": "import os.path\nfrom os import path as p\n",
    "b/bad.py": "def (:\n",
    "e.py": "",
    "null.py": "x = '\0'\n",
    "é.py": "# coding: utf-8\nx = 'é'\n",
    "site-packages/foreign.py": "import foreign\n",
    "notes.txt": "import no\n",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for path, text in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_serial_pass_counts_what_is_there(library):
    found = shard.count_shard(str(library), 0, 1)
    counts = {name: found[name] for name in ("modules", "skipped", "functions", "classes")}
    assert counts == {"modules": 6, "skipped": 2, "functions": 2, "classes": 1}
    assert found["imports"] == {"json": 1, "os": 3, "sys": 1}
    assert found["nodes"] == sum(found["nodes_by_kind"].values())


@pytest.mark.slow
@given(count=st.integers(1, 20), order=st.randoms(use_true_random=False))
def test_any_shards_in_any_order_add_up_to_the_serial_pass(library, count, order):
    shards = [shard.count_shard(str(library), index, count) for index in range(count)]
    order.shuffle(shards)
    serial = shard.count_shard(str(library), 0, 1)
    assert census.add_up(shards) == serial
    assert census.differences(census.add_up(shards), serial) == []


def test_lost_or_doubled_shard_is_a_difference(library):
    shards = [shard.count_shard(str(library), index, 3) for index in range(3)]
    serial = shard.count_shard(str(library), 0, 1)
    lost = census.differences(census.add_up(shards[:2]), serial)
    doubled = census.differences(census.add_up([*shards, shards[0]]), serial)
    assert any(line.startswith("digest:") for line in lost)
    assert any(line.startswith("imports.") for line in doubled)


def test_shard_runs_from_its_source_alone(library):
    command = census.shard_command(1, 2)
    done = subprocess.run([*command, str(library)], capture_output=True, check=True)
    assert command[0] == sys.executable
    assert done.stdout.count(b"\n") == 1
    assert census.parse_shard(done.stdout) == json.loads(
        json.dumps(shard.count_shard(str(library), 1, 2))
    )


def test_module_files_are_those_of_the_library_in_a_stable_order(library):
    expected = sorted(path for path in FILES if path.endswith(".py") and "site" not in path)
    assert shard.module_files(str(library)) == expected


def test_top_imports_are_most_first_and_names_break_ties():
    assert census.top_imports({"imports": {"b": 1, "a": 1, "c": 2}}) == [
        ("c", 2),
        ("a", 1),
        ("b", 1),
    ]
