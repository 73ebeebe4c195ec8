"""settings.cfg from text to meaning (bot-api 7.8); every mistake in it with its place."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from botpb import settings_pb2

from botapi.cfg import access_cfg
from botapi.cfg.mistakes import BadConfig, Mistake, in_order
from botapi.cfg.settings_rules import (
    ARCHIVE_VERSION,
    check,
    ed25519_of,
    network_of,
    provider_problem,
    release_of,
    sign_in_problems,
    signer_key_of,
    warnings,
)
from botapi.cfg.text_proto import ParsedFile, opened, parsed
from botapi.domain.fleet_settings import (
    LOOPBACK,
    Deployment,
    FleetSettings,
    GceVmTokens,
    Network,
    OidcProvider,
    ReleaseKey,
    RolloutRule,
    SignIn,
    TokenExchange,
)

FILE_NAME = "settings.cfg"
GOOGLE = OidcProvider("https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs")
REUSABLE_TASK_AGE_S = 604_800
MAX_BOT_SLEEP_S = 60
MAX_DROPPED_PERCENT = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings.cfg without mistakes and what it means."""

    parsed: ParsedFile[settings_pb2.SettingsCfg]
    settings: FleetSettings
    warnings: tuple[Mistake, ...]


def read(raw: bytes) -> SettingsFile:
    """Check a file. Raises BadConfig with every mistake."""
    file = opened(FILE_NAME, raw, settings_pb2.SettingsCfg())
    mistakes = file.mistakes(check(file.message))
    if mistakes:
        raise BadConfig(mistakes)
    settings = _meaning(file.message)
    return SettingsFile(file, settings, in_order(file.mistakes(warnings(file.message))))


def load(text: str) -> FleetSettings:
    """The meaning of a text that was accepted before, perhaps by an older release.

    Entries that cannot be used today are left out, numbers are moved to the nearest that
    can. Raises BadConfig only when the text does not parse at all.
    """
    return _meaning(parsed(FILE_NAME, text, settings_pb2.SettingsCfg()))


def _meaning(message: settings_pb2.SettingsCfg) -> FleetSettings:
    return FleetSettings(
        reusable_task_age_s=_positive(message.reusable_task_age_secs) or REUSABLE_TASK_AGE_S,
        bot_death_s=_positive(message.bot_death_timeout_secs),
        force_sleep=message.force_bots_to_sleep_and_not_run_task,
        max_bot_sleep_s=_positive(message.max_bot_sleep_time) or MAX_BOT_SLEEP_S,
        task_url_template=message.display_server_url_template,
        ip_lists={**_ip_lists(message), "loopback": LOOPBACK},
        oidc_providers={provider.issuer: provider for provider in _providers(message)},
        machine_token_keys={
            entry.key_id: pem
            for entry in message.machine_token_signer
            for pem in _usable(signer_key_of, [entry.public_key])
        },
        gce_vm_tokens=_gce(message),
        client_cert_header=message.client_certs.san_header,
        id_token_audiences=tuple(message.id_token_audience),
        token_exchanges={
            entry.service_account: TokenExchange(
                entry.service_account, entry.endpoint, entry.audience
            )
            for entry in message.token_exchange
        },
        rollout=_rollout(message),
        release_keys=tuple(
            ReleaseKey(key.id, raw, is_recovery=key.role == settings_pb2.ReleaseKey.RECOVERY)
            for key in message.release_key
            for raw in _usable(ed25519_of, [key.public_key])
        ),
        deployment=_deployment(message),
        max_dropped_percent=_percent(message.max_dropped_percent) or MAX_DROPPED_PERCENT,
        groups=access_cfg.groups_of(message),
        grantings=access_cfg.grantings_of(message.grant),
        auth=access_cfg.auth_of(message.auth),
        sign_in=_sign_in(message),
    )


def _usable(make: Callable[[str], T], texts: Iterable[str]) -> Iterator[T]:
    """What can be made of the texts."""
    for text in texts:
        try:
            yield make(text)
        except ValueError:
            continue


def _positive(number: int) -> int:
    return max(0, number)


def _percent(number: int) -> int:
    return min(max(0, number), 100)


def _ip_lists(message: settings_pb2.SettingsCfg) -> dict[str, tuple[Network, ...]]:
    return {entry.name: tuple(_usable(network_of, entry.subnet)) for entry in message.ip_allowlist}


def _providers(message: settings_pb2.SettingsCfg) -> Iterator[OidcProvider]:
    for entry in message.oidc_provider:
        if not any(provider_problem(entry.issuer, entry.jwks_uri, entry.jwks)):
            yield OidcProvider(entry.issuer, entry.jwks_uri, entry.jwks)


def _gce(message: settings_pb2.SettingsCfg) -> GceVmTokens | None:
    if not message.HasField("gce_vm_tokens"):
        return None
    said = message.gce_vm_tokens
    issuer = said.issuer or GOOGLE.issuer
    if any(provider_problem(issuer, said.jwks_uri, said.jwks)):
        return None
    is_google = issuer == GOOGLE.issuer
    jwks_uri = said.jwks_uri or (GOOGLE.jwks_uri if is_google else "")
    return GceVmTokens(tuple(said.audience), OidcProvider(issuer, jwks_uri, said.jwks))


def _rollout(message: settings_pb2.SettingsCfg) -> RolloutRule | None:
    if not message.HasField("rollout"):
        return None
    said = message.rollout
    rings = sorted({percent for percent in said.ring_percent if 0 < percent < 100})
    return RolloutRule(
        (*rings, 100),
        _positive(said.soak_secs),
        _percent(said.max_failed_percent),
        _positive(said.min_updated) or 1,
    )


def _sign_in(message: settings_pb2.SettingsCfg) -> SignIn | None:
    """None for signing in with an API key only."""
    said = message.sign_in
    if not message.HasField("sign_in") or any(sign_in_problems(said)):
        return None
    domains = frozenset(domain.lower() for domain in said.email_domain)
    return SignIn(said.issuer, said.client_id, domains)


def _deployment(message: settings_pb2.SettingsCfg) -> Deployment | None:
    """A missing canary is as stable; versions of a package server mean nothing here."""
    if not message.HasField("bot_deployment"):
        return None
    said = message.bot_deployment
    canary = said.canary if said.HasField("canary") else said.stable
    stable, other = (
        version if ARCHIVE_VERSION.fullmatch(version) else ""
        for version in (release_of(said.stable), release_of(canary))
    )
    return Deployment(stable, other, _percent(said.canary_percent))
