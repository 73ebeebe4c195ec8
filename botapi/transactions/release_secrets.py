"""What a claimed run gets of the store of secrets, written down once for each start of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from botapi.domain.task import Task, TaskRequest, TaskState
from botapi.secrets.envelope import Sealed
from botapi.secrets.vault import (
    OF_TASKS,
    Secret,
    read_task_secret,
    secrets_of,
    task_secret_key,
)
from botapi.store import codec
from botapi.store.protocol import Store, Txn


@dataclass(frozen=True, slots=True)
class Released:
    """Sealed: `named` by variable, None for one that is gone or not for this pool any more."""

    named: Mapping[str, Secret | None]
    task_secret: Sealed | None = None


def release_secrets(store: Store, task: Task, request: TaskRequest) -> Released:
    """The seals of a run that this claim owns; nothing for one that has ended or changed hands.

    The first release of a run is written to the audit record, with the versions; and the first
    to a bot that had missed its lease (docs/extensions.md), with which the run starts anew.
    """
    names = sorted(set(request.secrets.values()))
    index = task.slice_index
    wants_bytes = bool(request.secret_bytes_ref) and request.slices[index].has_secret_bytes
    audit_key = codec.audit_key(task.started_ms, f"release-{task.task_id}")

    def work(txn: Txn) -> Released:
        (doc,) = txn.get(codec.TASK, codec.task_key(task.task_id))
        now = None if doc is None else codec.read_task(doc)
        if now is None or now.state is not TaskState.RUNNING or now.claim_id != task.claim_id:
            return Released(dict.fromkeys(request.secrets))
        usable = {
            name: secret
            for name, secret in secrets_of(txn, names).items()
            if secret.is_for(request.slices[index].pool)
        }
        own = txn.get(OF_TASKS, task_secret_key(request.secret_bytes_ref)) if wants_bytes else []
        if not txn.get(codec.AUDIT, audit_key)[0]:
            said = [f"{name} version {secret.version}" for name, secret in usable.items()]
            said += ["secret bytes"] * any(own)
            txn.put(
                codec.AUDIT,
                codec.audit_doc(
                    at_ms=task.started_ms,
                    entry_id=f"release-{task.task_id}",
                    actor=f"bot {task.bot_id}",
                    verb="secret.release",
                    target=f"task {task.task_id}",
                    reason=", ".join(said),
                    before="",
                    after="",
                ),
            )
        sealed = read_task_secret(own[0]) if own and own[0] is not None else None
        named = {variable: usable.get(name) for variable, name in request.secrets.items()}
        return Released(named, sealed)

    return store.transact(work, label="release_secrets")
