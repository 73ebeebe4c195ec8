"""The subcommands.  Modules are imported late: a broken one hurts one command only."""

import importlib
import json
import os
import sys
from typing import Any

from bot_client import archive
from bot_client.errors import EXIT_CRASH, EXIT_OK, EXIT_USAGE, Fatal

_START = ("start", "start_bot", "start_slave", "setup_and_start")
_MODULES = {
    "runner": ("bot_client.runner", "main"),
    "is_fine": ("bot_client.supervisor", "self_test"),
    "attributes": ("bot_client.inspect_host", "attributes"),
    "setup": ("bot_client.inspect_host", "setup"),
    "doctor": ("bot_client.inspect_host", "doctor"),
    "run_manifest": ("bot_client.inspect_host", "run_manifest"),
}
_OWN = ("config", "server", "version")
_USAGE = f"""usage: python3 swarming_bot.zip [COMMAND]

  start         run the bot in the foreground (default); also: {", ".join(_START[1:])}
  setup         run the setup_bot hook only
  is_fine       test this archive; exit 0 means usable
  attributes    print dimensions, state and version
  config        print config.json
  server        print the server's URL
  version       print the archive's digest
  doctor        check this host and say what is wrong
  run_manifest  FILE: run one manifest without a server
"""


def main(arguments: list[str]) -> int:
    """Dispatch; returns the exit code."""
    verb = arguments[0] if arguments and not arguments[0].startswith("-") else "start"
    rest = arguments[1:] if arguments and verb == arguments[0] else arguments
    if arguments and arguments[0] in {"-h", "--help"}:
        sys.stdout.write(_USAGE)
        return EXIT_OK
    try:
        if verb in _START:
            return _start(rest)
        if verb in _OWN:
            return _print_own(verb)
        if verb in _MODULES:
            return _call(*_MODULES[verb], rest)
    except Fatal as failure:
        sys.stderr.write(f"skep bot: {failure}\n")
        return failure.exit_code
    except ImportError as failure:
        _explain_import_error(failure)
        return EXIT_CRASH
    sys.stderr.write(f"skep bot: unknown command {verb!r}\n\n{_USAGE}")
    return EXIT_USAGE


def _start(arguments: list[str]) -> int:
    if [word for word in arguments if word != "--survive"]:
        sys.stderr.write(f"skep bot: unknown arguments {arguments}\n")
        return EXIT_USAGE
    supervised = "SKEP_LEASH_FD" in os.environ
    return _call("bot_client.supervisor" if supervised else "bot_client.starter", "main", [])


def _call(module: str, function: str, arguments: list[str]) -> int:
    target: Any = getattr(importlib.import_module(module), function)
    return int(target(arguments))


def _print_own(verb: str) -> int:
    path = archive.require_running_archive()
    if verb == "version":
        sys.stdout.write(f"{archive.content_digest(path)}\n")
        return EXIT_OK
    config = archive.read_config(path)
    text = config["server"] if verb == "server" else json.dumps(config, indent=2)
    sys.stdout.write(f"{text}\n")
    return EXIT_OK


def _explain_import_error(failure: ImportError) -> None:
    import zipfile  # noqa: PLC0415 - only for the message

    sys.stderr.write(f"skep bot: this archive cannot be imported: {failure}\n")
    path = archive.running_archive()
    if path is not None:
        with zipfile.ZipFile(path) as bundle:
            sys.stderr.write("".join(f"  {name}\n" for name in bundle.namelist()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
