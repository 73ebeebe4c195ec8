"""Stores copied whole, whatever the engine, and read whole: nothing lost, nothing believed."""

import gzip
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from botapi import app as composition
from botapi import engines
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.move import shown, store
from botapi.scheduler.store_check import check_store
from botapi.settings import Settings
from botapi.store import codec, copying
from botapi.store.protocol import Doc, StoreError
from botapi.transactions.hold_duty import hold_duty, leave_duty
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import SimBot, flask_post
from tests.sim.run import Sim
from tests.store import old_databases

OLD = sorted(old_databases.FOLDER.glob("*.sqlite.gz"))


def opened(folder):
    return engines.open_address(
        f"sqlite:{folder}", Settings(), Threads(), SystemClock(), SystemRng()
    )


def put(found, kind, *docs):
    found.write_many((kind, doc) for doc in docs)


def run(*words, code=0):
    done = CliRunner().invoke(store, [str(word) for word in words], prog_name="skep store")
    assert done.exit_code == code, done.output
    assert isinstance(done.exception, SystemExit | None)
    return done


def refusal(*words, code):
    (line,) = run(*words, code=code).stderr.splitlines()
    assert line.startswith("error: ")
    return line


def everything(found):
    """Every document of a store, by kind."""
    docs = {
        kind: [doc for page in copying.pages(found, kind) for doc in page] for kind in found.kinds()
    }
    return {kind: of_kind for kind, of_kind in docs.items() if of_kind}


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A database in which bots worked: finished, running and pending tasks, output, events."""
    folder = tmp_path_factory.mktemp("life") / "data"
    return folder, old_databases.write(folder)


@pytest.fixture
def source(life, tmp_path):
    """A copy of that folder that a test may spoil."""
    folder = tmp_path / "source"
    folder.mkdir()
    with sqlite3.connect(life[0] / "skep.db") as before, sqlite3.connect(folder / "skep.db") as own:
        before.backup(own)
    own.close()
    before.close()
    return folder


def spoil(folder, statement, *values):
    con = sqlite3.connect(folder / "skep.db")
    changed = con.execute(statement, values).rowcount
    con.commit()
    con.close()
    assert changed == 1


# copy


def test_copy_holds_the_same_and_says_so(source, tmp_path):
    said = json.loads(
        run("copy", f"sqlite:{source}", f"sqlite:{tmp_path / 'to'}", "-o", "json").stdout
    )
    assert said["equal"] is True
    assert said["kinds"]["task"]["documents"] == 3
    one, two = opened(source), opened(tmp_path / "to")
    assert everything(two) == everything(one)
    digests = {kind: copying.tally(one, kind).digest for kind in everything(one)}
    assert digests == {kind: found["digest"] for kind, found in said["kinds"].items()}
    one.close()
    two.close()


def test_server_on_the_copy_goes_on_with_tasks_and_bots(life, source, tmp_path):
    known = life[1]
    run("copy", f"sqlite:{source}", f"sqlite:{tmp_path / 'to'}")
    chosen = Settings(data_dir=tmp_path / "to", hold_min_s=5, hold_max_s=5)
    clock, rng = FakeClock(), FakeRng()
    parts = composition.build(
        chosen, engines.open_store(chosen, Threads(), clock, rng), Threads(), clock, rng
    )
    parts.concurrency.spawn(parts.offers.run)
    bot = SimBot(flask_post(composition.create_app(parts).test_client()))
    bot.session, bot.seq = known["session"], 100
    assert bot.finish(known["running"][:-1] + "1", b"half and half", 0)["ok"] is True
    lease = bot.update(nonblocking=False)["lease"]
    assert lease["payload"]["task_id"] == known["pending"]
    bot.work(lease)
    parts.close()
    assert run("check", f"sqlite:{tmp_path / 'to'}").stdout == ""


def test_digest_sees_every_part_of_a_document_and_no_order():
    doc = Doc("k", {"a": 1, "b": b"x"}, frozenset({"t"}), 5)
    others = [
        replace(doc, key="l"),
        replace(doc, body={"a": 1.0, "b": b"x"}),
        replace(doc, body={"a": 1, "b": "x"}),
        replace(doc, tags=frozenset()),
        replace(doc, expire_at=None),
    ]
    tallies = {copying.Tally().plus("x", [one]) for one in (doc, *others)}
    assert len(tallies) == 1 + len(others)
    assert copying.Tally().plus("y", [doc]) not in tallies
    turned = replace(doc, body={"b": b"x", "a": 1})
    both = copying.Tally().plus("x", [doc, others[0]])
    assert copying.Tally().plus("x", [others[0]]).plus("x", [turned]) == both


@pytest.mark.slow
def test_memory_is_copied_in_pages_with_all_that_a_document_may_be(store, tmp_path):
    many = 2 * copying.PAGE + 3
    bodies = (
        {"n": number, "b": bytes([number % 256]), "x": [1, 2.5, None]} for number in range(many)
    )
    docs = [
        Doc(f"{number:06d}!ü", body, frozenset({f"t:{number % 7}"}), number or None)
        for number, body in enumerate(bodies)
    ]
    put(store, "x", *docs)
    put(store, "even", *docs[: copying.PAGE])
    target = opened(tmp_path / "to")
    read = copying.copy_all(store, target)
    assert {kind: found.documents for kind, found in read.items() if kind != "schema"} == {
        "x": many,
        "even": copying.PAGE,
    }
    assert copying.differences(read, target) == []
    assert [doc for page in copying.pages(target, "x") for doc in page] == docs
    assert len(target.find("x", [frozenset({"t:3"})], after=None, limit=many).docs) == many // 7
    target.close()


def test_comparison_names_the_kind_that_differs(store, tmp_path):
    put(store, "x", Doc("a", {"n": 1}), Doc("b", {"n": 2}))
    target = opened(tmp_path / "to")
    read = copying.copy_all(store, target)
    put(target, "x", Doc("b", {"n": 3}))
    assert copying.differences(read, target) == ["x"]
    put(target, "y", Doc("b", {"n": 3}))
    assert copying.differences(read, target) == ["x", "y"]
    target.close()


def test_target_with_documents_is_left_alone(source, tmp_path):
    to = opened(tmp_path / "to")
    put(to, "x", Doc("a", {"n": 1}))
    for words in ((), ("--resume",)):
        line = refusal("copy", f"sqlite:{source}", f"sqlite:{tmp_path / 'to'}", *words, code=9)
        assert "holds documents already" in line
    assert sorted(to.kinds()) == ["schema", "x"]
    to.close()


def test_source_with_a_server_is_refused_unless_forced(source, tmp_path):
    found = opened(source)
    now_ms = SystemClock().now_ms()
    hold_duty(found, "sweeper", "me", now_ms=now_ms, for_ms=60_000)
    to = f"sqlite:{tmp_path / 'to'}"
    line = refusal("copy", f"sqlite:{source}", to, code=9)
    assert "a server works on" in line
    assert "--resume" in refusal("copy", f"sqlite:{source}", to, "--force", code=9)
    leave_duty(found, "sweeper", "me")
    run("copy", f"sqlite:{source}", to, "--resume")
    run("copy", f"sqlite:{source}", f"sqlite:{tmp_path / 'other'}")
    found.close()


def test_source_that_a_server_worked_on_meanwhile_is_told_and_made_right(
    source, tmp_path, monkeypatch
):
    found = opened(source)
    now_ms = SystemClock().now_ms()
    words = ("copy", f"sqlite:{source}", f"sqlite:{tmp_path / 'to'}")
    copy_all = copying.copy_all

    def meanwhile(*args):
        read = copy_all(*args)
        hold_duty(found, "sweeper", "me", now_ms=now_ms, for_ms=1)
        put(found, "dedup", Doc("new", {}))
        found.transact(
            lambda txn: txn.delete("apikey", found.scan_keys("apikey", "", "~", limit=1)[0]),
            label="t",
        )
        return read

    monkeypatch.setattr(copying, "copy_all", meanwhile)
    assert "meanwhile" in refusal(*words, code=9)
    with pytest.raises(StoreError, match="broke off"):
        engines.open_store(
            Settings(data_dir=tmp_path / "to"), Threads(), SystemClock(), SystemRng()
        )
    monkeypatch.undo()
    assert "broke off" in refusal(*words, code=9)
    run(*words, "--resume")
    to = opened(tmp_path / "to")
    assert everything(to) == everything(found)
    to.close()
    found.close()


CHILD = """
import os, sys
from botapi.store import copying
say = copying.pages
seen = 0
def pages(store, kind):
    global seen
    for page in say(store, kind):
        yield page
        seen += 1
        if seen == int(sys.argv[1]):
            os.write(1, b"here")
            sys.stdin.read()
copying.pages = pages
from botapi.cli import main
main(["store", "copy", *sys.argv[2:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 6, 12])
def test_copy_that_is_killed_goes_on_with_resume(source, tmp_path, after):
    words = ("copy", f"sqlite:{source}", f"sqlite:{tmp_path / 'to'}")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(after), *words[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    ready, _, _ = select.select([child.stdout], [], [], 30)
    assert ready
    assert os.read(child.stdout.fileno(), 4) == b"here"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert run("check", words[2], code=1).stdout.count("schema 'COPY'") == 1
    run(*words, "--resume")
    one, two = opened(source), opened(tmp_path / "to")
    assert everything(two) == everything(one)
    one.close()
    two.close()


def test_addresses_that_are_none_are_refused_in_one_line(source, tmp_path):
    to = f"sqlite:{tmp_path / 'to'}"
    assert "is no address" in refusal("copy", "mysql://u:geheim@h/d", to, code=2)
    assert "geheim" not in refusal("copy", "mysql://u:geheim@h/d", to, code=2)
    assert "there is no database" in refusal("copy", f"sqlite:{tmp_path / 'no'}", to, code=2)
    assert "No such file" in refusal("check", f"@{tmp_path / 'no'}", code=2)
    opened(tmp_path / "empty").close()
    assert "holds nothing" in refusal("copy", f"sqlite:{tmp_path / 'empty'}", to, code=2)
    assert "holds nothing" in refusal("check", f"sqlite:{tmp_path / 'empty'}", code=2)
    assert not (tmp_path / "no").exists()
    for text in ("", "plain", "sqliteX:/x", "host=h password=geheim", "postgresql:/u:geheim@h"):
        assert "this is no address" in refusal("check", text, code=2)
    for text in ("postgresql://u:geheim@[::1/x", "postgresql://u@h/x?geheim=1", "datastore://No"):
        assert "geheim" not in refusal("copy", f"sqlite:{source}", text, code=2)
        assert "geheim" not in refusal("copy", text, to, code=2)
    keys = tmp_path / "keys"
    keys.write_text("k1:geheim\n")
    assert f"what @{keys} holds is no address" in refusal("check", f"@{keys}", code=2)
    named = tmp_path / "address"
    named.write_text(f"sqlite:{source}\n")
    run("copy", f"@{named}", to)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://me:geheim@db:5432/skep?sslmode=require", "postgresql://me@db:5432/skep"),
        ("postgresql://db/skep?password=geheim", "postgresql://db/skep"),
        ("postgresql://db/skep?password=ge@heim&user=me", "postgresql://db/skep"),
        ("postgresql://me:ge@heim@db/skep", "postgresql://me@db/skep"),
        ("postgresql://me:12/geheim@db/skep", "postgresql://me@db/skep"),
        ("postgresql://me:geh?eim@db/skep", "postgresql://me@db/skep"),
        ("postgresql://me:geheim@[::1/skep", "postgresql://me@[::1/skep"),
        ("datastore://project/db?namespace=x", "datastore://project/db?namespace=x"),
        ("sqlite:/var/lib/skep", "sqlite:/var/lib/skep"),
    ],
)
def test_address_is_shown_without_its_password(address, said):
    assert shown(address) == said


# check


@pytest.mark.parametrize("packed", OLD, ids=lambda path: path.name)
def test_old_database_has_nothing_wrong(packed, tmp_path):
    (tmp_path / "skep.db").write_bytes(gzip.decompress(packed.read_bytes()))
    done = run("check", f"sqlite:{tmp_path}")
    assert done.stdout == ""
    assert "0 findings" in done.stderr


def test_check_knows_every_kind_of_a_server_and_nothing_is_wrong_there(parts, make_bot, store):
    bot = make_bot().start()
    assert bot.session
    report = check_store(parts.store)
    assert report.findings == []
    assert {"bot", "event", "cfg", "key", "lsession"} <= set(report.documents)


@pytest.mark.slow
def test_check_finds_nothing_after_faults_of_every_kind():
    kinds = set()
    for seed in (1, 2, 3, 17, 87, 89, 112):
        report = check_store(Sim(seed).run().ground)
        assert report.findings == [], seed
        kinds |= set(report.documents)
    assert {"task", "req", "out", "outpos", "bot", "event", "runtime"} <= kinds


BAD_BODY = b"\x81\xa1a"
WRONG = [
    ("UPDATE d_bot SET body = ?", BAD_BODY, "bot 'vm1': cannot be decoded"),
    ("UPDATE d_bot SET body = ?", b"\x80", "bot 'vm1': cannot be read"),
    ("UPDATE d_bot SET k = 'vm9'", None, "bot 'vm9': belongs under the key vm1"),
    ("DELETE FROM d_bot", None, "is RUNNING, and vm1 does not run it"),
    ("DELETE FROM d_pend", None, "is PENDING, and neither in a queue nor offered"),
    ("DELETE FROM d_queue", None, "there is no queue"),
    ("DELETE FROM d_req WHERE k = (SELECT min(k) FROM d_req)", None, "there is no req"),
    ("DELETE FROM d_task WHERE k = (SELECT max(k) FROM d_task)", None, "there is no task"),
    (
        "DELETE FROM d_outpos WHERE k = (SELECT min(k) FROM d_outpos)",
        None,
        "its output is not sealed",
    ),
    ("DELETE FROM d_cfg WHERE k = 'bots.cfg!0000000001'", None, "revision 1 is in force"),
    ("UPDATE d_schema SET body = x'81a66e756d62657209'", None, None),
    ("INSERT INTO d_schema (k, body) VALUES ('COPY', x'80')", None, "is not finished"),
]


@pytest.mark.parametrize(("statement", "value", "text"), WRONG, ids=[row[0][:34] for row in WRONG])
def test_check_finds_what_was_spoiled(source, statement, value, text):
    spoil(source, statement, *([value] if value else []))
    if text is None:
        assert "needs schema 9" in refusal("check", f"sqlite:{source}", code=3)
        return
    lines = run("check", f"sqlite:{source}", code=1).stdout.splitlines()
    assert [line for line in lines if text in line], lines
    said = json.loads(run("check", f"sqlite:{source}", "-o", "json", code=1).stdout)
    assert len(said["findings"]) == len(lines)
    assert all(finding["kind"] for finding in said["findings"])


def test_check_finds_bytes_of_output_that_are_not_there(life, source):
    task_id = life[1]["done"]
    found = opened(source)
    (piece,) = found.get(codec.OUT, codec.output_key(task_id, 0))
    later = codec.output_doc(task_id, len(piece.body["data"]) + 7, b"later")
    put(found, codec.OUT, later)
    found.close()
    lines = run("check", f"sqlite:{source}", code=1).stdout.splitlines()
    assert [line.split("!")[0] for line in lines] == [f"out '{task_id}", f"outpos '{task_id}"]


def test_check_of_a_damaged_file_says_what_sqlite_says(source):
    path = source / "skep.db"
    content = bytearray(path.read_bytes())
    content[8192:9216] = bytes(1024)
    path.write_bytes(content)
    assert "SQLite: " in run("check", f"sqlite:{source}", code=1).stdout
    path.write_bytes(b"no database at all, " * 500)
    assert "is no database" in run("check", f"sqlite:{source}", code=1).stdout
