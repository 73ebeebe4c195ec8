"""Both engines: whole or not at all, touched or gone, full and said so."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from botapi.blobs.bucket import TOUCH_AGAIN_MS, BucketBlobs
from botapi.blobs.disk import DiskBlobs
from botapi.blobs.protocol import BadContent, Usage, read_all
from botapi.domain.cas import Digest, MissingBlob
from botapi.store.protocol import Outage, StoreFull
from tests.fakes.clock import FakeClock
from tests.fakes.worker import run_patched

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of the emulator
]

A = Digest.of(b"hello")
DAY_MS = 86_400_000


def put_all(store, content):
    digest = Digest.of(content)
    upload = store.upload(digest)
    try:
        upload.write(content)
        upload.commit()
    finally:
        upload.abort()
    return digest


@pytest.fixture(scope="module")
def emulator():
    from gcp_storage_emulator.server import create_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    old = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
    yield server
    server.stop()
    if old is None:
        del os.environ["STORAGE_EMULATOR_HOST"]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=["disk", "bucket"])
def blobs(request, tmp_path, clock):
    if request.param == "disk":
        return DiskBlobs(tmp_path / "blobs", 0, clock)
    server = request.getfixturevalue("emulator")
    server.wipe(keep_buckets=True)
    return BucketBlobs("gs://bucket/some/place", clock)


def sweep(blobs, before_ms):
    parts = {int(Digest.of(content).hash[:2], 16) for content in (b"hello", b"old")}
    found = [blobs.sweep(part, before_ms) for part in parts]
    return sum(swept.deleted.blobs for swept in found)


def test_blob_is_read_whole_and_in_parts_when_it_was_put(blobs):
    assert put_all(blobs, b"hello") == A
    assert read_all(blobs, A) == b"hello"
    assert b"".join(blobs.read(A, 1, 3)) == b"ell"


def test_missing_names_what_is_not_here_in_this_size(blobs):
    put_all(blobs, b"hello")
    other = Digest(A.hash, A.size + 1)
    assert blobs.missing([A, Digest.of(b"x"), other]) == [Digest.of(b"x"), other]
    for gone in (Digest.of(b"x"), other):
        with pytest.raises(MissingBlob):
            blobs.read(gone, 0, 1)


@pytest.mark.parametrize("content", [b"", b"hell", b"hello!", b"HELLO"])
def test_other_bytes_are_refused_and_nothing_is_kept(blobs, content):
    upload = blobs.upload(A)
    with pytest.raises(BadContent):
        _ = upload.write(content) or upload.commit()
    upload.abort()
    assert blobs.missing([A]) == [A]


def test_second_upload_of_the_same_is_not_new(blobs):
    news = []
    for _ in range(2):
        upload = blobs.upload(A)
        upload.write(b"hello")
        news.append(upload.commit())
        upload.abort()
    assert news == [True, False]


def test_sweep_deletes_what_is_old_and_keeps_what_was_touched(blobs, clock):
    put_all(blobs, b"old")
    put_all(blobs, b"hello")
    clock.advance(10 * 86_400)
    assert blobs.missing([A]) == []
    assert sweep(blobs, clock.now_ms() - DAY_MS) == 1
    assert blobs.missing([A, Digest.of(b"old")]) == [Digest.of(b"old")]


def test_delete_says_whether_it_was_there(blobs):
    put_all(blobs, b"hello")
    assert (blobs.delete(A), blobs.delete(A)) == (True, False)


def test_touch_between_look_and_deletion_saves_the_blob(tmp_path, clock):
    """The sweep has seen an old file; before it deletes, somebody is told that it is here."""
    blobs = DiskBlobs(tmp_path / "blobs", 0, clock)
    put_all(blobs, b"hello")
    (entry,) = os.scandir(tmp_path / "blobs" / A.hash[:2])
    entry.stat()
    clock.advance(10 * 86_400)
    assert blobs.missing([A]) == []
    assert blobs._delete_if_old(entry, clock.now_ms() - DAY_MS) is False
    assert read_all(blobs, A) == b"hello"


def seen(blobs):
    return blobs._bucket.get_blob(f"p/{A.hash[:2]}/{A.hash}").metageneration


def test_bucket_deletes_only_what_it_has_seen(emulator, clock, monkeypatch):
    """The emulator knows no preconditions, so this holds what the bucket is asked."""
    emulator.wipe(keep_buckets=True)
    blobs = BucketBlobs("gs://bucket/p", clock)
    put_all(blobs, b"hello")
    from google.cloud.storage import Blob

    asked = []
    monkeypatch.setattr(Blob, "delete", lambda _self, **more: asked.append(more))
    clock.advance(10 * 86_400)
    assert sweep(blobs, clock.now_ms()) == 1
    assert [more["if_metageneration_match"] for more in asked] == [seen(blobs)]


def test_bucket_touch_is_written_once_in_a_while(emulator, clock, monkeypatch):
    emulator.wipe(keep_buckets=True)
    blobs = BucketBlobs("gs://bucket/p", clock)
    put_all(blobs, b"hello")
    from google.cloud.storage import Blob

    patched = []
    monkeypatch.setattr(Blob, "patch", lambda _self, **more: patched.append(more))
    assert blobs.missing([A]) == []
    assert patched == []
    clock.advance(TOUCH_AGAIN_MS / 1000)
    assert blobs.missing([A]) == []
    assert len(patched) == 1
    assert patched[0]["if_metageneration_match"] == seen(blobs)


def test_bucket_that_cannot_be_reached_is_an_outage(emulator, clock, monkeypatch):
    blobs = BucketBlobs("gs://bucket/p", clock)
    from google.cloud.storage import Bucket

    def get_blob(_self, _name, timeout):
        raise ConnectionError("no route")

    monkeypatch.setattr(Bucket, "get_blob", get_blob)
    with pytest.raises(Outage, match="no route"):
        blobs.read(A, 0, 1)


def test_budget_is_held_and_said(tmp_path, clock):
    blobs = DiskBlobs(tmp_path / "blobs", 8, clock)
    put_all(blobs, b"hello")
    with pytest.raises(StoreFull, match=r"5 of 8 bytes \(SKEP_BLOBS_MAX\)"):
        blobs.upload(Digest.of(b"1234"))
    blobs.delete(A)
    put_all(blobs, b"12345678")


def test_sweep_puts_a_wrong_count_right(tmp_path, clock):
    blobs = DiskBlobs(tmp_path / "blobs", 8, clock)
    put_all(blobs, b"hello")
    (tmp_path / "blobs" / "usage").write_text("999")
    swept = [blobs.sweep(part, 0) for part in range(256)]
    blobs.note_usage(Usage(1, sum(s.kept.size_bytes for s in swept)))
    blobs.upload(Digest.of(b"123")).abort()


CHILD = """
import sys
from pathlib import Path
from botapi.blobs.disk import DiskBlobs
from botapi.clock import SystemClock
from botapi.domain.cas import Digest
upload = DiskBlobs(Path(sys.argv[1]), 0, SystemClock()).upload(Digest.of(b"hello"))
upload.write(b"hel")
print("half", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_process_killed_in_the_middle_leaves_no_half_blob(tmp_path, clock):
    folder = tmp_path / "blobs"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    blobs = DiskBlobs(folder, 0, clock)
    assert blobs.missing([A]) == [A]
    assert len(list((folder / "new").iterdir())) == 1
    clock.advance(1e9)
    blobs.sweep(0, 0)
    assert list((folder / "new").iterdir()) == []
    assert put_all(blobs, b"hello") == A


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_full_disk_is_said_and_keeps_nothing(tmp_path, clock):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("no mount here")
    try:
        blobs = DiskBlobs(folder / "blobs", 0, clock)
        put_all(blobs, b"hello")
        content = os.urandom(3 << 20)
        with pytest.raises(StoreFull, match="No space left"):
            put_all(blobs, content)
        assert blobs.missing([Digest.of(content)]) == [Digest.of(content)]
        assert list((folder / "blobs" / "new").iterdir()) == []
        assert read_all(blobs, A) == b"hello"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_many_at_once_put_the_same_blob_and_count_it_once(tmp_path, clock):
    blobs = DiskBlobs(tmp_path / "blobs", 0, clock)
    threads = [threading.Thread(target=put_all, args=(blobs, b"hello")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int((tmp_path / "blobs" / "usage").read_text()) == 5
    assert sorted(p.name for p in (tmp_path / "blobs" / "new").iterdir()) == []


CALLERS = """\
import hashlib
from botapi.blobs.bucket import BucketBlobs
from botapi.clock import SystemClock
from botapi.domain.cas import Digest

blobs = BucketBlobs("gs://bucket/many", SystemClock())

def call(number):
    content = b"content %d" % number * 1000
    digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
    outside = greenlets.outside
    assert outside(lambda: blobs.missing([digest])) == [digest]
    upload = outside(lambda: blobs.upload(digest))
    outside(lambda: upload.write(content))
    outside(upload.commit)
    assert outside(lambda: b"".join(blobs.read(digest, 0, len(content)))) == content
    done.append(number)

for number in range(24):
    greenlets.spawn(call, number)
while len(done) < 24:
    greenlets.sleep(0.01)
"""


@pytest.mark.slow
def test_bucket_serves_many_callers_of_a_worker_at_once(emulator, tmp_path):
    """Its connections wander between the threads that ask it, each with a loop of its own."""
    ended = run_patched(CALLERS, tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
