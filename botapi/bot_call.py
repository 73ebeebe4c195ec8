"""What handlers are given, and what they give back; no Flask here."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from botapi import __version__
from botapi.auth.bootstrap import EnrolledDigests, check_bootstrap_token
from botapi.auth.botsession import (
    SESSION_LIFE_MS,
    BotConfig,
    DebugInfo,
    KnownSessions,
    Session,
    encode,
    encode_hidden,
)
from botapi.auth.credentials import (
    CredentialChecker,
    Identity,
    Presented,
    Proof,
    Rules,
    authorize_bot,
)
from botapi.auth.directory import Directory
from botapi.auth.hmactoken import NONCE_BYTES
from botapi.auth.keys import SESSION, SIGNING, KeyRing
from botapi.auth.minter import Minter
from botapi.auth.oidc_issuer import OidcIssuer
from botapi.blobs.transfer import Transfers
from botapi.cfg.provider import Provider, Snapshot
from botapi.cfg.releases import Releases
from botapi.clock import DAY_MS, Clock, Rng
from botapi.concurrency import Concurrency
from botapi.domain.bot import Bot
from botapi.domain.bot_event import CallInfo
from botapi.domain.bot_groups import AuthMethod, BotGroup
from botapi.domain.errors import Code, Refusal
from botapi.domain.rbe_config import RbeConfig, resolve
from botapi.scheduler.idle_bots import IdleBot
from botapi.scheduler.last_seen import LastSeen, RecentPolls
from botapi.scheduler.offers import Offers, cannot_tell
from botapi.secrets.vault import Vault
from botapi.settings import Settings
from botapi.store import codec
from botapi.store.protocol import Store, join_key
from botapi.transactions.enrol_bot import read_bootstrap_token
from botapi.transactions.update_bot import Stamp
from botapi.wire_json import dumps

log = logging.getLogger(__name__)

RBE_INSTANCE = "projects/local/instances/default"
"""Any stable name; bots reopen their lease session when it changes (bot-api 3.5)."""
FRESH_MS = 60_000
"""Age up to which a session token is not made anew."""
MAX_SEQ = 2**53
MAX_STATE_BYTES = 128 * 1024
"""Most that is kept of what a bot says of itself."""


@dataclass(frozen=True, slots=True)
class Call:
    """The facts of one request that do not stand in its body."""

    now_ms: int
    request_id: str
    base_url: str
    """Scheme and host the bot used, without a trailing slash."""
    presented: Presented
    proof: Proof | None = None
    """What `presented` proves; None while nobody has looked."""
    is_there: Callable[[], bool] = cannot_tell
    """Has the caller not hung up, as far as the system knows?"""


@dataclass(frozen=True, slots=True)
class SessionCall:
    """A request with a good session: who calls."""

    call: Call
    token: str
    session: Session
    identity: Identity


@dataclass(frozen=True, slots=True)
class BotCall(SessionCall):
    """The same with what is stored about the bot."""

    bot: Bot
    recent_polls: tuple[str, ...] = ()
    """The `request_uuid` of the bot's latest polls that this process answered."""

    @property
    def is_superseded(self) -> bool:
        """Did a later handshake take this bot id over?"""
        return self.bot.session_id != self.session.session_id


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON object, answered 200. `headers` are added."""

    body: dict[str, object]
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text with a status of its own and further headers."""

    line: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Archive:
    """The bot archive. `is_public`: the same bytes for everybody, cacheable."""

    content: bytes
    version: str
    is_public: bool


@dataclass(frozen=True, slots=True)
class Redirect:
    """302 to a path of this server."""

    location: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A Python program to be piped into an interpreter."""

    content: str


Said = Reply | Text
"""What a POST of a bot is answered with."""
AnyReply = Said | Archive | Redirect | Script


@dataclass(frozen=True, slots=True)
class BotServer:
    """The parts of the server that bot calls use."""

    store: Store
    clock: Clock
    rng: Rng
    concurrency: Concurrency
    settings: Settings
    keys: KeyRing
    issuer: OidcIssuer
    minter: Minter
    enrolled: EnrolledDigests
    credentials: CredentialChecker
    config: Provider
    archives: Releases
    offers: Offers
    last_seen: LastSeen
    blobs: Transfers
    vault: Vault
    directory: Directory
    polls: RecentPolls = field(default_factory=RecentPolls)
    sessions: KnownSessions = field(default_factory=KnownSessions)

    def stamp(self, call: Call, event_id: str = "") -> Stamp:
        """Time and event id of a transaction made for this call."""
        keep_ms = self.settings.event_retention_days * DAY_MS
        return Stamp(call.now_ms, event_id or call.request_id, keep_ms, self.settings.contact_s)

    def refreshed(self, session: Session, call: Call) -> Session:
        """The session with a new life of an hour (bot-api 2.6)."""
        return replace(
            session, expiry_ms=call.now_ms + SESSION_LIFE_MS, debug_info=debug_info(call)
        )

    def token(self, session: Session, instead_of: str = "") -> str:
        """The signed form of a session, for a bot that will not use `instead_of` any more."""
        secret, hides = self.keys.secret(SESSION), self.hides_sessions
        if hides:
            nonce = self.rng.randbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES)
            token = encode_hidden(session, secret, nonce)
        else:
            token = encode(session, secret)
        self.sessions.add(token, secret, session, takes_hidden=hides, instead_of=instead_of)
        return token

    def session_of(self, token: str) -> Session:
        """The session in a token. Raises BadToken; whether it is expired is not asked."""
        secret = self.keys.secret(SESSION)
        return self.sessions.session(token, secret, takes_hidden=self.hides_sessions)

    @property
    def hides_sessions(self) -> bool:
        """Are session tokens encrypted (docs/keys.md)?"""
        return self.settings.session_envelope == "aead"

    def verified(self, call: Call) -> Call:
        """The call with what its credential headers prove (bot-api 0.4 step 1).

        Raises Refusal UNAUTHENTICATED for one that is present and bad, INTERNAL when that
        cannot be told now.
        """
        return replace(call, proof=self._proof(call))

    def _proof(self, call: Call) -> Proof:
        fleet = self.config.cached().fleet
        return self.credentials.verify(call.presented, fleet, call.now_ms / 1000)

    def authorize(self, bot_id: str, methods: Sequence[AuthMethod], call: Call) -> Identity:
        """Who the bot proves to be. Raises Refusal as `verified`."""
        rules = Rules(
            enrolled_digest=self.enrolled.digest,
            ip_lists=self.config.cached().fleet.ip_lists,
            own_url=self.settings.public_url,
        )
        proof = call.proof or self._proof(call)
        return authorize_bot(bot_id, methods, proof, rules)

    def authorize_session(self, session: Session, call: Call) -> Identity:
        """Who the owner of a session proves to be, by the session's own methods.

        Raises Refusal as `verified`, also for a credential other than the one that the
        session was made or last refreshed with by a poll: its token is no use elsewhere.
        """
        identity = self.authorize(session.bot_id, session.bot_config.bot_auth, call)
        bound = session.credential_sha256
        if bound and bound != identity.credential_sha256:
            raise Refusal(
                Code.UNAUTHENTICATED,
                "session: made with another credential; poll or handshake again",
            )
        return identity

    def known(self, call: SessionCall) -> BotCall:
        """Who calls, with what is stored about it (bot-api 0.4, steps 11 to 13).

        Raises Refusal PERMISSION_DENIED for a bot that is not known any more.
        """
        session = call.session
        self.offers.idle.forget(session.bot_id)
        (doc,) = self.store.get(codec.BOT, join_key(session.bot_id))
        if doc is None:
            raise Refusal(
                Code.PERMISSION_DENIED, f'bot "{session.bot_id}" is not known; poll or handshake'
            )
        bot = codec.read_bot(doc)
        check_stored(bot.bot_id, bot.dimensions)
        recent = self.polls.of(bot.bot_id, session.session_id)
        known = BotCall(call.call, call.token, session, call.identity, bot, recent)
        if known.is_superseded:
            log.info('bot "%s": a call of its older session %s', bot.bot_id, session.session_id)
        return known

    def check_bootstrap(self, text: str, call: Call) -> str:
        """The id of a bootstrap token that is still good for at least one machine.

        Raises Refusal PERMISSION_DENIED; uses nothing up.
        """
        found = check_bootstrap_token(self.keys.keys(SIGNING), text, now_ms=call.now_ms)
        record = read_bootstrap_token(self.store, found)
        problem = record.problem(call.now_ms) if record else "the bootstrap token is unknown"
        if problem:
            raise Refusal(Code.PERMISSION_DENIED, problem)
        return found

    def refreshed_token(self, bot_call: SessionCall) -> str:
        """What most replies carry: the same session with an hour to live.

        A token that was made within the last minute is given back as it is.
        """
        made_ms = bot_call.session.expiry_ms - SESSION_LIFE_MS
        if 0 <= bot_call.call.now_ms - made_ms < FRESH_MS:
            return bot_call.token
        session = self.refreshed(bot_call.session, bot_call.call)
        return self.token(session, instead_of=bot_call.token)

    def session_config(
        self, group: BotGroup, call: Call, rbe: RbeConfig, effective_bot_id: str = ""
    ) -> BotConfig:
        """The snapshot of a group and its pools that a session carries (bot-api 2.1)."""
        return BotConfig(
            expiry_ms=call.now_ms + SESSION_LIFE_MS,
            debug_info=debug_info(call),
            bot_auth=group.auth,
            system_service_account=group.system_service_account,
            logs_cloud_project=group.logs_cloud_project,
            rbe_instance=rbe.instance or RBE_INSTANCE,
            rbe_effective_bot_id=effective_bot_id,
            rbe_effective_bot_id_dimension=rbe.effective_key,
        )

    def has_news(self, bot: IdleBot, session: Session, base_url: str) -> bool:
        """Had it better poll, for another configuration or archive, or on a person's word?"""
        snapshot = self.config.cached()
        if bot.must_poll or snapshot.fleet.force_sleep:
            return True
        group = snapshot.bots.group_of(bot.bot_id)
        if group.config_hash != session.handshake_config_hash:
            return True
        expected = self.archives.expected_version(bot.bot_id, group, base_url)
        return bot.version != expected and not bot.is_kept

    def expected_version(self, bot_id: str, group: BotGroup, call: Call) -> str:
        """The version that this bot, which proved who it is, should run (bot-api 8.3)."""
        return self.archives.expected_version(bot_id, group, call.base_url)


def check_stored(bot_id: str, dimensions: tuple[str, ...]) -> None:
    """Steps 12 and 13 of bot-api 0.4; only a mistake of ours gets here.

    Raises Refusal INTERNAL. Asked at nearly every call: none for each of the dimensions.
    """
    if [flat for flat in dimensions if flat[:3] == "id:"] != [f"id:{bot_id}"]:
        raise Refusal(Code.INTERNAL, f'stored dimensions of "{bot_id}" name another id')
    if not [flat for flat in dimensions if flat[:5] == "pool:"]:
        raise Refusal(Code.INTERNAL, f'bot "{bot_id}" is in no pool')


def debug_info(call: Call) -> DebugInfo:
    """Who made a token and when."""
    return DebugInfo(call.now_ms, __version__, call.request_id)


def call_info(session_id: str, call: Call, identity: Identity, version: str = "") -> CallInfo:
    """The caller, as events and bots keep it."""
    return CallInfo(session_id, call.presented.peer_ip, identity.name, version)


def call_number(skep: Mapping[str, Any] | None) -> int:
    """The number of a call in its session, 0 when it has none (docs/extensions.md)."""
    seq = (skep or {}).get("seq")
    return seq if isinstance(seq, int) and 0 <= seq < MAX_SEQ else 0


def heard_lease(skep: Mapping[str, Any] | None) -> str | None:
    """The latest lease that the bot knows of, empty for none; None when it does not say so."""
    lease = (skep or {}).get("lease")
    return lease if isinstance(lease, str) else None


def read_state(value: object) -> tuple[dict[str, Any], list[str]]:
    """The reported state, `{}` when it cannot be used, and what is wrong with it (bot-api 6.2)."""
    if value is None:
        return {}, []
    if not isinstance(value, dict):
        return {}, [f"bad state dict: a JSON object is expected, not {type(value).__name__}"]
    size = len(dumps(value))
    if size > MAX_STATE_BYTES:
        return {}, [f"bad state dict: {size} bytes of JSON, at most {MAX_STATE_BYTES} are kept"]
    return value, []


def rbe_config(bot_id: str, group: BotGroup, snapshot: Snapshot) -> RbeConfig:
    """What pools.cfg says about the lease channel of a bot of this group (bot-api 3.7)."""
    return resolve(bot_id, group.dimensions.get("pool", ()), snapshot.pools)


def rbe_settings(rbe: RbeConfig) -> dict[str, object]:
    """The `rbe` object of handshake and poll (bot-api 1.3); all four keys always.

    The instance is the one in pools.cfg, else our own; `hybrid_mode` is never true, which
    would oblige the server to hand out tasks in polls (bot-api 3.5).
    """
    return {
        "instance": rbe.instance or RBE_INSTANCE,
        "hybrid_mode": False,
        "sleep": 0,
        "poll_token": "legacy",
    }


def skep_settings(settings: Settings) -> dict[str, object]:
    """The `skep` object of handshake and poll (docs/extensions.md)."""
    return {"v": 1, "contact_s": settings.contact_s, "poll_s": settings.poll_s}
