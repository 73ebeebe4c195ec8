"""What a pool makes of the tasks that ask for it (bot-api 7.7, 10.7)."""

from dataclasses import replace

from botapi.domain.artifacts import CipdInput
from botapi.domain.dimensions import SHOWN_KEY_BYTES, quote
from botapi.domain.errors import refuse
from botapi.domain.new_task import Form, NewTask
from botapi.domain.pools import Pool, PoolsConfig
from botapi.domain.task import Slice

LOWEST_COMMON_PRIORITY = 20
"""What goes before it needs a permission (bot-api 10.3)."""


def check_pool_rules(new: NewTask, pool: Pool | None, form: Form) -> None:
    """Raise Refusal INVALID_ARGUMENT for a dimension that its pool only shows.

    And for more than one value of the dimension that names its bots (bot-api 10.1).
    """
    for index, slice_ in enumerate(new.slices):
        problem = _problem(slice_, pool) if pool is not None else ""
        if problem:
            raise refuse(f"{form.place(index)}/dimensions", problem)


def settled_realm(realm: str, pool_name: str, config: PoolsConfig) -> str:
    """The realm that was asked for, else the pool's default (bot-api 10.7).

    Without a pools.cfg a task has no realm. Raises Refusal INVALID_ARGUMENT.
    """
    if realm or not config.pools:
        return realm
    pool = config.pool(pool_name)
    if pool is None or not pool.default_task_realm:
        said = f'is missing, and pool "{pool_name}" has no default_task_realm'
        raise refuse("/realm", said)
    return pool.default_task_realm


def settled_priority(priority: int, *, may_be_high: bool) -> int:
    """Below 20 without the permission is silently raised to 20 (bot-api 10.3)."""
    return priority if may_be_high else max(priority, LOWEST_COMMON_PRIORITY)


def settled_packages(new: NewTask, default: CipdInput | None, form: Form) -> NewTask:
    """The task with complete `cipd_input`: server and client as pools.cfg says, where empty.

    One without packages is left out. Raises Refusal INVALID_ARGUMENT.
    """
    if all(slice_.cipd_input is None for slice_ in new.slices):
        return new
    slices = tuple(
        replace(slice_, cipd_input=_complete(slice_.cipd_input, default, form.place(index)))
        for index, slice_ in enumerate(new.slices)
    )
    return replace(new, slices=slices)


def _complete(asked: CipdInput | None, default: CipdInput | None, place: str) -> CipdInput | None:
    if asked is None or not asked.packages:
        return None
    fallback = default or CipdInput()
    server = asked.server or fallback.server
    client = asked.client_package or fallback.client_package
    for name, value in (("server", server), ("client_package", client)):
        if not value:
            said = "is missing, and pools.cfg says none (default_external_services)"
            raise refuse(f"{place}/cipd_input/{name}", said)
    return CipdInput(server, client, asked.packages)


def _problem(slice_: Slice, pool: Pool) -> str:
    shown = [key for key in slice_.dimensions if key != "pool" and pool.is_informational(key)]
    if shown:
        return (
            f"{quote(shown[0], SHOWN_KEY_BYTES)} is only shown in pool "
            f'"{slice_.pool}" (informational_dimension_re); leave it out'
        )
    name = pool.effective_bot_id_dimension
    if name and len(slice_.dimensions.get(name, ())) > 1:
        return (
            f"{quote(name, SHOWN_KEY_BYTES)} names the bots of pool "
            f'"{slice_.pool}" (effective_bot_id_dimension); give at most one value'
        )
    return ""
