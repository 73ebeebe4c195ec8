"""The grammar of bot-api 1.3, 1.6, 7.3 and 9.4, with the vectors of Appendix B."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain import names
from botapi.domain.errors import Code, Refusal

REQUEST_IDS = st.integers(0, names.MAX_REQUEST_ID)


@pytest.mark.parametrize("bot_id", ["b", "vm1-m1", "vm1--gpu0", "ü" * 128, "x" * 256, "a b", "a|b"])
def test_check_bot_id_accepts(bot_id):
    names.check_bot_id(bot_id)


@pytest.mark.spec("1.3.2.2", "3.1.1.2")
@pytest.mark.parametrize(
    ("bot_id", "problem"),
    [
        ("", "empty value"),
        ("x" * 257, "value too long: 257 > 256"),
        ("ü" * 129, "value too long: 258 > 256"),
        (" a", "value has outer spaces"),
        ("a\n", "value has outer spaces"),
        ("a:b", '":" in a bot id'),
        ("a\ud800", "value is not Unicode text"),
    ],
)
def test_check_bot_id_refuses(bot_id, problem):
    with pytest.raises(Refusal) as caught:
        names.check_bot_id(bot_id)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message == f"bad bot id: {problem}"


@pytest.mark.parametrize(
    ("bot_id", "host"),
    [("vm1", "vm1"), ("vm1--a", "vm1"), ("vm1--a--b", "vm1"), ("vm1-a", "vm1-a"), ("a---b", "a")],
)
def test_host_id_ends_before_the_first_double_dash(bot_id, host):
    assert names.host_id(bot_id) == host


@pytest.mark.spec("1.3.1.4", "13.1.3")
@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a", True),
        ("f1e2/42-_", True),
        ("x" * 50, True),
        ("", False),
        ("x" * 51, False),
        ("A", False),
        ("a b", False),
        ("a\n", False),
        ("é", False),
    ],
)
def test_is_session_id(text, is_one):
    assert names.is_session_id(text) is is_one


@pytest.mark.spec("1.6.1.6", "13.1.4")
@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("", True),
        ("aZ9-_/", True),
        ("x" * 50, True),
        ("x" * 51, False),
        ("a.b", False),
        ("a\n", False),
        ("٣", False),
    ],
)
def test_is_request_uuid(text, is_one):
    assert names.is_request_uuid(text) is is_one


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("p-60b2ed0a43023110-0-1", True),
        ("x" * 128, True),
        ("", False),
        ("x" * 129, False),
        ("a b", False),
        ("a!b", False),
    ],
)
def test_is_lease_id(text, is_one):
    assert names.is_lease_id(text) is is_one


@pytest.mark.spec("9.4.1.1", "9.4.1.2", "9.4.1.3", "9.4.1.4", "B.1.1", "B.1.2")
def test_ids_are_those_of_the_specification():
    request_id = names.request_key(8787878774240697582)
    assert names.task_id(request_id) == "60b2ed0a43023110"
    assert names.run_id("60b2ed0a43023110") == "60b2ed0a43023111"
    midnight = 1_707_436_800_000  # 2024-02-09T00:00:00Z
    assert names.request_key(names.new_request_id(midnight, 0)) == 8756616465961975806
    made = names.new_request_id(1_772_600_767_089, 0xBEEF)  # 2026-03-04T05:06:07.089Z
    assert names.task_id(made) == "76d00eba71beef10"
    assert names.request_key(made) == 8688287094006878478
    assert names.task_created_ms("76d00eba71beef11") == 1_772_600_767_089


@pytest.mark.spec("9.4.1.1", "9.4.1.2", "9.4.1.10")
@given(ms=st.integers(0, (1 << 43) - 1), random16=st.integers(0, 0xFFFF))
def test_new_request_id_holds_its_time_and_sorts_newest_first_by_key(ms, random16):
    now = names.TASK_EPOCH_MS + ms
    request_id = names.new_request_id(now, random16)
    assert request_id & 0xF == 1
    assert names.task_created_ms(names.task_id(request_id)) == now
    if ms:
        assert names.request_key(names.new_request_id(now - 1, random16)) > names.request_key(
            request_id
        )


@pytest.mark.parametrize(
    ("now_ms", "random16"),
    [
        (names.TASK_EPOCH_MS - 1, 0),
        (names.TASK_EPOCH_MS + (1 << 43), 0),
        (names.TASK_EPOCH_MS, -1),
        (names.TASK_EPOCH_MS, 1 << 16),
    ],
)
def test_new_request_id_refuses_what_does_not_fit(now_ms, random16):
    with pytest.raises(ValueError, match=r"no request id|16-bit"):
        names.new_request_id(now_ms, random16)


@pytest.mark.spec("9.4.1.3", "9.4.1.4", "9.4.1.5")
@given(request_id=REQUEST_IDS)
def test_parse_task_id_gives_the_task_id_of_both_forms(request_id):
    task_id = names.task_id(request_id)
    assert names.parse_task_id(task_id) == task_id
    assert names.parse_task_id(names.run_id(task_id)) == task_id
    assert names.parse_task_id("0" * (17 - len(task_id)) + task_id) == task_id
    assert names.request_id(task_id) == request_id
    assert names.request_key(names.request_key(request_id)) == request_id


@pytest.mark.spec("9.4.1.5")
@pytest.mark.parametrize(
    "text",
    ["", "1", "6G", "60B2", "60b2 ", "60b2\n", "-10", "0x10", "8" + "0" * 16, "1" * 18, "٣٣"],
)
def test_parse_task_id_refuses(text):
    with pytest.raises(ValueError, match="not a task id"):
        names.parse_task_id(text)


@given(text=st.text(alphabet="0123456789abcdefg-", max_size=20))
def test_parse_task_id_raises_nothing_but_value_error(text):
    with suppress(ValueError):
        assert names.parse_task_id(text).endswith("0")
