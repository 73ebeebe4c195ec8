"""Groups and grants of settings.cfg, and grants of pools.cfg (docs/permissions.md).

The rules yield every mistake; the values leave out what cannot be used.
"""

from collections.abc import Iterable, Iterator

from botpb import pools_pb2, settings_pb2

from botapi.cfg.mistakes import Complaint, Spot, shown
from botapi.domain.access_rules import (
    GROUP,
    AuthGroups,
    Granting,
    Group,
    group_name_problem,
    member_problem,
    principal_problem,
)
from botapi.domain.dimensions import value_problem
from botapi.domain.permissions import SERVER, Role

MAX_GROUPS = 1_000
"""Most groups of a settings.cfg."""

_PB = settings_pb2.Grant
_ROLES = {
    _PB.ADMIN: Role.ADMIN,
    _PB.OPERATOR: Role.OPERATOR,
    _PB.AUTHOR: Role.AUTHOR,
    _PB.VIEWER: Role.VIEWER,
    _PB.BOOTSTRAP: Role.BOOTSTRAP,
}
_AUTH_FIELDS = (
    "admins_group",
    "bot_bootstrap_group",
    "privileged_users_group",
    "users_group",
    "view_all_bots_group",
    "view_all_tasks_group",
)


def check(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    """Every mistake in groups and grants."""
    yield from _groups(message, spot)
    names = {group.name for group in message.group}
    for number, grant in enumerate(message.grant):
        here = spot.at("grant", number)
        yield from _grant(grant, here)
        for i, principal in enumerate(grant.to):
            name = principal.removeprefix(GROUP)
            if name != principal and not group_name_problem(name) and name not in names:
                yield here.at("to", i), f"unknown group {shown(name)}"
        for i, pool in enumerate(grant.pool):
            if problem := value_problem("pool", pool):
                yield here.at("pool", i), f"bad pool name: {problem}"


def check_pool(pool: pools_pb2.Pool, spot: Spot) -> Iterator[Complaint]:
    """Every mistake in the grants of a pool."""
    for number, grant in enumerate(pool.grant):
        here = spot.at("grant", number)
        yield from _grant(grant, here)
        if grant.pool:
            yield here.at("pool"), "pool must be unset: the grant is for the pool it stands in"


def check_across(
    pools: pools_pb2.PoolsCfg, settings: settings_pb2.SettingsCfg
) -> Iterator[Complaint]:
    """Grants of pools.cfg to groups that settings.cfg does not have."""
    names = {group.name for group in settings.group}
    for number, pool in enumerate(pools.pool):
        for which, grant in enumerate(pool.grant):
            here = Spot().at("pool", number).at("grant", which)
            for i, principal in enumerate(grant.to):
                name = principal.removeprefix(GROUP)
                if name != principal and name not in names:
                    yield here.at("to", i), f"settings.cfg has no group {shown(name)}"


def warnings(message: settings_pb2.SettingsCfg) -> Iterator[Complaint]:
    """Groups that `auth` names and that are not there: they grant nothing."""
    names = {group.name for group in message.group}
    for name in _AUTH_FIELDS:
        group = getattr(message.auth, name)
        if group and group not in names:
            yield Spot().at("auth").at(name), f"there is no group {shown(group)}"


def groups_of(message: settings_pb2.SettingsCfg) -> tuple[Group, ...]:
    """The groups, without members that are no identities."""
    return tuple(
        Group(
            group.name,
            tuple(member for member in group.member if not member_problem(member)),
            tuple(group.include),
        )
        for group in message.group[:MAX_GROUPS]
    )


def auth_of(message: settings_pb2.AuthSettings) -> AuthGroups:
    """Which groups may do what on the whole server."""
    return AuthGroups(
        message.admins_group or AuthGroups().admins,
        message.bot_bootstrap_group,
        message.privileged_users_group,
        message.users_group,
        message.view_all_bots_group,
        message.view_all_tasks_group,
    )


def grantings_of(
    grants: Iterable[settings_pb2.Grant], pools: tuple[str, ...] = ()
) -> tuple[Granting, ...]:
    """The grants; those of pools.cfg are for `pools`. Without a known role there is none."""
    return tuple(
        Granting(
            _ROLES[grant.role],
            tuple(to for to in grant.to if not principal_problem(to)),
            pools or tuple(grant.pool) or (SERVER,),
        )
        for grant in grants
        if grant.role in _ROLES
    )


def _groups(message: settings_pb2.SettingsCfg, spot: Spot) -> Iterator[Complaint]:
    if len(message.group) > MAX_GROUPS:
        yield spot.at("group", MAX_GROUPS), f"more than {MAX_GROUPS} groups"
        return
    names = {group.name for group in message.group}
    seen: set[str] = set()
    for number, group in enumerate(message.group):
        here = spot.at("group", number)
        if problem := group_name_problem(group.name):
            yield here.at("name"), f"bad name {shown(group.name)}: {problem}"
        elif group.name in seen:
            yield here.at("name"), f"name {shown(group.name)} is there twice"
        seen.add(group.name)
        for i, member in enumerate(group.member):
            if problem := member_problem(member):
                yield here.at("member", i), f"bad member {shown(member)}: {problem}"
        for i, name in enumerate(group.include):
            if name not in names:
                yield here.at("include", i), f"unknown group {shown(name)}"


def _grant(grant: settings_pb2.Grant, spot: Spot) -> Iterator[Complaint]:
    if grant.role not in _ROLES:
        known = ", ".join(_PB.Role.Name(role) for role in _ROLES)
        yield spot.at("role"), f"no role: one of {known}"
    if not grant.to:
        yield spot, "to nobody: set to"
    for i, principal in enumerate(grant.to):
        if problem := principal_problem(principal):
            yield spot.at("to", i), f"bad to {shown(principal)}: {problem}"
