"""Where a piece of output goes: stored, known already, cut, or refused for a gap.

The stored output is at every moment a byte-exact prefix of what the task wrote, up to
bytes whose loss is stated (decisions: a gap is 409, except when an upstream bot ends).
"""

from dataclasses import dataclass, replace

from botapi.domain.task import OutputPosition


@dataclass(frozen=True, slots=True)
class Append:
    """Store `data` at `offset`; `position` is what holds afterwards."""

    offset: int
    data: bytes
    position: OutputPosition


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes between `committed` and the piece are missing; the bot has to send them first."""

    committed: int


def place(
    position: OutputPosition, offset: int, data: bytes, *, limit: int, may_skip: bool
) -> Append | Gap:
    """Decide about one piece that begins at absolute `offset`.

    `limit`: most bytes stored for one run. `may_skip`: the run is ending and nobody will
    send the missing bytes, so their number is stated instead.
    """
    reached = position.committed + position.missing_bytes
    if offset > reached:
        if not may_skip:
            return Gap(reached)
        position = replace(position, missing_bytes=position.missing_bytes + offset - reached)
        reached = offset
    fresh = data[reached - offset :]
    room = max(0, limit - position.committed)
    stored, dropped = fresh[:room], len(fresh) - len(fresh[:room])
    after = replace(
        position,
        committed=position.committed + len(stored),
        missing_bytes=position.missing_bytes + dropped,
        limit_hit=position.limit_hit or dropped > 0,
    )
    return Append(position.committed, stored, after)
