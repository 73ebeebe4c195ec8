"""What a task's command sees: folders, environment, argv, context file.

Runs in the runner.  Everything here is a function of the run message and the folders.
"""

import base64
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

Json = dict[str, Any]

MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own in it, mode 0700

_SECRET_NAMES = ("LUCI_MACHINE_TOKEN", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY")


class TaskFailure(Exception):
    """The command cannot be started, and that is the task's own fault; the text goes to it."""


class Folders(NamedTuple):
    """The folders of one task, all below the work folder; absolute paths."""

    work: str
    run: str
    out: str
    tmp: str
    context_file: str
    bot_file: str
    secrets: str


def folders_below(work: str) -> Folders:
    """Short names, for the systems that limit path lengths."""
    join = os.path.join
    return Folders(
        work=work,
        run=join(work, "ir"),
        out=join(work, "io"),
        tmp=join(work, "it"),
        context_file=join(work, "luci_context.json"),
        bot_file=join(work, "bot_file.json"),
        secrets=_secrets_folder(work),
    )


def _secrets_folder(work: str) -> str:
    """In memory where the system has a place for that, named after the bot's folder."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return os.path.join(work, "is")
    digest = hashlib.sha256(os.path.dirname(work).encode()).hexdigest()[:16]
    return os.path.join(MEMORY, f"skep-{os.getuid()}-{digest}")


def write_secrets(secrets: Mapping[str, str], folders: Folders) -> dict[str, str]:
    """Each value in a file of its own, mode 0400; the variables that name the files.

    What an earlier task left behind, because the machine stopped, is removed first.
    """
    remove_tree(folders.secrets)
    if not secrets:
        return {}
    os.mkdir(folders.secrets, 0o700)
    env = {"SKEP_SECRETS_DIR": folders.secrets}
    for name, value in secrets.items():
        path = os.path.join(folders.secrets, name)
        _write_private(path, base64.b64decode(value), 0o400)
        env[f"{name}_FILE"] = path
    return env


def make_folders(folders: Folders) -> None:
    """Make the empty folders, mode 0700, and what is the same for each task.

    OSError when the old ones are still there.
    """
    for path in (folders.work, folders.run, folders.out, folders.tmp):
        os.mkdir(path, 0o700)
    _write_private(folders.bot_file, b"{}")


def remove_folders(folders: Folders) -> list[str]:
    """Delete a task's folders, fast when it left nothing; returns what could not be deleted."""
    left = remove_tree(folders.secrets)
    try:
        os.unlink(folders.context_file)
        os.unlink(folders.bot_file)
        for path in (folders.tmp, folders.out, folders.run, folders.work):
            os.rmdir(path)
    except OSError:
        return [*left, *remove_tree(folders.work)]
    return left


def remove_tree(path: str) -> list[str]:
    """Delete a folder, repairing modes on the way; returns what could not be deleted."""
    if not os.path.lexists(path):
        return []
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return []
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return []
    for folder, names, _files in os.walk(path):
        for name in ["", *names]:
            _make_writable(os.path.join(folder, name))
    failed: list[str] = []
    shutil.rmtree(path, onerror=lambda _function, name, _info: failed.append(str(name)))
    return failed


def _make_writable(path: str) -> None:
    if not os.path.islink(path):
        try:
            os.chmod(path, 0o700)
        except OSError:
            return


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The bot's environment without what belongs to the bot: its own settings and secrets."""
    return {name: value for name, value in env.items() if not _is_the_bots(name, value)}


def _is_the_bots(name: str, value: str) -> bool:
    upper = name.upper()
    if upper.startswith("SKEP_") or upper in _SECRET_NAMES:
        return True
    if upper.startswith(("SWARMING_", "LUCI_")) and any(word in upper for word in _SECRET_WORDS):
        return True
    return upper in _PROXIES and "@" in value


def build_environment(base: Mapping[str, str], spec: Json, folders: Folders) -> dict[str, str]:
    """The command's environment, in the order of the specification: env, prefixes, folders."""
    env = clean_environment(base)
    env.setdefault("PYTHONUNBUFFERED", "1")
    env.update(
        SWARMING_BOT_ID=spec["bot_id"],
        SWARMING_TASK_ID=spec["task_id"],
        SWARMING_SERVER=spec["server"],
        SWARMING_HEADLESS="1",
        LUCI_CONTEXT=folders.context_file,
        CIPD_ARCHITECTURE=spec.get("architecture", ""),
    )
    for name, value in spec["env"].items():
        if value:
            env[name] = substitute(value, spec["task_id"], folders)
        else:
            env.pop(name, None)
    for name, below in spec["env_prefixes"].items():
        paths = [os.path.normpath(os.path.join(folders.run, path)) for path in below]
        env[name] = os.pathsep.join([*paths, *([env[name]] if env.get(name) else [])])
    env["TMPDIR"] = folders.tmp
    if sys.platform == "win32":
        env["TMP"] = env["TEMP"] = folders.tmp
    return env


def substitute(text: str, task_id: str, folders: Folders) -> str:
    """Replace the placeholders of the specification."""
    suffix = ".exe" if sys.platform == "win32" else ""
    text = text.replace("${SWARMING_TASK_ID}", task_id).replace("${EXECUTABLE_SUFFIX}", suffix)
    for name, path in (
        ("${ISOLATED_OUTDIR}", folders.out),
        ("${SWARMING_BOT_FILE}", folders.bot_file),
    ):
        if name in text:
            text = text.replace(name, path).replace("/", os.sep)
    return text


def working_folder(relative_cwd: str, folders: Folders) -> str:
    """The command's working folder, made if missing; TaskFailure when it is outside."""
    path = os.path.normpath(os.path.join(folders.run, relative_cwd))
    if path != folders.run and not path.startswith(folders.run + os.sep):
        raise TaskFailure(f"relative_cwd leaves the run folder: {relative_cwd}")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as failure:
        raise TaskFailure(f"relative_cwd cannot be made: {failure}") from failure
    return path


def resolve_command(command: list[str], env: Mapping[str, str], cwd: str) -> list[str]:
    """argv with an absolute first word: the working folder first, then the task's own PATH."""
    if not command or not command[0]:
        raise TaskFailure("the command is empty")
    first = command[0].replace("/", os.sep)
    found: Optional[str] = os.path.join(cwd, first)
    if os.sep not in first and not _is_runnable(found or ""):
        found = shutil.which(first, path=env.get("PATH", os.defpath))
    return [os.path.abspath(found or os.path.join(cwd, first)), *command[1:]]


def _is_runnable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def write_context(spec: Json, folders: Folders, started_wall: float) -> None:
    """The LUCI context file, mode 0600."""
    context = dict(spec["context"])
    soft = {"soft_deadline": started_wall + spec["hard_timeout"]} if spec["hard_timeout"] else {}
    context["deadline"] = {**soft, "grace_period": spec["grace_period"]}
    _write_private(folders.context_file, json.dumps(context).encode())


def _write_private(path: str, data: bytes, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
