"""What a pool makes of the tasks that ask for it (bot-api 7.7)."""

from dataclasses import replace

from botapi.domain.dimensions import SHOWN_KEY_BYTES, quote
from botapi.domain.errors import Code, Refusal
from botapi.domain.pools import Pool, PoolsConfig, SchedulingAlgorithm
from botapi.domain.task import Slice, TaskRequest


def under_pool_rules(request: TaskRequest, config: PoolsConfig) -> TaskRequest:
    """The request as its pool takes it: of a LIFO pool, with the newest first.

    Raises Refusal INVALID_ARGUMENT for a dimension that its pool only shows, and for more
    than one value of the one that names its bots (bot-api 10.1).
    """
    for index, slice_ in enumerate(request.slices):
        pool = config.pool(slice_.pool)
        problem = _problem(slice_, pool) if pool is not None else ""
        if problem:
            place = f"/slices/{index}/dimensions" if len(request.slices) > 1 else "/dimensions"
            raise Refusal(Code.INVALID_ARGUMENT, f"{place}: {problem}")
    own = config.pool(request.slices[0].pool)
    if own is None or own.scheduling_algorithm is not SchedulingAlgorithm.LIFO:
        return request
    return replace(request, is_newest_first=True)


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
