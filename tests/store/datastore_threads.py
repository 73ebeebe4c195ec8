"""Under greenlets: how many calls made on native threads end, many at once?"""

import os
import sys

import gevent.monkey

gevent.monkey.patch_all()

import gevent  # noqa: E402

from botapi.clock import SystemClock  # noqa: E402
from botapi.concurrency import Greenlets  # noqa: E402
from botapi.store.datastore_calls import Calls, Until  # noqa: E402
from botapi.store.datastore_entities import Place  # noqa: E402
from botapi.store.protocol import Outage  # noqa: E402
from tests.store.child import say  # noqa: E402

MANY = 40
CALL_S = 5.0


def main():
    concurrency = Greenlets()
    concurrency.prepare_grpc()
    calls = Calls(Place("project"), concurrency)

    def look():
        try:
            calls.lookup([("thing", "k")], Until(SystemClock(), CALL_S))
        except Outage:
            return "refused"

    started = [gevent.spawn(concurrency.native, look) for _ in range(MANY)]
    gevent.joinall(started, timeout=2 * CALL_S)
    say(sum(each.value == "refused" for each in started))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads that hang would hold the process
