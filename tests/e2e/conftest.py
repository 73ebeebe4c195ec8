"""A fleet for each module that does not build its own."""

import pytest

from tests.e2e.fleet import running_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """One server and two idle bots, shared by the tests of a module."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), "bot1", "bot2") as fleet:
        yield fleet
