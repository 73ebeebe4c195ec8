"""Manifests: one form, every member, and the vectors that every implementation shares."""

import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.auth.release_signing import (
    Trust,
    development_key,
    key_id_of,
    public_bytes,
    sign_manifest,
    verify_archive,
)
from botapi.domain.manifest import (
    MANIFEST,
    SIGNATURE,
    BadManifest,
    Label,
    Manifest,
    Member,
    check_members,
    manifest_bytes,
    members_of,
    read_manifest,
    read_signature,
)
from tests.fakes.signed_zip import MEMBERS, OTHER_KEY, PUBLIC, signed
from tests.vectors.make_manifest import vectors

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "manifest.json"
TRUST = Trust({"main": PUBLIC}, {})
GOOD = manifest_bytes(Manifest(7, "0.1.0", members_of(MEMBERS)))


def test_manifest_has_exactly_one_form():
    assert manifest_bytes(Manifest(7, "0.1.0", (Member("a.py", 1, "0" * 64),))) == (
        b'{"files":[{"length":1,"name":"a.py","sha256":"' + b"0" * 64 + b'"}],'
        b'"format":1,"min_server":"0.1.0","release":7}'
    )
    assert manifest_bytes(read_manifest(GOOD)) == GOOD


def test_manifest_covers_every_member_but_the_generated_ones_and_itself():
    more = {"config/config.json": b"{}", "config/bot_config.py": b"", "config/x.py": b""}
    names = [m.name for m in members_of({**MEMBERS, **more, MANIFEST: b"", SIGNATURE: b""})]
    assert names == ["__main__.py", "bot_code/x.py", "config/x.py"]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.pop("release"),
        lambda said: said.update(release=0),
        lambda said: said.update(release=True),
        lambda said: said.update(release=1.0),
        lambda said: said.update(release=2**53),
        lambda said: said.update(format=2),
        lambda said: said.update(min_server=""),
        lambda said: said.update(more=1),
        lambda said: said.update(files={}),
        lambda said: said["files"].reverse(),
        lambda said: said["files"].append(said["files"][0]),
        lambda said: said["files"][0].update(length=-1),
        lambda said: said["files"][0].update(sha256="0" * 63),
        lambda said: said["files"][0].update(sha256="A" * 64),
        lambda said: said["files"][0].update(name=7),
    ],
)
def test_manifest_of_another_meaning_is_refused(change):
    said = json.loads(GOOD)
    change(said)
    raw = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(BadManifest, match=r"manifest\.json has not the form"):
        read_manifest(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", GOOD + b"\n", b" " + GOOD, GOOD.replace(b",", b", "), b"[" * 99999]
)
def test_manifest_in_another_form_is_refused(raw):
    with pytest.raises(BadManifest):
        read_manifest(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"key_id":"main","kind":"unsigned","sig":""}',
        b'{"key_id":"main","kind":"other","sig":"AA=="}',
        b'{"key_id":7,"kind":"release","sig":"AA=="}',
        b'{"kind":"release","key_id":"main","sig":"AA=="}',
        b'{"key_id":"main","kind":"release","more":1,"sig":"AA=="}',
    ],
)
def test_manifest_signature_in_another_form_is_refused(raw):
    with pytest.raises(BadManifest, match=r"manifest\.sig has not the form"):
        read_signature(raw)


@given(content=st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=9)), at=st.data())
def test_manifest_notices_every_change_of_a_member(content, at):
    manifest = read_manifest(manifest_bytes(Manifest(1, "1", members_of(content))))
    check_members(manifest, content)
    name = at.draw(st.sampled_from("abcdef"))
    changed = {**content, name: content.get(name, b"") + b"!"}
    with pytest.raises(BadManifest, match=f"^{name} is "):
        check_members(manifest, changed)


def test_manifest_is_verified_with_the_key_it_names():
    found = verify_archive(signed(7), TRUST)
    assert (found.label, found.key_id, found.manifest.release) == (Label.RELEASE, "main", 7)
    assert verify_archive(MEMBERS, TRUST) is None
    for bad in (signed(7, OTHER_KEY), signed(7, key_id="x"), signed(7, kind=Label.DEVELOPMENT)):
        with pytest.raises(BadManifest):
            verify_archive(bad, TRUST)


@pytest.mark.parametrize("sig", ["", "AAAA", "%%%", "A" * 88])
def test_manifest_with_a_signature_that_is_none_is_refused(sig):
    archive = signed(7)
    said = json.loads(archive[SIGNATURE])
    archive[SIGNATURE] = json.dumps({**said, "sig": sig}, separators=(",", ":")).encode()
    with pytest.raises(BadManifest):
        verify_archive(archive, TRUST)


def test_development_key_is_always_the_same_and_never_a_release_key():
    key = development_key(b"secret")
    public = public_bytes(key)
    assert public == public_bytes(development_key(b"secret"))
    assert public != public_bytes(development_key(b"other"))
    key_id = key_id_of(public)
    assert sign_manifest(key, Label.DEVELOPMENT, key_id, GOOD) == sign_manifest(
        key, Label.DEVELOPMENT, key_id, GOOD
    )
    claims_release = signed(7, key, key_id, kind=Label.RELEASE)
    with pytest.raises(BadManifest, match="no release key"):
        verify_archive(claims_release, Trust({}, {key_id: public}))


# Shared vectors.


def test_vectors_are_those_that_the_tool_makes():
    assert json.loads(VECTORS.read_text()) == vectors()


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["cases"], ids=lambda c: c["name"])
@pytest.mark.control("archive.manifest")
def test_manifest_vector(case):
    said = json.loads(VECTORS.read_text())
    trust = Trust({name: b64decode(key) for name, key in said["release_keys"].items()}, {})
    members = {name: b64decode(body) for name, body in case["members"].items()}
    if not case["is_good"]:
        with pytest.raises(BadManifest):
            verify_archive(members, trust)
        return
    found = verify_archive(members, trust)
    assert found.manifest.release == case["release"]
    assert (found.manifest.release >= said["running_release"]) is not case["is_downgrade"]


def test_vectors_have_a_case_for_each_way_to_be_wrong():
    names = {case["name"] for case in json.loads(VECTORS.read_text())["cases"]}
    assert {"good", "altered member", "extra member", "wrong key", "lower release number"} <= names
