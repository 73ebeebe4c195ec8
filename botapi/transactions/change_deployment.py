"""The only way the deployment changes: one pure rule, one audit entry, one transaction."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from botapi.cfg import releases
from botapi.domain.rollout import Deployed
from botapi.store import codec
from botapi.store.protocol import Doc, Store, Txn


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes the deployment, and why; `change_id` makes a repeat no second change.

    `actor` is a person, or `rollout` for what the server does by itself.
    """

    actor: str
    verb: str
    target: str
    reason: str
    at_ms: int
    change_id: str


def change_deployment(
    store: Store,
    change: Callable[[Deployed], Deployed],
    author: Author,
    *,
    also: Callable[[Txn, Deployed], None] | None = None,
) -> Deployed:
    """Apply the rule to what is deployed; the result. Its refusals rise and change nothing.

    `also` writes more in the same transaction, given the result; it may run twice.
    A rule that changes nothing writes nothing.
    """

    def work(txn: Txn) -> Deployed:
        (was,) = txn.get(releases.KIND, releases.DEPLOYMENT_KEY)
        before = releases.read_deployment(was)
        if before.last_change == author.change_id:
            return before
        changed = change(before)
        if changed == before:
            return before
        after = replace(changed, rev=before.rev + 1, last_change=author.change_id)
        txn.put(releases.KIND, releases.deployment_doc(after, was))
        if also is not None:
            also(txn, after)
        if author.verb:
            txn.put(codec.AUDIT, _entry(author, before, after))
        txn.notify(releases.TOPIC)
        return after

    return store.transact(work, label="change_deployment")


def summary(deployed: Deployed) -> str:
    """One line on who runs what, as the audit record shows it."""
    parts = [f"stable {deployed.stable[:12] or 'none'}"]
    if deployed.canary:
        parts.append(f"canary {deployed.canary[:12]} {deployed.canary_percent} %")
    rollout = deployed.rollout
    if rollout is not None:
        parts.append(f"rollout {rollout.candidate[:12]} {rollout.stage} {rollout.percent} %")
    return ", ".join(parts)


def _entry(author: Author, before: Deployed, after: Deployed) -> Doc:
    return codec.audit_doc(
        at_ms=author.at_ms,
        entry_id=author.change_id,
        actor=author.actor,
        verb=author.verb,
        target=author.target,
        reason=author.reason,
        before=summary(before),
        after=summary(after),
    )
