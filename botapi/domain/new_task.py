"""A task as somebody asks for it, whatever the encoding it came in (bot-api 10.7).

Both APIs make a `NewTask` of what they read; from there on there is one way. The checks
here are pure; each raises Refusal INVALID_ARGUMENT with the place of the first mistake.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from botapi.domain.errors import refuse
from botapi.domain.names import is_request_uuid, parse_task_id
from botapi.domain.service_accounts import MAX_ACCOUNT_CHARS, is_literal
from botapi.domain.slice_rules import (
    at_most,
    check_dimensions,
    check_env_keys,
    check_slice,
    check_text,
    within,
)
from botapi.domain.task import Slice
from botapi.domain.value_rules import is_email, realm_problem

MAX_SLICES = 8
MAX_NAME = 256
MAX_USER = 256
MAX_TAGS = 256
MAX_TAG_KEY = 64
MAX_TAG_VALUE = 256
RESERVED_TAG = "swarming.terminate"
MIN_PRIORITY = 1
MAX_PRIORITY = 255
MIN_PING_TOLERANCE_S = 60
MAX_PING_TOLERANCE_S = 1200
MAX_SECRET_BYTES = 20_480
MAX_TOPIC = 1024
MAX_USERDATA = 1024
MAX_REALM = 480
MAX_RETRIES = 10

_TOPIC = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")


class TemplateChoice(StrEnum):
    """What is asked of the pool's task template (prpc-api 3)."""

    AUTO = "AUTO"
    CANARY_PREFER = "CANARY_PREFER"
    CANARY_NEVER = "CANARY_NEVER"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What is asked for. Of a slice only what an author can say is set.

    `secret_bytes` go to every slice with `has_secret_bytes`; empty for none. `secrets` maps
    an environment variable to the name of a stored secret.
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


@dataclass(frozen=True, slots=True)
class Form:
    """How a task is written down, and what that API allows beyond bot-api 10.7.

    `is_flat`: the keys of its only slice stand at top level. `may_be_unlimited`: an
    execution timeout of 0, for none.
    """

    is_flat: bool = False
    min_timeout_s: int = 30
    may_be_unlimited: bool = False

    def place(self, index: int) -> str:
        """The JSON pointer to a slice; empty for the top level."""
        return "" if self.is_flat else f"/slices/{index}"


PUBLISHED = Form()
"""The letter of bot-api 10.7."""


def check_pool(new: NewTask, form: Form = PUBLISHED) -> str:
    """The one pool that all slices name: what is checked before any permission (prpc-api 6.1)."""
    if not 1 <= len(new.slices) <= MAX_SLICES:
        raise refuse("/slices", f"has {len(new.slices)} entries, not from 1 to {MAX_SLICES}")
    for index, slice_ in enumerate(new.slices):
        check_dimensions(form.place(index), slice_.dimensions)
        if slice_.pool != new.slices[0].pool:
            place = f"{form.place(index)}/dimensions/pool"
            raise refuse(place, "is not the pool of the first slice; a task is of one pool")
    return new.slices[0].pool


def check_new_task(new: NewTask, form: Form = PUBLISHED) -> None:
    """Everything else that can be said without knowing pools, parents and secrets."""
    for index, slice_ in enumerate(new.slices):
        check_slice(
            form.place(index),
            slice_,
            min_timeout_s=form.min_timeout_s,
            may_be_unlimited=form.may_be_unlimited,
        )
        if slice_ in new.slices[:index]:
            raise refuse(form.place(index), "is the same as an earlier slice; leave it out")
    _check_name(new.name)
    within("/priority", new.priority, MIN_PRIORITY, MAX_PRIORITY)
    _check_user(new.user)
    check_tags("/tags", new.tags)
    _check_account(new.service_account)
    within(
        "/bot_ping_tolerance_s",
        new.bot_ping_tolerance_s,
        MIN_PING_TOLERANCE_S,
        MAX_PING_TOLERANCE_S,
        or_zero=True,
    )
    _check_realm(new.realm)
    _check_parent(new.parent_task_id)
    _check_pubsub(new)
    _check_secrets(new)
    within("/max_retries", new.max_retries, 0, MAX_RETRIES)
    if not is_request_uuid(new.request_uuid):
        raise refuse("/request_uuid", "is not at most 50 of A-Z a-z 0-9 - _ /")


def check_tags(place: str, tags: Sequence[str]) -> None:
    """At most 256 of `key:value`; the key of termination tasks is the server's own."""
    at_most(place, tags, MAX_TAGS)
    for index, tag in enumerate(tags):
        check_text(f"{place}/{index}", tag)
        problem = _tag_problem(tag)
        if problem:
            raise refuse(f"{place}/{index}", f"{problem}; write key:value")


def common_secret(asked: Sequence[bytes], form: Form = PUBLISHED) -> bytes:
    """The secret bytes of a task whose slices say these; empty bytes for none of them.

    Raises Refusal unless all slices that have some have the same.
    """
    common = b""
    for index, secret in enumerate(asked):
        if common and secret and secret != common:
            place = f"{form.place(index)}/secret_bytes"
            raise refuse(place, "differ from those of an earlier slice; a task has one secret")
        common = common or secret
    return common


def _check_name(name: str) -> None:
    if not name:
        raise refuse("/name", "is missing")
    if len(name) > MAX_NAME:
        raise refuse("/name", f"has {len(name)} characters, at most {MAX_NAME} are allowed")
    check_text("/name", name)


def _check_user(user: str) -> None:
    if user.strip() != user or not user.isprintable():
        raise refuse("/user", "has outer blanks or control characters; leave them out")
    check_text("/user", user, MAX_USER)


def _tag_problem(tag: str) -> str:
    key, colon, value = tag.partition(":")
    if not colon or not key:
        return "has no key and colon"
    if tag.strip() != tag or key.strip() != key or value.strip() != value:
        return "has outer blanks"
    if len(key.encode()) > MAX_TAG_KEY:
        return f"its key has more than {MAX_TAG_KEY} bytes"
    if len(value.encode()) > MAX_TAG_VALUE:
        return f"its value has more than {MAX_TAG_VALUE} bytes"
    if key == RESERVED_TAG:
        return f"the key {RESERVED_TAG} is the server's own"
    return ""


def _check_account(account: str) -> None:
    if len(account) > MAX_ACCOUNT_CHARS:
        most = f"at most {MAX_ACCOUNT_CHARS} are allowed"
        raise refuse("/service_account", f"has {len(account)} characters, {most}")
    if not is_literal(account) and not is_email(account):
        raise refuse("/service_account", "is neither none, bot nor an e-mail address")


def _check_realm(realm: str) -> None:
    problem = realm_problem(realm) if realm else ""
    if problem:
        raise refuse("/realm", f"is {problem}")
    check_text("/realm", realm, MAX_REALM)


def _check_parent(task_id: str) -> None:
    if task_id:
        try:
            parse_task_id(task_id)
        except ValueError:
            raise refuse("/parent_task_id", f'"{task_id[:40]}" is no task id') from None


def _check_pubsub(new: NewTask) -> None:
    check_text("/pubsub_topic", new.pubsub_topic, MAX_TOPIC)
    if new.pubsub_topic and not _TOPIC.fullmatch(new.pubsub_topic):
        raise refuse("/pubsub_topic", "is not projects/<project>/topics/<topic>")
    for name in ("pubsub_auth_token", "pubsub_userdata"):
        value = getattr(new, name)
        if value and not new.pubsub_topic:
            raise refuse(f"/{name}", "needs a pubsub_topic")
        check_text(f"/{name}", value, MAX_USERDATA)


def _check_secrets(new: NewTask) -> None:
    if len(new.secret_bytes) > MAX_SECRET_BYTES:
        most = f"at most {MAX_SECRET_BYTES} are allowed"
        raise refuse("/secret_bytes", f"has {len(new.secret_bytes)} bytes, {most}")
    check_env_keys("/secrets", new.secrets)
    for variable, name in new.secrets.items():
        if not name:
            raise refuse(f"/secrets/{variable}", "is empty; give the name of a stored secret")
        for index, slice_ in enumerate(new.slices):
            if variable in slice_.env:
                said = f"is set in env of slice {index} too; leave one of them out"
                raise refuse(f"/secrets/{variable}", said)
