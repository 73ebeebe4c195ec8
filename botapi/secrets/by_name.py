"""Secrets of the server itself, named and not given: Google's Secret Manager, over plain HTTP.

`SKEP_X_FILE=sm://projects/P/secrets/S/versions/V` is read there and not from a disk, and the
key file of the secrets may be named so too (`SKEP_SECRETS_KEYS`). Whoever runs the process is
known by the metadata server of the machine; nothing is written to a log.
"""

import os
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3

from botapi.wire_json import WireError, decoder

SCHEME = "sm://"
NAME = re.compile(r"projects/[a-z0-9.:-]+/secrets/[A-Za-z0-9_-]+/versions/[A-Za-z0-9_-]+")
MAX_BYTES = 64 * 1024
"""Longest secret that Secret Manager keeps."""
TIMEOUT_S = 10.0
TRIES = 3
METADATA = "GCE_METADATA_HOST"
"""Host of the metadata server, as Google's own libraries read it."""
ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
"""Another address of Secret Manager, as Google's own tools read it."""
_answer = decoder(dict[str, Any])
_FILE = "_FILE"
_KEYS = "SKEP_SECRETS_KEYS"


class SecretError(Exception):
    """One line: which secret, and why it cannot be had."""


class SecretManager:
    """Reads secrets as the service account of this machine."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        host = environ.get(METADATA) or "metadata.google.internal"
        self._token_url = (
            f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        )
        url = environ.get(ENDPOINT) or "https://secretmanager.googleapis.com/"
        self._url = url if url.endswith("/") else url + "/"
        self._http = urllib3.PoolManager(
            retries=urllib3.Retry(
                TRIES,
                redirect=False,
                backoff_factor=0.2,
                status_forcelist=(429, 500, 502, 503),
                raise_on_status=False,
            ),
            timeout=TIMEOUT_S,
        )

    def read(self, name: str) -> bytes:
        """The value of `projects/P/secrets/S/versions/V`. Raises SecretError."""
        if NAME.fullmatch(name) is None:
            raise SecretError(f"{name}: give {SCHEME}projects/P/secrets/S/versions/V")
        try:
            token = self._get(self._token_url, {"Metadata-Flavor": "Google"})["access_token"]
        except (SecretError, LookupError, TypeError) as error:
            raise SecretError(f"{name}: this machine has no service account: {error}") from None
        found = self._get(f"{self._url}v1/{name}:access", {"Authorization": f"Bearer {token}"})
        try:
            return _value(found["payload"])
        except (LookupError, TypeError, ValueError) as error:
            raise SecretError(f"{name}: an answer without the value: {error}") from None

    def _get(self, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        try:
            reply = self._http.request("GET", url, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise SecretError(f"{url}: {type(error).__name__}") from None
        if reply.status != 200:
            hint = ": grant it roles/secretmanager.secretAccessor" if reply.status == 403 else ""
            raise SecretError(f"{url}: HTTP {reply.status}{hint}")
        try:
            return _answer.decode(reply.data)
        except WireError:
            raise SecretError(f"{url}: no JSON") from None


def _value(payload: Mapping[str, str]) -> bytes:
    data = b64decode(payload["data"], validate=True)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes")
    return data


def resolved(
    environ: Mapping[str, str],
    data_dir: Path,
    read: Callable[[str], bytes] | None = None,
) -> dict[str, str]:
    """The environment with what `sm://` names in place of the names.

    The key file becomes a file of mode 0400 in `data_dir`, which on App Engine is memory.
    Raises SecretError.
    """
    named = {
        name: value.removeprefix(SCHEME)
        for name, value in environ.items()
        if value.startswith(SCHEME) and name.startswith("SKEP_")
    }
    if not named:
        return dict(environ)
    fetch = read or SecretManager(environ).read
    found = dict(environ)
    for name, secret in named.items():
        value = fetch(secret)
        if name == _KEYS:
            found[name] = str(_keep(data_dir / "secrets.keys", value))
        elif name.endswith(_FILE):
            del found[name]
            found[name.removesuffix(_FILE)] = _text(name, value)
        else:
            raise SecretError(f"{name}: name a secret with {name}{_FILE}={SCHEME}...")
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretError(f"{name}: the secret is not UTF-8 text") from None


def _keep(path: Path, value: bytes) -> Path:
    """The file, private from its first byte on, and whole when it has its name."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(handle, "wb") as file:
            file.write(value)
        part.replace(path)
    except OSError as error:
        raise SecretError(f"{path}: cannot be written: {error.strerror}") from None
    return path
