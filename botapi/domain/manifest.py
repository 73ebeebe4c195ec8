"""What a signed bot archive says of itself: its members, its number, the server it needs.

The manifest is the member `manifest.json`, its signature the member `manifest.sig`
(docs/archives.md). Both have exactly one form for one meaning, so that whoever reads one
and writes it again gets the same bytes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
GENERATED = frozenset({"config/config.json", "config/bot_config.py"})
"""Members that the server makes for each address: no manifest covers them (bot-api 8.1)."""
FORMAT = 1
MAX_RELEASE_NUMBER = 2**53 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANY = re.compile(r".{1,512}", re.DOTALL)
_MIN_SERVER = re.compile(r"[0-9A-Za-z.+\-]{1,40}")


class BadManifest(Exception):
    """A manifest or signature that proves nothing; one line says why."""


class Label(StrEnum):
    """Who vouches for a release."""

    RELEASE = "release"
    """Signed by a release key of settings.cfg."""
    DEVELOPMENT = "development"
    """Built by a server from its own sources and signed with its development key."""
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its length in bytes and its SHA-256 in hex."""

    name: str
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every member but the generated ones and the manifest itself, by name."""

    release: int
    """Grows from release to release; 1 or more."""
    min_server: str
    members: tuple[Member, ...]


def members_of(content: Mapping[str, bytes]) -> tuple[Member, ...]:
    """The entries of a manifest for an archive with these members, by name."""
    covered = sorted(content.keys() - GENERATED - {MANIFEST, SIGNATURE})
    return tuple(
        Member(name, len(content[name]), sha256(content[name]).hexdigest()) for name in covered
    )


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of `manifest.json`: JSON in ASCII, keys sorted, no blanks, no line end."""
    return _json(
        {
            "format": FORMAT,
            "release": manifest.release,
            "min_server": manifest.min_server,
            "files": [
                {"name": member.name, "length": member.length, "sha256": member.sha256}
                for member in manifest.members
            ],
        }
    )


def read_manifest(raw: bytes) -> Manifest:
    """The manifest in `manifest.json`. Raises BadManifest for anything but its one form."""
    try:
        manifest = _manifest_of(json.loads(raw))
    except _WRONG:
        manifest = None
    if manifest is None or manifest_bytes(manifest) != raw:
        raise BadManifest(f"{MANIFEST} has not the form of docs/archives.md")
    return manifest


def check_members(manifest: Manifest, content: Mapping[str, bytes]) -> None:
    """Is the archive exactly what the manifest says? Raises BadManifest that names a member."""
    said = {member.name: member for member in manifest.members}
    there = {member.name: member for member in members_of(content)}
    for name in sorted(said.keys() | there.keys()):
        if name not in there:
            raise BadManifest(f"{name} is in {MANIFEST} and not in the archive")
        if name not in said:
            raise BadManifest(f"{name} is in the archive and not in {MANIFEST}")
        if said[name] != there[name]:
            raise BadManifest(f"{name} is not what {MANIFEST} says")


@dataclass(frozen=True, slots=True)
class Signature:
    """The content of `manifest.sig`: which key signed the manifest's exact bytes."""

    kind: Label
    key_id: str
    sig: str
    """64 bytes of Ed25519 in base64."""


def signature_bytes(signature: Signature) -> bytes:
    """The content of `manifest.sig`, in the same form as the manifest."""
    return _json({"kind": signature.kind, "key_id": signature.key_id, "sig": signature.sig})


def read_signature(raw: bytes) -> Signature:
    """The signature in `manifest.sig`. Raises BadManifest."""
    try:
        said = json.loads(raw)
        signature = Signature(Label(said["kind"]), _text(said["key_id"]), _text(said["sig"]))
    except _WRONG:
        signature = None
    if signature is None or signature.kind is Label.UNSIGNED or signature_bytes(signature) != raw:
        raise BadManifest(f"{SIGNATURE} has not the form of docs/archives.md")
    return signature


_WRONG = (ValueError, TypeError, KeyError, RecursionError)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def _manifest_of(said: Mapping[str, Any]) -> Manifest:
    """Raises one of `_WRONG` when the types or values are not those of a manifest."""
    members = tuple(
        Member(_text(f["name"]), _whole(f["length"], 0), _text(f["sha256"], _SHA256))
        for f in said["files"]
    )
    names = [member.name for member in members]
    if names != sorted(set(names)):
        raise ValueError("not in order, or twice")
    return Manifest(_whole(said["release"], 1), _text(said["min_server"], _MIN_SERVER), members)


def _text(value: object, form: "re.Pattern[str]" = _ANY) -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise TypeError("not such a text")
    return value


def _whole(value: object, low: int) -> int:
    if type(value) is not int or not low <= value <= MAX_RELEASE_NUMBER:
        raise TypeError("not such a number")
    return value
