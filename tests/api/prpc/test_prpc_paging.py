"""What lists of the public API have in common."""

import pytest
from swarmingpb.swarming_pb2 import StringPair, TasksRequest

from botapi.api.prpc import paging
from botapi.auth.keys import SIGNING
from botapi.auth.signing import Purpose, sign
from botapi.domain.errors import Code, Refusal
from botapi.domain.names import TASK_EPOCH_MS, new_request_id, task_id
from botapi.store import codec

NOW_MS = 1_772_604_367_089


def pairs(*flat):
    return [StringPair(key=one.partition(":")[0], value=one.partition(":")[2]) for one in flat]


def refused(call, *args):
    with pytest.raises(Refusal) as caught:
        call(*args)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def asked(start=None, end=None):
    message = TasksRequest()
    for name, ms in (("start", start), ("end", end)):
        if ms is not None:
            getattr(message, name).FromMilliseconds(ms)
    return message


@pytest.mark.spec("prpc:2.2.1.1")
def test_page_limit_is_100_unless_1_to_1000_is_asked_for():
    assert [paging.page_limit(n) for n in (0, 1, 1000)] == [100, 1, 1000]
    for n in (-1, 1001, 2**31 - 1):
        assert "limit" in refused(paging.page_limit, n)


@pytest.mark.spec("prpc:2.2.1.2", "prpc:2.2.1.3", "prpc:2.2.1.4", "prpc:10.p9")
def test_cursor_comes_with_a_full_page_and_is_good_for_its_method_only(parts):
    parts = parts.api
    assert paging.next_cursor(parts, "ListBots", "vm1", False) == ""
    cursor = paging.next_cursor(parts, "ListBots", "vm1", True)
    assert paging.read_cursor(parts, "ListBots", cursor) == "vm1"
    assert paging.read_cursor(parts, "ListBots", "") is None
    assert "another list" in refused(paging.read_cursor, parts, "ListTasks", cursor)


@pytest.mark.spec("prpc:2.2.1.3", "prpc:10.p9")
def test_cursor_that_is_damaged_or_foreign_is_refused(parts):
    parts = parts.api
    cursor = paging.next_cursor(parts, "ListBots", "vm1", True)
    keys = parts.keys.keys(SIGNING)
    foreign = [
        sign(Purpose.CURSOR, [b"another key"], {"l": "ListBots", "a": "vm1"}, now_ms=NOW_MS),
        sign(Purpose.CSRF, keys, {"l": "ListBots", "a": "vm1"}, now_ms=NOW_MS),
        sign(Purpose.CURSOR, keys, ["ListBots"], now_ms=NOW_MS),
        sign(Purpose.CURSOR, keys, {"l": "bots", "a": "vm1"}, now_ms=NOW_MS),
    ]
    damaged = [cursor[:-1], "x" + cursor, cursor + "x", "vm1", "ä", "A" * 20_000]
    for text in (*damaged, *foreign):
        assert "cursor" in refused(paging.read_cursor, parts, "ListBots", text)


@pytest.mark.spec("prpc:2.3.p1")
def test_dimensions_are_constraints_with_alternatives_each_once():
    found = paging.constraints(pairs("pool:ci", "os:Linux|Mac|Linux", "pool:ci", "os:Mac|Linux"))
    assert found == (frozenset({"pool:ci"}), frozenset({"os:Linux", "os:Mac"}))
    assert paging.constraints([]) == ()


@pytest.mark.spec("prpc:2.3.1.1", "prpc:2.3.1.2", "prpc:2.3.1.4")
@pytest.mark.parametrize(
    "flat",
    [
        ":x",
        "9k:x",
        "k k:x",
        "k" * 65 + ":x",
        "os:",
        "os:a||b",
        "os: a",
        "os:a ",
        "os:" + "x" * 257,
        "pool:a:b",
        "id:a:b",
    ],
)
def test_bad_dimension_filter_is_refused(flat):
    assert refused(paging.constraints, pairs(flat)).startswith("dimensions: ")


@pytest.mark.spec("prpc:2.3.1.1", "prpc:2.3.1.2")
def test_dimension_filter_takes_what_is_just_allowed():
    flat = ["k" * 64 + ":x", "os:" + "x" * 256, "url:http://x", "-._a1:b c"]
    assert paging.constraints(pairs(*flat)) == tuple(frozenset({one}) for one in flat)


@pytest.mark.spec("prpc:2.3.p1")
def test_tags_are_split_at_the_first_colon():
    found = paging.tag_constraints(["a:b:c", "job:x|y", "a:b:c", "job:y|x"])
    assert found == (frozenset({"a:b:c"}), frozenset({"job:x", "job:y"}))


@pytest.mark.spec("prpc:2.3.1.1", "prpc:2.3.1.2", "prpc:2.3.1.3", "prpc:2.3.1.4")
@pytest.mark.parametrize(
    "tag", ["x", "", ":x", " a:x", "a :x", "a:", "a: x", "a:x ", "a:x|", "a:|"]
)
def test_bad_tag_filter_is_refused(tag):
    assert refused(paging.tag_constraints, [tag]).startswith("tags: ")


def test_filter_with_more_values_than_a_store_can_answer_is_refused():
    tags = [f"a:{n}" for n in range(25)]
    assert len(paging.tag_constraints(tags)) == 25
    assert "at most 25" in refused(paging.tag_constraints, [*tags, "b:1"])
    assert "at most 25" in refused(paging.constraints, pairs("os:" + "|".join(map(str, range(26)))))


@pytest.mark.spec("prpc:2.3.p1")
def test_pools_of_a_filter_are_all_alternatives_of_all_its_pools():
    wanted = paging.constraints(pairs("pool:a|b", "os:Linux", "pool:b", "pools:x"))
    assert paging.pools_of(wanted) == {"a", "b"}


@pytest.mark.spec("prpc:2.4.p1")
def test_creation_range_is_cut_to_milliseconds_and_not_empty():
    message = asked(NOW_MS, NOW_MS + 1)
    message.start.nanos += 999_999
    assert paging.creation_range(message) == (NOW_MS, NOW_MS + 1)
    assert paging.creation_range(asked()) == (0, 0)
    message = asked(NOW_MS, NOW_MS)
    message.end.nanos += 999_999
    assert "before end" in refused(paging.creation_range, message)
    assert "before end" in refused(paging.creation_range, asked(NOW_MS + 1, NOW_MS))


@pytest.mark.spec("prpc:2.4.p1")
def test_creation_before_2010_cannot_be_said():
    assert paging.creation_range(asked(TASK_EPOCH_MS)) == (TASK_EPOCH_MS, 0)
    for start, end in ((TASK_EPOCH_MS - 1, None), (None, TASK_EPOCH_MS - 1), (0, None), (None, 0)):
        assert "2010" in refused(paging.creation_range, asked(start, end))


def test_creation_range_beyond_every_task_id_is_no_bound():
    far = 253_402_300_799_000
    assert paging.creation_range(asked(NOW_MS, far)) == (NOW_MS, 0)
    assert paging.creation_range(asked(far)) == (paging.LAST_MS, 0)
    assert new_request_id(paging.LAST_MS, 0) > 0


@pytest.mark.spec("prpc:2.2.1.6")
def test_task_cursor_outside_of_the_range_is_refused():
    key = codec.task_key(task_id(new_request_id(NOW_MS, 7)))
    for start, end in ((0, 0), (NOW_MS, NOW_MS + 1), (NOW_MS, 0), (0, NOW_MS + 1)):
        paging.check_task_cursor(key, start, end)
    paging.check_task_cursor(None, NOW_MS, NOW_MS + 1)
    for start, end in ((NOW_MS + 1, 0), (0, NOW_MS)):
        assert "cursor" in refused(paging.check_task_cursor, key, start, end)
