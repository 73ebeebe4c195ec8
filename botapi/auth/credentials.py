"""Who a bot proves to be: the headers and the address of a call against its group's methods.

Two steps (bot-api 0.4). `CredentialChecker.verify` comes first of all and looks at the headers
alone: what is present and bad is refused whatever else would do; what is absent proves nothing.
`authorize_bot` then asks the methods of the bot's group one after the other (bot-api 7.3).
Every method fails closed.
"""

import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from types import MappingProxyType
from typing import Protocol

from botapi.auth import gce_token, machine_token, oidc
from botapi.auth.client_cert import read_names
from botapi.auth.gce_token import verify_gce_vm_token
from botapi.auth.machine_token import verify_machine_token
from botapi.auth.oidc import verify_bearer
from botapi.auth.proof import (
    Account,
    Evidence,
    Instance,
    Keys,
    Machine,
    Trust,
    Verified,
    Verifier,
    refusal,
)
from botapi.concurrency import native_lock
from botapi.domain.bot_groups import AuthMethod
from botapi.domain.fleet_settings import FleetSettings
from botapi.domain.names import host_id

Network = IPv4Network | IPv6Network

SECRET_HEADER = "X-Skep-Bot-Secret"  # noqa: S105 - the name of a header
MAX_SECRET_CHARS = 512
VERIFIED_S = 60
"""Longest that a token which was found good is taken for good without another look."""
MAX_VERIFIED = 20_000
"""Good tokens that are remembered."""

VERIFIERS: Mapping[str, Verifier] = MappingProxyType(
    {
        gce_token.HEADER: verify_gce_vm_token,
        machine_token.HEADER: verify_machine_token,
        oidc.HEADER: verify_bearer,
    }
)
"""By header, in the order in which the first present one decides (bot-api 0.6)."""

NO_LISTS: Mapping[str, Sequence[Network]] = MappingProxyType({})
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

log = logging.getLogger(__name__)


class Headers(Protocol):
    """The headers of a call, by name in any case; Werkzeug's are."""

    def get(self, key: str, /) -> str | None:
        """The value of a header; None when it is absent."""
        ...


@dataclass(frozen=True, slots=True)
class Presented:
    """What a call brings along, unchecked.

    `peer_ip` is the client's address as `client_ip` tells it; `by_proxy`: the connection is
    a trusted proxy's, whose word on client certificates is believed.
    """

    peer_ip: str
    headers: Headers = field(default_factory=lambda: NO_HEADERS, repr=False)
    by_proxy: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """What a call proves. `secret` is unchecked still: whose it must be is not known yet.

    `evidence` is of the one header that decided, `cert_names` of a client certificate.
    """

    peer_ip: str
    secret: str = field(default="", repr=False)
    evidence: Evidence | None = None
    cert_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a bot is: `name` for people (`authenticated_as`), and the method that said so.

    `credential_sha256` is a fingerprint of what was shown, empty for an address alone.
    """

    name: str
    method: str
    credential_sha256: bytes = b""


class CredentialChecker:
    """Checks the credential headers of calls in one process; any thread may call."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lock = native_lock()
        self._fleet: FleetSettings | None = None
        self._good: OrderedDict[tuple[str, bytes], Verified] = OrderedDict()
        self._has_warned = False

    def verify(self, presented: Presented, fleet: FleetSettings, now_s: float) -> Proof:
        """What the headers prove (bot-api 0.4 step 1, 0.6).

        Raises Refusal UNAUTHENTICATED for a header that is present and bad, INTERNAL when
        that cannot be told now. `now_s` is in seconds since 1970.
        """
        headers = presented.headers
        evidence = None
        for name, verifier in VERIFIERS.items():
            text = headers.get(name)
            if text:
                evidence = self._verified(name, verifier, text, fleet, now_s)
                break
        return Proof(
            peer_ip=presented.peer_ip,
            secret=headers.get(SECRET_HEADER) or "",
            evidence=evidence,
            cert_names=self._cert_names(presented, fleet.client_cert_header),
        )

    def _verified(
        self, name: str, verifier: Verifier, text: str, fleet: FleetSettings, now_s: float
    ) -> Evidence:
        """What a token says; a good one is remembered for a moment, never beyond its end."""
        key = (name, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        with self._lock:
            if self._fleet is not fleet:  # other keys, issuers or audiences
                self._good.clear()
                self._fleet = fleet
            known = self._good.get(key)
        if known is not None and now_s < known.expires_s:
            return known.evidence
        found = verifier(text, trust_of(fleet, self._keys, now_s))
        kept = Verified(found.evidence, min(found.expires_s, now_s + VERIFIED_S))
        with self._lock:
            if self._fleet is fleet:
                self._good[key] = kept
                self._good.move_to_end(key)
                if len(self._good) > MAX_VERIFIED:
                    self._good.popitem(last=False)
        return found.evidence

    def _cert_names(self, presented: Presented, header: str) -> tuple[str, ...]:
        text = presented.headers.get(header) if header else None
        if not text:
            return ()
        if presented.by_proxy:
            return read_names(header, text)
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s sends %s and is not in SKEP_BEHIND_PROXY: such headers are ignored",
                presented.peer_ip,
                header,
            )
        return ()


def trust_of(fleet: FleetSettings, keys: Keys, now_s: float) -> Trust:
    """What settings.cfg says tokens are checked against."""
    vm = fleet.gce_vm_tokens
    return Trust(
        now_s=now_s,
        keys=keys,
        providers=fleet.oidc_providers,
        machine_token_keys=fleet.machine_token_keys,
        vm_provider=vm.provider if vm is not None else None,
        vm_audiences=vm.audiences if vm is not None else (),
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """What credentials are compared with, beside the methods of a group.

    `enrolled_digest(host_id)` gives the stored SHA-256 of a host's secret, None for a host
    that never enrolled; what it raises ends the search. `own_url` is the address of this
    server as identity tokens name it, empty when nobody set it.
    """

    enrolled_digest: Callable[[str], bytes | None]
    ip_lists: Mapping[str, Sequence[Network]] = field(default_factory=lambda: NO_LISTS)
    own_url: str = ""


@dataclass(frozen=True, slots=True)
class _Bot:
    """One bot before one method: its host, what it proved, the digest of a good secret."""

    host: str
    proof: Proof
    secret_sha256: bytes
    own_url: str


@dataclass(frozen=True, slots=True)
class _Granted:
    """Who the bot is, and the fingerprint of the credential that said so."""

    name: str
    credential_sha256: bytes


def authorize_bot(
    bot_id: str, methods: Sequence[AuthMethod], proof: Proof, rules: Rules
) -> Identity:
    """The identity by the first method that is satisfied (bot-api 7.3).

    Raises Refusal UNAUTHENTICATED with the one reason, or
    `no auth method succeeded: e1; e2`.
    """
    host = host_id(bot_id)
    secret = _good_secret(host, proof.secret, rules.enrolled_digest)
    bot = _Bot(host, proof, secret, rules.own_url)
    failures: list[str] = []
    for method in methods:
        answer = _ask(method, bot, rules.ip_lists)
        if isinstance(answer, Identity):
            return answer
        failures.append(answer)
        if method.log_if_failed:
            log.error("bot %s: an auth method failed: %s", bot_id, answer)
    if not failures:
        raise refusal("no auth method is configured for this bot")
    if len(failures) == 1:
        raise refusal(failures[0])
    raise refusal("no auth method succeeded: " + "; ".join(failures))


def _good_secret(host: str, secret: str, enrolled_digest: Callable[[str], bytes | None]) -> bytes:
    """The digest of the presented secret, empty without one; Refusal when it is wrong."""
    if not secret:
        return b""
    stored = enrolled_digest(host)
    sent = secret_digest(secret[:MAX_SECRET_CHARS])
    if stored is None:
        raise refusal(f"{SECRET_HEADER}: this host is not enrolled")
    if not hmac.compare_digest(sent, stored):
        raise refusal(f"{SECRET_HEADER}: not the secret of this host")
    return sent


def _ask(
    method: AuthMethod, bot: _Bot, ip_lists: Mapping[str, Sequence[Network]]
) -> Identity | str:
    """Who the bot is by this method, or why it is nobody."""
    requirements = method.requirements()
    if not requirements and not method.ip_whitelist:
        return "the auth entry names no method"
    granted = None
    for name in requirements:  # one; of several in a damaged entry all must be satisfied
        answer = _METHODS[name](method, bot)
        if isinstance(answer, str):
            return answer
        granted = answer
    if method.ip_whitelist:
        failure = _ip_failure(method.ip_whitelist, bot.proof.peer_ip, ip_lists)
        if failure:
            return failure
    if granted is None:
        fingerprint = _secret_fingerprint(bot.secret_sha256)
        return Identity("bot:whitelisted-ip", "ip_whitelist", fingerprint)
    return Identity(granted.name, requirements[0], granted.credential_sha256)


def _enrolled_secret(_method: AuthMethod, bot: _Bot) -> _Granted | str:
    if not bot.secret_sha256:
        return f"{SECRET_HEADER} is missing"
    return _Granted(f"bot:{bot.host}", _secret_fingerprint(bot.secret_sha256))


def _machine_token(method: AuthMethod, bot: _Bot) -> _Granted | str:
    machine = bot.proof.evidence
    if not isinstance(machine, Machine):
        return f"{machine_token.HEADER} is missing"
    if not is_name_of(machine.fqdn, bot.host):
        return f'the machine token is of "{machine.fqdn}", not of host "{bot.host}"'
    cas = method.require_luci_machine_token_secure
    if cas and machine.ca_id not in cas:
        return (
            f"the machine token is by the certificate authority {machine.ca_id}, not a listed one"
        )
    return _granted(f"bot:{machine.fqdn}")


def _gce_vm(method: AuthMethod, bot: _Bot) -> _Granted | str:
    instance = bot.proof.evidence
    project = method.require_gce_vm_token
    if not isinstance(instance, Instance):
        return f"{gce_token.HEADER} is missing"
    if instance.name != bot.host:
        return f'the VM token is of instance "{instance.name}", not of host "{bot.host}"'
    if not project or instance.project != project:
        return f'the VM token is of project "{instance.project}", not of "{project}"'
    return _granted(f"bot:{instance.name}@gce.{instance.project}")


def _service_account(method: AuthMethod, bot: _Bot) -> _Granted | str:
    account = bot.proof.evidence
    if not isinstance(account, Account):
        return f"{oidc.HEADER} is missing"
    if not account.email:
        return "the identity token names no verified e-mail address"
    if account.email not in method.require_service_account:
        return f"{account.email} is not a listed service account"
    return _audience_failure(account, bot.own_url) or _granted(f"user:{account.email}")


def _oidc(method: AuthMethod, bot: _Bot) -> _Granted | str:
    account, asked = bot.proof.evidence, method.require_oidc
    if not isinstance(account, Account) or asked is None:
        return f"{oidc.HEADER} is missing"
    if account.issuer != asked.issuer:
        return f"the identity token is by {account.issuer}, not by {asked.issuer}"
    if not _is_listed(account.subject, asked.subjects, bot.host):
        return f'the subject "{account.subject}" is not listed'
    name = f"user:{account.email}" if account.email else f"oidc:{account.issuer}#{account.subject}"
    failure = _audience_failure(account, asked.audience)
    return failure or _granted(name, f"{account.issuer}#{account.subject}")


def _audience_failure(account: Account, audience: str) -> str:
    """Why the token is not for us; empty when it is. A slash at the end makes no difference."""
    if not audience:
        return "nobody set whom identity tokens must be for: set SKEP_PUBLIC_URL"
    if audience.rstrip("/") not in {said.rstrip("/") for said in account.audiences}:
        return f"the identity token is not for {audience}"
    return ""


def _client_cert(method: AuthMethod, bot: _Bot) -> _Granted | str:
    names = bot.proof.cert_names
    if not names:
        return "no client certificate was passed on by a trusted proxy"
    listed = method.require_client_cert or ()
    found = next((name for name in names if _is_listed(name, listed, bot.host)), "")
    if not found:
        return f'the client certificate carries no name that is listed for host "{bot.host}"'
    return _granted(f"bot:{found}")


_METHODS: Mapping[str, Callable[[AuthMethod, _Bot], _Granted | str]] = MappingProxyType(
    {
        "require_enrolled_secret": _enrolled_secret,
        "require_luci_machine_token": _machine_token,
        "require_luci_machine_token_secure": _machine_token,
        "require_service_account": _service_account,
        "require_gce_vm_token": _gce_vm,
        "require_oidc": _oidc,
        "require_client_cert": _client_cert,
    }
)


def is_name_of(name: str, host: str) -> bool:
    """Is it the name of this host: the host id itself, or that, a dot and more (bot-api 7.1)?"""
    return bool(host) and (name == host or name.startswith(f"{host}."))


def _is_listed(name: str, listed: Sequence[str], host: str) -> bool:
    """Is the name listed, where `{host}` in the list stands for the host id?"""
    if not name or not host:
        return False
    return any(pattern.replace("{host}", host) == name for pattern in listed)


def _granted(name: str, subject: str = "") -> _Granted:
    text = (subject or name).encode("utf-8", "surrogatepass")
    return _Granted(name, hashlib.sha256(b"skep credential of " + text).digest())


def _secret_fingerprint(secret_sha256: bytes) -> bytes:
    if not secret_sha256:
        return b""
    return hashlib.sha256(b"skep credential" + secret_sha256).digest()


def _ip_failure(name: str, peer_ip: str, ip_lists: Mapping[str, Sequence[Network]]) -> str:
    if name not in ip_lists:
        return f'there is no address list "{name}"'
    address = _address(peer_ip)
    if address is None or not _is_in(address, ip_lists[name]):
        return f'{peer_ip or "the address"} is not in the address list "{name}"'
    return ""


def secret_digest(secret: str) -> bytes:
    """What is stored of an enrolled secret: its SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def client_ip(peer: str, x_forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address of the client: the rightmost one that is not a trusted proxy's.

    `peer` is the address of the connection; `x_forwarded_for` is believed only as far as
    trusted proxies wrote it, never from its left end. A part that is no address ends the
    walk: the proxy that passed it on counts as the client. If all are trusted the
    leftmost address is returned.
    """
    current = _address(peer)
    if current is None:
        return peer
    for part in reversed(x_forwarded_for.split(",")):
        if not _is_in(current, trusted):
            break
        before = _address(_without_port(part.strip()))
        if before is None:
            break
        current = before
    return str(current)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address; one that maps IPv4 into IPv6 as the IPv4 one. None when it is not one."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
