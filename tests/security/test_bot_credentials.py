"""Who may speak as a bot: every method with good, bad, missing and foreign credentials.

Over the real routes, with real keys and signatures.
"""

import ipaddress
import itertools
import json
import time
from dataclasses import replace

import pytest

from botapi import app as composition
from botapi.auth.bootstrap import new_token
from botapi.auth.credentials import secret_digest
from botapi.cfg.bundle import read
from botapi.concurrency import Threads
from botapi.store import codec
from botapi.store.protocol import join_key
from botapi.transactions.enrol_bot import create_bootstrap_token, enrol_bot
from botapi.transactions.push_config import push_config
from tests.e2e.fleet import Connection, Fleet
from tests.fakes.issuer import NOW_S, Issuer, IssuerServer, MachineSigner, self_signed
from tests.fakes.sim_bot import BOT_PATH, JSON, SimBot, flask_post

URL = "https://skep.example"
PROXY = "127.0.0.1/32"  # what the test client calls from
INSIDE, OUTSIDE = "10.0.0.1", "192.0.2.1"
ISSUER = Issuer()
SIGNER = MachineSigner()
SECRET = "s" * 43

SETTINGS_CFG = f"""\
ip_allowlist {{ name: "lan" subnet: "10.0.0.0/8" }}
oidc_provider {{ issuer: "{ISSUER.url}" jwks: {json.dumps(json.dumps(ISSUER.jwks()))} }}
machine_token_signer {{ key_id: "ts" public_key: {json.dumps(SIGNER.pem)} }}
gce_vm_tokens {{
  audience: "app.appspot.com"
  issuer: "{ISSUER.url}"
  jwks: {json.dumps(json.dumps(ISSUER.jwks()))}
}}
client_certs {{ san_header: "X-Client-San" }}
"""

METHODS = {
    "secret": "require_enrolled_secret: true",
    "machine": "require_luci_machine_token: true",
    "secure": "require_luci_machine_token_secure { ca_id: 1 ca_id: 2 }",
    "account": 'require_service_account: "robot@id.example"',
    "vm": 'require_gce_vm_token { project: "proj" }',
    "oidc": f'require_oidc {{ issuer: "{ISSUER.url}" audience: "fleet" subject: "of:{{host}}" }}',
    "cert": 'require_client_cert { san: "{host}.example" }',
}


def group(name, *auth):
    """A group of the bots whose ids begin with `name`."""
    entries = "".join(f"  auth {{ {entry} }}\n" for entry in auth)
    head = f'bot_group {{\n  bot_id_prefix: "{name}-"\n'
    return f'{head}{entries}  dimensions: "pool:default"\n}}\n'


BOTS_CFG = 'trusted_dimensions: "pool"\n' + "".join(
    group(f"{name}-alone", auth) + group(f"{name}-lan", f'{auth} ip_whitelist: "lan"')
    for name, auth in METHODS.items()
)


def shown(name, host):
    """For each way to present the credential of a method: headers."""
    late = {"issued_at": NOW_S - 1000}
    gone = {"iat": NOW_S - 1000, "exp": NOW_S - 1}
    of = f"of:{host}"
    if name == "secret":
        texts = [SECRET, "x" * 43, "", SECRET[:-1], None]
        return _ways("X-Skep-Bot-Secret", texts)
    if name in {"machine", "secure"}:
        good = SIGNER.token(f"{host}.example")
        expired = SIGNER.token(f"{host}.example", **late)
        return _ways("X-Luci-Machine-Token", [good, good[:-6], "", expired, SIGNER.token("vm9")])
    if name == "vm":
        good = ISSUER.vm_token(host)
        expired = ISSUER.vm_token(host, **gone)
        return _ways("X-Luci-Gce-Vm-Token", [good, "x", "", expired, ISSUER.vm_token("vm9")])
    if name == "cert":
        good = f"DNS:other, DNS:{host}.example"
        return _ways("X-Client-San", [good, "," * 200, "", None, "DNS:vm9.example"])
    if name == "account":
        make = ISSUER.account_token
        tokens = [make(), make()[:-4], "", make(**gone), make("vm9@id.example")]
    else:
        make = ISSUER.token
        tokens = [
            *(make(sub=of, aud="fleet"), make(sub=of, aud="fleet")[:-4], ""),
            *(make(sub=of, aud="fleet", **gone), make(sub="of:vm9", aud="fleet")),
        ]
    return _ways("Authorization", [token and f"Bearer {token}" for token in tokens])


def _ways(header, texts):
    ways = zip(("good", "bad", "absent", "expired", "of another host"), texts, strict=True)
    return {way: {header: text} if text else {} for way, text in ways if text is not None}


@pytest.fixture
def settings(settings):
    return replace(settings, public_url=URL, behind_proxy=_networks(PROXY))


def _networks(*texts):
    return tuple(ipaddress.ip_network(text) for text in texts)


def put_in_force(parts, bots, settings=SETTINGS_CFG):
    source, _meaning = read({"bots.cfg": bots.encode(), "settings.cfg": settings.encode()})
    parent = parts.config.latest().digest
    push_config(parts.store, source, parent=parent, author="t", now_ms=parts.clock.now_ms())


@pytest.fixture
def parts(settings, store, clock, rng):
    parts = composition.build(settings, store, Threads(), clock, rng)
    put_in_force(parts, BOTS_CFG)
    parts.concurrency.spawn(parts.offers.run)
    yield parts
    parts.release()


def enrol(parts, *hosts):
    now_ms = parts.clock.now_ms()
    token = new_token(uses=9, ttl_s=60, pool="", creator="t", rng=parts.rng, now_ms=now_ms)
    create_bootstrap_token(parts.store, token)
    for host in hosts:
        digest = secret_digest(SECRET)
        enrol_bot(parts.store, host, token.token_id, digest, pools=["default"], now_ms=now_ms)


def handshake(client, bot_id, headers=None, *, client_ip=INSIDE, **more):
    body = {"dimensions": {"id": [bot_id]}, "session_id": "s/1", "state": {}, "version": "v"}
    headers = {"Content-Type": JSON, "X-Forwarded-For": client_ip, **(headers or {})}
    path = BOT_PATH + "/handshake"
    return client.post(path, data=json.dumps(body).encode(), headers=headers, **more)


ADDRESSES = {"alone": {INSIDE: True, OUTSIDE: True}, "lan": {INSIDE: True, OUTSIDE: False}}


@pytest.mark.slow
@pytest.mark.spec("7.1.3.1", "7.1.3.2", "7.1.3.3", "7.1.3.4", "7.1.3.5", "0.4.1.1", "0.4.1.9")
@pytest.mark.control("bots.methods", "bots.present-but-bad", "bots.id-matching")
@pytest.mark.parametrize("name", METHODS)
def test_botauth_matrix(parts, client, name):
    """Only the good credential from a good address is let in."""
    wrong = []
    for kind, addresses in ADDRESSES.items():
        host = f"{name}-{kind}-vm1"
        enrol(parts, host)
        for (way, headers), (address, is_inside) in itertools.product(
            shown(name, host).items(), addresses.items()
        ):
            reply = handshake(client, host, headers, client_ip=address)
            expected = 200 if way == "good" and is_inside else 401
            if reply.status_code != expected:
                wrong.append(f"{kind}, {way}, {address}: {reply.status_code} {reply.text}")
    assert wrong == []


@pytest.mark.slow
@pytest.mark.control("bots.methods")
@pytest.mark.parametrize("asked", METHODS)
def test_botauth_is_not_satisfied_by_the_credential_of_another_method(parts, client, asked):
    host = f"{asked}-alone-vm1"
    enrol(parts, host)
    good = {
        name
        for name in METHODS
        if handshake(client, host, shown(name, host)["good"]).status_code == 200
    }
    both = {"machine", "secure"}
    assert good == (both if asked in both else {asked})


def test_botauth_tries_its_entries_in_order_and_tells_every_failure(parts, client):
    put_in_force(
        parts,
        'trusted_dimensions: "pool"\n' + group("vm", METHODS["vm"], METHODS["secret"]),
    )
    enrol(parts, "vm-1")
    assert handshake(client, "vm-1", {"X-Skep-Bot-Secret": SECRET}).status_code == 200
    reply = handshake(client, "vm-1")
    assert reply.text == (
        "rpc error: code = Unauthenticated desc = no auth method succeeded: "
        "X-Luci-Gce-Vm-Token is missing; X-Skep-Bot-Secret is missing\n"
    )


@pytest.mark.control("bots.present-but-bad")
@pytest.mark.parametrize("path", ["/handshake", "/poll", "/claim", "/event", "/task_update"])
@pytest.mark.spec("0.4.1.1", "0.4.p1")
def test_bad_credential_is_refused_before_type_body_and_session(client, path):
    headers = {"X-Luci-Machine-Token": "bad", "Content-Type": "text/html"}
    reply = client.post(BOT_PATH + path, data=b"{", headers=headers)
    assert reply.status_code == 401
    assert "X-Luci-Machine-Token: not base64" in reply.text


@pytest.mark.spec("0.4.1.1")
def test_token_is_a_failure_of_the_moment_while_its_issuer_is_away(parts, client):
    put_in_force(
        parts,
        'trusted_dimensions: "pool"\n' + group("vm", METHODS["secret"], METHODS["account"]),
        'oidc_provider { issuer: "https://id.example" jwks_uri: "http://127.0.0.1:1/keys" }',
    )
    enrol(parts, "vm-1")
    bearer = {"Authorization": f"Bearer {ISSUER.account_token()}", "X-Skep-Bot-Secret": SECRET}
    reply = handshake(client, "vm-1", bearer)
    assert reply.status_code == 500
    assert "code = Internal desc = the keys of https://id.example cannot be had now" in reply.text
    assert handshake(client, "vm-1", {"X-Skep-Bot-Secret": SECRET}).status_code == 200


# Addresses and proxies.


@pytest.mark.control("bots.client-address")
@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (INSIDE, 200),
        (f"{OUTSIDE}, {INSIDE}", 200),
        (f"{INSIDE}, {OUTSIDE}", 401),
        (f"{INSIDE}, {OUTSIDE}, 127.0.0.1", 401),
        (f"{INSIDE},unknown", 401),
        ("", 401),
    ],
)
def test_xff_spoof(parts, client, forwarded, status):
    """The rightmost address that is not a proxy's counts, whatever the client wrote first."""
    host = "secret-lan-vm1"
    enrol(parts, host)
    headers = {"X-Skep-Bot-Secret": SECRET}
    assert handshake(client, host, headers, client_ip=forwarded).status_code == status


@pytest.mark.control("bots.client-address", "bots.client-cert")
def test_xff_spoof_and_certificate_names_from_a_stranger_are_ignored(parts, client, caplog):
    stranger = {"environ_overrides": {"REMOTE_ADDR": OUTSIDE}}
    enrol(parts, "secret-lan-vm1")
    secret = {"X-Skep-Bot-Secret": SECRET}
    assert handshake(client, "secret-lan-vm1", secret, **stranger).status_code == 401
    cert = shown("cert", "cert-alone-vm1")["good"]
    assert handshake(client, "cert-alone-vm1", cert).status_code == 200
    for _ in range(2):
        reply = handshake(client, "cert-alone-vm1", cert, **stranger)
        assert reply.status_code == 401
        assert "no client certificate was passed on by a trusted proxy" in reply.text
    assert caplog.text.count("is not in SKEP_BEHIND_PROXY") == 1


@pytest.mark.control("bots.client-cert")
def test_certificate_names_mean_nothing_without_a_configured_proxy(settings, store, clock, rng):
    parts = composition.build(replace(settings, behind_proxy=()), store, Threads(), clock, rng)
    put_in_force(parts, BOTS_CFG)
    client = composition.create_app(parts).test_client()
    cert = shown("cert", "cert-alone-vm1")["good"]
    assert handshake(client, "cert-alone-vm1", cert).status_code == 401
    parts.release()


# Sessions.


class Bearing:
    """A simulated bot whose headers a test may change between calls."""

    def __init__(self, post, bot_id, headers):
        self.headers = headers
        self.bot = SimBot(self._post, bot_id)
        self._inner = post

    def _post(self, path, body, headers):
        return self._inner(path, body, {**headers, "X-Forwarded-For": INSIDE, **self.headers})


@pytest.fixture
def bearing(client):
    return lambda bot_id, headers: Bearing(flask_post(client), bot_id, headers)


@pytest.mark.control("tokens.session-life")
@pytest.mark.parametrize("name", METHODS)
def test_session_token_alone_is_no_use(parts, bearing, name):
    host = f"{name}-alone-vm1"
    enrol(parts, host)
    bearer = bearing(host, shown(name, host)["good"])
    bot = bearer.bot.start()
    bot.call("/event", event="bot_log", message="mine")
    assert bot.status == 200
    bearer.headers = {}
    for call in (bot.poll, bot.update, lambda: bot.call("/event", event="bot_log")):
        call()
        assert bot.status == 401, bot.text


@pytest.mark.control("tokens.session-life")
def test_session_is_bound_to_the_account_it_was_made_with(parts, bearing):
    accounts = METHODS["account"] + ' require_service_account: "spare@id.example"'
    put_in_force(parts, 'trusted_dimensions: "pool"\n' + group("vm", accounts))
    first = {"Authorization": f"Bearer {ISSUER.account_token()}"}
    spare = {"Authorization": f"Bearer {ISSUER.account_token('spare@id.example')}"}
    bearer = bearing("vm-1", first)
    bot = bearer.bot.start()
    bearer.headers = spare
    bot.call("/event", event="bot_log")
    assert bot.status == 401
    assert "session: made with another credential; poll or handshake again" in bot.text
    bot.poll()
    assert bot.status == 200
    bot.call("/event", event="bot_log")
    assert bot.status == 200
    bearer.headers = first
    bot.call("/event", event="bot_log")
    assert bot.status == 401


def test_session_goes_on_with_a_new_token_of_the_same_account(parts, bearing, clock):
    bearer = bearing("account-alone-1", {"Authorization": f"Bearer {ISSUER.account_token()}"})
    bot = bearer.bot.start()
    clock.advance(599)
    now_s = clock.now_ms() // 1000 - 1
    later = ISSUER.account_token(now_s=now_s)
    bearer.headers = {"Authorization": f"Bearer {later}"}
    bot.call("/event", event="bot_log")
    assert bot.status == 200, bot.text


@pytest.mark.spec("0.4.1.9")
def test_session_keeps_its_methods_until_the_next_poll(parts, bearing):
    """A changed bots.cfg does not stop a call; the next poll is checked against it."""
    host = "account-alone-vm1"
    enrol(parts, host)
    old, new = shown("account", host)["good"], shown("vm", host)["good"]
    bearer = bearing(host, old)
    bot = bearer.bot.start()
    changed = 'trusted_dimensions: "pool"\n' + group("account-alone", METHODS["vm"])
    put_in_force(parts, changed)
    bot.call("/event", event="bot_log")
    assert bot.status == 200
    bot.poll()
    assert bot.status == 401
    bearer.headers = new
    bot.call("/event", event="bot_log")
    assert bot.status == 401
    bot.poll()
    assert bot.status == 200, bot.text
    bot.call("/event", event="bot_log")
    assert bot.status == 200, bot.text


def test_events_and_bot_name_who_it_proved_to_be(parts, bearing):
    bearing("machine-alone-vm1", shown("machine", "machine-alone-vm1")["good"]).bot.start()
    (doc,) = parts.store.get(codec.BOT, join_key("machine-alone-vm1"))
    assert codec.read_bot(doc).authenticated_as == "bot:machine-alone-vm1.example"


# A real server.

OIDC_BOTS_CFG = """\
trusted_dimensions: "pool"
bot_group {
  auth { require_service_account: "robot@id.example" }
  dimensions: "pool:default"
}
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_bot_with_an_identity_token_works_on_a_real_server(tmp_path):
    """From handshake to completion, with keys that the server fetches over TLS."""
    files = self_signed(tmp_path)
    issuer = IssuerServer(files)
    fleet = Fleet(tmp_path, SKEP_PUBLIC_URL=URL, SSL_CERT_FILE=str(files[0]))
    try:
        fleet.server.bots_cfg.write_text(OIDC_BOTS_CFG)
        settings_cfg = fleet.server.bots_cfg.with_name("settings.cfg")
        settings_cfg.write_text(f'oidc_provider {{ issuer: "{issuer.url}" }}\n')
        fleet.server.start()
        token = issuer.account_token(now_s=int(time.time()))
        connection = Connection(fleet.server.url)

        def post(path, body, headers):
            return connection(path, body, {**headers, "Authorization": f"Bearer {token}"})

        bot = SimBot(post, "vm1").start()
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        task = fleet.api.submit("/bin/true", dimensions={"pool": ["default"]})
        lease = bot.update(nonblocking=False)["lease"]
        bot.work(lease, b"done\n")
        assert bot.status == 200, bot.text
        done = fleet.api.until(task["task_id"], "COMPLETED")
        assert done["state"] == "COMPLETED"
        token = issuer.account_token("else@id.example", now_s=int(time.time()))
        bot.poll()
        assert bot.status == 401
        connection.close()
        assert "Warning" not in fleet.server.text()
    finally:
        fleet.end()
        issuer.close()
