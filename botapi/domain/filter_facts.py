"""Tasks and bots as the filter language sees them (docs/filter.md)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botapi.domain.bot import Bot, BotStatus, LiveBot
from botapi.domain.completion import Cause, cause_of
from botapi.domain.filter_language import (
    Compares,
    Expression,
    Has,
    Kind,
    Vocabulary,
    terms,
)
from botapi.domain.names import parse_task_id, run_id
from botapi.domain.task import Task, TaskState, is_final

PARENT_TAG = "parent_task_id"
"""The tag by which a task names the run that made it."""
CURRENT = "current"
"""The value of `version` that is the version a bot should run."""
MAX_PATH_PARTS = 10

FINAL, SUCCESS, FAILURE, DEDUPED = "final", "success", "failure", "deduped"

TASK_WORDS = Vocabulary(
    keys={
        "id": Kind.TEXT,
        "state": Kind.TEXT,
        "cause": Kind.TEXT,
        "name": Kind.TEXT,
        "user": Kind.TEXT,
        "bot": Kind.TEXT,
        "pool": Kind.TEXT,
        "parent": Kind.TEXT,
        "retry_of": Kind.TEXT,
        "deduped_from": Kind.TEXT,
        "priority": Kind.NUMBER,
        "exit": Kind.NUMBER,
        "cost": Kind.NUMBER,
        "created": Kind.AGE,
        "started": Kind.AGE,
        "completed": Kind.AGE,
        "duration": Kind.SECONDS,
        "pending": Kind.SECONDS,
    },
    words={
        "state": frozenset({*(s.lower() for s in TaskState), FINAL, SUCCESS, FAILURE, DEDUPED}),
        "cause": frozenset(Cause),
    },
    other="tag",
)
BOT_WORDS = Vocabulary(
    keys={
        "id": Kind.TEXT,
        "status": Kind.TEXT,
        "task": Kind.TEXT,
        "version": Kind.TEXT,
        "ip": Kind.TEXT,
        "owner": Kind.TEXT,
        "has": Kind.TEXT,
        "seen": Kind.AGE,
        "first_seen": Kind.AGE,
    },
    words={"status": frozenset(BotStatus), "has": frozenset({"conflict", "note"})},
    other="dimension",
    paths=("state",),
    others_compare=True,
)

PRESENT_ONLY = frozenset({"seen", "first_seen", "has"})
"""Keys of bots that nothing is kept of once they change."""

STATES_OF_WORD: Mapping[str, frozenset[TaskState]] = {
    **{state.lower(): frozenset({state}) for state in TaskState},
    FINAL: frozenset(state for state in TaskState if is_final(state)),
}
"""The words of `state` that say no more than which states."""


@dataclass(slots=True)
class TaskFacts:
    """One task at a moment."""

    task: Task
    now_ms: int

    def values(self, key: str) -> Sequence[str | float]:
        """What the task has under a key of TASK_WORDS."""
        name = key.removeprefix("tag.")
        if name != key:
            return _tagged(self.task.tags, name)
        found = _TASK_VALUES[key](self)
        return [value for value in found if value not in ("", None)]

    def texts(self) -> Sequence[str]:
        """Name, ids, user, tags and error."""
        task = self.task
        return [task.name, task.task_id, task.user, task.bot_id, task.error, *task.tags]

    def states(self) -> list[str]:
        """The words that hold of its state."""
        task = self.task
        is_complete = task.state is TaskState.COMPLETED
        words = {
            FINAL: task.is_final,
            SUCCESS: is_complete and not task.failure,
            FAILURE: is_complete and task.failure,
            DEDUPED: bool(task.deduped_from),
        }
        return [task.state.lower(), *(word for word, holds in words.items() if holds)]

    def age(self, at_ms: int) -> float | None:
        """Seconds since a time; None when it has not been."""
        return (self.now_ms - at_ms) / 1000 if at_ms else None

    def pending(self) -> float:
        """Seconds that it was or has been pending."""
        task = self.task
        end = task.started_ms or task.completed_ms or task.abandoned_ms or self.now_ms
        return (end - task.created_ms) / 1000


_TASK_VALUES: Mapping[str, Any] = {
    "id": lambda facts: [facts.task.task_id, run_id(facts.task.task_id)],
    "state": TaskFacts.states,
    "cause": lambda facts: [cause_of(facts.task)],
    "name": lambda facts: [facts.task.name],
    "user": lambda facts: [facts.task.user],
    "bot": lambda facts: [facts.task.bot_id],
    "pool": lambda facts: [facts.task.pool],
    "parent": lambda facts: task_and_run(_tagged(facts.task.tags, PARENT_TAG)),
    "retry_of": lambda facts: task_and_run([facts.task.retry_of]),
    "deduped_from": lambda facts: task_and_run([facts.task.deduped_from]),
    "priority": lambda facts: [facts.task.priority],
    "exit": lambda facts: [facts.task.exit_code],
    "cost": lambda facts: [facts.task.cost_usd],
    "created": lambda facts: [facts.age(facts.task.created_ms)],
    "started": lambda facts: [facts.age(facts.task.started_ms)],
    "completed": lambda facts: [facts.age(facts.task.completed_ms)],
    "duration": lambda facts: [facts.task.duration_s],
    "pending": lambda facts: [facts.pending()],
}


@dataclass(slots=True)
class BotFacts:
    """One bot at a moment. `expected_version` is empty where nobody decides that."""

    bot: Bot
    live: LiveBot | None
    expected_version: str
    now_ms: int

    def values(self, key: str) -> Sequence[str | float]:
        """What the bot has under a key of BOT_WORDS."""
        if key.startswith("dimension."):
            return _tagged(self.bot.dimensions, key.removeprefix("dimension."))
        if key.startswith("state."):
            state = self.live.state if self.live else None
            return leaves(state or {}, key.split(".")[1:])
        found = _BOT_VALUES[key](self)
        return [value for value in found if value not in ("", None)]

    def texts(self) -> Sequence[str]:
        """Dimensions (the id is one), reasons, the task's name and the note."""
        bot = self.bot
        return [*bot.dimensions, bot.quarantined, bot.maintenance, bot.task_name, bot.note]

    def versions(self) -> list[str]:
        """Its version, and whether it is the expected one."""
        is_current = bool(self.bot.version) and self.bot.version == self.expected_version
        return [self.bot.version, CURRENT if is_current else ""]

    def seen(self) -> float | None:
        """Seconds since its last call."""
        seen_ms = self.live.seen_ms if self.live else 0
        return (self.now_ms - seen_ms) / 1000 if seen_ms else None


_BOT_VALUES: Mapping[str, Any] = {
    "id": lambda facts: [facts.bot.bot_id],
    "status": lambda facts: [facts.bot.status],
    "task": lambda facts: task_and_run([facts.bot.task_id]),
    "version": BotFacts.versions,
    "ip": lambda facts: [facts.bot.external_ip],
    "owner": lambda facts: facts.bot.owners,
    "has": lambda facts: [
        "conflict" if facts.bot.swaps else "",
        "note" if facts.bot.note else "",
    ],
    "seen": lambda facts: [facts.seen()],
    "first_seen": lambda facts: [(facts.now_ms - facts.bot.first_seen_ms) / 1000],
}


def present_only(expression: Expression) -> str:
    """The first term that can only be told of bots as they are now; empty when there is none."""
    for term in terms(expression):
        if isinstance(term, Has | Compares) and term.key in PRESENT_ONLY:
            return term.key
        if isinstance(term, Has) and term.key == "version" and CURRENT in term.values:
            return f"version:{CURRENT}"
    return ""


def task_and_run(ids: Iterable[str]) -> list[str]:
    """Each id of a task or run in both forms; other texts as they are."""
    found: list[str] = []
    for text in filter(None, ids):
        found.append(text)
        try:
            task = parse_task_id(text)
        except ValueError:
            continue
        found += [task, run_id(task)]
    return list(dict.fromkeys(found))


def leaves(tree: object, path: Sequence[str]) -> list[str | float]:
    """Texts, numbers and yes or no at a path of a bot's state; a list has all of its entries."""
    nodes: list[object] = [tree]
    for name in path[:MAX_PATH_PARTS]:
        nodes = [node[name] for node in nodes if isinstance(node, Mapping) and name in node]
    found: list[str | float] = []
    for node in nodes:
        for value in node if isinstance(node, (list, tuple)) else [node]:
            if isinstance(value, bool):
                found.append("true" if value else "false")
            elif isinstance(value, (str, int, float)):
                found.append(value)
    return found


def _tagged(tags: Iterable[str], key: str) -> list[str]:
    prefix = f"{key}:"
    return [tag[len(prefix) :] for tag in tags if tag.startswith(prefix)]
