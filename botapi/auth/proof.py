"""What the headers of a call prove, and what proofs are checked against: plain values.

A verifier takes the text of one header and gives `Verified`, or refuses. Which proof a bot
needs is decided in `credentials`; a verifier knows nothing of bots and groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jwt import PyJWK

from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import OidcProvider

SHOWN_CHARS = 80
"""Characters of what somebody sent that a message repeats."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that a machine token names, and the authority behind its certificate."""

    fqdn: str
    ca_id: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A virtual machine of Google's cloud."""

    name: str
    project: str


@dataclass(frozen=True, slots=True)
class Account:
    """Whom an identity token is about. `email` is empty unless its issuer verified it."""

    issuer: str
    subject: str
    audiences: tuple[str, ...]
    email: str = ""


Evidence = Machine | Instance | Account


@dataclass(frozen=True, slots=True)
class Verified:
    """A good token: what it says, and until when (seconds since 1970)."""

    evidence: Evidence
    expires_s: float


class Keys(Protocol):
    """The public keys of issuers."""

    def find(self, provider: OidcProvider, key_id: str, algorithm: str) -> PyJWK | None:
        """The key; None when the issuer has no such key.

        Without a key id, the issuer's only key of that algorithm. Raises Refusal INTERNAL
        when the issuer's keys are unknown and cannot be fetched now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Trust:
    """What a token is checked against: keys, and the time in seconds since 1970."""

    now_s: float
    keys: Keys
    providers: Mapping[str, OidcProvider]
    """By issuer."""
    machine_token_keys: Mapping[str, str]
    """PEM text by key id."""
    vm_provider: OidcProvider | None = None
    vm_audiences: Sequence[str] = ()


class Verifier(Protocol):
    """Checks the text of one header. Raises Refusal UNAUTHENTICATED, or INTERNAL when it
    cannot tell now."""

    def __call__(self, text: str, trust: Trust) -> Verified:
        """What the text proves."""
        ...


def refusal(message: str) -> Refusal:
    """401 with one line."""
    return Refusal(Code.UNAUTHENTICATED, message)


def shown(text: str) -> str:
    """What somebody sent, quoted and short."""
    return f'"{text[:SHOWN_CHARS]}{"..." if len(text) > SHOWN_CHARS else ""}"'
