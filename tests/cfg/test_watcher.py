"""The file on disk: taken up when good, kept out when bad, cheap while unchanged."""

import os
from functools import partial

import pytest

from botapi.cfg import first_bots_cfg
from botapi.cfg.bundle import Source
from botapi.cfg.provider import Provider, Rejected
from botapi.cfg.watcher import Change, Watcher
from botapi.concurrency import Threads
from botapi.store.memory import MemoryStore
from botapi.store.protocol import Outage
from botapi.transactions.push_config import Pushed, push_config, reject_config
from tests.auth.fixed import FixedClock

NOW = 1_772_604_367_000
GOOD = first_bots_cfg.TEXT
OTHER = GOOD.replace("pool:default", "pool:other")
HOOKED = GOOD.replace("  dimensions:", '  bot_config_script: "s.py"\n  dimensions:', 1)


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def store(clock):
    return MemoryStore(Threads(), clock)


@pytest.fixture
def provider(store, clock):
    return Provider(store, clock)


@pytest.fixture
def watcher(tmp_path, store, provider):
    return watch(tmp_path, store, provider)


def watch(folder, store, provider, *, push_with=None, guard=lambda before, after: ""):
    """A watcher as of a process that has just started."""
    push_with = push_with or partial(push, store)
    return Watcher(folder, provider, push_with, partial(reject_config, store), guard)


def push(store, source, *, parent, now_ms):
    pushed = push_config(store, source, parent=parent, author="file", now_ms=now_ms, from_disk=True)
    return pushed.is_new if isinstance(pushed, Pushed) else None


def apply(store, text, parent, now_ms=NOW):
    """A person puts another bots.cfg in force."""
    push_config(store, Source(text, {}), parent=parent, author="ann", now_ms=now_ms)


def write(path, text):
    """As an editor does: a new file takes the old one's place."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def digest(text, **scripts):
    return Source(text, {f"{name}.py": body for name, body in scripts.items()}).digest()


@pytest.mark.spec("7.5.1.1")
def test_check_puts_a_file_in_force(tmp_path, watcher, provider):
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW) == Change("", digest(GOOD))
    assert provider.latest().source.bots == GOOD
    assert watcher.check(NOW + 1) is None


def test_check_takes_up_a_changed_file(tmp_path, watcher, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    write(tmp_path / "bots.cfg", OTHER)
    assert watcher.check(NOW + 1) == Change(digest(GOOD), digest(OTHER))
    assert provider.latest().rev == 2


def test_check_takes_up_a_changed_script(tmp_path, watcher, provider):
    write(tmp_path / "scripts" / "s.py", "# 1")
    write(tmp_path / "bots.cfg", HOOKED)
    watcher.check(NOW)
    assert provider.latest().bots.group_of("b").script == b"# 1"
    write(tmp_path / "scripts" / "s.py", "# 2")
    assert watcher.check(NOW + 1) == Change(digest(HOOKED, s=b"# 1"), digest(HOOKED, s=b"# 2"))
    assert provider.latest().bots.group_of("b").script == b"# 2"


def test_check_reads_nothing_while_nothing_changes(tmp_path, watcher, monkeypatch):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    monkeypatch.setattr(type(tmp_path), "read_bytes", None)
    assert watcher.check(NOW + 1) is None


def test_check_says_nothing_when_the_same_content_is_saved_again(tmp_path, watcher, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW + 1) is None
    assert provider.latest().rev == 1


def test_check_says_nothing_when_another_process_was_first(tmp_path, watcher, store, provider):
    write(tmp_path / "bots.cfg", GOOD)
    push(store, Source(GOOD, {}), parent="", now_ms=NOW)
    assert watcher.check(NOW + 1) is None


@pytest.mark.control("config.validate")
@pytest.mark.spec("7.5.1.1")
def test_check_keeps_a_bad_file_out_and_the_last_good_one_in(tmp_path, watcher, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    write(tmp_path / "bots.cfg", "bot_group {\n")
    rejected = watcher.check(NOW + 1)
    assert isinstance(rejected, Rejected)
    assert rejected.mistakes == ('bots.cfg:1:11: Expected "}".',)
    assert provider.rejected() == rejected
    assert provider.latest().source.bots == GOOD
    assert watcher.check(NOW + 2) is None


def test_check_does_not_undo_what_a_person_applied(tmp_path, watcher, store, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    apply(store, OTHER, digest(GOOD), NOW + 1)
    assert watcher.check(NOW + 2) is None
    assert watch(tmp_path, store, provider).check(NOW + 3) is None
    assert provider.latest().source.bots == OTHER
    write(tmp_path / "bots.cfg", HOOKED.replace("bot_config_script", "# "))
    assert isinstance(watcher.check(NOW + 4), Change)
    assert provider.latest().rev == 3


def test_check_takes_up_a_file_that_changed_while_the_server_was_down(
    tmp_path, watcher, store, provider
):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    write(tmp_path / "bots.cfg", OTHER)
    assert watch(tmp_path, store, provider).check(NOW + 1) == Change(digest(GOOD), digest(OTHER))


def test_check_of_a_database_without_a_note_about_the_files_goes_by_what_is_in_force(
    tmp_path, watcher, store, provider
):
    apply(store, OTHER, "")
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW + 1) == Change(digest(OTHER), digest(GOOD))
    assert provider.file_digest() == digest(GOOD)


def test_check_keeps_out_a_good_file_that_the_guard_refuses(tmp_path, store, provider):
    asked = []

    def guard(before, after):
        asked.append((pool(before.bots), pool(after.bots)))
        return "would drop 12 of 40 live bots" if pool(after.bots) == "other" else ""

    def pool(bots):
        return bots.group_of("b").dimensions["pool"][0]

    watcher = watch(tmp_path, store, provider, guard=guard)
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW) == Change("", digest(GOOD))
    write(tmp_path / "bots.cfg", OTHER)
    said = "bots.cfg:1:1: would drop 12 of 40 live bots"
    assert watcher.check(NOW + 1) == Rejected(digest(OTHER), NOW + 1, (said,))
    assert asked == [("unassigned", "default"), ("default", "other")]
    assert provider.latest().source.bots == GOOD
    apply(store, OTHER, digest(GOOD), NOW + 2)
    assert provider.rejected() is None
    assert watch(tmp_path, store, provider, guard=guard).check(NOW + 3) is None
    assert provider.latest().rev == 2


def test_check_asks_the_guard_nothing_about_files_that_were_acted_on(tmp_path, store, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watch(tmp_path, store, provider).check(NOW)
    apply(store, OTHER, digest(GOOD), NOW + 1)
    refusing = watch(tmp_path, store, provider, guard=lambda before, after: "no")
    assert refusing.check(NOW + 2) is None
    assert provider.rejected() is None


def test_check_forgets_the_bad_file_when_it_is_what_it_was(tmp_path, watcher, store, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    apply(store, OTHER, digest(GOOD), NOW + 1)
    write(tmp_path / "bots.cfg", "x")
    watcher.check(NOW + 2)
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW + 3) is None
    assert provider.rejected() is None
    assert provider.latest().source.bots == OTHER


def test_check_reads_and_judges_where_it_is_told_to(tmp_path, store, provider):
    """Parsing and looking at every bot may take long: not on the server's loop."""
    ran = []

    def native(fn):
        ran.append(True)
        assert provider.latest().rev == 0
        return fn()

    watcher = Watcher(
        tmp_path,
        provider,
        partial(push, store),
        partial(reject_config, store),
        lambda b, a: "",
        native,
    )
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW) == Change("", digest(GOOD))
    assert watcher.check(NOW + 1) is None
    assert ran == [True]


def test_check_forgets_the_bad_file_when_it_is_mended(tmp_path, watcher, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    write(tmp_path / "bots.cfg", "x")
    watcher.check(NOW + 1)
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW + 2) is None
    assert provider.rejected() is None


def test_check_keeps_out_a_file_whose_script_went_away(tmp_path, watcher, provider):
    write(tmp_path / "scripts" / "s.py", "# 1")
    write(tmp_path / "bots.cfg", HOOKED)
    watcher.check(NOW)
    (tmp_path / "scripts" / "s.py").unlink()
    rejected = watcher.check(NOW + 1)
    assert 'names a missing script "s.py"' in rejected.mistakes[0]
    assert provider.latest().bots.group_of("b").script == b"# 1"


def test_check_is_content_when_there_has_never_been_a_file(watcher, provider):
    assert watcher.check(NOW) is None
    assert provider.rejected() is None


def test_check_says_that_the_file_is_gone(tmp_path, watcher, provider):
    write(tmp_path / "bots.cfg", GOOD)
    watcher.check(NOW)
    (tmp_path / "bots.cfg").unlink()
    said = "bots.cfg:1:1: the file is gone; what it said stays in force"
    assert watcher.check(NOW + 1) == Rejected("raw:", NOW + 1, (said,))
    assert provider.latest().source.bots == GOOD


def test_check_says_when_the_file_cannot_be_read(tmp_path, watcher):
    (tmp_path / "bots.cfg").mkdir()
    rejected = watcher.check(NOW)
    assert rejected.mistakes == ("bots.cfg:1:1: cannot be read: Is a directory",)


def test_check_leaves_a_file_that_is_being_written_for_the_next_look(
    tmp_path, watcher, provider, monkeypatch
):
    path = tmp_path / "bots.cfg"
    write(path, GOOD[:200])
    read_bytes = type(path).read_bytes

    def and_meanwhile_the_editor_goes_on(self):
        content = read_bytes(self)
        if content != GOOD.encode():
            write(path, GOOD)
        return content

    monkeypatch.setattr(type(path), "read_bytes", and_meanwhile_the_editor_goes_on)
    assert watcher.check(NOW) is None
    assert provider.rejected() is None
    assert watcher.check(NOW + 1) == Change("", digest(GOOD))


def test_check_leaves_a_good_file_that_changes_while_it_is_read(tmp_path, watcher, monkeypatch):
    path = tmp_path / "bots.cfg"
    write(path, GOOD)
    read_bytes = type(path).read_bytes

    def and_meanwhile_it_changes(self):
        content = read_bytes(self)
        if content == GOOD.encode():
            write(path, OTHER)
        return content

    monkeypatch.setattr(type(path), "read_bytes", and_meanwhile_it_changes)
    assert watcher.check(NOW) is None
    assert watcher.check(NOW + 1) == Change("", digest(OTHER))


def test_check_tries_again_after_a_lost_race(tmp_path, store, provider):
    outcomes = iter([None, True])
    watcher = watch(tmp_path, store, provider, push_with=lambda source, **kw: next(outcomes))
    write(tmp_path / "bots.cfg", GOOD)
    assert watcher.check(NOW) is None
    assert watcher.check(NOW + 1) == Change("", digest(GOOD))


def test_check_tries_again_after_an_outage(tmp_path, store, provider):
    def failing(source, *, parent, now_ms):
        if now_ms == NOW:
            raise Outage("down")
        return push(store, source, parent=parent, now_ms=now_ms)

    watcher = watch(tmp_path, store, provider, push_with=failing)
    write(tmp_path / "bots.cfg", GOOD)
    with pytest.raises(Outage):
        watcher.check(NOW)
    assert watcher.check(NOW + 1) == Change("", digest(GOOD))


def test_check_ignores_a_script_that_disappears_while_it_looks(tmp_path, watcher, monkeypatch):
    write(tmp_path / "bots.cfg", GOOD)
    (tmp_path / "scripts").mkdir()
    os.symlink("nowhere", tmp_path / "scripts" / "s.py")
    assert watcher.check(NOW) == Change("", digest(GOOD))
