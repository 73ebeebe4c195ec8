"""A running `bench.swarm`, as the benchmarks see it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from bench import fleet, processes
from bench.swarm_log import last_second

LOG_TAIL = 800


class Swarm:
    """Simulated bots in a process of their own; a context manager that ends it."""

    def __init__(self, url: str, folder: Path, count: int, *options: str) -> None:
        """`options` are those of the command line of `bench.swarm`."""
        folder.mkdir(parents=True)
        self.folder = folder
        self.count = count
        command = [sys.executable, "-m", "bench.swarm", url, str(count), str(folder), *options]
        self._process = fleet.start(
            command, folder / "swarm.log", fleet.REPOSITORY, fleet.clean_environ()
        )
        os.sched_setaffinity(self._process.pid, processes.cores_left())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def end(self) -> None:
        """End it; its files stay."""
        ended: list[subprocess.Popen[bytes]] = [self._process]
        processes.end(ended)

    def cpu_s(self) -> float:
        """CPU seconds of it so far."""
        return processes.cpu_s([self._process.pid])

    def back(self, since: float) -> int:
        """How many bots wait for work, or have some, as of a line written after `since`."""
        self.check()
        line = last_second(self.folder)
        return int(line["bots"].get("back", 0)) if line and line["at"] > since else 0

    def check(self) -> None:
        """Raise RuntimeError when it ended, or a bot did."""
        errors = last_second(self.folder).get("errors", [])
        if self._process.poll() is not None or errors:
            log = (self.folder / "swarm.log").read_text(errors="replace")[-LOG_TAIL:]
            raise RuntimeError(f"the simulated bots failed: {errors} {log}")

    def wait_all(self, since: float, limit_s: float) -> float:
        """Seconds from `since`, a monotonic time, until every bot was back."""

        def all_back() -> bool:
            return self.back(since + 1.0) >= self.count

        processes.await_that("all bots back", all_back, limit_s)
        return float(last_second(self.folder)["at"]) - since
