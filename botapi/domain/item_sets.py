"""A set of sizes as bots pack it: sorted, each as its distance from the one before, deflated.

Each distance is a varint: seven bits a byte, lowest first, the high bit saying "more"
(prpc-api 4, CASOperationStats).
"""

import zlib
from dataclasses import dataclass

MAX_UNPACKED = 64 * 1024
"""Bytes of a set after inflating; of a larger one nothing is said."""
MAX_SIZE = 2**53


@dataclass(frozen=True, slots=True)
class ItemSet:
    """How many items, and how many bytes all of them have together."""

    count: int = 0
    total_bytes: int = 0


def read_items(packed: bytes) -> ItemSet:
    """What is in a packed set; the empty set for anything that is none."""
    if not packed:
        return ItemSet()
    inflater = zlib.decompressobj()
    try:
        varints = inflater.decompress(packed, MAX_UNPACKED + 1)
    except zlib.error:
        return ItemSet()
    if len(varints) > MAX_UNPACKED or not inflater.eof or (varints and varints[-1] & 0x80):
        return ItemSet()
    return _sum(varints)


def _sum(varints: bytes) -> ItemSet:
    count = total = size = value = shift = 0
    for byte in varints:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80 and value <= MAX_SIZE:
            continue
        size += value
        count, total = count + 1, total + size
        value = shift = 0
        if size > MAX_SIZE:
            return ItemSet()
    return ItemSet(count, total)
