"""The tags that the server adds to a task."""

from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.task_tags import MAX_ALL_TAGS, all_tags
from tests.factories import make_request, make_slice


def test_task_gets_a_tag_for_each_thing_that_was_settled():
    request = make_request(
        tags=("job:nightly", "os:Linux"),
        priority=20,
        realm="proj:ci",
        service_account="a@example.com",
        user="dev",
        authenticated="user:dev@example.com",
        parent_task_id="76d00eba71beef11",
        template="canary",
        slices=[
            make_slice(dimensions={"pool": ("ci",), "os": ("Linux|Mac", "x")}),
            make_slice(dimensions={"pool": ("ci",), "cpu": ("arm",)}),
        ],
    )
    assert all_tags(request, "r7") == (
        "authenticated:user:dev@example.com",
        "cpu:arm",
        "job:nightly",
        "os:Linux",
        "os:Mac",
        "os:x",
        "parent_task_id:76d00eba71beef11",
        "pool:ci",
        "priority:20",
        "rbe:none",
        "realm:proj:ci",
        "service_account:a@example.com",
        "swarming.pool.task_template:canary",
        "swarming.pool.version:r7",
        "user:dev",
    )


def test_what_was_not_said_is_none():
    tags = all_tags(make_request(service_account=""), "r0")
    assert {"realm:none", "service_account:none", "user:none"} <= set(tags)
    assert not any(tag.startswith("parent_task_id:") for tag in tags)


words = st.text("ab:|", min_size=1, max_size=4)


@given(
    st.lists(st.tuples(words, words).map(":".join)), st.dictionaries(words, st.tuples(words, words))
)
def test_tags_are_sorted_and_unique_and_lose_nothing(tags, dimensions):
    found = all_tags(make_request(tags=tags, slices=[make_slice(dimensions=dimensions)]), "r1")
    assert list(found) == sorted(set(found))
    assert set(tags) <= set(found)


def test_values_beyond_what_a_store_can_index_have_no_tag():
    dimensions = {"a": tuple(str(n) for n in range(500)), "pool": ("default",)}
    asked = tuple(f"k:{n}" for n in range(256))
    request = make_request(slices=[make_slice(dimensions=dimensions)], tags=asked)
    tags = all_tags(request, "r1")
    assert len(tags) == MAX_ALL_TAGS
    assert {*asked, "pool:default", "user:none", "rbe:none", "a:0"} <= set(tags)
