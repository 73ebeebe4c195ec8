"""What a server process counts and times, for Prometheus (docs/observability.md).

The names and their labels stand here, once; every other room asks for the one it feeds.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()
"""Everything of this process; `/metrics` shows it."""

STORE_SECONDS = Histogram(
    "skep_store_seconds", "Time of one operation of the store.", ["op"], registry=REGISTRY
)
STORE_CONFLICTS = Counter(
    "skep_store_conflicts_total",
    "Tries of a transaction that lost a race.",
    ["op"],
    registry=REGISTRY,
)
