"""Who may do what: permissions, roles, and the one function that decides (prpc-api 8.1).

The names are those of bot-api 11.6. Nothing is granted that is not said: a caller without
a grant may do nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SERVER = ""
"""The object "the whole server", where a pool could stand."""


class Permission(StrEnum):
    """What can be allowed; the names of bot-api 11.6 without `swarming.`, then our own."""

    PEEK = "servers.peek"
    TASKS_GET = "tasks.get"
    TASKS_CANCEL = "tasks.cancel"
    TASKS_ACT_AS = "tasks.actAs"
    TASKS_CREATE_IN_REALM = "tasks.createInRealm"
    LIST_BOTS = "pools.listBots"
    LIST_TASKS = "pools.listTasks"
    CREATE_BOT = "pools.createBot"
    DELETE_BOT = "pools.deleteBot"
    TERMINATE_BOT = "pools.terminateBot"
    CREATE_TASK = "pools.createTask"
    CANCEL_TASK = "pools.cancelTask"
    CREATE_HIGH_PRIORITY_TASK = "pools.createHighPriorityTask"
    QUARANTINE_BOT = "pools.quarantineBot"
    VIEW_CONFIG = "config.view"
    CHANGE_CONFIG = "config.change"
    VIEW_SECRETS = "secrets.view"
    CHANGE_SECRETS = "secrets.change"
    VIEW_AUDIT = "audit.view"
    ADMINISTER = "server.administer"
    """Archives, keys, users and API keys."""


class Role(StrEnum):
    """A bundle of permissions, granted for the whole server or for one pool; the strongest first.

    Those that are not in `GRANTABLE` are had through the groups of `auth` in settings.cfg only.
    """

    ADMIN = "admin"
    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    AUTHOR = "author"
    VIEWER = "viewer"
    VIEW_ALL_TASKS = "view_all_tasks"
    VIEW_ALL_BOTS = "view_all_bots"
    BOOTSTRAP = "bootstrap"
    USER = "user"


GRANTABLE = (Role.ADMIN, Role.OPERATOR, Role.AUTHOR, Role.VIEWER, Role.BOOTSTRAP)
"""The roles that people and files may name."""

P = Permission
_OF_POOLS_ONLY = frozenset({P.CREATE_TASK, P.TASKS_CREATE_IN_REALM, P.TASKS_ACT_AS})
"""What no group of `auth` has for the whole server (bot-api 11.6)."""
_VIEW = frozenset({P.PEEK, P.TASKS_GET, P.LIST_BOTS, P.LIST_TASKS})

ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.OPERATOR: _VIEW
    | {
        P.TASKS_CANCEL,
        P.CANCEL_TASK,
        P.DELETE_BOT,
        P.TERMINATE_BOT,
        P.QUARANTINE_BOT,
        P.VIEW_CONFIG,
    },
    Role.AUTHOR: _VIEW | {P.CREATE_TASK, P.TASKS_CREATE_IN_REALM, P.TASKS_ACT_AS},
    Role.VIEWER: _VIEW,
    Role.BOOTSTRAP: frozenset({P.PEEK, P.CREATE_BOT}),
    Role.ADMINISTRATOR: frozenset(Permission) - _OF_POOLS_ONLY,
    Role.VIEW_ALL_BOTS: frozenset({P.PEEK, P.LIST_BOTS}),
    Role.VIEW_ALL_TASKS: frozenset({P.PEEK, P.TASKS_GET, P.LIST_TASKS}),
    Role.USER: frozenset({P.PEEK}),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role for one pool, or for `SERVER`: for everything."""

    role: Role
    pool: str = SERVER


def plain_name(identity: str) -> str:
    """`user:ann@x` as `ann@x`."""
    return identity.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, with all that was granted: `identity` is `user:<e-mail>` or `anonymous:anonymous`.

    `scope` of an API key: what its owner's grants are cut down to; None for "nothing".
    """

    identity: str
    grants: frozenset[Grant] = field(default_factory=frozenset)
    scope: frozenset[Grant] | None = None

    @property
    def name(self) -> str:
        """What the audit record says: the identity without its kind."""
        return plain_name(self.identity)

    def may(self, permission: Permission, pool: str = SERVER) -> bool:
        """Is it granted for this pool, or for the whole server? Both owner and key must say so."""
        return _granted(self.grants, permission, pool) and (
            self.scope is None or _granted(self.scope, permission, pool)
        )

    def may_in_all(self, permission: Permission, pools: Iterable[str]) -> bool:
        """Granted in every one of these pools; without pools, for the server (prpc-api 8.1)."""
        return all(self.may(permission, pool) for pool in (tuple(pools) or (SERVER,)))

    def pools_with(self, permission: Permission, pools: Iterable[str]) -> frozenset[str]:
        """Those of the pools in which it is granted."""
        return frozenset(pool for pool in pools if self.may(permission, pool))

    def named_pools(self, permission: Permission) -> frozenset[str]:
        """The pools that the grants name and in which it is granted."""
        named = {grant.pool for grant in (*self.grants, *(self.scope or ()))} - {SERVER}
        return self.pools_with(permission, named)

    @property
    def strongest_role(self) -> Role | None:
        """The strongest role of any grant, for people to read; None without a grant."""
        roles = {grant.role for grant in self.grants}
        return next((role for role in Role if role in roles), None)


ANONYMOUS = "anonymous:anonymous"
"""The identity of somebody who has shown nothing (prpc-api 1.7)."""


class On(StrEnum):
    """What a call needs its permission for."""

    NOTHING = "nothing"
    """Nobody needs one: the call is about the caller."""
    SERVER = "server"
    BOT = "bot"
    """The bot that the path names."""
    TASK = "task"
    """The task that the path names."""
    ITEMS = "items"
    """What filter or body name: the call asks `access` itself, or shows only what it may."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a caller must be allowed to make a call; declared beside every call.

    `permission` is None only for `On.NOTHING`.
    """

    permission: Permission | None
    on: On = On.SERVER


def _granted(grants: Iterable[Grant], permission: Permission, pool: str) -> bool:
    return any(
        permission in ROLE_PERMISSIONS[grant.role] and grant.pool in {SERVER, pool}
        for grant in grants
    )
