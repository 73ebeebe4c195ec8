"""Somebody who submits without a break, and in the end knows whether anything was lost."""

import threading

from tests.e2e import ground_truth
from tests.e2e.fleet import NotReached

LINES = 5
AHEAD = 4
"""Tasks that wait or run at one time."""


class Submitter:
    """Submits each request until it is acknowledged. `check` ends it."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.truth = fleet.folder / f"truth-{fleet.key()}"
        self.tasks = {}
        self.refused = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._over.wait(0.2):
            if len(self.tasks) >= self.ended() + AHEAD:
                continue
            name = f"{self.truth.name}-{len(self.tasks)}"
            command = ground_truth.command(self.truth, name, LINES, 0.02)
            try:
                self.tasks[name] = self.fleet.api.submit(*command, key=name)["task_id"]
            except NotReached as error:
                self.refused.append(str(error))

    def ended(self):
        """How many of the tasks say that they are through."""
        return sum(n for (what, *_), n in ground_truth.told(self.truth).items() if what == "end")

    def check(self):
        """End it; everything that was acknowledged ran once, to the byte."""
        self._over.set()
        self._thread.join(90)
        assert self.refused == []
        for name, task_id in self.tasks.items():
            task = self.fleet.api.until(task_id, limit_s=90)
            assert (task["state"], task["exit_code"]) == ("COMPLETED", 0), task
            assert self.fleet.api.output(task_id) == ground_truth.output(name, LINES)
        told = ground_truth.told(self.truth)
        assert set(told.values()) == {1}
        assert len(told) == 2 * len(self.tasks)
