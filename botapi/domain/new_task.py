"""A task as somebody asks for it, whatever the encoding it came in (bot-api 10.7).

Both APIs make a `NewTask` of what they read; from there on there is one way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from botapi.domain.task import Slice


class TemplateChoice(StrEnum):
    """What is asked of the pool's task template (prpc-api 3)."""

    AUTO = "AUTO"
    CANARY_PREFER = "CANARY_PREFER"
    CANARY_NEVER = "CANARY_NEVER"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What is asked for. Of a slice only what an author can say is set.

    `secret_bytes` go to every slice with `has_secret_bytes`; empty for none.
    """

    name: str
    slices: tuple[Slice, ...]
    priority: int = 100
    tags: tuple[str, ...] = ()
    user: str = ""
    service_account: str = ""
    realm: str = ""
    parent_task_id: str = ""
    pubsub_topic: str = ""
    pubsub_auth_token: str = field(default="", repr=False)
    pubsub_userdata: str = ""
    bot_ping_tolerance_s: int = 0
    request_uuid: str = ""
    template: TemplateChoice = TemplateChoice.AUTO
    has_resultdb: bool = False
    secret_bytes: bytes = field(default=b"", repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict)
    max_retries: int = 0
