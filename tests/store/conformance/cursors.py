"""Walks through many documents, page by page, while others write."""

import pytest

from tests.store.conformance.support import Effort, any_of, delete, doc, keys_of, put


class Cursors(Effort):
    @pytest.fixture
    def crowd(self, store):
        store.write_many(
            ("bot", doc(f"b{n:05}", "all", f"mod:{n % 7}", n=n)) for n in range(self.many)
        )
        return store

    def test_one_answer_is_whole_when_it_is_larger_than_an_engines_part(self, crowd):
        every = [f"b{n:05}" for n in range(self.many)]
        assert crowd.scan_keys("bot", "a", "z", limit=self.many + 1) == every
        assert keys_of(crowd.scan("bot", "a", "z", limit=self.many)) == every
        last = every[-self.many // 2 :][::-1]
        assert crowd.scan_keys("bot", "a", "z", limit=len(last), reverse=True) == last
        page = crowd.find("bot", [any_of("all")], after=None, limit=self.many)
        assert (keys_of(page.docs), page.after) == (every, None)
        assert crowd.count("bot", [any_of("all")], up_to=9_999) == self.many
        found = crowd.get("bot", *every)
        assert keys_of(found) == every

    @pytest.mark.parametrize(
        "all_of", [[], [any_of("mod:1", "mod:2")], [any_of("all"), any_of("mod:3")]]
    )
    def test_walk_sees_once_whatever_stays_while_others_come_and_go(self, crowd, all_of):
        stays = {
            f"b{n:05}"
            for n in range(self.many)
            if n % 5 and all(f"mod:{n % 7}" in each or "all" in each for each in all_of)
        }
        seen, after, turn = [], None, 0
        while True:
            page = crowd.find("bot", all_of, after=after, limit=max(20, self.many // 9))
            seen += keys_of(page.docs)
            turn += 1
            gone = [f"b{n:05}" for n in range(turn * 5, self.many, 60)]
            delete(crowd, "bot", *gone)
            put(crowd, "bot", *(doc(key + "x", "all", "mod:1", "mod:3") for key in gone))
            after = page.after
            if after is None:
                break
        assert seen == sorted(set(seen))
        assert stays <= set(seen)

    def test_cursor_may_be_a_key_that_never_was(self, crowd):
        page = crowd.find("bot", [any_of("all")], after="b00002x", limit=2)
        assert keys_of(page.docs) == ["b00003", "b00004"]
        assert crowd.find("bot", [any_of("all")], after="c", limit=2).docs == []
