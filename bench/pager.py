"""A client that reads all bots or tasks by pages until it is told to stop: `pager SIZE WHAT`.

BENCH_URL and BENCH_KEY name the server and the API key; a line is printed for each page.
"""

import os
import sys

from bench.wire import Connection


def main() -> None:
    """Page for ever."""
    headers = {"Authorization": f"Bearer {os.environ['BENCH_KEY']}"}
    connection = Connection(os.environ["BENCH_URL"], headers)
    first = f"/api/v1/{sys.argv[2]}?limit={sys.argv[1]}"
    path = first
    while True:
        page = connection.call("GET", path)
        print(len(page["items"]), flush=True)
        cursor = page["next_cursor"]
        path = f"{first}&cursor={cursor}" if cursor else first


if __name__ == "__main__":
    main()
