"""Log files of the bot: rotated, in UTC, and without secrets."""

import logging
import logging.handlers
import os
import sys
import time
from typing import IO

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 5
RAW_BYTES = 5 * 1024 * 1024
RAW_BACKUPS = 9
_MIN_SECRET = 8


class Redaction(logging.Filter):
    """Replaces known secrets in every record: the second line of defence after not logging."""

    def __init__(self) -> None:
        """Start with nothing to hide."""
        super().__init__()
        self._secrets: dict[str, str] = {}

    def hide(self, name: str, secret: str) -> None:
        """From now on this text is shown as ``<name>``."""
        if len(secret) >= _MIN_SECRET:
            self._secrets[name] = secret

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for name, secret in self._secrets.items():
            if secret in text:
                text = text.replace(secret, f"<{name}>")
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; never drops one."""
        record.msg = self.clean(record.getMessage())
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.clean(logging.Formatter().formatException(record.exc_info))
        return True


class _UtcFormatter(logging.Formatter):
    """Times are UTC."""

    default_msec_format = None  # the format string shows them
    converter = time.gmtime  # type: ignore[assignment]  # as the logging documentation says


def set_up(bot_dir: str) -> Redaction:
    """Open ``logs/swarming_bot.log``; errors also go to standard error."""
    folder = os.path.join(bot_dir, "logs")
    os.makedirs(folder, 0o700, exist_ok=True)
    redaction = Redaction()
    path = os.path.join(folder, "swarming_bot.log")
    file = logging.handlers.RotatingFileHandler(
        path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
    )
    file.setFormatter(
        _UtcFormatter("%(process)d %(asctime)s.%(msecs)03d %(levelname).1s: %(message)s")
    )
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.ERROR)
    console.setFormatter(logging.Formatter("skep bot: %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in (file, console):
        handler.addFilter(redaction)
        root.addHandler(handler)
    return redaction


def roll_raw(path: str) -> str:
    """Make room in a file that another process writes to directly; returns the path."""
    if os.path.exists(path) and os.path.getsize(path) > RAW_BYTES:
        for number in range(RAW_BACKUPS - 1, 0, -1):
            if os.path.exists(f"{path}.{number}"):
                os.replace(f"{path}.{number}", f"{path}.{number + 1}")
        os.replace(path, f"{path}.1")
    return path


def open_stack_log(bot_dir: str) -> IO[str]:
    """The file that takes stack dumps; kept open for the life of the process."""
    path = roll_raw(os.path.join(bot_dir, "logs", "stacks.log"))
    return open(path, "a", encoding="utf-8")
