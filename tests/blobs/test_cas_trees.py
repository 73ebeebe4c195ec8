"""Digests and directory messages: the bytes of protobuf itself, and what must not be laid out."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from bot_client import cas as bot
from botapi.ctl import blobs as ctl
from botapi.domain import cas
from botapi.domain.cas import (
    BadTree,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    MissingBlob,
    SymlinkNode,
)

A, B = Digest.of(b"a"), Digest.of(b"bb")
ODD = ["a" * 64 + "/01", "A" * 64 + "/1", "a" * 64 + "/9223372036854775808"]
F = descriptor_pb2.FieldDescriptorProto


def messages():
    """The messages of the Remote Execution API, from its published field numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="re.proto", package="re", syntax="proto3")
    fields = {
        "Digest": [("hash", 1, F.TYPE_STRING, ""), ("size_bytes", 2, F.TYPE_INT64, "")],
        "FileNode": [
            ("name", 1, F.TYPE_STRING, ""),
            ("digest", 2, F.TYPE_MESSAGE, "Digest"),
            ("is_executable", 4, F.TYPE_BOOL, ""),
        ],
        "DirectoryNode": [
            ("name", 1, F.TYPE_STRING, ""),
            ("digest", 2, F.TYPE_MESSAGE, "Digest"),
        ],
        "SymlinkNode": [("name", 1, F.TYPE_STRING, ""), ("target", 2, F.TYPE_STRING, "")],
        "Directory": [
            ("files", 1, F.TYPE_MESSAGE, "FileNode"),
            ("directories", 2, F.TYPE_MESSAGE, "DirectoryNode"),
            ("symlinks", 3, F.TYPE_MESSAGE, "SymlinkNode"),
        ],
    }
    for name, rows in fields.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in rows:
            label = F.LABEL_REPEATED if name == "Directory" else F.LABEL_OPTIONAL
            row = message.field.add(name=field, number=number, type=kind, label=label)
            if of:
                row.type_name = f".re.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("re.Directory"))


MESSAGE = messages()
names = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."})
digests = st.builds(
    Digest, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 2**63 - 1)
)


@st.composite
def directories(draw):
    left = draw(st.lists(names, unique=True, max_size=9))
    cut = draw(st.integers(0, len(left)))
    end = draw(st.integers(cut, len(left)))
    return Directory(
        tuple(FileNode(name, draw(digests), draw(st.booleans())) for name in left[:cut]),
        tuple(DirectoryNode(name, draw(digests)) for name in left[cut:end]),
        tuple(SymlinkNode(name, draw(names)) for name in left[end:]),
    )


def by_name(nodes):
    return sorted(nodes, key=lambda node: node.name.encode())


def as_protobuf(directory: Directory) -> bytes:
    message = MESSAGE()
    for file in by_name(directory.files):
        node = message.files.add(name=file.name, is_executable=file.is_executable)
        node.digest.hash, node.digest.size_bytes = file.digest.hash, file.digest.size
    for folder in by_name(directory.directories):
        node = message.directories.add(name=folder.name)
        node.digest.hash, node.digest.size_bytes = folder.digest.hash, folder.digest.size
    for link in by_name(directory.symlinks):
        message.symlinks.add(name=link.name, target=link.target)
    return message.SerializeToString(deterministic=True)


def of_the_bot(directory: Directory) -> bot.Directory:
    def digest(of: Digest) -> bot.Digest:
        return bot.Digest(of.hash, of.size)

    return bot.Directory(
        [bot.FileNode(f.name, digest(f.digest), f.is_executable) for f in directory.files],
        [bot.DirectoryNode(d.name, digest(d.digest)) for d in directory.directories],
        [bot.SymlinkNode(link.name, link.target) for link in directory.symlinks],
    )


@given(directories())
def test_folder_has_the_bytes_of_protobuf_everywhere(directory):
    wire = as_protobuf(directory)
    assert cas.encode(directory) == wire
    assert bot.encode(of_the_bot(directory)) == wire
    assert (
        ctl.encode_folder(
            [(f.name, str(f.digest), f.is_executable) for f in directory.files],
            [(d.name, str(d.digest)) for d in directory.directories],
            [(link.name, link.target) for link in directory.symlinks],
        )
        == wire
    )


@given(directories())
def test_folder_is_read_back_as_it_was(directory):
    expected = Directory(
        *(tuple(by_name(n)) for n in (directory.files, directory.directories, directory.symlinks))
    )
    assert cas.decode(cas.encode(directory)) == expected
    assert bot.decode(cas.encode(directory)) == of_the_bot(expected)


@given(st.binary(max_size=60))
def test_other_bytes_are_a_folder_or_refused(content):
    try:
        cas.decode(content)
    except BadTree:
        with pytest.raises(bot.BadTree):
            bot.decode(content)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/etc", "a\\b", "a\0b", "x" * 256])
@pytest.mark.parametrize(("decode", "error"), [(cas.decode, BadTree), (bot.decode, bot.BadTree)])
def test_name_that_is_no_plain_name_is_refused(name, decode, error):
    for directory in (
        Directory((FileNode(name, A),)),
        Directory((), (DirectoryNode(name, A),)),
        Directory((), (), (SymlinkNode(name, "x"),)),
    ):
        with pytest.raises(error):
            decode(cas.encode(directory))


@pytest.mark.parametrize(("decode", "error"), [(cas.decode, BadTree), (bot.decode, bot.BadTree)])
def test_name_twice_and_other_digests_are_refused(decode, error):
    twice = Directory((FileNode("a", A),), (), (SymlinkNode("a", "x"),))
    other = Directory((FileNode("a", Digest("A" * 64, 1)),))
    for directory in (twice, other):
        with pytest.raises(error):
            decode(cas.encode(directory))


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("a", "b", True),
        ("a/b/c", "../../x", True),
        ("a/b", "./x//y", True),
        ("a", "..", False),
        ("a/b", "../../x", False),
        ("a/b", "c/../../../x", False),
        ("a", "/etc/passwd", False),
        ("a", "..\\x", False),
    ],
)
def test_link_stays_inside_or_not(path, target, inside):
    assert cas.stays_inside(path, target) is inside
    assert bot.stays_inside(path, target) is inside


def tree_of(*folders: Directory):
    return {Digest.of(cas.encode(folder)): cas.encode(folder) for folder in folders}


def reader(blobs):
    def read(digest):
        if digest not in blobs:
            raise MissingBlob(digest)
        return blobs[digest]

    return read


def test_walk_gives_every_file_and_link():
    below = Directory((FileNode("b", B, True),), (), (SymlinkNode("up", "../a"),))
    root = Directory((FileNode("a", A),), (DirectoryNode("sub", Digest.of(cas.encode(below))),))
    blobs = tree_of(below, root)
    found = {entry.path: entry for entry in cas.walk(Digest.of(cas.encode(root)), reader(blobs))}
    assert set(found) == {"a", "sub/b", "sub/up"}
    assert found["sub/b"] == cas.find(Digest.of(cas.encode(root)), "sub/b", reader(blobs))
    assert cas.find(Digest.of(cas.encode(root)), "sub/none/b", reader(blobs)) is None


def test_walk_refuses_a_link_out_of_the_tree_and_a_missing_folder():
    root = Directory((), (), (SymlinkNode("up", "../a"),))
    with pytest.raises(BadTree, match="out of the tree"):
        list(cas.walk(Digest.of(cas.encode(root)), reader(tree_of(root))))
    with pytest.raises(MissingBlob):
        list(cas.walk(A, reader({})))


def test_walk_ends_at_a_tree_of_too_many_entries(monkeypatch):
    monkeypatch.setattr(cas, "MAX_ENTRIES", 10)
    level = Directory()
    blobs = {}
    for _ in range(5):  # 2 ** 5 folders from five messages
        blobs |= tree_of(level)
        digest = Digest.of(cas.encode(level))
        level = Directory((), (DirectoryNode("a", digest), DirectoryNode("b", digest)))
    blobs |= tree_of(level)
    with pytest.raises(BadTree, match="entries"):
        list(cas.walk(Digest.of(cas.encode(level)), reader(blobs)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/1",
        "g" * 64 + "/1",
        "a" * 64,
        "a" * 64 + "/-1",
        "a" * 64 + "/01",
        "A" * 64 + "/1",
        "a" * 64 + "/9223372036854775808",
    ],
)
def test_text_that_is_no_digest_is_refused(text):
    with pytest.raises(ValueError, match="not <SHA-256"):
        Digest.parse(text)
