"""Archives from a folder that is edited while the server runs, and from a foreign zip."""

import hashlib
import io
import zipfile

import pytest

from botapi.cfg.archive_builder import (
    MAX_URLS,
    MAX_VERSIONS,
    ArchiveBuilder,
    packaged_bot,
)
from botapi.cfg.bot_archive import BadArchive, config_json, content_digest, pack, unpack
from tests.auth.fixed import FixedClock

URL = "https://skep.example.com"


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "bot_client"
    (folder / "runtimes" / "__pycache__").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "zip_main.py").write_text("print('bot')\n")
    (folder / "runtimes" / "__init__.py").write_text("# runtimes\n")
    (folder / "runtimes" / "__pycache__" / "junk.py").write_text("")
    (folder / "README.md").write_text("not a module")
    return folder


@pytest.fixture
def hooks(tmp_path):
    return tmp_path / "scripts" / "bot_config.py"


@pytest.fixture
def builder(folder, hooks, clock):
    return ArchiveBuilder(folder, hooks, clock)


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


EXPECTED = {
    "__main__.py": b"print('bot')\n",
    "bot_client/__init__.py": b"",
    "bot_client/zip_main.py": b"print('bot')\n",
    "bot_client/runtimes/__init__.py": b"# runtimes\n",
    "config/config.json": config_json(URL),
}


def test_archive_holds_the_package_its_main_and_the_server(builder):
    archive = builder.archive(URL)
    assert unpack(archive.content) == EXPECTED
    assert archive == pack(EXPECTED)
    assert builder.problem() == ""


def test_archive_holds_the_hooks_when_there_are_some(builder, hooks, clock):
    assert builder.hooks_digest() == hashlib.sha256(b"").hexdigest()
    write(hooks, "# hooks\n")
    clock.advance(1)
    archive = builder.archive(URL)
    assert unpack(archive.content) == EXPECTED | {"config/bot_config.py": b"# hooks\n"}
    assert builder.hooks_digest() == hashlib.sha256(b"# hooks\n").hexdigest()


def test_archive_is_kept_while_the_sources_do_not_change(builder, clock):
    first = builder.archive(URL)
    clock.advance(5)
    assert builder.archive(URL) is first


def test_archive_differs_by_server(builder):
    one, other = builder.archive(URL), builder.archive("http://localhost:1")
    assert one.version != other.version
    assert builder.knows(one.version)
    assert builder.knows(other.version)
    assert not builder.knows("0" * 64)


def test_archive_follows_an_edit_within_a_second(builder, folder, clock):
    before = builder.archive(URL)
    write(folder / "extra.py", "x = 1\n")
    clock.advance(0.9)
    assert builder.archive(URL) is before
    clock.advance(0.1)
    after = builder.archive(URL)
    assert unpack(after.content) == EXPECTED | {"bot_client/extra.py": b"x = 1\n"}
    assert builder.knows(before.version)
    assert builder.is_current(after.version)
    assert not builder.is_current(before.version)


def test_generation_grows_when_other_sources_come_into_service(builder, folder, clock):
    before = builder.generation()
    clock.advance(1)
    assert builder.generation() == before
    write(folder / "extra.py", "x = 1\n")
    clock.advance(1)
    assert builder.generation() == before + 1
    write(folder / "extra.py", "def (:\n")
    clock.advance(1)
    assert builder.generation() == before + 1


def test_archive_stays_the_last_good_one_when_the_sources_break(builder, folder, clock):
    before = builder.archive(URL)
    write(folder / "extra.py", "def (:\n")
    clock.advance(1)
    assert builder.archive(URL) is before
    problem = builder.problem()
    assert problem.startswith(f"bot archive: {folder}: bot_client/extra.py does not parse: ")
    assert "\n" not in problem
    clock.advance(1)
    assert builder.archive(URL) is before
    (folder / "extra.py").unlink()
    clock.advance(1)
    assert builder.archive(URL) is before
    assert builder.problem() == ""


def test_archive_is_mended_by_a_further_edit(builder, folder, clock):
    builder.archive(URL)
    write(folder / "extra.py", "\0")
    clock.advance(1)
    builder.archive(URL)
    assert "does not parse" in builder.problem()
    write(folder / "extra.py", "x = 2\n")
    clock.advance(1)
    assert "bot_client/extra.py" in unpack(builder.archive(URL).content)
    assert builder.problem() == ""


def test_archive_stays_the_last_good_one_when_a_name_cannot_be_carried(builder, folder, clock):
    before = builder.archive(URL)
    write(folder / "grün.py", "")
    clock.advance(1)
    assert builder.archive(URL) is before
    assert "not plain ASCII" in builder.problem()


def test_archive_leaves_an_edit_in_progress_for_the_next_look(builder, folder, clock, monkeypatch):
    before = builder.archive(URL)
    write(folder / "a.py", "A = 1\n")
    read_bytes = type(folder).read_bytes

    def and_meanwhile_the_editor_goes_on(self):
        if not (folder / "b.py").exists():
            write(folder / "b.py", "B = 1\n")
        return read_bytes(self)

    monkeypatch.setattr(type(folder), "read_bytes", and_meanwhile_the_editor_goes_on)
    clock.advance(1)
    assert builder.archive(URL) is before
    clock.advance(1)
    assert {"bot_client/a.py", "bot_client/b.py"} <= {*unpack(builder.archive(URL).content)}


@pytest.mark.parametrize(
    ("missing", "said"),
    [("zip_main.py", "there is no zip_main.py in it"), ("", "there is no such folder or file")],
)
def test_archive_raises_when_there_has_never_been_a_good_one(
    folder, hooks, clock, tmp_path, missing, said
):
    if missing:
        (folder / missing).unlink()
    builder = ArchiveBuilder(folder if missing else tmp_path / "nowhere", hooks, clock)
    with pytest.raises(BadArchive, match=said):
        builder.archive(URL)
    assert said in builder.problem()


def test_archive_keeps_a_bounded_number_of_servers(builder):
    archives = [builder.archive(f"http://h{n}") for n in range(MAX_URLS + 1)]
    assert builder.archive(f"http://h{MAX_URLS}") is archives[-1]
    assert builder.archive("http://h0") is not archives[0]
    assert builder.archive("http://h0") == archives[0]


def test_archive_of_sources_that_changed_while_it_was_packed_is_not_kept(
    builder, folder, clock, monkeypatch
):
    def pack_slowly(members):
        monkeypatch.undo()
        write(folder / "extra.py", "x = 1\n")
        clock.advance(1)
        builder.archive("http://other")
        return pack(members)

    builder.generation()
    monkeypatch.setattr("botapi.cfg.archive_builder.pack", pack_slowly)
    assert unpack(builder.archive(URL).content) == EXPECTED
    assert "bot_client/extra.py" in unpack(builder.archive(URL).content)


def test_archive_forgets_old_versions(builder, monkeypatch):
    monkeypatch.setattr("botapi.cfg.archive_builder.MAX_VERSIONS", 2)
    versions = [builder.archive(f"http://h{n}").version for n in range(3)]
    assert [builder.knows(version) for version in versions] == [False, True, True]
    assert MAX_VERSIONS > MAX_URLS


def test_foreign_zip_is_served_with_its_generated_members_replaced(tmp_path, hooks, clock):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__main__.py", "theirs")
        archive.writestr("config/config.json", "{}")
        archive.writestr("config/bot_config.py", "# theirs")
        archive.writestr("bot_code/", "")
        archive.writestr("bot_code/x.py", "this is Python 2: print 1")
    source = tmp_path / "swarming_bot.zip"
    source.write_bytes(packed.getvalue())
    builder = ArchiveBuilder(source, hooks, clock)
    expected = {
        "__main__.py": b"theirs",
        "config/config.json": config_json(URL),
        "config/bot_config.py": b"# theirs",
        "bot_code/x.py": b"this is Python 2: print 1",
    }
    assert unpack(builder.archive(URL).content) == expected
    assert builder.archive(URL).version == content_digest(expected)
    write(hooks, "# ours")
    clock.advance(1)
    assert unpack(builder.archive(URL).content) == expected | {"config/bot_config.py": b"# ours"}


@pytest.mark.parametrize("broken", [b"not a zip", pack({"a.py": b""}).content])
def test_foreign_zip_that_is_no_bot_leaves_the_last_good_one(tmp_path, hooks, clock, broken):
    source = tmp_path / "bot.zip"
    source.write_bytes(pack({"__main__.py": b""}).content)
    builder = ArchiveBuilder(source, hooks, clock)
    before = builder.archive(URL)
    source.write_bytes(broken)
    clock.advance(1)
    assert builder.archive(URL) is before
    assert str(source) in builder.problem()


def test_source_that_cannot_be_read_leaves_the_last_good_one(builder, folder, clock, monkeypatch):
    before = builder.archive(URL)
    write(folder / "extra.py", "")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(folder), "read_bytes", refuse)
    clock.advance(1)
    assert builder.archive(URL) is before
    assert builder.problem().endswith("cannot be read: Permission denied")


def test_source_with_a_dangling_link_is_reported(builder, folder, clock):
    before = builder.archive(URL)
    (folder / "gone.py").symlink_to("nowhere")
    write(folder / "extra.py", "")
    clock.advance(1)
    assert builder.archive(URL) is before
    assert "cannot be read" in builder.problem()


def test_packaged_bot_is_beside_this_package_and_builds(hooks, clock):
    archive = ArchiveBuilder(packaged_bot(), hooks, clock).archive(URL)
    members = unpack(archive.content)
    assert {"__main__.py", "config/config.json", "bot_client/__init__.py"} <= {*members}
    assert members["__main__.py"] == members["bot_client/zip_main.py"]
