"""The table of commands: complete, documented, and imported only when called."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from botapi import settings
from botapi.cli import COMMANDS, main
from botapi.ctl import options
from botapi.ctl.exits import Exit

DOC = Path(__file__).parents[2] / "docs" / "cli.md"
SERVER_HALF = ("botapi.serve:", "botapi.first_start:")


def client_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and verb of the client half, as a person types it."""
    for name, target in COMMANDS.items():
        if target.place.startswith(SERVER_HALF):
            continue
        module, _, attribute = target.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        yield name, command
        if isinstance(command, click.Group):
            for verb in command.commands.values():
                yield f"{name} {verb.name}", verb


CLIENT = list(client_commands())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "bots", "settings"])
def test_client_command_starts_without_the_web_server(name):
    code = (
        "import sys\n"
        "from botapi.cli import main\n"
        f"main([{name!r}, '--help'], standalone_mode=False)\n"
        "heavy = {'flask', 'werkzeug', 'gevent', 'rich', 'sqlite3', 'google.protobuf'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")


@pytest.mark.slow
def test_list_of_commands_imports_none_of_them():
    code = (
        "import sys\n"
        "from botapi.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('loaded:', sorted({'urllib3', 'flask', 'botapi.ctl.run'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_version_names_program_python_and_platform():
    done = CliRunner().invoke(main, ["--version"])
    assert re.fullmatch(r"skep \d+\.\d+\.\d+ \(python \d+\.\d+\.\d+, \S+-\S+\)\n", done.stdout)


@pytest.mark.parametrize(("name", "command"), CLIENT)
def test_every_command_explains_itself(name, command):
    done = CliRunner().invoke(main, [*name.split(), "--help"])
    assert done.exit_code == 0
    assert command.help


@pytest.mark.parametrize("name", [*COMMANDS, *(name for name, _ in CLIENT)])
def test_every_command_is_documented(name):
    assert f"`skep {name}" in DOC.read_text(encoding="utf-8")


def test_every_exit_code_and_format_is_documented():
    text = DOC.read_text(encoding="utf-8")
    assert [code.value for code in Exit if f"| {code.value} |" not in text] == []
    assert [form for form in settings.FORMATS if f"| `{form}` |" not in text] == []


@pytest.mark.parametrize(("name", "command"), CLIENT)
def test_every_option_has_a_help_line_or_shows_its_default(name, command):
    silent = [
        option.name
        for option in command.params
        if isinstance(option, click.Option) and not (option.help or option.show_default)
    ]
    assert silent == []


def own_options(command: click.Command) -> Iterator[click.Option]:
    """Those that are not of every command."""
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in options.NAMES:
            yield option


@pytest.mark.parametrize(("name", "command"), CLIENT)
def test_every_option_is_documented(name, command):
    text = DOC.read_text(encoding="utf-8")
    silent = [
        option.opts
        for option in own_options(command)
        if not any(
            re.search(rf"(?<![\w-]){word}(?![\w-])", text)
            for word in long_ones([*option.opts, *option.secondary_opts])
        )
    ]
    assert silent == []


def long_ones(words: list[str]) -> list[str]:
    """The words with two dashes; all of them where there is none."""
    return [word for word in words if word.startswith("--")] or words


def test_every_common_option_is_documented():
    text = DOC.read_text(encoding="utf-8")
    assert [name for name in options.NAMES if f"`--{name.replace('_', '-')}" not in text] == []


@pytest.mark.parametrize(("name", "command"), CLIENT)
def test_options_of_the_original_with_one_dash_are_documented(name, command):
    text = DOC.read_text(encoding="utf-8")
    words = [word for option in own_options(command) for word in option.opts]
    single = [word for word in words if len(word) > 2 and not word.startswith("--")]
    assert [word for word in single if f"`{word}`" not in text] == []


def test_documented_commands_exist():
    known = {name for name, _command in CLIENT} | set(COMMANDS)
    groups = {name for name, command in CLIENT if isinstance(command, click.Group)}
    rows = re.findall(r"^\| `skep ([a-z-]+)(?: ([a-z-]+))?", DOC.read_text(encoding="utf-8"), re.M)
    named = {f"{first} {second}" if first in groups and second else first for first, second in rows}
    assert named - known == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["init", "serve"])
def test_server_commands_are_where_the_table_says(name):
    command = [sys.executable, "-m", "botapi.cli", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"skep {name}" in done.stdout or f"{name} [OPTIONS]" in done.stdout
    assert "--data-dir" in done.stdout
