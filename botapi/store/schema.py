"""The schema number that this process writes, and what is kept of a newer one's documents.

Documents carry `v`, the number they were written with: that of the document `ACTIVE`, which
an operator raises when every process knows the next one (docs/upgrading.md). Code that
knows number n reads documents of n and n-1. A form of document that only n has is written
when `in_force() >= n`, not before.
"""

from collections.abc import Mapping
from typing import Any

from botapi.store.protocol import SCHEMA_NUMBER, Doc

OLDEST_READ = max(1, SCHEMA_NUMBER - 1)
"""The oldest number in force that this code works with."""

_in_force = [SCHEMA_NUMBER]


def in_force() -> int:
    """The number that documents are written with now."""
    return _in_force[0]


def put_in_force(number: int) -> None:
    """What `ACTIVE` says: at the opening of the store and whenever it was raised."""
    _in_force[0] = min(number, SCHEMA_NUMBER)


def body(fields: Mapping[str, Any], was: Doc | None = None) -> dict[str, Any]:
    """The fields and `v`. Those that only a newer Skep knows are kept from the document before."""
    made = {**fields, "v": in_force()}
    return made if was is None else {**unknown(made, was), **made}


def unknown(made: Mapping[str, Any], was: Doc) -> dict[str, Any]:
    """The fields of the document before that this code did not write."""
    return {key: was.body[key] for key in was.body.keys() - made.keys()}
