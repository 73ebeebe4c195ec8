"""Inputs, outputs and named caches through a real server and a real bot."""

import hashlib
import sys
import urllib.request

import pytest

from botapi.domain.cas import (
    INSTANCE,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    SymlinkNode,
    encode,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e-files")]


def put(fleet, content: bytes) -> Digest:
    digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
    headers = {"Authorization": f"Bearer {fleet.api.key}"}
    request = urllib.request.Request(
        f"{fleet.api.url}/api/v1/blobs/{digest}", content, headers, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status in {200, 201}
    return digest


def reference(digest: Digest) -> dict:
    return {
        "cas_instance": INSTANCE,
        "digest": {"hash": digest.hash, "size_bytes": digest.size},
    }


def python(script: str) -> list[str]:
    return [sys.executable, "-u", "-c", script]


def submit(fleet, script: str, **more):
    slice_ = {"command": python(script), **more}
    return fleet.api.post("/tasks", {"slices": [slice_], "name": "files"})["task_id"]


def fetch(fleet, path: str) -> bytes:
    return fleet.api.send("GET", f"/api/v1{path}")[0]


def test_task_reads_its_inputs_and_leaves_outputs(fleet):
    below = encode(Directory((FileNode("b.txt", put(fleet, b"below"), True),)))
    root = Directory(
        (FileNode("a.txt", put(fleet, b"hello")),),
        (DirectoryNode("sub", put(fleet, below)),),
        (SymlinkNode("link", "sub/b.txt"),),
    )
    script = """
import os, pathlib
assert os.access("sub/b.txt", os.X_OK) and not os.access("a.txt", os.X_OK)
text = pathlib.Path("a.txt").read_text() + pathlib.Path("link").read_text()
os.makedirs("made/deep")
pathlib.Path("made/deep/out.txt").write_text(text)
pathlib.Path("made/run.sh").write_text("x"); os.chmod("made/run.sh", 0o755)
os.symlink("deep/out.txt", "made/good"); os.symlink("/etc/passwd", "made/bad")
pathlib.Path(os.environ["OUT"], "direct").write_bytes(b"")
"""
    task_id = submit(
        fleet,
        script,
        cas_input_root=reference(put(fleet, encode(root))),
        outputs=["made", "missing/one"],
        env={"OUT": "${ISOLATED_OUTDIR}"},
    )
    task = fleet.api.until(task_id, "COMPLETED")
    assert task["exit_code"] == 0, fleet.api.output(task_id)
    items = fleet.api.get(f"/tasks/{task_id}/outputs")["items"]
    assert [item["path"] for item in items] == ["direct", "made/deep/out.txt", "made/good", "made/run.sh"]
    assert fetch(fleet, f"/tasks/{task_id}/outputs/made/deep/out.txt") == b"hellobelow"
    assert b"made/bad" in fleet.api.output(task_id)
    stats = task["performance"]["isolated"]
    assert stats["download"]["items_cold"] and stats["upload"]["items_cold"]
