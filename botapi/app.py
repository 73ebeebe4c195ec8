"""The composition root: it builds the parts over an open store, and installs the routes.

It knows everything, so that nobody else has to.
"""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from socket import gethostname

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException

from botapi import __version__, api, engines, observe, web
from botapi.admission import Admission
from botapi.api import access, people
from botapi.api.server import ApiServer
from botapi.auth.bootstrap import EnrolledDigests
from botapi.auth.credentials import CredentialChecker
from botapi.auth.directory import Directory
from botapi.auth.jwks import KeySets
from botapi.auth.keys import KeyRing
from botapi.auth.minter import TokenExchangeMinter
from botapi.auth.oidc_issuer import OidcIssuer
from botapi.auth.release_signing import (
    DEVELOPMENT,
    Trust,
    development_key,
    key_id_of,
    public_bytes,
    sign_manifest,
)
from botapi.auth.sign_in import IssuerClient
from botapi.blobs import disk
from botapi.blobs.bucket import BucketBlobs
from botapi.blobs.disk import DiskBlobs
from botapi.blobs.protocol import BlobStore
from botapi.blobs.transfer import Transfers
from botapi.bot_call import BotServer
from botapi.botsrv import install as install_bot_routes
from botapi.cfg.archive_builder import SourceReader, packaged_bot
from botapi.cfg.provider import Provider
from botapi.cfg.releases import Build, Releases
from botapi.cfg.watcher import Watcher
from botapi.clock import DAY_MS, Clock, Rng
from botapi.concurrency import Concurrency
from botapi.domain.errors import Refusal
from botapi.domain.manifest import Label
from botapi.domain.permissions import Permission
from botapi.door import Door, internal_error
from botapi.observe import Observed
from botapi.scheduler.blob_sweep import BlobSweep
from botapi.scheduler.config_file import config_watcher, watch_config
from botapi.scheduler.fleet_counts import FleetCounts
from botapi.scheduler.last_seen import LastSeen
from botapi.scheduler.news import News
from botapi.scheduler.offers import Offers
from botapi.scheduler.presence import Presence
from botapi.scheduler.readiness import Readiness
from botapi.scheduler.rollout import RingWatch, Rollouts
from botapi.scheduler.sweeps import Sweeps
from botapi.secrets.vault import Vault, key_file_problem
from botapi.settings import Settings
from botapi.store.protocol import SCHEMA_NUMBER, Store, StoreError
from botapi.transactions.create_keys import create_keys
from botapi.transactions.enrol_bot import enrolled_digest
from botapi.transactions.register_source import Signer, register_source
from botapi.transactions.remember_version import remember_version
from botapi.transactions.server_presence import Server, keeps_elsewhere, living
from botapi.wsgi import Answer

CHECK_EVERY_S = 24 * 3600.0
"""How often the database is read for damage."""

log = logging.getLogger(__name__)

PLATFORM_CALLS = ("/_ah/start", "/_ah/warmup")
"""What App Engine asks of a new instance before it sends others there."""


@dataclass(slots=True)
class Parts:
    """Everything one server process consists of, beside its HTTP server."""

    settings: Settings
    clock: Clock
    rng: Rng
    concurrency: Concurrency
    store: Store
    config: Provider
    watcher: Watcher
    archives: Releases
    offers: Offers
    last_seen: LastSeen
    sweeps: Sweeps
    presence: Presence
    door: Door
    admission: Admission
    bots: BotServer
    api: ApiServer
    stop: list[Callable[[], None]] = field(default_factory=list)
    observed: Observed = field(init=False)

    def __post_init__(self) -> None:
        self.observed = _observed(self)

    def start(self) -> None:
        """Begin what runs beside the requests."""
        watch_config(self.watcher, self.clock.now_ms())
        self.concurrency.spawn(self.offers.run)
        self.concurrency.spawn(self.sweeps.run)
        self.concurrency.spawn(self.observed.run)
        self.concurrency.spawn(self._check_daily)

    def warm(self, url: str) -> None:
        """Have at hand what the first bots under this URL would all wait for."""
        with suppress(Refusal, StoreError):
            self.archives.warm(url)

    def _check_daily(self) -> None:
        """Read the whole database for damage, once a day, in the process that sweeps."""
        while True:
            self.concurrency.sleep(CHECK_EVERY_S)
            if self.sweeps.held_until_ms > self.clock.now_ms():
                problem = self.concurrency.outside(lambda: engines.daily_damage(self.settings))
                if problem:
                    log.critical("%s", problem)
                    _end_this_process()

    def release(self) -> None:
        """Answer every held call now: the process is about to stop."""
        self.offers.close()
        self.api.close()

    def close(self) -> None:
        """Stop everything and close the store."""
        self.release()
        self.sweeps.close()
        with suppress(StoreError):  # it is silent from now on, which says the same
            self.presence.close()
        self.observed.close()
        for stop in self.stop:
            stop()
        self.store.close()


def open_blobs(settings: Settings, clock: Clock) -> BlobStore:
    """Where blobs are kept, as the settings say. Raises StoreError in one line."""
    if settings.blobs != "disk":
        return BucketBlobs(settings.blobs, clock)
    return DiskBlobs(settings.data_dir / "blobs", settings.blobs_max, clock)


def blobs_place(settings: Settings, rng: Rng) -> str:
    """Names where blobs are kept; empty for a server whose store nobody shares."""
    if not settings.is_shared:
        return ""
    if settings.blobs != "disk":
        return settings.blobs
    return disk.place_of(settings.data_dir / "blobs", f"{rng.randbits(64):016x}")


def other_blobs(settings: Settings, store: Store, clock: Clock, rng: Rng) -> str:
    """Why this server must not start: another one of its store keeps blobs elsewhere."""
    server = keeps_elsewhere(living(store, clock.now_ms()), blobs_place(settings, rng))
    if server is None:
        return ""
    return (
        f"SKEP_BLOBS={settings.blobs}: {server.named} of the same store keeps blobs in "
        f"another place: give all servers one bucket, or one shared folder as "
        f"{settings.data_dir / 'blobs'}"
    )


def open_vault(settings: Settings, rng: Rng) -> Vault:
    """The store of secrets with its key file, which is read when it is needed first."""
    return Vault(settings.secrets_keys or settings.data_dir / "secrets.keys", rng)


def build(
    settings: Settings, store: Store, concurrency: Concurrency, clock: Clock, rng: Rng
) -> Parts:
    """The parts of a server process over an open store; nothing runs yet."""
    keys = KeyRing(
        store,
        lambda purpose, made: create_keys(store, purpose, made),
        clock,
        rng,
        concurrency.native,
    )
    issuer = OidcIssuer(keys, concurrency.native)
    enrolled = EnrolledDigests(lambda host: enrolled_digest(store, host))
    unsubscribe = store.subscribe(enrolled.hear)
    config = Provider(store, clock, concurrency.native)
    directory = Directory(store, lambda: config.cached().meaning.access, clock)
    unsubscribe_directory = store.subscribe(directory.hear)
    watcher = config_watcher(settings, store, concurrency, config)
    archives = _releases(settings, store, config, keys, concurrency, clock, rng)
    offers = Offers(store, concurrency, clock, rng)
    vault = open_vault(settings, rng)
    blob_store = open_blobs(settings, clock)
    blobs = Transfers(blob_store, concurrency)
    last_seen = LastSeen(store, settings.seen_flush_s)
    holder = f"{rng.randbits(64):016x}"
    place = blobs_place(settings, rng)
    me = Server(holder, gethostname(), __version__, SCHEMA_NUMBER, place, 0)
    presence = Presence(store, clock, me, _end_this_process)
    news = News(config, archives, offers, directory, enrolled, store, presence)
    sweeps = Sweeps(
        store=store,
        concurrency=concurrency,
        clock=clock,
        rng=rng,
        settings=settings,
        last_seen=last_seen,
        watch=lambda now_ms: watch_config(watcher, now_ms),
        look=news.look,
        bot_death_s=lambda: config.cached().fleet.bot_death_s or settings.bot_death_s,
        blobs=BlobSweep(
            store, blob_store, concurrency, clock, settings.blob_retention_days * DAY_MS
        ),
        rollouts=Rollouts(RingWatch(store, concurrency, config, archives, last_seen), clock, rng),
        ready_ms=clock.now_ms(),
        holder=holder,
    )
    key_sets = KeySets(concurrency, clock)
    bots = BotServer(
        store=store,
        clock=clock,
        rng=rng,
        concurrency=concurrency,
        settings=settings,
        keys=keys,
        issuer=issuer,
        minter=TokenExchangeMinter(
            lambda: config.cached().fleet.token_exchanges, issuer, concurrency, clock, rng
        ),
        enrolled=enrolled,
        credentials=CredentialChecker(key_sets),
        config=config,
        archives=archives,
        offers=offers,
        last_seen=last_seen,
        blobs=blobs,
        vault=vault,
        directory=directory,
    )
    return Parts(
        settings=settings,
        clock=clock,
        rng=rng,
        concurrency=concurrency,
        store=store,
        config=config,
        watcher=watcher,
        archives=archives,
        offers=offers,
        last_seen=last_seen,
        sweeps=sweeps,
        presence=presence,
        door=Door(settings, clock, rng),
        admission=Admission(concurrency, clock, rng),
        bots=bots,
        api=ApiServer(
            store=store,
            clock=clock,
            rng=rng,
            concurrency=concurrency,
            settings=settings,
            keys=keys,
            config=config,
            archives=archives,
            offers=offers,
            last_seen=last_seen,
            blobs=blobs,
            vault=vault,
            directory=directory,
            issuer_client=IssuerClient(concurrency, clock, key_sets, settings.sign_in_secret),
        ),
        stop=[unsubscribe, unsubscribe_directory, keys.close, config.close, archives.close],
    )


def _releases(
    settings: Settings,
    store: Store,
    config: Provider,
    keys: KeyRing,
    concurrency: Concurrency,
    clock: Clock,
    rng: Rng,
) -> Releases:
    def trust() -> Trust:
        said = config.cached().fleet.release_keys
        own = [public_bytes(development_key(key)) for key in keys.keys(DEVELOPMENT)]
        return Trust(
            {key.key_id: key.public_key for key in said}, {key_id_of(key): key for key in own}
        )

    def register(build: Build) -> None:
        key = development_key(keys.keys(DEVELOPMENT)[-1])
        key_id = key_id_of(public_bytes(key))
        register_source(
            store,
            build,
            signer=Signer(key_id, partial(sign_manifest, key, Label.DEVELOPMENT, key_id)),
            server_version=__version__,
            rule=config.cached().fleet.rollout,
            now_ms=clock.now_ms(),
            change_id=f"{rng.randbits(96):024x}",
        )

    return Releases(
        store,
        SourceReader(
            settings.bot_archive or packaged_bot(),
            settings.config_dir / "scripts" / "bot_config.py",
            clock,
        ),
        config,
        clock,
        concurrency,
        trust=trust,
        register=register,
        remember=lambda version, release: remember_version(store, version, release, clock.now_ms()),
    )


def _end_this_process() -> None:
    """As an operator would: calls are answered first."""
    os.kill(os.getpid(), signal.SIGTERM)


def create_app(parts: Parts) -> Flask:
    """The WSGI application over these parts."""
    app = Flask("skep", static_folder=None)
    install_bot_routes(app, parts.bots, parts.door, parts.admission)
    parts.door.install(app)
    api.install(app, parts.api, parts.door)
    web.install(app, parts.api, parts.door)
    observe.install(app, parts.observed, parts.door)
    for path in PLATFORM_CALLS:
        name = path.rpartition("/")[2]
        app.add_url_rule(path, name, lambda: observe.readyz(parts.observed.readiness))
    if parts.settings.cron_header:
        app.add_url_rule("/internal/cron/sweep", "cron_sweep", lambda: _cron_sweep(parts))
    app.register_error_handler(Exception, _unexpected)
    return app


def _observed(parts: Parts) -> Observed:
    """What the server shows of itself; metrics to those who may see all bots and tasks."""

    def may_read(http: Request) -> None:
        cookie = http.cookies.get(people.SESSION_COOKIE, "")
        person = people.person_of_call(parts.api, http.headers.get("Authorization", ""), cookie)
        for permission in (Permission.LIST_BOTS, Permission.LIST_TASKS):
            access.check_server(person.caller, permission)

    shared = (parts.store, parts.config)
    return Observed(
        readiness=Readiness(
            *shared,
            parts.concurrency,
            parts.clock,
            load_keys=lambda: parts.bots.keys.secret("session"),
            archive_problem=parts.archives.problem,
            secrets_problem=lambda: key_file_problem(parts.store, parts.bots.vault),
        ),
        fleet=FleetCounts(
            *shared, parts.archives, parts.concurrency, parts.clock, parts.settings.data_dir
        ),
        concurrency=parts.concurrency,
        open_to=parts.settings.metrics_from,
        may_read=may_read,
        held_calls=parts.offers.waiting_count,
    )


def _cron_sweep(parts: Parts) -> Response:
    """One round of the sweeps, for the platform's scheduler: servers may all be asleep.

    Whoever else calls is told nothing: the platform takes the header out of their calls.
    """
    if request.headers.get(parts.settings.cron_header) != "true":
        return Response("not found\n", 404, content_type="text/plain")
    try:
        parts.sweeps.round()
    except StoreError as error:
        log.warning("sweep: %s", error)
        return Response("the store cannot answer now\n", 503, content_type="text/plain")
    return Response("ok\n", content_type="text/plain")


def _unexpected(error: Exception) -> Answer | HTTPException:
    """What nobody expected; a wrong address or method is Flask's own to answer."""
    return error if isinstance(error, HTTPException) else internal_error(g.get("request_id", ""))
