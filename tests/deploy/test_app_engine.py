"""App Engine, as far as it can be had here: its files, and the entry point of app.yaml run as
it says, in the environment and on the disk that App Engine gives."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import yaml
from packaging.requirements import Requirement

from botapi import settings
from tests.e2e.fleet import (
    KEY,
    REPOSITORY,
    SKEP,
    Api,
    BotProcess,
    clean_environ,
    kill_group,
    wait_until,
)
from tests.engines.emulator import PROJECT
from tests.fakes.secret_manager import serving
from tests.ports import free_port
from tools import requirements

NAMESPACE = """
mount --bind "$1/app" /mnt && mount -o remount,bind,ro /mnt && mount --bind "$2" /media &&
mount --bind "$1/tmp" /tmp && mount -o remount,bind,ro / && cd /mnt && shift 2 && exec "$@"
"""
"""Runs a command in /mnt, where everything but /tmp can only be read; Python is in /media."""
USERS_ADDRESS = "203.0.113.9"


def read(name):
    return yaml.safe_load((REPOSITORY / name).read_text())


def listed(*arguments):
    done = subprocess.run(
        ["git", "ls-files", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")) - {""}


def uploaded():
    """What gcloud would upload: the files of the repository that are not ignored."""
    ignored = listed("-ci", "--exclude-from=.gcloudignore")
    return listed("-co", "--exclude-standard", "--exclude-from=.gcloudignore") - ignored


# The files.


def test_settings_of_app_yaml_are_settings():
    said = read("app.yaml")
    named = {*said["env_variables"], *re.findall(r"SKEP_\w+", said["entrypoint"])}
    assert settings.unknown(dict.fromkeys(named, "x")) == []
    settings.load(said["env_variables"])


def test_app_yaml_asks_for_what_held_calls_and_sweeps_need():
    said = read("app.yaml")
    assert re.fullmatch(r"python3(1[1-9]|[2-9]\d)", said["runtime"])
    assert said["instance_class"].startswith("B")
    assert "basic_scaling" in said
    assert "automatic_scaling" not in said
    assert said["inbound_services"] == ["warmup"]


def test_cron_calls_what_the_server_answers():
    (job,) = read("cron.yaml")["cron"]
    assert job["url"] == "/internal/cron/sweep"
    assert read("app.yaml")["env_variables"]["SKEP_CRON_HEADER"] == "X-Appengine-Cron"


def test_no_composite_index_is_asked_for():
    assert read("index.yaml") == {"indexes": []}


def test_upload_has_all_that_runs_and_nothing_else():
    files = uploaded()
    assert {"app.yaml", "requirements.txt", "proto/botpb/session_pb2.py"} <= files
    assert "botapi/web/templates/base.html" in files
    assert "bot_client/__main__.py" in files
    folders = {name.split("/")[0] for name in files if "/" in name}
    assert folders == {"botapi", "bot_client", "proto"}


def test_requirements_are_those_of_the_lock():
    assert requirements.TARGET.read_text() == requirements.render(), "python -m tools.requirements"


def test_requirements_name_everything_that_they_need():
    named = set(re.findall(r"^([a-z0-9-]+)==", requirements.TARGET.read_text(), re.MULTILINE))
    missing = set()
    for name in named:
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                missing |= {requirements.normal(needed.name)} - named
    assert missing == set()


# The entry point.


@pytest.fixture(scope="module")
def bucket():
    """Google's bucket of the project, as far as an emulator has it."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server(
        "127.0.0.1", port, in_memory=True, default_bucket=f"{PROJECT}.appspot.com"
    )
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


class AppEngine:
    """The app as it would be uploaded, run as it would be."""

    def __init__(self, folder, google, bucket, database):
        self.folder = folder
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        for name in uploaded():
            target = folder / "app" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, target)
        self.said = read("app.yaml")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.google = google
        self.emulated = {
            "DATASTORE_EMULATOR_HOST": database,
            "STORAGE_EMULATOR_HOST": bucket,
            **google.environ,
        }
        self.environ = {
            "PATH": "/media/bin:/usr/bin:/bin",
            "PORT": str(self.port),
            "GAE_ENV": "standard",
            "GAE_RUNTIME": self.said["runtime"],
            "GAE_SERVICE": "default",
            "GAE_VERSION": "1",
            "GAE_INSTANCE": "i-1",
            "GAE_APPLICATION": f"e~{PROJECT}",
            "GAE_MEMORY_MB": "768",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.said["env_variables"],
            **self.emulated,
        }
        self.process = None

    def init(self):
        """What the page has an operator do before the first deployment; the admin's key."""
        home = self.folder / "operator"
        done = subprocess.run(
            [*SKEP, "init", "--data-dir", str(home)],
            cwd=REPOSITORY,
            env=clean_environ(SKEP_STORE=f"datastore://{PROJECT}", **self.emulated),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        name = f"projects/{PROJECT}/secrets/skep-keys/versions/latest"
        self.google.secrets[name] = (home / "secrets.keys").read_bytes()
        assert not (home / "config").exists()
        return KEY.search(done.stdout)[1]

    def start(self):
        self.begin()
        wait_until(f"ready, see {self.log}", lambda: self.get("/_ah/warmup")[0] == 200)

    def begin(self):
        command = ["/bin/sh", "-c", "exec " + self.said["entrypoint"]]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "unshare",
                    "-m",
                    "sh",
                    "-c",
                    NAMESPACE,
                    "sh",
                    str(self.folder),
                    sys.prefix,
                    *command,
                ],
                env=self.environ,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def get(self, path, **headers):
        """Status and text, as Google's front end asks on behalf of a user."""
        given = {
            "X-Forwarded-For": f"{USERS_ADDRESS}, 169.254.1.1",
            "X-Forwarded-Proto": "https",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url + path, headers=given), timeout=20
            ) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def end(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                kill_group(self.process.pid)
                self.process.wait()


def can_have_own_disk():
    done = subprocess.run(
        ["unshare", "-m", "mount", "-o", "remount,bind,ro", "/"], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.fixture(scope="module")
def app(emulator, bucket, tmp_path_factory):
    if not can_have_own_disk():
        reason = "unshare(1) may not make a read-only disk here"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    if emulator.real:
        pytest.skip("the default namespace of a real project is not for tests")
    emulator.new_address()
    with serving() as google:
        app = AppEngine(tmp_path_factory.mktemp("gae"), google, bucket, emulator.host)
        try:
            yield app
        finally:
            app.end()


@pytest.mark.slow
@pytest.mark.e2e
def test_entry_point_serves_a_real_bot_with_everything_read_only(app):
    key = app.init()
    app.start()
    api = Api(app.url, key)
    bot = BotProcess(app.folder, "bot1")
    try:
        bot.install(app.url, api.token())
        api.until_idle("bot1")
        task = api.submit("sh", "-c", "echo from app engine")
        assert api.until(task["task_id"])["state"] == "COMPLETED"
        assert api.output(task["task_id"]) == b"from app engine\n"
    finally:
        bot.end()
    check_front_end(app)
    check_secrecy(app, key)


def check_front_end(app):
    """Addresses are believed from Google's front end, cron only with its header."""
    page = app.get("/bootstrap?tok=x")
    assert page[0] in {400, 401, 403}
    assert app.get("/_ah/start")[0] == 200
    assert app.get("/internal/cron/sweep")[0] == 404
    assert app.get("/internal/cron/sweep", X_Appengine_Cron="true") == (200, "ok\n")
    assert f'"address": "{USERS_ADDRESS}"' in app.log.read_text()


def check_secrecy(app, key):
    """Neither key nor secrets are in the log; the key file is private, below /tmp."""
    text = app.log.read_text()
    assert "skep_" not in text
    assert key not in text
    (secret,) = app.google.secrets.values()
    assert secret.decode().split(":")[1].strip() not in text
    path = app.tmp / "skep" / "secrets.keys"
    assert path.read_bytes() == secret
    assert path.stat().st_mode & 0o777 == 0o400
    assert not (app.tmp / "skep" / "config").exists()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("level") == "error"] == []
