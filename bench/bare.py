"""The yardstick of P6: a Flask route that echoes JSON, on the server's own gunicorn settings.

`python -m bench.bare FOLDER` serves it and writes FOLDER/server.url.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from flask import Flask, Response, jsonify, request

from bench import fleet, processes
from botapi.admission import Admission
from botapi.clock import SystemClock, SystemRng
from botapi.concurrency import Threads
from botapi.serve import URL_FILE, Server
from botapi.settings import Settings

PATH = "/echo"


class BareServer(Server):
    """The arbiter and the worker of `skep serve` around an application of one route."""

    def load(self) -> Flask:
        """The application, made in the worker as there."""
        admission = Admission(Threads(), SystemClock(), SystemRng())
        self.parts = SimpleNamespace(release=lambda: None, close=lambda: None, admission=admission)
        app = Flask("bare", static_folder=None)
        app.add_url_rule(PATH, "echo", echo, methods=["POST"])
        return app


def echo() -> Response:
    """Parse the body and send it back."""
    return jsonify(request.get_json())


class Bare:
    """The running yardstick; a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.url = ""

    def __enter__(self) -> "Bare":
        command = [sys.executable, "-m", "bench.bare", str(self._folder)]
        log = self._folder / "bare.log"
        self._process = fleet.start(command, log, fleet.REPOSITORY, fleet.clean_environ())
        written = self._folder / URL_FILE
        try:
            processes.await_that("the bare server's address", written.exists)
        except BaseException:
            self._end()
            raise
        self.url = written.read_text(encoding="utf-8").strip()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def _end(self) -> None:
        ended: list[subprocess.Popen[bytes]] = [self._process]
        processes.end(ended)

    def server_cpu_s(self) -> float:
        """CPU seconds of its processes so far."""
        return processes.cpu_s(processes.tree_of(self._process.pid))


def main() -> None:
    """Serve until told to stop."""
    folder = Path(sys.argv[1])
    BareServer(Settings(data_dir=folder, host="127.0.0.1", port=0)).run()


if __name__ == "__main__":
    main()
