"""What a verified client certificate says, as a trusted proxy passes it on.

The header is named in settings.cfg; `credentials` asks for it only of trusted proxies.
"""

from botapi.auth.proof import refusal

MAX_CHARS = 8 * 1024
MAX_NAMES = 100


def read_names(header: str, text: str) -> tuple[str, ...]:
    """The names (SAN entries) in the text: separated by commas, `DNS:` and `URI:` taken off.

    Entries of other kinds keep their prefix, so that they are never taken for a host.
    Raises Refusal UNAUTHENTICATED beyond the limits.
    """
    if len(text) > MAX_CHARS:
        raise refusal(f"{header}: too long: {len(text)} > {MAX_CHARS}")
    entries = [entry.strip() for entry in text.split(",")]
    if len(entries) > MAX_NAMES:
        raise refusal(f"{header}: more than {MAX_NAMES} names")
    return tuple(name for name in map(_name, entries) if name)


def _name(entry: str) -> str:
    kind, colon, rest = entry.partition(":")
    if kind == "DNS" and colon:
        return rest.strip()
    if kind == "URI" and ":" in rest:
        return rest.strip()
    return entry
