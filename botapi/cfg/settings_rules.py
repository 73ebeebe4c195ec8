"""The rules of settings.cfg (bot-api 7.8, docs/settings-cfg.md): a message in, every mistake out.

The functions that make values raise ValueError with what is wrong, so that `settings_cfg`
makes the same values and leaves out what cannot be used.
"""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_interface, ip_network

import jwt
from botpb import settings_pb2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.message import Message

from botapi.cfg import access_cfg
from botapi.cfg.mistakes import Complaint, Spot, shown
from botapi.cfg.text_proto import ignored
from botapi.domain.access_rules import member_problem
from botapi.domain.fleet_settings import Network
from botapi.domain.value_rules import is_email, url_problem

MAX_SLEEP_S = 86_400
"""Longest `max_bot_sleep_time`."""
NOWHERE = Spot()
ARCHIVE_VERSION = re.compile(r"[0-9a-f]{64}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9\-]{0,63}")
_NAME = re.compile(r"[a-zA-Z0-9_.\-/]{1,128}")
_LOOPBACK = "loopback"
_UI = "ignored: the pages of this server call nobody"
_UNUSED = "ignored: there is nothing it could change"
_PACKAGE = "ignored: this server fetches no packages; it sends bots the archive that it has"
_IGNORED = {
    "SettingsCfg.google_analytics": _UI,
    "SettingsCfg.enable_ts_monitoring": _UNUSED,
    "SettingsCfg.cipd": "ignored: this server fetches no packages",
    "SettingsCfg.ui_client_id": _UI,
    "AuthSettings.enforced_realm_permissions": "ignored: permissions are always enforced",
    "SettingsCfg.bot_isolate_grpc_proxy": _UNUSED,
    "SettingsCfg.bot_swarming_grpc_proxy": _UNUSED,
    "SettingsCfg.enable_batch_es_notifications": _UNUSED,
    "SettingsCfg.extra_child_src_csp_url": _UI,
    "SettingsCfg.resultdb": "ignored: results are kept here",
    "SettingsCfg.cas": "ignored: there is no content-addressed storage",
    "SettingsCfg.traffic_migration": _UNUSED,
    "BotPackage.server": _PACKAGE,
    "BotPackage.pkg": _PACKAGE,
}


def warnings(message: settings_pb2.SettingsCfg) -> Iterator[Complaint]:
    """What is set and read for nothing, and groups of `auth` that are not there."""
    yield from ignored(message, _IGNORED)
    yield from access_cfg.warnings(message)


def check(message: settings_pb2.SettingsCfg) -> Iterator[Complaint]:
    """Every mistake in a parsed settings.cfg."""
    for part in (_numbers, _urls, _deployment, _addresses, _issuers, _machines, _tokens, _rollout):
        yield from part(message, Spot())
    yield from _release_keys(message, Spot())
    yield from access_cfg.check(message, Spot())
    if message.HasField("sign_in"):
        yield from sign_in_problems(message.sign_in, Spot().at("sign_in"))


def sign_in_problems(said: settings_pb2.SignIn, spot: Spot = NOWHERE) -> Iterator[Complaint]:
    """Every mistake in `sign_in`."""
    if problem := url_problem(said.issuer, may_be_loopback_http=True):
        yield spot.at("issuer"), f"bad issuer: {problem}"
    if not said.client_id:
        yield spot, "no client_id"
    for i, domain in enumerate(said.email_domain):
        if member_problem(f"user:*@{domain}"):
            yield spot.at("email_domain", i), f"not a domain: {shown(domain)}"


def network_of(text: str) -> Network:
    """An address or a network in CIDR notation. Raises ValueError."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        wider = ip_interface(text).network
    except ValueError:
        raise ValueError("neither an address nor a network such as 10.0.0.0/8") from None
    raise ValueError(f"an address within its network: write {wider}")


def key_set_of(text: str) -> str:
    """A JSON key set with at least one key that can be used. Raises ValueError."""
    try:
        keys = jwt.PyJWKSet.from_json(text).keys
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, jwt.PyJWTError):
        raise ValueError("not a JSON key set with a usable key") from None
    if any(key.key_type == "oct" for key in keys):
        raise ValueError("it holds a symmetric key")
    return text


def signer_key_of(pem: str) -> str:
    """PEM of an RSA public key or of a certificate with one. Raises ValueError."""
    raw = pem.strip().encode()
    try:
        is_certificate = b"BEGIN CERTIFICATE" in raw
        key = (
            x509.load_pem_x509_certificate(raw).public_key()
            if is_certificate
            else load_pem_public_key(raw)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("not PEM of a public key or certificate") from None
    if isinstance(key, RSAPublicKey):
        return pem
    raise ValueError("not an RSA key")


def ed25519_of(text: str) -> bytes:
    """The 32 bytes of an Ed25519 public key in base64. Raises ValueError."""
    try:
        raw = b64decode(text, validate=True)
    except BadBase64:
        raise ValueError("not base64") from None
    if len(raw) != 32:
        raise ValueError(f"32 bytes are needed, these are {len(raw)}")
    Ed25519PublicKey.from_public_bytes(raw)
    return raw


def provider_problem(issuer: str, jwks_uri: str, jwks: str) -> tuple[str, str]:
    """The field of an issuer that is wrong, and what is wrong; empty when nothing is."""
    problem = url_problem(issuer)
    if problem:
        return "issuer", problem
    problem = url_problem(jwks_uri, may_be_loopback_http=True) if jwks_uri else ""
    if problem:
        return "jwks_uri", problem
    return ("jwks", _failure(key_set_of, jwks)) if jwks and _failure(key_set_of, jwks) else ("", "")


def _failure(make: Callable[[str], object], text: str) -> str:
    try:
        make(text)
    except ValueError as error:
        return str(error)
    return ""


def _range(message: Message, name: str, high: int | None, spot: Spot) -> Iterator[Complaint]:
    value = getattr(message, name)
    if high is None and value < 0:
        yield spot.at(name), f"negative: {value}"
    elif high is not None and not 0 <= value <= high:
        yield spot.at(name), f"not 0 to {high}: {value}"


def _repeated(spots: Iterable[tuple[Spot, str]], what: str) -> Iterator[Complaint]:
    """Complaints about names that are empty or were there before."""
    seen: set[str] = set()
    for spot, name in spots:
        if not name:
            yield spot, f"no {what}"
        elif name in seen:
            yield spot.at(what), f"{what} {shown(name)} is there twice"
        seen.add(name)


def _numbers(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    yield from _range(message, "reusable_task_age_secs", None, spot)
    yield from _range(message, "bot_death_timeout_secs", None, spot)
    yield from _range(message, "max_bot_sleep_time", MAX_SLEEP_S, spot)
    yield from _range(message, "max_dropped_percent", 100, spot)


def _urls(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    template = message.display_server_url_template
    here = spot.at("display_server_url_template")
    if template and template.count("%s") != 1:
        yield here, f'exactly one "%s" is needed: {shown(template)}'
    elif template and (problem := url_problem(template.replace("%s", "x"))):
        yield here, f"{problem}: {shown(template)}"
    for where, name, url in (
        ("resultdb", "server", message.resultdb.server),
        ("cas", "viewer_server", message.cas.viewer_server),
    ):
        if url and (problem := url_problem(url)):
            yield spot.at(where).at(name), f"{problem}: {shown(url)}"


def _deployment(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    if not message.HasField("bot_deployment"):
        return
    said, here = message.bot_deployment, spot.at("bot_deployment")
    yield from _range(said, "canary_percent", 100, here)
    if not said.HasField("stable"):
        yield here, "no stable"
    for name, package in (("stable", said.stable), ("canary", said.canary)):
        if release_of(package) and ARCHIVE_VERSION.fullmatch(package.version) is None:
            said_ = f"not 64 hex digits: {shown(package.version)}"
            yield here.at(name).at("version"), said_


def release_of(package: settings_pb2.BotDeployment.BotPackage) -> str:
    """The archive that a channel names; empty for a package of some package server."""
    return "" if package.server or package.pkg else package.version


def _addresses(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    spots = [spot.at("ip_allowlist", i) for i in range(len(message.ip_allowlist))]
    names = (entry.name for entry in message.ip_allowlist)
    yield from _repeated(zip(spots, names, strict=True), "name")
    for here, entry in zip(spots, message.ip_allowlist, strict=True):
        if entry.name == _LOOPBACK:
            yield here.at("name"), f'the list "{_LOOPBACK}" is built in: choose another name'
        elif entry.name and _NAME.fullmatch(entry.name) is None:
            said = "1 to 128 letters, digits, _ . - and /"
            yield here.at("name"), f"bad name {shown(entry.name)}: {said}"
        if not entry.subnet:
            yield here, "no subnet"
        for i, subnet in enumerate(entry.subnet):
            if problem := _failure(network_of, subnet):
                yield here.at("subnet", i), f"bad subnet {shown(subnet)}: {problem}"


def _issuers(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    spots = [spot.at("oidc_provider", i) for i in range(len(message.oidc_provider))]
    issuers = (entry.issuer for entry in message.oidc_provider)
    yield from _repeated(zip(spots, issuers, strict=True), "issuer")
    for here, entry in zip(spots, message.oidc_provider, strict=True):
        field, problem = provider_problem(entry.issuer, entry.jwks_uri, entry.jwks)
        if problem and entry.issuer:
            yield here.at(field), f"bad {field}: {problem}"
    if not message.HasField("gce_vm_tokens"):
        return
    gce, here = message.gce_vm_tokens, spot.at("gce_vm_tokens")
    field, problem = provider_problem(gce.issuer or "https://x", gce.jwks_uri, gce.jwks)
    if problem:
        yield here.at(field), f"bad {field}: {problem}"
    if not gce.audience:
        yield here, "no audience"
    yield from (
        (here.at("audience", i), "empty audience") for i, a in enumerate(gce.audience) if not a
    )


def _machines(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    spots = [spot.at("machine_token_signer", i) for i in range(len(message.machine_token_signer))]
    ids = (entry.key_id for entry in message.machine_token_signer)
    yield from _repeated(zip(spots, ids, strict=True), "key_id")
    for here, entry in zip(spots, message.machine_token_signer, strict=True):
        if problem := _failure(signer_key_of, entry.public_key):
            yield here.at("public_key"), f"bad public_key: {problem}"
    if message.HasField("client_certs"):
        header = message.client_certs.san_header
        if _HEADER.fullmatch(header) is None:
            said = "a header such as X-Client-San is needed"
            yield spot.at("client_certs").at("san_header"), f"bad san_header: {said}"


def _tokens(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    for i, audience in enumerate(message.id_token_audience):
        here = spot.at("id_token_audience", i, audience)
        if not audience:
            yield here, "empty audience"
        elif "*" in audience[:-1]:
            yield here, '"*" may stand at the end only'
    spots = [spot.at("token_exchange", i) for i in range(len(message.token_exchange))]
    accounts = (entry.service_account for entry in message.token_exchange)
    yield from _repeated(zip(spots, accounts, strict=True), "service_account")
    for here, entry in zip(spots, message.token_exchange, strict=True):
        account = entry.service_account
        if account not in {"", "*"} and not is_email(account):
            said = f'service account is neither an e-mail nor "*": {shown(account)}'
            yield here.at("service_account"), said
        if problem := url_problem(entry.endpoint, may_be_loopback_http=True):
            yield here.at("endpoint"), f"bad endpoint: {problem}"
        if not entry.audience:
            yield here, "no audience"


def _rollout(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    if not message.HasField("rollout"):
        return
    said, here = message.rollout, spot.at("rollout")
    before = 0
    for i, percent in enumerate(said.ring_percent):
        if not 1 <= percent <= 100:
            yield here.at("ring_percent", i), f"not 1 to 100: {percent}"
        elif percent <= before:
            yield here.at("ring_percent", i), f"not more than the ring before: {percent}"
        before = percent
    yield from _range(said, "soak_secs", None, here)
    yield from _range(said, "max_failed_percent", 100, here)
    yield from _range(said, "min_updated", None, here)


def _release_keys(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    spots = [spot.at("release_key", i) for i in range(len(message.release_key))]
    yield from _repeated(zip(spots, (key.id for key in message.release_key), strict=True), "id")
    seen: set[str] = set()
    for here, key in zip(spots, message.release_key, strict=True):
        if problem := _failure(ed25519_of, key.public_key):
            yield here.at("public_key"), f"bad public_key: {problem}"
        elif key.public_key in seen:
            yield here.at("public_key"), "this public_key is there twice"
        seen.add(key.public_key)
