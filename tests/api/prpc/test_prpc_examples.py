"""The examples of the public API's page, in both encodings, compared as messages."""

import json
from pathlib import Path

import pytest
from google.protobuf.message_factory import GetMessageClass
from swarmingpb import swarming_pb2 as pb

from botapi.api.prpc import codec
from botapi.api.prpc.call_headers import Encoding

EXAMPLES = json.loads(
    (Path(__file__).parents[2] / "vectors" / "prpc_examples.json").read_text(encoding="utf-8")
)


def kinds(example):
    service, _, name = example["method"].partition("/")
    method = pb.DESCRIPTOR.services_by_name[service].methods_by_name[name]
    return GetMessageClass(method.input_type), GetMessageClass(method.output_type)


@pytest.mark.spec(
    "prpc:1.4.1.1", "prpc:1.4.1.2", "prpc:1.4.1.4", "prpc:1.4.1.7", "prpc:1.4.1.9", "prpc:10.p2"
)
@pytest.mark.parametrize("example", EXAMPLES, ids=[one["method"] for one in EXAMPLES])
def test_example_of_the_page_is_the_same_message_in_both_encodings(example):
    request, reply = kinds(example)
    for said, kind in ((example["request"], request), (example["reply"], reply)):
        message = codec.decode(json.dumps(said).encode(), Encoding.JSON, kind)
        again = codec.decode(codec.encode(message, Encoding.BINARY), Encoding.BINARY, kind)
        assert again == message
        if kind is reply:
            text = codec.encode(again, Encoding.JSON)
            assert json.loads(text.removeprefix(codec.JSON_PREFIX)) == said


def test_every_method_has_an_example():
    services = pb.DESCRIPTOR.services_by_name.items()
    methods = {f"{name}/{method.name}" for name, service in services for method in service.methods}
    assert {one["method"] for one in EXAMPLES} == methods
