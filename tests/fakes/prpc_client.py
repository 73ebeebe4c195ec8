"""Somebody who calls the public API through a Flask test client, in both encodings."""

import json
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from swarmingpb import swarming_pb2

BINARY = "application/prpc; encoding=binary"
PREFIX = b")]}'\n"


@dataclass
class Answer:
    """What came back: the code of the header, and text or reply."""

    code: int
    text: str = ""
    reply: dict[str, Any] = field(default_factory=dict)
    message: Any = None

    @property
    def refused(self):
        """Code and text of an error."""
        assert self.code, self.reply
        return self.code, self.text


def messages(service, method):
    """Classes of the request and of the reply."""
    found = swarming_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[method]
    return GetMessageClass(found.input_type), GetMessageClass(found.output_type)


class PrpcClient:
    """Calls one service, Tasks unless another is said."""

    def __init__(self, client, key="", service="Tasks"):
        self.client = client
        self.key = key
        self.service = service

    def post(self, method, data, kind):
        headers = {"Accept": kind, "Content-Type": kind}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        path = f"/prpc/swarming.v2.{self.service}/{method}"
        response = self.client.post(path, data=data, headers=headers)
        code = int(response.headers["X-Prpc-Grpc-Code"])
        if code:
            assert response.text.endswith("\n")
            return Answer(code, response.text[:-1]), b""
        return Answer(0), response.data

    def json(self, method, body):
        """In JSON both ways."""
        answer, data = self.post(method, json.dumps(body).encode(), "application/json")
        if not answer.code:
            assert data.startswith(PREFIX)
            answer.reply = json.loads(data.removeprefix(PREFIX))
        return answer

    def binary(self, method, body):
        """In binary both ways; `reply` is the message as JSON would have it."""
        request, reply = messages(self.service, method)
        message = json_format.ParseDict(body, request())
        answer, data = self.post(method, message.SerializeToString(), BINARY)
        if not answer.code:
            answer.message = reply.FromString(data)
            answer.reply = json_format.MessageToDict(answer.message)
        return answer

    def __call__(self, method, body=None):
        """Ask in both encodings what may be asked twice; the answers must be the same."""
        plain, packed = self.json(method, body or {}), self.binary(method, body or {})
        assert plain.refused == packed.refused if plain.code else not packed.code
        if not plain.code:
            _, reply = messages(self.service, method)
            parsed = json_format.ParseDict(plain.reply, reply())
            for message in (parsed, packed.message):
                if "cursor" in message.DESCRIPTOR.fields_by_name:
                    message.ClearField("cursor")
            assert parsed == packed.message
        return plain
