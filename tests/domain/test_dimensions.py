"""The rules of bot-api 6.1, row by row, and the overlay of a group's dimensions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.domain import dimensions
from botapi.domain.dimensions import dropped_keys, flatten, overlay, quote, unflatten, validate

REGEX = r"^[a-zA-Z\-\_\.][0-9a-zA-Z\-\_\.]*$"
KEYS = st.sampled_from(["id", "os", "pool", "zone", "gpu", "cores"])
VALUES = st.lists(st.sampled_from(["a", "b", "c:d", "e|f"]), min_size=1, max_size=3, unique=True)
DIMS = st.dictionaries(KEYS, VALUES)


@pytest.mark.spec("6.1.1.2", "6.1.1.6", "13.1.25")
def test_validate_is_content_with_good_dimensions():
    dims = {"id": ["b1"], "os": ["Linux", "Ubuntu|x"], "a.-_9": ["x:y"], "pool": ["p"]}
    assert validate(dims) == []
    assert validate({"id": ["b1"], "k" * 64: ["v" * 256]}) == []


@pytest.mark.spec(
    "6.1.1.1",
    "6.1.1.2",
    "6.1.1.3",
    "6.1.1.4",
    "6.1.1.5",
    "6.1.1.6",
    "6.1.1.7",
    "6.1.1.8",
    "6.1.1.9",
    "6.1.1.10",
    "6.1.1.12",
    "13.1.25",
    "13.1.26",
)
@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ({"": ["v"]}, 'key "": empty key'),
        ({"k" * 65: ["v"]}, f'key "{"k" * 65}": key too long: 65 > 64'),
        ({"k" * 70: ["v"]}, f'key "{"k" * 69}...": key too long: 70 > 64'),
        ({"9a": ["v"]}, f'key "9a": key does not match {REGEX}'),
        ({"a b": ["v"]}, f'key "a b": key does not match {REGEX}'),
        ({"a\n": ["v"]}, rf'key "a\n": key does not match {REGEX}'),
        ({"é": ["v"]}, f'key "é": key does not match {REGEX}'),
        ({"a\ud800": ["v"]}, rf'key "a\ud800": key does not match {REGEX}'),
        ({"k": []}, 'key "k": no values'),
        ({"k": [""]}, 'key "k": bad value "": empty value'),
        ({"k": ["ü" * 129]}, f'key "k": bad value "{"ü" * 129}": value too long: 258 > 256'),
        ({"k": ["v" * 262]}, f'key "k": bad value "{"v" * 261}...": value too long: 262 > 256'),
        ({"k": [" v"]}, 'key "k": bad value " v": value has outer spaces'),
        ({"k": ["v\t"]}, r'key "k": bad value "v\t": value has outer spaces'),
        ({"k": ["v\ud800"]}, r'key "k": bad value "v\ud800": value is not Unicode text'),
        ({"id": ["a:b"]}, 'key "id": bad value "a:b": ":" in a bot id'),
        ({"pool": ["a:b"]}, 'key "pool": bad value "a:b": ":" in a pool name'),
        ({"k": ["v", "w", "v"]}, 'key "k": duplicate value "v"'),
        ({"id": ["a", "b"]}, 'key "id": exactly one value expected'),
        ({"id": []}, 'key "id": no values'),
    ],
)
def test_validate_says_each_violation(dims, said):
    assert validate({"id": ["b1"]} | dims) == [f"bad dimensions: {said}"]


@pytest.mark.spec("6.1.1.11")
def test_validate_says_that_the_id_is_missing():
    assert validate({"os": ["Linux"]}) == ['bad dimensions: key "id": missing']


@pytest.mark.spec("6.2.1.3")
def test_validate_says_everything_ordered_by_key():
    assert validate({"z": [""], "9": [], "b": ["x", "x"]}) == [
        f'bad dimensions: key "9": key does not match {REGEX}',
        'bad dimensions: key "9": no values',
        'bad dimensions: key "b": duplicate value "x"',
        'bad dimensions: key "id": missing',
        'bad dimensions: key "z": bad value "": empty value',
    ]


@settings(deadline=None, max_examples=30)
@given(dims=st.dictionaries(st.text(max_size=6), st.lists(st.text(max_size=6), max_size=3)))
def test_validate_says_single_printable_lines_of_anything(dims):
    assert all(line.isprintable() for line in validate(dims))


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [('a"b\\', 9, r'"a\"b\\"'), ("üü", 3, '"ü..."'), ("üü", 4, '"üü"'), ("\x00é", 9, r'"\x00é"')],
)
def test_quote_cuts_at_a_character_and_escapes(text, limit, shown):
    assert quote(text, limit) == shown


def test_flatten_sorts_pairs_and_drops_repeats():
    assert flatten({"os": ["b", "a", "b"], "id": ["x:y"]}) == ("id:x:y", "os:a", "os:b")


@settings(deadline=None, max_examples=30)
@given(dims=DIMS)
def test_unflatten_is_the_inverse_of_flatten(dims):
    assert unflatten(flatten(dims)) == {key: sorted(values) for key, values in dims.items()}


@pytest.mark.control("bots.trusted-dimensions")
@pytest.mark.spec("3.1.1.7")
@settings(deadline=None, max_examples=30)
@given(reported=DIMS, group=DIMS, trusted=st.sets(KEYS))
def test_overlay_never_lets_a_bot_decide_a_key_that_is_not_its_own(reported, group, trusted):
    dims = overlay(reported, group, trusted)
    assert dims.get("id") == reported.get("id")
    for key in {*dims, *group, *trusted} - {"id"}:
        if key in group:
            assert dims[key] == group[key]
        elif key in trusted:
            assert key not in dims
        else:
            assert dims[key] == reported[key]


@pytest.mark.spec("3.1.1.7")
@settings(deadline=None, max_examples=30)
@given(reported=DIMS, more=DIMS, group=DIMS, trusted=st.sets(KEYS))
def test_overlay_gives_the_same_trusted_values_whatever_a_bot_reports(
    reported, more, group, trusted
):
    barred = ({*group} | trusted) - {"id"}
    one, other = (overlay(dims, group, trusted) for dims in (reported, more))
    assert {k: one.get(k) for k in barred} == {k: other.get(k) for k in barred}


@settings(deadline=None, max_examples=30)
@given(reported=DIMS, group=DIMS, trusted=st.sets(KEYS))
def test_dropped_keys_are_those_that_overlay_drops(reported, group, trusted):
    gone = {*reported} - {*overlay(reported, group, trusted)}
    assert dropped_keys(reported, group, trusted) == tuple(sorted(gone))


def test_overlay_gives_copies():
    reported, group = {"id": ["b"], "os": ["x"]}, {"pool": ("p",)}
    dims = overlay(reported, group, [])
    dims["os"].append("y")
    assert reported["os"] == ["x"]
    assert dims == {"id": ["b"], "os": ["x", "y"], "pool": ["p"]}


@pytest.mark.spec("6.1.1.3")
def test_key_problem_takes_the_regular_expression_to_the_letter():
    assert dimensions.key_problem("-a.B_9") == ""
    assert dimensions.key_problem(".") == ""
