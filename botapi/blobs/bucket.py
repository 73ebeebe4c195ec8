"""Blobs as objects of a Google Cloud Storage bucket: `<prefix>/<two digits>/<hash>`.

Needs the extra `bucket`; its library is loaded when the engine is made. An upload goes through
a temporary file, so the digest is checked before the bucket sees a byte. A touch writes the
object's metadata, and a deletion names the metadata it has read: one that was touched meanwhile
stays.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from botapi.blobs.protocol import PIECE_BYTES, BadContent, Swept, Usage
from botapi.clock import Clock
from botapi.domain.cas import Digest, MissingBlob
from botapi.store.protocol import Outage, StoreFull

TOUCHED = "skep_touched_ms"
TOUCH_AGAIN_MS = 3_600_000
"""A touch younger than this is not written again."""
ASKED_AT_ONCE = 16
TIMEOUT_S = 60


class BucketBlobs:
    """The engine for a bucket. How much it may hold is for the bucket's owner to say."""

    def __init__(self, url: str, clock: Clock) -> None:
        """`url`: `gs://bucket/prefix`. Raises Outage in one line when it cannot be used."""
        bucket, _, prefix = url.removeprefix("gs://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._clock = clock
        self._errors, self._bucket = _open(bucket)

    def missing(self, digests: Collection[Digest]) -> list[Digest]:
        """See `BlobStore`."""
        asked = list(digests)
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            found = list(pool.map(self._touch, asked))
        return [digest for digest, is_here in zip(asked, found, strict=True) if not is_here]

    def _touch(self, digest: Digest) -> bool:
        while True:
            blob = self._asked(lambda: self._bucket.get_blob(self._name(digest), timeout=TIMEOUT_S))
            if blob is None or blob.size != digest.size:
                return False
            if self._clock.now_ms() - _touched_ms(blob) < TOUCH_AGAIN_MS:
                return True
            blob.metadata = {TOUCHED: str(self._clock.now_ms())}
            if self._if_unchanged(partial(blob.patch, if_metageneration_match=blob.metageneration)):
                return True

    def upload(self, digest: Digest) -> "BucketUpload":
        """See `BlobStore`."""
        return BucketUpload(self, digest)

    def read(self, digest: Digest, start: int, length: int) -> Generator[bytes]:
        """See `BlobStore`."""
        blob = self._asked(lambda: self._bucket.get_blob(self._name(digest), timeout=TIMEOUT_S))
        if blob is None or blob.size != digest.size:
            raise MissingBlob(digest)
        return self._pieces(blob, start, start + length)

    def _pieces(self, blob: Any, start: int, end: int) -> Generator[bytes]:  # noqa: ANN401
        while start < end:
            last = min(start + PIECE_BYTES, end) - 1
            get = partial(blob.download_as_bytes, start=start, end=last, raw_download=True)
            try:
                piece = self._asked(get)
            except _Gone:
                raise Outage("blobs: deleted while it was read") from None
            start += len(piece)
            yield piece

    def delete(self, digest: Digest) -> bool:
        """See `BlobStore`."""
        blob = self._bucket.blob(self._name(digest))
        try:
            self._asked(lambda: blob.delete(timeout=TIMEOUT_S))
        except _Gone:
            return False
        return True

    def sweep(self, part: int, before_ms: int) -> Swept:
        """See `BlobStore`."""
        kept, deleted = [0, 0], [0, 0]
        prefix = f"{self._prefix}{part:02x}/"
        for blob in self._asked(lambda: list(self._bucket.list_blobs(prefix=prefix))):
            count = deleted if self._delete_if_old(blob, before_ms) else kept
            count[0] += 1
            count[1] += blob.size or 0
        return Swept(Usage(*kept), Usage(*deleted))

    def _delete_if_old(self, blob: Any, before_ms: int) -> bool:  # noqa: ANN401
        if _touched_ms(blob) >= before_ms:
            return False
        act = partial(blob.delete, if_metageneration_match=blob.metageneration)
        return self._if_unchanged(act)

    def note_usage(self, usage: Usage) -> None:
        """See `BlobStore`: there is no budget to hold here."""

    def keep(self, digest: Digest, filled: Any) -> bool:  # noqa: ANN401 - a seekable file
        """Send a checked file; was it new?"""
        if self._touch(digest):
            return False
        blob = self._bucket.blob(self._name(digest))
        blob.metadata = {TOUCHED: str(self._clock.now_ms())}
        filled.seek(0)
        self._asked(lambda: blob.upload_from_file(filled, size=digest.size, timeout=TIMEOUT_S))
        return True

    def _if_unchanged(self, act: Callable[..., object]) -> bool:
        try:
            self._asked(partial(act, timeout=TIMEOUT_S))
        except (_Changed, _Gone):
            return False
        return True

    def _name(self, digest: Digest) -> str:
        return f"{self._prefix}{digest.hash[:2]}/{digest.hash}"

    def _asked(self, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - the library has no types
        try:
            return act()
        except self._errors.NotFound:
            raise _Gone from None
        except self._errors.PreconditionFailed:
            raise _Changed from None
        except (self._errors.GoogleAPIError, OSError) as error:
            raise Outage(f"blobs: the bucket: {type(error).__name__}: {error}") from error


class BucketUpload:
    """A temporary file without a name, until it has all its bytes."""

    def __init__(self, store: BucketBlobs, digest: Digest) -> None:
        self._store = store
        self._digest = digest
        self._hash = hashlib.sha256()
        self._size = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - see `abort`

    def write(self, piece: bytes) -> None:
        """See `Upload`."""
        self._size += len(piece)
        if self._size > self._digest.size:
            raise BadContent(f"more than the {self._digest.size} bytes of its digest")
        self._hash.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise StoreFull(f"blobs: temporary file: {error.strerror or error}") from error

    def commit(self) -> bool:
        """See `Upload`."""
        if self._size != self._digest.size or self._hash.hexdigest() != self._digest.hash:
            raise BadContent(f"{self._size} bytes of SHA-256 {self._hash.hexdigest()} came")
        return self._store.keep(self._digest, self._file)

    def abort(self) -> None:
        """See `Upload`."""
        with contextlib.suppress(OSError):
            self._file.close()


class _Changed(Exception):
    """Somebody wrote the object's metadata meanwhile."""


class _Gone(Exception):
    """There is no such object."""


def _touched_ms(blob: Any) -> int:  # noqa: ANN401
    said = str((blob.metadata or {}).get(TOUCHED, ""))
    if said.isdigit():
        return int(said)
    return int(blob.updated.timestamp() * 1000) if blob.updated else 0


def _open(name: str) -> tuple[Any, Any]:
    """The library's errors, and the bucket."""
    try:
        from google.api_core import exceptions  # noqa: PLC0415 - an optional part
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.cloud import storage  # type: ignore[attr-defined,unused-ignore]  # noqa: PLC0415
    except ImportError:
        line = "SKEP_BLOBS=gs://...: google-cloud-storage is missing; pip install 'skep[bucket]'"
        raise Outage(line) from None
    try:
        return exceptions, storage.Client().bucket(name)
    except (GoogleAuthError, OSError) as error:
        raise Outage(f"SKEP_BLOBS=gs://{name}: {error}") from error
