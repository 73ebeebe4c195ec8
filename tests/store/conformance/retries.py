"""What is run again, how often, and what the caller gets when that does not help."""

import pytest

from botapi.store.protocol import AlreadyExists, Ambiguous, Conflict, Outage
from tests.fakes.wrapped_store import WrappedStore
from tests.store.conformance.support import counted, doc, increment, keys_of, put


class Failing(WrappedStore):
    """Raises these errors one after the other, each instead of one commit; then works."""

    def __init__(self, inner, errors):
        super().__init__(inner, rng=_AtOnce())
        self._errors = list(errors)
        self.tries = 0

    def attempt(self, fn, *, timeout_s):
        self.tries += 1
        if self._errors:
            raise self._errors.pop(0)
        return super().attempt(fn, timeout_s=timeout_s)


class _AtOnce:
    def uniform(self, low, high):
        return low


class Retries:
    @pytest.mark.parametrize("error", [Conflict, Ambiguous])
    def test_function_runs_again_when_the_engine_says_so(self, store, error):
        failing = Failing(store, [error("injected")] * 3)
        increment(failing)
        assert (counted(store), failing.tries) == (1, 4)

    def test_take_looks_again_when_it_runs_again(self, store):
        put(store, "pend", doc("a"), doc("b"))
        seen = []

        def work(txn, docs):
            seen.append(keys_of(docs))
            if len(seen) == 1:
                raise Conflict("injected by the function: another was first")
            return docs[0].key

        class Meddled(WrappedStore):
            """Somebody takes the head away between the two tries."""

            def attempt(self, fn, *, timeout_s):
                if seen:
                    self.inner.transact(lambda txn: txn.delete("pend", "a"), label="meddle")
                return super().attempt(fn, timeout_s=timeout_s)

        assert Meddled(store).take("pend", [("a", "z")], 1, work, label="test") == "b"
        assert (seen[0], seen[-1]) == (["a"], ["b"])

    @pytest.mark.parametrize("error", [Outage, AlreadyExists, ValueError])
    def test_other_errors_rise_at_once(self, store, error):
        wrong = error("thing", "k") if error is AlreadyExists else error("injected")
        failing = Failing(store, [wrong])
        with pytest.raises(error) as caught:
            increment(failing)
        assert caught.value is wrong
        assert (counted(store), failing.tries) == (0, 1)

    def test_conflict_rises_with_its_label_when_the_deadline_is_over(self, store):
        failing = Failing(store, [Conflict("injected")] * 1_000_000)
        with pytest.raises(Conflict) as caught:
            failing.transact(lambda txn: None, label="some_label", deadline_s=0.1)
        assert "some_label: gave up" in caught.value.__notes__[0]
        assert failing.tries > 1
