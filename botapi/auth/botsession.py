"""The session token of a bot: signed bytes outside, a frozen `Session` inside (bot-api 2).

Byte-compatible with upstream: a protobuf `Session` in a protobuf envelope with its
HMAC, in base64. The MAC is verified before the session is parsed. Whether the session is
expired is a question of its own: `poll` goes on without one, the other calls do not.
The envelope's second kind, reserved upstream, hides the session as well (AES-256-GCM); it is
made and taken only where a setting says so (docs/keys.md).
"""

import binascii
from base64 import b64decode, b64encode
from collections import OrderedDict
from dataclasses import dataclass

from botpb import session_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from botapi.auth.bot_auth import from_bytes, to_message
from botapi.auth.hmactoken import Secret, seal, tag, unseal, verify
from botapi.concurrency import native_lock
from botapi.domain.bot_groups import AuthMethod

PREFIX = b"swarming.Session"
AEAD_INFO = b"skep.session.aead.v1"
"""Derives the key of the hidden kind (HKDF-SHA256, no salt)."""
AEAD_PURPOSE = b"skep.Session"
"""What the hidden kind is authenticated with."""
MAX_TOKEN_CHARS = 16 * 1024
SESSION_LIFE_MS = 3_600_000
"""How long a token is good after each refresh (bot-api 2.1)."""

MAX_SESSION_AGE_MS = 7 * 24 * 3_600_000
"""How long a session may be refreshed before a new handshake is due."""

MAX_KNOWN_SESSIONS = 16_384
"""Tokens remembered by a process."""


class BadToken(Exception):
    """Not a session token of ours; the text says why and holds nothing of the token."""


class BadMac(BadToken):
    """Signed with an unknown key, or altered."""


class UnsupportedFormat(BadToken):
    """An envelope of a kind that is not in use."""


class MissingField(BadToken):
    """Signed by us, and yet without a field that every session has: our own mistake."""


@dataclass(frozen=True, slots=True)
class DebugInfo:
    """Who made a token and when (ms since 1970, 0 for unknown); for people only."""

    created_ms: int = 0
    server_version: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class BotConfig:
    """What the configuration said at the last handshake or poll (bot-api 2.1).

    `bot_auth` is what the credentials of a call are checked against. `expiry_ms` is
    written and never enforced.
    """

    expiry_ms: int = 0
    debug_info: DebugInfo = DebugInfo()
    bot_auth: tuple[AuthMethod, ...] = ()
    system_service_account: str = ""
    logs_cloud_project: str = ""
    rbe_instance: str = ""
    rbe_effective_bot_id: str = ""
    rbe_effective_bot_id_dimension: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a bot's process. Times in ms since 1970, 0 for absent.

    `epoch`, `credential_sha256` and `started_ms` are ours (fields 100 to 102): a token of
    another server has none of them.
    """

    bot_id: str
    session_id: str
    expiry_ms: int
    bot_config: BotConfig
    last_seen_config_ms: int
    handshake_config_hash: bytes = b""
    rbe_bot_session_id: str = ""
    epoch: int = 0
    credential_sha256: bytes = b""
    started_ms: int = 0
    debug_info: DebugInfo = DebugInfo()


def is_expired(session: Session, now_ms: int) -> bool:
    """Is it later than the expiry? Strictly, without allowance for skew (bot-api 2.5)."""
    return now_ms > session.expiry_ms


def is_too_old(session: Session, now_ms: int) -> bool:
    """Has it been refreshed for so long that only a new handshake will do?

    Never so for a session without a start, which another server began.
    """
    return session.started_ms > 0 and now_ms > session.started_ms + MAX_SESSION_AGE_MS


def encode(session: Session, secret: Secret) -> str:
    """The token of a session: base64 with padding, signed with the active key."""
    body = _session_message(session).SerializeToString(deterministic=True)
    tagged = session_pb2.SessionToken.HmacTagged(
        session=body, hmac_sha256=tag(secret, PREFIX, body)
    )
    return _text(session_pb2.SessionToken(hmac_tagged=tagged))


def encode_hidden(session: Session, secret: Secret, nonce: bytes) -> str:
    """As `encode`, encrypted; the 12 bytes of the nonce must never be used again."""
    body = _session_message(session).SerializeToString(deterministic=True)
    hidden = session_pb2.SessionToken.AeadEncrypted(
        cipher_text=seal(secret, AEAD_INFO, AEAD_PURPOSE, body, nonce)
    )
    return _text(session_pb2.SessionToken(aead_encrypted=hidden))


def decode(token: str, secret: Secret, *, takes_hidden: bool = False) -> Session:
    """The session of a token, which may be expired.

    Raises BadToken for what is no token at all, BadMac, UnsupportedFormat (which the hidden
    kind is unless `takes_hidden`), or MissingField (an internal error, bot-api 0.4 step 7),
    and nothing else.
    """
    message = session_pb2.Session()
    try:
        message.ParseFromString(_verified_body(token, secret, takes_hidden=takes_hidden))
    except DecodeError:
        raise BadToken("the signed part is not a session") from None
    for name in ("bot_id", "session_id"):
        if not getattr(message, name):
            raise MissingField(f"the session has no {name}")
    if not message.HasField("expiry"):
        raise MissingField("the session has no expiry")
    if not message.HasField("bot_config"):
        raise MissingField("the session has no bot_config")
    if not message.HasField("last_seen_config"):
        raise MissingField("the session has no last_seen_config")
    return _session(message)


class KnownSessions:
    """The sessions of the latest good tokens, so that each is verified once a process.

    Expiry is asked at each use. What is remembered belongs to exactly these keys: with one
    key less it is asked anew. Any thread may call.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, Secret, bool], Session] = OrderedDict()
        self._lock = native_lock()

    def session(self, token: str, secret: Secret, *, takes_hidden: bool = False) -> Session:
        """As `decode`, remembering what it gave."""
        found = self._sessions.get((token, secret, takes_hidden))
        if found is None:
            found = decode(token, secret, takes_hidden=takes_hidden)
            self.add(token, secret, found, takes_hidden=takes_hidden)
        return found

    def add(
        self,
        token: str,
        secret: Secret,
        session: Session,
        *,
        takes_hidden: bool = False,
        instead_of: str = "",
    ) -> None:
        """Remember a token that was just made, and not the one it replaces; nor the oldest one."""
        with self._lock:
            self._sessions.pop((instead_of, secret, takes_hidden), None)
            self._sessions[token, secret, takes_hidden] = session
            if len(self._sessions) > MAX_KNOWN_SESSIONS:
                self._sessions.popitem(last=False)


def _text(envelope: session_pb2.SessionToken) -> str:
    return b64encode(envelope.SerializeToString(deterministic=True)).decode("ascii")


def _verified_body(token: str, secret: Secret, *, takes_hidden: bool) -> bytes:
    envelope = _envelope(token)
    kind = envelope.WhichOneof("kind")
    if kind == "hmac_tagged":
        tagged = envelope.hmac_tagged
        if verify(secret, PREFIX, tagged.session, tagged.hmac_sha256):
            return tagged.session
    elif kind == "aead_encrypted" and takes_hidden:
        sealed = envelope.aead_encrypted.cipher_text
        body = unseal(secret, AEAD_INFO, AEAD_PURPOSE, sealed)
        if body is not None:
            return body
    else:
        raise UnsupportedFormat(f"unsupported kind of token: {kind or 'none'}")
    raise BadMac("bad signature")


def _envelope(token: str) -> session_pb2.SessionToken:
    if len(token) > MAX_TOKEN_CHARS:
        raise BadToken(f"too long: {len(token)} > {MAX_TOKEN_CHARS}")
    try:
        raw = b64decode(token.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise BadToken("not base64") from None
    if b64encode(raw).decode("ascii") != token:
        raise BadToken("not canonical base64")
    envelope = session_pb2.SessionToken()
    try:
        envelope.ParseFromString(raw)
    except DecodeError:
        raise BadToken("not an envelope") from None
    return envelope


def _session_message(session: Session) -> session_pb2.Session:
    return session_pb2.Session(
        bot_id=session.bot_id,
        session_id=session.session_id,
        expiry=_timestamp(session.expiry_ms),
        debug_info=_debug_message(session.debug_info),
        bot_config=_config_message(session.bot_config),
        handshake_config_hash=session.handshake_config_hash,
        rbe_bot_session_id=session.rbe_bot_session_id,
        last_seen_config=_timestamp(session.last_seen_config_ms),
        epoch=session.epoch,
        credential_sha256=session.credential_sha256,
        started=_timestamp(session.started_ms) if session.started_ms else None,
    )


def _session(message: session_pb2.Session) -> Session:
    return Session(
        bot_id=message.bot_id,
        session_id=message.session_id,
        expiry_ms=_milliseconds(message.expiry),
        bot_config=_config(message.bot_config),
        last_seen_config_ms=_milliseconds(message.last_seen_config),
        handshake_config_hash=message.handshake_config_hash,
        rbe_bot_session_id=message.rbe_bot_session_id,
        epoch=message.epoch,
        credential_sha256=message.credential_sha256,
        started_ms=_milliseconds(message.started),
        debug_info=_debug(message.debug_info),
    )


def _config_message(config: BotConfig) -> session_pb2.BotConfig:
    return session_pb2.BotConfig(
        expiry=_timestamp(config.expiry_ms) if config.expiry_ms else None,
        debug_info=_debug_message(config.debug_info),
        bot_auth=[to_message(method) for method in config.bot_auth],
        system_service_account=config.system_service_account,
        logs_cloud_project=config.logs_cloud_project,
        rbe_instance=config.rbe_instance,
        rbe_effective_bot_id=config.rbe_effective_bot_id,
        rbe_effective_bot_id_dimension=config.rbe_effective_bot_id_dimension,
    )


def _config(message: session_pb2.BotConfig) -> BotConfig:
    return BotConfig(
        expiry_ms=_milliseconds(message.expiry),
        debug_info=_debug(message.debug_info),
        bot_auth=tuple(from_bytes(auth.SerializeToString()) for auth in message.bot_auth),
        system_service_account=message.system_service_account,
        logs_cloud_project=message.logs_cloud_project,
        rbe_instance=message.rbe_instance,
        rbe_effective_bot_id=message.rbe_effective_bot_id,
        rbe_effective_bot_id_dimension=message.rbe_effective_bot_id_dimension,
    )


def _debug_message(info: DebugInfo) -> session_pb2.DebugInfo | None:
    if info == DebugInfo():
        return None
    return session_pb2.DebugInfo(
        created=_timestamp(info.created_ms) if info.created_ms else None,
        swarming_version=info.server_version,
        request_id=info.request_id,
    )


def _debug(message: session_pb2.DebugInfo) -> DebugInfo:
    return DebugInfo(_milliseconds(message.created), message.swarming_version, message.request_id)


def _timestamp(ms: int) -> Timestamp:
    seconds, rest = divmod(ms, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def _milliseconds(timestamp: Timestamp) -> int:
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000
