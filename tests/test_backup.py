"""Backups: made while others write, checked to the last byte, put back whole or not at all."""

import json
import os
import sqlite3
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from botapi.backup import backup, restore
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.secrets.key_file import make_key_file
from botapi.store.protocol import Doc
from botapi.store.sqlite import SqliteStore


@pytest.fixture
def data(tmp_path):
    """A data folder with a database, a configuration, a blob and a key file."""
    folder = tmp_path / "data"
    with_store(folder, lambda store: put(store, "task", "a", 1))
    (folder / "config" / "scripts").mkdir(parents=True)
    (folder / "config" / "bots.cfg").write_text("# fleet\n")
    (folder / "config" / "scripts" / "hooks.py").write_text("pass\n")
    (folder / "blobs" / "ab").mkdir(parents=True)
    (folder / "blobs" / "ab" / "abcd").write_bytes(b"blob" * 1000)
    make_key_file(folder / "secrets.keys", SystemRng())
    return folder


def with_store(folder, act):
    store = SqliteStore(folder, Threads(), SystemClock())
    try:
        return act(store)
    finally:
        store.close()


def put(store, kind, key, value):
    store.transact(lambda txn: txn.put(kind, Doc(key, {"n": value})), label="test")


def save(data, file, *words, code=0):
    done = CliRunner().invoke(backup, [str(file), "--data-dir", str(data), *words])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr


def bring_back(file, folder, *words, code=0):
    done = CliRunner().invoke(restore, [str(file), "--data-dir", str(folder), *words])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_restored_folder_holds_the_same(data, tmp_path):
    said = save(data, tmp_path / "b.tar")
    assert said["documents"]["task"] == 1
    new = tmp_path / "new"
    assert bring_back(tmp_path / "b.tar", new)["documents"] == said["documents"]
    assert with_store(new, lambda store: store.get("task", "a"))[0].body == {"n": 1}
    assert (new / "config" / "scripts" / "hooks.py").read_text() == "pass\n"
    assert (new / "blobs" / "ab" / "abcd").read_bytes() == b"blob" * 1000
    assert not (new / "secrets.keys").exists()


def test_key_file_comes_only_when_asked_for_and_stays_private(data, tmp_path):
    save(data, tmp_path / "b.tar", "--with-keys")
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    bring_back(tmp_path / "b.tar", tmp_path / "new")
    keys = tmp_path / "new" / "secrets.keys"
    assert keys.read_bytes() == (data / "secrets.keys").read_bytes()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o400


def test_copy_is_of_one_moment_while_others_write(data, tmp_path):
    """Each transaction writes two documents: a copy between them would tell."""
    store = SqliteStore(data, Threads(), SystemClock())
    stop, written = threading.Event(), threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1

            def work(txn, number=number):
                for key in ("left", "right"):
                    txn.put("pair", Doc(key, {"n": number, "pad": "x" * 20_000}))
                txn.put("trail", Doc(f"{number:08}", {"pad": "x" * 2_000}))

            store.transact(work, label="test")
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(10)
        for number in range(3):
            file = tmp_path / f"b{number}.tar"
            save(data, file)
            bring_back(file, tmp_path / f"new{number}")
    finally:
        stop.set()
        writer.join()
        store.close()
    for number in range(3):
        left, right, trail = with_store(
            tmp_path / f"new{number}",
            lambda s: (*s.get("pair", "left", "right"), s.scan("trail", "", "~", limit=100_000)),
        )
        assert left.body["n"] == right.body["n"] == len(trail)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9, 0.999])
def test_backup_cut_off_anywhere_is_refused_and_leaves_nothing(data, tmp_path, at):
    file = tmp_path / "b.tar"
    save(data, file)
    whole = file.read_bytes().rstrip(b"\0")
    file.write_bytes(whole[: int(len(whole) * at)])
    line = bring_back(file, tmp_path / "new", code=2)
    assert line.startswith(f"error: {file}: ")
    assert line.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["b.tar", "data"]


def test_one_flipped_byte_is_found(data, tmp_path):
    file = tmp_path / "b.tar"
    save(data, file)
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"blobblob") + 3] ^= 1
    file.write_bytes(raw)
    assert "blobs/ab/abcd is damaged" in bring_back(file, tmp_path / "new", code=2)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "config/../../evil"])
def test_member_outside_the_folder_is_refused(data, tmp_path, name):
    file = tmp_path / "b.tar"
    with tarfile.open(file, "w") as tar:
        (tmp_path / "x").write_text("x")
        tar.add(tmp_path / "x", arcname=name)
    bring_back(file, tmp_path / "deep" / "new", code=2)
    assert not any(path.name == "evil" for path in Path(tmp_path).rglob("*"))


def test_folder_with_a_database_is_left_alone(data, tmp_path):
    save(data, tmp_path / "b.tar")
    before = (data / "skep.db").read_bytes()
    assert "holds a database already" in bring_back(tmp_path / "b.tar", data, code=9)
    assert (data / "skep.db").read_bytes() == before


def test_database_that_servers_share_is_not_ours_to_save(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SKEP_STORE", "postgresql://127.0.0.1:1/none")
    said = save(data, tmp_path / "b.tar", code=2)
    assert said.startswith("error: SKEP_STORE names a database that servers share: save that ")
    assert len(said.splitlines()) == 1


def test_check_reads_everything_and_makes_nothing(data, tmp_path):
    save(data, tmp_path / "b.tar")
    assert bring_back(tmp_path / "b.tar", tmp_path / "new", "--check")["files"] == 4
    assert sorted(os.listdir(tmp_path)) == ["b.tar", "data"]


def test_file_is_replaced_only_with_force(data, tmp_path):
    save(data, tmp_path / "b.tar")
    assert "is there already" in save(data, tmp_path / "b.tar", code=9)
    save(data, tmp_path / "b.tar", "--force")


def test_folder_without_a_database_is_named(tmp_path):
    assert "there is no database" in save(tmp_path / "none", tmp_path / "b.tar", code=3)
    assert not (tmp_path / "b.tar").exists()


def test_database_of_a_newer_skep_is_refused(data, tmp_path):
    with_store(data, lambda store: None)
    save(data, tmp_path / "b.tar")
    con = sqlite3.connect(data / "skep.db")
    import msgspec

    con.execute("UPDATE d_schema SET body = ?", (msgspec.msgpack.encode({"number": 99}),))
    con.commit()
    con.close()
    assert "is newer than" in save(data, tmp_path / "c.tar", code=3)
