"""What is counted: once, under few labels, and as the page and the alerts say."""

import re
from pathlib import Path

import pytest
import yaml

from botapi import metrics
from botapi.metrics import REGISTRY
from botapi.store.protocol import Ambiguous, Conflict, Doc, Outage
from tests.fakes.faulty_store import FaultyStore
from tests.fakes.person import Person, new_key
from tests.fakes.twice_store import TwiceStore
from tests.fakes.wrapped_store import WrappedStore

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(skep_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
ALERTS = yaml.safe_load((ROOT / "config/alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
WATCHED = {
    "SkepNoPolls",
    "SkepOldestPending",
    "SkepBotsDie",
    "SkepIdentityConflict",
    "SkepSweepStale",
    "SkepLeasesExpire",
    "SkepRolloutHalted",
    "SkepStoreConflicts",
    "SkepStoreOutage",
    "SkepDiskLow",
    "SkepClockBehindStore",
}


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def registered():
    """Name, kind and labels of every metric, by its name on the page."""
    found = {}
    for metric in REGISTRY._names_to_collectors.values():
        name = metric._name + ("_total" if metric._type == "counter" else "")
        found[name] = metric._type, tuple(metric._labelnames)
    return found


def test_page_names_every_metric_with_kind_and_labels():
    shown = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(PAGE)
    }
    assert shown == registered()


def test_metrics_have_no_label_for_a_bot_or_a_task():
    labels = {label for _, names in registered().values() for label in names}
    assert not {label for label in labels if label in {"bot", "bot_id", "task", "task_id", "id"}}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_names_only_metrics_that_exist(rule):
    suffix = re.compile(r"_(bucket|sum|count)$")
    histograms = {name for name, (kind, _) in registered().items() if kind == "histogram"}
    named = set(re.findall(r"skep_\w+", rule["expr"]))
    assert named
    for name in named:
        base = suffix.sub("", name)
        assert name in registered() or base in histograms, name
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert set(rule["annotations"]) == {"summary", "description"}


def test_alerts_watch_what_they_should():
    assert {rule["alert"] for rule in RULES} >= WATCHED


def test_pools_beyond_the_limit_share_a_label(monkeypatch):
    monkeypatch.setattr(metrics, "_pools", set())
    labels = {metrics.pool_label(f"pool{i}") for i in range(metrics.MAX_POOLS + 50)}
    assert len(labels) == metrics.MAX_POOLS + 1
    assert metrics.OTHER in labels
    assert metrics.pool_label("pool0") == "pool0"
    assert metrics.pool_label("") == "none"


def test_children_beyond_the_limit_share_one(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_CHILDREN", 3)
    bound = metrics.Bound(metrics.Counter("x", "x", ["a", "b"], registry=None))
    for number in range(10):
        bound[str(number), "b"].inc()
    assert bound[metrics.OTHER, metrics.OTHER]._value.get() == 7


def counting(count, key="a"):
    def work(txn):
        metrics.after_commit(count)
        txn.put("thing", Doc(key, {}))

    return work


def test_transaction_counts_once_however_often_it_runs(store):
    counted = []
    TwiceStore(store).transact(counting(lambda: counted.append(1)), label="twice")
    assert counted == [1]


def test_transaction_that_fails_counts_nothing(store):
    counted = []

    def work(txn):
        metrics.after_commit(lambda: counted.append(1))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.transact(work, label="fails")
    assert counted == []


def test_counting_outside_of_a_transaction_is_done_at_once():
    counted = []
    metrics.after_commit(lambda: counted.append(1))
    assert counted == [1]


class Stumbling(WrappedStore):
    """Its tries end as told, then well."""

    def __init__(self, inner, *errors):
        super().__init__(inner)
        self.errors = list(errors)

    def attempt(self, fn, *, timeout_s):
        if self.errors:
            raise self.errors.pop(0)
        return super().attempt(fn, timeout_s=timeout_s)

    def _pause_s(self, tries):
        return 0.0


def outcomes(op):
    names = ("committed", "conflict", "ambiguous", "outage", "failed")
    found = {n: value("skep_store_attempts_total", op=op, outcome=n) for n in names}
    return {name: count for name, count in found.items() if count}


def test_every_try_is_counted_by_how_it_ended(store):
    op = "stumbles"
    stumbling = Stumbling(store, Conflict("a"), Ambiguous("b"), Conflict("c"))
    stumbling.transact(lambda txn: None, label=op)
    with pytest.raises(Outage):
        Stumbling(store, Outage("gone")).transact(lambda txn: None, label=op)
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda txn: 1 / 0, label=op)
    assert outcomes(op) == {
        "committed": 1, "conflict": 2, "ambiguous": 1, "outage": 1, "failed": 1
    }  # fmt: skip
    assert value("skep_store_conflicts_total", op=op) == 2
    assert value("skep_store_seconds_count", op=op) == 3


def test_ambiguous_commit_counts_what_its_last_run_did(store):
    counted = []
    faulty = FaultyStore(store, seed=3, after=0.5)
    for number in range(20):
        faulty.transact(counting(lambda: counted.append(1), f"k{number}"), label="faulty")
    assert faulty.faults
    assert len(counted) == 20


def test_reads_are_timed_by_what_they_are(store):
    before = value("skep_store_seconds_count", op="get")
    store.get("thing", "a")
    assert value("skep_store_seconds_count", op="get") == before + 1


def test_labels_of_transactions_are_constants():
    constant = re.compile(r'label=("[a-z_]+"|label\b|f"update_bot\.\{update\.kind\}")')
    for path in (ROOT / "botapi").rglob("*.py"):
        for call in re.findall(
            r"(?:transact|take)\([^()]*(?:\([^()]*\)[^()]*)*\)", path.read_text()
        ):
            if "label=" in call and "def " not in call:
                assert constant.search(call), (path, call)


@pytest.mark.parametrize("failure", [False, True])
def test_life_of_a_task_is_counted(client, make_bot, store, clock, rng, failure):
    ran = {"pool": "default", "state": "COMPLETED", "cause": "failure" if failure else "success"}
    before = value("skep_tasks_completed_total", **ran)
    claims = value("skep_task_pending_seconds_count", pool="default")
    made = value("skep_tasks_created_total", pool="default")
    stored = value("skep_log_bytes_total")
    bot = make_bot("vm1").start()
    Person(client, new_key(store, clock, rng)).submit("x")
    claimed = bot.claim(bot.update(nonblocking=False)["lease"])
    bot.call(
        "/task_update",
        task_id=claimed["task_id"],
        output="aGVsbG8=",
        output_chunk_start=0,
        exit_code=int(failure),
        duration=1.0,
        bot_overhead=0.5,
    )
    assert bot.status == 200, bot.text
    assert value("skep_tasks_completed_total", **ran) == before + 1
    assert value("skep_task_pending_seconds_count", pool="default") == claims + 1
    assert value("skep_tasks_created_total", pool="default") == made + 1
    assert value("skep_log_bytes_total") == stored + 5
    assert value("skep_bot_polls_total", pool="default", cmd="rbe") > 0
    assert value("skep_task_overhead_seconds_count", phase="all") > 0
