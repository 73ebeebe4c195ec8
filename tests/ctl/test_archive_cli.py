"""`skep archive` against a scripted server, and `skep release`, which asks none."""

import stat
from base64 import b64decode
from pathlib import Path

import pytest

from botapi.auth.release_signing import Trust, verify_archive
from botapi.cfg.archive_builder import packaged_bot
from botapi.cfg.bot_archive import unpack
from botapi.domain.manifest import Label
from tests.fakes.signed_zip import MEMBERS, zipped

STATUS = {
    "stable": "ab" * 32,
    "former": None,
    "canary": None,
    "rollout": {"stage": "running", "percent": 5, "bots": {"told": 3, "failed": 0}},
}
RELEASE = {"release_id": "cd" * 32, "label": "unsigned", "used_as": ["stable", "source"]}


def test_upload_sends_the_file_and_prints_the_release(script, skep, tmp_path):
    file = tmp_path / "bot.zip"
    file.write_bytes(zipped(MEMBERS))
    script.reply(201, RELEASE)
    done = skep("archive", "upload", str(file), "--allow-unsigned")
    assert (done.exit_code, done.stdout) == (0, "cd" * 32 + "\n")
    assert "kept, unsigned" in done.stderr
    assert script.calls == ["POST /api/v1/archives?file_name=bot.zip&allow_unsigned=1"]
    assert script.asked[0].headers["Content-Type"] == "application/octet-stream"
    assert script.asked[0].body == file.read_bytes()


def test_list_prints_a_line_for_each_release(script, skep):
    script.reply(200, {"items": [RELEASE]})
    done = skep("archive", "list")
    assert done.stdout.split("\t")[:2] == ["cd" * 32, "unsigned"]
    assert "stable,source" in done.stdout


def test_show_asks_for_one_release(script, skep):
    script.reply(200, {**RELEASE, "members": []})
    assert skep("archive", "show", "cdcd", "--format", "id").stdout == "cd" * 32 + "\n"
    assert script.calls == ["GET /api/v1/archives/cdcd"]


def test_rollout_start_sends_what_was_given_only(script, skep):
    script.reply(200, STATUS).reply(200, STATUS)
    done = skep(
        *("archive", "rollout", "start", "cdcd", "--rings", "5,25", "--soak", "10m"),
        *("--max-failed", "7", "--min-updated", "2", "--reason", "weekly"),
    )
    assert done.exit_code == 0, done.stderr
    assert script.asked[0].body == {
        "release": "cdcd",
        "rings": [5, 25],
        "soak_s": 600,
        "max_failed_percent": 7,
        "min_updated": 2,
        "allow_downgrade": False,
        "reason": "weekly",
    }
    assert "rollout stage\trunning" in done.stdout
    assert "rollout bots\ttold=3 failed=0" in done.stdout
    skep("archive", "rollout", "start", "source")
    assert script.asked[1].body == {"release": "source", "allow_downgrade": False, "reason": ""}


@pytest.mark.parametrize(
    ("words", "call", "body"),
    [
        (["rollout", "status"], "GET /api/v1/rollout", None),
        (["rollout", "halt", "--reason", "x"], "POST /api/v1/rollout/halt", {"reason": "x"}),
        (["rollout", "resume"], "POST /api/v1/rollout/resume", {"reason": ""}),
        (["rollback"], "POST /api/v1/rollout/rollback", {"reason": ""}),
        (
            ["canary", "cdcd", "--percent", "5"],
            "POST /api/v1/rollout/canary",
            {"release": "cdcd", "percent": 5, "reason": ""},
        ),
    ],
)
def test_each_verb_is_one_call(script, skep, words, call, body):
    script.reply(200, STATUS)
    done = skep("archive", *words)
    assert (done.exit_code, script.calls) == (0, [call])
    assert (script.asked[0].body or None) == body


@pytest.mark.parametrize("rings", ["", "a,b", "5;25"])
def test_rings_that_are_no_numbers_are_a_usage_error(script, skep, rings):
    assert skep("archive", "rollout", "start", "cdcd", "--rings", rings).exit_code == 2
    assert script.calls == []


# Releases.


@pytest.fixture
def key(skep, tmp_path):
    done = skep("release", "keygen", str(tmp_path / "key.pem"), "--id", "main")
    assert done.exit_code == 0, done.stderr
    return tmp_path / "key.pem", done.stdout


def public_of(line: str) -> bytes:
    return b64decode(line.partition('public_key: "')[2].partition('"')[0])


def test_release_key_is_private_and_never_overwritten(skep, key):
    file, line = key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert line.startswith('release_key { id: "main" public_key: "')
    assert skep("release", "keygen", str(file)).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("as_zip", [False, True])
def test_release_is_signed_from_a_folder_or_a_zip(skep, key, tmp_path: Path, as_zip):
    file, line = key
    source = packaged_bot()
    if as_zip:
        source = tmp_path / "theirs.zip"
        source.write_bytes(zipped(MEMBERS))
    words = ("release", "sign", str(source), str(tmp_path / "out.zip"), "--id", "main")
    done = skep(*words, "--key", str(file), "--number", "7")
    assert done.exit_code == 0, done.stderr
    first = (tmp_path / "out.zip").read_bytes()
    trust = Trust({"main": public_of(line)}, {})
    found = verify_archive(unpack(first), trust)
    assert (found.manifest.release, found.label) == (7, Label.RELEASE)
    assert done.stdout.startswith("release 7: ")
    skep(*words, "--key", str(file), "--number", "7")
    assert (tmp_path / "out.zip").read_bytes() == first, "reproducible"


def test_release_says_what_is_wrong_with_its_arguments(skep, key, tmp_path):
    file, _ = key
    out = str(tmp_path / "out.zip")
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    empty = tmp_path / "empty.zip"
    empty.write_bytes(zipped({"a.py": b""}))
    for source, key_file, said in (
        (packaged_bot(), bad, "no private key in PEM"),
        (packaged_bot(), tmp_path / "gone", "No such file"),
        (empty, file, "there is no __main__.py in it"),
    ):
        done = skep("release", "sign", str(source), out, "--key", str(key_file), "--number", "1")
        assert (done.exit_code, done.stderr[:7]) == (2, "error: ")
        assert said in done.stderr
        assert not Path(out).exists()
