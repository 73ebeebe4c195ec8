"""Simulated bots that claim and end tasks as fast as they are given them.

`python -m bench.claimers FIRST COUNT URL…`: each bot on a thread and a connection of its own,
the servers in turn. It says `ready`, begins when a line comes, and goes when standard input
ends. A line for each thing that happened: `run <task> <monotonic s>`, `skip <reason>`, `error …`.
"""

import os
import sys
import threading
import time
from contextlib import suppress

from bench.simulated import make_bot
from bench.wire import Connection
from tests.fakes.sim_bot import SimBot

PREFIX = "sim-claim-"


def say(*words: object) -> None:
    """One line, written at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Claimer:
    """One bot; `connection` is cut under it at the end."""

    def __init__(self, number: int, url: str) -> None:
        self.connection = Connection(url)
        self.bot: SimBot = make_bot(self.connection, f"{PREFIX}{number}")
        self.is_leaving = False

    def live(self) -> None:
        """Take leases until the connection is cut."""
        try:
            self._live()
        except OSError as error:
            if not self.is_leaving:
                say("error", self.bot.bot_id, repr(error))

    def _live(self) -> None:
        done = None
        while not self.is_leaving:
            given = {"lease": done} if done else {}
            reply = self.bot.update(nonblocking=False, **given)
            if self.bot.status != 200:
                say(
                    "error",
                    self.bot.bot_id,
                    self.bot.status,
                    self.bot.text[:200].replace("\n", " "),
                )
                return
            lease = reply.get("lease")
            done = self._claimed(lease) if lease else None

    def _claimed(self, lease: dict) -> dict:
        """Claim and end the task of a lease; how the lease ended."""
        answer = self.bot.claim(lease)
        result = {}
        if answer.get("cmd") == "run":
            say("run", answer["task_id"], time.monotonic())
            self.bot.finish(answer["task_id"])
            if self.bot.status != 200:
                say("error", "end of", answer["task_id"], self.bot.status)
        elif answer.get("cmd") == "skip":
            say("skip", answer.get("reason", "").replace("\n", " "))
            result = {"skip_reason": answer.get("reason", "")}
        else:
            say("error", "claim", self.bot.status, self.bot.text[:200].replace("\n", " "))
            result = {"bot_internal_error": "claim failed"}
        return {"id": lease["id"], "state": "COMPLETED", "result": result}


def main(first: int, count: int, urls: list[str]) -> None:
    """Connect all, wait for the word, let them work until nobody listens any more."""
    claimers = [Claimer(first + n, urls[n % len(urls)]) for n in range(count)]
    for each in claimers:
        each.bot.start()
    say("ready")
    sys.stdin.readline()
    threads = [threading.Thread(target=each.live, daemon=True) for each in claimers]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    for each in claimers:
        each.is_leaving = True
        with suppress(OSError):
            each.connection.abort()
    for thread in threads:
        thread.join(10.0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
