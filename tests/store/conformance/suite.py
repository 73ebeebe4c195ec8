"""What every engine must do.

A class that inherits `StoreConformance` provides a `store` fixture; one that inherits
`SharedConformance` provides `address`, a new database for `engines.open_address`. What an engine
declares (`Capabilities`) decides which it needs: all the first, those that are `durable` and
`shared` the second too. `tests/store/test_suite.py` compares the two.
"""

from tests.store.conformance.ambiguity import Ambiguity
from tests.store.conformance.blobs import Blobs
from tests.store.conformance.contention import Contention
from tests.store.conformance.cursors import Cursors
from tests.store.conformance.durable import Durable
from tests.store.conformance.expiry import Expiry
from tests.store.conformance.faults import Faults
from tests.store.conformance.isolation import Isolation
from tests.store.conformance.keys import Keys
from tests.store.conformance.lifecycle import Lifecycle
from tests.store.conformance.model import Model
from tests.store.conformance.processes import Processes
from tests.store.conformance.queries import Queries
from tests.store.conformance.races import Races
from tests.store.conformance.retries import Retries
from tests.store.conformance.takes import Takes
from tests.store.conformance.transactions import TransactionRules
from tests.store.conformance.values import Values
from tests.store.conformance.wakeups import Wakeups


class StoreConformance(
    Values,
    Keys,
    Queries,
    Cursors,
    TransactionRules,
    Takes,
    Contention,
    Isolation,
    Races,
    Retries,
    Ambiguity,
    Wakeups,
    Faults,
    Expiry,
    Blobs,
    Lifecycle,
    Model,
):
    """The suite within one process; nothing in it is skipped for anybody."""


class SharedConformance(Durable, Processes):
    """The suite of a database that outlives a process, and that several have open."""
