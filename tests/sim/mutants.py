"""Seeded bugs, one or more for each promise: the simulation must find every one of them.

A mutant changes the text of real functions and puts the new code in their place. When a
function or the text is not there any more, it says so: a mutant that breaks nothing would
prove nothing.
"""

import importlib
import inspect
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass


class MutantError(Exception):
    """The code has changed: this mutant must be written anew."""


@dataclass(frozen=True)
class Edit:
    """In the function `where` (`module:Class.name`), `old`, found once, becomes `new`."""

    where: str
    old: str
    new: str

    def function(self):
        module, _, path = self.where.partition(":")
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name, None)
            if found is None:
                raise MutantError(f"{self.where} is not there any more")
        found = getattr(found, "fget", found)
        return inspect.unwrap(found)

    def apply(self, source):
        """The source with this change in it."""
        if source.count(self.old) != 1:
            raise MutantError(f"{self.where}: {source.count(self.old)} times {self.old!r}")
        return source.replace(self.old, self.new)


def _code(function, source):
    """The code object of a function with this source."""
    lines = source.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("def "))
    room = {}
    text = "from __future__ import annotations\n" + "\n".join(lines[start:])
    exec(compile(text, function.__qualname__, "exec"), function.__globals__, room)
    return room[function.__name__].__code__


@dataclass(frozen=True)
class Mutant:
    """`rules`: the promises of which at least one must be seen to break."""

    rules: frozenset
    edits: tuple

    @contextmanager
    def applied(self):
        """The server with this bug in it."""
        sources = {}
        for edit in self.edits:
            function = edit.function()
            source = sources.get(function) or textwrap.dedent(inspect.getsource(function))
            sources[function] = edit.apply(source)
        new = {function: _code(function, source) for function, source in sources.items()}
        old = {function: function.__code__ for function in new}
        try:
            for function, code in new.items():
                function.__code__ = code
            yield
        finally:
            for function, code in old.items():
                function.__code__ = code


def _mutant(rules, *edits):
    return Mutant(frozenset(rules.split()), tuple(Edit(*edit) for edit in edits))


_CREATE = "botapi.transactions.create_task"
_CLAIM = "botapi.transactions.claim_slice"
_UPDATE = "botapi.transactions.update_task"
_CANCEL = "botapi.transactions.cancel_task"
_DECIDE = "botapi.domain.claim:decide"
_PLACE = "botapi.domain.output:place"
_SWEEPS = "botapi.scheduler.sweeps:Sweeps"
_ANY_TRANSITION = (
    "botapi.domain.task:check_transition",
    "if new not in TRANSITIONS.get(old, frozenset()):",
    "if False:",
)
_NEVER_OLD = (
    "botapi.bot_call:BotCall.is_superseded",
    "return self.bot.session_id !=",
    "return '' ==",
)

MUTANTS = {
    "double create": _mutant("T1", (f"{_CREATE}:_seen", "if not request_uuid:", "if True:")),
    "forgets a request uuid": _mutant(
        "T1", (f"{_CREATE}:create_task", "_remember(txn, request, request_uuid)", "pass")
    ),
    "retention of no days": _mutant(
        "T2",
        (
            f"{_SWEEPS}._delete_old_tasks",
            "self.settings.task_retention_days * DAY_MS",
            "1_000",
        ),
    ),
    "double claim": _mutant(
        "C1",
        ("botapi.domain.claim:_taken", "if task.claim_id != attempt.claim_id:", "if False:"),
    ),
    "claim not idempotent": _mutant(
        "C1", ("botapi.domain.claim:_taken", "if task.claim_id != attempt.claim_id:", "if True:")
    ),
    "claims what has ended": _mutant(
        "C2 K2",
        (
            _DECIDE,
            "if task.state is not TaskState.PENDING or task.slice_index",
            "if task.state is TaskState.RUNNING or task.slice_index",
        ),
        _ANY_TRANSITION,
    ),
    "two tasks for a bot": _mutant(
        "C3",
        (_DECIDE, "if bot.task_id:", "if False:"),
        ("botapi.scheduler.idle_bots:facts_of", "not bot.task_id and bot", "bot"),
    ),
    "gives up too early": _mutant(
        "C4 C5",
        (
            "botapi.domain.contact:silence_limit_s",
            "return max(bot_death_s, contact_s + grace_s + MARGIN_S) + flush_s",
            "return 6.0",
        ),
    ),
    "retries what still runs": _mutant(
        "C4",
        (
            "botapi.domain.completion:deserves_retry",
            "return task.state is TaskState.BOT_DIED and",
            "return",
        ),
        (
            f"{_CANCEL}:_stage_cancel",
            "stage_children(txn, killed, now_ms)",
            "stage_now(txn, 'retry', task.task_id, now_ms, {})",
        ),
    ),
    "retry right away": _mutant(
        "C4",
        (
            "botapi.transactions.follow_up:stage_after_end",
            "if not may_run_on_s:",
            "if True:",
        ),
    ),
    "loss on reconnect": _mutant(
        "L1", ("botapi.transactions.update_bot:_write", "if change.abandoned:", "if False:")
    ),
    "old poll is believed": _mutant(
        "C5",
        (
            "botapi.handlers.poll:_refuse_stale",
            "if stored is not None and isinstance(seq, int)",
            "if isinstance(seq, str)",
        ),
        (
            "botapi.handlers.poll:_is_repeat",
            "return uuid in facts.stored.polls_before_claim or uuid in answered",
            "return False",
        ),
        (
            "botapi.domain.bot_event:is_stale",
            "is_before_claim = 0 < update.seq < bot.claim_seq",
            "is_before_claim = False",
        ),
    ),
    "late handshake abandons": _mutant(
        "C5",
        (
            "botapi.domain.bot_event:is_stale",
            "is_repeat = session_id == bot.session_id and bool(bot.task_id)",
            "is_repeat = False",
        ),
    ),
    "old session takes the id back": _mutant(
        "S2",
        (
            "botapi.domain.bot_event:is_stale",
            "return is_repeat or session_id in bot.past_sessions",
            "return is_repeat",
        ),
    ),
    "no fencing of claims": _mutant(
        "S2", (_DECIDE, "if bot.session_id != attempt.session_id:", "if False:"), _NEVER_OLD
    ),
    "no fencing of updates": _mutant(
        "S1",
        (f"{_UPDATE}:_why_not", "if bot.task_id != run_id(progress.task_id):", "if False:"),
        (
            f"{_UPDATE}:_why_not",
            "return None if task.bot_id == progress.bot_id else",
            "return None and",
        ),
        (
            "botapi.handlers.task_update:task_update",
            "if call.bot.task_id != request.task_id or call.is_superseded:",
            "if False:",
        ),
    ),
    "any bot fits": _mutant(
        "C6",
        ("botapi.domain.matching:fits", "return all(", "return True or all("),
        (_DECIDE, "if unmet is not None:", "if False:"),
    ),
    "bot names its own pool": _mutant(
        "C6",
        (
            "botapi.handlers.poll:_merged",
            "return dimensions.overlay(dims, group.dimensions, trusted)",
            "return {**group.dimensions, **dims}",
        ),
    ),
    "late overwrite": _mutant(
        "F1",
        (f"{_UPDATE}:update_task", "if task[0].is_final:", "if False:"),
        (f"{_UPDATE}:_why_not", "if bot.task_id != run_id(progress.task_id):", "if False:"),
        (
            "botapi.transactions.finish_task:stage_end",
            "if task.state is not TaskState.RUNNING:",
            "if False:",
        ),
        (
            "botapi.handlers.task_update:task_update",
            "if call.bot.task_id != request.task_id or call.is_superseded:",
            "if call.is_superseded:",
        ),
        _ANY_TRANSITION,
    ),
    "expires what was claimed": _mutant(
        "K1",
        (
            "botapi.transactions.expire_slice:expire_slice",
            "if task.state is not TaskState.PENDING or task.slice_index",
            "if task.slice_index",
        ),
        (
            f"{_CLAIM}:_stage_run",
            "txn.delete(codec.DUE, codec.due_key(",
            "str(codec.due_key(",
        ),
        _ANY_TRANSITION,
    ),
    "cancel ends a running task": _mutant(
        "C5 K1",
        (
            f"{_CANCEL}:_stage_cancel",
            "if task.state is TaskState.PENDING:",
            "if not task.is_final:",
        ),
    ),
    "cancel is only said": _mutant(
        "K2",
        (
            f"{_CANCEL}:_stage_cancel",
            "ended = stage_end_pending(",
            "ended = (lambda *_, **__: task)(",
        ),
    ),
    "kill is not told": _mutant(
        "K3",
        (
            f"{_UPDATE}:update_task",
            'must_stop="being killed" if task[0].killing else ""',
            'must_stop=""',
        ),
    ),
    "duplicate append": _mutant("O1", (_PLACE, "fresh = data[reached - offset :]", "fresh = data")),
    "zero fill": _mutant(
        "O1",
        (_PLACE, "return Gap(reached)", "data, offset = bytes(offset - reached) + data, reached"),
    ),
    "acknowledged, not stored": _mutant(
        "O2",
        (
            f"{_UPDATE}:update_task",
            "_stage_output(txn, progress.task_id, placed)",
            "if progress.ending is None: return Accepted(task[0])\n"
            "        _stage_output(txn, progress.task_id, placed)",
        ),
    ),
    "no length check": _mutant(
        "O3",
        (
            f"{_UPDATE}:update_task",
            "may_skip=progress.ending is not None and not progress.resends,",
            "may_skip=progress.ending is not None,",
        ),
    ),
    "event lost": _mutant(
        "E1",
        ("botapi.transactions.update_bot:_write", "if change.event is not None:", "if False:"),
    ),
    "event kept twice": _mutant(
        "E1", ("botapi.transactions.update_bot:update_bot", "if seen is not None:", "if False:")
    ),
    "priority ignored": _mutant(
        "Q1", ("botapi.store.codec:pend_key", "{request.priority:03d}", "100")
    ),
    "newest first ignored": _mutant(
        "Q1",
        (
            "botapi.store.codec:pend_key",
            "newest_first if request.is_newest_first else oldest_first",
            "oldest_first",
        ),
    ),
    "silence is not noticed": _mutant(
        "L1",
        (f"{_SWEEPS}._bury", "if bot.dead:", "if True:"),
        (f"{_SWEEPS}._silent_runs", "for bot in bots:", "for bot in ():"),
    ),
    "returned slice is lost": _mutant(
        "LOG L1",
        (
            "botapi.transactions.offer_lease:return_offer",
            "txn.put(codec.PEND, codec.pend_doc(replace(",
            "str(codec.pend_doc(replace(",
        ),
    ),
    "claim is not said again": _mutant(
        "L1",
        (
            "botapi.handlers.rbe_session:_missed_offer",
            "if not bot.has_missed_its_lease(heard_lease(request.skep)):",
            "if True:",
        ),
    ),
    "timer left over": _mutant(
        "L2",
        (f"{_CLAIM}:_stage_run", "txn.delete(codec.DUE, codec.due_key(", "str(codec.due_key("),
    ),
    "archive of no release": _mutant(
        "D1",
        (
            "botapi.handlers.handshake:handshake",
            '"bot_version": server.expected_version(bot_id, group, call),',
            '"bot_version": "0" * 64,',
        ),
    ),
    "child escapes": _mutant(
        "P1",
        ("botapi.transactions.follow_up:stage_children", "if task.has_children:", "if False:"),
    ),
    "child of an ended parent": _mutant(
        "P1",
        (
            "botapi.api.new_tasks:_parent",
            "if codec.read_task(was).is_final:",
            "if False:",
        ),
        (f"{_CREATE}:stage_child", "if parent is None or parent.is_final:", "if parent is None:"),
    ),
    "retry made twice": _mutant(
        "R1",
        ("botapi.transactions.retry_task:retry_task", "if task.retried_as:", "if False:"),
        ("botapi.transactions.retry_task:retry_task", "txn.delete(codec.DUE, due)", "pass"),
    ),
    "retry forgotten": _mutant(
        "R1",
        (
            "botapi.transactions.follow_up:stage_after_end",
            "stage_now(txn, RETRY, task.task_id, now_ms, {})",
            "pass",
        ),
    ),
    "result of a failure is used again": _mutant(
        "R2",
        (
            "botapi.domain.completion:finish",
            "properties_hash=task.properties_hash if is_reusable else",
            "properties_hash=task.properties_hash if True else",
        ),
        (
            "botapi.domain.deduplication:is_usable",
            "original.state is TaskState.COMPLETED\n        and",
            "original.is_final and",
        ),
    ),
    "secret in the name": _mutant(
        "X1",
        (
            "botapi.api.new_tasks:_settled",
            "name=new.name,",
            "name=new.name + new.secret_bytes.decode(),",
        ),
    ),
}
