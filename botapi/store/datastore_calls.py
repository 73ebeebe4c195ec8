"""Calls to the Datastore service: deadlines, what their errors mean, and what they cost."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import grpc
from google.api_core import exceptions as google
from google.auth.exceptions import GoogleAuthError
from google.cloud.datastore_v1 import DatastoreClient
from google.cloud.datastore_v1.services.datastore.transports import DatastoreGrpcTransport
from google.cloud.datastore_v1.types import datastore as requests

from botapi import metrics
from botapi.clock import Clock
from botapi.concurrency import Concurrency
from botapi.store.datastore_entities import Pb, Place
from botapi.store.protocol import (
    Ambiguous,
    Conflict,
    Key,
    Outage,
    StoreError,
    TooLarge,
)

EMULATOR = "DATASTORE_EMULATOR_HOST"
LOOKUP_KEYS = 1_000
"""Most keys of one lookup (a limit of the service)."""
CALL_S = 10.0
"""Longest that one call is waited for; a caller with less time waits less."""
SHORTEST_S = 0.001
ROLLBACK_S = 1.0

_CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
"""The service limits what it sends; after an outage the next try is soon."""

_Lookup = requests.LookupRequest.pb()
_RunQuery = requests.RunQueryRequest.pb()
_Commit = requests.CommitRequest.pb()
_Rollback = requests.RollbackRequest.pb()
_TRANSACTIONAL = requests.CommitRequest.Mode.TRANSACTIONAL
_NOT_FINISHED = 1
"""`QueryResultBatch.MoreResultsType.NOT_FINISHED`: the batch is full, the query goes on."""

_UNKNOWN_OUTCOME = (
    google.ServiceUnavailable,
    google.DeadlineExceeded,
    google.InternalServerError,
    google.Cancelled,
    google.Unknown,
)
_READS = metrics.STORE_DOCUMENTS["read",]
_WRITES = metrics.STORE_DOCUMENTS["write",]
_DELETES = metrics.STORE_DOCUMENTS["delete",]
_KEYS = metrics.STORE_DOCUMENTS["key",]


class Until:
    """A moment after which nobody waits any more."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds that a call may take from now. Raises Outage when there are none."""
        left = self._end - self._clock.monotonic()
        if left < SHORTEST_S:
            raise Outage("the time for this is over")
        return min(CALL_S, left)


class Calls:
    """One client of one database; every method may be called from any thread or greenlet.

    Each of them raises Outage when the service cannot answer within the time. The library's
    own calls are made on the loop: from a native thread under gevent some never come back.
    """

    def __init__(self, place: Place, concurrency: Concurrency) -> None:
        self.place = place
        self._on_loop = concurrency.on_loop
        self._client = _client()

    def close(self) -> None:
        """Close the connections."""
        self._client.transport.close()  # type: ignore[no-untyped-call]

    def lookup(
        self, keys: Sequence[tuple[str, Key]], until: Until, transaction: bytes | None = None
    ) -> tuple[list[Pb], bytes]:
        """The entities that exist among the keys, in no order, and the transaction's id.

        `transaction` None reads outside, b"" begins one. Raises Conflict when it is lost.
        """
        found: list[Pb] = []
        begun = transaction or b""
        waiting = [self.place.key(kind, key) for kind, key in keys]
        while waiting:
            request = _Lookup(project_id=self.place.project, database_id=self.place.database)
            request.keys.extend(waiting[:LOOKUP_KEYS])
            if begun:
                request.read_options.transaction = begun
            elif transaction is not None:
                request.read_options.new_transaction.read_write.SetInParent()
            answer = self._asked(self._client.lookup, requests.LookupRequest.wrap(request), until)
            begun = answer.transaction or begun
            found.extend(each.entity for each in answer.found)
            _READS.inc(len(answer.found) + len(answer.missing))
            waiting = [*waiting[LOOKUP_KEYS:], *answer.deferred]
        return found, begun

    def query(self, query: Pb, limit: int, until: Until) -> Iterator[Pb]:
        """Up to `limit` entities of a strong query outside of transactions, batch by batch."""
        keys_only = bool(query.projection)
        while True:
            request = _RunQuery(project_id=self.place.project, database_id=self.place.database)
            self.place.fill(request.partition_id)
            request.query.CopyFrom(query)
            request.query.limit.value = limit
            asked = requests.RunQueryRequest.wrap(request)
            batch = self._asked(self._client.run_query, asked, until).batch
            count = len(batch.entity_results)
            if keys_only:
                _READS.inc()
                _KEYS.inc(count)
            else:
                _READS.inc(max(1, count))
            for result in batch.entity_results:
                yield result.entity
            limit -= count
            if batch.more_results != _NOT_FINISHED or limit <= 0:
                return
            query.start_cursor = batch.end_cursor

    def commit(self, mutations: Sequence[Pb], transaction: bytes, until: Until) -> None:
        """Write everything or nothing, in a transaction of its own when there is none yet.

        Raises Conflict, TooLarge, and Ambiguous when the outcome is unknown.
        """
        request = _Commit(
            project_id=self.place.project,
            database_id=self.place.database,
            mode=_TRANSACTIONAL,
            mutations=mutations,
        )
        if transaction:
            request.transaction = transaction
        else:
            request.single_use_transaction.read_write.SetInParent()
        timeout_s = until.left_s()
        try:
            self.send_commit(requests.CommitRequest.wrap(request), timeout_s)
        except _UNKNOWN_OUTCOME as error:
            raise Ambiguous(f"the commit was sent and not acknowledged: {_text(error)}") from error
        except (google.GoogleAPICallError, GoogleAuthError) as error:
            raise _translated(error) from error
        deleted = sum(1 for each in mutations if each.HasField("delete"))
        _DELETES.inc(deleted)
        _WRITES.inc(len(mutations) - deleted)

    def send_commit(self, request: requests.CommitRequest, timeout_s: float) -> None:
        """The call itself, apart so that faults can be put around it."""
        self._on_loop(partial(self._client.commit, request=request, retry=None, timeout=timeout_s))

    def rollback(self, transaction: bytes, until: Until) -> None:
        """Give up what a transaction holds; if that fails the service does it by itself."""
        request = _Rollback(
            project_id=self.place.project, database_id=self.place.database, transaction=transaction
        )
        wrapped = requests.RollbackRequest.wrap(request)
        try:
            timeout_s = min(ROLLBACK_S, until.left_s())
            call = partial(self._client.rollback, request=wrapped, retry=None, timeout=timeout_s)
            self._on_loop(call)
        except (Outage, google.GoogleAPICallError, GoogleAuthError):
            return

    def _asked(self, method: Callable[..., object], request: object, until: Until) -> Pb:
        """The bare protobuf answer of a call that changes nothing."""
        timeout_s = until.left_s()
        try:
            call = partial(method, request=request, retry=None, timeout=timeout_s)
            answer = self._on_loop(call)
        except (google.GoogleAPICallError, GoogleAuthError) as error:
            raise _translated(error) from error
        return type(answer).pb(answer)  # type: ignore[attr-defined] # proto-plus


def _client() -> DatastoreClient:
    """A client of the real service, or of the emulator that the environment names."""
    host = os.environ.get(EMULATOR)
    try:
        if not host:
            return DatastoreClient(transport=partial(DatastoreGrpcTransport, channel=_channel))
        channel = grpc.insecure_channel(host, options=_CHANNEL)
        return DatastoreClient(transport=DatastoreGrpcTransport(channel=channel))
    except GoogleAuthError as error:
        raise StoreError(f"no credentials for Datastore: {_text(error)}") from error


def _channel(*args: object, **more: object) -> grpc.Channel:
    """A channel to the real service."""
    return DatastoreGrpcTransport.create_channel(*args, **{**more, "options": _CHANNEL})  # type: ignore[arg-type]


def _translated(error: Exception) -> StoreError:
    """What an error of a call means for whoever asked."""
    text = _text(error)
    if isinstance(error, google.Aborted):
        return Conflict(text)
    if isinstance(error, google.InvalidArgument):
        if "transaction" in text.lower() and "too" not in text.lower():
            return Conflict(text)  # ended by the service, perhaps because it was restarted
        if "too" in text.lower():
            return TooLarge(text)
        return StoreError(f"Datastore refused a call: {text}")
    if isinstance(error, google.FailedPrecondition):
        return StoreError(f"Datastore refused a call: {text}")
    return Outage(f"Datastore does not answer: {text}")


def _text(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
