"""Who a bot proves to be (bot-api 7.3), and from which address."""

import hashlib
import logging
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth.credentials import (
    MAX_VERIFIED,
    VERIFIED_S,
    CredentialChecker,
    Identity,
    Presented,
    Proof,
    Rules,
    authorize_bot,
    client_ip,
    secret_digest,
)
from botapi.auth.jwks import KeySets
from botapi.auth.proof import Account, Instance, Machine
from botapi.concurrency import Threads
from botapi.domain.bot_groups import AuthMethod, Oidc
from botapi.domain.errors import Code, Refusal
from botapi.domain.fleet_settings import FleetSettings
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import NOW_S, MachineSigner

LISTS = {"lan": [ip_network("10.0.0.0/8"), ip_network("fd00::/8")], "empty": []}
SECRET = "s" * 43
ENROLLED = {"vm1": secret_digest(SECRET)}
URL = "https://skep.example"
RULES = Rules(ENROLLED.get, LISTS, URL)
ASKS_SECRET = AuthMethod(require_enrolled_secret=True)
ASKS_LAN = AuthMethod(ip_whitelist="lan")
ASKS_BOTH = AuthMethod(require_enrolled_secret=True, ip_whitelist="lan")
ROBOT = Account("https://id.example", "robot", (URL,), "robot@id.example")


def authorize(methods, proof, bot_id="vm1", rules=RULES):
    return authorize_bot(bot_id, methods, proof, rules)


def refusal(methods, proof, bot_id="vm1", rules=RULES):
    with pytest.raises(Refusal) as caught:
        authorize(methods, proof, bot_id, rules)
    assert caught.value.code is Code.UNAUTHENTICATED
    return caught.value.message


def shows(evidence=None, **more):
    return Proof("1.2.3.4", evidence=evidence, **more)


@pytest.mark.spec("7.3.p1")
@pytest.mark.parametrize("bot_id", ["vm1", "vm1--gpu0"])
def test_bot_is_known_by_the_secret_of_its_host(bot_id):
    identity = authorize([ASKS_SECRET], Proof("1.2.3.4", SECRET), bot_id)
    assert (identity.name, identity.method) == ("bot:vm1", "require_enrolled_secret")
    assert len(identity.credential_sha256) == 32
    assert identity.credential_sha256 != ENROLLED["vm1"]


@pytest.mark.spec("7.1.3.5")
@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_bot_is_known_by_its_address_alone_when_the_group_says_so(address):
    assert authorize([ASKS_LAN], Proof(address)) == Identity("bot:whitelisted-ip", "ip_whitelist")


@pytest.mark.spec("7.1.3.5")
def test_address_is_an_additional_condition_beside_a_method():
    assert authorize([ASKS_BOTH], Proof("10.0.0.1", SECRET)).name == "bot:vm1"
    assert "address list" in refusal([ASKS_BOTH], Proof("1.2.3.4", SECRET))
    assert "is missing" in refusal([ASKS_BOTH], Proof("10.0.0.1"))


WRONG_SECRET = "X-Skep-Bot-Secret: not the secret of this host"
NOT_ENROLLED = "X-Skep-Bot-Secret: this host is not enrolled"


@pytest.mark.parametrize(
    ("methods", "proof", "bot_id", "said"),
    [
        ([], Proof("10.0.0.1"), "vm1", "no auth method is configured for this bot"),
        ([ASKS_SECRET], Proof("10.0.0.1"), "vm1", "X-Skep-Bot-Secret is missing"),
        ([ASKS_SECRET], Proof("10.0.0.1", "x" * 43), "vm1", WRONG_SECRET),
        ([ASKS_SECRET], Proof("10.0.0.1", "\ud800"), "vm1", WRONG_SECRET),
        ([ASKS_SECRET], Proof("10.0.0.1", SECRET), "vm2", NOT_ENROLLED),
        ([ASKS_SECRET], Proof("10.0.0.1", SECRET), "vm10", NOT_ENROLLED),
        ([ASKS_LAN], Proof("1.2.3.4"), "vm1", '1.2.3.4 is not in the address list "lan"'),
        ([ASKS_LAN], Proof(""), "vm1", 'the address is not in the address list "lan"'),
        ([ASKS_LAN], Proof("x"), "vm1", 'x is not in the address list "lan"'),
        (
            [AuthMethod(ip_whitelist="empty")],
            Proof("10.0.0.1"),
            "vm1",
            '10.0.0.1 is not in the address list "empty"',
        ),
        (
            [AuthMethod(ip_whitelist="other")],
            Proof("10.0.0.1"),
            "vm1",
            'there is no address list "other"',
        ),
        ([AuthMethod()], Proof("10.0.0.1"), "vm1", "the auth entry names no method"),
        (
            [ASKS_SECRET, AuthMethod(ip_whitelist="other")],
            Proof("10.0.0.1"),
            "vm1",
            "no auth method succeeded: X-Skep-Bot-Secret is missing; "
            'there is no address list "other"',
        ),
    ],
)
@pytest.mark.spec("7.3.p1")
def test_bot_is_refused_with_the_reason(methods, proof, bot_id, said):
    assert refusal(methods, proof, bot_id) == said


@pytest.mark.spec("0.4.1.1")
def test_wrong_secret_is_refused_even_where_the_address_would_do():
    assert refusal([ASKS_LAN], Proof("10.0.0.1", "wrong")) == WRONG_SECRET


@pytest.mark.spec("7.1.2.4", "7.1.3.6", "7.3.p1")
def test_first_satisfied_method_wins_and_loud_failures_are_logged(caplog):
    loud = AuthMethod(ip_whitelist="other", log_if_failed=True)
    quiet = AuthMethod(ip_whitelist="empty")
    with caplog.at_level(logging.DEBUG):
        identity = authorize([quiet, loud, ASKS_LAN, loud, loud], Proof("10.0.0.1"))
    assert identity.method == "ip_whitelist"
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", 'bot vm1: an auth method failed: there is no address list "other"')
    ]


@pytest.mark.spec("7.3.p1", "0.4.1.9")
def test_failure_to_look_a_secret_up_ends_the_search():
    def broken(host):
        raise OSError("store is down")

    with pytest.raises(OSError, match="down"):
        authorize([ASKS_LAN], Proof("10.0.0.1", SECRET), rules=Rules(broken, LISTS))


def test_fingerprint_tells_secrets_apart_and_is_not_what_is_stored():
    rules = Rules({"vm1": secret_digest("a"), "vm2": secret_digest("b")}.get)
    one, other = (
        authorize([ASKS_SECRET], Proof("", secret), bot, rules)
        for bot, secret in (("vm1", "a"), ("vm2", "b"))
    )
    assert one.credential_sha256 != other.credential_sha256
    assert secret_digest("a") == hashlib.sha256(b"a").digest()


MACHINE = AuthMethod(require_luci_machine_token=True)
OF_CA_1_OR_2 = AuthMethod(require_luci_machine_token_secure=(1, 2))
OF_ANY_CA = AuthMethod(require_luci_machine_token_secure=())
OF_ROBOTS = AuthMethod(require_service_account=("a@id.example", "robot@id.example"))
OF_PROJECT = AuthMethod(require_gce_vm_token="proj")
OF_SUBJECT = AuthMethod(require_oidc=Oidc("https://id.example", "fleet", ("robot", "of:{host}")))
OF_CERT = AuthMethod(require_client_cert=("{host}", "{host}.example"))
OF_NAMES = AuthMethod(require_client_cert=("any.example", "spiffe://fleet/{host}"))


def subject(sub, *, issuer="https://id.example", audiences=("fleet",), email=""):
    return shows(Account(issuer, sub, audiences, email))


@pytest.mark.parametrize(
    ("method", "proof", "name"),
    [
        pytest.param(
            MACHINE, shows(Machine("vm1", 9)), "bot:vm1", marks=pytest.mark.spec("7.1.3.1")
        ),
        pytest.param(
            MACHINE, shows(Machine("vm1.a.b", 9)), "bot:vm1.a.b", marks=pytest.mark.spec("7.1.3.1")
        ),
        pytest.param(
            OF_CA_1_OR_2, shows(Machine("vm1.x", 2)), "bot:vm1.x", marks=pytest.mark.spec("7.1.3.2")
        ),
        pytest.param(
            OF_ANY_CA, shows(Machine("vm1.x", 9)), "bot:vm1.x", marks=pytest.mark.spec("7.1.3.2")
        ),
        pytest.param(
            OF_PROJECT,
            shows(Instance("vm1", "proj")),
            "bot:vm1@gce.proj",
            marks=pytest.mark.spec("7.1.3.4", "0.6.1.6"),
        ),
        pytest.param(
            OF_ROBOTS,
            shows(ROBOT),
            "user:robot@id.example",
            marks=pytest.mark.spec("7.1.3.3", "0.6.1.7"),
        ),
        (OF_SUBJECT, subject("robot", email="r@x"), "user:r@x"),
        (OF_SUBJECT, subject("of:vm1"), "oidc:https://id.example#of:vm1"),
        (OF_CERT, shows(cert_names=("x", "vm1.example")), "bot:vm1.example"),
        (OF_CERT, shows(cert_names=("vm1",)), "bot:vm1"),
        (OF_NAMES, shows(cert_names=("vm2", "any.example")), "bot:any.example"),
        (OF_NAMES, shows(cert_names=("spiffe://fleet/vm1",)), "bot:spiffe://fleet/vm1"),
    ],
)
def test_bot_is_known_by_what_the_method_asks_for(method, proof, name):
    identity = authorize([method], proof)
    assert (identity.name, identity.method) == (name, method.requirements()[0])
    assert len(identity.credential_sha256) == 32
    assert authorize([method], proof, "vm1--gpu0").name == name


@pytest.mark.parametrize(
    ("method", "proof", "said"),
    [
        (MACHINE, shows(), "X-Luci-Machine-Token is missing"),
        (MACHINE, shows(ROBOT), "X-Luci-Machine-Token is missing"),
        (
            MACHINE,
            shows(Machine("vm10", 1)),
            'the machine token is of "vm10", not of host "vm1"',
        ),
        (
            OF_CA_1_OR_2,
            shows(Machine("vm1", 3)),
            "the machine token is by the certificate authority 3, not a listed one",
        ),
        (OF_PROJECT, shows(Machine("vm1", 1)), "X-Luci-Gce-Vm-Token is missing"),
        (
            OF_PROJECT,
            shows(Instance("VM1", "proj")),
            'the VM token is of instance "VM1", not of host "vm1"',
        ),
        (
            OF_PROJECT,
            shows(Instance("vm1.x", "proj")),
            'the VM token is of instance "vm1.x", not of host "vm1"',
        ),
        (
            OF_PROJECT,
            shows(Instance("vm1", "proj2")),
            'the VM token is of project "proj2", not of "proj"',
        ),
        (
            AuthMethod(require_gce_vm_token=""),
            shows(Instance("vm1", "")),
            'the VM token is of project "", not of ""',
        ),
        (OF_ROBOTS, shows(), "Authorization is missing"),
        (OF_ROBOTS, subject("robot"), "the identity token names no verified e-mail address"),
        (
            OF_ROBOTS,
            subject("robot", email="b@id.example"),
            "b@id.example is not a listed service account",
        ),
        (
            OF_ROBOTS,
            subject("robot", email="robot@id.example"),
            "the identity token is not for https://skep.example",
        ),
        (OF_SUBJECT, shows(), "Authorization is missing"),
        (
            OF_SUBJECT,
            subject("robot", issuer="https://else.example"),
            "the identity token is by https://else.example, not by https://id.example",
        ),
        (OF_SUBJECT, subject("of:vm2"), 'the subject "of:vm2" is not listed'),
        (OF_SUBJECT, subject("of:{host}"), 'the subject "of:{host}" is not listed'),
        (OF_SUBJECT, subject("robot", audiences=(URL,)), "the identity token is not for fleet"),
        (
            AuthMethod(require_oidc=Oidc("https://id.example", "fleet", ())),
            subject("robot"),
            'the subject "robot" is not listed',
        ),
        (
            AuthMethod(require_oidc=Oidc("https://id.example", "fleet", ("",))),
            subject(""),
            'the subject "" is not listed',
        ),
        (OF_CERT, shows(), "no client certificate was passed on by a trusted proxy"),
        (
            OF_CERT,
            shows(cert_names=("vm10", "x.vm1", "")),
            'the client certificate carries no name that is listed for host "vm1"',
        ),
        (
            OF_NAMES,
            shows(cert_names=("vm1", "spiffe://fleet/vm2")),
            'the client certificate carries no name that is listed for host "vm1"',
        ),
        (
            AuthMethod(require_client_cert=()),
            shows(cert_names=("vm1",)),
            'the client certificate carries no name that is listed for host "vm1"',
        ),
    ],
)
def test_method_refuses_another_credential_with_the_reason(method, proof, said):
    assert refusal([method], proof) == said


def test_service_account_needs_the_address_of_the_server_to_be_set():
    proof = shows(Account("https://id.example", "robot", ("",), "robot@id.example"))
    said = "nobody set whom identity tokens must be for: set SKEP_PUBLIC_URL"
    assert refusal([OF_ROBOTS], proof, rules=Rules(ENROLLED.get)) == said


@pytest.mark.parametrize("audience", [URL, URL + "/"])
def test_slash_at_the_end_of_an_audience_makes_no_difference(audience):
    proof = shows(Account("https://id.example", "robot", ("x", audience), "robot@id.example"))
    assert authorize([OF_ROBOTS], proof).name == "user:robot@id.example"


@pytest.mark.parametrize("method", [MACHINE, OF_CERT, OF_NAMES, OF_SUBJECT])
def test_bot_without_a_host_is_nobody(method):
    names = (".example", "", "spiffe://fleet/")
    for evidence in (Machine(".example", 1), Account("https://id.example", "of:", ("fleet",))):
        refusal([method], shows(evidence, cert_names=names), "--gpu0")


def test_fingerprints_tell_identities_apart():
    named = {
        authorize([method], proof).credential_sha256
        for method, proof in (
            (MACHINE, shows(Machine("vm1.a", 1))),
            (MACHINE, shows(Machine("vm1.b", 1))),
            (OF_PROJECT, shows(Instance("vm1", "proj"))),
            (OF_ROBOTS, shows(ROBOT)),
            (OF_SUBJECT, subject("robot")),
            (OF_SUBJECT, subject("of:vm1")),
            (ASKS_SECRET, Proof("", SECRET)),
        )
    }
    assert len(named) == 7


@settings(max_examples=60)
@given(
    host=st.text("ab1.-", min_size=1, max_size=6).filter(lambda host: "--" not in host),
    name=st.text("ab1.-", max_size=8),
)
@pytest.mark.spec("7.1.3.1")
@pytest.mark.control("bots.id-matching")
def test_botid_matching(host, name):
    """A name is of the host alone, or goes on with a dot."""
    is_known = name.split(".")[: host.count(".") + 1] == host.split(".")
    proof = shows(Machine(name, 1))
    if is_known:
        assert authorize([MACHINE], proof, host).name == f"bot:{name}"
    else:
        refusal([MACHINE], proof, host)


@pytest.mark.parametrize(
    ("host", "name"),
    [("bot1", "bot10"), ("bot10", "bot1"), ("a.evil", "a"), ("bot1", "x.bot1"), ("bot1", "bot1-")],
)
@pytest.mark.control("bots.id-matching")
def test_botid_matching_knows_the_usual_confusions(host, name):
    refusal([MACHINE], shows(Machine(name, 1)), host)


# Headers.

SIGNER = MachineSigner()
FLEET = FleetSettings(machine_token_keys={SIGNER.key_id: SIGNER.pem}, client_cert_header="X-San")


@pytest.fixture
def checker():
    return CredentialChecker(KeySets(Threads(), FakeClock()))


def verify(checker, headers, *, by_proxy=False, fleet=FLEET, now_s=NOW_S):
    return checker.verify(Presented("10.0.0.1", headers, by_proxy), fleet, now_s)


def test_nothing_presented_proves_nothing(checker):
    assert verify(checker, {}) == Proof("10.0.0.1")
    assert verify(checker, {"Authorization": "", "X-San": ""}, by_proxy=True) == Proof("10.0.0.1")


@pytest.mark.spec("0.6.1.5", "0.6.1.6", "0.6.1.7")
def test_first_header_that_is_present_decides(checker):
    headers = {"Authorization": "bad", "X-Luci-Machine-Token": SIGNER.token()}
    assert verify(checker, headers).evidence == Machine("vm1.example", 1)
    for header, also in (
        ("X-Luci-Gce-Vm-Token", headers),
        ("X-Luci-Machine-Token", {"Authorization": "bad"}),
        ("Authorization", {}),
    ):
        with pytest.raises(Refusal, match=f"{header}: ") as caught:
            verify(checker, {**also, header: "bad"})
        assert caught.value.code is Code.UNAUTHENTICATED


def test_presented_and_proof_do_not_show_secrets():
    headers = {"X-Skep-Bot-Secret": SECRET}
    assert SECRET not in repr(Presented("::1", headers))
    assert SECRET not in repr(Proof("::1", SECRET))


def test_good_token_is_remembered_for_a_minute_and_never_beyond_its_end(checker):
    headers = {"X-Luci-Machine-Token": SIGNER.token(lifetime=VERIFIED_S)}
    end = NOW_S + VERIFIED_S + 10
    assert verify(checker, headers, now_s=NOW_S).evidence
    assert verify(checker, headers, now_s=end).evidence
    with pytest.raises(Refusal, match="expired"):
        verify(checker, headers, now_s=end + 1)


def test_remembered_token_is_checked_again_under_other_settings(checker):
    headers = {"X-Luci-Machine-Token": SIGNER.token()}
    assert verify(checker, headers).evidence
    with pytest.raises(Refusal, match="no machine_token_signer"):
        verify(checker, headers, fleet=FleetSettings())
    assert verify(checker, headers).evidence


def test_good_tokens_are_remembered_up_to_a_number(checker, monkeypatch):
    assert MAX_VERIFIED >= 10_000
    monkeypatch.setattr("botapi.auth.credentials.MAX_VERIFIED", 2)
    for number in range(4):
        verify(checker, {"X-Luci-Machine-Token": SIGNER.token(f"vm{number}")})
    assert len(checker._good) == 2


@pytest.mark.control("bots.client-cert")
def test_names_of_a_client_certificate_are_believed_from_a_proxy_only(checker, caplog):
    headers = {"X-San": "DNS:vm1.example, URI:spiffe://a/vm1,plain, email:vm1, URI:vm2,,"}
    assert verify(checker, headers).cert_names == ()
    assert verify(checker, headers).cert_names == ()
    assert [r.getMessage() for r in caplog.records] == [
        "10.0.0.1 sends X-San and is not in SKEP_BEHIND_PROXY: such headers are ignored"
    ]
    assert verify(checker, headers, by_proxy=True).cert_names == (
        *("vm1.example", "spiffe://a/vm1", "plain"),
        *("email:vm1", "URI:vm2"),
    )
    assert verify(checker, headers, by_proxy=True, fleet=FleetSettings()).cert_names == ()


@pytest.mark.parametrize("text", ["x" * 8193, "a," * 100])
def test_names_beyond_the_limits_are_refused(checker, text):
    with pytest.raises(Refusal, match="X-San: "):
        verify(checker, {"X-San": text}, by_proxy=True)


TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("1.2.3.4", "", "1.2.3.4"),
        ("1.2.3.4", "9.9.9.9", "1.2.3.4"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9,10.0.0.2", "9.9.9.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "9.9.9.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "9.9.9.9:4711", "9.9.9.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("fd00::1", "::ffff:9.9.9.9", "9.9.9.9"),
        ("::ffff:10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("", "9.9.9.9", ""),
        ("unix:", "9.9.9.9", "unix:"),
    ],
)
@pytest.mark.control("bots.client-address")
def test_client_ip_is_the_rightmost_untrusted_one(peer, forwarded, client):
    assert client_ip(peer, forwarded, TRUSTED) == client


@settings(deadline=None, max_examples=40)
@given(
    spoofed=st.lists(st.text("0123456789.,:[] x", max_size=12) | st.just("10.9.9.9"), max_size=3),
    real=st.ip_addresses(v=4).filter(lambda a: a not in ip_network("10.0.0.0/8")),
    hops=st.integers(0, 2),
)
def test_client_ip_cannot_be_spoofed_by_what_the_client_sends(spoofed, real, hops):
    chain = [*spoofed, str(real), *(f"10.0.0.{n}" for n in range(hops))]
    assert client_ip("10.0.0.9", ",".join(chain), TRUSTED) == str(real)
    assert client_ip(str(real), ",".join(spoofed), TRUSTED) == str(real)


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=30))
def test_client_ip_raises_nothing(text):
    assert ip_address(client_ip("10.0.0.1", text, TRUSTED))
    assert isinstance(client_ip(text, text, TRUSTED), str)
