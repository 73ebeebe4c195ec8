"""A short run of each fuzz target; `make fuzz` runs them for longer."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
SECONDS = int(os.environ.get("SKEP_TEST_FUZZ_S", "10"))


@pytest.mark.control("tokens.fuzz")
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", ["tokens", "bodies", "config"])
def test_fuzzing_breaks_no_promise_within_its_time(target, tmp_path):
    options = [f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert "Done " in ran.stdout


def test_fuzzing_finds_a_broken_promise(tmp_path):
    """A target that is given an input which breaks its promise ends badly."""
    program = (
        "import sys, atheris\n"
        "def run(data):\n    assert data[:2] != b'no', 'broken'\n"
        "atheris.Setup([sys.argv[0], *sys.argv[1:]], run)\natheris.Fuzz()\n"
    )
    broken = tmp_path / "input"
    broken.write_bytes(b"no")
    ran = subprocess.run(
        [sys.executable, "-c", program, str(broken)], capture_output=True, check=False
    )
    assert ran.returncode != 0
    assert b"broken" in ran.stderr
