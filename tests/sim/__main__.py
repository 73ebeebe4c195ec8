"""`python -m tests.sim --seeds N [--start S] [--mutant NAME] [--jobs 2]`."""

# ruff: noqa: T201

import argparse
import sys

from tests.sim.campaign import campaign
from tests.sim.mutants import MUTANTS


def main():
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the server first")
    given = parser.parse_args()
    total = campaign(given.start, given.seeds, jobs=given.jobs, mutant=given.mutant or "")
    print(total.report())
    for found in total.found:
        print(found)
    return 1 if total.found else 0


if __name__ == "__main__":
    sys.exit(main())
