"""What a task takes in and leaves behind by digest or package, and at what cost (bot-api 5.1).

These are the shapes of the wire as well: None is "not said".
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CasDigest:
    """The digest of a tree of files."""

    hash: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CasReference:
    """A tree of files in a content-addressed store."""

    cas_instance: str | None = None
    digest: CasDigest | None = None


@dataclass(frozen=True, slots=True)
class CipdPackage:
    """One package at one version, below a path of the task's folder."""

    package_name: str | None = None
    version: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class CipdInput:
    """The packages that a task needs, and the client that fetches them.

    In a stored task all three are complete; in what is asked for, the first two may be empty.
    """

    server: str = ""
    client_package: CipdPackage | None = None
    packages: tuple[CipdPackage, ...] = ()


@dataclass(frozen=True, slots=True)
class CipdPins:
    """The versions that were in fact installed."""

    client_package: CipdPackage | None = None
    packages: tuple[CipdPackage, ...] | None = None


@dataclass(frozen=True, slots=True)
class NamedCache:
    """A folder that a bot keeps from task to task."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Took:
    """How long something took, in seconds."""

    duration: float | None = None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Named caches, put in place and taken away."""

    install: Took | None = None
    uninstall: Took | None = None


@dataclass(frozen=True, slots=True)
class TransferStats:
    """Files moved to or from a content-addressed store; the item sets are base64 of packed ints."""

    duration: float | None = None
    initial_number_items: int | None = None
    initial_size: int | None = None
    items_cold: str | None = None
    items_hot: str | None = None


@dataclass(frozen=True, slots=True)
class IsolatedStats:
    """Both directions."""

    download: TransferStats | None = None
    upload: TransferStats | None = None


@dataclass(frozen=True, slots=True)
class PerformanceStats:
    """What a run cost beside its command; seconds. Kept only when `bot_overhead` was said."""

    bot_overhead: float
    cache_trim: Took | None = None
    cipd: Took | None = None
    cleanup: Took | None = None
    named_caches: CacheStats | None = None
    isolated: IsolatedStats | None = None
