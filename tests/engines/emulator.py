"""Google's Datastore emulator for tests: one for each test process, started when first asked for.

With `SKEP_TEST_DATASTORE_PROJECT=project[/database]` the same tests use that database of the
real service instead, each in a namespace of its own, and empty it at the end.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import psutil
import pytest

from tests.halting import halt
from tests.ports import free_port

PROJECT = "skep-test"
FIRESTORE = "--use-firestore-in-datastore-mode"
"""The service of today, and the same limits: without it the emulator is the Datastore of before
2021, with 25 entity groups in a transaction at most."""
REAL_PROJECT = "SKEP_TEST_DATASTORE_PROJECT"
HOST = "DATASTORE_EMULATOR_HOST"
START_S = 60.0
"""How long the emulator may need until it answers; 4 s are usual."""

LEASH = '"$@" & read _; kill -s KILL -- -$!; kill -s KILL 0'
"""Ends the command's process group, and its own, when its standard input ends, however its
parent ended: gcloud makes a group of its own, which the emulator it starts belongs to."""


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """The emulator, or the real service; `.new_address()` names an empty database in it."""
    if os.environ.get(REAL_PROJECT):
        service = RealService(os.environ[REAL_PROJECT])
    elif shutil.which("gcloud") is None:
        absent("gcloud with the Datastore emulator is not installed")
    else:
        service = Emulator(tmp_path_factory.mktemp("emulator"))
    before = os.environ.pop(HOST, None)
    os.environ.update(service.environ)
    try:
        yield service
    finally:
        service.end()
        os.environ.pop(HOST, None)
        if before is not None:
            os.environ[HOST] = before


def absent(reason):
    """Skip, or fail where every part must be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def led_by(leash):
    """The processes of the leash's session but itself.

    Not its descendants as psutil finds them: it leaves out those that seem to be older than
    their parent, which a clock that is set meanwhile makes of young ones.
    """
    return [
        one for one in psutil.process_iter() if one.pid != leash.pid and _leader(one) == leash.pid
    ]


def _leader(process):
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return 0


class Emulator:
    """Google's emulator on loopback; it keeps its documents in memory."""

    real = False

    def __init__(self, folder):
        self.folder = folder
        self.host = f"127.0.0.1:{free_port()}"
        self.environ = {HOST: self.host}
        self._leash = None

    def new_address(self):
        """`datastore://…` of an empty database; starts or resumes the emulator if need be."""
        if self._leash is None:
            self.start()
        else:
            self.resume()
        return f"datastore://{PROJECT}?namespace=t-{uuid.uuid4().hex}"

    def start(self):
        """Start with no documents at all, on the same port as before, and wait until it answers."""
        command = [
            *("gcloud", "beta", "emulators", "datastore", "start", "--no-store-on-disk"),
            *(f"--host-port={self.host}", f"--project={PROJECT}", FIRESTORE),
            f"--data-dir={self.folder / 'data'}",
        ]
        environ = {
            **os.environ,
            "CLOUDSDK_CONFIG": str(self.folder / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "HOME": str(self.folder),
        }
        with open(self.folder / "output.txt", "ab") as output:
            self._leash = subprocess.Popen(
                ["/bin/sh", "-c", LEASH, "leash", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environ,
                start_new_session=True,
            )
        if not until(self._answers, START_S):
            self.kill()
            text = (self.folder / "output.txt").read_text(errors="replace")
            pytest.fail(f"the emulator did not answer within {START_S} s:\n{text[-2000:]}")

    def kill(self):
        """End it at once, as a crash would: everything in it is lost."""
        leash, self._leash = self._leash, None
        if leash is None:
            return
        family = led_by(leash)
        leash.stdin.close()
        leash.wait(START_S)
        _, alive = psutil.wait_procs(family, START_S)
        assert not alive, f"the emulator outlived its leash: {alive}"

    def pause(self):
        """Stop it where it stands: connections stay open, nothing is answered."""
        halt(*(server.pid for server in self._servers()))

    def resume(self):
        """Let it go on."""
        for server in self._servers():
            server.send_signal(signal.SIGCONT)

    def end(self):
        """No process stays."""
        self.kill()

    def _servers(self):
        servers = self._java()
        assert servers, "the emulator is not there"
        return servers

    def _java(self):
        return [process for process in led_by(self._leash) if process.name() == "java"]

    def _answers(self):
        """Does it, and not somebody else on that port?"""
        try:
            with urllib.request.urlopen(f"http://{self.host}/", timeout=1.0) as answer:
                return answer.status == 200 and bool(self._java())
        except (urllib.error.URLError, OSError):
            return False


class RealService:
    """A project's own database: namespaces instead of emulators, emptied at the end."""

    real = True

    def __init__(self, project):
        self.project = project
        self.environ = {}
        self._namespaces = []

    def new_address(self):
        """`datastore://…` with a namespace that nobody else uses."""
        namespace = f"skep-test-{uuid.uuid4().hex}"
        self._namespaces.append(namespace)
        return f"datastore://{self.project}?namespace={namespace}"

    def start(self):
        """Nothing to start."""

    def kill(self):
        """Skip the test: nobody can kill the service."""
        pytest.skip("the real service cannot be killed or paused")

    pause = resume = kill

    def end(self):
        """Delete every entity of the namespaces."""
        from google.cloud import datastore

        project, _, database = self.project.partition("/")
        for namespace in self._namespaces:
            client = datastore.Client(project, namespace=namespace, database=database or None)
            for kind in [each.key.name for each in client.query(kind="__kind__").fetch()]:
                query = client.query(kind=kind)
                query.keys_only()
                while keys := [each.key for each in query.fetch(limit=400)]:
                    client.delete_multi(keys)


def until(condition, limit_s):
    """Ask again and again; False when it was never true."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():
            return True
        threading.Event().wait(0.05)
    return False
