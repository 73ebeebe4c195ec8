"""What a new configuration does to the fleet, before it does it (bot-api 7.5, docs/config.md)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address

from botapi.domain.bot import Bot
from botapi.domain.bot_groups import (
    UNASSIGNED,
    ArchivePolicy,
    AuthMethod,
    BotGroup,
    BotsConfig,
    handshake_config_hash,
)
from botapi.domain.channel import bucket
from botapi.domain.dimensions import flatten, overlay, unflatten
from botapi.domain.fleet_settings import Deployment, FleetSettings, Network
from botapi.domain.matching import Queue
from botapi.domain.names import host_id

ENROLLED = "require_enrolled_secret"


class Aspect(StrEnum):
    """What of a bot a configuration decides."""

    GROUP = "group"
    DIMENSIONS = "dimensions"
    AUTH = "auth"
    SCRIPT = "script"
    ARCHIVE = "archive"
    ACCOUNT = "account"
    OWNERS = "owners"


@dataclass(frozen=True, slots=True)
class Rules:
    """The part of a configuration that decides about bots."""

    bots: BotsConfig
    fleet: FleetSettings


@dataclass(frozen=True, slots=True)
class ChangedBot:
    """What changes for one bot; `aspects` is never empty.

    `group_before` and `group_after` are in words. `added` and `removed` are flat dimensions,
    as far as the server can tell without the bot's next report. `restarts`: its next poll is
    answered `bot_restart`. `dropped` says why its next poll will be refused, empty when it
    will not, or was already.
    """

    bot_id: str
    is_live: bool
    aspects: tuple[Aspect, ...]
    group_before: str
    group_after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    restarts: bool
    dropped: str


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """Everything that changes. `live` is the number of bots that are not dead.

    `queues` are those that some live bot serves now and none will.
    """

    bots: tuple[ChangedBot, ...] = ()
    queues: tuple[Queue, ...] = ()
    live: int = 0

    @property
    def dropped(self) -> int:
        """How many live bots will be refused."""
        return sum(1 for bot in self.bots if bot.is_live and bot.dropped)

    @property
    def restarts(self) -> int:
        """How many live bots will restart."""
        return sum(1 for bot in self.bots if bot.is_live and bot.restarts)

    def exceeds(self, percent: int) -> bool:
        """Would more than so many percent of the live bots be dropped?"""
        return self.dropped * 100 > percent * self.live

    def refusal(self, percent: int, typed: int | None) -> str:
        """Why it must not go in force; empty when it may.

        `typed` is the number of dropped bots that a person has given: it must be exact.
        """
        said = f"would drop {self.dropped} of {self.live} live bots"
        if typed is not None and typed != self.dropped:
            return f"{said}, not {typed}"
        if typed is None and self.exceeds(percent):
            return f"{said}; to go on, give drop={self.dropped}"
        return ""


def changes(
    before: Rules,
    after: Rules,
    bots: Iterable[Bot],
    queues: Iterable[Queue],
    is_enrolled: Callable[[str], bool],
) -> ConfigChange:
    """Compare two configurations over all known bots and the queues with pending slices.

    `is_enrolled(host_id)` tells whether a host has an enrolled secret; it is asked only
    about bots whose authentication changes.
    """
    comparison = _Comparison(before, after, is_enrolled)
    changed: list[ChangedBot] = []
    serving = _Serving()
    live = 0
    for bot in bots:
        change, dimensions = comparison.of(bot)
        if change is not None:
            changed.append(change)
        if bot.dead:
            continue
        live += 1
        stays = change is None or not change.dropped
        serving.add(bot.dimensions, dimensions if stays else ())
    lost = tuple(queue for queue in queues if serving.is_lost(queue))
    return ConfigChange(tuple(changed), lost, live)


class _Comparison:
    """Two configurations; what two groups differ in is found out once."""

    def __init__(self, before: Rules, after: Rules, is_enrolled: Callable[[str], bool]) -> None:
        self._before = before
        self._after = after
        self._is_enrolled = is_enrolled
        self._pairs: dict[tuple[int, int], _Pair] = {}

    def of(self, bot: Bot) -> tuple[ChangedBot | None, tuple[str, ...]]:
        """What changes for a bot, None for nothing, and its dimensions afterwards."""
        was = self._before.bots.group_of(bot.bot_id)
        now = self._after.bots.group_of(bot.bot_id)
        pair = self._pair(was, now)
        dimensions = self._dimensions(bot, was, now) if pair.overlays_differ else bot.dimensions
        old_label = _label(self._before.bots, was, bot.bot_id)
        new_label = _label(self._after.bots, now, bot.bot_id)
        old, new = {*bot.dimensions}, {*dimensions}
        aspects = {*pair.aspects}
        aspects |= {Aspect.GROUP} if old_label != new_label else set()
        aspects |= {Aspect.DIMENSIONS} if old != new else set()
        aspects |= {Aspect.ARCHIVE} if self._is_moved(bot, now) else set()
        if not aspects:
            return None, dimensions
        dropped = self._dropped(bot, was, now) if Aspect.AUTH in aspects else ""
        change = ChangedBot(
            bot_id=bot.bot_id,
            is_live=not bot.dead,
            aspects=tuple(aspect for aspect in Aspect if aspect in aspects),
            group_before=_words(was, old_label),
            group_after=_words(now, new_label),
            added=tuple(sorted(new - old)),
            removed=tuple(sorted(old - new)),
            restarts=pair.restarts and not dropped,
            dropped=dropped,
        )
        return change, dimensions

    def _pair(self, was: BotGroup, now: BotGroup) -> "_Pair":
        key = id(was), id(now)
        if key not in self._pairs:
            self._pairs[key] = _compare(self._before, self._after, was, now)
        return self._pairs[key]

    def _dimensions(self, bot: Bot, was: BotGroup, now: BotGroup) -> tuple[str, ...]:
        """What a group assigned and does not any more is unknown until the bot reports."""
        reported = {
            key: values
            for key, values in unflatten(bot.dimensions).items()
            if key not in was.dimensions
        }
        return flatten(overlay(reported, now.dimensions, self._after.bots.trusted_dimensions))

    def _is_moved(self, bot: Bot, now: BotGroup) -> bool:
        """Does settings.cfg name another release for the channel of a bot without a pin?"""
        was, deployment = self._before.fleet.deployment, self._after.fleet.deployment
        if was == deployment or now.archive_pin or now.bot_archive is ArchivePolicy.KEEP:
            return False
        return _release(bot.bot_id, was) != _release(bot.bot_id, deployment)

    def _dropped(self, bot: Bot, was: BotGroup, now: BotGroup) -> str:
        """Why the bot is not let in any more; empty when it is, or was not before."""
        if self._refusal(bot, was.auth, self._before.fleet, was.auth):
            return ""
        return self._refusal(bot, now.auth, self._after.fleet, was.auth)

    def _refusal(
        self,
        bot: Bot,
        methods: Sequence[AuthMethod],
        fleet: FleetSettings,
        proven: Sequence[AuthMethod],
    ) -> str:
        """Why no method can be satisfied, as far as the server can know."""
        failures = [self._failure(bot, method, fleet, proven) for method in methods]
        if not failures:
            return "no auth method is configured for this bot"
        return "" if "" in failures else "; ".join(dict.fromkeys(failures))

    def _failure(
        self, bot: Bot, method: AuthMethod, fleet: FleetSettings, proven: Sequence[AuthMethod]
    ) -> str:
        for name in method.requirements():
            if name == ENROLLED:
                if not self._is_enrolled(host_id(bot.bot_id)):
                    return f"{host_id(bot.bot_id)} is not enrolled"
            elif not _backing(name, method, fleet):
                return f"{name}: settings.cfg does not say how to check it"
            elif not (
                any(_covers(method, other, name) for other in proven)
                or bot.authenticated_as in _identities(bot, method)
            ):
                return f"{name}: nobody knows whether the bot can show that"
        if method.ip_whitelist:
            return _ip_failure(bot.external_ip, method.ip_whitelist, fleet)
        return ""


@dataclass(frozen=True, slots=True)
class _Pair:
    """What differs between the group of a bot before and after."""

    aspects: tuple[Aspect, ...]
    overlays_differ: bool
    restarts: bool


def _compare(before: Rules, after: Rules, was: BotGroup, now: BotGroup) -> _Pair:
    assigned = dict(was.dimensions) != dict(now.dimensions)
    trusted = before.bots.trusted_dimensions != after.bots.trusted_dimensions
    differ = {
        Aspect.DIMENSIONS: assigned,
        Aspect.AUTH: _fingerprint(was, before.fleet) != _fingerprint(now, after.fleet),
        Aspect.SCRIPT: (was.script_name, was.script) != (now.script_name, now.script),
        Aspect.ARCHIVE: (was.bot_archive, was.archive_pin) != (now.bot_archive, now.archive_pin),
        Aspect.ACCOUNT: (was.system_service_account, was.logs_cloud_project)
        != (now.system_service_account, now.logs_cloud_project),
        Aspect.OWNERS: was.owners != now.owners,
    }
    return _Pair(
        aspects=tuple(aspect for aspect, differs in differ.items() if differs),
        overlays_differ=assigned or trusted,
        restarts=handshake_config_hash(was) != handshake_config_hash(now),
    )


def _fingerprint(group: BotGroup, fleet: FleetSettings) -> list[object]:
    """Everything that decides who is let in."""
    return [
        (
            method,
            tuple((name, _backing(name, method, fleet)) for name in method.requirements()),
            fleet.ip_lists.get(method.ip_whitelist),
        )
        for method in group.auth
    ]


def _backing(name: str, method: AuthMethod, fleet: FleetSettings) -> object:
    """What settings.cfg says that a requirement is checked with; empty when it says nothing."""
    if name == "require_oidc" and method.require_oidc is not None:
        return fleet.oidc_providers.get(method.require_oidc.issuer)
    return {
        "require_luci_machine_token": fleet.machine_token_keys,
        "require_luci_machine_token_secure": fleet.machine_token_keys,
        "require_gce_vm_token": fleet.gce_vm_tokens,
        "require_client_cert": fleet.client_cert_header,
    }.get(name, ENROLLED)


def _release(bot_id: str, deployment: Deployment | None) -> str:
    """The release that settings.cfg names for a bot (bot-api 7.8, 8.3); empty for none."""
    if deployment is None:
        return ""
    is_canary = bucket(bot_id) < deployment.canary_percent
    return (is_canary and deployment.canary) or deployment.stable


def _identities(bot: Bot, method: AuthMethod) -> set[str]:
    """What bots are called that this method lets in, where that is the same for every method."""
    names = {f"user:{email}" for email in method.require_service_account}
    if method.require_gce_vm_token:
        names.add(f"bot:{host_id(bot.bot_id)}@gce.{method.require_gce_vm_token}")
    return names


def _covers(method: AuthMethod, other: AuthMethod, name: str) -> bool:
    """Does this requirement let in everybody that the other one lets in?"""
    if name not in other.requirements():
        return False
    new, old = getattr(method, name), getattr(other, name)
    if name == "require_luci_machine_token_secure" and not new:
        return True  # any authority will do
    if isinstance(new, tuple):
        return {*old} <= {*new}
    return bool(new == old)


def _ip_failure(address: str, name: str, fleet: FleetSettings) -> str:
    networks = fleet.ip_lists.get(name)
    if networks is None:
        return f'there is no address list "{name}"'
    if _is_in(address, networks):
        return ""
    return f'{address or "its address"} is not in the address list "{name}"'


def _is_in(text: str, networks: Iterable[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _label(config: BotsConfig, group: BotGroup, bot_id: str) -> str:
    """How a bot came into its group (bot-api 7.4); lines may move without any change."""
    if group is UNASSIGNED:
        return "no group"
    if group.is_default:
        return "default group"
    host = host_id(bot_id)
    for name in (bot_id, host):
        if name in group.bot_ids:
            return f"bot_id {name}"
    prefix = next(
        host[:length] for length in config.prefix_lengths if host[:length] in config.by_prefix
    )
    return f"bot_id_prefix {prefix}"


def _words(group: BotGroup, label: str) -> str:
    return f"{label} (bots.cfg:{group.line})" if group.line else label


class _Serving:
    """Which sets of dimensions live bots serve: those that change before, all of them after."""

    def __init__(self) -> None:
        self._leaving: dict[str, set[int]] = defaultdict(set)
        self._after: dict[str, set[int]] = defaultdict(set)
        self._count = 0

    def add(self, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        """Another bot, with its flat dimensions; none afterwards when it is dropped."""
        self._count += 1
        for flat in after:
            self._after[flat].add(self._count)
        if before != after:
            for flat in before:
                self._leaving[flat].add(self._count)

    def is_lost(self, queue: Queue) -> bool:
        """Does some bot serve it before, and none after?"""
        return _any(self._leaving, queue.constraints) and not _any(self._after, queue.constraints)


def _any(holders: Mapping[str, set[int]], wanted: Sequence[frozenset[str]]) -> bool:
    """Does anybody hold one of every set?"""
    found: set[int] | None = None
    for alternatives in wanted:
        these = set().union(*(holders.get(flat, ()) for flat in alternatives))
        found = these if found is None else found & these
        if not found:
            return False
    return bool(holders)
