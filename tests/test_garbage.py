"""What a call is made of goes with its answer, without Python looking for garbage."""

import gc
import json
import weakref

import pytest
from werkzeug.test import EnvironBuilder

from tests.fakes.sim_bot import BOT_PATH


class Probe:
    """In the environment of a call: it lives as long as that."""


@pytest.fixture
def no_collection():
    """What refers to itself stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{BOT_PATH}/rbe/session/update"),
        ("POST", f"{BOT_PATH}/poll"),
        ("GET", f"{BOT_PATH}/server_ping"),
        ("GET", "/api/v1/bots"),
        ("POST", "/prpc/swarming.v2.Bots/ListBots"),
        ("GET", "/metrics"),
    ],
)
def test_environment_of_a_call_is_gone_with_its_answer(client, make_bot, method, path):
    bot = make_bot().start()
    body = {"session": bot.session, "status": "OK", "nonblocking": True}
    probe = Probe()
    alive = weakref.ref(probe)
    sent = {"data": json.dumps(body), "content_type": "application/json"}
    builder = EnvironBuilder(path, method=method, **(sent if method == "POST" else {}))
    environ = builder.get_environ()
    environ["probe"] = probe
    builder.close()
    answer = client.application.wsgi_app(environ, lambda *_args: None)
    assert b"".join(answer)
    getattr(answer, "close", list)()
    del answer, environ, probe
    assert alive() is None
