"""Bootstrap tokens: the right to enrol a number of hosts within some time.

The token is a signed text with the id of a stored record; the record counts the uses, so
a token can be revoked and used up. The transactions are in `transactions.enrol_bot`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from botapi.auth.signing import BadSignature, Purpose, sign, unsign
from botapi.clock import Rng
from botapi.domain.errors import Code, Refusal

MAX_USES = 1_000
MAX_TTL_S = 30 * 24 * 3600
TOKEN_ID = re.compile(r"[0-9a-f]{20}")
MAX_REMEMBERED_HOSTS = 100_000


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """The record of a token. Times in ms since 1970; `revoked_ms` is 0 while it is good.

    An empty `pool` means any. `enrolled` marks each use, so that a repeat is free.
    """

    token_id: str
    pool: str
    creator: str
    uses: int
    uses_left: int
    created_ms: int
    expires_ms: int
    revoked_ms: int = 0
    enrolled: tuple[str, ...] = ()

    def problem(self, now_ms: int) -> str:
        """Why nobody can enrol with it now; empty when somebody can."""
        if self.revoked_ms:
            return "the bootstrap token is revoked"
        if now_ms > self.expires_ms:
            return "the bootstrap token is expired"
        if self.uses_left <= 0:
            return "the bootstrap token is used up"
        return ""


def new_token(
    *, uses: int, ttl_s: int, pool: str, creator: str, rng: Rng, now_ms: int
) -> BootstrapToken:
    """A record with a fresh id. Raises Refusal INVALID_ARGUMENT out of the limits."""
    if not 1 <= uses <= MAX_USES:
        raise Refusal(Code.INVALID_ARGUMENT, f"uses is {uses}, not from 1 to {MAX_USES}")
    if not 1 <= ttl_s <= MAX_TTL_S:
        raise Refusal(Code.INVALID_ARGUMENT, f"ttl_s is {ttl_s}, not from 1 to {MAX_TTL_S}")
    return BootstrapToken(
        token_id=f"{rng.randbits(80):020x}",
        pool=pool,
        creator=creator,
        uses=uses,
        uses_left=uses,
        created_ms=now_ms,
        expires_ms=now_ms + ttl_s * 1000,
    )


def is_token_id(text: str) -> bool:
    """Has this text the form of a record's id?"""
    return TOKEN_ID.fullmatch(text) is not None


def sign_token(token: BootstrapToken, keys: Sequence[bytes]) -> str:
    """The text that a machine is given; good as long as the record is."""
    value = {"i": token.token_id, "x": token.expires_ms}
    return sign(Purpose.BOOTSTRAP, keys, value, now_ms=token.created_ms)


def check_bootstrap_token(keys: Sequence[bytes], text: str, *, now_ms: int) -> str:
    """The id in a token that we signed and that has not expired; the record is not looked at.

    Raises Refusal PERMISSION_DENIED in one line.
    """
    try:
        value = unsign(Purpose.BOOTSTRAP, keys, text, now_ms=now_ms, max_age_s=MAX_TTL_S)
    except BadSignature:
        raise Refusal(Code.PERMISSION_DENIED, "the bootstrap token is not valid") from None
    if now_ms > value["x"]:
        raise Refusal(Code.PERMISSION_DENIED, "the bootstrap token is expired")
    found: str = value["i"]
    return found


@dataclass(slots=True)
class EnrolledDigests:
    """The stored digests of hosts, remembered until the store notifies a change.

    `read(host_id)` reads one from the store, `transactions.enrol_bot.enrolled_digest`.
    Connect `hear` to `Store.subscribe`. That a host is not enrolled is never remembered.
    """

    read: Callable[[str], bytes | None]
    _known: dict[str, bytes] = field(default_factory=dict)

    def digest(self, host_id: str) -> bytes | None:
        """The SHA-256 of the secret of a host; None when it is not enrolled."""
        known = self._known
        found = known.get(host_id)
        if found is None:
            found = self.read(host_id)
            if found is not None:
                if len(known) >= MAX_REMEMBERED_HOSTS:
                    known.clear()
                known[host_id] = found  # into the dict as it was: a change since then counts
        return found

    def hear(self, topic: str) -> None:
        """Forget everything when an enrolment changed, here or elsewhere."""
        if topic in {"enrol", "*"}:
            self._known = {}
