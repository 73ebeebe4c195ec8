"""What the calls of people are answered with: the parts of the server, and nothing of Flask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botapi.api.capacity import Capacity
from botapi.api.known_dimensions import KnownDimensions
from botapi.api.waits import Waits
from botapi.auth.directory import Directory
from botapi.auth.keys import KeyRing
from botapi.auth.sign_in import IssuerClient
from botapi.blobs.transfer import Transfers
from botapi.cfg.provider import Provider
from botapi.cfg.releases import Releases
from botapi.clock import Clock, Rng
from botapi.concurrency import Concurrency
from botapi.scheduler.last_seen import LastSeen
from botapi.scheduler.offers import Offers
from botapi.secrets.vault import Vault
from botapi.settings import Settings
from botapi.store.protocol import Store

Json = dict[str, Any]
Query = Mapping[str, Sequence[str]]
"""The parameters behind the `?`, each with all of its values."""

MANY = 50
"""Items of a page that are made on a native thread, so that the loop goes on."""


@dataclass(kw_only=True)
class ApiParts:
    """The parts of the server that the API and the pages use."""

    store: Store
    clock: Clock
    rng: Rng
    concurrency: Concurrency
    settings: Settings
    keys: KeyRing
    config: Provider
    archives: Releases
    last_seen: LastSeen
    offers: Offers
    blobs: Transfers
    vault: Vault
    directory: Directory
    issuer_client: IssuerClient
    waits: Waits = field(init=False)
    capacity: Capacity = field(init=False)
    dimensions: KnownDimensions = field(init=False)

    def __post_init__(self) -> None:
        self.waits = Waits(self.store, self.concurrency, self.clock)
        self.capacity = Capacity(self.store, self.clock)
        self.dimensions = KnownDimensions(self.store, self.concurrency, self.clock)

    def new_id(self) -> str:
        """A name for an audit entry or a session: 96 random bits."""
        return f"{self.rng.randbits(96):024x}"
