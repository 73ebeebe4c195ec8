"""One call of the public API, past its encoding and its credentials."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botapi.api.parts import ApiParts
from botapi.domain.permissions import Caller


@dataclass(frozen=True, slots=True)
class Call:
    """What a method gets beside its request: the server, and who asks.

    `base_url` is the server's address as the caller wrote it.
    """

    parts: ApiParts
    caller: Caller
    base_url: str = ""


Handler = Callable[[Call, Any], Any]
"""A method: from its request message to its reply; raises Refusal."""
