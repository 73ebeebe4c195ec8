"""`skep release`: make a release key, and sign a bot archive with it; no server is asked.

For whoever makes releases, on a machine of theirs: the private key never meets a server.
"""

import os
from base64 import b64encode
from pathlib import Path
from typing import IO, Any

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from botapi import __version__
from botapi.auth.release_signing import Trust, public_bytes, sign_manifest, verify_archive
from botapi.cfg.archive_builder import SourceReader, members_of_zip
from botapi.cfg.bot_archive import BadArchive, content_digest, pack
from botapi.clock import SystemClock
from botapi.domain.manifest import (
    GENERATED,
    MANIFEST,
    MAX_RELEASE_NUMBER,
    SIGNATURE,
    BadManifest,
    Label,
    Manifest,
    manifest_bytes,
    members_of,
)


class Invalid(click.ClickException):
    """What was given is no good: one line, and exit code 2 (docs/cli.md)."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it as every command prints its errors."""
        click.echo(f"error: {self.message}", file=file, err=True)


@click.group()
def release() -> None:
    """Make a release key, and sign bot archives with it."""


@release.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--id", "key_id", default="release", show_default=True, help="Name of the key.")
def keygen(file: Path, key_id: str) -> None:
    """Write a new private key to FILE (mode 0600); print what goes into settings.cfg."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as target:
        target.write(pem)
    public = b64encode(public_bytes(key)).decode()
    click.echo(f'release_key {{ id: "{key_id}" public_key: "{public}" role: RELEASE }}')


@release.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="PEM.")
@click.option("--id", "key_id", default="release", show_default=True, help="Name of the key.")
@click.option("--number", type=click.IntRange(1, MAX_RELEASE_NUMBER), required=True, help="Grows.")
@click.option("--min-server", default=__version__, show_default=True, help="Version it needs.")
def sign(
    source: Path, target: Path, key_file: Path, key_id: str, number: int, min_server: str
) -> None:
    """Sign the bot in SOURCE (its folder, or a zip) as release NUMBER; write the zip TARGET.

    The same sources, key and number give the same bytes.
    """
    try:
        key = _read_key(key_file)
        members = _members(source)
        raw = manifest_bytes(Manifest(number, min_server, members_of(members)))
        members |= {MANIFEST: raw, SIGNATURE: sign_manifest(key, Label.RELEASE, key_id, raw)}
        verify_archive(members, Trust({key_id: public_bytes(key)}, {}))
        packed = pack(members).content
        target.write_bytes(packed)
    except (BadArchive, BadManifest) as error:
        raise Invalid(f"{source}: {error}") from None
    except OSError as error:
        raise Invalid(f"{error.filename}: {error.strerror}") from None
    click.echo(f"release {number}: {content_digest(members)}")


def _read_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise Invalid(f"{file}: no private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Invalid(f"{file}: not an Ed25519 key")
    return key


def _members(source: Path) -> dict[str, bytes]:
    """The members to sign, without those that no signature covers."""
    if source.is_file():
        found = members_of_zip(source.read_bytes())
    else:
        found = dict(SourceReader(source, source / "no-hooks", SystemClock()).current().members)
    unsigned = {MANIFEST, SIGNATURE, *GENERATED}
    return {name: body for name, body in found.items() if name not in unsigned}
