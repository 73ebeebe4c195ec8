"""Some calls at once: order, how many, and what rises."""

import threading

import pytest

from botapi.ctl.parallel import in_order


def test_results_come_in_the_order_of_the_items():
    first_may_end = threading.Event()

    def work(item):
        if item == 0:
            assert first_may_end.wait(30)
        else:
            first_may_end.set()
        return item * 10

    assert list(in_order(work, range(20), 4)) == [item * 10 for item in range(20)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_threads_than_asked_for_do_the_work(jobs):
    threads = set(in_order(lambda _item: threading.get_ident(), range(200), jobs))
    assert 1 <= len(threads) <= jobs


def test_item_is_taken_only_when_its_turn_comes():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), 2)
    next(results)
    assert len(taken) == 2
    results.close()


def test_error_of_one_rises_after_the_results_before_it():
    results = in_order(lambda item: 6 // (3 - item), range(9), 2)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_to_do_is_nothing():
    assert list(in_order(str, [], 3)) == []
