"""The archives that bots are given: which release for whom, built for each server address.

Kind `archive` holds `deployment` (what runs where, and which releases are kept), `versions`
(every version that was ever named to a bot, with its release), `chunk!<release>!<n>` (the
zip of a release, in pieces) and `manifest!<release>` (of the server's own builds). Their
bodies are made and read here; `transactions` writes them.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

import msgspec

from botapi.auth.release_signing import Trust, Verified, verify_archive, without_unproved
from botapi.cfg.archive_builder import SourceReader, Sources
from botapi.cfg.bot_archive import (
    CONFIG_JSON,
    HOOKS,
    Archive,
    BadArchive,
    config_json,
    content_digest,
    pack,
    unpack,
)
from botapi.cfg.provider import Provider
from botapi.clock import Clock
from botapi.concurrency import Concurrency, Event
from botapi.domain.bot_groups import BotGroup
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import Deployment
from botapi.domain.manifest import (
    MANIFEST,
    SIGNATURE,
    BadManifest,
    Member,
    members_of,
)
from botapi.domain.rollout import Channels, Deployed, channels_of, expected_release
from botapi.store import schema
from botapi.store.protocol import Doc, Key, Store, join_key, prefix_range
from botapi.store.walk import walk
from botapi.wire_json import reader

KIND = "archive"
TOPIC = "archive"
DEPLOYMENT_KEY = "deployment"
VERSIONS_KEY = "versions"
CHUNK_BYTES = 307_200
CHUNKS_PER_READ = 16
MAX_VERSIONS = 2_000
MAX_CACHED_BYTES = 128 * 1024 * 1024
"""Most bytes of finished archives, and as many of unpacked releases, kept in memory."""
MAX_CACHED_VERSIONS = 4_096
LOOK_AGAIN_S = 30.0
WAIT_S = 20.0
"""Longest that a call waits for what another one reads or builds."""

V = TypeVar("V")

_read_deployed = reader(Deployed)


def deployment_doc(deployed: Deployed, was: Doc | None = None) -> Doc:
    """The document `deployment`."""
    body = msgspec.to_builtins(deployed, builtin_types=(bytes,))
    return Doc(DEPLOYMENT_KEY, schema.body(body, was))


def read_deployment(doc: Doc | None) -> Deployed:
    """What `deployment` says; nothing yet when there is none."""
    return Deployed() if doc is None else _read_deployed(doc.body)


def versions_doc(versions: Mapping[str, tuple[str, int]], was: Doc | None = None) -> Doc:
    """The document `versions`: release and time (ms) of the newest versions."""
    newest = sorted(versions.items(), key=lambda item: item[1][1], reverse=True)
    kept = {version: list(said) for version, said in newest[:MAX_VERSIONS]}
    return Doc(VERSIONS_KEY, schema.body({"versions": kept}, was))


def read_versions(doc: Doc | None) -> dict[str, tuple[str, int]]:
    """Version to release and time."""
    if doc is None:
        return {}
    return {version: (said[0], said[1]) for version, said in doc.body["versions"].items()}


def chunk_docs(release_id: str, packed: bytes) -> Iterator[Doc]:
    """The zip of a release, in pieces."""
    for number, at in enumerate(range(0, len(packed), CHUNK_BYTES)):
        key = join_key("chunk", release_id, f"{number:04d}")
        yield Doc(key, schema.body({"data": packed[at : at + CHUNK_BYTES]}))


def chunk_range(release_id: str) -> tuple[Key, Key]:
    """The pieces of one release."""
    return prefix_range("chunk", release_id)


def manifest_key(release_id: str) -> Key:
    """Where the manifest of one of the server's own builds is."""
    return join_key("manifest", release_id)


def manifest_doc(release_id: str, manifest: bytes, signature: bytes) -> Doc:
    """The manifest and signature of one of the server's own builds."""
    body = schema.body({"manifest": manifest, "signature": signature})
    return Doc(manifest_key(release_id), body)


@dataclass(frozen=True, slots=True)
class Build:
    """The server's own sources, ready to be stored; `verified` when they came signed."""

    release_id: str
    packed: bytes
    size: int
    members: tuple[Member, ...]
    verified: Verified | None


class BoundedCache(Generic[V]):
    """The values used last, up to a number of bytes in all; one larger than that is not kept."""

    def __init__(self, max_bytes: int, size: Callable[[V], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[Any, V] = OrderedDict()
        self._bytes = 0

    def get(self, key: object) -> V | None:
        """The value, which counts as used now."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
        return found

    def put(self, key: object, value: V) -> None:
        """Keep it, and drop what was not used for longest."""
        old = self._values.pop(key, None)
        self._bytes += self._size(value) - (self._size(old) if old is not None else 0)
        self._values[key] = value
        while self._bytes > self._max_bytes:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= self._size(dropped)


class Releases:
    """The archives of one server process; calls come from greenlets, not from native threads.

    `register(build)` stores a build of the server's own sources, `remember(version,
    release)` a version that a bot is told; the composition root binds both to
    `transactions`. `look` takes notice of changed sources; what others changed in the
    store is seen at its notification, at the latest at a look 30 seconds later. What is
    not in memory is read and built on native threads. The errors of the store rise.
    """

    def __init__(
        self,
        store: Store,
        reader: SourceReader,
        config: Provider,
        clock: Clock,
        concurrency: Concurrency,
        *,
        trust: Callable[[], Trust],
        register: Callable[[Build], None],
        remember: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._reader = reader
        self._config = config
        self._clock = clock
        self._concurrency = concurrency
        self.trust = trust
        self._register = register
        self._remember = remember
        self._registered = ""
        self._unverified = ""
        self._hooks: bytes | None = None
        self._hooks_digest = sha256(b"").hexdigest()
        self._generation = 0
        self._is_stale = True
        self._read_at = float("-inf")
        self._deployed = Deployed()
        self._channels: tuple[Deployed, Deployment | None, Channels] = (
            self._deployed,
            None,
            Channels(""),
        )
        self._kept: frozenset[str] = frozenset()
        self._known: dict[str, str] = {}
        self._remembered: set[str] = set()
        self._members: BoundedCache[Mapping[str, bytes]] = BoundedCache(
            MAX_CACHED_BYTES, lambda members: sum(map(len, members.values()))
        )
        self._built: BoundedCache[Archive] = BoundedCache(
            MAX_CACHED_BYTES, lambda archive: len(archive.content)
        )
        self._versions: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self._under_way: dict[str, Event] = {}
        self._unsubscribe = store.subscribe(self._hear)

    # What bots are told.

    def expected_version(self, bot_id: str, group: BotGroup, url: str) -> str:
        """The version that a bot which proved who it is should run under this URL.

        Reads nothing when it was asked before. Raises Refusal UNAVAILABLE without a release.
        """
        release_id = self.expected_release(bot_id, group)
        version = self._version(release_id, url)
        if version not in self._remembered:
            self._remember(version, release_id)
            self._remembered.add(version)
        return version

    def expected_release(self, bot_id: str, group: BotGroup) -> str:
        """The release that a bot of this group should run. Raises Refusal UNAVAILABLE for none."""
        release_id = expected_release(bot_id, group.archive_pin, self.channels(), self._kept)
        if not release_id:
            raise self._none()
        return release_id

    def peek(self, bot_id: str, group: BotGroup, version: str, url: str) -> str:
        """As `expected_version`, from memory alone; empty when that does not tell.

        An archive carries the URL its bot uses: a version of the right release that was
        made for another URL is just as good. Any thread may ask.
        """
        channels = self._channels_of(self._deployed)
        release_id = expected_release(bot_id, group.archive_pin, channels, self._kept)
        if release_id and self._known.get(version) == release_id:
            return version
        return self._versions.get((release_id, url, self._hooks_digest), "")

    def warm(self, url: str) -> None:
        """Have the versions ready that `peek` is going to be asked for."""
        for release_id in self.served():
            self._version(release_id, url)

    def archive(self, url: str) -> Archive:
        """The stable archive for bots of this URL. Raises Refusal UNAVAILABLE without one."""
        stable = self.channels().stable
        if not stable:
            raise self._none()
        return self._archive(stable, url)

    def find(self, version: str, url: str) -> Archive | None:
        """The archive with this version, when somebody is to run its release under this URL."""
        self._refresh()
        release_id = self._known.get(version, "")
        if release_id not in self.served():
            return None
        # Anybody may ask, under any address: nothing is built or kept for a wrong one.
        kept = self._versions.get((release_id, url, self._hooks_digest))
        is_right = (kept or self._digest(release_id, url)) == version
        return self._archive(release_id, url) if is_right else None

    def served(self) -> frozenset[str]:
        """The releases that some bot may be told to run now."""
        channels = self.channels()
        pins = self.pins() & self._kept
        ways = {channels.stable, channels.canary, channels.candidate}
        return frozenset({*pins, *ways} - {""})

    def pins(self) -> frozenset[str]:
        """The releases that bots.cfg and settings.cfg name, kept or not."""
        snapshot = self._config.cached()
        pins = {group.archive_pin for group in snapshot.bots.groups if group.archive_pin}
        fixed = snapshot.fleet.deployment
        if fixed is not None:
            pins |= {fixed.stable, fixed.canary} - {""}
        return frozenset(pins)

    def channels(self) -> Channels:
        """Who runs what, pins aside."""
        return self._channels_of(self.deployed())

    def deployed(self) -> Deployed:
        """What this server keeps and runs."""
        self._refresh()
        return self._deployed

    def release_of(self, version: str) -> str:
        """The release of a version that a bot was told once; empty for a foreign one."""
        return self._known.get(version, "")

    def knows(self, version: str) -> bool:
        """Has a server of this fleet ever made an archive of this version?"""
        self._refresh()
        return version in self._known

    def hooks_digest(self, release_id: str) -> str:
        """SHA-256, in hex, of `config/bot_config.py` in the archives of a release.

        That of nothing when they have none (bot-api 1.3, `bot_config_rev`).
        """
        if self._hooks is not None:
            return self._hooks_digest
        return sha256(self._release(release_id).get(HOOKS, b"")).hexdigest()

    def generation(self) -> int:
        """Grows whenever bots may have to run something else."""
        return self._generation

    def problem(self) -> str:
        """One line on why the sources on disk are not served; empty when they are."""
        return self._unverified or self._reader.problem()

    def version(self, release_id: str, url: str) -> str:
        """The version that a release which is kept has under this URL."""
        return self._version(release_id, url)

    # What changes.

    def look(self) -> None:
        """Take notice of changed sources and of what other servers changed."""
        if self._clock.monotonic() - self._read_at >= LOOK_AGAIN_S:
            self._is_stale = True
        self._look_at_sources()
        self._refresh()

    def close(self) -> None:
        """Hear no more of the store."""
        self._unsubscribe()

    def _hear(self, topic: str) -> None:
        if topic in {TOPIC, "*"}:
            self._is_stale = True

    def _channels_of(self, deployed: Deployed) -> Channels:
        fixed = self._config.cached().fleet.deployment
        known = self._channels
        if known[0] is not deployed or known[1] is not fixed:
            known = self._channels = (deployed, fixed, channels_of(deployed, fixed))
        return known[2]

    def _none(self) -> Refusal:
        return Refusal(Code.UNAVAILABLE, self.problem() or "there is no bot archive yet")

    def _refresh(self) -> None:
        if self._is_stale:
            self._alone("deployed", lambda: not self._is_stale, self._read_deployed)

    def _alone(self, what: str, is_done: Callable[[], bool], act: Callable[[], None]) -> None:
        """Let one caller do what many need: a fleet that comes back asks all at once.

        When it fails, those who waited try it one after the other.
        """
        while not is_done():
            done = self._concurrency.event()
            busy = self._under_way.setdefault(what, done)
            if busy is not done and busy.wait(WAIT_S):
                continue
            try:
                return act()
            finally:
                self._under_way.pop(what, None)
                done.set()
        return None

    def _read_deployed(self) -> None:
        if not self._registered:
            self._look_at_sources()  # others wait meanwhile as we do, for the same
        self._is_stale = False
        try:
            deployment, versions = self._store.get(KIND, DEPLOYMENT_KEY, VERSIONS_KEY)
        except BaseException:
            self._is_stale = True
            raise
        self._read_at = self._clock.monotonic()
        found = read_deployment(deployment)
        stored = {v: release for v, (release, _ms) in read_versions(versions).items()}
        newest = list(self._known.items())[-MAX_VERSIONS:]
        self._known = dict(newest) | stored
        self._remembered = {*stored}
        if found.rev != self._deployed.rev:
            self._kept = frozenset(release.release_id for release in found.releases)
            self._deployed = found
            self._generation += 1

    def _look_at_sources(self) -> None:
        try:
            sources = self._concurrency.native(self._reader.current)
        except BadArchive:
            return  # `problem` tells, and what the store keeps is served on
        if sources.hooks != self._hooks:
            self._hooks = sources.hooks
            self._hooks_digest = sha256(sources.hooks or b"").hexdigest()
            self._generation += 1
        if sources.digest != self._registered:
            try:
                build = self._concurrency.native(lambda: self._build_of(sources))
            except BadManifest as error:
                self._unverified = f"bot archive: {error}"
                return
            self._unverified = ""
            self._register(build)
            self._registered = sources.digest
            self._is_stale = True

    def _build_of(self, sources: Sources) -> Build:
        verified = verify_archive(sources.members, self.trust())
        members = without_unproved(sources.members, verified)
        size = sum(map(len, members.values()))
        packed = pack(members).content
        return Build(content_digest(members), packed, size, members_of(members), verified)

    # Archives.

    def _version(self, release_id: str, url: str) -> str:
        key = (release_id, url, self._hooks_digest)
        found = self._versions.get(key)
        if found is not None:
            return found
        self._alone(
            f"version {release_id} {url}",
            lambda: key in self._versions,
            lambda: self._note(key, self._digest(release_id, url)),
        )
        return self._versions.get(key) or self._digest(release_id, url)

    def _digest(self, release_id: str, url: str) -> str:
        """The version of an archive without packing it, which takes thirty times as long."""
        members = self._members_for(release_id, url)
        return self._concurrency.native(lambda: content_digest(members))

    def _members_for(self, release_id: str, url: str) -> dict[str, bytes]:
        """What an archive holds for bots of this URL."""
        hooks = {} if self._hooks is None else {HOOKS: self._hooks}
        return {**self._release(release_id), CONFIG_JSON: config_json(url), **hooks}

    def _archive(self, release_id: str, url: str) -> Archive:
        key = (release_id, url, self._hooks_digest)
        found = self._built.get(key)
        if found is not None:
            return found
        members = self._members_for(release_id, url)
        built = self._concurrency.native(lambda: pack(members))
        self._built.put(key, built)
        self._note(key, built.version)
        return built

    def _note(self, key: tuple[str, str, str], version: str) -> None:
        """Know a version that a bot may be told; `key` is release, URL and hooks."""
        self._versions[key] = version
        self._known.setdefault(version, key[0])
        if len(self._known) > 3 * MAX_VERSIONS:
            self._is_stale = True  # which forgets those that were never told to a bot
        while len(self._versions) > MAX_CACHED_VERSIONS:
            self._versions.popitem(last=False)

    def _release(self, release_id: str) -> Mapping[str, bytes]:
        found = self._members.get(release_id)
        if found is None:
            try:
                found = read_release(self._store, self._concurrency, release_id)
            except BadArchive as error:
                raise Refusal(Code.UNAVAILABLE, str(error)) from None
            self._members.put(release_id, found)
        return found


def read_release(store: Store, concurrency: Concurrency, release_id: str) -> dict[str, bytes]:
    """The members of a release that the store keeps. Raises BadArchive when it does not."""
    chunks = walk(store, KIND, *chunk_range(release_id), limit=CHUNKS_PER_READ)
    pieces: list[bytes] = [doc.body["data"] for doc in chunks]
    if not pieces:
        raise BadArchive(f"the release {release_id[:12]} is not in the store any more")
    members = concurrency.native(lambda: unpack(b"".join(pieces)))
    (doc,) = store.get(KIND, manifest_key(release_id))
    if doc is not None:
        members |= {MANIFEST: doc.body["manifest"], SIGNATURE: doc.body["signature"]}
    return members


def stored_keys(store: Store, release_ids: Collection[str]) -> list[Key]:
    """Every document of these releases but `deployment`."""
    keys: list[Key] = []
    for release_id in release_ids:
        keys += store.scan_keys(KIND, *chunk_range(release_id), limit=1_000)
        keys.append(manifest_key(release_id))
    return keys
