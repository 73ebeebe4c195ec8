"""Who has which role: what the configuration says of people and groups (docs/permissions.md).

A principal is an identity (`user:alice@example.com`, `anonymous:anonymous`), all identities
of a domain (`user:*@example.com`), or a group (`group:builders`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from botapi.domain.permissions import ANONYMOUS, SERVER, Grant, Role

MAX_NAME_CHARS = 254
GROUP = "group:"
USER = "user:"
ADMINISTRATORS = "administrators"
"""The group that `admins_group` means when it is unset (bot-api 7.8)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+%@\-]*")
_DOMAIN = re.compile(r"\*@[A-Za-z0-9][A-Za-z0-9.\-]*")
_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")


@dataclass(frozen=True, slots=True)
class Group:
    """People under one name: identities, domains, and the groups it includes."""

    name: str
    members: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Granting:
    """A role, to whom, and for which pools; without pools for the whole server."""

    role: Role
    to: tuple[str, ...]
    pools: tuple[str, ...] = (SERVER,)


@dataclass(frozen=True, slots=True)
class AuthGroups:
    """The groups of `auth` in settings.cfg; an empty name means `admins` (bot-api 7.8)."""

    admins: str = ADMINISTRATORS
    bot_bootstrap: str = ""
    privileged: str = ""
    users: str = ""
    view_all_bots: str = ""
    view_all_tasks: str = ""

    def grantings(self) -> list[Granting]:
        """What these groups may do on the whole server (the table of bot-api 11.6)."""
        return [
            Granting(role, (GROUP + (name or self.admins),))
            for role, name in (
                (Role.ADMINISTRATOR, self.admins),
                (Role.BOOTSTRAP, self.bot_bootstrap),
                (Role.VIEWER, self.privileged),
                (Role.USER, self.users),
                (Role.VIEW_ALL_BOTS, self.view_all_bots),
                (Role.VIEW_ALL_TASKS, self.view_all_tasks),
            )
        ]


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The rules of one revision, by principal: the groups it is directly in, and its grants."""

    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    grants: Mapping[str, frozenset[Grant]] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: Iterable[Group], grantings: Iterable[Granting]) -> "AccessRules":
        """Index groups and grants."""
        parents: dict[str, list[str]] = {}
        for group in groups:
            below = (*group.members, *(GROUP + name for name in group.includes))
            for principal in below:
                parents.setdefault(normal(principal), []).append(GROUP + group.name)
        grants: dict[str, set[Grant]] = {}
        for granting in grantings:
            for principal in granting.to:
                held = grants.setdefault(normal(principal), set())
                held.update(Grant(granting.role, pool) for pool in granting.pools)
        return cls(
            {principal: tuple(names) for principal, names in parents.items()},
            {principal: frozenset(held) for principal, held in grants.items()},
        )

    def grants_of(self, identity: str) -> frozenset[Grant]:
        """All grants of an identity, through every group that it is in."""
        identity = normal(identity)
        _, at, domain = identity.rpartition("@")
        left = [identity, *([f"{USER}*@{domain}"] if at else [])]
        found: set[Grant] = set()
        seen: set[str] = set()
        while left:
            here = left.pop()
            if here not in seen:
                seen.add(here)
                left.extend(self.parents.get(here, ()))
                found |= self.grants.get(here, frozenset())
        return frozenset(found)


def normal(principal: str) -> str:
    """E-mail addresses are the same in any case; names and groups are not."""
    return principal.lower() if "@" in principal and principal.startswith(USER) else principal


def identity_problem(text: str) -> str:
    """Why this is no identity of a person; empty when it is one."""
    kind, colon, name = text.partition(":")
    if colon and kind == "user" and len(name) <= MAX_NAME_CHARS and _NAME.fullmatch(name):
        return ""
    return f"not user:<e-mail or name>, of at most {MAX_NAME_CHARS} letters, digits and _ . + % @ -"


def member_problem(text: str) -> str:
    """Why this is no member of a group; empty when it is one."""
    domain = text.removeprefix(USER) if text.startswith(USER) else ""
    if text == ANONYMOUS or _DOMAIN.fullmatch(domain) or not identity_problem(text):
        return ""
    return f"not user:<e-mail or name>, user:*@<domain> or {ANONYMOUS}"


def principal_problem(text: str) -> str:
    """Why nothing can be granted to this; empty when it can."""
    if text.startswith(GROUP):
        return group_name_problem(text.removeprefix(GROUP))
    return f"{member_problem(text)}, nor group:<name>" if member_problem(text) else ""


def group_name_problem(text: str) -> str:
    """Why this is no name of a group; empty when it is one."""
    if _GROUP_NAME.fullmatch(text) and len(text) <= MAX_NAME_CHARS:
        return ""
    return f"not a group name of at most {MAX_NAME_CHARS} letters, digits and _ . - /"
