"""Builds the supervisor's parts, in the order of start-up, and runs the loop."""

import importlib
import logging
import os
import platform
import socket
import sys
import traceback
from typing import Optional

from bot_client import __version__, archive, health, logs, processes, starter
from bot_client.attributes import Probes, bot_id_from_environment
from bot_client.clock import Clock
from bot_client.describe import Description
from bot_client.enrolment import Enrolment
from bot_client.errors import EXIT_CRASH, BotError, Fatal
from bot_client.hooks import AuthHeaders, Bot, HookFailed, Hooks
from bot_client.lease import LeaseSession
from bot_client.loop import Loop
from bot_client.parts import Parts, Reporter
from bot_client.runner_link import RunnerLink
from bot_client.server_api import ServerApi
from bot_client.signals import Signals, dump_stacks_on_usr1
from bot_client.storage import Storage
from bot_client.task import architecture
from bot_client.transport import ONCE, Transport
from bot_client.update import Updater

log = logging.getLogger("bot")


def main(_arguments: list[str]) -> int:
    """Run the loop in this process; the starter gave us the lock and a leash."""
    clock = Clock()
    signals = Signals(clock)
    signals.install()
    running = archive.require_running_archive()
    bot_dir = os.path.dirname(running)
    os.chdir(bot_dir)
    redaction = logs.set_up(bot_dir)
    try:
        return _run(running, clock, signals, redaction)
    except Fatal as failure:
        log.error("%s", failure)  # noqa: TRY400 - the line is for a person
        return failure.exit_code
    except Exception:
        log.exception("the bot ends because of an error nobody expected")
        return EXIT_CRASH


def _run(running: str, clock: Clock, signals: Signals, redaction: logs.Redaction) -> int:
    bot_dir = os.path.dirname(running)
    dump_stacks_on_usr1(logs.open_stack_log(bot_dir))
    config = archive.read_config(running)
    bot_id = bot_id_from_environment()
    version = archive.content_digest(running)
    log.info("bot %s, version %s, Python %s", bot_id, version, platform.python_version())
    reports = _adopt_starter(signals)
    os.environ["SWARMING_BOT_ID"] = bot_id
    for name in ("SWARMING_SERVER", "SWARMING_TASK_ID", "LUCI_CONTEXT"):
        os.environ.pop(name, None)
    transport = Transport(config["server"], allow_public_http=bool(config.get("allow_http")))
    host = socket.gethostname()
    api = ServerApi(transport, clock, bot_id, f"swarming_bot/{__version__}@{host}")
    api.on_token = lambda token: redaction.hide("session", token)
    processes.become_subreaper()
    storage = Storage(bot_dir, clock)
    storage.load()
    health_text = _care_for_directory(bot_dir, clock)
    loop = _build(running, version, clock, signals, api, redaction, storage)
    if health_text is not None:
        loop.quarantine("home", health_text)
    try:
        api.ping(ONCE)
    except BotError as failure:
        log.warning("%s", failure)
    return loop.run([*reports, *loop.earlier_failures()])


def _adopt_starter(signals: Signals) -> list[str]:
    """Hold the leash the starter gave; returns what it says of the process before this one."""
    leash = os.environ.pop(starter.LEASH_VARIABLE, "")
    lock = os.environ.pop(starter.LOCK_VARIABLE, "")
    last_exit = os.environ.pop(starter.LAST_EXIT_VARIABLE, "")
    for text in (leash, lock):
        if text.isdigit():
            os.set_inheritable(int(text), False)  # noqa: FBT003 - the call is positional
    if leash.isdigit():
        signals.watch_leash(int(leash))
    return [f"the previous bot process ended unexpectedly: {last_exit}"] if last_exit else []


def _care_for_directory(bot_dir: str, clock: Clock) -> Optional[str]:
    if health.is_home(bot_dir):
        return health.HOME_TEXT
    health.tidy_bot_directory(bot_dir, clock)
    return None


def _build(
    running: str,
    version: str,
    clock: Clock,
    signals: Signals,
    api: ServerApi,
    redaction: logs.Redaction,
    storage: Storage,
) -> Loop:
    bot_dir = os.path.dirname(running)
    server = api.transport.base_url
    enrolment = Enrolment(bot_dir, server, api.bot_id)
    for name, secret in (("secret", enrolment.secret), ("token", enrolment.token)):
        redaction.hide(name, secret or "")
    os.environ.pop("SKEP_BOOTSTRAP_TOKEN", None)
    api.secret = enrolment.secret
    bot = Bot(api.bot_id, bot_dir, server, version)
    bot.session_id = f"{clock.new_id().replace('-', '')}/{os.getpid()}"
    bot.swarming_bot_zip = running
    reporters: list[Reporter] = []

    def report(text: str) -> None:
        for reporter in reporters:
            reporter.error(text)
        if not reporters:
            log.error("%s", text)

    hooks = Hooks(clock, report)
    description = Description(bot, hooks, Probes(bot_dir, api.bot_id, clock, storage))
    source = archive.read_member(running, archive.HOOKS_MEMBER)
    try:
        hooks.load_archived(None if source is None else source.decode())
    except (HookFailed, UnicodeDecodeError) as failure:
        description.quarantine("hooks", f"invalid bot_config.py: {failure}")
    if hooks.has("get_authentication_headers"):
        api.auth_headers = AuthHeaders(hooks, bot, clock)
    command = [*archive.interpreter_command(), running]
    log_path = logs.roll_raw(os.path.join(bot_dir, "logs", "runner.log"))
    link = RunnerLink(command, bot_dir, log_path, clock)
    lease = LeaseSession(api, f"{sys.platform}_{architecture()}_swarming/{version}")
    updater = Updater(running, api, clock)
    loop = Loop(
        Parts(
            clock, signals, api, bot, hooks, description, enrolment, updater, link, lease, storage
        )
    )
    reporters.append(loop.reporter)
    bot.send = loop.reporter.event
    if os.environ.get("SWARMING_EXTERNAL_BOT_SETUP") != "1":
        hooks.call("setup_bot", bot)
    return loop


def self_test(_arguments: list[str]) -> int:
    """``is_fine``: everything imports, the hooks load, the server answers."""
    running = archive.require_running_archive()
    clock = Clock()
    try:
        for module in archive.own_modules(running):
            importlib.import_module(module)
        source = archive.read_member(running, archive.HOOKS_MEMBER)
        if source is not None:
            Hooks(clock, lambda _text: None).load_archived(source.decode())
        config = archive.read_config(running)
        transport = Transport(config["server"], allow_public_http=bool(config.get("allow_http")))
        ServerApi(transport, clock, bot_id_from_environment(), "swarming_bot/is_fine").ping(ONCE)
    except Exception:  # noqa: BLE001 - any failure means the same: not fine
        sys.stderr.write(traceback.format_exc())
        return EXIT_CRASH
    return 0
