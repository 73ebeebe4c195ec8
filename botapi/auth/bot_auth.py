"""`BotAuth`, the one message that bots.cfg and the session token share, both ways."""

from functools import lru_cache

from botpb import bots_pb2

from botapi.domain.bot_groups import AuthMethod, Oidc

_KNOWN_METHODS = 256
"""A server has a handful of auth methods, and every token repeats them."""


@lru_cache(maxsize=_KNOWN_METHODS)
def to_message(method: AuthMethod) -> bots_pb2.BotAuth:
    """The message of a method; it is shared: whoever puts it into another one copies it."""
    cas, project = method.require_luci_machine_token_secure, method.require_gce_vm_token
    oidc, names = method.require_oidc, method.require_client_cert
    return bots_pb2.BotAuth(
        require_luci_machine_token=method.require_luci_machine_token,
        require_service_account=method.require_service_account,
        ip_whitelist=method.ip_whitelist,
        require_gce_vm_token=None if project is None else bots_pb2.BotAuth.GCE(project=project),
        log_if_failed=method.log_if_failed,
        require_luci_machine_token_secure=None
        if cas is None
        else bots_pb2.BotAuth.LuciMachineToken(ca_id=cas),
        require_enrolled_secret=method.require_enrolled_secret,
        require_oidc=None
        if oidc is None
        else bots_pb2.BotAuth.Oidc(
            issuer=oidc.issuer, audience=oidc.audience, subject=oidc.subjects
        ),
        require_client_cert=None if names is None else bots_pb2.BotAuth.ClientCert(san=names),
    )


def from_message(auth: bots_pb2.BotAuth) -> AuthMethod:
    """The method in a message; what is not set there is not asked for."""
    secure, oidc = auth.require_luci_machine_token_secure, auth.require_oidc
    return AuthMethod(
        require_luci_machine_token=auth.require_luci_machine_token,
        require_luci_machine_token_secure=tuple(secure.ca_id)
        if auth.HasField("require_luci_machine_token_secure")
        else None,
        require_service_account=tuple(auth.require_service_account),
        require_gce_vm_token=auth.require_gce_vm_token.project
        if auth.HasField("require_gce_vm_token")
        else None,
        require_enrolled_secret=auth.require_enrolled_secret,
        require_oidc=Oidc(oidc.issuer, oidc.audience, tuple(oidc.subject))
        if auth.HasField("require_oidc")
        else None,
        require_client_cert=tuple(auth.require_client_cert.san)
        if auth.HasField("require_client_cert")
        else None,
        ip_whitelist=auth.ip_whitelist,
        log_if_failed=auth.log_if_failed,
    )


@lru_cache(maxsize=_KNOWN_METHODS)
def from_bytes(raw: bytes) -> AuthMethod:
    """The method in a serialised message."""
    return from_message(bots_pb2.BotAuth.FromString(raw))
