"""What a new task may take of the store of secrets: the one seam to it."""

from botapi.api.parts import ApiParts
from botapi.domain.errors import refuse
from botapi.domain.new_task import NewTask


def check_secrets(_parts: ApiParts, new: NewTask, pool: str) -> None:
    """Are the stored secrets there that the task names, and may its pool have them?

    Raises Refusal INVALID_ARGUMENT with the place of the first that is not.
    """
    for variable, name in new.secrets.items():
        raise refuse(f"/secrets/{variable}", f'pool "{pool}" has no secret "{name[:80]}"')
    if new.secret_bytes:
        raise refuse("/secret_bytes", "this server has no store of secrets; leave them out")
