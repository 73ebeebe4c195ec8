"""Site code behind one wall: what a hook does wrong is reported, and the bot goes on.

Two modules may define hooks: ``config/bot_config.py`` in the archive, and one that the server
sends at handshake.
"""

import hashlib
import logging
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, Optional

from bot_client.clock import Clock

log = logging.getLogger("bot.hooks")

SLOW_S = 30.0
TRACE_CHARS = 2048
_ONE_OF = ("get_", "on_before_poll", "on_after_poll")


class HookFailed(Exception):
    """A hook raised, or returned something unusable; the text is for an error report."""


class Bot:
    """What hooks get as their first argument: read-only copies, and a few requests."""

    def __init__(self, bot_id: str, base_dir: str, server: str, version: str) -> None:
        """The loop keeps the attributes up to date."""
        self.id = bot_id
        self.base_dir = base_dir
        self.server = server
        self.bot_version = version
        self.session_id = ""
        self.session_token: Optional[str] = None
        self.swarming_bot_zip = ""
        self.rbe_worker_properties: Optional[dict[str, str]] = None
        self.dimensions: dict[str, list[str]] = {}
        self.state: dict[str, Any] = {}
        self.restart_reason: Optional[str] = None
        self.reboot_reason: Optional[str] = None
        self.send: Callable[[str, str], object] = lambda _kind, _message: None

    @property
    def attributes(self) -> dict[str, Any]:
        """Dimensions, state and version as last sent."""
        return {
            "dimensions": dict(self.dimensions),
            "state": dict(self.state),
            "version": self.bot_version,
        }

    def post_event(self, kind: str, message: str) -> None:
        """Record an event on the server."""
        self.send(kind, message)

    def post_error(self, message: str) -> None:
        """Record a ``bot_error`` on the server, with a short call stack."""
        stack = "".join(traceback.format_stack(limit=50))[-TRACE_CHARS:]
        self.send("bot_error", f"{message}\n{stack}")

    def bot_restart(self, message: str) -> None:
        """Restart this process at the end of the cycle."""
        self.restart_reason = message

    def host_reboot(self, message: str) -> None:
        """Reboot the host at the end of the cycle."""
        self.reboot_reason = message

    def get_pseudo_rand(self, width: float) -> float:
        """A number within plus or minus width that never changes for this bot id."""
        digest = hashlib.sha256(self.id.encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2.0**64
        return round((share * 2.0 - 1.0) * width, 4)


class Hooks:
    """The two modules and the rules which of them is asked."""

    def __init__(self, clock: Clock, on_error: Callable[[str], None]) -> None:
        """``on_error`` gets a text for each hook that failed."""
        self._clock = clock
        self._on_error = on_error
        self._archived: Optional[ModuleType] = None
        self._injected: Optional[ModuleType] = None

    def load_archived(self, source: Optional[str]) -> None:
        """Take the archive's hooks.  HookFailed when they do not even load."""
        self._archived = None if source is None else _compile("bot_config", source)

    def inject(self, source: Optional[str]) -> None:
        """Take the handshake's hooks; HookFailed when they do not load."""
        self._injected = None
        if source:
            self._injected = _compile("injected", source)

    def has(self, name: str) -> bool:
        """Does any module define the hook?"""
        return bool(self._choose(name))

    def call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - hooks are untyped
        """Call a hook by the rules; None when nobody defines it or it failed (reported)."""
        try:
            return self.call_strictly(name, *arguments)
        except HookFailed as failure:
            self._on_error(str(failure))
            return None

    def call_strictly(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - as above
        """As `call`, but HookFailed instead of a report."""
        result = None
        for function in self._choose(name):
            started = self._clock.now()
            try:
                result = function(*arguments)
            except Exception as failure:
                log.exception("hook %s failed", name)
                trace = traceback.format_exc()[-TRACE_CHARS:]
                raise HookFailed(f"Failed to call hook {name}(): {failure!r}\n{trace}") from failure
            taken = self._clock.now() - started
            if taken > SLOW_S:
                self._on_error(f"hook {name}() took {taken:.0f} s")
        return result

    def _choose(self, name: str) -> list[Callable[..., Any]]:
        modules = [self._archived, self._injected]
        if name == "setup_bot":
            modules = [self._archived]
        functions = [getattr(module, name, None) for module in modules if module is not None]
        found = [function for function in functions if callable(function)]
        return found[-1:] if name.startswith(_ONE_OF) else found


def _compile(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    try:
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102 - hooks are code
    except Exception as failure:
        log.exception("hooks %s do not load", name)
        raise HookFailed(f"{name}.py: {failure!r}") from failure
    return module


class AuthHeaders:
    """Headers from the ``get_authentication_headers`` hook, cached as the hook allows."""

    RENEW_LEFT_S = 570.0

    def __init__(self, hooks: Hooks, bot: Bot, clock: Clock) -> None:
        """Asks the hook at the first use."""
        self._hooks = hooks
        self._bot = bot
        self._clock = clock
        self._headers: dict[str, str] = {}
        self._expiry: Optional[float] = 0.0
        self._lock = threading.Lock()

    def __call__(self, renew: bool) -> dict[str, str]:  # noqa: FBT001 - one caller
        """The headers to send now; ``renew`` after the server refused the old ones."""
        with self._lock:
            if renew or self._is_stale():
                self._refresh()
            return self._headers

    def _is_stale(self) -> bool:
        return (
            self._expiry is not None
            and self._clock.wall() > self._expiry - AuthHeaders.RENEW_LEFT_S
        )

    def _refresh(self) -> None:
        """Ask the hook; if it fails, what is cached stays."""
        result = self._hooks.call("get_authentication_headers", self._bot)
        if not isinstance(result, tuple) or len(result) != 2:
            return
        headers, expiry = result
        self._headers = {str(k): str(v) for k, v in (headers or {}).items()}
        self._expiry = float(expiry) if isinstance(expiry, (int, float)) else None
