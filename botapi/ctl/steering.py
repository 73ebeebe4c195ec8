"""`skep bot quarantine|release|pause|drain|resume|restart|update`: one bot, or many in turn."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from botapi.ctl import output, waiting
from botapi.ctl.asking import confirm
from botapi.ctl.bots import BOTS, first_of, found, named, one_of_both, several
from botapi.ctl.command import Invocation, client_command
from botapi.ctl.errors import TimedOut
from botapi.ctl.exits import Exit
from botapi.ctl.http import CONNECTIONS, segment
from botapi.ctl.in_turn import (
    Ask,
    InTurn,
    Outcome,
    Result,
    is_available,
    limits_of,
    show_outcomes,
    steer_within,
    when_free,
)
from botapi.ctl.paging import NothingMatched
from botapi.ctl.parallel import in_order
from botapi.ctl.params import Bound, bound, duration, lasting

_reason = click.option(
    "--reason", required=True, help="Why; it is shown and kept in the audit record."
)
_why_not = click.option("--reason", default="", help="Why; it is kept in the audit record.")
_wait = click.option("-wait", "--wait", is_flag=True, help="Until they run nothing.")
_timeout = click.option("--timeout", "timeout_s", type=duration, help="How long to wait.")
_back = click.option("-wait", "--wait", is_flag=True, help="Until each is back.")
_each = click.option("--timeout", "timeout_s", type=duration, help="How long to wait for each.")


def _bounded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which bots, why, and how many of them may be unavailable, or fail."""
    for option in (
        click.option("--max-fail", type=bound, help="Stop when more failed; by default 0."),
        click.option("--max-unavailable", type=bound, help="Of the chosen bots, at a time."),
        _reason,
        several,
    ):
        command = option(command)
    return command


def _kept_from_work(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `_bounded`, for how long, and how long to wait."""
    ends = click.option("--for", "for_s", type=lasting, help="It ends by itself after that time.")
    return _bounded(ends(_timeout(command)))


@click.command()
@_kept_from_work
@_wait
@client_command
def quarantine(call: Invocation, **asked: Any) -> int:
    """Give bots that are not in order no more work, by id or filter; what they run goes on."""
    return _keep_from_work(call, "quarantine", **asked)


@click.command()
@several
@_why_not
@client_command
def release(call: Invocation, **asked: Any) -> int:
    """Let bots work again that `skep bot quarantine` kept from it."""
    return _steer_once(call, "release", **asked)


@click.command()
@_kept_from_work
@_wait
@client_command
def pause(call: Invocation, **asked: Any) -> int:
    """Give bots no new work for a while, by id or by a filter; what they run goes on."""
    return _keep_from_work(call, "pause", **asked)


@click.command()
@_kept_from_work
@client_command
def drain(call: Invocation, **asked: Any) -> int:
    """Pause bots, and wait until they run nothing."""
    return _keep_from_work(call, "drain", wait=True, **asked)


@click.command()
@several
@_why_not
@client_command
def resume(call: Invocation, **asked: Any) -> int:
    """Give bots work again that are paused or drained."""
    return _steer_once(call, "resume", **asked)


@click.command()
@_bounded
@_back
@_each
@client_command
def restart(call: Invocation, **asked: Any) -> int:
    """Have bots start over when they are free; their configuration is read anew."""
    return _restart(call, **asked)


@click.command()
@_bounded
@_back
@_each
@client_command
def update(call: Invocation, **asked: Any) -> int:
    """Have bots start over that do not run the version expected of them, so that they take it."""
    return _update(call, **asked)


VERBS = (quarantine, release, pause, drain, resume, restart, update)


_CALLS = {"drain": "pause", "update": "restart"}
"""The call of the API for a verb that has another name."""


def _steer_once(call: Invocation, verb: str, *, reason: str, **asked: Any) -> int:
    bots = _chosen(call, verb, are_read=False, **asked)
    return _show_steered(call, _all_asked(_asking(call, verb, reason), bots), asked["bot_ids"])


def _keep_from_work(
    call: Invocation,
    verb: str,
    *,
    reason: str,
    wait: bool,
    timeout_s: float | None,
    for_s: float | None,
    max_unavailable: Bound | None,
    max_fail: Bound | None,
    **asked: Any,
) -> int:
    is_bounded = max_unavailable is not None or max_fail is not None
    bots = _chosen(call, verb, are_read=is_bounded, **asked)
    ask = _asking(call, verb, reason, for_s)
    if is_bounded:
        limits = limits_of(len(bots), max_unavailable, max_fail)
        outcomes = steer_within(ask, bots, limits, _not_settled)
        free = partial(_until_free, call, waiting.Patience(timeout_s))
        waited = [when_free(outcome, free) for outcome in outcomes] if wait else outcomes
        return show_outcomes(call, f"bot {verb}", waited)
    done = _all_asked(ask, bots)
    if wait:
        patience = waiting.Patience(timeout_s)
        done = [_until_free(call, patience, bot["bot_id"]) for bot in done]
    return _show_steered(call, done, asked["bot_ids"])


def _restart(
    call: Invocation,
    *,
    reason: str,
    wait: bool,
    timeout_s: float | None,
    max_unavailable: Bound | None,
    max_fail: Bound | None,
    **asked: Any,
) -> int:
    if not wait and max_unavailable is None and max_fail is None:
        return _steer_once(call, "restart", reason=reason, **asked)
    bots = _chosen(call, "restart", are_read=True, **asked)
    turns = InTurn(
        ask=_asking(call, "restart", reason),
        read=partial(_read, call),
        is_back=_has_started_over,
        settle=_unless_dead,
        limits=limits_of(len(bots), max_unavailable, max_fail),
        timeout_s=timeout_s,
    )
    return show_outcomes(call, "bot restart", turns.steer(bots))


def _update(
    call: Invocation,
    *,
    reason: str,
    wait: bool,
    timeout_s: float | None,
    max_unavailable: Bound | None,
    max_fail: Bound | None,
    **asked: Any,
) -> int:
    bots = _chosen(call, "update", are_read=True, **asked)
    ask = _asking(call, "update", reason)
    limits = limits_of(len(bots), max_unavailable, max_fail)
    if not wait and max_unavailable is None and max_fail is None:
        outcomes = steer_within(ask, bots, limits, _unless_current)
        return show_outcomes(call, "bot update", outcomes)
    turns = InTurn(
        ask=ask,
        read=partial(_read, call),
        is_back=_is_updated,
        settle=_unless_current,
        limits=limits,
        timeout_s=timeout_s,
    )
    return show_outcomes(call, "bot update", turns.steer(bots))


def _not_settled(_bot: output.Json) -> None:
    """Every bot may be kept from work, whatever it is."""


def _unless_dead(bot: output.Json) -> Outcome | None:
    if bot["status"] != "dead":
        return None
    return Outcome(bot["bot_id"], Result.LEFT, "dead", "it is dead; it starts over by itself")


def _unless_current(bot: output.Json) -> Outcome | None:
    """Nothing to do for a bot that runs what it should; nothing that could be done for some."""
    expected = bot["expected_version"]
    if not expected:
        why = "the server expects no version of it"
        return Outcome(bot["bot_id"], Result.LEFT, bot["status"], why)
    if bot["version"] == expected:
        why = "it runs the expected version"
        return Outcome(bot["bot_id"], Result.DONE, bot["status"], why)
    return _unless_dead(bot)


def _has_started_over(before: output.Json, now: output.Json) -> bool:
    """Is it a new run of the bot, as good as it was before?"""
    is_new = now["session_id"] != before["session_id"]
    return is_new and (is_available(now) or not is_available(before))


def _is_updated(before: output.Json, now: output.Json) -> bool:
    """Has it started over with the version that is expected of it now?"""
    return _has_started_over(before, now) and now["version"] == now["expected_version"]


def _chosen(
    call: Invocation,
    verb: str,
    *,
    are_read: bool,
    bot_ids: tuple[str, ...],
    limit: int,
    yes: bool,
    **asked: Any,
) -> list[output.Json]:
    """The bots, each once; without `are_read` those that were named have only an id.

    Who chose them by a filter is asked first. Raises NothingMatched.
    """
    filters = one_of_both(f"bot {verb}", bot_ids, **asked)
    if not filters:
        ids = dict.fromkeys(bot_ids)
        return named(call, ids) if are_read else [{"bot_id": bot_id} for bot_id in ids]
    bots = found(call, filters, limit)
    if not bots:
        raise NothingMatched("bot", "nothing matches the filter")
    ids_found = [bot["bot_id"] for bot in bots]
    confirm(call, f"{verb} {len(bots)} bot(s): {first_of(ids_found)}", f"{verb} them?", yes=yes)
    return bots


def _asking(call: Invocation, verb: str, reason: str, for_s: float | None = None) -> Ask:
    """What asks one bot; its answer is the bot as it is after it."""
    body = {"reason": reason} | ({"for_s": math.ceil(for_s)} if for_s else {})
    name = _CALLS.get(verb, verb)
    return lambda i: call.client.ask(f"{verb} {i}", f"/bots/{segment(i)}/{name}", body)


def _all_asked(ask: Ask, bots: list[output.Json]) -> list[output.Json]:
    return list(in_order(ask, [bot["bot_id"] for bot in bots], CONNECTIONS))


def _show_steered(call: Invocation, done: list[output.Json], bot_ids: tuple[str, ...]) -> int:
    if len(bot_ids) == 1:
        output.show_item(call.form, "bot", done[0]["bot_id"], done[0])
    else:
        output.show_list(call.form, BOTS, done, {"items": done})
    return Exit.DONE


def _read(call: Invocation, bot_id: str) -> output.Json:
    return call.client.get(f"bot {bot_id}", f"/bots/{segment(bot_id)}")


def _until_free(call: Invocation, patience: waiting.Patience, bot_id: str) -> output.Json:
    """The bot once it runs nothing."""
    while True:
        patience.next_hold_s()
        now = _read(call, bot_id)
        if not now["task_id"]:
            return now
        try:
            patience.was_vain()
        except waiting.OutOfTime as error:
            problem = f"still runs task {now['task_id']}; it gets no more work"
            raise TimedOut(bot_id, problem) from error
