"""Tags that the server gives every task (bot-api 10.6, 10.7)."""

from collections.abc import Iterator

from botapi.domain.task import TaskRequest

MAX_ALL_TAGS = 380
"""Tags of a task, automatic ones included: what a store can index, and some to spare."""
TERMINATE_TAG = "swarming.terminate:1"


def all_tags(request: TaskRequest, pool_version: str) -> tuple[str, ...]:
    """What its author said and what the server adds, sorted, each once.

    The request is as it will be stored, but for its tags. `pool_version` names the revision of
    the configuration that was asked, as `r7`. Of a task with hundreds of dimension values,
    the last ones have no tag.
    """
    said = {
        *request.tags,
        *_common(request),
        *(f"parent_task_id:{run}" for run in (request.parent_task_id,) if run),
        f"pool:{request.slices[0].pool}",
        f"swarming.pool.version:{pool_version}",
        f"swarming.pool.task_template:{request.template or 'none'}",
        "rbe:none",
    }
    values = sorted({*_dimensions(request)} - said)
    return tuple(sorted([*said, *values[: MAX_ALL_TAGS - len(said)]]))


def termination_tags(request: TaskRequest) -> tuple[str, ...]:
    """The tags of a termination task but that of its scheduler (bot-api 10.6)."""
    own = (TERMINATE_TAG, "swarming.pool.template:no_pool")
    return tuple(sorted({*_common(request), *_dimensions(request), *own}))


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
