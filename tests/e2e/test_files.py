"""Inputs, outputs and named caches through a real server and a real bot."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

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
from tests.e2e.fleet import kill, wait_until

ENDED = ("KILLED", "BOT_DIED", "COMPLETED", "CANCELED", "CLIENT_ERROR")

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


@pytest.mark.spec("4.4.1.13", "4.4.1.15", "5.1.1.12", "5.1.1.17")
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
    assert [item["path"] for item in items] == [
        "direct",
        "made/deep/out.txt",
        "made/good",
        "made/run.sh",
    ]
    assert fetch(fleet, f"/tasks/{task_id}/outputs/made/deep/out.txt") == b"hellobelow"
    assert b"made/bad" in fleet.api.output(task_id)
    stats = task["performance"]["isolated"]
    assert stats["download"]["items_cold"]
    assert stats["upload"]["items_cold"]


def in_pool_of(bot):
    return {"dimensions": {"id": [bot.bot_id], "pool": ["default"]}}


@pytest.mark.spec("4.4.1.12")
def test_named_cache_is_kept_over_tasks_and_a_kill_of_the_bot(fleet):
    bot = fleet.bots["bot1"]
    more = {"caches": [{"name": "git", "path": "cache/git"}], **in_pool_of(bot)}
    first = submit(fleet, "open('cache/git/a', 'w').write('kept')", **more)
    fleet.api.until(first, "COMPLETED")
    held = submit(
        fleet, "import time; print(open('cache/git/a').read(), flush=True); time.sleep(600)", **more
    )
    wait_until("the cache is out", lambda: fleet.api.output(held) == b"kept\n")
    kill(bot.supervisor)
    assert fleet.api.until(held, *ENDED, limit_s=90)["state"] == "BOT_DIED"
    last = submit(fleet, "print(open('cache/git/a').read())", **more)
    assert fleet.api.until(last, "COMPLETED", limit_s=90)["exit_code"] == 0
    assert fleet.api.output(last) == b"kept\n"
    wait_until(
        "the bot names its cache",
        lambda: fleet.api.bot("bot1")["dimensions"].get("caches") == ["git"],
    )
    assert [name for name in fleet.api.bot("bot1")["state"]["named_caches"]] == ["git"]
    assert not list(bot.home.glob("w*"))


def test_killed_task_leaves_its_cache_and_no_folder(fleet):
    bot = fleet.bots["bot2"]
    more = {"caches": [{"name": "npm", "path": "c"}], **in_pool_of(bot)}
    task_id = submit(
        fleet, "open('c/a', 'w').close(); print(1); import time; time.sleep(600)", **more
    )
    wait_until("it runs", lambda: fleet.api.output(task_id) == b"1\n")
    fleet.api.post(f"/tasks/{task_id}/cancel", {"kill_running": True})
    assert fleet.api.until(task_id, *ENDED)["state"] == "KILLED"
    wait_until("nothing is left", lambda: not list(bot.home.glob("w*")))
    assert [p.name for p in bot.home.glob("c/??/*")] == ["a"]


@pytest.mark.spec("5.7.1.4", "5.5.2.9")
def test_missing_input_is_a_client_error(fleet):
    gone = Digest.of(b"never uploaded")
    task_id = submit(fleet, "1", cas_input_root=reference(gone))
    task = fleet.api.until(task_id, "CLIENT_ERROR")
    assert task["missing_cas"] == [reference(gone)]


def test_inputs_of_another_store_end_in_a_clear_error(fleet):
    other = reference(Digest.of(b"x")) | {"cas_instance": "projects/other/instances/default"}
    task = fleet.api.until(submit(fleet, "1", cas_input_root=other), "BOT_DIED")
    assert "projects/other/instances/default" in task["error"]


def test_input_tree_that_leads_out_is_refused(fleet):
    root = put(fleet, encode(Directory((), (), (SymlinkNode("a", "../../x"),))))
    task = fleet.api.until(submit(fleet, "1", cas_input_root=reference(root)), "COMPLETED")
    assert task["exit_code"] == 1
    assert b"leads out" in fleet.api.output(task["task_id"])


def peak_kib(pid: int) -> int:
    (line,) = [line for line in status(pid) if line.startswith("VmHWM")]
    return int(line.split()[1])


def status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def test_100_mb_go_through_in_little_memory(fleet, tmp_path):
    """Written and read by the command line, moved by server and bot: nobody holds it whole."""
    source = tmp_path / "in"
    source.mkdir()
    with (source / "big").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))
    pids = [*fleet.server.workers(), *(bot.supervisor for bot in fleet.bots.values())]
    before = {pid: peak_kib(pid) for pid in pids}
    done = fleet.cli("cas", "put", str(source), limit_s=120)
    assert done.returncode == 0, done
    root = Digest.parse(done.stdout.decode().strip())
    script = "import os; os.rename('big', 'out'); open('out', 'r+b').write(b'changed')"
    task_id = submit(fleet, script, cas_input_root=reference(root), outputs=["out"])
    assert fleet.api.until(task_id, "COMPLETED", limit_s=120)["exit_code"] == 0
    there = tmp_path / "out"
    tree = fleet.api.get(f"/tasks/{task_id}/outputs")["root"]
    assert fleet.cli("cas", "get", tree, str(there), limit_s=120).returncode == 0
    grown = {pid: peak_kib(pid) - before[pid] for pid in pids}
    assert max(grown.values()) < 40 * 1024, grown
    with (there / "out").open("rb") as file:
        assert file.read(7) == b"changed"
    assert (there / "out").stat().st_size == 100 << 20


def test_server_killed_during_an_upload_keeps_whole_blobs_only(fleet):
    content = os.urandom(8 << 20)
    digest = Digest.of(content)
    address = fleet.api.url.removeprefix("http://")
    with closing(http.client.HTTPConnection(address, timeout=30)) as ours:
        ours.putrequest("PUT", f"/api/v1/blobs/{digest}")
        ours.putheader("Authorization", f"Bearer {fleet.api.key}")
        ours.putheader("Content-Length", str(len(content)))
        ours.endheaders()
        ours.send(content[: 5 << 20])
        half = fleet.server.data / "blobs" / "new"
        wait_until("half of it is there", lambda: any(p.stat().st_size for p in half.iterdir()))
        fleet.server.kill_worker()
    wait_until("the server is back", fleet.server.is_ready)
    ask = lambda: fleet.api.post("/blobs/missing", {"digests": [str(digest)]})  # noqa: E731
    assert wait_until("an answer", ask)["missing"] == [str(digest)]
    assert put(fleet, content) == digest
    assert fetch(fleet, f"/blobs/{digest}") == content


def test_bot_uploads_again_when_the_server_is_killed_meanwhile(fleet):
    script = "import os; open('out', 'wb').write(os.urandom(1 << 20) * 64)"
    task_id = submit(fleet, script, outputs=["out"])
    folder = fleet.server.data / "blobs" / "new"
    before, kills = {p.name for p in folder.glob("*")}, fleet.server.kills()

    def uploading():
        return {p.name for p in folder.glob("*")} - before

    wait_until(
        "an upload",
        lambda: uploading() or fleet.api.task(task_id)["state"] == "COMPLETED",
        60,
        0.01,
    )
    fleet.server.kill_worker()
    task = fleet.api.until(task_id, "COMPLETED", limit_s=120)
    (item,) = fleet.api.get(f"/tasks/{task_id}/outputs")["items"]
    assert fleet.server.kills() > kills
    assert (task["exit_code"], item["size"]) == (0, 64 << 20)


def test_full_store_fails_the_task_in_words_and_nothing_else(fleet):
    """The bot tries for minutes, since space may come back; the budget is said to people."""
    digest = Digest.of(b"x" * 100)
    other = fleet.add_server(SKEP_BLOBS_MAX="50")
    other.start()
    headers = {"Authorization": f"Bearer {fleet.api.key}"}
    request = urllib.request.Request(
        f"{other.url}/api/v1/blobs/{digest}", b"x" * 100, headers, method="PUT"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        assert answer.code == 503
        assert "SKEP_BLOBS_MAX" in answer.read().decode()
    other.end()
