"""What settings.cfg means, without its syntax: what holds for every server process alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType

from botapi.domain.access_rules import AuthGroups, Granting, Group

Network = IPv4Network | IPv6Network

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
"""The address list `loopback`, which is always there."""


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """An outside issuer of identity tokens, and where its keys are.

    `jwks` is a JSON key set; else `jwks_uri` is asked, else the issuer's discovery document.
    """

    issuer: str
    jwks_uri: str = ""
    jwks: str = ""


@dataclass(frozen=True, slots=True)
class GceVmTokens:
    """Whose identity tokens of virtual machines are believed, and for which audiences."""

    audiences: tuple[str, ...]
    provider: OidcProvider


@dataclass(frozen=True, slots=True)
class TokenExchange:
    """Where access tokens of an account come from (RFC 8693); account `*` is any other."""

    service_account: str
    endpoint: str
    audience: str


@dataclass(frozen=True, slots=True)
class RolloutRule:
    """How a new bot archive reaches the fleet: rings in percent, the last one 100."""

    rings: tuple[int, ...]
    soak_s: int
    max_failed_percent: int
    min_updated: int = 1


@dataclass(frozen=True, slots=True)
class ReleaseKey:
    """A key that signs released bot archives: 32 bytes of Ed25519."""

    key_id: str
    public_key: bytes
    is_recovery: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """`bot_deployment`: release ids of the two channels, empty for "as the server has it"."""

    stable: str = ""
    canary: str = ""
    canary_percent: int = 0


@dataclass(frozen=True, slots=True)
class SignIn:
    """An OpenID Connect issuer that signs people in; without domains, everybody it knows."""

    issuer: str
    client_id: str
    email_domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """One settings.cfg (bot-api 7.8); the defaults are those of a server without one.

    0 for a time means that the server's own setting (environment) counts.
    `machine_token_keys` maps key ids to PEM text.
    """

    reusable_task_age_s: int = 604_800
    bot_death_s: int = 0
    force_sleep: bool = False
    max_bot_sleep_s: int = 60
    task_url_template: str = ""
    ip_lists: Mapping[str, tuple[Network, ...]] = field(
        default_factory=lambda: MappingProxyType({"loopback": LOOPBACK})
    )
    oidc_providers: Mapping[str, OidcProvider] = field(default_factory=dict)
    machine_token_keys: Mapping[str, str] = field(default_factory=dict)
    gce_vm_tokens: GceVmTokens | None = None
    client_cert_header: str = ""
    id_token_audiences: tuple[str, ...] = ()
    token_exchanges: Mapping[str, TokenExchange] = field(default_factory=dict)
    rollout: RolloutRule | None = None
    release_keys: tuple[ReleaseKey, ...] = ()
    deployment: Deployment | None = None
    max_dropped_percent: int = 5
    groups: tuple[Group, ...] = ()
    grantings: tuple[Granting, ...] = ()
    auth: AuthGroups = field(default_factory=AuthGroups)
    sign_in: SignIn | None = None
