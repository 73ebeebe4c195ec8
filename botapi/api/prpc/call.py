"""One call of the public API, past its encoding and its credentials."""

from dataclasses import dataclass

from botapi.api.parts import ApiParts
from botapi.domain.permissions import Caller


@dataclass(frozen=True, slots=True)
class Call:
    """What a method gets beside its request: the server, and who asks."""

    parts: ApiParts
    caller: Caller
