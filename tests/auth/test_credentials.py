"""Who a bot proves to be (bot-api 7.3), and from which address."""

import hashlib
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth.credentials import (
    Identity,
    Presented,
    authorize_bot,
    client_ip,
    presented,
    secret_digest,
)
from botapi.domain.bot_groups import AuthMethod, Oidc
from botapi.domain.errors import Code, Refusal

LISTS = {"lan": [ip_network("10.0.0.0/8"), ip_network("fd00::/8")], "empty": []}
SECRET = "s" * 43
ENROLLED = {"vm1": secret_digest(SECRET)}
ASKS_SECRET = AuthMethod(require_enrolled_secret=True)
ASKS_LAN = AuthMethod(ip_whitelist="lan")
ASKS_BOTH = AuthMethod(require_enrolled_secret=True, ip_whitelist="lan")
NOT_VERIFIABLE = [
    AuthMethod(require_luci_machine_token=True),
    AuthMethod(require_luci_machine_token_secure=()),
    AuthMethod(require_service_account=("a@b",)),
    AuthMethod(require_gce_vm_token="p"),
    AuthMethod(require_oidc=Oidc()),
    AuthMethod(require_client_cert=()),
]


def authorize(methods, shown, bot_id="vm1"):
    return authorize_bot(bot_id, methods, shown, enrolled_digest=ENROLLED.get, ip_lists=LISTS)


def refusal(methods, shown, bot_id="vm1"):
    with pytest.raises(Refusal) as caught:
        authorize(methods, shown, bot_id)
    assert caught.value.code is Code.UNAUTHENTICATED
    return caught.value.message


@pytest.mark.parametrize("bot_id", ["vm1", "vm1--gpu0"])
def test_bot_is_known_by_the_secret_of_its_host(bot_id):
    identity = authorize([ASKS_SECRET], Presented("1.2.3.4", SECRET), bot_id)
    assert (identity.name, identity.method) == ("bot:vm1", "require_enrolled_secret")
    assert len(identity.credential_sha256) == 32
    assert identity.credential_sha256 != ENROLLED["vm1"]


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_bot_is_known_by_its_address_alone_when_the_group_says_so(address):
    assert authorize([ASKS_LAN], Presented(address)) == Identity(
        "bot:whitelisted-ip", "ip_whitelist"
    )


def test_address_is_an_additional_condition_beside_a_method():
    assert authorize([ASKS_BOTH], Presented("10.0.0.1", SECRET)).name == "bot:vm1"
    assert "address list" in refusal([ASKS_BOTH], Presented("1.2.3.4", SECRET))
    assert "is missing" in refusal([ASKS_BOTH], Presented("10.0.0.1"))


@pytest.mark.parametrize(
    ("methods", "shown", "bot_id", "said"),
    [
        ([], Presented("10.0.0.1"), "vm1", "no auth method is configured for this bot"),
        ([ASKS_SECRET], Presented("10.0.0.1"), "vm1", "X-Skep-Bot-Secret is missing"),
        (
            [ASKS_SECRET],
            Presented("10.0.0.1", "x" * 43),
            "vm1",
            "X-Skep-Bot-Secret: not the secret of this host",
        ),
        (
            [ASKS_SECRET],
            Presented("10.0.0.1", "\ud800"),
            "vm1",
            "X-Skep-Bot-Secret: not the secret of this host",
        ),
        (
            [ASKS_SECRET],
            Presented("10.0.0.1", SECRET),
            "vm2",
            "X-Skep-Bot-Secret: this host is not enrolled",
        ),
        (
            [ASKS_SECRET],
            Presented("10.0.0.1", SECRET),
            "vm10",
            "X-Skep-Bot-Secret: this host is not enrolled",
        ),
        ([ASKS_LAN], Presented("1.2.3.4"), "vm1", '1.2.3.4 is not in the address list "lan"'),
        ([ASKS_LAN], Presented(""), "vm1", 'the address is not in the address list "lan"'),
        ([ASKS_LAN], Presented("x"), "vm1", 'x is not in the address list "lan"'),
        (
            [AuthMethod(ip_whitelist="empty")],
            Presented("10.0.0.1"),
            "vm1",
            '10.0.0.1 is not in the address list "empty"',
        ),
        (
            [AuthMethod(ip_whitelist="other")],
            Presented("10.0.0.1"),
            "vm1",
            'there is no address list "other"',
        ),
        ([AuthMethod()], Presented("10.0.0.1"), "vm1", "the auth entry names no method"),
        (
            [ASKS_SECRET, AuthMethod(ip_whitelist="other")],
            Presented("10.0.0.1"),
            "vm1",
            "no auth method succeeded: X-Skep-Bot-Secret is missing; "
            'there is no address list "other"',
        ),
    ],
)
def test_bot_is_refused_with_the_reason(methods, shown, bot_id, said):
    assert refusal(methods, shown, bot_id) == said


@pytest.mark.parametrize("method", NOT_VERIFIABLE)
def test_method_that_nobody_can_verify_fails_closed(method):
    said = f"{method.requirements()[0]} is not supported by this server"
    assert refusal([method], Presented("10.0.0.1", SECRET)) == said


@pytest.mark.parametrize("header", ["X-Luci-Gce-Vm-Token", "X-Luci-Machine-Token", "Authorization"])
def test_credential_that_nobody_can_verify_is_refused_whatever_the_methods(header):
    shown = presented("10.0.0.1", {header: "x", "X-Skep-Bot-Secret": SECRET})
    assert refusal([ASKS_LAN], shown) == f"{header} is not supported by this server"


def test_wrong_secret_is_refused_even_where_the_address_would_do():
    said = "X-Skep-Bot-Secret: not the secret of this host"
    assert refusal([ASKS_LAN], Presented("10.0.0.1", "wrong")) == said


def test_first_satisfied_method_wins_and_loud_failures_are_kept():
    loud = AuthMethod(ip_whitelist="other", log_if_failed=True)
    quiet = AuthMethod(ip_whitelist="empty")
    identity = authorize([quiet, loud, ASKS_LAN, loud], Presented("10.0.0.1"))
    assert identity.method == "ip_whitelist"
    assert identity.warnings == ('there is no address list "other"',)


def test_failure_to_look_a_secret_up_ends_the_search():
    def broken(host):
        raise OSError("store is down")

    with pytest.raises(OSError, match="down"):
        authorize_bot(
            "vm1", [ASKS_LAN], Presented("10.0.0.1", SECRET), enrolled_digest=broken, ip_lists=LISTS
        )


def test_fingerprint_tells_secrets_apart_and_is_not_what_is_stored():
    digests = {"vm1": secret_digest("a"), "vm2": secret_digest("b")}
    one, other = (
        authorize_bot(bot, [ASKS_SECRET], Presented("", secret), enrolled_digest=digests.get)
        for bot, secret in (("vm1", "a"), ("vm2", "b"))
    )
    assert one.credential_sha256 != other.credential_sha256
    assert secret_digest("a") == hashlib.sha256(b"a").digest()


def test_presented_takes_the_first_unverifiable_header_in_the_order_of_upstream():
    headers = {"Authorization": "a", "X-Luci-Machine-Token": "b", "X-Skep-Bot-Secret": "c"}
    assert presented("::1", headers) == Presented("::1", "c", "X-Luci-Machine-Token")
    assert presented("::1", {}) == Presented("::1")


def test_presented_does_not_show_the_secret():
    assert SECRET not in repr(Presented("::1", SECRET))


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
