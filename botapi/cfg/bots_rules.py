"""The rules of bots.cfg (bot-api 7.2): a message in, every mistake out.

Ours beyond upstream's: a group must assign a `pool` and cannot assign `id`, a script
must be UTF-8 text, and methods that this server cannot verify yet are refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from botpb import bots_pb2

from botapi.cfg.mistakes import Mistake
from botapi.cfg.places import Path, Place
from botapi.domain.bot_groups import expand_bot_ids
from botapi.domain.dimensions import (
    SHOWN_KEY_BYTES,
    SHOWN_VALUE_BYTES,
    key_problem,
    quote,
    value_problem,
)

_EMAIL = re.compile(r"[0-9a-zA-Z_\-.+%]+@[0-9a-zA-Z_\-.]+")
_EXCLUSIVE = (
    "require_luci_machine_token",
    "require_luci_machine_token_secure",
    "require_service_account",
    "require_gce_vm_token",
    "require_enrolled_secret",
    "require_oidc",
    "require_client_cert",
)
_NOT_YET = ("require_oidc", "require_client_cert")


@dataclass(frozen=True, slots=True)
class _Spot:
    """A field that is being looked at: its path, and its name in words."""

    path: Path = ()
    words: str = ""

    def at(self, name: str, number: int | None = None, text: str | None = None) -> "_Spot":
        """A field below this one; `text` is quoted behind its number."""
        words = name if number is None else f"{name} #{number}"
        if text is not None:
            words += f" ({_shown(text)})"
        return _Spot(
            (*self.path, (name, number or 0)), f"{self.words} / {words}" if self.words else words
        )


@dataclass(slots=True)
class _Seen:
    """What earlier groups have claimed, by the number of their group."""

    ids: dict[str, int] = field(default_factory=dict)
    prefixes: dict[str, tuple[int, _Spot]] = field(default_factory=dict)
    default: int | None = None


Complaint = tuple[_Spot, str]


def check(
    message: bots_pb2.BotsCfg, scripts: Mapping[str, bytes], where: Mapping[Path, Place]
) -> list[Mistake]:
    """Every mistake in a parsed bots.cfg; `where` tells the places of its fields.

    `scripts` maps the names of the files in `scripts/` to their contents.
    """
    return [
        Mistake("bots.cfg", _place(spot.path, where), spot.words, said)
        for spot, said in _complaints(message, scripts)
    ]


def _place(path: Path, where: Mapping[Path, Place]) -> Place:
    """The place of a field, or of the nearest one around it when it is absent."""
    while path not in where:
        path = path[:-1]
    return where[path]


def _complaints(message: bots_pb2.BotsCfg, scripts: Mapping[str, bytes]) -> Iterator[Complaint]:
    for number, key in enumerate(message.trusted_dimensions):
        problem = key_problem(key)
        if problem:
            yield _Spot().at("trusted_dimensions", number, key), problem
    if "pool" not in message.trusted_dimensions:
        yield _Spot().at("trusted_dimensions"), '"pool" is not listed'
    seen = _Seen()
    for number, group in enumerate(message.bot_group):
        spot = _Spot().at("bot_group", number)
        yield from _members(group, number, spot, seen)
        yield from _auth(group, spot)
        yield from _accounts(group, spot)
        yield from _dimensions(group, spot)
        yield from _script(group, number, spot, scripts)
        if group.bot_archive not in {"", "skep", "keep"}:
            said = f'neither "skep" nor "keep": {_shown(group.bot_archive)}'
            yield spot.at("bot_archive"), said
    yield from _ambiguous(seen)


def _members(
    group: bots_pb2.BotGroup, number: int, spot: _Spot, seen: _Seen
) -> Iterator[Complaint]:
    for i, expression in enumerate(group.bot_id):
        yield from _ids(expression, number, spot.at("bot_id", i, expression), seen)
    for i, prefix in enumerate(group.bot_id_prefix):
        here = spot.at("bot_id_prefix", i, prefix)
        if not prefix:
            yield here, "empty bot_id_prefix"
        elif prefix in seen.prefixes:
            other = seen.prefixes[prefix][0]
            yield here, f"bot_id_prefix {_shown(prefix)} also appears in group #{other}"
        else:
            seen.prefixes[prefix] = (number, here)
    if not group.bot_id and not group.bot_id_prefix:
        if seen.default is None:
            seen.default = number
        else:
            yield spot, f"group #{seen.default} is the default group already"


def _ids(expression: str, number: int, spot: _Spot, seen: _Seen) -> Iterator[Complaint]:
    """Complains once for each group that some id of the expression is in already."""
    if not expression:
        yield spot, "empty bot_id"
        return
    try:
        expanded = expand_bot_ids(expression)
    except ValueError as error:
        yield spot, f"bad bot_id expression: {error}"
        return
    named: set[int] = set()
    for bot_id in expanded:
        other = seen.ids.get(bot_id)
        if other is None:
            seen.ids[bot_id] = number
        elif other not in named:
            named.add(other)
            yield spot, f"bot_id {_shown(bot_id)} also appears in group #{other}"


def _ambiguous(seen: _Seen) -> Iterator[Complaint]:
    """Each pair of prefixes where one begins with the other, at the one that comes later."""
    for prefix, (number, spot) in seen.prefixes.items():
        for length in range(1, len(prefix)):
            shorter = prefix[:length]
            if shorter not in seen.prefixes:
                continue
            other, other_spot = seen.prefixes[shorter]
            pair = f"{_shown(shorter)} is a prefix of {_shown(prefix)}"
            if (other, other_spot.path) < (number, spot.path):
                yield spot, f"ambiguous with group #{other}: bot_id_prefix {pair}"
            else:
                yield other_spot, f"ambiguous with group #{number}: bot_id_prefix {pair}"


def _auth(group: bots_pb2.BotGroup, spot: _Spot) -> Iterator[Complaint]:
    if not group.auth:
        yield spot, 'no "auth" entry'
    for i, auth in enumerate(group.auth):
        here = spot.at("auth", i)
        present = [name for name in _EXCLUSIVE if _is_set(auth, name)]
        if len(present) > 1:
            yield here, f"{present[0]} and {present[1]} exclude each other"
        if not present and not auth.ip_whitelist:
            yield here, "no auth method: set ip_whitelist or a require_* field"
        for n, account in enumerate(auth.require_service_account):
            if _EMAIL.fullmatch(account) is None:
                said = f"service account is not an e-mail: {_shown(account)}"
                yield here.at("require_service_account", n), said
        if _is_set(auth, "require_gce_vm_token") and not auth.require_gce_vm_token.project:
            yield here.at("require_gce_vm_token"), "require_gce_vm_token.project is empty"
        for name in _NOT_YET:
            if name in present:
                yield here.at(name), f"{name} is not supported yet"


def _is_set(auth: bots_pb2.BotAuth, name: str) -> bool:
    """Is the field set? Messages count when they are present, even empty."""
    return any(descriptor.name == name for descriptor, _ in auth.ListFields())


def _accounts(group: bots_pb2.BotGroup, spot: _Spot) -> Iterator[Complaint]:
    account = group.system_service_account
    here = spot.at("system_service_account")
    if account == "bot":
        if not any(auth.require_service_account for auth in group.auth):
            yield (
                here,
                ('system_service_account "bot" needs an auth entry with require_service_account'),
            )
    elif account and _EMAIL.fullmatch(account) is None:
        yield here, f"system_service_account is not an e-mail: {_shown(account)}"
    for i, owner in enumerate(group.owners):
        if _EMAIL.fullmatch(owner) is None:
            yield spot.at("owners", i), f"owner is not an e-mail: {_shown(owner)}"


def _dimensions(group: bots_pb2.BotGroup, spot: _Spot) -> Iterator[Complaint]:
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
    group: bots_pb2.BotGroup, number: int, spot: _Spot, scripts: Mapping[str, bytes]
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
        yield here, f"bot group #{number + 1} names a missing script {_shown(name)}"
    elif not _is_text(scripts[name]):
        yield here, f"script {_shown(name)} is not UTF-8 text"


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(text: str) -> str:
    return quote(text, SHOWN_VALUE_BYTES)
