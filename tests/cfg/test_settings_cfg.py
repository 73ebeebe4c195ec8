"""settings.cfg: what it means, and every mistake of bot-api 7.8 and of our fields."""

import json
from base64 import b64encode
from contextlib import suppress
from functools import cache
from ipaddress import ip_network

import pytest
from botpb import settings_pb2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.cfg.mistakes import BadConfig
from botapi.cfg.settings_cfg import GOOGLE, load, read
from botapi.domain.fleet_settings import (
    LOOPBACK,
    Deployment,
    FleetSettings,
    GceVmTokens,
    OidcProvider,
    ReleaseKey,
    RolloutRule,
    TokenExchange,
)

RAW_KEY = bytes(range(32))
RELEASE = b64encode(RAW_KEY).decode()
# The public key of RFC 8037, appendix A.2.
JWKS = json.dumps(
    {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }
        ]
    }
)


def pem_of(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@cache
def rsa_pem():
    return pem_of(generate_private_key(public_exponent=65537, key_size=2048))


def quoted(text):
    return json.dumps(text)


def mistakes(text):
    with pytest.raises(BadConfig) as caught:
        read(text.encode())
    return caught.value.lines()


def meaning(text):
    return read(text.encode()).settings


@pytest.mark.spec("7.8.1.2", "7.8.1.3", "7.8.1.6", "7.8.1.8", "7.8.1.9", "7.8.1.15")
def test_read_gives_every_field_its_meaning():
    stable, canary = "a" * 64, "b" * 64
    text = f"""
        reusable_task_age_secs: 60
        bot_death_timeout_secs: 1
        force_bots_to_sleep_and_not_run_task: true
        display_server_url_template: "https://x.example.com/%s?a=%20"
        max_bot_sleep_time: 5
        bot_deployment {{
          stable {{ version: "{stable}" }} canary {{ version: "{canary}" }} canary_percent: 20
        }}
        ip_allowlist {{ name: "lab" subnet: ["10.0.0.0/8", "::1", "192.0.2.1"] }}
        oidc_provider {{ issuer: "https://i.example.com" jwks_uri: "http://127.0.0.1:9/k" }}
        oidc_provider {{ issuer: "https://j.example.com/" jwks: {quoted(JWKS)} }}
        machine_token_signer {{ key_id: "k" public_key: {quoted(rsa_pem())} }}
        gce_vm_tokens {{ audience: ["app.appspot.com", "host.example.com"] }}
        client_certs {{ san_header: "X-Client-San" }}
        id_token_audience: ["https://a", "https://b/*"]
        token_exchange {{ service_account: "*" endpoint: "http://localhost:1/t" audience: "a" }}
        rollout {{ ring_percent: [1, 10] soak_secs: 5 max_failed_percent: 3 min_updated: 2 }}
        release_key {{ id: "r1" public_key: "{RELEASE}" role: RECOVERY }}
        max_dropped_percent: 7
    """
    assert meaning(text) == FleetSettings(
        reusable_task_age_s=60,
        bot_death_s=1,
        force_sleep=True,
        max_bot_sleep_s=5,
        task_url_template="https://x.example.com/%s?a=%20",
        ip_lists={
            "lab": (ip_network("10.0.0.0/8"), ip_network("::1"), ip_network("192.0.2.1")),
            "loopback": LOOPBACK,
        },
        oidc_providers={
            "https://i.example.com": OidcProvider("https://i.example.com", "http://127.0.0.1:9/k"),
            "https://j.example.com/": OidcProvider("https://j.example.com/", "", JWKS),
        },
        machine_token_keys={"k": rsa_pem()},
        gce_vm_tokens=GceVmTokens(("app.appspot.com", "host.example.com"), GOOGLE),
        client_cert_header="X-Client-San",
        id_token_audiences=("https://a", "https://b/*"),
        token_exchanges={"*": TokenExchange("*", "http://localhost:1/t", "a")},
        rollout=RolloutRule((1, 10, 100), 5, 3, 2),
        release_keys=(ReleaseKey("r1", RAW_KEY, is_recovery=True),),
        deployment=Deployment(stable, canary, 20),
        max_dropped_percent=7,
    )
    assert load(text) == meaning(text)


@pytest.mark.spec("7.8.1.2", "7.8.1.3", "7.8.1.6", "7.8.1.9")
def test_without_a_file_the_defaults_count():
    assert meaning("") == FleetSettings() == load("")
    found = FleetSettings()
    assert (found.reusable_task_age_s, found.max_bot_sleep_s) == (604_800, 60)
    assert found.bot_death_s == 0  # the server's own setting, 600 s
    assert not found.force_sleep


@pytest.mark.spec("7.8.1.15")
def test_missing_canary_is_as_stable():
    version = "a" * 64
    found = meaning(f'bot_deployment {{ stable {{ version: "{version}" }} canary_percent: 9 }}')
    assert found.deployment == Deployment(version, version, 9)


@pytest.mark.spec("7.8.1.15")
def test_deployment_of_packages_is_accepted_and_means_the_archive_of_the_server():
    text = """bot_deployment {
        stable { server: "https://packages.example.com" pkg: "a/b" version: "latest" }
        canary { server: "https://packages.example.com" pkg: "a/b" version: "new" }
        canary_percent: 20 }"""
    file = read(text.encode())
    assert file.settings.deployment == Deployment("", "", 20)
    assert [warning.context for warning in file.warnings] == [
        "bot_deployment / stable / server",
        "bot_deployment / stable / pkg",
        "bot_deployment / canary / server",
        "bot_deployment / canary / pkg",
    ]
    assert "fetches no packages" in str(file.warnings[0])


@pytest.mark.spec(
    "7.8.1.1",
    "7.8.1.4",
    "7.8.1.5",
    "7.8.1.7",
    "7.8.1.11",
    "7.8.1.12",
    "7.8.1.13",
    "7.8.1.14",
)
def test_what_is_ignored_is_accepted_and_warned_of():
    text = """google_analytics: "UA-1"
        enable_ts_monitoring: true
        cipd { default_server: "https://x" }
        ui_client_id: "id"
        auth { enforced_realm_permissions: [1, 2] }
        bot_isolate_grpc_proxy: "x"
        bot_swarming_grpc_proxy: "x"
        extra_child_src_csp_url: "https://x"
        enable_batch_es_notifications: true
        resultdb { server: "https://results.example.com" }
        cas { viewer_server: "https://cas.example.com" }
        traffic_migration { routes { name: "/x" route_to_go_percent: 100 } }"""
    file = read(text.encode())
    assert file.settings == FleetSettings()
    assert all("ignored" in warning.message for warning in file.warnings)
    assert [warning.context for warning in file.warnings] == [
        "google_analytics",
        "enable_ts_monitoring",
        "cipd",
        "ui_client_id",
        "auth / enforced_realm_permissions",
        "bot_isolate_grpc_proxy",
        "bot_swarming_grpc_proxy",
        "extra_child_src_csp_url",
        "enable_batch_es_notifications",
        "resultdb",
        "cas",
        "traffic_migration",
    ]


SIGNER = 'machine_token_signer {{ key_id: "k"\npublic_key: {} }}'
EXCHANGE = 'token_exchange {{ service_account: "{}"\nendpoint: "{}" audience: "{}" }}'
LIST = 'ip_allowlist {{ name: "a"\nsubnet: {} }}'
PROVIDER = 'oidc_provider {{ issuer: "https://i"\n{} }}'


@pytest.mark.spec("7.8.1.2", "7.8.1.3", "7.8.1.8", "7.8.1.9", "7.8.1.13", "7.8.1.14", "7.8.1.15")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reusable_task_age_secs: -1", "1:1: reusable_task_age_secs: negative: -1"),
        ("bot_death_timeout_secs: -1", "1:1: bot_death_timeout_secs: negative: -1"),
        ("max_bot_sleep_time: -1", "1:1: max_bot_sleep_time: not 0 to 86400: -1"),
        ("max_bot_sleep_time: 86401", "1:1: max_bot_sleep_time: not 0 to 86400: 86401"),
        (
            'display_server_url_template: "https://x/"',
            '1:1: display_server_url_template: exactly one "%s" is needed: "https://x/"',
        ),
        (
            'display_server_url_template: "https://x/%s/%s"',
            '1:1: display_server_url_template: exactly one "%s" is needed: "https://x/%s/%s"',
        ),
        (
            'display_server_url_template: "http://x/%s"',
            '1:1: display_server_url_template: not an https URL: "http://x/%s"',
        ),
        (
            'resultdb { server: "http://x" }',
            '1:12: resultdb / server: not an https URL: "http://x"',
        ),
        ('cas { viewer_server: "x" }', '1:7: cas / viewer_server: not an https URL: "x"'),
        ("bot_deployment { canary_percent: 5 }", "1:1: bot_deployment: no stable"),
        (
            "bot_deployment { stable {} canary_percent: 101 }",
            "1:28: bot_deployment / canary_percent: not 0 to 100: 101",
        ),
        (
            "bot_deployment { stable {} canary_percent: -1 }",
            "1:28: bot_deployment / canary_percent: not 0 to 100: -1",
        ),
        (
            'bot_deployment { stable { version: "latest" } }',
            '1:27: bot_deployment / stable / version: not 64 hex digits: "latest"',
        ),
        ("max_dropped_percent: 101", "1:1: max_dropped_percent: not 0 to 100: 101"),
        ('ip_allowlist { subnet: "::1" }', "1:1: ip_allowlist #0: no name"),
        ('ip_allowlist { name: "a" }', "1:1: ip_allowlist #0: no subnet"),
        (
            'ip_allowlist { name: "a b" subnet: "::1" }',
            '1:16: ip_allowlist #0 / name: bad name "a b": 1 to 128 letters, digits, _ . - and /',
        ),
        (
            'ip_allowlist { name: "a" subnet: "::1" }\nip_allowlist { name: "a" subnet: "::1" }',
            '2:16: ip_allowlist #1 / name: name "a" is there twice',
        ),
        (
            'ip_allowlist { name: "loopback" subnet: "::1" }',
            '1:16: ip_allowlist #0 / name: the list "loopback" is built in: choose another name',
        ),
        (
            LIST.format('["10.0.0.0/8", "10.0.0.1/8"]'),
            '2:24: ip_allowlist #0 / subnet #1: bad subnet "10.0.0.1/8": '
            "an address within its network: write 10.0.0.0/8",
        ),
        (
            LIST.format('"10.0.0.0/33"'),
            '2:1: ip_allowlist #0 / subnet #0: bad subnet "10.0.0.0/33": '
            "neither an address nor a network such as 10.0.0.0/8",
        ),
        ("oidc_provider {}", "1:1: oidc_provider #0: no issuer"),
        (
            'oidc_provider { issuer: "http://i" }',
            "1:17: oidc_provider #0 / issuer: bad issuer: not an https URL",
        ),
        (
            'oidc_provider { issuer: "https://i" }\noidc_provider { issuer: "https://i" }',
            '2:17: oidc_provider #1 / issuer: issuer "https://i" is there twice',
        ),
        (
            PROVIDER.format('jwks_uri: "http://x/k"'),
            "2:1: oidc_provider #0 / jwks_uri: bad jwks_uri: "
            "not an https URL (http only to loopback)",
        ),
        (
            PROVIDER.format('jwks: "{"'),
            "2:1: oidc_provider #0 / jwks: bad jwks: not a JSON key set with a usable key",
        ),
        (
            PROVIDER.format("jwks: " + quoted('{"keys": []}')),
            "2:1: oidc_provider #0 / jwks: bad jwks: not a JSON key set with a usable key",
        ),
        (
            PROVIDER.format('jwks: "[1]"'),
            "2:1: oidc_provider #0 / jwks: bad jwks: not a JSON key set with a usable key",
        ),
        (
            PROVIDER.format("jwks: " + quoted('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}')),
            "2:1: oidc_provider #0 / jwks: bad jwks: it holds a symmetric key",
        ),
        (
            f"machine_token_signer {{ public_key: {quoted(rsa_pem())} }}",
            "1:1: machine_token_signer #0: no key_id",
        ),
        (
            SIGNER.format('"x"'),
            "2:1: machine_token_signer #0 / public_key: bad public_key: "
            "not PEM of a public key or certificate",
        ),
        (
            SIGNER.format(quoted(f"-----BEGIN CERTIFICATE-----\n{RELEASE}\n")),
            "2:1: machine_token_signer #0 / public_key: bad public_key: "
            "not PEM of a public key or certificate",
        ),
        (
            SIGNER.format(quoted(pem_of(Ed25519PrivateKey.generate()))),
            "2:1: machine_token_signer #0 / public_key: bad public_key: not an RSA key",
        ),
        ("gce_vm_tokens {}", "1:1: gce_vm_tokens: no audience"),
        (
            'gce_vm_tokens { audience: "" }',
            "1:17: gce_vm_tokens / audience #0: empty audience",
        ),
        (
            'gce_vm_tokens { audience: "a" issuer: "x" }',
            "1:31: gce_vm_tokens / issuer: bad issuer: not an https URL",
        ),
        (
            "client_certs {}",
            "1:1: client_certs / san_header: bad san_header: a header such as X-Client-San "
            "is needed",
        ),
        ('id_token_audience: ""', '1:1: id_token_audience #0 (""): empty audience'),
        (
            'id_token_audience: "a*b"',
            '1:1: id_token_audience #0 ("a*b"): "*" may stand at the end only',
        ),
        (
            EXCHANGE.format("", "https://x", "a"),
            "1:1: token_exchange #0: no service_account",
        ),
        (
            EXCHANGE.format("me", "https://x", "a"),
            "1:18: token_exchange #0 / service_account: "
            'service account is neither an e-mail nor "*": "me"',
        ),
        (
            EXCHANGE.format("a@b", "http://x", "a"),
            "2:1: token_exchange #0 / endpoint: bad endpoint: "
            "not an https URL (http only to loopback)",
        ),
        (EXCHANGE.format("a@b", "https://x", ""), "1:1: token_exchange #0: no audience"),
        (
            "rollout { ring_percent: [5, 5] }",
            "1:29: rollout / ring_percent #1: not more than the ring before: 5",
        ),
        (
            "rollout { ring_percent: 0 }",
            "1:11: rollout / ring_percent #0: not 1 to 100: 0",
        ),
        ("rollout { soak_secs: -1 }", "1:11: rollout / soak_secs: negative: -1"),
        (
            "rollout { max_failed_percent: 101 }",
            "1:11: rollout / max_failed_percent: not 0 to 100: 101",
        ),
        ("rollout { min_updated: -1 }", "1:11: rollout / min_updated: negative: -1"),
        (f'release_key {{ public_key: "{RELEASE}" }}', "1:1: release_key #0: no id"),
        (
            f'release_key {{ id: "a" public_key: "{RELEASE}" }}\n'
            'release_key { id: "a" public_key: "A" }',
            [
                '2:15: release_key #1 / id: id "a" is there twice',
                "2:23: release_key #1 / public_key: bad public_key: not base64",
            ],
        ),
        (
            'release_key { id: "a" public_key: "AAAA" }',
            "1:23: release_key #0 / public_key: bad public_key: 32 bytes are needed, these are 3",
        ),
        (
            f'release_key {{ id: "a" public_key: "{RELEASE}" }}\n'
            f'release_key {{ id: "b" public_key: "{RELEASE}" }}',
            "2:23: release_key #1 / public_key: this public_key is there twice",
        ),
        ("rollout {", '1:9: Expected "}".'),
    ],
)
def test_mistake_is_named_with_its_place(text, expected):
    lines = [expected] if isinstance(expected, str) else expected
    assert mistakes(text) == ["settings.cfg:" + line for line in lines]


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///x",
        "https://a b",
        "https://[x",
        "https://x:y",
        "https://ü",
        "https://me:pw@x",
    ],
)
def test_url_that_is_none_is_refused(url):
    (line,) = mistakes(f'resultdb {{ server: "{url}" }}')
    assert line.startswith("settings.cfg:1:12: resultdb / server: ")


def test_load_leaves_out_what_cannot_be_used():
    text = f"""reusable_task_age_secs: -1 bot_death_timeout_secs: -1 max_bot_sleep_time: -1
        max_dropped_percent: 400
        ip_allowlist {{ name: "a" subnet: ["10.0.0.1/8", "10.0.0.0/8"] }}
        ip_allowlist {{ name: "loopback" subnet: "0.0.0.0/0" }}
        oidc_provider {{ issuer: "https://i" jwks: "x" }}
        oidc_provider {{ issuer: "https://good" }}
        machine_token_signer {{ key_id: "k" public_key: "x" }}
        gce_vm_tokens {{ audience: "a" jwks: "x" }}
        bot_deployment {{ stable {{ version: "x" }} canary_percent: 101 }}
        rollout {{ ring_percent: [50, 0, 20, 500] soak_secs: -1 min_updated: -1 }}
        release_key {{ id: "a" public_key: "x" }}
        release_key {{ id: "b" public_key: "{RELEASE}" }}"""
    assert load(text) == FleetSettings(
        ip_lists={"a": (ip_network("10.0.0.0/8"),), "loopback": LOOPBACK},
        oidc_providers={"https://good": OidcProvider("https://good")},
        deployment=Deployment("", "", 100),
        rollout=RolloutRule((20, 50, 100), 0, 0),
        release_keys=(ReleaseKey("b", RAW_KEY),),
        max_dropped_percent=100,
    )


def test_load_raises_when_the_text_does_not_parse():
    with pytest.raises(BadConfig):
        load("rollout {")


@st.composite
def garbled(draw):
    """A message with arbitrary values in a few fields."""
    text = st.sampled_from(["", "x", "10.0.0.0/8", "https://x", JWKS, RELEASE, "\0", "ü" * 300])
    number = st.integers(-(2**31), 2**31 - 1)
    some = st.lists(text, max_size=2)
    message = settings_pb2.SettingsCfg(
        reusable_task_age_secs=draw(number),
        max_dropped_percent=draw(number),
        display_server_url_template=draw(text),
        ip_allowlist=[{"name": draw(text), "subnet": draw(some)}],
        oidc_provider=[{"issuer": draw(text), "jwks_uri": draw(text), "jwks": draw(text)}],
        machine_token_signer=[{"key_id": draw(text), "public_key": draw(text)}],
        gce_vm_tokens={"audience": draw(some), "issuer": draw(text), "jwks": draw(text)},
        token_exchange=[{"service_account": draw(text), "endpoint": draw(text)}],
        rollout={"ring_percent": draw(st.lists(number, max_size=3)), "soak_secs": draw(number)},
        release_key=[{"id": draw(text), "public_key": draw(text), "role": draw(number)}],
        bot_deployment={"stable": {"version": draw(text)}, "canary_percent": draw(number)},
    )
    return str(message)


@settings(deadline=None, max_examples=25)
@given(text=garbled())
def test_read_raises_nothing_but_bad_config_and_load_nothing_at_all(text):
    with suppress(BadConfig):
        read(text.encode())
    assert isinstance(load(text), FleetSettings)


@pytest.mark.spec("7.8.1.10", "7.8.1.11", "7.8.1.15")
def test_every_field_has_its_upstream_number_or_one_of_ours():
    def numbers(message):
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    assert numbers(settings_pb2.SettingsCfg) == {
        "google_analytics": 1,
        "reusable_task_age_secs": 2,
        "bot_death_timeout_secs": 3,
        "enable_ts_monitoring": 4,
        "cipd": 6,
        "force_bots_to_sleep_and_not_run_task": 8,
        "ui_client_id": 9,
        "display_server_url_template": 11,
        "max_bot_sleep_time": 12,
        "auth": 13,
        "bot_isolate_grpc_proxy": 14,
        "bot_swarming_grpc_proxy": 15,
        "extra_child_src_csp_url": 16,
        "enable_batch_es_notifications": 18,
        "resultdb": 19,
        "cas": 20,
        "traffic_migration": 21,
        "bot_deployment": 22,
        "ip_allowlist": 100,
        "oidc_provider": 101,
        "machine_token_signer": 102,
        "gce_vm_tokens": 103,
        "client_certs": 104,
        "id_token_audience": 105,
        "token_exchange": 106,
        "rollout": 107,
        "release_key": 108,
        "max_dropped_percent": 109,
        "group": 110,
        "grant": 111,
        "sign_in": 112,
    }
    assert list(numbers(settings_pb2.AuthSettings).values()) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(settings_pb2.BotDeployment) == {"stable": 1, "canary": 2, "canary_percent": 3}
