"""The command of a manifest, run for real."""

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path


class Command:
    """One child in a session of its own; its output is gathered by a thread.

    Raises OSError when it cannot start.
    """

    def __init__(self, manifest, folder, url, bot_id):
        home = Path(folder) / manifest.get("relative_cwd", "")
        home.mkdir(parents=True, exist_ok=True)
        self._news = threading.Condition()
        self._gathered = bytearray()
        self._is_open = True
        self._child = subprocess.Popen(
            manifest.get("command") or [],
            cwd=home,
            env=environment(manifest, folder, url, bot_id),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        descriptor = self._child.stdout.fileno()
        while data := os.read(descriptor, 65536):
            with self._news:
                self._gathered += data
                self._news.notify_all()
        self._child.wait()
        with self._news:
            self._is_open = False
            self._news.notify_all()

    @property
    def is_running(self):
        with self._news:
            return self._is_open

    @property
    def exit_code(self):
        """As the child ended: minus the number of the signal that killed it."""
        return self._child.returncode

    def buffered(self):
        """How many bytes wait to be taken."""
        with self._news:
            return len(self._gathered)

    def take(self, most):
        """The next bytes of its output."""
        with self._news:
            data = bytes(self._gathered[:most])
            del self._gathered[:most]
        return data

    def wait(self, seconds, enough):
        """Until it ended, `enough` bytes are buffered, or the time is over."""
        with self._news:
            self._news.wait_for(
                lambda: not self._is_open or len(self._gathered) >= enough, max(0.0, seconds)
            )

    def signal(self, number):
        """To the whole group of the child."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def end(self):
        """Whatever it takes."""
        self.signal(signal.SIGKILL)
        self._reader.join(10)
        self._child.wait(10)
        self._child.stdout.close()


def environment(manifest, folder, url, bot_id):
    """Ours, with the bot's variables and those of the manifest (bot-api 4.4, A.5)."""
    environ = dict(os.environ)
    environ.update(manifest.get("env") or {})
    for variable, paths in (manifest.get("env_prefixes") or {}).items():
        whole = [str(Path(folder) / path) for path in paths]
        before = environ.get(variable)
        environ[variable] = os.pathsep.join([*whole, before] if before else whole)
    environ.update(
        SWARMING_TASK_ID=manifest["task_id"],
        SWARMING_SERVER=url,
        SWARMING_BOT_ID=bot_id,
        SWARMING_HEADLESS="1",
    )
    return environ
