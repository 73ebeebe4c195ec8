"""The filter language: what a text means, and what is said about one that means nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.filter_language import (
    MAX_CHARS,
    MAX_DEPTH,
    MAX_TERMS,
    All,
    Compares,
    Either,
    FilterError,
    Has,
    Kind,
    Not,
    Text,
    Vocabulary,
    is_typo,
    parse,
    passes,
    seconds,
)

WORDS = Vocabulary(
    keys={
        "name": Kind.TEXT,
        "state": Kind.TEXT,
        "exit": Kind.NUMBER,
        "duration": Kind.SECONDS,
        "created": Kind.AGE,
    },
    words={"state": frozenset({"pending", "running", "final"})},
    other="tag",
    paths=("disk",),
)


class Thing:
    """Facts from a dict."""

    def __init__(self, **values):
        self.found = {name.replace("__", "."): value for name, value in values.items()}

    def values(self, key):
        found = self.found.get(key, ())
        return found if isinstance(found, (list, tuple)) else [found]

    def texts(self):
        return [str(value) for value in self.found.values()]


def read(text):
    return parse(text, WORDS)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", All()),
        ("   ", All()),
        ("name:a", All((Has("name", ("a",)),))),
        ("name:a|b|a", All((Has("name", ("a", "b")),))),
        ('name:"a b"|"c\\"d"', All((Has("name", ("a b", 'c"d')),))),
        ("name:a-b:c*/d", All((Has("name", ("a-b:c*/d",)),))),
        ("-name:a", All((Not(Has("name", ("a",))),))),
        ("name!=a|b", All((Not(Has("name", ("a", "b"))),))),
        ("name:*", All((Has("name"),))),
        ("-build:*", All((Not(Has("tag.build")),))),
        ("build:7 name:x", All((Has("tag.build", ("7",)), Has("name", ("x",))))),
        ("tag.name:x", All((Has("tag.name", ("x",)),))),
        ("state:FINAL", All((Has("state", ("final",)),))),
        ("exit>=3", All((Compares("exit", ">=", 3.0),))),
        ("exit:<-1.5", All((Compares("exit", "<", -1.5),))),
        ("exit:3.0", All((Has("exit", ("3",)),))),
        ("created:>2h", All((Compares("created", ">", 7200.0),))),
        ("duration<=1d2h3m4.5s", All((Compares("duration", "<=", 93784.5),))),
        ("disk.free_mb<2000", All((Compares("disk.free_mb", "<", 2000.0),))),
        ('"free text"', All((Text("free text"),))),
        ("word -other", All((Text("word"), Not(Text("other"))))),
        ("ORDER", All((Text("ORDER"),))),
        (
            "name:a OR name:b exit:1",
            All(
                (
                    Either(
                        (
                            All((Has("name", ("a",)),)),
                            All((Has("name", ("b",)), Has("exit", ("1",)))),
                        )
                    ),
                )
            ),
        ),
        (
            "-(name:a) OR (name:b)",
            All(
                (
                    Either(
                        (
                            All((Not(All((Has("name", ("a",)),))),)),
                            All((All((Has("name", ("b",)),)),)),
                        )
                    ),
                )
            ),
        ),
    ],
)
def test_text_is_read_as_it_is_meant(text, meant):
    assert read(text) == meant


@pytest.mark.parametrize(
    ("text", "at", "part", "said"),
    [
        ("name:", 0, "name:", "has no value"),
        ("a:b name:a|", 4, "name:a|", "has no value"),
        ("state:gone", 6, "gone", "use one of final, pending, running"),
        ("x:1 stata:final", 4, "stata", "do you mean state? There are: created,"),
        ("craeted:>1h", 0, "craeted", "write tag.craeted"),
        ("name>3", 0, "name>3", "> goes with created, duration, exit"),
        ("build>3", 0, "build>3", "is a text"),
        ("exit>", 0, "exit>", "has no number"),
        ("exit>two", 0, "exit>two", '"two" is not a number'),
        ("created:>soon", 0, "created:>soon", "is not a age such as 90s"),
        ("exit:x", 0, "exit:x", "is not a number"),
        ("name=a", 0, "name=a", "write name:value"),
        ("(name:a", 0, "(name:a", "add )"),
        ("name:a)", 6, ")", "closes nothing"),
        ("()", 0, "()", "holds no term"),
        ('"open', 0, '"open', 'add "'),
        ('name:"open', 0, 'name:"open', "has no value"),
        ("name:a OR", 9, "(end)", "either side"),
        ("OR name:a", 0, "OR", "either side"),
        (":a", 0, ":a", "a term is key:value"),
        ("-", 1, "(end)", "a term is key:value"),
    ],
)
def test_mistake_is_told_with_its_place(text, at, part, said):
    with pytest.raises(FilterError) as refused:
        read(text)
    error = refused.value
    assert (error.at, error.part) == (at, part)
    assert said in error.problem
    assert f"at character {at + 1}" in str(error)


def test_sizes_are_bounded():
    for text, said in (
        ("x" * (MAX_CHARS + 1), "over 4096 characters"),
        ("a:b " * (MAX_TERMS + 1), "more than 100 terms"),
        ("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), "more than 10 brackets"),
    ):
        with pytest.raises(FilterError, match=said):
            read(text)
    assert read("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)


THING = Thing(
    name="Build it", state=["running"], exit=3, duration=61.5, tag__os=["linux", "linux-6"],
    disk__free_mb=1999,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("state:running", True),
        ("state:pending|running", True),
        ("state:pending", False),
        ("-state:pending", True),
        ("os:linux", True),
        ("os:linux-6 exit:3", True),
        ("os!=linux", False),
        ("os:Linux", False),
        ("os:*", True),
        ("gpu:*", False),
        ("-gpu:*", True),
        ("exit>=3", True),
        ("exit>3", False),
        ("exit<4 exit>2", True),
        ("created:>1h", False),
        ("duration>1m", True),
        ("duration:61.5s", True),
        ("disk.free_mb<2000", True),
        ('"BUILD"', True),
        ('"build us"', False),
        ("exit:9 OR os:linux", True),
        ("exit:9 OR (os:linux state:final)", False),
        ("-(exit:9 OR state:final)", True),
    ],
)
def test_filter_passes_what_it_should(text, holds):
    assert passes(read(text), THING) is holds


@given(st.text(alphabet='ab:|-*<>=!()"\\ OR.0159hms', max_size=40))
def test_every_text_is_read_or_refused_with_a_place_inside_it(text):
    error = problem_of(text)
    if error is None:
        assert passes(read(text), THING) in {True, False}
    else:
        assert 0 <= error.at <= len(text)
        assert error.part == "(end)" or text.startswith(error.part, error.at)


def problem_of(text):
    try:
        read(text)
    except FilterError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("given", "known", "is_one"),
    [
        ("stat", "state", True),
        ("sstate", "state", True),
        ("stete", "state", True),
        ("satte", "state", True),
        ("state", "state", False),
        ("stats", "state", True),
        ("os", "bot", False),
        ("bat", "bot", False),
        ("build", "state", False),
    ],
)
def test_typo_is_one_slip(given, known, is_one):
    assert is_typo(given, known) is is_one


def test_spans_are_seconds():
    assert [seconds(text) for text in ("90", "1.5s", "2h30m", "1d", "", "h", "1h2d")] == [
        90, 1.5, 9000, 86400, None, None, None,
    ]  # fmt: skip
