"""Self-update: fetch the version the server names, prove it, then hand over to the starter.

A version is only run after its content digest, its server and its self-test were right; and it
is on probation until its first idle cycle, so that a bad one is taken back by the starter.
"""

import logging
import os
import shutil
import subprocess
import zipfile
from typing import Any, NamedTuple

from bot_client import archive, task_env
from bot_client.clock import Clock
from bot_client.errors import BotError, Fatal
from bot_client.server_api import ServerApi
from bot_client.slots import LAST_GOOD, SlotState, other_slot

log = logging.getLogger("bot.update")

SELF_TEST_S = 60.0
RETRY_AFTER_S = (0.0, 60.0, 300.0, 900.0, 3600.0)
OUTPUT_CHARS = 2048


class UpdateFailed(Exception):
    """The new version was not taken; the text is for an event."""


class _Attempts(NamedTuple):
    """How often a version failed here, and when it may be tried again (monotonic)."""

    failures: int
    next_at: float


class Updater:
    """Knows the running slot and fills the other one."""

    def __init__(self, running: str, api: ServerApi, clock: Clock) -> None:
        """``running`` is the archive this process was imported from."""
        self._running = running
        self._dir = os.path.dirname(running)
        self._api = api
        self._clock = clock
        self._attempts: dict[str, _Attempts] = {}
        self.report: dict[str, Any] = {"slot": os.path.basename(running)}

    def wait_s(self, version: str) -> float:
        """Seconds before this version may be tried (again)."""
        attempts = self._attempts.get(version, _Attempts(0, 0.0))
        here = max(0.0, attempts.next_at - self._clock.now())
        return max(here, SlotState(self._dir).wait_s(version, self._clock.wall()))

    def fetch(self, version: str) -> str:
        """Download, verify and test a version; returns its slot.  UpdateFailed says why not."""
        slot = other_slot(self._running)
        target = os.path.join(self._dir, slot)
        temporary = f"{target}.new"
        try:
            self._download(version, temporary)
            self._verify(version, temporary)
            os.replace(temporary, target)
            self._test(target)
        except UpdateFailed as failure:
            self._note_failure(version, str(failure))
            raise
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        self._attempts.pop(version, None)
        return slot

    def _note_failure(self, version: str, reason: str) -> None:
        failures = self._attempts.get(version, _Attempts(0, 0.0)).failures + 1
        pause = RETRY_AFTER_S[min(failures, len(RETRY_AFTER_S) - 1)]
        self._attempts[version] = _Attempts(failures, self._clock.now() + pause)
        self.report.update(failed_version=version, reason=reason[:300])

    def _download(self, version: str, path: str) -> None:
        if not version.isalnum() or not version.isascii():
            raise UpdateFailed(f"not a version: {version!r}")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w+b") as file:
                self._api.download(version, file)
                file.flush()
                os.fsync(file.fileno())
        except (BotError, OSError) as failure:
            raise UpdateFailed(f"Unable to download {version}: {failure}") from failure

    def _verify(self, version: str, path: str) -> None:
        try:
            digest = archive.content_digest(path)
            server = archive.read_config(path)["server"]
        except (zipfile.BadZipFile, OSError, Fatal, ValueError, RuntimeError) as failure:
            raise UpdateFailed(f"New bot code is bad: {version} is no archive: {failure}") from (
                failure
            )
        if digest != version:
            raise UpdateFailed(f"New bot code is bad: asked for {version}, got {digest}")
        if server != self._api.transport.base_url:
            raise UpdateFailed(f"New bot code is bad: it belongs to {server}")

    def _test(self, path: str) -> None:
        """Let the archive say by itself whether it can run here."""
        command = [*archive.interpreter_command(), path, "is_fine"]
        env = {**task_env.clean_environment(os.environ), "SWARMING_BOT_ID": self._api.bot_id}
        try:
            done = subprocess.run(  # noqa: S603 - verified above
                command,
                cwd=self._dir,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SELF_TEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as failure:
            text = f"New bot code is bad: no answer from its self-test in {SELF_TEST_S:.0f} s"
            raise UpdateFailed(text) from failure
        if done.returncode != 0:
            output = done.stdout.decode("utf-8", "replace")[-OUTPUT_CHARS:]
            text = f"New bot code is bad: proc exit = {done.returncode} stdout: {output}"
            raise UpdateFailed(text)

    def test_running(self) -> None:
        """The self-test of the archive that runs now, before a restart.  UpdateFailed."""
        self._test(self._running)

    def settle(self) -> None:
        """The server is content with the running version: what failed before is over."""
        for key in ("failed_version", "reason"):
            self.report.pop(key, None)

    def choose(self, slot: str, version: str) -> None:
        """Tell the starter which slot to run next, on probation."""
        state = SlotState(self._dir)
        state.run = slot
        state.probation = version
        state.save()

    def stay(self) -> None:
        """Tell the starter to run the present slot again."""
        state = SlotState(self._dir)
        state.run = os.path.basename(self._running)
        state.save()

    def take_reports(self) -> list[str]:
        """What the starter saw die and nobody has told the server yet; forgotten after this."""
        state = SlotState(self._dir)
        reports = state.unreported
        if reports:
            state.unreported = []
            state.save()
        return reports

    def pass_probation(self, version: str) -> None:
        """This version works: keep it as last known good, unless the file already is."""
        state = SlotState(self._dir)
        if state.probation is not None:
            state.probation = None
            state.run = os.path.basename(self._running)
            state.save()
        keep_last_good(self._running, version)
        self.report["last_good"] = version


def keep_last_good(running: str, version: str) -> None:
    """Copy the running archive over ``swarming_bot.zip`` when the two differ in content."""
    target = os.path.join(os.path.dirname(running), LAST_GOOD)
    try:
        if os.path.exists(target) and archive.content_digest(target) == version:
            return
    except (zipfile.BadZipFile, OSError):
        log.warning("%s is damaged and will be replaced", target)
    if shutil.disk_usage(os.path.dirname(target)).free > os.path.getsize(running):
        archive.copy_without_comment(running, target)
        log.info("%s is now the last known good version", version)
