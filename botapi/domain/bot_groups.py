"""What bots.cfg means, without its syntax: groups, their lookup, their fingerprint."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from botapi.domain.names import host_id

MAX_EXPANDED_IDS = 100_000
"""Most ids that one `bot_id` expression may stand for."""
MAX_ALL_IDS = 500_000
"""Most that all of them together may: each lies in the memory of every server process."""
_KNOWN_SCRIPTS = 64


@dataclass(frozen=True, slots=True)
class Oidc:
    """An identity token of this issuer, for this audience, about one of these subjects."""

    issuer: str = ""
    audience: str = ""
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthMethod:
    """One way to prove being a bot of a group (bot-api 7.1, `BotAuth`).

    None means that the condition is not asked for. `ip_whitelist` is an additional
    condition beside another one, and the only one when it stands alone.
    """

    require_luci_machine_token: bool = False
    require_luci_machine_token_secure: tuple[int, ...] | None = None
    require_service_account: tuple[str, ...] = ()
    require_gce_vm_token: str | None = None
    require_enrolled_secret: bool = False
    require_oidc: Oidc | None = None
    require_client_cert: tuple[str, ...] | None = None
    ip_whitelist: str = ""
    log_if_failed: bool = False

    def requirements(self) -> tuple[str, ...]:
        """The names of the `require_*` fields that are set."""
        is_set = {
            "require_luci_machine_token": self.require_luci_machine_token,
            "require_luci_machine_token_secure": self.require_luci_machine_token_secure is not None,
            "require_service_account": bool(self.require_service_account),
            "require_gce_vm_token": self.require_gce_vm_token is not None,
            "require_enrolled_secret": self.require_enrolled_secret,
            "require_oidc": self.require_oidc is not None,
            "require_client_cert": self.require_client_cert is not None,
        }
        return tuple(name for name, present in is_set.items() if present)


class ArchivePolicy(StrEnum):
    """Whose archive the bots of a group run (docs/extensions.md, field `bot_archive`)."""

    SKEP = "skep"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class BotGroup:
    """Bots that share credentials, dimensions and hooks.

    `bot_ids` are expanded. A group with neither ids nor prefixes is the default group.
    `script_name` is empty without a hooks script, `archive_pin` without a release id.
    `line` is where the group begins in bots.cfg, 0 for a built-in one.
    """

    bot_ids: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    auth: tuple[AuthMethod, ...] = ()
    owners: tuple[str, ...] = ()
    dimensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    script_name: str = ""
    script: bytes = b""
    system_service_account: str = ""
    logs_cloud_project: str = ""
    bot_archive: ArchivePolicy = ArchivePolicy.SKEP
    archive_pin: str = ""
    line: int = 0
    config_hash: bytes = field(init=False, repr=False, compare=False)
    """Changes when a bot of the group has to restart: see `handshake_config_hash`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "config_hash", handshake_config_hash(self))

    @property
    def is_default(self) -> bool:
        """Does it take the bots that no other group names?"""
        return not self.bot_ids and not self.prefixes


@dataclass(frozen=True, slots=True)
class BotsConfig:
    """The meaning of one bots.cfg; make it with `BotsConfig.of`."""

    trusted_dimensions: frozenset[str]
    groups: tuple[BotGroup, ...]
    by_id: Mapping[str, BotGroup]
    by_prefix: Mapping[str, BotGroup]
    prefix_lengths: tuple[int, ...]
    default: BotGroup

    @classmethod
    def of(cls, trusted_dimensions: Iterable[str], groups: Iterable[BotGroup]) -> "BotsConfig":
        """Index the groups; of two that claim the same bots the first one wins."""
        groups = tuple(groups)
        by_id: dict[str, BotGroup] = {}
        by_prefix: dict[str, BotGroup] = {}
        for group in groups:
            for bot_id in group.bot_ids:
                by_id.setdefault(bot_id, group)
            for prefix in group.prefixes:
                by_prefix.setdefault(prefix, group)
        return cls(
            trusted_dimensions=frozenset(trusted_dimensions),
            groups=groups,
            by_id=by_id,
            by_prefix=by_prefix,
            prefix_lengths=tuple(sorted({len(prefix) for prefix in by_prefix}, reverse=True)),
            default=next((group for group in groups if group.is_default), UNASSIGNED),
        )

    def group_of(self, bot_id: str) -> BotGroup:
        """The group of a bot (bot-api 7.4).

        An exact match of the whole id comes first (it matters for composite ids), then of
        the host id, then the longest prefix of the host id, then the default group, and
        last the built-in `UNASSIGNED`, which nobody can satisfy.
        """
        host = host_id(bot_id)
        exact = self.by_id.get(bot_id) or self.by_id.get(host)
        if exact is not None:
            return exact
        for length in self.prefix_lengths:
            group = self.by_prefix.get(host[:length])
            if group is not None:
                return group
        return self.default


@lru_cache(maxsize=_KNOWN_SCRIPTS)
def _digest_of_script(script: bytes) -> str:
    """Asked several times a call, for texts that may be long."""
    return hashlib.sha256(script).hexdigest()


def handshake_config_hash(group: BotGroup) -> bytes:
    """32 bytes that change when a bot of the group has to restart (bot-api 2.4).

    Covers the hooks script (body and name) and the assigned dimensions; not the
    authentication, accounts and owners, which take effect at the next poll.
    """
    lines = [
        f"dimension:{key}:{value}" for key, values in group.dimensions.items() for value in values
    ]
    if group.script:
        lines.append(f"config_script_sha256:{_digest_of_script(group.script)}")
    if group.script_name:
        lines.append(f"config_script_name:{group.script_name}")
    return hashlib.sha256(b"\n".join(sorted(line.encode() for line in lines))).digest()


UNASSIGNED = BotGroup(dimensions={"pool": ("unassigned",)})
"""Bots that no group wants: no auth entry, so every call of theirs is 401 (bot-api 7.4)."""


def built_in() -> BotsConfig:
    """What applies while there is no bots.cfg at all (bot-api 7.4)."""
    group = BotGroup(
        auth=(AuthMethod(require_luci_machine_token=True),),
        dimensions={"pool": ("unassigned",)},
    )
    return BotsConfig.of(["pool"], [group])


_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")
_TERM = re.compile(r"([0-9]+)(?:\.\.([0-9]+))?", re.ASCII)


def expand_bot_ids(expression: str) -> tuple[str, ...]:
    """The ids that a `bot_id` expression stands for, in order (bot-api 7.4).

    At most one `{...}`: comma-separated non-negative integers and ranges `a..b` with
    a < b, both inclusive, strictly increasing over the whole set, without blanks. Numbers
    are zero-padded to the width of their term; of a range only when both ends are equally
    wide. `{{` and `}}` stand for braces. Raises ValueError that says what is wrong.
    """
    before: list[str] = []
    after: list[str] = []
    numbers: tuple[str, ...] | None = None
    for match in _PIECE.finditer(expression):
        piece = match.group()
        side = before if numbers is None else after
        if piece in {"{{", "}}"}:
            side.append(piece[0])
        elif piece in {"{", "}"}:
            raise ValueError(f'"{piece}" without its counterpart')
        elif not piece.startswith("{"):
            side.append(piece)
        elif numbers is not None:
            raise ValueError("more than one {...}")
        else:
            numbers = _numbers(piece[1:-1])
    head, tail = "".join(before), "".join(after)
    return (head,) if numbers is None else tuple(f"{head}{n}{tail}" for n in numbers)


def _numbers(terms: str) -> tuple[str, ...]:
    found: list[str] = []
    last = -1
    for term in terms.split(","):
        low, high, width = _range(term)
        if low <= last:
            raise ValueError(f'"{term}" does not come after {last}')
        last = high
        if len(found) + high - low >= MAX_EXPANDED_IDS:
            raise ValueError(f"more than {MAX_EXPANDED_IDS} ids")
        found += (f"{number:0{width}}" for number in range(low, high + 1))
    return tuple(found)


def _range(term: str) -> tuple[int, int, int]:
    """First, last and width of a term; the width is 0 where nothing is padded."""
    match = _TERM.fullmatch(term)
    if match is None:
        raise ValueError(f'"{term}" is neither a number nor a range a..b')
    if len(term) > 40:
        raise ValueError(f'"{term[:40]}..." is too long')
    first, second = match.groups()
    low, high = int(first), int(second or first)
    if second is not None and low >= high:
        raise ValueError(f'"{term}" is an empty range')
    return low, high, len(first) if second is None or len(first) == len(second) else 0
