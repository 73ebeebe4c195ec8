"""What happened, in order: what callers saw, what the store took, and what tasks really did.

A record is `(at_s, who, kind, what, data)`. `kind` is one of

* `invoke`, `ok`, `fail`, `info`: a call as its caller saw it (`info`: the outcome is unknown)
* `begin`, `served`: the same call as a server process saw it
* `applied`: one commit of the transaction `who`; data is `(by, [(kind, key, before, after)])`,
  `by` is the call `(client, number, session, path)` it was made for, or None
* `truth`: what a bot or its task really did
* `fault`: what the simulation did to them
* `log`: an error that the server logged
"""

import hashlib
from collections import Counter


class History:
    def __init__(self, world):
        self._world = world
        self.records = []
        self.faults = Counter()

    def add(self, who, kind, what, data=()):
        self.records.append((self._world.now, who, kind, what, data))

    def fault(self, name, data=()):
        self.faults[name] += 1
        self.add("", "fault", name, data)

    def digest(self):
        """The same for the same seed, on every machine."""
        found = hashlib.sha256()
        for at, who, kind, what, data in self.records:
            found.update(f"{at:.6f} {who} {kind} {what} {_plain(data)!r}\n".encode())
        return found.hexdigest()


def _plain(data):
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, tuple | list):
        return [_plain(value) for value in data]
    return getattr(data, "body", data)
