"""Steering many bots while enough of them go on working, and an end when too many fail.

A bot is available while it is idle or busy. What became of each bot is told in the end,
also of those that were not touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from botapi.ctl import output
from botapi.ctl.command import Invocation
from botapi.ctl.errors import Conflict, CtlError, Failed, Invalid, TimedOut
from botapi.ctl.exits import Exit
from botapi.ctl.http import CONNECTIONS
from botapi.ctl.output import Json, Listing, key
from botapi.ctl.parallel import in_order
from botapi.ctl.params import Bound
from botapi.ctl.waiting import Patience

AVAILABLE = frozenset({"busy", "idle"})
"""The statuses of a bot that works, or could."""
LOOK_S = 2.0
"""Seconds between two looks at the bots that are waited for."""
OUTCOMES = Listing("bot", (key("bot_id"), key("result"), key("status"), key("why")))


class Result(StrEnum):
    """What became of a bot that was chosen."""

    DONE = "done"
    FAILED = "failed"
    LEFT = "not touched"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one bot, with its status then, and why it is not done; one line."""

    bot_id: str
    result: Result
    status: str
    why: str = ""
    is_late: bool = False
    """Was it only not done in the time given?"""

    def as_json(self) -> Json:
        """The row of the result."""
        return {
            "bot_id": self.bot_id,
            "result": str(self.result),
            "status": self.status,
            "why": self.why or None,
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of the chosen bots may be unavailable at a time, and how many may fail."""

    unavailable: int
    failures: int

    def problem(self, failed: int, room: int) -> str:
        """Why no further bot is touched; empty when one may be."""
        if failed > self.failures:
            return f"more than {self.failures} failed"
        return "" if room > 0 else f"at most {self.unavailable} may be unavailable"


Ask = Callable[[str], Json]
"""A call about the bot of this id; its answer is the bot. Raises CtlError."""
Settle = Callable[[Json], Outcome | None]
"""What is known of a bot's outcome before it is touched; None when it is to be touched."""


def limits_of(count: int, max_unavailable: Bound | None, max_fail: Bound | None) -> Limits:
    """The limits for `count` bots. Raises Invalid when none may be unavailable."""
    unavailable = count if max_unavailable is None else max_unavailable.of(count)
    if count and not unavailable:
        problem = f"{max_unavailable} of {count} bot(s) is none, so that none could be touched"
        raise Invalid("--max-unavailable", problem, "give a number, or a larger share")
    return Limits(unavailable, 0 if max_fail is None else max_fail.of(count))


def is_available(bot: Json) -> bool:
    """Does it work, or could it?"""
    return bot["status"] in AVAILABLE


def steer_within(ask: Ask, bots: Sequence[Json], limits: Limits, settle: Settle) -> list[Outcome]:
    """Steer as many bots as the limits allow, one by one.

    One that is unavailable already takes nothing of what may be unavailable.
    """
    outcomes: list[Outcome] = []
    failed = 0
    room = limits.unavailable - sum(not is_available(bot) for bot in bots)
    for bot in bots:
        costs = is_available(bot)
        outcome = settle(bot)
        if outcome is None:
            outcome = _steered(ask, bot, limits.problem(failed, room if costs else 1))
            failed += outcome.result is Result.FAILED
            room -= costs and outcome.result is Result.DONE
        outcomes.append(outcome)
    return outcomes


def _steered(ask: Ask, bot: Json, problem: str) -> Outcome:
    bot_id, status = bot["bot_id"], bot["status"]
    if problem:
        return Outcome(bot_id, Result.LEFT, status, problem)
    try:
        return Outcome(bot_id, Result.DONE, ask(bot_id)["status"])
    except CtlError as error:
        return Outcome(bot_id, Result.FAILED, status, error.message)


@dataclass(slots=True, kw_only=True)
class InTurn:
    """Steers bots that go away by it, and waits until each is back before the next.

    `is_back` compares a bot as it was when it was asked with the bot as it is. Each bot has
    `timeout_s` seconds to come back; None is for ever.
    """

    ask: Ask
    read: Ask
    is_back: Callable[[Json, Json], bool]
    settle: Settle
    limits: Limits
    timeout_s: float | None
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _away: dict[str, tuple[Json, Patience]] = field(default_factory=dict)
    """Those that are waited for, as they were when they were asked."""
    _down: set[str] = field(default_factory=set)
    """Chosen bots that were unavailable when they were last looked at."""
    _failed: int = 0

    def steer(self, bots: Sequence[Json]) -> list[Outcome]:
        """What became of these bots, in their order; each is named once."""
        self._down = {bot["bot_id"] for bot in bots if not is_available(bot)}
        todo = {bot["bot_id"]: bot for bot in bots}
        self._start(todo)
        while self._away:
            Patience(None).pause(LOOK_S)
            self._look([*self._away, *((self._down - set(self._away)) if todo else ())])
            self._start(todo)
        problem = self.limits.problem(self._failed, 0)
        for bot in todo.values():
            left = Outcome(bot["bot_id"], Result.LEFT, bot["status"], problem)
            self._note(self.settle(bot) or left)
        return [self._outcomes[bot["bot_id"]] for bot in bots]

    def _note(self, outcome: Outcome) -> None:
        self._outcomes[outcome.bot_id] = outcome
        self._away.pop(outcome.bot_id, None)
        self._failed += outcome.result is Result.FAILED

    def _start(self, todo: dict[str, Json]) -> None:
        """Ask those whose turn it is; first those that are unavailable, which take no room."""
        for bot_id in dict.fromkeys([*(i for i in todo if i in self._down), *todo]):
            bot = todo[bot_id]
            outcome = self.settle(bot)
            if outcome is None:
                room = self.limits.unavailable - len(self._down | set(self._away))
                if self.limits.problem(self._failed, 1 if bot_id in self._down else room):
                    return
                outcome = self._asked(bot)
            if outcome is not None:
                self._note(outcome)
            del todo[bot_id]

    def _asked(self, bot: Json) -> Outcome | None:
        """None when the bot is waited for from now on."""
        try:
            self._away[bot["bot_id"]] = (self.ask(bot["bot_id"]), Patience(self.timeout_s))
        except CtlError as error:
            return Outcome(bot["bot_id"], Result.FAILED, bot["status"], error.message)
        return None

    def _look(self, bot_ids: Sequence[str]) -> None:
        """See who is back, and who else is available again."""
        for bot_id, now in zip(bot_ids, in_order(self._seen, bot_ids, CONNECTIONS), strict=True):
            before, patience = self._away.get(bot_id, (None, None))
            if isinstance(now, CtlError):
                if before is not None:
                    failed = Outcome(bot_id, Result.FAILED, before["status"], now.message)
                    self._note(failed)
                continue
            if is_available(now):
                self._down.discard(bot_id)
            else:
                self._down.add(bot_id)
            if before is not None and self.is_back(before, now):
                self._note(Outcome(bot_id, Result.DONE, now["status"]))
            elif patience is not None and patience.is_over:
                why = "did not come back in the time given; it is still asked to"
                self._note(Outcome(bot_id, Result.FAILED, now["status"], why, is_late=True))

    def _seen(self, bot_id: str) -> Json | CtlError:
        try:
            return self.read(bot_id)
        except CtlError as error:
            return error


def when_free(outcome: Outcome, wait: Ask) -> Outcome:
    """The outcome once the bot runs nothing; failed when `wait` raises TimedOut."""
    if outcome.result is not Result.DONE:
        return outcome
    try:
        return replace(outcome, status=wait(outcome.bot_id)["status"])
    except TimedOut as error:
        return replace(outcome, result=Result.FAILED, why=error.message, is_late=True)


def show_outcomes(call: Invocation, what: str, outcomes: Sequence[Outcome]) -> int:
    """Print a row for each bot. Raises CtlError when not every one is done, with all counts.

    Failed is exit 1, or 6 when time ran out and nothing else failed; not touched is 9.
    """
    rows = [outcome.as_json() for outcome in outcomes]
    output.show_list(call.form, OUTCOMES, rows, {"items": rows})
    of = {result: [one for one in outcomes if one.result is result] for result in Result}
    failed, left = of[Result.FAILED], of[Result.LEFT]
    if not failed and not left:
        return Exit.DONE
    counts = [f"{len(of[result])} {result}" for result in Result if of[result]]
    problem = f"{', '.join(counts)}: {(failed or left)[0].bot_id}: {(failed or left)[0].why}"
    if not failed:
        raise Conflict(what, problem, "call it again for those, or raise --max-unavailable")
    if all(one.is_late for one in failed):
        raise TimedOut(what, problem)
    raise Failed(what, problem)
