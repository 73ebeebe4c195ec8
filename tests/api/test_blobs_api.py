"""Blobs for people and for bots, what tasks leave behind, and what is swept away."""

import io
import tarfile
import zipfile

import pytest

from botapi.auth.access import new_api_key
from botapi.domain.cas import (
    EMPTY,
    INSTANCE,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    SymlinkNode,
    encode,
)
from botapi.domain.permissions import Role
from botapi.transactions.create_api_key import create_api_key
from tests.fakes.person import Person

A, DAY_S = Digest.of(b"hello"), 86_400
JSON = "application/json; charset=utf-8"


def put(admin, content):
    digest = Digest.of(content)
    reply = admin.call("PUT", f"/blobs/{digest}", data=content)
    assert reply.status_code in {200, 201}, reply.text
    return digest


def put_tree(admin):
    """a.txt, sub/run.sh (executable), sub/up -> ../a.txt"""
    below = Directory(
        (FileNode("run.sh", put(admin, b"#!/bin/sh"), True),),
        (),
        (SymlinkNode("up", "../a.txt"),),
    )
    folder = DirectoryNode("sub", put(admin, encode(below)))
    return put(admin, encode(Directory((FileNode("a.txt", put(admin, b"hello")),), (folder,))))


def reference(digest, instance=INSTANCE):
    return {
        "cas_instance": instance,
        "digest": {"hash": digest.hash, "size_bytes": digest.size},
    }


@pytest.fixture
def running(admin, ready_bot):
    """A running task: its id, its run id, its bot."""
    task_id = admin.submit("x")["task_id"]
    run_id = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    return task_id, run_id, ready_bot


@pytest.fixture
def finished(admin, running):
    """The id of a task that left `put_tree` behind."""
    task_id, run_id, bot = running
    bot.finish(run_id, cas_output_root=reference(put_tree(admin)))
    return task_id


def bot_blob(client, bot, method, digest, run_id, **more):
    headers = {
        "X-Skep-Session": bot.session or "",
        "X-Skep-Task": run_id,
        **more.pop("headers", {}),
    }
    return client.open(f"/skep/v1/blobs/{digest}", method=method, headers=headers, **more)


def test_blob_is_uploaded_asked_for_and_read(admin):
    assert admin.post("/blobs/missing", {"digests": [str(A), str(EMPTY)]}).json["missing"] == [
        str(A)
    ]
    assert admin.call("PUT", f"/blobs/{A}", data=b"hello").status_code == 201
    assert admin.call("PUT", f"/blobs/{A}", data=b"hello").status_code == 200
    assert admin.post("/blobs/missing", {"digests": [str(A)]}).json["missing"] == []
    reply = admin.get(f"/blobs/{A}")
    assert (reply.data, reply.headers["Content-Length"]) == (b"hello", "5")
    with admin.call("HEAD", f"/blobs/{A}") as head:
        assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", "5")
    assert admin.get(f"/blobs/{EMPTY}").data == b""


@pytest.mark.parametrize(
    ("asked", "status", "data"),
    [
        ("bytes=1-3", 206, b"ell"),
        ("bytes=3-", 206, b"lo"),
        ("bytes=-2", 206, b"lo"),
        ("bytes=0-99", 200, b"hello"),
        ("bytes=9-", 400, None),
        ("bytes=1-2,4-5", 200, b"hello"),
        ("lines=1-2", 200, b"hello"),
    ],
)
def test_part_of_a_blob_is_read(admin, asked, status, data):
    put(admin, b"hello")
    reply = admin.get(f"/blobs/{A}", headers={"Range": asked})
    assert reply.status_code == status
    if data is not None:
        assert reply.data == data


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (str(A), b"HELLO", 400),
        (str(A), b"hell", 400),
        (f"{A.hash}/6", b"hello", 400),
        (f"{A.hash.upper()}/5", b"hello", 400),
        ("..%2f..%2fetc/5", b"hello", 404),
        (f"{'0' * 64}/5", b"hello", 400),
    ],
)
def test_upload_of_other_bytes_or_names_is_refused(admin, settings, path, content, status):
    reply = admin.call("PUT", f"/blobs/{path}", data=content)
    assert reply.status_code == status, reply.text
    assert reply.json["detail"]
    files = [p for p in settings.data_dir.rglob("*") if p.is_file() and p.stat().st_size in {4, 5}]
    assert files == []


def test_blob_that_is_not_here_is_404(admin):
    assert admin.get(f"/blobs/{A}").status_code == 404
    assert admin.get(f"/trees/{A}").status_code == 404


def test_budget_that_is_used_up_is_a_503_that_says_so(admin, parts):
    parts.api.blobs.store._max_bytes = 4
    reply = admin.call("PUT", f"/blobs/{A}", data=b"hello")
    assert reply.status_code == 503
    assert "SKEP_BLOBS_MAX" in reply.json["detail"]


@pytest.mark.parametrize(
    ("role", "statuses"),
    [(Role.AUTHOR, (200, 200, 200)), (Role.VIEWER, (403, 403, 200)), (Role.BOOTSTRAP, (403,) * 3)],
)
def test_blobs_are_for_whom_tasks_are(admin, client, store, clock, rng, role, statuses):
    put(admin, b"hello")
    text, key = new_api_key("bob", role, rng, now_ms=clock.now_ms())
    create_api_key(store, key)
    bob = Person(client, text)
    with bob.get(f"/blobs/{A}") as read:
        assert statuses == (
            bob.post("/blobs/missing", {"digests": []}).status_code,
            bob.call("PUT", f"/blobs/{A}", data=b"hello").status_code,
            read.status_code,
        )


def test_tree_is_listed_in_pages(admin):
    root = put_tree(admin)
    page = admin.get(f"/trees/{root}?limit=2").json
    assert [item["path"] for item in page["items"]] == ["a.txt", "sub/run.sh"]
    assert page["items"][1]["is_executable"]
    rest = admin.get(f"/trees/{root}?limit=2&cursor={page['next_cursor']}").json
    assert rest["items"] == [{"path": "sub/up", "target": "../a.txt"}]
    assert rest["next_cursor"] is None


def test_bytes_that_are_no_tree_are_refused(admin):
    assert admin.get(f"/trees/{put(admin, b'hello')}").status_code == 400


def test_outputs_are_listed_and_downloaded_as_attachments(admin, finished):
    items = admin.get(f"/tasks/{finished}/outputs").json["items"]
    assert [item["path"] for item in items] == ["a.txt", "sub/run.sh", "sub/up"]
    reply = admin.get(f"/tasks/{finished}/outputs/sub/run.sh")
    assert reply.data == b"#!/bin/sh"
    assert reply.headers["Content-Disposition"] == "attachment; filename*=UTF-8''run.sh"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Content-Security-Policy"].startswith("sandbox")
    for path in ("sub", "sub/up", "none", "sub/run.sh/x", "../a.txt"):
        assert admin.get(f"/tasks/{finished}/outputs/{path}").status_code == 404


def test_outputs_come_as_one_file(admin, finished):
    packed = admin.get(f"/tasks/{finished}/outputs.tar").data
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {member.name: member for member in tar}
        assert tar.extractfile("a.txt").read() == b"hello"
    assert found["sub/run.sh"].mode == 0o755
    assert found["sub/up"].linkname == "../a.txt"
    packed = admin.get(f"/tasks/{finished}/outputs.zip").data
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        assert archive.read("sub/run.sh") == b"#!/bin/sh"
    assert admin.get(f"/tasks/{finished}/outputs.rar").status_code == 404


def test_outputs_that_are_gone_are_refused_before_the_first_byte(admin, parts, finished):
    parts.api.blobs.store.delete(A)
    assert admin.get(f"/tasks/{finished}/outputs.tar").status_code == 404


def test_outputs_elsewhere_or_none_are_said(admin, running):
    task_id, run_id, bot = running
    assert admin.get(f"/tasks/{task_id}/outputs").status_code == 404
    bot.finish(run_id, cas_output_root=reference(A, "projects/x/instances/y"))
    reply = admin.get(f"/tasks/{task_id}/outputs")
    assert (reply.status_code, "projects/x/instances/y" in reply.json["detail"]) == (400, True)


def test_bot_reads_and_writes_while_it_runs_a_task(admin, client, running):
    _, run_id, bot = running
    put(admin, b"hello")
    assert bot_blob(client, bot, "GET", A, run_id).data == b"hello"
    other = Digest.of(b"made")
    body = {"session": bot.session, "task_id": run_id, "digests": [str(A), str(other)]}
    asked = client.post("/skep/v1/blobs/missing", json=body, headers={"Content-Type": JSON})
    assert asked.json == {"missing": [str(other)]}
    assert bot_blob(client, bot, "PUT", other, run_id, data=b"made").status_code == 201
    assert bot_blob(client, bot, "PUT", other, run_id, data=b"MADE").status_code == 400
    assert bot_blob(client, bot, "GET", Digest.of(b"none"), run_id).status_code == 404


def test_bot_without_session_or_run_gets_no_blob(admin, client, running):
    task_id, run_id, bot = running
    put(admin, b"hello")
    assert bot_blob(client, bot, "GET", A, task_id).status_code == 400
    assert bot_blob(client, bot, "GET", A, "").status_code == 400
    none = {"X-Skep-Session": "", "X-Skep-Task": run_id}
    assert client.get(f"/skep/v1/blobs/{A}", headers=none).status_code == 401
    bot.finish(run_id)
    for named in (run_id, ""):
        assert bot_blob(client, bot, "GET", A, named).status_code == 400
    assert bot_blob(client, bot, "PUT", A, run_id, data=b"hello").status_code == 400


def test_sweep_keeps_what_kept_tasks_name_and_what_was_asked_for(admin, parts, clock, finished):
    task_inputs = put(admin, encode(Directory((FileNode("in", put(admin, b"input")),))))
    admin.submit("y", cas_input_root=reference(task_inputs))
    put(admin, b"nobody")
    put(admin, b"asked")
    clock.advance(30 * DAY_S)
    admin.post("/blobs/missing", {"digests": [str(Digest.of(b"asked"))]})
    clock.advance(3600)
    swept = parts.sweeps.blobs.sweep()
    assert swept.deleted.blobs == 1
    left = [b"nobody", b"asked", b"input", b"hello", b"#!/bin/sh"]
    asked = {"digests": [str(Digest.of(content)) for content in left]}
    assert admin.post("/blobs/missing", asked).json["missing"] == [str(Digest.of(b"nobody"))]


def test_sweep_deletes_the_files_of_tasks_that_are_gone(admin, parts, store, clock, finished):
    clock.advance((parts.settings.task_retention_days + 8) * DAY_S)
    parts.sweeps.round()
    assert admin.get(f"/tasks/{finished}").status_code == 404
    assert parts.sweeps.blobs.sweep().kept.blobs == 0


def test_sweep_of_a_process_runs_now_and_then(parts, clock):
    ran = []
    parts.sweeps.blobs.concurrency = type("Now", (), {"spawn": lambda _self, fn: ran.append(fn)})()
    sweep = parts.sweeps.blobs
    sweep.round()
    assert ran == []
    clock.advance(601)
    sweep.round()
    sweep.round()
    assert len(ran) == 1
