"""The table of services and methods: each with its messages and the function that answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from swarmingpb import swarming_pb2

from botapi.api.prpc import bots, swarming, tasks
from botapi.api.prpc.call import Handler

HANDLERS: Mapping[str, Mapping[str, Handler]] = {
    "Bots": bots.METHODS,
    "Swarming": swarming.METHODS,
    "Tasks": tasks.METHODS,
}


READING = ("Get", "List", "Count", "Batch")
"""How the names of methods begin that change nothing."""


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes, and who answers."""

    request: type[Message]
    handler: Handler
    is_read: bool


def _methods() -> Mapping[tuple[str, str], Method]:
    return {
        (service.full_name, method.name): Method(
            GetMessageClass(method.input_type),
            HANDLERS[name][method.name],
            method.name.startswith(READING),
        )
        for name, service in swarming_pb2.DESCRIPTOR.services_by_name.items()
        for method in service.methods
        if method.name in HANDLERS.get(name, {})
    }


METHODS = _methods()
"""By full name of the service and name of the method."""
