"""`oauth_token` and `id_token`, row by row (bot-api 1.9), and what others check tokens with."""

import json
import logging
from dataclasses import replace

import jwt
import pytest
from jwt import PyJWKSet

from botapi import __version__
from botapi.auth import keys
from botapi.cfg.bundle import Source
from botapi.clock import SystemClock, SystemRng
from botapi.handlers.task_token import MAX_AUDIENCE_CHARS, MAX_SCOPE_CHARS, MAX_SCOPES
from botapi.store import codec
from botapi.store.protocol import Outage
from botapi.transactions.bot_missing import bot_missing
from botapi.transactions.push_config import push_config
from botapi.transactions.update_bot import Stamp
from tests.factories import LOOPBACK_CFG, make_request
from tests.fakes.person import Person, new_key
from tests.fakes.sts_stub import sts_stub
from tests.handlers.test_life_of_a_bot import stored_bot, submit
from tests.transactions.stores import dump

ACCOUNT = "builder@accounts.example"
REALM = "proj:tasks"
AUDIENCE = "https://cloud.example"
POOLS_CFG = """\
pool {{
  name: "default"
  realm: "proj:pool"
  {more}
}}
"""
ALLOWED = f'allowed_service_account: "{ACCOUNT}" default_task_realm: "{REALM}"'
PATHS = ("/oauth_token", "/id_token")


@pytest.fixture(scope="module")
def rsa_secret():
    return keys.new_key(keys.OIDC, SystemClock(), SystemRng()).secret


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch, rsa_secret):
    """One RSA key for all tests: making one takes a tenth of a second and more."""
    monkeypatch.setattr(keys, "_rsa_secret", lambda: rsa_secret)


@pytest.fixture(scope="module")
def sts_of_module():
    with sts_stub() as stub:
        yield stub


@pytest.fixture
def sts(sts_of_module):
    sts_of_module.asked.clear()
    sts_of_module.grant()
    return sts_of_module


def configure(parts, *, pools=ALLOWED, system="", audiences=(AUDIENCE,), exchanges=()):
    bots = LOOPBACK_CFG
    if system:
        line = f'  system_service_account: "{system}"\n}}'
        bots = bots.rstrip().removesuffix("}") + line
    settings = [f'id_token_audience: "{audience}"' for audience in audiences]
    settings += [
        f'token_exchange {{ service_account: "{account}" endpoint: "{url}" audience: "sts" }}'
        for account, url in exchanges
    ]
    source = Source(bots, {}, POOLS_CFG.format(more=pools), "\n".join(settings))
    head = parts.config.latest()
    push_config(parts.store, source, parent=head.digest, author="test", now_ms=parts.clock.now_ms())
    parts.config.latest()


@pytest.fixture
def bot(parts, make_bot):
    configure(parts)
    return make_bot().start()


@pytest.fixture
def running(parts, bot):
    """The bot runs a task that acts as the account; its run id."""
    return run(parts, bot, service_account=ACCOUNT, realm=REALM)


def run(parts, bot, **more):
    submit(parts, **more)
    return bot.claim(bot.update(nonblocking=False)["lease"])["task_id"]


def ask(bot, path, **more):
    body = {"account_id": "task", "id": bot.bot_id}
    body |= {"scopes": ["email"]} if path == "/oauth_token" else {"audience": AUDIENCE}
    return bot.call(path, **(body | more))


def is_refused(bot, status, text):
    """As upstream's line, except that a 400 is JSON."""
    assert (bot.status, text in bot.text) == (status, True), bot.text
    if status == 400:
        assert bot.headers["Content-Type"].startswith("application/json")
        assert list(json.loads(bot.text)) == ["error"]
    else:
        assert bot.headers["Content-Type"].startswith("text/plain")
        assert bot.text.startswith("rpc error: code = ")


@pytest.mark.spec("1.9.3.1", "1.9.2.1")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("account", "word"), [("", "none"), ("none", "none"), ("bot", "bot")])
def test_task_without_an_account_gets_the_word_and_no_token(parts, bot, path, account, word):
    run_id = run(parts, bot, service_account=account)
    assert ask(bot, path, task_id=run_id) == {"service_account": word}
    assert bot.status == 200


@pytest.mark.spec("1.9.3.6", "2.1.3.4")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("system", "word"), [("", "none"), ("bot", "bot")])
def test_bot_without_an_account_gets_the_word_and_no_token(parts, make_bot, path, system, word):
    bot = make_bot().start()
    parts_session(parts, bot, system)
    assert ask(bot, path, account_id="system") == {"service_account": word}


def parts_session(parts, bot, system):
    """The bot's session as if its group had this account."""
    session = parts.bots.session_of(bot.session)
    config = replace(session.bot_config, system_service_account=system)
    bot.session = parts.bots.token(replace(session, bot_config=config))


@pytest.mark.spec("1.9.1.2", "1.9.p1")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("account_id", [None, "", "Task", "both", ACCOUNT])
def test_account_id_is_task_or_system(bot, running, path, account_id):
    ask(bot, path, task_id=running, account_id=account_id)
    is_refused(bot, 400, "account_id: neither task nor system")


@pytest.mark.spec("1.9.1.3", "1.9.3.2", "1.9.p1")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("task_id", [None, "", "XYZ", "1", "0" * 18, "ffff0000ffff00001"])
def test_task_id_that_is_missing_or_malformed_is_400(bot, running, path, task_id):
    ask(bot, path, task_id=task_id)
    is_refused(bot, 400, "task_id: ")


@pytest.mark.spec("1.9.1.3", "1.9.3.2")
@pytest.mark.control("bots.own-run-only")
@pytest.mark.parametrize("path", PATHS)
def test_task_id_must_be_the_run_of_this_bot(parts, bot, make_bot, running, path):
    ask(bot, path, task_id=running[:-1] + "0")
    is_refused(bot, 400, f"this bot does not run {running[:-1]}0")
    other = make_bot("vm2").start()
    ask(other, path, task_id=running)
    is_refused(other, 400, f"this bot does not run {running}")
    bot.finish(running)
    ask(bot, path, task_id=running)
    is_refused(bot, 400, f"this bot does not run {running}")


@pytest.mark.control("bots.own-run-only")
@pytest.mark.parametrize("path", PATHS)
def test_bot_that_was_given_up_gets_no_token_for_the_task_it_died_on(
    parts, bot, running, path, clock
):
    parts.last_seen.flush(everything=True)
    seen = parts.last_seen.get(bot.bot_id)[bot.bot_id]
    assert bot_missing(
        parts.store, seen, stored_bot(parts), Stamp(clock.now_ms(), "missing", 10**12)
    )
    ask(bot, path, task_id=running)
    is_refused(bot, 400, f"{running} has ended")


@pytest.mark.spec("1.9.3.3")
@pytest.mark.parametrize("path", PATHS)
def test_task_whose_request_is_gone_is_400(parts, bot, running, path):
    parts.store.transact(lambda txn: txn.delete(codec.REQ, codec.task_key(running)), label="test")
    ask(bot, path, task_id=running)
    is_refused(bot, 400, f"there is no task {running}")


@pytest.mark.spec("1.9.3.4")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"service_account": "builder", "realm": REALM}, "is not an e-mail"),
        ({"service_account": ACCOUNT, "realm": ""}, "the task has no realm"),
    ],
)
def test_task_with_a_bad_account_or_no_realm_is_400(parts, bot, path, more, text):
    run_id = run(parts, bot, **more)
    ask(bot, path, task_id=run_id)
    is_refused(bot, 400, text)


@pytest.mark.control("tasks.id-tokens")
@pytest.mark.spec("1.9.3.5")
@pytest.mark.parametrize("path", PATHS)
def test_account_is_asked_for_again_at_each_mint(parts, bot, running, path, sts):
    configure(parts, exchanges=[(ACCOUNT, sts.url)])
    assert ask(bot, path, task_id=running)["service_account"] == ACCOUNT
    configure(parts, pools=f'default_task_realm: "{REALM}"', exchanges=[(ACCOUNT, sts.url)])
    ask(bot, path, task_id=running)
    is_refused(bot, 403, f'tasks of pool "default" may not act as {ACCOUNT}')


@pytest.mark.spec("1.9.3.6")
@pytest.mark.parametrize("path", PATHS)
def test_bot_with_a_bad_account_is_400(parts, make_bot, path):
    bot = make_bot().start()
    parts_session(parts, bot, "no e-mail")
    ask(bot, path, account_id="system")
    is_refused(bot, 400, "system_service_account of this bot is not an e-mail")


@pytest.mark.spec("1.9.3.7")
def test_mint_is_refused_when_nothing_is_configured_for_it(parts, make_bot):
    configure(parts, system=ACCOUNT, audiences=["https://other.example"])
    bot = make_bot().start()
    ask(bot, "/id_token", account_id="system")
    is_refused(bot, 400, f'audience \\"{AUDIENCE}\\" is no id_token_audience')
    ask(bot, "/oauth_token", account_id="system")
    is_refused(bot, 400, f"no token_exchange in settings.cfg is for {ACCOUNT}")


@pytest.mark.spec("1.9.3.8")
def test_mint_that_may_work_later_is_500(parts, bot, running, sts):
    configure(parts, exchanges=[(ACCOUNT, sts.url)])
    sts.answer(503, b"busy")
    ask(bot, "/oauth_token", task_id=running)
    is_refused(bot, 500, "try again")
    sts.grant()
    assert ask(bot, "/oauth_token", task_id=running)["access_token"] == "at-1"


@pytest.mark.spec("1.9.3.7")
def test_mint_that_the_endpoint_refuses_is_400(parts, bot, running, sts):
    configure(parts, exchanges=[(ACCOUNT, sts.url)])
    sts.answer(400, {"error": "invalid_target", "error_description": "not that one"})
    ask(bot, "/oauth_token", task_id=running)
    is_refused(bot, 400, "answers 400: invalid_target: not that one")


@pytest.mark.spec("1.9.1.4", "1.9.1.5", "1.9.p1")
@pytest.mark.parametrize(
    ("path", "more", "text"),
    [
        ("/oauth_token", {"scopes": None}, "scopes: missing"),
        ("/oauth_token", {"scopes": []}, "scopes: missing"),
        ("/oauth_token", {"scopes": ["a b"]}, "scopes: not 1 to 512"),
        ("/oauth_token", {"scopes": [""]}, "scopes: not 1 to 512"),
        ("/oauth_token", {"scopes": ["ä"]}, "scopes: not 1 to 512"),
        ("/oauth_token", {"scopes": ["x" * (MAX_SCOPE_CHARS + 1)]}, "scopes: not 1 to 512"),
        ("/oauth_token", {"scopes": ["x"] * (MAX_SCOPES + 1)}, "scopes: 101 entries"),
        ("/oauth_token", {"scopes": "email"}, "body: Expected `array | null`"),
        ("/oauth_token", {"audience": "x"}, "audience: is for identity tokens"),
        ("/id_token", {"scopes": ["email"]}, "scopes: are for access tokens"),
        ("/id_token", {"audience": None}, "audience: missing"),
        ("/id_token", {"audience": ""}, "audience: missing"),
        ("/id_token", {"audience": "x" * (MAX_AUDIENCE_CHARS + 1)}, "audience: over 1024"),
        ("/id_token", {"audience": "https://else.example"}, "is no id_token_audience"),
    ],
)
def test_scopes_are_for_one_call_and_an_audience_for_the_other(
    parts, bot, running, path, more, text
):
    before = dump(parts.store)
    ask(bot, path, task_id=running, **more)
    is_refused(bot, 400, text)
    assert dump(parts.store) == before


@pytest.mark.spec("1.9.2.1", "1.9.2.2", "1.9.2.3", "1.9.1.6")
def test_access_token_comes_from_the_exchange(parts, bot, running, sts):
    configure(parts, exchanges=[("*", sts.url)])
    reply = ask(bot, "/oauth_token", task_id=running, scopes=["b", "a"], audience="")
    now_s = parts.clock.now_ms() // 1000
    assert reply == {
        "service_account": ACCOUNT,
        "access_token": "at-1",
        "expiry": now_s + 3600,
    }
    (form,) = sts.asked
    claims = jwt.decode(form["subject_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == (f"task:default:{ACCOUNT}", "sts")
    assert form["scope"] == "a b"


@pytest.mark.control("tasks.id-tokens")
@pytest.mark.spec("1.9.2.1", "1.9.2.2", "1.9.2.3", "1.9.1.6", "1.9.1.5")
def test_identity_token_is_checked_with_what_the_server_publishes(parts, client, bot, running):
    reply = ask(bot, "/id_token", task_id=running, scopes=[])
    configuration = client.get("/.well-known/openid-configuration")
    keys = client.get("/.well-known/jwks.json")
    for document in (configuration, keys):
        assert document.headers["Cache-Control"] == "public, max-age=300"
    issuer = configuration.json["issuer"]
    assert configuration.json["jwks_uri"] == issuer + "/.well-known/jwks.json"
    assert issuer == "http://localhost"
    header = jwt.get_unverified_header(reply["id_token"])
    key = PyJWKSet.from_dict(keys.json)[header["kid"]]
    claims = jwt.decode(
        reply["id_token"],
        key,
        ["RS256"],
        audience=AUDIENCE,
        issuer=issuer,
        options={"verify_exp": False, "verify_iat": False},  # the clock of this test stands still
    )
    now_s = parts.clock.now_ms() // 1000
    assert claims.pop("jti")
    assert claims == {
        "iss": issuer,
        "sub": f"task:default:{ACCOUNT}",
        "aud": AUDIENCE,
        "iat": now_s,
        "exp": now_s + 3600,
        "service_account": ACCOUNT,
        "pool": "default",
        "bot_id": "vm1",
        "task_id": running[:-1] + "0",
        "run_id": running,
        "realm": REALM,
    }
    assert reply["expiry"] == now_s + 3600
    assert reply["service_account"] == ACCOUNT


@pytest.mark.spec("1.9.3.6")
def test_identity_token_of_the_bot_itself_names_no_task(parts, make_bot):
    configure(parts, system="bots@accounts.example")
    bot = make_bot().start()
    reply = ask(bot, "/id_token", account_id="system")
    claims = jwt.decode(reply["id_token"], options={"verify_signature": False})
    assert claims["sub"] == "system:default:bots@accounts.example"
    assert claims.keys() & {"task_id", "run_id", "user", "realm"} == set()


@pytest.mark.control("tasks.id-tokens")
@pytest.mark.parametrize(
    ("allowed", "is_good"),
    [
        ("https://cloud.example", True),
        ("https://cloud.*", True),
        ("*", True),
        ("https://cloud.example/", False),
        ("https://cloud", False),
        ("https://Cloud.*", False),
    ],
)
def test_audience_is_named_in_settings_cfg(parts, bot, running, allowed, is_good):
    configure(parts, audiences=[allowed])
    ask(bot, "/id_token", task_id=running)
    assert bot.status == (200 if is_good else 400)


@pytest.mark.control("tokens.older-session")
@pytest.mark.parametrize("path", PATHS)
def test_older_session_of_a_bot_id_gets_no_token(bot, make_bot, running, path):
    later = make_bot()
    later.session_id = "vm1-later"
    later.handshake()
    ask(bot, path, task_id=running)
    is_refused(bot, 403, "a later session of this bot id is there")


@pytest.mark.spec("1.9.1.1")
@pytest.mark.parametrize("path", PATHS)
def test_session_is_required(bot, running, path):
    bot.session = None
    ask(bot, path, task_id=running)
    is_refused(bot, 401, "session: missing")


@pytest.mark.spec("1.9.p1", "D.1.5")
@pytest.mark.parametrize("path", PATHS)
def test_every_400_is_json_also_before_the_handler(client, path):
    reply = client.post("/swarming/api/v1/bot" + path, data=b"{}", headers={"Content-Type": "x"})
    assert reply.status_code == 400
    assert reply.content_type == "application/json; charset=utf-8"
    assert reply.json["error"].startswith('Content-Type: "x" is not')


@pytest.mark.parametrize("path", PATHS)
def test_store_that_is_away_is_no_400(parts, bot, running, path, monkeypatch):
    def away(*_keys):
        raise Outage("away")

    monkeypatch.setattr(parts.bots.store, "get", away)
    ask(bot, path, task_id=running)
    assert bot.status == 503


def test_mint_is_logged_with_its_tags_and_without_the_token(parts, bot, running, caplog):
    with caplog.at_level(logging.INFO, "botapi.handlers.task_token"):
        reply = ask(bot, "/id_token", task_id=running)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "botapi.handlers.task_token"]
    for word in ("vm1", running, "(test)", ACCOUNT, AUDIENCE, f"server {__version__}"):
        assert word in line
    assert bot.headers["X-Request-Id"] in line
    assert reply["id_token"] not in caplog.text


@pytest.mark.spec("13.1.9")
def test_access_token_may_be_shared_while_it_has_five_minutes_left(
    parts, clock, bot, make_bot, running, sts
):
    configure(parts, exchanges=[(ACCOUNT, sts.url)])
    ask(bot, "/oauth_token", task_id=running)
    other = make_bot("vm2").start()
    of_other = run(parts, other, number=2, service_account=ACCOUNT, realm=REALM)
    clock.advance(3600 - 301)
    sts.grant("at-2")
    assert ask(other, "/oauth_token", task_id=of_other)["access_token"] == "at-1"
    clock.advance(1)
    assert ask(other, "/oauth_token", task_id=of_other)["access_token"] == "at-2"
    assert len(sts.asked) == 2


@pytest.mark.spec("4.4.1.20", "4.4.1.18")
def test_manifest_names_accounts_and_realm(parts, make_bot):
    configure(parts, system="bots@accounts.example")
    bot = make_bot().start()
    submit(parts, service_account=ACCOUNT, realm=REALM)
    manifest = bot.claim(bot.update(nonblocking=False)["lease"])["manifest"]
    assert manifest["service_accounts"] == {
        "system": {"service_account": "bots@accounts.example"},
        "task": {"service_account": ACCOUNT},
    }
    assert manifest["realm"] == {"name": REALM}


def test_manifest_without_accounts_says_none(parts, make_bot):
    bot = make_bot().start()
    submit(parts)
    manifest = bot.claim(bot.update(nonblocking=False)["lease"])["manifest"]
    assert manifest["service_accounts"]["task"] == {"service_account": "none"}
    assert "realm" not in manifest


@pytest.fixture
def alice(client, store, clock, rng):
    return Person(client, new_key(store, clock, rng))


def made(alice, **more):
    return alice.post("/tasks", {"command": ["/bin/true"], "wait_for_capacity": True, **more})


@pytest.mark.spec("10.7.1.21")
def test_task_gets_the_realm_it_asks_for_else_that_of_its_pool(parts, alice):
    assert made(alice).json["realm"] is None  # without a pools.cfg nothing is demanded
    configure(parts, pools=f'default_task_realm: "{REALM}"')
    assert made(alice).json["realm"] == REALM
    assert made(alice, realm="proj:other").json["realm"] == "proj:other"
    configure(parts, pools="")
    for pool in ("default", "elsewhere"):
        reply = made(alice, dimensions={"pool": [pool]})
        assert (reply.status_code, reply.json["detail"]) == (
            400,
            f'/realm: is missing, and pool "{pool}" has no default_task_realm',
        )
    assert made(alice, realm=REALM).status_code == 201


@pytest.mark.spec("10.7.1.18", "13.1.40")
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"service_account": "builder"}, "/service_account: is neither none, bot nor an e-mail"),
        ({"service_account": f"{'x' * 117}@example.com"}, "/service_account: has 129 characters"),
        ({"realm": "proj"}, '/realm: is not "project:name"'),
        ({"realm": "Proj:x"}, '/realm: is not "project:name"'),
        ({"realm": "proj:" + "x" * 401}, '/realm: is not "project:name"'),
    ],
)
def test_account_and_realm_have_a_form(parts, alice, body, detail):
    configure(parts)
    reply = made(alice, **body)
    assert reply.status_code == 400
    assert reply.json["detail"].startswith(detail)


@pytest.mark.spec("10.7.1.18")
@pytest.mark.parametrize("account", ["none", "bot", "", ACCOUNT])
def test_task_may_act_as_what_its_pool_allows(parts, alice, account):
    configure(parts)
    reply = made(alice, service_account=account)
    assert (reply.status_code, reply.json["service_account"]) == (201, account or "none")


@pytest.mark.spec("13.1.40")
def test_account_of_the_longest_form_is_taken(parts, alice):
    account = f"{'x' * 116}@example.com"
    configure(parts, pools=f'allowed_service_account: "{account}" default_task_realm: "{REALM}"')
    assert made(alice, service_account=account).json["service_account"] == account


@pytest.mark.control("tasks.id-tokens")
@pytest.mark.parametrize("pools", ["", f'default_task_realm: "{REALM}"'])
def test_task_may_not_act_as_what_its_pool_does_not_allow(parts, alice, pools):
    if pools:
        configure(parts, pools=pools)
    before = dump(parts.store)
    reply = made(alice, service_account=ACCOUNT)
    assert reply.status_code == 403
    assert f'tasks of pool "default" may not act as {ACCOUNT}' in reply.json["detail"]
    assert dump(parts.store) == before


def test_request_from_before_accounts_still_loads():
    doc = codec.request_doc(make_request())
    old = {name: doc.body[name] for name in doc.body.keys() - {"service_account", "realm"}}
    read = codec.read_request(replace(doc, body=old))
    assert (read.service_account, read.realm) == ("none", "")
