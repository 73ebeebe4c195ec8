"""What every engine must do: inherit StoreConformance and provide a `store` fixture."""

from tests.store.conformance.contention import Contention
from tests.store.conformance.expiry import Expiry
from tests.store.conformance.faults import Faults
from tests.store.conformance.keys import Keys
from tests.store.conformance.lifecycle import Lifecycle
from tests.store.conformance.model import Model
from tests.store.conformance.queries import Queries
from tests.store.conformance.takes import Takes
from tests.store.conformance.transactions import TransactionRules
from tests.store.conformance.values import Values
from tests.store.conformance.wakeups import Wakeups


class StoreConformance(
    Values,
    Keys,
    Queries,
    TransactionRules,
    Takes,
    Contention,
    Wakeups,
    Faults,
    Expiry,
    Lifecycle,
    Model,
):
    """The whole suite; nothing in it is skipped for anybody."""
