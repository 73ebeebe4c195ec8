"""Tokens of tasks from a real server, checked as a stranger would: over HTTP, by the clock."""

import jwt
import pytest

from tests.e2e.fleet import BOTS_CFG, Api, Connection, ServerProcess
from tests.fakes.sim_bot import SimBot
from tests.fakes.sts_stub import sts_stub

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ACCOUNT = "builder@accounts.example"
POOLS_CFG = f"""\
pool {{
  name: "sim"
  realm: "proj:pool"
  default_task_realm: "proj:tasks"
  allowed_service_account: "{ACCOUNT}"
}}
pool {{ name: "default" realm: "proj:pool" }}
"""
SETTINGS_CFG = """\
id_token_audience: "https://cloud.example/*"
token_exchange {{ service_account: "*" endpoint: "{url}" audience: "sts" }}
"""


@pytest.fixture(scope="module")
def sts():
    with sts_stub() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(tmp_path_factory, sts):
    server = ServerProcess(tmp_path_factory.mktemp("identity"), {})
    server.api = Api(server.url, server.init(BOTS_CFG))
    folder = server.bots_cfg.parent
    (folder / "pools.cfg").write_text(POOLS_CFG)
    (folder / "settings.cfg").write_text(SETTINGS_CFG.format(url=sts.url))
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture
def bot(server):
    connection = Connection(server.url)
    yield SimBot(connection, "sim1").start()
    connection.close()


def verified(token, url, audience):
    """The claims, by a library that knows nothing but the issuer's address."""
    client = jwt.PyJWKClient(url + "/.well-known/jwks.json")
    key = client.get_signing_key_from_jwt(token)
    return jwt.decode(token, key, ["RS256"], audience=audience, issuer=url)


def test_task_gets_tokens_of_its_account(server, bot, sts):
    task = server.api.submit("true", dimensions={"pool": ["sim"]}, service_account=ACCOUNT)
    assert (task["service_account"], task["realm"]) == (ACCOUNT, "proj:tasks")
    run_id = bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]
    asked = {"account_id": "task", "task_id": run_id}
    audience = "https://cloud.example/a"
    reply = bot.call("/id_token", audience=audience, **asked)
    assert bot.status == 200, bot.text
    claims = verified(reply["id_token"], server.url, audience)
    assert (claims["sub"], claims["run_id"]) == (f"task:sim:{ACCOUNT}", run_id)
    assert claims["exp"] == reply["expiry"]
    reply = bot.call("/oauth_token", scopes=["email"], **asked)
    assert (bot.status, reply.get("access_token")) == (200, "at-1"), bot.text
    (form,) = sts.asked
    assert verified(form["subject_token"], server.url, "sts")["sub"] == f"task:sim:{ACCOUNT}"
    bot.finish(run_id)
    bot.call("/oauth_token", scopes=["email"], **asked)
    assert (bot.status, "does not run" in bot.text) == (400, True)
    assert reply["access_token"] not in server.text()
    assert run_id in server.text()
