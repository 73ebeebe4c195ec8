"""Tags that the server gives every task (bot-api 10.6, 10.7)."""

from collections.abc import Iterable, Iterator

from botapi.domain.errors import refuse
from botapi.domain.task import TaskRequest

MAX_ALL_TAGS = 380
"""Tags of a task, automatic ones included: what a store can index, and some to spare."""
TERMINATE_TAG = "swarming.terminate:1"


def all_tags(request: TaskRequest, pool_version: str) -> tuple[str, ...]:
    """What its author said and what the server adds, sorted, each once.

    The request is as it will be stored, but for its tags. `pool_version` names the revision of
    the configuration that was asked, as `r7`. Raises Refusal for more than a store can index.
    """
    added = [
        *_common(request),
        *(f"parent_task_id:{run}" for run in (request.parent_task_id,) if run),
        *_dimensions(request),
        f"swarming.pool.version:{pool_version}",
        f"swarming.pool.task_template:{request.template or 'none'}",
        "rbe:none",
    ]
    tags = _in_order([*request.tags, *added])
    if len(tags) > MAX_ALL_TAGS:
        said = f"are {len(tags)} with one for each value of the dimensions"
        raise refuse("/tags", f"{said}, at most {MAX_ALL_TAGS} are allowed")
    return tags


def termination_tags(request: TaskRequest) -> tuple[str, ...]:
    """The tags of a termination task (bot-api 10.6); it has no pool, so no instance either."""
    own = (TERMINATE_TAG, "swarming.pool.template:no_pool")
    return _in_order([*_common(request), *_dimensions(request), *own])


def _common(request: TaskRequest) -> Iterator[str]:
    yield f"priority:{request.priority}"
    yield f"realm:{request.realm or 'none'}"
    yield f"service_account:{request.service_account or 'none'}"
    yield f"user:{request.user or 'none'}"
    yield f"authenticated:{request.authenticated}"


def _dimensions(request: TaskRequest) -> Iterator[str]:
    for slice_ in request.slices:
        for key, constraints in slice_.dimensions.items():
            for constraint in constraints:
                yield from (f"{key}:{value}" for value in constraint.split("|"))


def _in_order(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(tags)))
