"""Small values of messages: times, dimensions."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from swarmingpb.swarming_pb2 import StringListPair

from botapi.domain.dimensions import unflatten


def timestamp(ms: int) -> Timestamp | None:
    """The moment; None for 0, which means "not yet"."""
    if not ms:
        return None
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def string_lists(flat: Iterable[str]) -> list[StringListPair]:
    """Flat `key:value` dimensions: sorted by key, values sorted and each once (prpc-api 1.4)."""
    by_key = unflatten(sorted(set(flat)))
    return [StringListPair(key=key, value=by_key[key]) for key in sorted(by_key)]
