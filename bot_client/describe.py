"""Puts together what the bot says of itself: probes, hooks, the server's overrides, health."""

import logging
from typing import Any, Optional

from bot_client import health
from bot_client.attributes import Dimensions, Probes, check_dimensions, health_problems
from bot_client.health import Problem
from bot_client.hooks import Bot, HookFailed, Hooks
from bot_client.server_api import Attributes

log = logging.getLogger("bot.describe")

Json = dict[str, Any]


class Description:
    """Refreshed once a cycle; `attributes` is what the last refresh found."""

    def __init__(self, bot: Bot, hooks: Hooks, probes: Probes) -> None:
        """Sticky problems last until the process restarts, or until what set them heals."""
        self._bot = bot
        self._hooks = hooks
        self._probes = probes
        self._good_dimensions: Dimensions = {"id": [bot.id]}
        self._checked: object = None
        self._sticky: dict[str, Problem] = {}
        self._server_dimensions: Dimensions = {}
        self._script: dict[str, str] = {}
        self._unknown_settings: list[str] = []
        self.maintenance: Optional[str] = None
        self.extra_state: Json = {}
        self.clock_skew_s: Optional[float] = None
        self.attributes = Attributes(self._good_dimensions, {}, bot.bot_version)

    def quarantine(self, code: str, text: str) -> None:
        """Add a sticky reason."""
        if code not in self._sticky:
            log.error("quarantined: %s", text)
        self._sticky[code] = Problem(code, text)

    def heal(self, code: str) -> bool:
        """Take a sticky reason back; was there one?"""
        return self._sticky.pop(code, None) is not None

    def obey(self, reply: Json) -> None:
        """Take the server's dimensions and script name from a handshake.  ValueError if broken."""
        group = reply.get("bot_group_cfg") or {}
        if not isinstance(group, dict) or (group and "dimensions" not in group):
            raise ValueError("bot_group_cfg without dimensions")
        overrides = group.get("dimensions") or {}
        self._server_dimensions = check_dimensions(overrides, self._bot.id)
        name = reply.get("bot_config_name")
        self._script = {}
        if isinstance(name, str) and name:
            revision = reply.get("bot_config_rev")
            self._script = {"name": name, "revision": str(revision or "")}

    def refresh(self) -> Attributes:
        """Ask probes and hooks again; never raises for what they do wrong."""
        problems: list[Problem] = []
        state = self._state(problems)
        problems += self._sticky.values()
        dimensions = self._dimensions(problems)
        problems += health_problems(self._probes, self.settings())
        skew = health.clock_problem(self.clock_skew_s)
        problems += [skew] if skew is not None else []
        self._add_health(state, problems)
        self.attributes = Attributes(dimensions, state, self._bot.bot_version)
        self._bot.dimensions, self._bot.state = dimensions, state
        return self.attributes

    def _state(self, problems: list[Problem]) -> Json:
        state = None
        try:
            if self._hooks.has("get_state"):
                state = self._hooks.call_strictly("get_state", self._bot)
                if not isinstance(state, dict):
                    problems.append(Problem("get_state", "get_state() returned no object"))
        except HookFailed as failure:
            problems.append(Problem("get_state", str(failure)))
        state = dict(state) if isinstance(state, dict) else self._probes.state()
        if isinstance(state.get("quarantined"), str) and state["quarantined"]:
            problems.insert(0, Problem("hook", state["quarantined"]))
        return state

    def _dimensions(self, problems: list[Problem]) -> Dimensions:
        try:
            if self._hooks.has("get_dimensions"):
                raw = self._hooks.call_strictly("get_dimensions", self._bot)
            else:
                raw = self._probes.dimensions()
            if raw != self._checked:
                self._good_dimensions = check_dimensions(raw, self._bot.id)
                self._checked = {key: list(values) for key, values in raw.items()}
        except (HookFailed, ValueError) as failure:
            problems.append(Problem("get_dimensions", f"get_dimensions() error: {failure}"))
        dimensions = {**self._good_dimensions, **self._server_dimensions, "id": [self._bot.id]}
        if self._script:
            dimensions["bot_config"] = [self._script["name"]]
        return dimensions

    def settings(self) -> Json:
        """The defaults with the hook's values over them."""
        wanted = self._hooks.call("get_settings", self._bot)
        settings, self._unknown_settings = health.merge_settings(wanted)
        return settings

    def _add_health(self, state: Json, problems: list[Problem]) -> None:
        state.update(self.extra_state)
        if self._script:
            state["bot_config"] = self._script
        if self._unknown_settings:
            state["unknown_settings"] = self._unknown_settings
        if self.clock_skew_s is not None and abs(self.clock_skew_s) > health.SKEW_REPORT_S:
            state["clock_skew"] = round(self.clock_skew_s)
        if self.maintenance is not None:
            state["maintenance"] = self.maintenance
        if problems:
            state["quarantined"] = problems[0].text
            state["health"] = [problem._asdict() for problem in problems]
