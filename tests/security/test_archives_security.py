"""Uploads that mean harm, and downloads that nobody should have."""

import io
import stat
import warnings
import zipfile

import pytest

from botapi.cfg.bot_archive import MAX_MEMBERS, MAX_RATIO, BadArchive, unpack
from tests.fakes.person import Person, new_key
from tests.fakes.sim_bot import BOT_PATH

MAIN = ("__main__.py", b"print(1)\n")


def entry(name, mode=0o100600, **more):
    info = zipfile.ZipInfo(name)
    info.filename = info.orig_filename = name  # as it was given: no clean-up of Python's
    info.external_attr = mode << 16
    for key, value in more.items():
        setattr(info, key, value)
    return info


def zipped(*members, compression=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, body in members:
            archive.writestr(name, body)
    return packed.getvalue()


def patched(content, old, new):
    """The zip with bytes of equal length replaced everywhere, as no tool would write it."""
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


BOMB = b"\0" * (40 * 1024 * 1024)
CORPUS = {
    "absolute": zipped(MAIN, (entry("/etc/passwd"), b"")),
    "climbing": zipped(MAIN, (entry("../../etc/passwd"), b"")),
    "climbing in the middle": zipped(MAIN, (entry("a/../../b"), b"")),
    "climbing folder": zipped(MAIN, (entry("../a/", 0o040700), b"")),
    "dot": zipped(MAIN, (entry("a/./b"), b"")),
    "nothing between slashes": zipped(MAIN, (entry("a//b"), b"")),
    "backslash": zipped(MAIN, (entry("a\\..\\b"), b"")),
    "drive": zipped(MAIN, (entry("C:/x.py"), b"")),
    "drive without a slash": zipped(MAIN, (entry("c:x.py"), b"")),
    "NUL": patched(zipped(MAIN, (entry("okXevil"), b"")), b"okXevil", b"ok\0evil"),
    "NUL first": patched(zipped(MAIN, (entry("Xevil"), b"")), b"Xevil", b"\0evil"),
    "line end": zipped(MAIN, (entry("a\nb"), b"")),
    "not ASCII": zipped(MAIN, (entry("gr\u00fcn.py"), b"")),
    "right to left": zipped(MAIN, (entry("a\u202eyp.x"), b"")),
    "symlink": zipped(MAIN, (entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd")),
    "device": zipped(MAIN, (entry("null", stat.S_IFCHR | 0o600), b"")),
    "pipe": zipped(MAIN, (entry("pipe", stat.S_IFIFO | 0o600), b"")),
    "twice": zipped(MAIN, MAIN),
    "case": zipped(MAIN, ("a/B.py", b""), ("A/b.py", b"")),
    "file and folder": zipped(MAIN, ("a", b""), ("a/b.py", b"")),
    "file and folder by case": zipped(MAIN, ("A", b""), ("a/b.py", b"")),
    "in the packaging notes": zipped(MAIN, (entry(".cipdpkg/../../x"), b"")),
    "many": zipped(MAIN, *((f"m{n}", b"") for n in range(MAX_MEMBERS))),
    "bomb": zipped(MAIN, ("zeros", BOMB)),
    "LZMA": zipped(MAIN, compression=zipfile.ZIP_LZMA),
    "damaged LZMA": zipped(MAIN, compression=zipfile.ZIP_LZMA).replace(b"\x5d\0", b"\xff\xff"),
    "BZIP2": zipped(MAIN, compression=zipfile.ZIP_BZIP2),
    "larger than all": zipped(MAIN, ("a", BOMB), ("b", BOMB)),
    "encrypted": zipped(MAIN, ("x.py", b"")).replace(
        b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"
    ),
    "not what its checksum says": patched(
        zipped(("__main__.py", b"print(1)"), compression=zipfile.ZIP_STORED),
        b"print(1)",
        b"print(2)",
    ),
    "cut": zipped(MAIN)[:-30],
    "no zip": b"#!/bin/sh\n",
    "empty": b"",
    "empty zip": zipped(),
}


@pytest.mark.control("archive.zip")
@pytest.mark.parametrize("name", CORPUS)
def test_zip_slip_corpus(name, client, store, clock, rng, parts):
    admin = Person(client, new_key(store, clock, rng))
    before = parts.archives.deployed()
    reply = admin.call("POST", "/archives", data=CORPUS[name])
    assert reply.status_code == 400, reply.text
    assert reply.json["detail"].startswith("the archive is refused: ")
    assert "\n" not in reply.json["detail"]
    assert parts.archives.deployed() == before
    assert store.scan_keys("archive", "chunk", "chunk~", limit=9) == [f"chunk!{before.stable}!0000"]


def test_harmless_zip_is_taken():
    """The corpus is refused for what is bad in it."""
    plain = zipped(MAIN, ("a/", b""), ("a/b.py", b"x"), (entry("c.py", 0o100755), b""))
    assert {*unpack(plain)} == {"__main__.py", "a/b.py", "c.py"}
    assert len(unpack(zipped(MAIN, ("zeros", b"\0" * 1_000_000)))) == 2
    with pytest.raises(BadArchive, match=f"more than {MAX_RATIO} times its size"):
        unpack(CORPUS["bomb"])


@pytest.mark.parametrize("version", ["..", "%2e%2e", "a" * 5000, "0" * 64, "\u00fc", "-"])
def test_strange_versions_are_unknown_and_never_an_error(client, version):
    reply = client.get(f"{BOT_PATH}/bot_code/{version}")
    assert reply.status_code in {403, 404}


def test_strange_host_headers_make_no_archives_for_strangers(parts, client, monkeypatch):
    """Building costs time: only who may have the archive, or knows a version, causes it."""
    version = parts.archives.archive("http://localhost").version
    built = []
    build = type(parts.archives)._archive
    monkeypatch.setattr(
        type(parts.archives), "_archive", lambda self, *key: built.append(key) or build(self, *key)
    )
    for n in range(5):
        host = {"Host": f"evil{n}.example"}
        assert client.get("/bot_code", headers=host).status_code == 403
        assert client.get("/bot_code?tok=x", headers=host).status_code == 403
        assert client.get(f"{BOT_PATH}/bot_code/{'0' * 64}", headers=host).status_code == 403
    assert built == []
    assert client.get(f"{BOT_PATH}/bot_code/{version}").status_code == 200


def test_private_keys_are_in_no_archive_and_no_answer(parts, client, store, clock, rng):
    admin = Person(client, new_key(store, clock, rng))
    archive = parts.archives.archive("http://localhost")
    shown = [archive.content, admin.get("/archives").data, admin.get("/rollout").data]
    for secret in parts.bots.keys.keys("development"):
        assert all(secret not in text for text in shown)
