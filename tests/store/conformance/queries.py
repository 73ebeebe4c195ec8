"""Scans, finds and counts."""

import pytest

from botapi.store.protocol import MAX_ALTERNATIVES, Page, TooLarge
from tests.store.conformance.support import any_of, delete, doc, keys_of, put

FLEET = [
    doc("a", "os:linux", "pool:x", "s:alive"),
    doc("b", "os:mac", "pool:x", "s:alive"),
    doc("c", "os:linux", "pool:y", "s:dead"),
    doc("d", "os:win", "pool:y", "s:alive"),
    doc("e", "os:linux", "pool:x", "s:dead"),
    doc("f"),
]


def pages(store, all_of, limit, **bounds):
    """Every page of a find, followed by its cursor."""
    after, found = None, []
    while True:
        page = store.find("bot", all_of, after=after, limit=limit, **bounds)
        found.append(keys_of(page.docs))
        after = page.after
        if after is None:
            return found


class Queries:
    @pytest.fixture
    def fleet(self, store):
        put(store, "bot", *FLEET)
        return store

    @pytest.mark.parametrize(
        ("lo", "hi", "limit", "expected"),
        [
            ("a", "z", 9, "abcdef"),
            ("b", "e", 9, "bcd"),
            ("bb", "dd", 9, "cd"),
            ("a", "z", 2, "ab"),
            ("c", "c", 9, ""),
            ("e", "b", 9, ""),
            ("", "b", 9, "a"),
            ("g", "z", 9, ""),
        ],
    )
    def test_scan_gives_half_open_range_up_to_limit(self, fleet, lo, hi, limit, expected):
        assert keys_of(fleet.scan("bot", lo, hi, limit=limit)) == list(expected)
        assert fleet.scan_keys("bot", lo, hi, limit=limit) == list(expected)

    @pytest.mark.parametrize(
        ("lo", "hi", "limit", "expected"),
        [("a", "z", 9, "fedcba"), ("b", "e", 2, "dc"), ("e", "b", 9, ""), ("c", "d", 1, "c")],
    )
    def test_scan_descends_from_the_end_when_reverse(self, fleet, lo, hi, limit, expected):
        assert keys_of(fleet.scan("bot", lo, hi, limit=limit, reverse=True)) == list(expected)
        assert fleet.scan_keys("bot", lo, hi, limit=limit, reverse=True) == list(expected)

    def test_scan_gives_whole_documents(self, fleet):
        assert fleet.scan("bot", "a", "z", limit=9) == FLEET

    @pytest.mark.parametrize(
        ("all_of", "expected"),
        [
            ([], "abcdef"),
            ([any_of("os:linux")], "ace"),
            ([any_of("os:linux", "os:mac")], "abce"),
            ([any_of("os:linux"), any_of("pool:x")], "ae"),
            ([any_of("os:linux", "os:win"), any_of("pool:y", "pool:z")], "cd"),
            ([any_of("os:linux"), any_of("pool:x"), any_of("s:dead")], "e"),
            ([any_of("os:linux", "pool:x")], "abce"),
            ([any_of("os:linux"), any_of("os:linux")], "ace"),
            ([any_of("nothing")], ""),
            ([any_of("os:linux"), any_of("nothing")], ""),
        ],
    )
    def test_find_and_count_match_every_any_of(self, fleet, all_of, expected):
        assert keys_of(fleet.find("bot", all_of, after=None, limit=9).docs) == list(expected)
        assert "".join(key for page in pages(fleet, all_of, 1) for key in page) == expected
        assert fleet.count("bot", all_of, up_to=99) == len(expected)

    def test_find_says_whether_there_is_more_when_page_is_full(self, fleet):
        assert pages(fleet, [any_of("os:linux")], 2) == [["a", "c"], ["e"]]
        assert pages(fleet, [any_of("os:linux")], 3) == [["a", "c", "e"]]
        assert pages(fleet, [], 4) == [["a", "b", "c", "d"], ["e", "f"]]

    def test_find_gives_whole_documents(self, fleet):
        expected = Page([FLEET[0], FLEET[2], FLEET[4]], None)
        assert fleet.find("bot", [any_of("os:linux")], after=None, limit=3) == expected

    @pytest.mark.parametrize("all_of", [[], [any_of("os:linux", "os:mac", "os:win")]])
    def test_find_stays_within_its_bounds(self, fleet, all_of):
        assert pages(fleet, all_of, 9, lo="b", hi="e") == [["b", "c", "d"]]
        assert pages(fleet, all_of, 1, lo="b", hi="d") == [["b"], ["c"]]
        page = fleet.find("bot", all_of, after="a", limit=9, lo="c", hi="e")
        assert keys_of(page.docs) == ["c", "d"]
        page = fleet.find("bot", all_of, after="c", limit=9, lo="b", hi="e")
        assert keys_of(page.docs) == ["d"]

    @pytest.mark.parametrize("all_of", [[], [any_of("os:linux", "os:mac", "os:win")]])
    def test_count_stays_within_its_bounds(self, fleet, all_of):
        assert fleet.count("bot", all_of, up_to=9, lo="b", hi="e") == 3
        assert fleet.count("bot", all_of, up_to=2, lo="b", hi="e") == 2
        assert fleet.count("bot", all_of, up_to=9, lo="e", hi="f") == 1
        assert fleet.count("bot", all_of, up_to=9, lo="d", hi="b") == 0

    @pytest.mark.parametrize("all_of", [[], [any_of("os:linux")]])
    def test_cursor_stays_valid_while_documents_come_and_go(self, fleet, all_of):
        first = fleet.find("bot", all_of, after=None, limit=2)
        delete(fleet, "bot", "a", first.after)
        put(fleet, "bot", doc("Z", "os:linux"), doc("cc", "os:linux"))
        second = fleet.find("bot", all_of, after=first.after, limit=99)
        expected = sorted({"cc", "e"} | ({"c", "d", "f"} if not all_of else set()))
        assert keys_of(second.docs) == expected

    def test_find_follows_tags_when_they_change(self, fleet):
        put(fleet, "bot", doc("a", "os:mac"), doc("f", "os:linux"))
        delete(fleet, "bot", "c")
        assert pages(fleet, [any_of("os:linux")], 9) == [["e", "f"]]
        assert pages(fleet, [any_of("os:mac")], 9) == [["a", "b"]]
        put(fleet, "bot", doc("a"))
        assert pages(fleet, [any_of("os:mac")], 9) == [["b"]]
        assert fleet.count("bot", [any_of("pool:x")], up_to=9) == 2

    def test_count_goes_no_further_than_up_to(self, fleet):
        assert fleet.count("bot", [any_of("os:linux")], up_to=2) == 2
        assert fleet.count("bot", [], up_to=3) == 3
        assert fleet.count("bot", [], up_to=6) == 6

    def test_find_works_when_alternatives_are_just_at_the_cap(self, fleet):
        ten = any_of("os:linux", *(f"x{n}" for n in range(9)))
        assert pages(fleet, [ten, ten, ten], 9) == [["a", "c", "e"]]
        assert fleet.count("bot", [ten, ten, ten], up_to=9) == 3

    def test_find_and_count_refuse_when_alternatives_are_over_the_cap(self, fleet):
        many = [any_of(*(f"x{n}" for n in range(MAX_ALTERNATIVES))), any_of("y")]
        with pytest.raises(TooLarge, match="alternatives"):
            fleet.find("bot", many, after=None, limit=1)
        with pytest.raises(TooLarge, match="alternatives"):
            fleet.count("bot", many, up_to=1)

    def test_queries_refuse_what_asks_for_nothing(self, fleet):
        for ask in (
            lambda: fleet.find("bot", [any_of()], after=None, limit=1),
            lambda: fleet.count("bot", [any_of()], up_to=1),
            lambda: fleet.find("bot", [], after=None, limit=0),
            lambda: fleet.count("bot", [], up_to=0),
            lambda: fleet.scan("bot", "a", "b", limit=-1),
            lambda: fleet.scan_keys("bot", "a", "b", limit=0),
        ):
            with pytest.raises(ValueError, match=r"limit|AnyOf"):
                ask()

    def test_queries_are_empty_when_kind_was_never_written(self, store):
        assert store.scan("nothing", "a", "z", limit=9) == []
        assert store.scan_keys("nothing", "a", "z", limit=9) == []
        assert store.find("nothing", [], after=None, limit=9) == Page([], None)
        assert store.find("nothing", [any_of("x"), any_of("y")], after=None, limit=9).docs == []
        assert store.count("nothing", [any_of("x")], up_to=9) == 0
        assert store.sweep_expired("nothing", 10, 9) == 0

    def test_find_is_empty_when_kind_never_had_tags(self, store):
        put(store, "plain", doc("a"))
        assert store.find("plain", [any_of("x")], after=None, limit=9) == Page([], None)
        assert store.count("plain", [any_of("x")], up_to=9) == 0
