"""What a new task may take of the store of secrets, and where its own secret bytes go."""

from dataclasses import dataclass

from botapi.api.parts import ApiParts
from botapi.clock import DAY_MS
from botapi.domain.errors import Code, Refusal, refuse
from botapi.domain.new_task import NewTask
from botapi.domain.task import TaskRequest
from botapi.secrets.envelope import Sealed
from botapi.secrets.key_file import KeyFileError
from botapi.secrets.vault import OF_TASKS, secrets_of, task_place, task_secret_doc
from botapi.store.protocol import Txn


def check_secrets(parts: ApiParts, new: NewTask, pool: str) -> None:
    """Are the stored secrets there that the task names, and may its pool have them?

    Raises Refusal INVALID_ARGUMENT with the place of the first that is not, in one wording
    for "there is none" and "not for this pool".
    """
    known = secrets_of(parts.store, new.secrets.values())
    for variable, name in new.secrets.items():
        secret = known.get(name)
        if secret is None or not secret.is_for(pool):
            raise refuse(f"/secrets/{variable}", f'pool "{pool}" has no secret "{name[:80]}"')


@dataclass(frozen=True, slots=True)
class SealedBytes:
    """The secret bytes of a task that is about to be stored."""

    ref: str
    sealed: Sealed

    def put(self, txn: Txn, request: TaskRequest, keep_days: int) -> None:
        """Store them beside the task, for as long as it or a retry may ask for them."""
        runs_ms = 1000 * max(s.hard_timeout_s + s.grace_period_s for s in request.slices)
        life_ms = request.deadline_ms(len(request.slices) - 1) - request.created_ms + runs_ms
        keep_ms = (1 + request.max_retries) * life_ms + keep_days * DAY_MS
        doc = task_secret_doc(self.ref, self.sealed, request.created_ms + keep_ms)
        txn.put(OF_TASKS, doc)


def seal_bytes(parts: ApiParts, new: NewTask) -> SealedBytes | None:
    """Seal the task's secret bytes; None when it has none. Raises Refusal."""
    if not new.secret_bytes:
        return None
    ref = parts.new_id()
    try:
        return SealedBytes(ref, parts.vault.seal(task_place(ref), new.secret_bytes))
    except KeyFileError as error:
        raise Refusal(Code.FAILED_PRECONDITION, f"/secret_bytes: {error}") from None
