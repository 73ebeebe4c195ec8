"""bots.cfg: what it means (bot-api 7.1, 7.4) and every mistake of 7.2 with its place."""

from pathlib import Path

import pytest
from botpb import bots_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.auth.botsession import BotConfig, Session, decode, encode
from botapi.auth.hmactoken import Secret
from botapi.cfg import bundle, first_bots_cfg
from botapi.cfg.bots_cfg import load, parse
from botapi.cfg.bundle import Source, bundle_digest, read
from botapi.cfg.mistakes import MAX_MISTAKES, BadConfig
from botapi.domain.bot_groups import ArchivePolicy, AuthMethod, BotGroup, BotsConfig

CONFIG = Path(__file__).parents[2] / "config"
TRUSTED = 'trusted_dimensions: "pool"\n'
GOOD = 'auth { ip_whitelist: "loopback" } dimensions: "pool:p"'
DEFAULT = f"bot_group {{ {GOOD} }}\n"


def mistakes(text, scripts=None):
    with pytest.raises(BadConfig) as caught:
        parse(text, scripts or {})
    return caught.value.lines()


def one_group(body, scripts=None):
    """The mistakes of a file whose group 0 is good but for the given line 3."""
    return mistakes(f"{TRUSTED}bot_group {{ {GOOD} bot_id: 'ok'\n{body}\n}}", scripts)


@pytest.mark.spec(
    "7.1.1.1",
    "7.1.1.2",
    "7.1.2.1",
    "7.1.2.2",
    "7.1.2.4",
    "7.1.2.6",
    "7.1.2.7",
    "7.1.2.8",
    "7.1.2.10",
    "7.1.2.12",
)
def test_parse_reads_every_field():
    text = """
        trusted_dimensions: ["pool", "zone"]
        bot_group {
          bot_id: "vm{1..2}" bot_id: "x" bot_id_prefix: "lab-"
          auth { require_enrolled_secret: true ip_whitelist: "lan" log_if_failed: true }
          auth { require_luci_machine_token: true }
          auth { require_luci_machine_token_secure { ca_id: [1, 2] } }
          auth { require_service_account: "a@b.c" }
          auth { require_gce_vm_token { project: "p" } }
          owners: "me@example.com"
          dimensions: ["pool:a", "pool:b", "pool:a", "url:http://x"]
          bot_config_script: "s.py"
          system_service_account: "bot"
          bot_config_script_rev: "ignored"
          logs_cloud_project: "logs"
          rbe_migration { rbe_mode_percent: 50 enable_rbe_on: "x" hybrid_mode: true }
          bot_archive: "keep"
        }"""
    assert parse(text, {"s.py": b"# s", "other.py": b""}) == BotsConfig.of(
        ["pool", "zone"],
        [
            BotGroup(
                bot_ids=frozenset({"vm1", "vm2", "x"}),
                prefixes=("lab-",),
                auth=(
                    AuthMethod(
                        require_enrolled_secret=True, ip_whitelist="lan", log_if_failed=True
                    ),
                    AuthMethod(require_luci_machine_token=True),
                    AuthMethod(require_luci_machine_token_secure=(1, 2)),
                    AuthMethod(require_service_account=("a@b.c",)),
                    AuthMethod(require_gce_vm_token="p"),
                ),
                owners=("me@example.com",),
                dimensions={"pool": ("a", "b"), "url": ("http://x",)},
                script_name="s.py",
                script=b"# s",
                system_service_account="bot",
                logs_cloud_project="logs",
                bot_archive=ArchivePolicy.KEEP,
                line=3,
            )
        ],
    )


def test_example_in_the_repository_is_good():
    files = {
        f"scripts/{path.name}": path.read_bytes() for path in (CONFIG / "scripts").glob("*.py")
    }
    files |= {path.name: path.read_bytes() for path in CONFIG.glob("*.cfg")}
    source, meaning = read(files)
    assert meaning.warnings == ()
    config = meaning.bots
    assert config.group_of("vm3-m1--gpu0").dimensions == {
        "pool": ("ci",),
        "zone": ("eu", "eu-west"),
    }
    assert config.group_of("rack-02") is config.group_of("vm12-m1") is config.groups[0]
    assert config.group_of("lab-7").bot_archive is ArchivePolicy.KEEP
    assert config.group_of("anybody").dimensions == {"pool": ("default",)}
    assert list(source.scripts) == ["linux.py"]


def test_first_file_asks_the_default_group_for_the_enrolled_secret():
    config = parse(first_bots_cfg.TEXT, {})
    assert config.trusted_dimensions == {"pool"}
    assert config.group_of("anybody").auth == (AuthMethod(require_enrolled_secret=True),)
    assert config.group_of("anybody").dimensions == {"pool": ("default",)}
    assert "host ids that begin so" not in first_bots_cfg.TEXT


@pytest.mark.spec("7.1.2.7")
def test_read_keeps_only_the_scripts_that_are_named():
    text = f'{TRUSTED}bot_group {{ {GOOD} bot_config_script: "a.py" }}'
    files = {"bots.cfg": text.encode(), "scripts/a.py": b"A", "scripts/b.py": b"B"}
    source, meaning = read(files)
    assert source == Source(text, {"a.py": b"A"})
    assert meaning.bots.groups[0].script == b"A"
    assert bundle.load(source) == meaning


@pytest.mark.spec("7.6.p1")
def test_load_forgets_the_name_of_a_script_that_is_gone():
    group = load(f'bot_group {{ {GOOD} bot_config_script: "a.py" }}', {}).groups[0]
    assert (group.script_name, group.script) == ("", b"")


def test_load_accepts_what_today_would_be_a_mistake():
    config = load('bot_group { bot_id: ["vm{3..1}", "x"] }', {})
    assert config.groups[0].bot_ids == {"x"}


def test_load_raises_when_the_text_does_not_parse():
    with pytest.raises(BadConfig):
        load("bot_group {", {})


@pytest.mark.spec("B.1.10")
def test_digest_is_that_of_the_specification():
    three = {"settings.cfg": b"", "pools.cfg": b"", "bots.cfg": b""}
    assert bundle_digest(three) == "0NpkIis/WMci8PDKkLD3PB/t8B86nbBVjyD59iosjOM"


def test_digest_of_a_source_changes_with_text_and_scripts():
    digests = {
        Source(text, scripts).digest()
        for text in ("a", "b")
        for scripts in ({}, {"x.py": b""}, {"x.py": b"1"}, {"y.py": b""})
    }
    assert len(digests) == 8


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bot_group {", 'bots.cfg:1:11: Expected "}".'),
        (
            "\n  bot_grup {}",
            'bots.cfg:2:3: Message type "swarming.config.BotsCfg" has no field named "bot_grup".',
        ),
        (
            "bot_group { machine_type: 'x' }",
            'bots.cfg:1:13: Message type "swarming.config.BotGroup" has no field named '
            '"machine_type".',
        ),
        (
            "bot_group { bot_id: 5 }",
            "bots.cfg:1:21: 'bot_group { bot_id: 5 }': String must begin with quote mark, got 5.",
        ),
        (b"# \xc3\xbc\nbot_group {\xff", "bots.cfg:2:12: not UTF-8 text"),
    ],
)
def test_syntax_errors_have_line_and_column(text, line):
    lines = mistakes(text)
    assert len(lines) == 1
    assert lines[0].startswith(line[:40])
    assert lines[0] == line or "quote" in line


def test_syntax_error_in_a_long_line_stays_short():
    (line,) = mistakes("bot_group { bot_id: " + "9" * 10_000 + " }")
    assert len(line) < 300


SCRIPT = {"s.py": b""}


@pytest.mark.spec(
    "7.2.1.3",
    "7.2.1.4",
    "7.2.1.5",
    "7.2.1.6",
    "7.2.1.9",
    "7.2.1.10",
    "7.2.1.11",
    "7.2.1.12",
    "7.2.1.13",
    "7.2.1.14",
    "7.2.1.15",
    "7.2.1.16",
    "7.2.1.17",
    "7.2.1.18",
    "7.2.1.19",
    "7.1.2.9",
    "7.1.2.8",
    "7.1.2.7",
)
@pytest.mark.parametrize(
    ("body", "scripts", "expected"),
    [
        ('  bot_id: ""', {}, '3:3: bot_group #0 / bot_id #1 (""): empty bot_id'),
        (
            '  bot_id: "vm{3..1}"',
            {},
            '3:3: bot_group #0 / bot_id #1 ("vm{3..1}"): '
            'bad bot_id expression: "3..1" is an empty range',
        ),
        (
            'bot_id: ["a",  "ok"]',
            {},
            '3:16: bot_group #0 / bot_id #2 ("ok"): bot_id "ok" also appears in group #0',
        ),
        ('bot_id_prefix: ""', {}, '3:1: bot_group #0 / bot_id_prefix #0 (""): empty bot_id_prefix'),
        (
            'bot_id_prefix: ["a", "a"]',
            {},
            '3:22: bot_group #0 / bot_id_prefix #1 ("a"): '
            'bot_id_prefix "a" also appears in group #0',
        ),
        (
            'bot_id_prefix: ["ab", "a"]',
            {},
            '3:23: bot_group #0 / bot_id_prefix #1 ("a"): '
            'ambiguous with group #0: bot_id_prefix "a" is a prefix of "ab"',
        ),
        (
            "auth {}",
            {},
            "3:1: bot_group #0 / auth #1: no auth method: set ip_whitelist or a require_* field",
        ),
        (
            "auth { log_if_failed: true }",
            {},
            "3:1: bot_group #0 / auth #1: no auth method: set ip_whitelist or a require_* field",
        ),
        (
            "auth { require_enrolled_secret: true require_luci_machine_token: true }",
            {},
            "3:1: bot_group #0 / auth #1: "
            "require_luci_machine_token and require_enrolled_secret exclude each other",
        ),
        (
            "auth { require_service_account: 'a@b' require_gce_vm_token { project: 'p' } }",
            {},
            "3:1: bot_group #0 / auth #1: "
            "require_service_account and require_gce_vm_token exclude each other",
        ),
        (
            "auth { require_service_account: ['a@b', 'me'] }",
            {},
            "3:41: bot_group #0 / auth #1 / require_service_account #1: "
            'service account is not an e-mail: "me"',
        ),
        (
            "auth { require_gce_vm_token {} }",
            {},
            "3:8: bot_group #0 / auth #1 / require_gce_vm_token: "
            "require_gce_vm_token.project is empty",
        ),
        (
            "auth { require_oidc { issuer: 'http://x' audience: 'a' subject: 's' } }",
            {},
            "3:23: bot_group #0 / auth #1 / require_oidc / issuer: "
            "bad require_oidc.issuer: not an https URL",
        ),
        (
            "auth { require_oidc { audience: 'a' subject: 's' } }",
            {},
            "3:8: bot_group #0 / auth #1 / require_oidc / issuer: bad require_oidc.issuer: empty",
        ),
        (
            "auth { require_oidc { issuer: 'https://x' subject: 's' } }",
            {},
            "3:8: bot_group #0 / auth #1 / require_oidc / audience: require_oidc.audience is empty",
        ),
        (
            "auth { require_oidc { issuer: 'https://x' audience: 'a' } }",
            {},
            "3:8: bot_group #0 / auth #1 / require_oidc: require_oidc names no subject",
        ),
        (
            "auth { require_oidc { issuer: 'https://x' audience: 'a' subject: ['s', ''] } }",
            {},
            '3:72: bot_group #0 / auth #1 / require_oidc / subject #1 (""): empty subject',
        ),
        (
            "auth { require_client_cert {} }",
            {},
            "3:8: bot_group #0 / auth #1 / require_client_cert: require_client_cert names no san",
        ),
        (
            "auth { require_client_cert { san: 'a' san: '' } }",
            {},
            '3:39: bot_group #0 / auth #1 / require_client_cert / san #1 (""): empty san',
        ),
        (
            "auth { require_client_cert { san: 'a,b' } }",
            {},
            '3:30: bot_group #0 / auth #1 / require_client_cert / san #0 ("a,b"): '
            "a san has neither commas nor outer spaces",
        ),
        (
            "auth { require_client_cert { san: 'DNS:a' } }",
            {},
            '3:30: bot_group #0 / auth #1 / require_client_cert / san #0 ("DNS:a"): '
            "the san is to be written without DNS: or URI:",
        ),
        (
            f"bot_archive_pin: '{'A' * 64}'",
            {},
            f'3:1: bot_group #0 / bot_archive_pin: not 64 hex digits: "{"A" * 64}"',
        ),
        (
            f"bot_archive_pin: '{'a' * 64}' bot_archive: 'keep'",
            {},
            "3:1: bot_group #0 / bot_archive_pin: "
            'bot_archive_pin and bot_archive "keep" exclude each other',
        ),
        (
            'system_service_account: "bot"',
            {},
            "3:1: bot_group #0 / system_service_account: "
            'system_service_account "bot" needs an auth entry with require_service_account',
        ),
        (
            'system_service_account: "me"',
            {},
            "3:1: bot_group #0 / system_service_account: "
            'system_service_account is not an e-mail: "me"',
        ),
        ('owners: "me"', {}, '3:1: bot_group #0 / owners #0: owner is not an e-mail: "me"'),
        ('dimensions: "a"', {}, '3:1: bot_group #0 / dimensions #1 ("a"): not "key:value"'),
        (
            'dimensions: "9:x"',
            {},
            '3:1: bot_group #0 / dimensions #1 ("9:x"): '
            r'bad key "9": key does not match ^[a-zA-Z\-\_\.][0-9a-zA-Z\-\_\.]*$',
        ),
        (
            'dimensions: "a:"',
            {},
            '3:1: bot_group #0 / dimensions #1 ("a:"): bad value "": empty value',
        ),
        (
            'dimensions: "pool:a:b"',
            {},
            '3:1: bot_group #0 / dimensions #1 ("pool:a:b"): bad value "a:b": ":" in a pool name',
        ),
        (
            'dimensions: "id:a"',
            {},
            '3:1: bot_group #0 / dimensions #1 ("id:a"): '
            'bad key "id": a bot\'s id is its own, a group cannot assign it',
        ),
        (
            'bot_config_script: "s.txt"',
            {},
            '3:1: bot_group #0 / bot_config_script ("s.txt"): '
            "bot_config_script does not end in .py",
        ),
        (
            'bot_config_script: "a/s.py"',
            {},
            '3:1: bot_group #0 / bot_config_script ("a/s.py"): '
            "bot_config_script is a path, not a file name in scripts/",
        ),
        (
            r'bot_config_script: "a\\s.py"',
            {},
            r'3:1: bot_group #0 / bot_config_script ("a\\s.py"): '
            "bot_config_script is a path, not a file name in scripts/",
        ),
        (
            'bot_config_script: "t.py"',
            SCRIPT,
            '3:1: bot_group #0 / bot_config_script ("t.py"): '
            'bot group #1 names a missing script "t.py"',
        ),
        (
            'bot_config_script: "s.py"',
            {"s.py": b"\xff"},
            '3:1: bot_group #0 / bot_config_script ("s.py"): script "s.py" is not UTF-8 text',
        ),
        (
            'bot_config_script_content: "x"',
            {},
            "3:1: bot_group #0 / bot_config_script_content: "
            "bot_config_script_content is internal and must be unset",
        ),
        (
            'bot_archive: "x"',
            {},
            '3:1: bot_group #0 / bot_archive: neither "skep" nor "keep": "x"',
        ),
    ],
)
def test_mistake_in_a_group_is_named_with_its_place(body, scripts, expected):
    assert one_group(body, scripts) == ["bots.cfg:" + expected]


@pytest.mark.spec(
    "7.2.1.1",
    "7.2.1.2",
    "7.2.1.4",
    "7.2.1.5",
    "7.2.1.6",
    "7.2.1.7",
    "7.2.1.8",
    "7.1.1.1",
    "7.1.2.4",
    "D.1.4",
)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ['1:1: trusted_dimensions: "pool" is not listed']),
        (
            'trusted_dimensions: ["zone", "9"]\n',
            [
                '1:22: trusted_dimensions: "pool" is not listed',
                '1:30: trusted_dimensions #1 ("9"): '
                r"key does not match ^[a-zA-Z\-\_\.][0-9a-zA-Z\-\_\.]*$",
            ],
        ),
        (TRUSTED + DEFAULT + DEFAULT, ["3:1: bot_group #1: group #0 is the default group already"]),
        (
            TRUSTED + " bot_group { bot_id: 'x' }",
            [
                '2:2: bot_group #0: no "auth" entry',
                '2:2: bot_group #0: no "pool" is assigned: dimensions needs a "pool:<name>"',
            ],
        ),
        (
            f"{TRUSTED}bot_group {{ {GOOD} bot_id: 'a{{1..3}}' bot_id_prefix: 'pq' }}\n"
            f"bot_group {{ {GOOD} bot_id: 'a{{2..3}}' bot_id_prefix: 'pq' bot_id_prefix: 'p' }}",
            [
                '3:68: bot_group #1 / bot_id #0 ("a{2..3}"): bot_id "a2" also appears in group #0',
                '3:86: bot_group #1 / bot_id_prefix #0 ("pq"): '
                'bot_id_prefix "pq" also appears in group #0',
                '3:106: bot_group #1 / bot_id_prefix #1 ("p"): '
                'ambiguous with group #0: bot_id_prefix "p" is a prefix of "pq"',
            ],
        ),
        (
            f"{TRUSTED}bot_group {{ {GOOD} bot_id_prefix: 'p' }}\n"
            f"bot_group {{ {GOOD} bot_id_prefix: 'pq' }}",
            [
                '3:68: bot_group #1 / bot_id_prefix #0 ("pq"): '
                'ambiguous with group #0: bot_id_prefix "p" is a prefix of "pq"',
            ],
        ),
    ],
)
def test_mistake_of_the_whole_file_is_named_with_its_place(text, expected):
    assert mistakes(text) == ["bots.cfg:" + line for line in expected]


def test_ids_of_the_whole_file_are_bounded_and_no_more_are_looked_at(monkeypatch):
    monkeypatch.setattr("botapi.cfg.bots_rules.MAX_ALL_IDS", 5)
    group = "bot_group {{ {} bot_id: '{}' }}\n"
    five = group.format(GOOD, "a{1..3}") + group.format(GOOD, "b{1..2}")
    assert len(parse(TRUSTED + five, {}).by_id) == 5
    (only,) = mistakes(TRUSTED + five + group.format(GOOD, "c{1..2}") + group.format(GOOD, "c1"))
    assert only.endswith("with these the file names over 5 bot ids; use bot_id_prefix")


@pytest.mark.spec("7.2.1.13")
def test_system_service_account_may_be_the_bot_when_some_entry_asks_for_an_account():
    text = f"""{TRUSTED}bot_group {{ {GOOD}
      auth {{ require_service_account: "a@b.c" }} system_service_account: "bot" }}"""
    assert parse(text, {}).groups[0].system_service_account == "bot"


def test_all_mistakes_are_collected_in_the_order_of_the_file():
    lines = one_group('owners: "a"\nowners: "b"\ndimensions: "c"')
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5"]


def test_mistakes_are_bounded():
    assert len(one_group('owners: "a"\n' * (MAX_MISTAKES + 9))) == MAX_MISTAKES


def test_file_that_is_too_large_is_refused(monkeypatch):
    text = f'{TRUSTED}bot_group {{ {GOOD} bot_config_script: "s.py" }}'
    big = {"bots.cfg": text.encode(), "scripts/s.py": b"#" * bundle.MAX_SOURCE_BYTES}
    with pytest.raises(BadConfig, match="too large with the other files and scripts"):
        read(big)


@settings(deadline=None, max_examples=60)
@given(text=st.text("bot_groupid:{}<>[]\"'#,\n 01.", max_size=60) | st.text(max_size=30))
def test_parse_raises_nothing_but_bad_config(text):
    with pytest.raises(BadConfig) as caught:
        parse(text.encode("utf-8", "surrogatepass"), {})
    assert all(line.isprintable() for line in caught.value.lines())


@pytest.mark.spec("7.p1", "7.1.p1", "7.1.2.3")
def test_every_field_has_its_upstream_number_or_one_of_ours():
    def numbers(message):
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    assert bots_pb2.DESCRIPTOR.package == "swarming.config"
    assert numbers(bots_pb2.BotsCfg) == {"trusted_dimensions": 1, "bot_group": 2}
    assert numbers(bots_pb2.BotGroup) == {
        "bot_id": 1,
        "bot_id_prefix": 2,
        "auth": 20,
        "owners": 21,
        "dimensions": 22,
        "bot_config_script": 23,
        "system_service_account": 24,
        "bot_config_script_content": 25,
        "bot_config_script_rev": 26,
        "logs_cloud_project": 27,
        "rbe_migration": 28,
        "bot_archive": 100,
        "bot_archive_pin": 101,
    }
    assert numbers(bots_pb2.BotAuth) == {
        "require_luci_machine_token": 1,
        "require_service_account": 2,
        "ip_whitelist": 3,
        "require_gce_vm_token": 4,
        "log_if_failed": 5,
        "require_luci_machine_token_secure": 6,
        "require_enrolled_secret": 100,
        "require_oidc": 101,
        "require_client_cert": 102,
    }
    assert numbers(bots_pb2.BotGroup.RbeMigration) == {
        "rbe_mode_percent": 1,
        "enable_rbe_on": 2,
        "disable_rbe_on": 3,
        "hybrid_mode": 4,
    }


def test_methods_are_the_same_after_a_trip_through_a_session_token():
    # The two rooms that read BotAuth know nothing of each other.
    text = f"""{TRUSTED}bot_group {{ {GOOD} auth {{ require_enrolled_secret: true }}
      auth {{ require_luci_machine_token_secure {{ ca_id: 7 }} ip_whitelist: "y" }}
      auth {{ require_luci_machine_token_secure {{}} log_if_failed: true }}
      auth {{ require_oidc {{ issuer: "i" audience: "a" subject: ["s", "t"] }} }}
      auth {{ require_client_cert {{ san: "n" }} }} auth {{ require_client_cert {{}} }}
      auth {{ require_gce_vm_token {{ project: "p" }} }} auth {{ require_gce_vm_token {{}} }}
      auth {{ require_service_account: ["a@b", "c@d"] }}
      auth {{ require_luci_machine_token: true }} }}"""
    methods = load(text, {}).groups[0].auth
    assert len(methods) == 11
    session = Session("b", "s", 1, BotConfig(bot_auth=methods), 1)
    assert decode(encode(session, Secret(b"k")), Secret(b"k")).bot_config.bot_auth == methods
