"""The small parts of the bot: archive, slots, manifest, output, environment, health, hooks."""

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_client import archive, frames, health, task_env, update
from bot_client.attributes import Probes, check_dimensions
from bot_client.clock import Clock, Timer
from bot_client.enrolment import Enrolment
from bot_client.errors import Fatal, Refused
from bot_client.hooks import AuthHeaders, Bot, HookFailed, Hooks
from bot_client.logs import Redaction
from bot_client.loop import Loop
from bot_client.manifest import ManifestError, parse
from bot_client.output import HISTORY_BYTES, OutputBuffer
from bot_client.poster import Pings, Poster, resend_from
from bot_client.server_api import ServerApi
from bot_client.slots import SlotState, other_slot
from bot_client.task import last_ditch_s, run_message
from bot_client.transport import Transport
from bot_client.work import Work
from tests.fakes import bot_zip
from tests.fakes.bot_clock import FakeClock


@pytest.mark.parametrize(
    ("members", "digest"),
    [
        (
            {"a.txt": b"hello", "b/c.txt": b""},
            "6e28a96f6904453f7a5f895d9920b53c5fe3f1816f9fe415f309d4363e72545a",
        ),
        (
            {"__main__.py": b"print(1)\n", "config/config.json": b"{}"},
            "557ca9065545b4f8d1df15beb210058b5947a368fe0c0010d87ce9ee30c26d65",
        ),
    ],
)
def test_digest_matches_the_specified_vectors(tmp_path: Path, members: dict, digest: str) -> None:
    bot_zip.write(tmp_path / "a.zip", members, b"comment")
    assert archive.content_digest(str(tmp_path / "a.zip")) == digest


def test_copy_loses_the_comment_and_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "a.zip", tmp_path / "b.zip"
    version = bot_zip.write(source, {"x": b"1"}, b"token")
    assert archive.read_comment(str(source)) == "token"
    archive.copy_without_comment(str(source), str(target))
    assert archive.read_comment(str(target)) == ""
    assert archive.content_digest(str(target)) == version
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{}", b'{"server": "ftp://x"}', b'{"server": "http://x/"}']
)
def test_config_without_a_usable_server_is_fatal(tmp_path: Path, config: bytes) -> None:
    bot_zip.write(tmp_path / "a.zip", {"config/config.json": config})
    with pytest.raises(Fatal) as caught:
        archive.read_config(str(tmp_path / "a.zip"))
    assert caught.value.exit_code == 78


def test_slots_alternate_and_failures_are_counted(tmp_path: Path) -> None:
    assert other_slot("/x/swarming_bot.1.zip") == "swarming_bot.2.zip"
    assert other_slot("/x/swarming_bot.2.zip") == "swarming_bot.1.zip"
    state = SlotState(str(tmp_path))
    for at in (100.0, 200.0, 300.0):
        assert state.wait_s("v", at) == 0
        state.probation = "v"
        state.fail_probation("exit status 9", at)
    state.save()
    again = SlotState(str(tmp_path))
    assert again.wait_s("v", 310.0) == 890
    assert again.wait_s("other", 310.0) == 0
    assert again.wait_s("v", 300 + 901) == 0
    assert len(again.unreported) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "../../etc"}'])
def test_damaged_slot_state_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "slots.json").write_text(text)
    state = SlotState(str(tmp_path))
    assert (state.run, state.probation) == ("", None)


def test_update_waits_grow(tmp_path: Path) -> None:
    clock = FakeClock()
    updater = update.Updater(str(tmp_path / "swarming_bot.1.zip"), None, clock)
    waits = []
    for _ in range(6):
        updater._note_failure("v", "no")
        waits.append(updater.wait_s("v"))
    assert waits == [60, 300, 900, 3600, 3600, 3600]


GOOD = {
    "task_id": "abc1",
    "bot_id": "b",
    "command": ["x"],
    "dimensions": {},
    "bot_dimensions": {"k": ["v", "a"]},
    "hard_timeout": 10,
    "io_timeout": None,
    "grace_period": 1,
}


def test_manifest_of_either_server_is_read() -> None:
    empties = {
        "env": None,
        "caches": [],
        "outputs": None,
        "cipd_input": {},
        "realm": {},
        "host": "h",
    }
    manifest = parse({**GOOD, **empties})
    assert (manifest.io_timeout, manifest.env, manifest.realm) == (0, {}, None)
    assert last_ditch_s(manifest) == 10 + 90 + 1200
    context = run_message(manifest._replace(secret_bytes="eA=="), "http://s")["context"]
    assert context["swarming"] == {
        "task": {"server": "http://s", "task_id": "abc0", "bot_dimensions": ["k:a", "k:v"]},
        "secret_bytes": "eA==",
    }


@pytest.mark.parametrize(
    "key", ["bot_id", "dimensions", "bot_dimensions", "hard_timeout", "grace_period", "io_timeout"]
)
def test_manifest_without_a_needed_key_names_it(key: str) -> None:
    with pytest.raises(ManifestError, match=f"{key} is missing") as caught:
        parse({k: v for k, v in GOOD.items() if k != key})
    assert caught.value.task_id == "abc1"


@pytest.mark.parametrize(
    "change",
    [
        {"command": [1]},
        {"command": ["a\0b"]},
        {"env": {"a=b": "c"}},
        {"env": {"a": 1}},
        {"env_prefixes": {"PATH": "x"}},
        {"hard_timeout": -1},
        {"hard_timeout": True},
        {"hard_timeout": float("nan")},
        {"relative_cwd": 3},
        {"secret_bytes": "?"},
        {"cas_input_root": {"digest": {}}},
    ],
)
def test_manifest_with_a_wrong_value_is_refused(change: dict) -> None:
    with pytest.raises(ManifestError):
        parse({**GOOD, **change})


@pytest.mark.parametrize("raw", [None, [], {}, {"task_id": 3}])
def test_manifest_without_task_id_has_none(raw: object) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(raw)
    assert caught.value.task_id is None


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 50)))
def test_output_survives_any_cutting(pieces: list[bytes], cuts: list[int]) -> None:
    buffer = OutputBuffer("/tmp", memory_bytes=16, spill_bytes=10_000)
    for piece in pieces:
        buffer.append(piece)
    whole = b"".join(pieces)
    assert buffer.pending == len(whole)
    taken = bytearray()
    for cut in [*cuts, *([16] * (len(whole) // 16 + 1))]:
        offset, data = buffer.peek(cut)
        assert offset == len(taken)
        taken += data
        buffer.acknowledge(len(taken))
    buffer.close()
    assert bytes(taken) == whole[: len(taken)]
    assert buffer.pending == len(whole) - len(taken)


def test_output_spills_fills_and_rewinds(tmp_path: Path) -> None:
    buffer = OutputBuffer(str(tmp_path), memory_bytes=10, spill_bytes=20)
    for _ in range(4):
        buffer.append(b"0123456789")
    assert buffer.is_full()
    assert list(tmp_path.iterdir()) == []
    while buffer.pending:
        offset, data = buffer.peek(7)
        buffer.acknowledge(offset + len(data))
    assert not buffer.is_full()
    assert buffer.rewind(3)
    assert buffer.peek(5) == (3, b"34567")
    buffer.append(b"x" * (HISTORY_BYTES + 100))
    while buffer.pending:
        offset, data = buffer.peek(250_000)
        buffer.acknowledge(offset + len(data))
    assert not buffer.rewind(3)
    buffer.close()


def test_gap_answers_move_the_buffer_or_are_raised(tmp_path: Path) -> None:
    buffer = OutputBuffer(str(tmp_path))
    buffer.append(b"0123456789")
    buffer.acknowledge(8)
    resend_from(buffer, Refused("gap", 409, 5))
    assert buffer.peek(99) == (5, b"56789")
    with pytest.raises(Refused):
        resend_from(buffer, Refused("gap", 409, 5))
    with pytest.raises(Refused):
        resend_from(buffer, Refused("other", 409))
    with pytest.raises(Refused):
        resend_from(buffer, Refused("other", 400, 3))


@pytest.mark.spec("13.1.19")
def test_posts_become_due_as_specified(tmp_path: Path) -> None:
    clock = FakeClock()
    buffer = OutputBuffer(str(tmp_path))
    poster = Poster(None, clock, "t", buffer, Pings(bool, 30, 40))
    assert poster.due_at() == 1010
    clock.at = 1003
    buffer.append(b"x")
    poster.note_output()
    assert poster.due_at() == 1003.5
    poster._posted, poster._last_post_at, poster._pending_since = True, 1003.5, None
    assert poster.due_at() == 1013.5
    clock.at = 1004
    poster.note_output()
    assert poster.due_at() == 1007.5
    buffer.append(b"x" * 250_000)
    assert poster.due_at() == 1004
    clock.at = poster._pending_since = 1050
    assert poster.due_at() == 1035


class Edge(FakeClock):
    """Draws the lower or the upper end of an interval."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end

    def uniform(self, low: float, high: float) -> float:
        return (low, high)[self.end]


@pytest.mark.spec("13.1.15")
@pytest.mark.parametrize(("end", "seconds"), [(0, 100), (1, 140)])
def test_bot_that_leases_polls_every_100_to_140_seconds(end: int, seconds: float) -> None:
    loop = Loop.__new__(Loop)
    loop._clock = Edge(end)
    loop._poll_timer = Timer(loop._clock)
    loop._p = SimpleNamespace(api=SimpleNamespace(poll_s=120.0))
    loop._pace_polls()
    assert loop._poll_timer.remaining() == pytest.approx(seconds)


@pytest.mark.spec("13.1.17")
@pytest.mark.parametrize(
    ("lease", "end", "seconds"), [("l", 0, 10), ("l", 1, 15), (None, 0, 60), (None, 1, 90)]
)
def test_running_task_pings_sooner_with_a_lease(
    tmp_path: Path, lease: object, end: int, seconds: float
) -> None:
    work = Work.__new__(Work)
    session = SimpleNamespace(session_id="s", ping=bool, keep=bool)
    work._p = SimpleNamespace(lease=session)
    clock = Edge(end)
    poster = Poster(None, clock, "t", OutputBuffer(str(tmp_path)), work._pings(lease))
    assert poster._ping_at == clock.now() + seconds


@given(
    st.lists(st.tuples(st.sampled_from([b"R", b"O"]), st.binary(max_size=300))), st.integers(1, 50)
)
def test_frames_survive_any_cutting(messages: list, size: int) -> None:
    stream = b"".join(frames.pack(*message) for message in messages)
    reader = frames.FrameReader()
    got = []
    for start in range(0, len(stream), size):
        got += reader.feed(stream[start : start + size])
    assert got == messages


@pytest.fixture
def folders(tmp_path: Path) -> task_env.Folders:
    made = task_env.folders_below(str(tmp_path / "w"))
    task_env.make_folders(made)
    return made


def spec(**changes: object) -> dict:
    base = {
        "task_id": "t1",
        "bot_id": "b",
        "server": "http://s",
        "env": {},
        "env_prefixes": {},
        "architecture": "amd64",
        "hard_timeout": 5,
        "grace_period": 1,
        "context": {"swarming": {}},
    }
    return {**base, **changes}


def test_environment_has_the_tasks_own_and_no_secret_of_the_bot(folders: task_env.Folders) -> None:
    base = {
        "PATH": "/bin",
        "SKEP_BOOTSTRAP_TOKEN": "s",
        "SWARMING_TOKEN": "s",
        "SWARMING_BOT_SECRET": "s",
        "LUCI_MACHINE_TOKEN": "s",
        "HTTP_PROXY": "http://u:s@p",
        "https_proxy": "http://p",
        "GONE": "x",
    }
    env = {"GONE": "", "ID": "${SWARMING_TASK_ID}", "OUT": "${ISOLATED_OUTDIR}/a"}
    built = task_env.build_environment(
        base, spec(env=env, env_prefixes={"PATH": ["a", "b"], "NEW": ["c"]}), folders
    )
    assert built == {
        "PATH": f"{folders.run}/a:{folders.run}/b:/bin",
        "NEW": f"{folders.run}/c",
        "https_proxy": "http://p",
        "PYTHONUNBUFFERED": "1",
        "SWARMING_BOT_ID": "b",
        "SWARMING_TASK_ID": "t1",
        "SWARMING_SERVER": "http://s",
        "SWARMING_HEADLESS": "1",
        "LUCI_CONTEXT": folders.context_file,
        "CIPD_ARCHITECTURE": "amd64",
        "ID": "t1",
        "OUT": f"{folders.out}/a",
        "TMPDIR": folders.tmp,
    }


@pytest.mark.parametrize("path", ["..", "a/../../b", "/etc"])
def test_working_folder_outside_is_the_tasks_failure(folders: task_env.Folders, path: str) -> None:
    with pytest.raises(task_env.TaskFailure, match="leaves the run folder"):
        task_env.working_folder(path, folders)


def test_first_word_is_looked_up_in_the_folder_and_then_in_the_tasks_path(
    folders: task_env.Folders, tmp_path: Path
) -> None:
    cwd = task_env.working_folder("a/b", folders)
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("")
    tool.chmod(0o755)
    env = {"PATH": str(tool.parent)}
    assert task_env.resolve_command(["tool", "x"], env, cwd) == [str(tool), "x"]
    assert task_env.resolve_command(["./t"], env, cwd) == [f"{cwd}/t"]
    assert task_env.resolve_command(["absent"], env, cwd) == [f"{cwd}/absent"]
    with pytest.raises(task_env.TaskFailure, match="empty"):
        task_env.resolve_command([], env, cwd)


def test_context_file_is_private_and_complete(folders: task_env.Folders) -> None:
    task_env.write_context(spec(), folders, 100.0)
    path = Path(folders.context_file)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {
        "swarming": {},
        "deadline": {"soft_deadline": 105.0, "grace_period": 1},
    }


def test_tree_without_permissions_is_removed(tmp_path: Path) -> None:
    inner = tmp_path / "t" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "f").write_text("x")
    (tmp_path / "t" / "link").symlink_to("/etc")
    for path in (inner, inner.parent, tmp_path / "t"):
        path.chmod(0)
    assert task_env.remove_tree(str(tmp_path / "t")) == []
    assert not (tmp_path / "t").exists()


@pytest.mark.spec("6.6.p1")
@pytest.mark.parametrize(("size_gib", "needed_gib"), [(5, 0.5), (100, 6), (12, 1), (1, 0.1)])
def test_least_free_space_follows_the_formula(size_gib: float, needed_gib: float) -> None:
    rule = health.DEFAULT_SETTINGS["free_partition"]["root"]
    assert health.least_free(size_gib * health.GIB, rule) == needed_gib * health.GIB


def test_settings_are_merged_and_typos_named() -> None:
    merged, unknown = health.merge_settings(
        {"free_partition": {"bot": {"size": 1, "sizes": 2}, "root": {"size": "x"}}, "no": 1}
    )
    assert merged["free_partition"]["bot"]["size"] == 1
    assert unknown == ["free_partition.bot.sizes", "free_partition.root.size", "no"]


def test_disk_temp_and_clock_problems_have_texts(tmp_path: Path) -> None:
    huge, _ = health.merge_settings({"free_partition": {"root": {"size": 1e18, "max_percent": 0}}})
    assert "MiB" in health.disk_problem(str(tmp_path), huge).text
    assert health.temp_problem(1024) is None
    assert "1024" in health.temp_problem(1025).text
    assert health.temp_problem(None) is not None
    assert health.clock_problem(-299) is None
    assert "301" in health.clock_problem(301).text


def test_home_directory_is_recognised_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / health.MARKER_NAME).write_text("")
    (tmp_path / "letter").write_text("x")
    assert health.is_home(str(tmp_path))
    health.tidy_bot_directory(str(tmp_path), Clock())
    assert (tmp_path / "letter").exists()


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {"k": "v"},
        {"k": [1]},
        {"k": [""]},
        {"k": [" v"]},
        {"k": ["a", "a"]},
        {"1k": ["v"]},
        {"k" * 65: ["v"]},
        {"k": ["v" * 257]},
        {"id": ["other"]},
    ],
)
def test_bad_dimensions_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"not an|bad|repeated|must stay"):
        check_dimensions(bad, "bot1")


def test_probes_are_cached_by_cost_and_survive_failures(tmp_path: Path) -> None:
    clock = FakeClock()
    probes = Probes(str(tmp_path), "bot1", clock)
    first = probes.dimensions()
    assert set(first) >= {"id", "os", "cpu", "cores", "python", "kernel", "gpu", "inside_docker"}
    assert check_dimensions(first, "bot1")["id"] == ["bot1"]
    asked = []
    values = [probes.cached("x", 5.0, lambda: asked.append(1) or len(asked)) for _ in range(3)]
    clock.at += 6
    values.append(probes.cached("x", 5.0, lambda: asked.append(1) or len(asked)))
    clock.at += 6
    values.append(probes.cached("x", 5.0, lambda: 1 // 0))
    assert values == [1, 1, 1, 2, 2]
    assert probes.state()["probe_errors"] == ["x"]


def make_hooks(archived: str | None = None, injected: str | None = None) -> tuple[Hooks, list[str]]:
    errors: list[str] = []
    hooks = Hooks(FakeClock(), errors.append)
    hooks.load_archived(archived)
    hooks.inject(injected)
    return hooks, errors


def test_hooks_of_two_modules_follow_the_order_rules() -> None:
    source = "def get_x(l): l.append('{0}'); return '{0}'\n"
    source += "def on_x(l): l.append('on {0}'); return '{0}'\n"
    hooks, _ = make_hooks(source.format("a"), source.format("i"))
    log: list[str] = []
    assert (hooks.call("get_x", log), hooks.call("on_x", log), log) == (
        "i",
        "i",
        ["i", "on a", "on i"],
    )
    assert hooks.call("absent") is None


def test_hook_that_raises_is_reported_and_survived() -> None:
    hooks, errors = make_hooks("def on_x(): raise SystemError('boom')\n")
    assert hooks.call("on_x") is None
    assert errors[0].startswith("Failed to call hook on_x(): SystemError('boom')")
    with pytest.raises(HookFailed):
        make_hooks("def x(:")


@pytest.mark.spec("13.1.57")
def test_authentication_headers_are_cached_until_they_run_out() -> None:
    clock = FakeClock()
    source = "n = []\ndef get_authentication_headers(bot):\n"
    source += "    n.append(1)\n    return ({'Authorization': str(len(n))}, bot.expiry)\n"
    hooks, _ = make_hooks(source)
    bot = Bot("b", "/", "s", "v")
    headers = AuthHeaders(hooks, bot, clock)
    bot.expiry = clock.wall() + 1000
    assert [headers(False)["Authorization"] for _ in range(2)] == ["1", "1"]
    assert headers(True)["Authorization"] == "2"
    clock.at += 430
    assert headers(False)["Authorization"] == "2"
    clock.at += 0.001
    assert headers(False)["Authorization"] == "3"
    bot.expiry = None
    assert [headers(False)["Authorization"] for _ in range(2)] == ["4", "4"]


def test_pseudo_random_number_is_constant_for_an_id() -> None:
    bot = Bot("b", "/", "s", "v")
    assert bot.get_pseudo_rand(5.0) == bot.get_pseudo_rand(5.0)
    assert -5 <= bot.get_pseudo_rand(5.0) <= 5


def test_redaction_hides_known_secrets_in_text_and_traces() -> None:
    import logging

    redaction = Redaction()
    redaction.hide("token", "VERY-SECRET")
    record = logging.LogRecord("x", 20, "f", 1, "got %s", ("VERY-SECRET",), None)
    assert redaction.filter(record)
    assert record.getMessage() == "got <token>"


@pytest.mark.parametrize("kept", ["", "{}", '{"server": "other", "host_id": "h", "secret": "s"}'])
def test_secret_of_another_server_is_not_used(tmp_path: Path, kept: str) -> None:
    (tmp_path / "enrolled.json").write_text(kept)
    assert Enrolment(str(tmp_path), "http://s", "h--1").secret is None


class LostAnswer(Exception):
    pass


class ApiThatLosesAnswers:
    bot_id = "h--1"

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.asked: list[tuple[str, str]] = []

    def enroll(self, token: str, secret: str) -> str:
        self.asked.append((token, secret))
        if len(self.asked) <= self.lost:
            raise LostAnswer
        return secret


def test_enrolment_asks_for_the_same_secret_again_when_the_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEP_BOOTSTRAP_TOKEN", "token-1")
    api = ApiThatLosesAnswers(lost=1)
    first = Enrolment(str(tmp_path), "http://s", "h--1")
    with pytest.raises(LostAnswer):
        first.enrol(api)  # type: ignore[arg-type] # the part that is used
    after_a_kill = Enrolment(str(tmp_path), "http://s", "h--1")
    assert after_a_kill.needs_enrolling()
    after_a_kill.enrol(api)  # type: ignore[arg-type] # the part that is used
    assert api.asked[0] == api.asked[1]
    assert Enrolment(str(tmp_path), "http://s", "h--1").secret == api.asked[0][1]


def test_bot_never_imports_what_is_not_in_the_standard_library() -> None:
    import ast
    import sys

    allowed = {*sys.stdlib_module_names, "bot_client"}
    for path in bot_zip.SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= allowed, (path, names)
    assert os.path.exists(bot_zip.SOURCE / "__init__.py")


@pytest.mark.slow
def test_archive_that_hangs_in_its_self_test_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "SELF_TEST_S", 0.3)
    bot_zip.write(tmp_path / "x.zip", {"__main__.py": b"import time; time.sleep(1000)\n"})
    api = ServerApi(Transport("http://127.0.0.1:1"), FakeClock(), "bot1", "x")
    updater = update.Updater(str(tmp_path / "swarming_bot.1.zip"), api, FakeClock())
    with pytest.raises(update.UpdateFailed, match="no answer from its self-test"):
        updater._test(str(tmp_path / "x.zip"))
