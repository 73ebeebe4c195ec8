"""Documents as entities of Firestore in Datastore mode, and queries over them.

The kind of an entity is ours, its name our key. `body` is one unindexed blob; `t` the indexed
list of tags, absent without tags. A document that expires has three properties more: `exp`, an
unindexed time for the database's own TTL policy; `exp_ms`, unindexed, exactly what was written;
and `exp_min`, the indexed minute by which `sweep_expired` finds it. A minute holds the keys of
many documents in their own order, so the index is not written at one moving end.
A kind without tags whose documents do not expire has no index entries of its own at all.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.cloud.datastore_v1.types import datastore as requests
from google.cloud.datastore_v1.types import entity as entities
from google.cloud.datastore_v1.types import query as queries

from botapi.store.documents import NO_TAGS, Packed, unpack
from botapi.store.protocol import Doc, Key

Pb: TypeAlias = Any
"""A bare protobuf message: the library describes its wrappers, which are slow, and not these."""

MINUTE_MS = 60_000
LAST_TIME_MS = 253_402_300_799_000
"""The end of the year 9999, the last time that a property may hold."""
ENTITY_OVERHEAD_BYTES = 200
"""What a mutation needs beside its name, body and tags: names of properties, lengths."""
TAG_OVERHEAD_BYTES = 8

_RESERVED = re.compile(r"__.*__\0*", re.DOTALL)
_Key = entities.Key.pb()
_Query = queries.Query.pb()
_Mutation = requests.Mutation.pb()
_EQUAL = queries.PropertyFilter.Operator.EQUAL
_ASCENDING = queries.PropertyOrder.Direction.ASCENDING
_DESCENDING = queries.PropertyOrder.Direction.DESCENDING
BOUNDS = {
    ">": queries.PropertyFilter.Operator.GREATER_THAN,
    ">=": queries.PropertyFilter.Operator.GREATER_THAN_OR_EQUAL,
    "<": queries.PropertyFilter.Operator.LESS_THAN,
    "<=": queries.PropertyFilter.Operator.LESS_THAN_OR_EQUAL,
}


def to_name(key: Key) -> str:
    """The name of a key: itself, but names like `__x__` are reserved and get a NUL behind.

    Keys that look like such a name already get one more, so that no two keys have one name,
    and names compare as their keys do.
    """
    return key + "\0" if key.startswith("__") and _RESERVED.fullmatch(key) else key


def to_key(name: str) -> Key:
    """The key that `to_name` named."""
    return name[:-1] if name.startswith("__") and _RESERVED.fullmatch(name) else name


@dataclass(frozen=True, slots=True)
class Place:
    """Where the entities are: a project, one of its databases ("" the default), a namespace."""

    project: str
    database: str = ""
    namespace: str = ""

    def key(self, kind: str, key: Key) -> Pb:
        """The protobuf key of a document."""
        found = _Key()
        self.fill(found.partition_id)
        found.path.add(kind=kind, name=to_name(key))
        return found

    def fill(self, partition: Pb) -> None:
        """Write the place into a PartitionId."""
        partition.project_id = self.project
        partition.database_id = self.database
        partition.namespace_id = self.namespace

    def mutation(self, kind: str, key: Key, packed: Packed | None) -> Pb:
        """The upsert of a packed document, or the deletion of its key."""
        mutation = _Mutation()
        if packed is None:
            mutation.delete.CopyFrom(self.key(kind, key))
        else:
            mutation.upsert.key.CopyFrom(self.key(kind, key))
            _fill_entity(mutation.upsert, packed)
        return mutation


def _fill_entity(entity: Pb, packed: Packed) -> None:
    body = entity.properties["body"]
    body.blob_value = packed.body
    body.exclude_from_indexes = True
    if packed.tags:
        values = entity.properties["t"].array_value.values
        for tag in sorted(packed.tags):
            values.add(string_value=tag)
    if packed.expire_at is not None:
        exact = entity.properties["exp_ms"]
        exact.integer_value = packed.expire_at
        exact.exclude_from_indexes = True
        entity.properties["exp_min"].integer_value = packed.expire_at // MINUTE_MS
        if packed.expire_at <= LAST_TIME_MS:
            expiry = entity.properties["exp"]
            expiry.timestamp_value.FromMilliseconds(packed.expire_at)
            expiry.exclude_from_indexes = True


def read_entity(entity: Pb) -> Doc:
    """The document that an entity holds."""
    properties = entity.properties
    tags = NO_TAGS
    if "t" in properties:
        tags = frozenset(each.string_value for each in properties["t"].array_value.values)
    expire_at = properties["exp_ms"].integer_value if "exp_ms" in properties else None
    return unpack(key_of(entity), Packed(properties["body"].blob_value, tags, expire_at))


def key_of(entity: Pb) -> Key:
    """The key of a document of which perhaps nothing else was read."""
    return to_key(entity.key.path[0].name)


def size_of(key: Key, packed: Packed | None) -> int:
    """At least the bytes that the write of a document needs within a commit."""
    size = ENTITY_OVERHEAD_BYTES + len(key.encode())
    if packed is None:
        return size
    return size + len(packed.body) + sum(len(t.encode()) + TAG_OVERHEAD_BYTES for t in packed.tags)


def key_query(
    place: Place,
    kind: str,
    *,
    tags: Iterable[str] = (),
    bounds: Sequence[tuple[str, Key]] = (),
    reverse: bool = False,
    keys_only: bool = False,
) -> Pb:
    """Documents that hold all the tags, in key order, within bounds such as `(">=", "a")`."""
    query = _of_kind(kind, keys_only=keys_only)
    for tag in tags:
        part = query.filter.composite_filter.filters.add().property_filter
        part.property.name = "t"
        part.op = _EQUAL
        part.value.string_value = tag
    for op, key in bounds:
        part = query.filter.composite_filter.filters.add().property_filter
        part.property.name = "__key__"
        part.op = BOUNDS[op]
        part.value.key_value.CopyFrom(place.key(kind, key))
    _all_of(query)
    query.order.add(direction=_DESCENDING if reverse else _ASCENDING).property.name = "__key__"
    return query


def expiry_query(kind: str, minute: int) -> Pb:
    """Keys of the documents that expire within this minute or before, the oldest minute first."""
    query = _of_kind(kind, keys_only=True)
    part = query.filter.composite_filter.filters.add().property_filter
    part.property.name = "exp_min"
    part.op = BOUNDS["<="]
    part.value.integer_value = minute
    _all_of(query)
    query.order.add(direction=_ASCENDING).property.name = "exp_min"
    return query


def kinds_query() -> Pb:
    """The kinds of a namespace, as names of entities of the kind `__kind__`."""
    return _of_kind("__kind__", keys_only=True)


def _of_kind(kind: str, *, keys_only: bool) -> Pb:
    query = _Query()
    query.kind.add(name=kind)
    if keys_only:
        query.projection.add().property.name = "__key__"
    return query


def _all_of(query: Pb) -> None:
    if query.filter.composite_filter.filters:
        query.filter.composite_filter.op = queries.CompositeFilter.Operator.AND
