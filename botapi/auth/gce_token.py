"""Identity tokens of Google's virtual machines: `X-Luci-Gce-Vm-Token` (bot-api 0.6)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from botapi.auth.oidc import check_form, verified_claims
from botapi.auth.proof import Instance, Trust, Verified, refusal, shown
from botapi.wire_json import WireError, reader

HEADER = "X-Luci-Gce-Vm-Token"

_BEARER = "bearer "
_VERSION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_APP_ENGINE = ".appspot.com"


@dataclass(frozen=True, slots=True)
class _ComputeEngine:
    project_id: str
    instance_name: str


@dataclass(frozen=True, slots=True)
class _Google:
    compute_engine: _ComputeEngine


_read_google = reader(_Google)


def verify_gce_vm_token(text: str, trust: Trust) -> Verified:
    """The instance that the token was made on. Raises Refusal, see `proof.Verifier`."""
    provider = trust.vm_provider
    if provider is None:
        raise refusal(f"{HEADER}: settings.cfg has no gce_vm_tokens")
    token = text[len(_BEARER) :] if text.lower().startswith(_BEARER) else text
    token = token.strip()
    check_form(HEADER, token)
    claims = verified_claims(HEADER, token, provider, trust)
    if not any(is_for_us(audience, trust.vm_audiences) for audience in claims.audiences):
        said = ", ".join(claims.audiences)
        raise refusal(f"{HEADER}: made for {shown(said)}, no audience of gce_vm_tokens")
    try:
        engine = _read_google(claims.google).compute_engine
    except WireError:
        raise refusal(f'{HEADER}: not in the format "full": it names no instance') from None
    if not engine.instance_name or not engine.project_id:
        raise refusal(f"{HEADER}: it names no instance and project")
    return Verified(Instance(engine.instance_name, engine.project_id), claims.exp)


def is_for_us(audience: str, names: Sequence[str]) -> bool:
    """Is this one of the names, or a version of one that is an App Engine application?

    With or without `https://`; `<app>.appspot.com` also stands for
    `<version>-dot-<app>.appspot.com` (bot-api 0.6).
    """
    host = audience.removeprefix("https://")
    return any(host == name or _is_version(host, name) for name in names)


def _is_version(host: str, name: str) -> bool:
    version, dot, app = host.rpartition("-dot-")
    is_application = name.endswith(_APP_ENGINE) and bool(dot)
    return is_application and app == name and _VERSION.fullmatch(version) is not None
