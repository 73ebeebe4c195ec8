"""The referee of a claim: run, skip with a reason, or terminate (bot-api 4.3)."""

from dataclasses import dataclass

from botapi.domain.bot import Bot
from botapi.domain.matching import constraints, first_unmet, shard
from botapi.domain.task import Offer, Task, TaskRequest, TaskState


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who claims what. `claim_id` is the server's: `<bot_id>:<the bot's claim id>`."""

    session_id: str
    claim_id: str
    slice_index: int
    shard: int
    """Where the bot believes the slice to be: 0..15, the hash of its dimensions."""


@dataclass(frozen=True, slots=True)
class Run:
    """Take it. `is_retry`: the same claim was answered before; write nothing."""

    is_retry: bool


@dataclass(frozen=True, slots=True)
class Terminate:
    """Take it: it asks the bot to exit."""

    is_retry: bool


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave it, for this reason."""

    reason: str


Decision = Run | Skip | Terminate


def decide(
    task: Task, request: TaskRequest, bot: Bot, offer: Offer | None, attempt: Attempt
) -> Decision:
    """May this bot have this slice? Reads like the steps 3 to 9 of bot-api 4.3.

    A claim that the server made for the bot (docs/extensions.md) is the bot's own when it claims
    for the first time: a run that has ended meanwhile must not begin.
    """
    wanted = [chosen.dimensions for chosen in request.slices[attempt.slice_index :][:1]]
    if not wanted or attempt.shard != shard(wanted[0]):
        return Skip("no such task")
    if bot.session_id != attempt.session_id:
        return Skip("another process took this bot id over")
    unmet = first_unmet(frozenset(bot.dimensions), constraints(wanted[0]))
    if unmet is not None:
        return Skip(f"dimensions mismatch: the slice asks for {' or '.join(sorted(unmet))}")
    if task.is_final and bot.was_given(attempt.claim_id):
        return Skip(f"the task has ended: {task.state}")
    if task.state is not TaskState.PENDING or task.slice_index != attempt.slice_index:
        return _taken(task, request, attempt)
    if offer is not None and offer.bot_id != bot.bot_id:
        return Skip(f'offered to "{offer.bot_id}"')
    if bot.task_id:
        return Skip(f"this bot is still running {bot.task_id}")
    return Terminate(is_retry=False) if request.is_termination else Run(is_retry=False)


def _taken(task: Task, request: TaskRequest, attempt: Attempt) -> Decision:
    if not task.claim_id or task.slice_index != attempt.slice_index:
        return Skip("slice has expired")
    if task.claim_id != attempt.claim_id:
        return Skip(f'already claimed by "{task.claim_id}"')
    return Terminate(is_retry=True) if request.is_termination else Run(is_retry=True)
