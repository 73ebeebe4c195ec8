"""Commits that took effect and were reported as failed, in the middle of competition."""

from tests.fakes.faulty_store import FaultyStore
from tests.store.conformance.support import doc, keys_of, put, together

THREADS, TASKS, FAULT = 4, 40, 0.15


class Ambiguity:
    def test_claims_are_exactly_once_when_claimers_know_their_claim(self, store):
        """Rule 3: an id chosen before the first try finds the claim that was made after all."""
        put(store, "pend", *(doc(f"q!{n:03}") for n in range(TASKS)))
        mine = together(*(lambda who=who: _drain(store, who) for who in range(THREADS)))
        claimed = [key for keys in mine for key in keys]
        assert sorted(claimed) == [f"q!{n:03}" for n in range(TASKS)]
        owners = {each.key: each.body["by"] for each in store.scan("task", "q", "r", limit=99)}
        assert owners == {key: who for who, keys in enumerate(mine) for key in keys}

    def test_insert_says_who_was_first_when_the_id_is_looked_up(self, store):
        faulty = FaultyStore(store, seed=4, after=0.5)

        def create(number):
            def work(txn):
                (done,) = txn.get("dedup", f"uuid-{number}")
                if done is not None:
                    return done.body["of"]
                txn.insert("dedup", doc(f"uuid-{number}", of=number))
                txn.insert("thing", doc(f"k{number:02}"))
                return number

            return faulty.transact(work, label="create")

        assert [create(number) for number in range(12)] == list(range(12))
        assert len(store.scan_keys("thing", "k", "l", limit=99)) == 12
        assert faulty.faults > 2


def _drain(store, who):
    faulty = FaultyStore(store, seed=who, before=FAULT, after=FAULT)
    keys, number = [], 0
    while True:
        number += 1
        got = _claim(faulty, who, f"claim-{who}-{number}")
        if got is None:
            return keys
        keys.append(got)


def _claim(store, who, claim_id):
    def work(txn, docs):
        (made,) = txn.get("claim", claim_id)
        if made is not None:
            return made.body["of"]
        if not docs:
            return None
        (head,) = keys_of(docs)
        txn.delete("pend", head)
        txn.put("task", doc(head, by=who))
        txn.put("claim", doc(claim_id, of=head))
        return head

    return store.take("pend", [("q!", 'q"')], 1, work, label="claim")
