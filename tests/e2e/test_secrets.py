"""A secret from the command line to the command of a real bot, and to no other place."""

import base64
import os
import sys

import pytest

from tests.e2e.fleet import running_fleet, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CANARY = "canary-9b1d2f77c0"
OWN = "own-bytes-5e3a91d4"

SCRIPT = """\
import base64, json, os, sys, time
path = os.environ["NPM_TOKEN_FILE"]
value = open(path).read()
context = json.load(open(os.environ["LUCI_CONTEXT"]))
own = base64.b64decode(context["swarming"]["secret_bytes"]).decode()
said = open("/proc/self/environ").read() + " ".join(sys.argv)
print("right", value == VALUE[::-1], own == OWN[::-1])
print("hidden", value not in said, own not in said)
print("mode", oct(os.stat(path).st_mode & 0o777), os.path.dirname(path))
print("plain", value, own)
print("b64", base64.b64encode(("u:" + value).encode()).decode())
for piece in (value[:7], value[7:]):
    sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.3)
print()
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("secrets"), "bot1") as fleet:
        yield fleet


def everything_below(*folders):
    """Every file's bytes, those of the store among them."""
    for folder in folders:
        for place, _names, files in os.walk(folder):
            for name in files:
                path = os.path.join(place, name)
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        yield path, file.read()


@pytest.mark.control("tasks.secrets")
def test_secret_canary_scan(fleet, tmp_path):
    value = tmp_path / "value"
    value.write_text(CANARY + "\n")
    done = fleet.cli("secret", "set", "npm", "--pool", "default", "--from-file", str(value))
    assert done.returncode == 0, done.stderr
    script = SCRIPT.replace("VALUE", repr(CANARY[::-1])).replace("OWN", repr(OWN[::-1]))
    task = fleet.api.submit(
        sys.executable,
        "-c",
        script,
        secrets={"NPM_TOKEN": "npm"},
        secret_bytes_b64=base64.b64encode(OWN.encode()).decode(),
    )
    task = fleet.api.until(task["task_id"], "COMPLETED")
    output = fleet.api.output(task["task_id"]).decode()
    assert task["exit_code"] == 0, output
    lines = output.splitlines()
    assert lines[:2] == ["right True True", "hidden True True"]
    mode, folder = lines[2].split()[1:]
    assert mode == "0o400"
    assert lines[3] == "plain [REDACTED] [REDACTED]"
    assert "[REDACTED]" in lines[4]
    assert lines[5] == "[REDACTED]"
    wait_until("the secret's folder to be gone", lambda: not os.path.exists(folder))
    forms = [
        form
        for text in (CANARY, OWN)
        for form in (text.encode(), base64.b64encode(text.encode()), text.encode().hex().encode())
    ]
    found = [
        path
        for path, content in everything_below(fleet.folder)
        if any(form in content for form in forms)
    ]
    assert found == []
    assert CANARY not in fleet.cli("secret", "list").stdout.decode()


def test_task_whose_secret_is_gone_fails_and_names_it(fleet, tmp_path):
    value = tmp_path / "value"
    value.write_text("soon gone")
    fleet.cli("secret", "set", "gone", "--pool", "default", "--from-file", str(value))
    go_on = tmp_path / "go on"
    waits = f"import os, time\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.05)"
    busy = fleet.api.submit(sys.executable, "-c", waits)
    fleet.api.until(busy["task_id"], "RUNNING")
    task = fleet.api.submit("/bin/true", secrets={"TOKEN": "gone"})
    assert fleet.cli("secret", "rm", "gone", "--yes").returncode == 0
    go_on.touch()
    task = fleet.api.until(task["task_id"], "BOT_DIED")
    assert "TOKEN" in task["error"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("set", "x", "--pool", "default", "--from-file", os.devnull), 2),
        (("rm", "none", "--yes"), 5),
        (("rotate",), 0),
        (("list",), 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_secret_verbs_end_as_they_should(fleet, words, code):
    done = fleet.cli("secret", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
