"""Sources in a folder that is edited while the server runs, and in a foreign zip."""

import io
import zipfile

import pytest

from botapi.cfg.archive_builder import SourceReader, packaged_bot
from botapi.cfg.bot_archive import BadArchive, content_digest, pack
from tests.auth.fixed import FixedClock


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
def reader(folder, hooks, clock):
    return SourceReader(folder, hooks, clock)


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
}


def test_sources_are_the_package_and_its_main(reader):
    sources = reader.current()
    assert sources.members == EXPECTED
    assert sources.digest == content_digest(EXPECTED)
    assert sources.hooks is None
    assert reader.problem() == ""


@pytest.mark.spec("8.1.1.1")
def test_hooks_are_read_beside_the_members_when_there_are_some(reader, hooks, clock):
    before = reader.current()
    write(hooks, "# hooks\n")
    clock.advance(1)
    after = reader.current()
    assert (after.hooks, after.members, after.digest) == (
        b"# hooks\n",
        before.members,
        before.digest,
    )


def test_sources_are_kept_while_they_do_not_change(reader, clock):
    first = reader.current()
    clock.advance(5)
    assert reader.current() is first


def test_edit_is_read_within_a_second(reader, folder, clock):
    before = reader.current()
    write(folder / "extra.py", "x = 1\n")
    clock.advance(0.9)
    assert reader.current() is before
    clock.advance(0.1)
    after = reader.current()
    assert after.members == EXPECTED | {"bot_client/extra.py": b"x = 1\n"}
    assert after.digest != before.digest


def test_last_good_sources_stay_when_they_break(reader, folder, clock):
    before = reader.current()
    write(folder / "extra.py", "def (:\n")
    clock.advance(1)
    assert reader.current() is before
    problem = reader.problem()
    assert problem.startswith(f"bot archive: {folder}: bot_client/extra.py does not parse: ")
    assert "\n" not in problem
    clock.advance(1)
    assert reader.current() is before
    (folder / "extra.py").unlink()
    clock.advance(1)
    assert reader.current() is before
    assert reader.problem() == ""


def test_broken_sources_are_mended_by_a_further_edit(reader, folder, clock):
    reader.current()
    write(folder / "extra.py", "\0")
    clock.advance(1)
    reader.current()
    assert "does not parse" in reader.problem()
    write(folder / "extra.py", "x = 2\n")
    clock.advance(1)
    assert "bot_client/extra.py" in reader.current().members
    assert reader.problem() == ""


def test_last_good_sources_stay_when_a_name_cannot_be_carried(reader, folder, clock):
    before = reader.current()
    write(folder / "grün.py", "")
    clock.advance(1)
    assert reader.current() is before
    assert "not plain ASCII" in reader.problem()


def test_edit_in_progress_is_left_for_the_next_look(reader, folder, clock, monkeypatch):
    before = reader.current()
    write(folder / "a.py", "A = 1\n")
    read_bytes = type(folder).read_bytes

    def and_meanwhile_the_editor_goes_on(self):
        if not (folder / "b.py").exists():
            write(folder / "b.py", "B = 1\n")
        return read_bytes(self)

    monkeypatch.setattr(type(folder), "read_bytes", and_meanwhile_the_editor_goes_on)
    clock.advance(1)
    assert reader.current() is before
    clock.advance(1)
    assert {"bot_client/a.py", "bot_client/b.py"} <= {*reader.current().members}


@pytest.mark.parametrize(
    ("missing", "said"),
    [("zip_main.py", "there is no zip_main.py in it"), ("", "there is no such folder or file")],
)
def test_sources_that_were_never_good_raise(folder, hooks, clock, tmp_path, missing, said):
    if missing:
        (folder / missing).unlink()
    reader = SourceReader(folder if missing else tmp_path / "nowhere", hooks, clock)
    with pytest.raises(BadArchive, match=said):
        reader.current()
    assert said in reader.problem()


def test_foreign_zip_keeps_its_members_but_the_configuration(tmp_path, hooks, clock):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__main__.py", "theirs")
        archive.writestr("config/config.json", "{}")
        archive.writestr("config/bot_config.py", "# theirs")
        archive.writestr("bot_code/", "")
        archive.writestr("bot_code/x.py", "this is Python 2: print 1")
    source = tmp_path / "swarming_bot.zip"
    source.write_bytes(packed.getvalue())
    assert SourceReader(source, hooks, clock).current().members == {
        "__main__.py": b"theirs",
        "config/bot_config.py": b"# theirs",
        "bot_code/x.py": b"this is Python 2: print 1",
    }


@pytest.mark.parametrize("broken", [b"not a zip", pack({"a.py": b""}).content])
def test_foreign_zip_that_is_no_bot_leaves_the_last_good_one(tmp_path, hooks, clock, broken):
    source = tmp_path / "bot.zip"
    source.write_bytes(pack({"__main__.py": b""}).content)
    reader = SourceReader(source, hooks, clock)
    before = reader.current()
    source.write_bytes(broken)
    clock.advance(1)
    assert reader.current() is before
    assert str(source) in reader.problem()


def test_source_that_cannot_be_read_leaves_the_last_good_one(reader, folder, clock, monkeypatch):
    before = reader.current()
    write(folder / "extra.py", "")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(folder), "read_bytes", refuse)
    clock.advance(1)
    assert reader.current() is before
    assert reader.problem().endswith("cannot be read: Permission denied")


def test_source_with_a_dangling_link_is_reported(reader, folder, clock):
    before = reader.current()
    (folder / "gone.py").symlink_to("nowhere")
    write(folder / "extra.py", "")
    clock.advance(1)
    assert reader.current() is before
    assert "cannot be read" in reader.problem()


def test_packaged_bot_is_beside_this_package(hooks, clock):
    members = SourceReader(packaged_bot(), hooks, clock).current().members
    assert {"__main__.py", "bot_client/__init__.py"} <= {*members}
    assert members["__main__.py"] == members["bot_client/zip_main.py"]
