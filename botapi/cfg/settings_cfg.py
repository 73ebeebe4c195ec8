"""settings.cfg from text to meaning (bot-api 7.8); every mistake in it with its place."""

from base64 import b64decode
from dataclasses import dataclass
from ipaddress import ip_network

from botpb import settings_pb2

from botapi.cfg.text_proto import decoded, parsed
from botapi.domain.fleet_settings import (
    LOOPBACK,
    Deployment,
    FleetSettings,
    GceVmTokens,
    OidcProvider,
    ReleaseKey,
    RolloutRule,
    TokenExchange,
)

FILE_NAME = "settings.cfg"
GOOGLE = OidcProvider("https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The text of a settings.cfg and what it means."""

    text: str
    settings: FleetSettings


def read(raw: bytes) -> SettingsFile:
    """Check a file. Raises BadConfig with every mistake."""
    text = decoded(FILE_NAME, raw)
    return SettingsFile(text, load(text))


def load(text: str) -> FleetSettings:
    """The meaning of a text that was accepted before. Raises BadConfig for bad syntax only."""
    message = parsed(FILE_NAME, text, settings_pb2.SettingsCfg())
    lists = {
        entry.name: tuple(ip_network(subnet) for subnet in entry.subnet)
        for entry in message.ip_allowlist
    }
    return FleetSettings(
        reusable_task_age_s=message.reusable_task_age_secs or 604_800,
        bot_death_s=message.bot_death_timeout_secs,
        force_sleep=message.force_bots_to_sleep_and_not_run_task,
        max_bot_sleep_s=message.max_bot_sleep_time or 60,
        task_url_template=message.display_server_url_template,
        ip_lists={"loopback": LOOPBACK, **lists},
        oidc_providers={
            entry.issuer: OidcProvider(entry.issuer, entry.jwks_uri, entry.jwks)
            for entry in message.oidc_provider
        },
        machine_token_keys={
            entry.key_id: entry.public_key for entry in message.machine_token_signer
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
            ReleaseKey(
                key.id,
                b64decode(key.public_key),
                is_recovery=key.role == settings_pb2.ReleaseKey.RECOVERY,
            )
            for key in message.release_key
        ),
        deployment=_deployment(message),
        max_dropped_percent=message.max_dropped_percent or 5,
    )


def _gce(message: settings_pb2.SettingsCfg) -> GceVmTokens | None:
    if not message.HasField("gce_vm_tokens"):
        return None
    said = message.gce_vm_tokens
    provider = OidcProvider(
        said.issuer or GOOGLE.issuer, said.jwks_uri or GOOGLE.jwks_uri, said.jwks
    )
    return GceVmTokens(tuple(said.audience), provider)


def _rollout(message: settings_pb2.SettingsCfg) -> RolloutRule | None:
    if not message.HasField("rollout"):
        return None
    said = message.rollout
    rings = tuple(percent for percent in said.ring_percent if percent < 100)
    return RolloutRule(
        (*rings, 100), said.soak_secs, said.max_failed_percent, said.min_updated or 1
    )


def _deployment(message: settings_pb2.SettingsCfg) -> Deployment | None:
    if not message.HasField("bot_deployment"):
        return None
    said = message.bot_deployment
    return Deployment(said.stable.version, said.canary.version, said.canary_percent)
