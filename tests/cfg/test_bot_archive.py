"""The zip and its digest (bot-api 8.1, 8.2; Appendix B)."""

import io
import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.cfg.bot_archive import (
    BadArchive,
    comment,
    config_json,
    content_digest,
    pack,
    unpack,
    with_comment,
)

NAMES = st.from_regex(r"[a-z_]{1,5}(/[a-z_]{1,5}){0,2}\.py", fullmatch=True)
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=60), max_size=4)


def foreign(*members, comment=b""):
    """A zip as some other tool makes it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.comment = comment
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.spec("B.1.9")
@pytest.mark.parametrize(
    ("members", "digest"),
    [
        (
            {"__main__.py": b"print(1)\n", "config/config.json": b"{}"},
            "557ca9065545b4f8d1df15beb210058b5947a368fe0c0010d87ce9ee30c26d65",
        ),
        (
            {"b/c.txt": b"", "a.txt": b"hello"},
            "6e28a96f6904453f7a5f895d9920b53c5fe3f1816f9fe415f309d4363e72545a",
        ),
    ],
)
@pytest.mark.spec("8.2.p1", "B.1.9")
@pytest.mark.control("archive.digest")
def test_content_digest_is_that_of_the_specification(members, digest):
    assert content_digest(members) == digest
    assert pack(members).version == digest


@pytest.mark.spec("8.1.1.2")
def test_config_json_is_byte_for_byte_as_the_bot_expects_it():
    expected = b"""{
  "server": "https://skep.example.com",
  "bot_cipd_instance_id": "",
  "server_version": "",
  "enable_ts_monitoring": false
}"""
    assert config_json("https://skep.example.com") == expected
    assert config_json("https://skep.example.com/") == expected
    assert json.loads(config_json("http://ü/"))["server"] == "http://ü"


def test_pack_gives_the_same_bytes_whatever_the_order_of_the_members():
    one = pack({"a.py": b"1", "b/c.py": b"2" * 999})
    assert one == pack({"b/c.py": b"2" * 999, "a.py": b"1"})


def test_pack_writes_sorted_members_of_1980_with_mode_0600():
    content = pack({"b/c.py": b"2", "a.py": b"1", "__main__.py": b""}).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        assert archive.testzip() is None
    assert [info.filename for info in infos] == ["__main__.py", "a.py", "b/c.py"]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {0o100600}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_DEFLATED}
    assert {info.create_system for info in infos} == {3}


@pytest.mark.parametrize("name", ["é.py", "a\\b", "/a", "a//b", "../a", "a/./b", "a/", "", "a\nb"])
def test_pack_refuses_a_name_that_bot_and_server_could_count_differently(name):
    with pytest.raises(BadArchive, match="member name is not"):
        pack({name: b""})


@settings(deadline=None, max_examples=15)
@given(members=MEMBERS)
def test_unpack_is_the_inverse_of_pack(members):
    assert unpack(pack(members).content) == members


def test_unpack_leaves_out_folders_and_packaging_notes():
    content = foreign(("a/", ""), ("a/b.py", "1"), (".cipdpkg/manifest.json", "{}"))
    assert unpack(content) == {"a/b.py": b"1"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpack_refuses_a_member_that_is_there_twice():
    with pytest.raises(BadArchive, match="'a' is in it twice"):
        unpack(foreign(("a", "1"), ("a", "2")))


def test_unpack_refuses_what_would_fill_the_memory():
    with pytest.raises(BadArchive, match="unpacks to more than 10 bytes"):
        unpack(foreign(("a", "12345"), ("b", "123456")), max_bytes=10)


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 100, b"PK\x05\x06" + b"\xff" * 18])
def test_unpack_refuses_what_is_no_zip(content):
    with pytest.raises(BadArchive, match="not a readable zip"):
        unpack(content)


def test_unpack_refuses_a_damaged_or_encrypted_or_unknown_member():
    whole = pack({"a.py": b"hello" * 50}).content
    at = whole.index(b"a.py") + 8
    with pytest.raises(BadArchive, match="not a readable zip"):
        unpack(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    for offset, patch, said in ((8, b"\x01", "is encrypted"), (10, b"\x63", "neither stored nor")):
        where = whole.index(b"PK\x01\x02") + offset  # flags, compression method
        with pytest.raises(BadArchive, match=said):
            unpack(whole[:where] + patch + whole[where + 1 :])


@settings(deadline=None, max_examples=15)
@given(members=MEMBERS, text=st.text(max_size=30))
def test_with_comment_sets_the_comment_and_changes_no_member(members, text):
    packed = pack(members)
    with_one = with_comment(packed.content, text)
    assert comment(packed.content) == ""
    assert comment(with_one) == text
    assert content_digest(unpack(with_one)) == packed.version
    assert with_comment(with_one, "") == packed.content
    with zipfile.ZipFile(io.BytesIO(with_one)) as archive:
        assert archive.comment == text.encode()


def test_with_comment_replaces_a_comment_that_looks_like_the_end_of_a_zip():
    nasty = b"PK\x05\x06" + bytes(18) + b"tail"
    content = foreign(("a", "1"), comment=nasty)
    assert comment(with_comment(content, "token")) == "token"


def test_with_comment_bounds_the_comment():
    content = pack({}).content
    assert comment(with_comment(content, "x" * 65_535)) == "x" * 65_535
    with pytest.raises(ValueError, match="65536 > 65535"):
        with_comment(content, "x" * 65_536)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x05\x06", b"PK\x05\x06" + bytes(17) + b"zz"])
def test_with_comment_refuses_what_is_no_zip(content):
    with pytest.raises(BadArchive, match="not a zip"):
        with_comment(content, "x")
