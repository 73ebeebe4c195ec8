"""Who a bot proves to be: the headers and the address of a call against its group's methods.

Present but bad is refused; absent asks the next method (bot-api 0.4 step 1, 7.3). Every
method fails closed, and so do those that this server cannot verify.
"""

import hashlib
import hmac
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

from botapi.domain.bot_groups import AuthMethod
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import host_id

Network = IPv4Network | IPv6Network

SECRET_HEADER = "X-Skep-Bot-Secret"  # noqa: S105 - the name of a header
MAX_SECRET_CHARS = 512
UNVERIFIABLE = ("X-Luci-Gce-Vm-Token", "X-Luci-Machine-Token", "Authorization")
"""Upstream's credentials in the order in which the first present one decides (bot-api 0.6)."""

NO_LISTS: Mapping[str, Sequence[Network]] = MappingProxyType({})
_ENROLLED = "require_enrolled_secret"


@dataclass(frozen=True, slots=True)
class Presented:
    """What a call brings along.

    `peer_ip` is the client's address as `client_ip` tells it, `secret` the enrolled secret
    or empty, `unverifiable` the name of the first header that nobody here can check.
    """

    peer_ip: str
    secret: str = field(default="", repr=False)
    unverifiable: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a bot is: `name` for people (`authenticated_as`), and the method that said so.

    `credential_sha256` is a fingerprint of what was shown, empty for an address alone.
    `warnings` are failures of methods with `log_if_failed` that were tried before.
    """

    name: str
    method: str
    credential_sha256: bytes = b""
    warnings: tuple[str, ...] = ()


class Headers(Protocol):
    """The headers of a call, by name in any case; Werkzeug's are."""

    def get(self, key: str, /) -> str | None:
        """The value of a header; None when it is absent."""
        ...


def presented(peer_ip: str, headers: Headers) -> Presented:
    """Pick the credentials out of a call."""
    first = next((name for name in UNVERIFIABLE if headers.get(name)), "")
    return Presented(peer_ip, headers.get(SECRET_HEADER) or "", first)


def authorize_bot(
    bot_id: str,
    methods: Sequence[AuthMethod],
    presented: Presented,
    *,
    enrolled_digest: Callable[[str], bytes | None],
    ip_lists: Mapping[str, Sequence[Network]] = NO_LISTS,
) -> Identity:
    """The identity by the first method that is satisfied (bot-api 7.3).

    `enrolled_digest(host_id)` gives the stored SHA-256 of a host's secret, None for a host
    that never enrolled; what it raises ends the search. Raises Refusal UNAUTHENTICATED
    with the one reason, or `no auth method succeeded: e1; e2`.
    """
    if presented.unverifiable:
        raise _refusal(f"{presented.unverifiable} is not supported by this server")
    host = host_id(bot_id)
    fingerprint = _check_secret(host, presented, enrolled_digest)
    failures: list[str] = []
    warnings: list[str] = []
    for method in methods:
        failure = _failure(method, fingerprint, presented, ip_lists)
        if not failure:
            name = f"bot:{host}" if method.require_enrolled_secret else "bot:whitelisted-ip"
            by = (*method.requirements(), "ip_whitelist")[0]
            return Identity(name, by, fingerprint, tuple(warnings))
        failures.append(failure)
        if method.log_if_failed:
            warnings.append(failure)
    if not failures:
        raise _refusal("no auth method is configured for this bot")
    if len(failures) == 1:
        raise _refusal(failures[0])
    raise _refusal("no auth method succeeded: " + "; ".join(failures))


def _check_secret(
    host: str, presented: Presented, enrolled_digest: Callable[[str], bytes | None]
) -> bytes:
    """The fingerprint of the presented secret, empty without one; Refusal when it is wrong."""
    if not presented.secret:
        return b""
    stored = enrolled_digest(host)
    shown = secret_digest(presented.secret[:MAX_SECRET_CHARS])
    if stored is None:
        raise _refusal(f"{SECRET_HEADER}: this host is not enrolled")
    if not hmac.compare_digest(shown, stored):
        raise _refusal(f"{SECRET_HEADER}: not the secret of this host")
    return hashlib.sha256(b"skep credential" + shown).digest()


def _failure(
    method: AuthMethod,
    fingerprint: bytes,
    presented: Presented,
    ip_lists: Mapping[str, Sequence[Network]],
) -> str:
    """Why the method is not satisfied; empty when it is."""
    requirements = method.requirements()
    for name in requirements:
        if name != _ENROLLED:
            return f"{name} is not supported by this server"
    if method.require_enrolled_secret and not fingerprint:
        return f"{SECRET_HEADER} is missing"
    if method.ip_whitelist:
        return _ip_failure(method.ip_whitelist, presented.peer_ip, ip_lists)
    return "" if requirements else "the auth entry names no method"


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


def _refusal(message: str) -> Refusal:
    return Refusal(Code.UNAUTHENTICATED, message)
