"""The emulator that the tests of the Datastore engine stand on."""

import subprocess
import sys

import psutil
import pytest

from tests.engines.emulator import LEASH, led_by, until

pytestmark = pytest.mark.slow

OWN_GROUP = """
import os, subprocess
os.setpgrp()
subprocess.run(["/bin/sh", "-c", "sleep 60 & sleep 60"])
"""


def test_leash_ends_all_its_processes_when_its_parent_is_gone():
    with subprocess.Popen(
        ["/bin/sh", "-c", LEASH, "leash", sys.executable, "-c", OWN_GROUP],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as leash:
        assert until(lambda: len(led_by(leash)) == 4, 10.0)
        family = led_by(leash)
        leash.stdin.close()
        leash.wait(10.0)
        assert psutil.wait_procs(family, 10.0)[1] == []


def test_addresses_differ_and_emulator_answers(emulator):
    first, second = emulator.new_address(), emulator.new_address()
    assert first != second
    assert first.startswith("datastore://")


def test_emulator_answers_on_the_same_port_when_it_was_killed(emulator):
    emulator.new_address()
    host = dict(emulator.environ)
    emulator.kill()
    emulator.start()
    assert emulator.environ == host
