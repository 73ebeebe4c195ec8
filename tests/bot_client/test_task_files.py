"""What the bot does with files: its caches, a task's inputs, what a task leaves behind."""

import base64
import json
import os
import subprocess
import zlib
from pathlib import Path

import pytest

from bot_client import cas, health, workspace
from bot_client.attributes import Probes
from bot_client.blob_api import DiskTrouble, Missing, Stop
from bot_client.cas import Digest, Directory, DirectoryNode, FileNode, SymlinkNode, encode
from bot_client.errors import Interrupted, Refused
from bot_client.manifest import CacheWanted, ManifestError, parse
from bot_client.output_tree import OutputTree, TaskFault
from bot_client.storage import MAX_AGE_S, MAX_NAMED, Room, Storage
from bot_client.workspace import MissingInputs, Workspace, pack_sizes
from tests.fakes.bot_clock import FakeClock

ROOM = Room(0, 1 << 40, 1 << 40)
GOOD = {
    "task_id": "abc1",
    "bot_id": "b",
    "command": ["x"],
    "dimensions": {},
    "bot_dimensions": {},
    "hard_timeout": 10,
    "io_timeout": 0,
    "grace_period": 1,
}


class Blobs:
    """The server's blobs as a dict."""

    def __init__(self, stop):
        self.stop = stop
        self.kept: dict[Digest, bytes] = {}
        self.fetched: list[Digest] = []
        self.closed = False

    def add(self, content: bytes) -> Digest:
        digest = cas.digest_of(content)
        self.kept[digest] = content
        return digest

    def folder(self, files=(), folders=(), links=()) -> Digest:
        return self.add(encode(Directory(list(files), list(folders), list(links))))

    def fetch(self, digest, sink):
        if digest not in self.kept:
            raise Missing(digest)
        self.fetched.append(digest)
        sink.write(self.kept[digest])

    def missing(self, digests):
        return {str(digest) for digest in digests if digest not in self.kept}

    def put(self, digest, source):
        source.seek(0)
        content = source.read()
        assert cas.digest_of(content) == digest
        self.kept[digest] = content

    def close(self):
        self.closed = True


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def storage(tmp_path, clock):
    storage = Storage(str(tmp_path), clock)
    storage.load()
    return storage


@pytest.fixture
def blobs(clock):
    return Blobs(Stop(clock, 60))


def space(storage, blobs, **more):
    return Workspace(parse(GOOD)._replace(**more), storage, ROOM, blobs)


def hand_over(storage, work=lambda run, out: None):
    """What the runner does: the run folder is used, then left."""
    place = Path(storage.bot_dir, "wo1")
    place.mkdir()
    os.rename(storage.stage, place / "ir")
    (place / "io").mkdir()
    work(place / "ir", place / "io")
    return str(place)


def test_tree_is_laid_out_with_modes_and_links(storage, blobs):
    below = blobs.folder([FileNode("run", blobs.add(b"x"), True)])
    root = blobs.folder(
        [FileNode("a", blobs.add(b"hello"), False), FileNode("empty", cas.EMPTY, False)],
        [DirectoryNode("sub", below), DirectoryNode("none", cas.EMPTY)],
        [SymlinkNode("link", "sub/run")],
    )
    files = space(storage, blobs, input_root=root)
    files.prepare()
    stage = Path(storage.stage)
    assert (stage / "a").read_bytes() == b"hello"
    assert (stage / "link").read_bytes() == b"x"
    assert os.access(stage / "sub/run", os.X_OK)
    assert (stage / "a").stat().st_mode & 0o777 == 0o644
    assert list((stage / "none").iterdir()) == []
    assert (stage / "empty").read_bytes() == b""


def test_second_task_fetches_nothing_and_cannot_change_what_the_third_gets(storage, blobs):
    root = blobs.folder([FileNode("a", blobs.add(b"hello"), False)])
    for turn in range(3):
        files = space(storage, blobs, input_root=root)
        files.prepare()
        assert (Path(storage.stage) / "a").read_bytes() == b"hello"
        (Path(storage.stage) / "a").write_bytes(b"changed")
        files.finish(hand_over(storage), keep_outputs=True)
        items = files.stats["isolated_stats"]["download"]
        assert bool(items["items_hot"]) is (turn > 0)
    assert len(blobs.fetched) == 2
    assert os.listdir(storage.bot_dir) == ["cas_cache"]


def test_rotten_blob_in_the_cache_is_fetched_again(storage, blobs):
    digest = blobs.add(b"hello")
    root = blobs.folder([FileNode("a", digest, False)])
    space(storage, blobs, input_root=root).prepare()
    path = Path(storage.bot_dir, "cas_cache", digest.hash[:2], digest.hash)
    path.write_bytes(b"hellO")
    space(storage, blobs, input_root=root).prepare()
    assert (Path(storage.stage) / "a").read_bytes() == b"hello"
    assert path.read_bytes() == b"hello"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc", "a\\b"])
def test_name_that_leaves_the_folder_is_refused(storage, blobs, tmp_path, name):
    root = blobs.folder([FileNode(name, blobs.add(b"x"), False)])
    with pytest.raises(TaskFault, match="not that of a file"):
        space(storage, blobs, input_root=root).prepare()


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "sub/../../x"])
def test_link_that_leaves_the_tree_is_refused(storage, blobs, target):
    root = blobs.folder(links=[SymlinkNode("a", target)])
    with pytest.raises(TaskFault, match="leads out"):
        space(storage, blobs, input_root=root).prepare()
    assert not os.path.lexists(os.path.join(storage.stage, "a"))


def test_missing_blob_is_the_authors_fault(storage, blobs):
    gone = cas.digest_of(b"gone")
    root = blobs.folder([FileNode("a", gone, False)])
    with pytest.raises(MissingInputs) as caught:
        space(storage, blobs, input_root=root).prepare()
    assert caught.value.digests == [gone]


def test_tree_without_end_is_refused(storage, blobs, monkeypatch):
    monkeypatch.setattr(workspace, "MAX_ENTRIES", 10)
    level = cas.EMPTY
    for _ in range(6):
        level = blobs.folder(folders=[DirectoryNode("a", level), DirectoryNode("b", level)])
    with pytest.raises(TaskFault, match="more than"):
        space(storage, blobs, input_root=level).prepare()


def test_stop_ends_preparation_and_the_limit_does_too(storage, blobs, clock):
    root = blobs.folder([FileNode("a", blobs.add(b"x"), False)])
    files = space(storage, blobs, input_root=root)
    stop = Stop(clock, 60)
    stop.ask()
    files.begin(stop)
    with pytest.raises(Interrupted):
        files.prepare()
    files.begin(Stop(clock, -1))
    with pytest.raises(Refused, match="not done within"):
        files.prepare()


def test_named_cache_is_kept_from_task_to_task(storage, blobs):
    caches = (CacheWanted("git", "deep/cache", -1),)
    for turn in range(2):
        files = space(storage, blobs, caches=caches)
        files.prepare()
        assert storage.named.names() == []
        found = Path(storage.stage, "deep/cache")
        assert [p.name for p in found.iterdir()] == (["kept"] if turn else [])

        def work(run, _out):
            (run / "deep/cache/kept").write_bytes(b"12345")

        files.finish(hand_over(storage, work), keep_outputs=True)
        assert files.notes == []
    assert storage.named.names() == ["git"]
    assert storage.named.state()["git"][0][1] == 5
    assert Path(storage.bot_dir, "c/named/git/kept").read_bytes() == b"12345"


@pytest.mark.parametrize("place", ["wi", "w/ir", "wabc/ir", "wo1/ir"])
def test_named_cache_is_found_again_wherever_a_crash_left_it(storage, blobs, clock, place):
    files = space(storage, blobs, caches=(CacheWanted("git", "x/cache", -1),))
    files.prepare()
    Path(storage.stage, "x/cache/kept").write_bytes(b"1")
    target = Path(storage.bot_dir, place)
    target.parent.mkdir(exist_ok=True)
    os.rename(storage.stage, target)
    again = Storage(storage.bot_dir, clock)
    again.load()
    assert again.named.names() == ["git"]
    assert [p.read_bytes() for p in Path(storage.bot_dir, "c").glob("??/kept")] == [b"1"]


def test_cache_that_the_task_replaced_by_a_link_is_lost_and_said_so(storage, blobs, tmp_path):
    files = space(storage, blobs, caches=(CacheWanted("git", "cache", -1),))
    files.prepare()

    def work(run, _out):
        (run / "cache").rmdir()
        (run / "cache").symlink_to("/etc")

    files.finish(hand_over(storage, work), keep_outputs=True)
    assert [note for note in files.notes if "cache git is lost" in note]
    assert storage.named.names() == []
    assert os.path.isdir("/etc")


def test_cache_behind_a_link_of_the_inputs_is_refused(storage, blobs):
    root = blobs.folder(
        folders=[DirectoryNode("real", cas.EMPTY)], links=[SymlinkNode("l", "real")]
    )
    files = space(storage, blobs, input_root=root, caches=(CacheWanted("git", "l/c", -1),))
    with pytest.raises(TaskFault, match="a link is on the way"):
        files.prepare()
    files.finish(None, keep_outputs=False)


def test_cache_over_an_input_is_refused_and_stays(storage, blobs):
    space_one = space(storage, blobs, caches=(CacheWanted("git", "c", -1),))
    space_one.prepare()
    space_one.finish(hand_over(storage), keep_outputs=True)
    root = blobs.folder([FileNode("c", blobs.add(b"x"), False)])
    files = space(storage, blobs, input_root=root, caches=(CacheWanted("git", "c", -1),))
    with pytest.raises(TaskFault, match="among the inputs"):
        files.prepare()
    files.finish(None, keep_outputs=False)
    assert storage.named.names() == ["git"]


def test_prepare_that_fails_takes_the_caches_home(storage, blobs):
    caches = (CacheWanted("one", "a", -1), CacheWanted("two", "b", -1))
    files = space(storage, blobs, caches=caches)
    files.prepare()
    files.finish(None, keep_outputs=False)
    assert storage.named.names() == ["one", "two"]
    assert not os.path.exists(storage.stage)


def keep_cache(storage, blobs, name, clock):
    files = space(storage, blobs, caches=(CacheWanted(name, "c", -1),))
    files.prepare()
    files.finish(hand_over(storage), keep_outputs=True)
    clock.wait(1)


def test_oldest_caches_go_when_there_are_too_many(storage, blobs, clock):
    for number in range(MAX_NAMED + 2):
        keep_cache(storage, blobs, f"n{number:02d}", clock)
    assert len(storage.named.names()) == MAX_NAMED
    assert storage.named.names()[0] == "n02"
    assert len(list(Path(storage.bot_dir, "c").glob("??"))) == MAX_NAMED


def test_old_things_go_and_those_in_use_stay(storage, blobs, clock):
    root = blobs.folder([FileNode("a", blobs.add(b"x"), False)])
    space(storage, blobs, input_root=root).prepare()
    keep_cache(storage, blobs, "idle", clock)
    files = space(storage, blobs, caches=(CacheWanted("used", "c", -1),))
    files.prepare()
    clock.wait(MAX_AGE_S + 10)
    storage.trim(ROOM)
    assert (len(storage.content), storage.named.names()) == (0, [])
    files.finish(hand_over(storage), keep_outputs=True)
    assert storage.named.names() == ["used"]


def test_oldest_go_first_while_the_disk_is_too_full(storage, blobs, clock, monkeypatch):
    for name in ("a", "b", "c"):
        keep_cache(storage, blobs, name, clock)
    free = iter([0, 0, 99, 99])
    monkeypatch.setattr(storage, "free_bytes", lambda: next(free))
    storage.trim(ROOM._replace(free=50))
    assert storage.named.names() == ["c"]


def test_content_is_kept_within_its_bytes_across_processes(storage, blobs, clock):
    for content in (b"1" * 100, b"2" * 100, b"3" * 100):
        root = blobs.folder([FileNode("a", blobs.add(content), False)])
        space(storage, blobs, input_root=root).prepare()
        clock.wait(1)
    again = Storage(storage.bot_dir, clock)
    Path(storage.bot_dir, "cas_cache/stranger").write_text("x")
    again.load()
    assert (again.content.size, len(again.content)) == (storage.content.size, 6)
    again.trim(ROOM._replace(content_bytes=250))
    assert again.content.size <= 250
    assert again.content.has(cas.digest_of(b"3" * 100))
    assert not Path(storage.bot_dir, "cas_cache/stranger").exists()


def test_hints_ask_for_more_room_only_for_caches_that_are_not_here(storage, blobs, clock):
    keep_cache(storage, blobs, "here", clock)
    room = storage.room_for(ROOM, [("here", 100), ("new", 10), ("unknown", -1)])
    assert room.free == 10


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"items": {"a": {"dir": "../x"}}}'])
def test_damaged_index_drops_the_caches_and_nothing_else(storage, blobs, clock, damage):
    keep_cache(storage, blobs, "git", clock)
    Path(storage.bot_dir, "c/state.json").write_text(damage)
    again = Storage(storage.bot_dir, clock)
    again.load()
    assert again.named.names() == []
    assert list(Path(storage.bot_dir, "c").glob("??")) == []


def test_outputs_are_merged_and_uploaded_once(storage, blobs):
    files = space(storage, blobs, outputs=("made", "one.txt", "none", "deep/er"), caches=())
    storage_stage = Path(storage.stage)
    storage_stage.mkdir()

    def work(run, out):
        (run / "made").mkdir()
        (run / "made/run").write_bytes(b"same")
        (run / "made/run").chmod(0o755)
        (run / "made/in").symlink_to("run")
        (run / "made/out").symlink_to("../../secret")
        os.mkfifo(run / "made/pipe")
        (run / "one.txt").write_bytes(b"from the run folder")
        (out / "one.txt").write_bytes(b"from the output folder")
        (out / "direct").write_bytes(b"same")

    files.finish(hand_over(storage, work), keep_outputs=True)
    root = files.output_root["digest"]
    top = cas.decode(blobs.kept[Digest(root["hash"], root["size_bytes"])])
    assert [f.name for f in top.files] == ["direct", "one.txt"]
    assert blobs.kept[top.files[1].digest] == b"from the run folder"
    (made,) = top.directories
    inner = cas.decode(blobs.kept[made.digest])
    assert ([f.name for f in inner.files], inner.files[0].is_executable) == (["run"], True)
    assert inner.symlinks == [SymlinkNode("in", "run")]
    assert len(files.notes) == 2
    assert not os.path.exists(os.path.join(storage.bot_dir, "wo1"))


def test_output_behind_a_link_is_not_followed(storage, blobs, tmp_path):
    notes: list[str] = []
    tree = OutputTree(notes)
    run = tmp_path / "run"
    run.mkdir()
    (run / "etc").symlink_to("/etc")
    tree.add(str(run), "etc/passwd")
    assert tree.is_empty()


def test_nothing_left_behind_is_no_root(storage, blobs):
    files = space(storage, blobs, outputs=("none",))
    Path(storage.stage).mkdir()
    files.finish(hand_over(storage), keep_outputs=True)
    assert files.output_root is None


def test_sizes_are_packed_sorted_as_differences():
    assert pack_sizes([]) == ""
    assert zlib.decompress(base64.b64decode(pack_sizes([300, 5, 5]))) == bytes([5, 0, 0xA7, 2])


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("caches", [{"name": "../x", "path": "a"}], "not a name"),
        ("caches", [{"name": "a", "path": "../x"}], "not a path"),
        ("caches", [{"name": "a", "path": "/x"}], "not a path"),
        ("caches", [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}], "twice"),
        ("caches", [{"name": "a", "path": "x"}, {"name": "b", "path": "x/y"}], "within"),
        ("outputs", ["../x"], "not a path"),
        ("outputs", ["/etc/passwd"], "not a path"),
        ("cipd_input", {"server": "x"}, "not supported"),
        ("cas_input_root", {"cas_instance": "projects/x/instances/y"}, "not supported"),
        ("cas_input_root", {"cas_instance": cas.INSTANCE, "digest": {"hash": "x"}}, "digest"),
    ],
)
def test_manifest_with_files_it_cannot_have_is_refused(key, value, word):
    with pytest.raises(ManifestError, match=word):
        parse({**GOOD, key: value})


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_full_disk_ends_preparation_in_one_line_and_frees_what_it_took(tmp_path, clock, blobs):
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "t", str(folder)], check=False)
    if made.returncode:
        pytest.skip("no mount here")
    try:
        storage = Storage(str(folder), clock)
        storage.load()
        root = blobs.folder([FileNode("big", blobs.add(os.urandom(3 << 20)), False)])
        files = space(storage, blobs, input_root=root)
        with pytest.raises((DiskTrouble, OSError), match="No space left"):
            files.prepare()
        files.finish(None, keep_outputs=False)
        assert not os.path.exists(storage.stage)
        assert storage.free_bytes() > 1 << 20
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_index_is_on_disk_before_a_cache_moves(storage, blobs):
    files = space(storage, blobs, caches=(CacheWanted("git", "c", -1),))
    files.prepare()
    index = json.loads(Path(storage.bot_dir, "c/state.json").read_text())
    assert index["items"]["git"]["out"] == "c"


def test_disk_too_full_gives_the_caches_up_before_it_is_a_problem(
    storage, blobs, clock, monkeypatch
):
    for name in ("a", "b"):
        keep_cache(storage, blobs, name, clock)
    monkeypatch.setattr(storage, "free_bytes", lambda: 10 if storage.named.names() else 99)
    monkeypatch.setattr(storage, "room", lambda _settings: ROOM._replace(free=50))
    problem = health.Problem("disk", "Not enough free disk space")
    monkeypatch.setattr(
        health, "disk_problem", lambda _dir, _settings: problem if storage.named.names() else None
    )
    probes = Probes(storage.bot_dir, "b", clock, storage)
    assert probes.disk_problem(health.DEFAULT_SETTINGS) is None
    assert storage.named.names() == []
