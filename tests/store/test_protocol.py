"""How the components of a key become one, and come apart again."""

from hypothesis import given
from hypothesis import strategies as st

from botapi.store.protocol import join_key, prefix_range, split_key

COMPONENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COMPONENTS = st.lists(COMPONENT, min_size=1, max_size=4)


@given(components=COMPONENTS)
def test_split_key_undoes_join_key(components):
    assert split_key(join_key(*components)) == components


@given(components=COMPONENTS)
def test_join_key_leaves_no_separator_in_a_component(components):
    key = join_key(*components)
    assert key.count("!") == len(components) - 1
    assert "/" not in key
    assert all(ord(c) > 0x20 for c in key)


@given(prefix=COMPONENTS, other=COMPONENTS)
def test_prefix_range_decides_by_components(prefix, other):
    lo, hi = prefix_range(*prefix)
    longer = other[: len(prefix)] == prefix and len(other) > len(prefix)
    assert (lo <= join_key(*other) < hi) == longer


@given(left=COMPONENTS, right=COMPONENTS)
def test_join_key_keeps_the_order_of_components_when_they_need_no_escape(left, right):
    plain = [[part for part in parts if part.isalnum()] for parts in (left, right)]
    if all(plain):
        assert (join_key(*plain[0]) < join_key(*plain[1])) == (plain[0] < plain[1])
