"""Messages as bytes, by the rules of prpc-api 1.4."""

import base64
import json

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from swarmingpb import swarming_pb2 as pb
from swarmingpb.prpc_error_pb2 import ErrorDetails, ResponseTooBig

from botapi.api.prpc import codec
from botapi.api.prpc.call_headers import Encoding
from botapi.api.prpc.errors import ProtocolError
from botapi.domain.errors import Code

JSON, BINARY = Encoding.JSON, Encoding.BINARY
spec = pytest.mark.spec


def read(text, kind=pb.NewTaskRequest, encoding=JSON):
    return codec.decode(text if isinstance(text, bytes) else text.encode(), encoding, kind)


def complaint(text, kind=pb.NewTaskRequest, encoding=JSON):
    with pytest.raises(ProtocolError) as caught:
        read(text, kind, encoding)
    assert (caught.value.code, caught.value.status) == (Code.INVALID_ARGUMENT, 400)
    return caught.value.message


def written(message):
    data = codec.encode(message, JSON)
    assert data.startswith(b")]}'\n")
    assert data.endswith(b"\n")
    return json.loads(data[5:])


@spec("prpc:1.2.1.5", "prpc:1.2.1.6", "prpc:1.2.2.1", "prpc:1.2.2.2")
def test_both_encodings_of_the_pages_example():
    asked = pb.BotRequest(bot_id="vm2-m1")
    assert read('{"botId":"vm2-m1"}', pb.BotRequest) == asked
    assert read(bytes.fromhex("0a06766d322d6d31"), pb.BotRequest, BINARY) == asked
    reply = pb.DeleteResponse(deleted=True)
    assert codec.encode(reply, JSON) == b')]}\'\n{"deleted":true}\n'
    assert codec.encode(reply, BINARY).hex() == "0801"


@spec("prpc:1.2.1.6", "prpc:1.4.1.2")
def test_empty_message_is_empty():
    assert codec.encode(pb.DeleteResponse(), BINARY) == b""
    assert codec.encode(pb.DeleteResponse(), JSON) == b")]}'\n{}\n"
    assert read(b"", pb.BotsRequest, BINARY) == pb.BotsRequest()


@spec("prpc:1.4.1.1")
def test_names_go_out_in_camel_case_and_come_in_either_way():
    assert written(pb.BotInfo(bot_id="x", is_dead=True)) == {"botId": "x", "isDead": True}
    either = '{"taskSlices":[{"expiration_secs":5,"waitForCapacity":true}],"request_uuid":"u"}'
    slice_ = pb.TaskSlice(expiration_secs=5, wait_for_capacity=True)
    assert read(either) == pb.NewTaskRequest(task_slices=[slice_], request_uuid="u")


@spec("prpc:1.4.1.1")
@pytest.mark.parametrize(
    "text",
    [
        '{"name":"a","name":"b"}',
        '{"requestUuid":"a","request_uuid":"a"}',
        '{"request_uuid":null,"requestUuid":"a"}',
        '{"taskSlices":[{"expirationSecs":1,"expirationSecs":1}]}',
    ],
)
def test_same_field_twice_is_an_error(text):
    assert "given twice" in complaint(text)


@spec("prpc:1.4.1.2")
def test_defaults_are_left_out():
    empty = pb.TaskResultResponse(
        name="", exit_code=0, failure=False, tags=[], duration=0.0, cas_output_root=None
    )
    assert written(empty) == {}
    assert written(pb.TaskRequestResponse(resultdb=pb.ResultDBCfg())) == {"resultdb": {}}
    assert written(pb.Containment(containment_type=0)) == {}


@spec("prpc:1.4.1.2")
def test_absent_and_null_are_the_default():
    nulls = '{"name":null,"priority":null,"tags":null,"resultdb":null,"poolTaskTemplate":null}'
    assert read(nulls) == read("{}") == pb.NewTaskRequest()
    assert "null" in complaint('{"tags":["a",null]}')


@spec("prpc:1.4.1.3")
def test_unknown_keys_are_ignored_at_every_depth():
    text = (
        '{"new":{"a":[1,{"b":null}],"a":2},"[x.y]":1,"":0,'
        '"taskSlices":[{"more":1,"properties":{"Command":["x"],"idempotent":true}}]}'
    )
    properties = pb.TaskProperties(idempotent=True)
    assert read(text) == pb.NewTaskRequest(task_slices=[pb.TaskSlice(properties=properties)])
    assert read('{"anything":1}', Empty) == Empty()


@spec("prpc:1.4.1.4")
def test_wide_numbers_are_text_out_and_either_in():
    assert written(pb.TaskResultResponse(exit_code=2)) == {"exitCode": "2"}
    assert written(pb.Digest(size_bytes=2**63 - 1)) == {"sizeBytes": str(2**63 - 1)}
    for text in ("7", '"7"', "7.0", "7e0", '"7e0"'):
        assert read(f'{{"offset":{text}}}', pb.TaskIdWithOffsetRequest).offset == 7
    assert read('{"offset":"-9223372036854775808"}', pb.TaskIdWithOffsetRequest).offset == -(2**63)
    for text in (
        "7.5",
        '"x"',
        '""',
        '" 7"',
        '"7_0"',
        '"\u0667"',
        "9223372036854775808",
        "true",
        "[7]",
    ):
        assert complaint(f'{{"offset":{text}}}', pb.TaskIdWithOffsetRequest)


@spec("prpc:1.4.1.5")
def test_narrow_numbers():
    assert written(pb.TaskSlice(expiration_secs=5)) == {"expirationSecs": 5}
    for text, number in (("1", 1), ("1.0", 1), ("1e2", 100), ('"7"', 7), ("-3", -3)):
        assert read(f'{{"priority":{text}}}').priority == number
    for text in ("1.5", "2147483648", "-2147483649", "1e400", '"x"', "false", "{}", "9" * 5000):
        assert complaint(f'{{"priority":{text}}}')


@spec("prpc:1.4.1.6")
def test_floats_are_shortest_for_32_bits():
    assert codec.encode(pb.OperationStats(duration=0.1), JSON) == b')]}\'\n{"duration":0.1}\n'
    assert written(pb.TaskResultResponse(costs_usd=[0.0125, 88.5])) == {"costsUsd": [0.0125, 88.5]}
    odd = pb.TaskResultResponse(costs_usd=[float("nan"), float("inf"), -float("inf")])
    assert written(odd) == {"costsUsd": ["NaN", "Infinity", "-Infinity"]}
    for text, number in (("1.5", 1.5), ('"1.5"', 1.5), ("2", 2.0), ('"-Infinity"', -float("inf"))):
        assert read(f'{{"duration":{text}}}', pb.OperationStats).duration == number
    for text in ("1e40", '"x"', "true", "NaN", "Infinity"):
        assert complaint(f'{{"duration":{text}}}', pb.OperationStats)


@spec("prpc:1.4.1.7")
def test_enums_are_names_out_and_names_or_numbers_in():
    assert written(pb.TaskResultResponse(state=pb.RUNNING)) == {"state": "RUNNING"}
    for text in ('"QUERY_ALL"', "10", "10.0"):
        assert read(f'{{"state":{text}}}', pb.TasksRequest).state == pb.QUERY_ALL


@spec("prpc:1.4.1.7")
def test_unknown_name_of_an_enum_is_as_if_absent():
    for name in ("QUERY_NEW", "\\ud800"):
        asked = read(f'{{"state":"{name}","limit":3}}', pb.TasksRequest)
        assert asked == pb.TasksRequest(limit=3)


@spec("prpc:1.4.1.7")
@pytest.mark.parametrize("text", ["15", "-1", "1e9", "1.5", "true", "[]", "{}", "1e400", "9" * 400])
def test_unknown_number_of_an_enum_is_an_error(text):
    assert "state" in complaint(f'{{"state":{text}}}', pb.TasksRequest)


@spec("prpc:1.4.1.7")
def test_unknown_number_of_an_enum_is_an_error_in_binary_too():
    sort = pb.TasksRequest.FromString(b"\x30\x01")  # 1 is reserved
    assert sort.sort == 1
    assert "SortQuery has no number 1" in complaint(b"\x30\x01", pb.TasksRequest, BINARY)
    deep = pb.NewTaskRequest(
        task_slices=[pb.TaskSlice(properties=pb.TaskProperties(containment=pb.Containment()))]
    )
    deep.task_slices[0].properties.containment.containment_type = 9  # type: ignore[assignment]
    message = complaint(deep.SerializeToString(), encoding=BINARY)
    assert message.startswith("task_slices.properties.containment.containment_type: ")


@spec("prpc:1.4.1.8")
def test_bytes_are_base64_of_either_alphabet():
    assert written(pb.TaskOutputResponse(output=b"\xff\xefhello")) == {"output": "/+9oZWxsbw=="}
    for text in ("/+9o", "_-9o"):
        assert read(f'{{"output":"{text}"}}', pb.TaskOutputResponse).output == b"\xff\xefh"
    for text in ("YQ==", "YQ", "YQ="):
        assert read(f'{{"output":"{text}"}}', pb.TaskOutputResponse).output == b"a"
    for text in ('"a"', '"Y Q="', '"YQ===="', '"YQ==YQ=="', '"ä"', "1", "null,1", "[]"):
        assert complaint(f'{{"output":{text}}}', pb.TaskOutputResponse)


@spec("prpc:1.4.1.9", "prpc:10.p2")
@pytest.mark.parametrize(
    ("nanos", "shown"),
    [(0, ""), (89_000_000, ".089"), (125_000, ".000125"), (1, ".000000001")],
)
def test_times_go_out_in_utc_with_0_3_6_or_9_digits(nanos, shown):
    moment = Timestamp(seconds=1_772_600_767, nanos=nanos)
    assert written(pb.TasksCount(now=moment)) == {"now": f"2026-03-04T05:06:07{shown}Z"}


@spec("prpc:1.4.1.9")
def test_times_come_in_with_any_offset():
    for text in ("2026-03-04T05:06:07.089Z", "2026-03-04T06:06:07.089+01:00"):
        found = read(f'{{"start":"{text}"}}', pb.TasksRequest).start
        assert (found.seconds, found.nanos) == (1_772_600_767, 89_000_000)
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"):
        assert read(f'{{"start":"{text}"}}', pb.TasksRequest).HasField("start")


@spec("prpc:1.4.1.9")
@pytest.mark.parametrize(
    "text",
    [
        '"0000-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59-01:00"',
        '"0001-01-01T00:00:00+01:00"',
        '"2026-02-30T05:06:07Z"',
        '"2026-03-04T05:06:07"',
        '"2026-03-04 05:06:07Z"',
        '"2026-03-04"',
        '""',
        "1772600767",
        "{}",
        "[]",
    ],
)
def test_what_is_no_time_of_the_years_1_to_9999_is_an_error(text):
    assert "start" in complaint(f'{{"start":{text}}}', pb.TasksRequest)


@spec("prpc:1.4.1.9")
def test_times_out_of_the_years_1_to_9999_are_an_error_in_binary_too():
    for seconds, nanos in (
        (codec.LAST_SECOND + 1, 0),
        (codec.FIRST_SECOND - 1, 0),
        (0, -1),
        (0, 10**9),
    ):
        asked = pb.TasksRequest(end=Timestamp(seconds=seconds, nanos=nanos))
        assert "end" in complaint(asked.SerializeToString(), pb.TasksRequest, BINARY)


@spec("prpc:1.4.1.10")
def test_two_members_of_a_oneof_are_an_error():
    kind = pb.BatchGetResultResponse.ResultOrError
    assert "oneof" in complaint('{"result":{},"error":{}}', kind)
    assert read('{"result":null,"error":{}}', kind).WhichOneof("outcome") == "error"
    assert written(kind(task_id="x", error={"code": 5})) == {"taskId": "x", "error": {"code": 5}}


@spec("prpc:1.4.1.11")
def test_text_is_utf_8():
    assert read('{"name":"ä😀\\u00e4"}').name == "ä😀ä"
    assert written(pb.BotInfo(bot_id="ä😀")) == {"botId": "ä😀"}
    for body in (b'{"name":"\xff"}', b'{"name":"\\ud800"}', b"\xef\xbb\xbf{}"):
        assert complaint(body)
    assert complaint(b"\x12\x01\xff", encoding=BINARY)


@spec("prpc:1.4.1.12", "prpc:1.3.2.2")
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        "null",
        '""',
        "1",
        "{",
        "{} {}",
        "{}x",
        '{"a":}',
        "[" * 100_000,
        '{"a":' * 9999,
    ],
)
def test_json_body_is_one_object(text):
    assert "body" in complaint(text)
    assert read(" {} \n") == pb.NewTaskRequest()


@pytest.mark.parametrize(
    "text",
    [
        '{"properties":[]}',
        '{"properties":"ab"}',
        '{"properties":1}',
        '{"taskSlices":{}}',
        '{"taskSlices":[[]]}',
        '{"taskSlices":["x"]}',
        '{"tags":"a"}',
        '{"tags":{"a":1}}',
        '{"tags":[["a"]]}',
        '{"tags":[1]}',
        '{"name":{}}',
        '{"name":[]}',
        '{"name":1}',
        '{"evaluateOnly":"true"}',
        '{"evaluateOnly":1}',
    ],
)
def test_value_of_another_type_is_an_error(text):
    assert complaint(text)


@spec("prpc:1.3.2.2")
def test_binary_body_that_is_no_message_is_an_error():
    for body in (b"\x0a", b"\x0a\x05ab", b"\xff\xff\xff", b"{}"):
        assert complaint(body, encoding=BINARY)


def test_binary_body_with_unknown_fields_is_read():
    assert read(b"\xfa\x3e\x01x\x12\x01n", encoding=BINARY).name == "n"


def outcome(body, encoding):
    """What became of a body, where anything else than a ProtocolError rises."""
    try:
        read(body, encoding=encoding)
    except ProtocolError as error:
        return error.code
    return "message"


@given(st.binary(max_size=60))
def test_any_binary_body_is_a_message_or_code_3(body):
    assert outcome(body, BINARY) in {"message", Code.INVALID_ARGUMENT}


NAMES = [field.json_name for field in pb.NewTaskRequest.DESCRIPTOR.fields] + [
    field.name for field in pb.TaskProperties.DESCRIPTOR.fields
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "properties", "taskSlices"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_any_json_object_is_a_message_or_code_3(value):
    assert outcome(json.dumps(value).encode(), JSON) in {"message", Code.INVALID_ARGUMENT}


@spec("prpc:1.3.2.4")
def test_detail_is_an_any_in_the_encoding_of_the_reply():
    detail = ErrorDetails(response_too_big=ResponseTooBig(response_size=9, response_limit=5))
    packed = base64.b64decode(codec.encode_detail(detail, BINARY), validate=True)
    assert packed == b"\n*type.googleapis.com/luci.prpc.ErrorDetails\x12\x06\n\x04\x08\x09\x10\x05"
    assert json.loads(base64.b64decode(codec.encode_detail(detail, JSON), validate=True)) == {
        "@type": "type.googleapis.com/luci.prpc.ErrorDetails",
        "responseTooBig": {"responseSize": "9", "responseLimit": "5"},
    }
