"""Accounts that tasks and bots act as: which may be asked for, and what a token says of whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from botapi.domain.errors import Code, Refusal
from botapi.domain.pools import PoolsConfig

NONE = "none"
"""No account: there is no token."""
BOT = "bot"
"""The bot's own account: it uses a token that it has."""
MAX_ACCOUNT_CHARS = 128
TOKEN_MIN_LIFE_S = 300
"""Least that a token has left when it is given out (bot-api 1.9)."""


def is_literal(account: str) -> bool:
    """Does it stand for no account of ours? Empty counts as `none`."""
    return account in {"", NONE, BOT}


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a token is made. `kind` is `task`, or `system` for the bot itself.

    The fields of a task are empty for the bot itself.
    """

    kind: str
    service_account: str
    pool: str
    bot_id: str
    task_id: str = ""
    run_id: str = ""
    user: str = ""
    realm: str = ""

    CLAIMS: ClassVar[frozenset[str]] = frozenset(
        {"sub", "service_account", "pool", "bot_id", "task_id", "run_id", "user", "realm"}
    )

    @property
    def name(self) -> str:
        """The claim `sub`: `task:<pool>:<account>`. Neither part can hold a colon."""
        return f"{self.kind}:{self.pool}:{self.service_account}"

    def claims(self) -> dict[str, str]:
        """What a token says of it; empty fields are left out."""
        said = {name: getattr(self, name) for name in self.CLAIMS - {"sub"}}
        return {"sub": self.name} | {name: value for name, value in said.items() if value}


def check_act_as(account: str, pool_name: str, config: PoolsConfig) -> None:
    """Raise Refusal PERMISSION_DENIED unless the pool allows its tasks this account."""
    if is_literal(account):
        return
    pool = config.pool(pool_name)
    if pool is None or account not in pool.allowed_service_accounts:
        raise Refusal(
            Code.PERMISSION_DENIED,
            f'tasks of pool "{pool_name}" may not act as {account}: it is no '
            "allowed_service_account of the pool in pools.cfg",
        )


def is_allowed_audience(audience: str, allowed: Sequence[str]) -> bool:
    """Does an entry name it? `*` at the end of an entry fits any ending."""
    return any(
        audience.startswith(entry[:-1]) if entry.endswith("*") else audience == entry
        for entry in allowed
    )
