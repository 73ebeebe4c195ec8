"""The rules of bots.cfg (bot-api 7.2): a message in, every mistake out.

Ours beyond upstream's: a group must assign a `pool` and cannot assign `id`, a script
must be UTF-8 text, and issuers must be defined in settings.cfg.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from botpb import bots_pb2

from botapi.cfg.mistakes import Complaint, Spot, shown
from botapi.cfg.text_proto import ignored, is_set
from botapi.domain.bot_groups import MAX_ALL_IDS, expand_bot_ids
from botapi.domain.dimensions import (
    SHOWN_KEY_BYTES,
    SHOWN_VALUE_BYTES,
    key_problem,
    quote,
    value_problem,
)
from botapi.domain.fleet_settings import FleetSettings
from botapi.domain.pools import PoolsConfig
from botapi.domain.value_rules import is_email, url_problem

_EXCLUSIVE = (
    "require_luci_machine_token",
    "require_luci_machine_token_secure",
    "require_service_account",
    "require_gce_vm_token",
    "require_enrolled_secret",
    "require_oidc",
    "require_client_cert",
)
_IGNORED = {
    "BotGroup.rbe_migration": "obsolete, ignored: pools.cfg has an rbe_migration of its own",
    "BotGroup.bot_config_script_rev": "internal, ignored",
}
_ARCHIVE_PIN = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class _Seen:
    """What earlier groups have claimed, by the number of their group."""

    ids: dict[str, int] = field(default_factory=dict)
    prefixes: dict[str, tuple[int, Spot]] = field(default_factory=dict)
    default: int | None = None
    is_full: bool = False
    """Are there too many ids already? Then no more are looked at."""


def warnings(message: bots_pb2.BotsCfg) -> Iterator[Complaint]:
    """What is set and read for nothing."""
    return ignored(message, _IGNORED)


def check_across(message: bots_pb2.BotsCfg, fleet: FleetSettings) -> Iterator[Complaint]:
    """The mistakes that only settings.cfg shows: issuers it does not define."""
    for here, auth in _auths(message):
        issuer = auth.require_oidc.issuer
        if issuer and issuer not in fleet.oidc_providers:
            said = f"settings.cfg has no oidc_provider with the issuer {shown(issuer)}"
            yield here.at("require_oidc").at("issuer"), said


def warnings_across(
    message: bots_pb2.BotsCfg, pools: PoolsConfig, fleet: FleetSettings
) -> Iterator[Complaint]:
    """What the other files make useless: pools nobody defines, methods nobody can satisfy.

    These are no mistakes, since upstream takes such files: its address lists stand elsewhere.
    """
    for number, group in enumerate(message.bot_group):
        for i, pair in enumerate(group.dimensions):
            key, _, pool = pair.partition(":")
            if key == "pool" and pools.pools and pool not in pools.pools:
                here = Spot().at("bot_group", number).at("dimensions", i, pair)
                yield here, f"pools.cfg has no pool {shown(pool)}"
    for here, auth in _auths(message):
        if auth.ip_whitelist and auth.ip_whitelist not in fleet.ip_lists:
            missing = f"ip_allowlist {shown(auth.ip_whitelist)}"
            yield here.at("ip_whitelist"), f"no bot can satisfy it: settings.cfg has no {missing}"
        for name in _EXCLUSIVE:
            missing = _missing_setting(name, fleet)
            if missing and is_set(auth, name):
                yield here.at(name), f"no bot can satisfy it: settings.cfg has no {missing}"


def _missing_setting(name: str, fleet: FleetSettings) -> str:
    """The field of settings.cfg without which a method cannot be verified; else empty."""
    if name.startswith("require_luci_machine_token") and not fleet.machine_token_keys:
        return "machine_token_signer"
    if name == "require_gce_vm_token" and fleet.gce_vm_tokens is None:
        return "gce_vm_tokens"
    if name == "require_service_account" and not fleet.oidc_providers:
        return "oidc_provider"
    if name == "require_client_cert" and not fleet.client_cert_header:
        return "client_certs"
    return ""


def _auths(message: bots_pb2.BotsCfg) -> Iterator[tuple[Spot, bots_pb2.BotAuth]]:
    for number, group in enumerate(message.bot_group):
        for i, auth in enumerate(group.auth):
            yield Spot().at("bot_group", number).at("auth", i), auth


def check(message: bots_pb2.BotsCfg, scripts: Mapping[str, bytes]) -> Iterator[Complaint]:
    """Every mistake in a parsed bots.cfg.

    `scripts` maps the names of the files in `scripts/` to their contents.
    """
    for number, key in enumerate(message.trusted_dimensions):
        problem = key_problem(key)
        if problem:
            yield Spot().at("trusted_dimensions", number, key), problem
    if "pool" not in message.trusted_dimensions:
        yield Spot().at("trusted_dimensions"), '"pool" is not listed'
    seen = _Seen()
    for number, group in enumerate(message.bot_group):
        spot = Spot().at("bot_group", number)
        yield from _members(group, number, spot, seen)
        yield from _auth(group, spot)
        yield from _accounts(group, spot)
        yield from _dimensions(group, spot)
        yield from _script(group, number, spot, scripts)
        yield from _archive(group, spot)
    yield from _ambiguous(seen)


def _members(group: bots_pb2.BotGroup, number: int, spot: Spot, seen: _Seen) -> Iterator[Complaint]:
    for i, expression in enumerate(group.bot_id):
        yield from _ids(expression, number, spot.at("bot_id", i, expression), seen)
    for i, prefix in enumerate(group.bot_id_prefix):
        here = spot.at("bot_id_prefix", i, prefix)
        if not prefix:
            yield here, "empty bot_id_prefix"
        elif prefix in seen.prefixes:
            other = seen.prefixes[prefix][0]
            yield here, f"bot_id_prefix {shown(prefix)} also appears in group #{other}"
        else:
            seen.prefixes[prefix] = (number, here)
    if not group.bot_id and not group.bot_id_prefix:
        if seen.default is None:
            seen.default = number
        else:
            yield spot, f"group #{seen.default} is the default group already"


def _ids(expression: str, number: int, spot: Spot, seen: _Seen) -> Iterator[Complaint]:
    """Complains once for each group that some id of the expression is in already."""
    if not expression:
        yield spot, "empty bot_id"
        return
    if seen.is_full:
        return
    try:
        expanded = expand_bot_ids(expression)
    except ValueError as error:
        yield spot, f"bad bot_id expression: {error}"
        return
    if len(seen.ids) + len(expanded) > MAX_ALL_IDS:
        seen.is_full = True
        yield spot, f"with these the file names over {MAX_ALL_IDS} bot ids; use bot_id_prefix"
        return
    named: set[int] = set()
    for bot_id in expanded:
        other = seen.ids.get(bot_id)
        if other is None:
            seen.ids[bot_id] = number
        elif other not in named:
            named.add(other)
            yield spot, f"bot_id {shown(bot_id)} also appears in group #{other}"


def _ambiguous(seen: _Seen) -> Iterator[Complaint]:
    """Each pair of prefixes where one begins with the other, at the one that comes later."""
    for prefix, (number, spot) in seen.prefixes.items():
        for length in range(1, len(prefix)):
            shorter = prefix[:length]
            if shorter not in seen.prefixes:
                continue
            other, other_spot = seen.prefixes[shorter]
            pair = f"{shown(shorter)} is a prefix of {shown(prefix)}"
            if (other, other_spot.path) < (number, spot.path):
                yield spot, f"ambiguous with group #{other}: bot_id_prefix {pair}"
            else:
                yield other_spot, f"ambiguous with group #{number}: bot_id_prefix {pair}"


def _auth(group: bots_pb2.BotGroup, spot: Spot) -> Iterator[Complaint]:
    if not group.auth:
        yield spot, 'no "auth" entry'
    for i, auth in enumerate(group.auth):
        here = spot.at("auth", i)
        present = [name for name in _EXCLUSIVE if is_set(auth, name)]
        if len(present) > 1:
            yield here, f"{present[0]} and {present[1]} exclude each other"
        if not present and not auth.ip_whitelist:
            yield here, "no auth method: set ip_whitelist or a require_* field"
        for n, account in enumerate(auth.require_service_account):
            if not is_email(account):
                said = f"service account is not an e-mail: {shown(account)}"
                yield here.at("require_service_account", n), said
        if is_set(auth, "require_gce_vm_token") and not auth.require_gce_vm_token.project:
            yield here.at("require_gce_vm_token"), "require_gce_vm_token.project is empty"
        yield from _oidc(auth, here.at("require_oidc"))
        yield from _client_cert(auth, here.at("require_client_cert"))


def _oidc(auth: bots_pb2.BotAuth, spot: Spot) -> Iterator[Complaint]:
    if not auth.HasField("require_oidc"):
        return
    asked = auth.require_oidc
    problem = url_problem(asked.issuer)
    if problem:
        yield spot.at("issuer"), f"bad require_oidc.issuer: {problem}"
    if not asked.audience:
        yield spot.at("audience"), "require_oidc.audience is empty"
    if not asked.subject:
        yield spot, "require_oidc names no subject"
    for i, subject in enumerate(asked.subject):
        if not subject:
            yield spot.at("subject", i, subject), "empty subject"


def _client_cert(auth: bots_pb2.BotAuth, spot: Spot) -> Iterator[Complaint]:
    if not auth.HasField("require_client_cert"):
        return
    if not auth.require_client_cert.san:
        yield spot, "require_client_cert names no san"
    for i, name in enumerate(auth.require_client_cert.san):
        if not name:
            yield spot.at("san", i, name), "empty san"
        elif "," in name or name.strip() != name:
            yield spot.at("san", i, name), "a san has neither commas nor outer spaces"
        elif name.startswith(("DNS:", "URI:")):
            yield spot.at("san", i, name), "the san is to be written without DNS: or URI:"


def _archive(group: bots_pb2.BotGroup, spot: Spot) -> Iterator[Complaint]:
    if group.bot_archive not in {"", "skep", "keep"}:
        yield spot.at("bot_archive"), f'neither "skep" nor "keep": {shown(group.bot_archive)}'
    pin = group.bot_archive_pin
    if not pin:
        return
    here = spot.at("bot_archive_pin")
    if _ARCHIVE_PIN.fullmatch(pin) is None:
        yield here, f"not 64 hex digits: {shown(pin)}"
    if group.bot_archive == "keep":
        yield here, 'bot_archive_pin and bot_archive "keep" exclude each other'


def _accounts(group: bots_pb2.BotGroup, spot: Spot) -> Iterator[Complaint]:
    account = group.system_service_account
    here = spot.at("system_service_account")
    if account == "bot":
        if not any(auth.require_service_account for auth in group.auth):
            yield (
                here,
                ('system_service_account "bot" needs an auth entry with require_service_account'),
            )
    elif account and not is_email(account):
        yield here, f"system_service_account is not an e-mail: {shown(account)}"
    for i, owner in enumerate(group.owners):
        if not is_email(owner):
            yield spot.at("owners", i), f"owner is not an e-mail: {shown(owner)}"


def _dimensions(group: bots_pb2.BotGroup, spot: Spot) -> Iterator[Complaint]:
    for i, pair in enumerate(group.dimensions):
        here = spot.at("dimensions", i, pair)
        key, colon, value = pair.partition(":")
        if not colon:
            yield here, 'not "key:value"'
            continue
        yield from ((here, said) for said in _pair_problems(key, value))
    if not any(pair.startswith("pool:") for pair in group.dimensions):
        yield spot, 'no "pool" is assigned: dimensions needs a "pool:<name>"'


def _pair_problems(key: str, value: str) -> Iterable[str]:
    problem = key_problem(key)
    if problem:
        yield f"bad key {quote(key, SHOWN_KEY_BYTES)}: {problem}"
    problem = value_problem(key, value)
    if problem:
        yield f"bad value {quote(value, SHOWN_VALUE_BYTES)}: {problem}"
    if key == "id":
        yield 'bad key "id": a bot\'s id is its own, a group cannot assign it'


def _script(
    group: bots_pb2.BotGroup, number: int, spot: Spot, scripts: Mapping[str, bytes]
) -> Iterator[Complaint]:
    if group.bot_config_script_content:
        here = spot.at("bot_config_script_content")
        yield here, "bot_config_script_content is internal and must be unset"
    name = group.bot_config_script
    if not name:
        return
    here = spot.at("bot_config_script", None, name)
    bad_end, bad_path = not name.endswith(".py"), "/" in name or "\\" in name
    if bad_end:
        yield here, "bot_config_script does not end in .py"
    if bad_path:
        yield here, "bot_config_script is a path, not a file name in scripts/"
    if bad_end or bad_path:
        return
    if name not in scripts:
        yield here, f"bot group #{number + 1} names a missing script {shown(name)}"
    elif not _is_text(scripts[name]):
        yield here, f"script {shown(name)} is not UTF-8 text"


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
