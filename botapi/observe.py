"""`/metrics`, `/healthz` and `/readyz`: what a server shows of itself (docs/observability.md).

The workers of one server leave what they counted in files of their own in one folder, so that
whichever of them is asked can answer for all. The process above them adds a worker that has
ended to those that are gone, so that no counter ever falls.
"""

import contextlib
import fcntl
import ipaddress
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
from flask import Flask, Request, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from botapi import __version__, metrics
from botapi.concurrency import Concurrency
from botapi.domain.errors import Refusal
from botapi.door import HTTP_STATUS, RETRY_AFTER_S, Door
from botapi.metrics import MERGE, REGISTRY, Merge
from botapi.scheduler.fleet_counts import FleetCounts
from botapi.scheduler.readiness import Found, Readiness
from botapi.settings import IPNetwork
from botapi.store.protocol import StoreError
from botapi.wire_json import dumps
from botapi.wsgi import TEXT_TYPE

PUBLISH_S = 5.0
"""Between two writings of what a worker has counted."""
MAX_GONE = 10_000
"""Workers that ended whose files are still told from those of living ones."""
_FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")

log = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct):
    """A metric with its values, by the name of the sample and the labels."""

    name: str
    kind: str
    text: str
    samples: dict[tuple[str, Labels], float] = {}


class Gone(msgspec.Struct):
    """What workers that ended had counted, and the names of their files."""

    families: list[Family] = []
    names: list[str] = []


_encode = msgspec.msgpack.Encoder().encode
_read_families = msgspec.msgpack.Decoder(list[Family]).decode
_read_gone = msgspec.msgpack.Decoder(Gone).decode


def counted_here() -> list[Family]:
    """What this process has counted."""
    found = []
    for metric in REGISTRY.collect():
        samples = {
            (one.name, tuple(sorted(one.labels.items()))): one.value for one in metric.samples
        }
        found.append(Family(metric.name, metric.type, metric.documentation, samples))
    return found


def merged(own: Iterable[Family], others: Iterable[Iterable[Family]]) -> list[Family]:
    """One server's metrics: counters and histograms added up, gauges as `MERGE` says."""
    total = {family.name: Family(**msgspec.structs.asdict(family)) for family in own}
    for family in total.values():
        family.samples = dict(family.samples)
    for family in (family for families in others for family in families):
        known = total.setdefault(family.name, Family(family.name, family.kind, family.text))
        _add(known, family)
    return list(total.values())


def _add(to: Family, more: Family) -> None:
    rule = MERGE.get(more.name, Merge.OWN) if more.kind == "gauge" else Merge.SUM
    for key, value in more.samples.items():
        known = to.samples.get(key)
        if rule is Merge.SUM:
            to.samples[key] = (known or 0.0) + value
        elif rule is Merge.MAX and (known is None or value > known):
            to.samples[key] = value


def rendered(families: Iterable[Family]) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return generate_latest(registry)


class _Collected:
    """Values as the library takes them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


class WorkerFiles:
    """The folder in which the workers of one server leave what they counted.

    Nothing is locked: a file is replaced whole, and one that was added to `gone` is known
    there by its name, which is never used again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""

    @classmethod
    def make(cls, data_dir: Path) -> tuple["WorkerFiles", IO[bytes]]:
        """A new folder below the data directory; it is in use while the lock is open.

        Folders whose processes have all ended are removed.
        """
        above = data_dir / "metrics"
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in above.iterdir():
            _remove_unless_used(old)
        folder = Path(tempfile.mkdtemp(dir=above))
        lock = (folder / "lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_SH)
        return cls(folder), lock

    def publish(self) -> None:
        """Leave what this process has counted."""
        if not self._name:
            self._name = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._write(self._name, _encode(counted_here()))

    def others(self) -> list[list[Family]]:
        """What the other workers counted, those that are gone too.

        The living are read first: one that ends meanwhile is in both, and counted once.
        """
        found = {}
        for path in self._folder.glob("[0-9]*"):
            if path.name != self._name and not path.suffix:
                with contextlib.suppress(OSError):
                    found[path.name] = _read_families(path.read_bytes())
        gone = self._gone()
        return [gone.families, *(found[name] for name in found.keys() - set(gone.names))]

    def bury(self, pid: int) -> None:
        """A worker has ended; called in the process above the workers only."""
        for path in self._folder.glob(f"{pid}-*"):
            if not path.suffix:
                self._add_to_gone(path)
            path.unlink()

    def remove(self) -> None:
        """The server ends."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add_to_gone(self, path: Path) -> None:
        gone = self._gone()
        ended = [f for f in _read_families(path.read_bytes()) if f.kind != "gauge"]
        names = [*gone.names, path.name][-MAX_GONE:]
        self._write("gone", _encode(Gone(merged(gone.families, [ended]), names)))

    def _gone(self) -> Gone:
        try:
            return _read_gone((self._folder / "gone").read_bytes())
        except FileNotFoundError:
            return Gone()

    def _write(self, name: str, data: bytes) -> None:
        part = self._folder / f"{name}.part"
        part.write_bytes(data)
        part.replace(self._folder / name)


def _remove_unless_used(folder: Path) -> None:
    try:
        with (folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError:
        pass  # made at this moment, or half removed
    else:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(kw_only=True)
class Observed:
    """What the three answers are made from.

    `may_read` raises Refusal unless whoever makes this request may read the metrics.
    `files` is None in a server of one process.
    """

    readiness: Readiness
    fleet: FleetCounts
    concurrency: Concurrency
    open_to: tuple[IPNetwork, ...]
    may_read: Callable[[Request], None]
    held_calls: Callable[[], int]
    files: WorkerFiles | None = None
    closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        metrics.BUILD_INFO.labels(__version__).set(1)
        metrics.WORKERS.set(1)
        metrics.HELD_CALLS.set_function(self.held_calls)
        self._stop = self.concurrency.event()

    def run(self) -> None:
        """Watch the clock, and leave what this worker counts in its file, until closed."""
        while not self.closed:
            try:
                self.readiness.watch()
            except StoreError as error:
                log.warning("the clock cannot be compared with the store: %s", error)
            self._publish()
            self._stop.wait(PUBLISH_S)

    def close(self) -> None:
        """Leave the last of it."""
        self.closed = True
        self._stop.set()
        self._publish()

    def text(self) -> bytes:
        """All metrics of this server."""
        self.readiness.found()
        self.fleet.refresh()
        return self.concurrency.outside(self._text)

    def _text(self) -> bytes:
        if self.files is None:
            return rendered(counted_here())
        self.files.publish()
        return rendered(merged(counted_here(), self.files.others()))

    def _publish(self) -> None:
        if self.files is not None:
            with contextlib.suppress(OSError):  # a full disk must not end it
                self.concurrency.outside(self.files.publish)


def install(app: Flask, observed: Observed, door: Door) -> None:
    """Add the three paths to the application."""

    def metrics_of_server() -> Response:
        try:
            if not _is_open(observed, door):
                observed.may_read(request)
        except Refusal as error:
            return _refused(error)
        except StoreError as error:
            return _line(f"the store: {error}", 503)
        return Response(observed.text(), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/metrics", "metrics", metrics_of_server)
    app.add_url_rule("/healthz", "healthz", lambda: Response("ok\n", content_type=TEXT_TYPE))
    app.add_url_rule("/readyz", "readyz", lambda: readyz(observed.readiness))


def readyz(readiness: Readiness) -> Response:
    """Is the server ready? In words, or as JSON where somebody asks for that."""
    found = readiness.found()
    status = 200 if found.is_ready else 503
    wants_json = request.args.get("format") == "json" or (
        request.accept_mimetypes.best_match(["text/plain", "application/json"])
        == "application/json"
    )
    if wants_json:
        body = {"ready": found.is_ready, "failing": found.failing, "warnings": found.warnings}
        response = Response(dumps(body) + b"\n", status, content_type="application/json")
    else:
        response = Response(_words(found), status, content_type=TEXT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _words(found: Found) -> str:
    named = [*found.failing, *found.warnings]
    return f"failing: {', '.join(named)}\n" if named else "ready\n"


def _is_open(observed: Observed, door: Door) -> bool:
    """Does the caller's network need no credential?

    What came through a proxy that is not trusted could come from anywhere.
    """
    is_forwarded = any(name in request.headers for name in _FORWARDED)
    if is_forwarded and not door.is_proxy(request.remote_addr or ""):
        return False
    try:
        address = ipaddress.ip_address(door.address(request))
    except ValueError:
        return False
    return any(address in network for network in observed.open_to)


def _refused(error: Refusal) -> Response:
    response = _line(error.message, HTTP_STATUS[error.code])
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _line(text: str, status: int) -> Response:
    response = Response(text + "\n", status, content_type=TEXT_TYPE)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response
