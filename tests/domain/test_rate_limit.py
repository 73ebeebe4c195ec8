import pytest

from botapi.domain.rate_limit import MAX_BUCKETS, Rate, TokenBuckets, network_of


def test_bucket_gives_its_burst_and_then_its_rate():
    buckets = TokenBuckets(Rate(per_s=2, burst=3))
    assert [buckets.take("a", 0) for _ in range(4)] == [True, True, True, False]
    assert [buckets.take("a", 0.5), buckets.take("a", 0.5)] == [True, False]


def test_bucket_never_holds_more_than_its_burst():
    buckets = TokenBuckets(Rate(per_s=10, burst=2))
    buckets.take("a", 0)
    assert [buckets.take("a", 1000) for _ in range(3)] == [True, True, False]


@pytest.mark.control("requests.rate-limits")
@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_addresses_of_one_machine_share_a_bucket(address, network):
    assert network_of(address) == network


def test_callers_do_not_share_a_bucket():
    buckets = TokenBuckets(Rate(per_s=1, burst=1))
    assert buckets.take("a", 0)
    assert buckets.take("b", 0)
    assert not buckets.take("a", 0)


def test_no_rate_is_no_limit():
    buckets = TokenBuckets(Rate(per_s=0, burst=0))
    assert all(buckets.take("a", 0) for _ in range(100))
    assert not buckets.is_empty("a", 0)


def test_is_empty_counts_nothing():
    buckets = TokenBuckets(Rate(per_s=1, burst=1))
    assert not buckets.is_empty("a", 0)
    buckets.take("a", 0)
    assert buckets.is_empty("a", 0.5)
    assert not buckets.is_empty("a", 1)
    assert buckets.take("a", 1)


@pytest.mark.slow
def test_memory_is_bounded_by_forgetting_the_longest_silent():
    buckets = TokenBuckets(Rate(per_s=1, burst=1))
    for number in range(MAX_BUCKETS + 1):
        buckets.take(str(number), 0)
    assert buckets.take("0", 0)
    assert not buckets.take(str(MAX_BUCKETS), 0)
