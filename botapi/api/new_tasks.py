"""Making a task: the one way of both APIs from what is asked to what is stored."""

from dataclasses import dataclass

from botapi.api.parts import ApiParts
from botapi.domain.errors import Code, Refusal
from botapi.domain.new_task import NewTask
from botapi.domain.permissions import Caller
from botapi.domain.task import Task, TaskRequest


@dataclass(frozen=True, slots=True)
class Made:
    """`task` is None when it was only evaluated; `is_new` False when a request uuid had made it."""

    request: TaskRequest
    task: Task | None
    is_new: bool


def make_task(
    parts: ApiParts,
    caller: Caller,
    new: NewTask,
    *,
    evaluate_only: bool = False,  # noqa: ARG001
) -> Made:
    """Check, settle with what pool and server say, and store (prpc-api 6.1, in its order).

    Raises Refusal: INVALID_ARGUMENT with the place, PERMISSION_DENIED, NOT_FOUND or
    FAILED_PRECONDITION for a parent, RESOURCE_EXHAUSTED.
    """
    raise Refusal(Code.UNIMPLEMENTED, f"{new.name}: not yet")
