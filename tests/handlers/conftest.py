"""Handlers run on the memory store, with a small archive for the bots.

The life of a bot and what its group says run on the whole family (`test_life_of_a_bot`,
`test_group_facts`).
"""

import zipfile

import pytest

from botapi.settings import Settings
from tests.factories import NO_LIMITS
from tests.transactions.stores import open_store

SMALL_BOT = {"__main__.py": "print(1)\n", "bot_client/__init__.py": "", "config/config.json": "{}"}


def write_bot(path, **changes):
    """A bot archive that is built in no time."""
    with zipfile.ZipFile(path, "w") as bundle:
        for name, text in (SMALL_BOT | changes).items():
            bundle.writestr(name, text)
    return path


@pytest.fixture
def bot_archive(tmp_path):
    return write_bot(tmp_path / "bot.zip")


@pytest.fixture
def settings(tmp_path, bot_archive):
    return Settings(
        data_dir=tmp_path / "data",
        bot_archive=bot_archive,
        hold_min_s=5.0,
        hold_max_s=5.0,
        **NO_LIMITS,
    )


@pytest.fixture
def store(tmp_path, clock, rng):
    with open_store("memory", tmp_path, clock, rng) as store:
        yield store


@pytest.fixture
def bot(make_bot):
    return make_bot().start()
