"""What most tests stand on: a server without a network, a clock that is turned by hand."""

import gc
import os
from collections import Counter
from tempfile import gettempdir

import pytest
from hypothesis import settings as hypothesis_settings
from werkzeug.routing import Rule

from botapi import app as composition
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.transactions.push_config import push_config
from tests.engines.emulator import emulator  # noqa: F401
from tests.engines.postgres import (  # noqa: F401 - fixtures
    _postgres_server,
    postgres,
    postgres_dsn,
)
from tests.engines.schemas import postgres_schema  # noqa: F401
from tests.factories import NO_LIMITS, bots_cfg
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import SimBot, flask_post
from tests.transactions.stores import store_of


def pytest_configure(config):
    """Let the order below hold: xdist would begin with the modules of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish(session):
    """What was collected stays to the end: no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Modules that take longest come first, so that no core idles while another ends one."""
    weights = Counter()
    for item in items:
        weights[item.path] += _guessed_s(item)
    items.sort(key=lambda item: -weights[item.path])


def _guessed_s(item):
    limit = item.get_closest_marker("timeout")
    if limit is not None:
        return limit.args[0] / 10
    if item.get_closest_marker("e2e"):
        return 4
    return 1 if item.get_closest_marker("slow") else 0.03


hypothesis_settings.register_profile("skep", deadline=None, print_blob=True)
hypothesis_settings.load_profile("skep")
os.environ.setdefault("NO_COLOR", "1")
# No server that whoever runs the tests is logged in to is ever asked.
os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_STATE_HOME"] = f"{gettempdir()}/skep-tests-home"


def _never_build(*_args):
    raise AssertionError("the server never builds a URL from a route")


# Compiling what builds URLs is nine tenths of the time that an application takes to make.
Rule._compile_builder = lambda _rule, _append_unknown=True: _never_build


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def rng():
    return FakeRng()


@pytest.fixture(scope="session")
def small_bot(tmp_path_factory):
    """Sources of a bot that does nothing: packing the real one takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("bot")
    (folder / "zip_main.py").write_text("print('a bot')\n")
    return folder


@pytest.fixture
def settings(tmp_path, small_bot):
    return Settings(
        data_dir=tmp_path / "data",
        bot_archive=small_bot,
        hold_min_s=5.0,
        hold_max_s=5.0,
        **NO_LIMITS,
    )


@pytest.fixture
def store(request, clock, rng):
    """A store in memory; `SKEP_TEST_STORE` names another one of `tests/transactions/stores.py`."""
    with store_of(request, clock, rng, os.environ.get("SKEP_TEST_STORE", "memory")) as store:
        yield store


@pytest.fixture
def parts(settings, store, clock, rng):
    """A server whose bots.cfg lets every bot in, from loopback, into the pool `default`."""
    parts = composition.build(settings, store, Threads(), clock, rng)
    push_config(store, bots_cfg(), parent="", author="test", now_ms=clock.now_ms())
    parts.concurrency.spawn(parts.offers.run)
    yield parts
    parts.release()


@pytest.fixture
def client(parts):
    return composition.create_app(parts).test_client()


@pytest.fixture
def make_bot(client):
    """Simulated bots of this server."""

    def make(bot_id="vm1", **more):
        return SimBot(flask_post(client), bot_id, **more)

    return make
