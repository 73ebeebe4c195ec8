"""Commands for a person at the host: attributes, setup, doctor, run_manifest."""

import json
import os
import select
import sys
import tempfile

from bot_client import archive, frames, health
from bot_client.attributes import Probes, bot_id_from_environment, health_problems
from bot_client.clock import Clock
from bot_client.describe import Description
from bot_client.errors import EXIT_CRASH, EXIT_OK, EXIT_USAGE, BotError
from bot_client.hooks import Bot, HookFailed, Hooks
from bot_client.manifest import ManifestError, parse
from bot_client.runner_link import RunnerLink
from bot_client.server_api import ServerApi
from bot_client.singleton import LOCK_NAME
from bot_client.task import run_message
from bot_client.transport import ONCE, Transport


def attributes(_arguments: list[str]) -> int:
    """Print what a handshake would send, without the server."""
    running = archive.require_running_archive()
    clock = Clock()
    bot_dir = os.path.dirname(running)
    server = archive.read_config(running)["server"]
    bot = Bot(bot_id_from_environment(), bot_dir, server, archive.content_digest(running))
    hooks = _load_hooks(running, clock)
    description = Description(bot, hooks, Probes(bot_dir, bot.id, clock))
    sys.stdout.write(json.dumps(description.refresh()._asdict(), indent=2, sort_keys=True) + "\n")
    return EXIT_OK


def setup(_arguments: list[str]) -> int:
    """Run the ``setup_bot`` hook only."""
    running = archive.require_running_archive()
    server = archive.read_config(running)["server"]
    bot = Bot(bot_id_from_environment(), os.path.dirname(running), server, "")
    try:
        _load_hooks(running, Clock()).call_strictly("setup_bot", bot)
    except HookFailed as failure:
        sys.stderr.write(f"{failure}\n")
        return EXIT_CRASH
    return EXIT_OK


def _load_hooks(running: str, clock: Clock) -> Hooks:
    hooks = Hooks(clock, print_error)
    source = archive.read_member(running, archive.HOOKS_MEMBER)
    hooks.load_archived(None if source is None else source.decode())
    return hooks


def print_error(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{text}\n")


def doctor(_arguments: list[str]) -> int:
    """Check this host; one line a check, exit 1 when one failed."""
    running = archive.require_running_archive()
    bot_dir = os.path.dirname(running)
    clock = Clock()
    problems = [f"{p.code}: {p.text}" for p in _host_problems(bot_dir, clock)]
    server = archive.read_config(running)["server"]
    transport = Transport(server)
    try:
        ServerApi(transport, clock, bot_id_from_environment(), "swarming_bot/doctor").ping(ONCE)
    except BotError as failure:
        problems.append(f"server: {failure}")
    date = transport.server_date()
    if date is not None:
        skew = health.clock_problem(clock.wall() - date)
        problems += [skew.text] if skew else []
    lines = [f"server {server}", f"directory {bot_dir}", f"python {sys.version.split()[0]}"]
    lines += [f"PROBLEM {problem}" for problem in problems]
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_CRASH if problems else EXIT_OK


def _host_problems(bot_dir: str, clock: Clock) -> list[health.Problem]:
    settings, _ = health.merge_settings({})
    problems = health_problems(Probes(bot_dir, "doctor", clock), settings)
    if health.is_home(bot_dir):
        problems.append(health.Problem("home", health.HOME_TEXT))
    if not os.access(bot_dir, os.W_OK):
        problems.append(health.Problem("write", f"{bot_dir} cannot be written to"))
    if os.path.exists(os.path.join(bot_dir, LOCK_NAME)):
        with open(os.path.join(bot_dir, LOCK_NAME), encoding="ascii", errors="replace") as file:
            print_error(f"note: last lock holder was pid {file.read().strip()}")
    return problems


def run_manifest(arguments: list[str]) -> int:
    """``run_manifest FILE``: output to standard output, the exit code is the command's."""
    if len(arguments) != 1:
        sys.stderr.write("usage: run_manifest FILE\n")
        return EXIT_USAGE
    try:
        with open(arguments[0], encoding="utf-8") as file:
            manifest = parse(json.load(file))
    except (OSError, ValueError) as failure:
        text = str(failure) if isinstance(failure, ManifestError) else repr(failure)
        sys.stderr.write(f"{arguments[0]}: {text}\n")
        return EXIT_USAGE
    if manifest.input_root is not None or manifest.caches or manifest.outputs:
        sys.stderr.write(f"{arguments[0]}: inputs, caches and outputs need a server\n")
        return EXIT_USAGE
    running = archive.require_running_archive()
    with tempfile.TemporaryDirectory() as folder:
        command = [*archive.interpreter_command(), running]
        link = RunnerLink(command, folder, os.path.join(folder, "runner.log"), Clock())
        link.ensure()
        link.run(run_message(manifest, "http://localhost"))
        code = _relay(link)
        link.dismiss()
    return code


def _relay(link: RunnerLink) -> int:
    while True:
        select.select([link.fileno()], [], [])
        for kind, payload in link.read():
            if kind == frames.OUTPUT:
                sys.stdout.buffer.write(payload)
                sys.stdout.buffer.flush()
            elif kind == frames.DONE:
                report = json.loads(payload)
                sys.stderr.write(f"{json.dumps(report)}\n")
                return abs(int(report.get("exit_code", EXIT_CRASH)))
