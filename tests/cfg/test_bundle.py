"""The files together: what only several of them show, warnings, and what was in force."""

import pytest

from botapi.cfg.bundle import Meaning, Source, load, read
from botapi.cfg.mistakes import BadConfig
from botapi.domain.bot_groups import built_in

GROUP = 'trusted_dimensions: "pool"\nbot_group {{ auth {{ {} }} dimensions: "pool:ci" }}'
OPEN = GROUP.format('ip_whitelist: "loopback"')


def files(bots=OPEN, pools="", settings=""):
    texts = {"bots.cfg": bots, "pools.cfg": pools, "settings.cfg": settings}
    return {name: text.encode() for name, text in texts.items()}


def mistakes(**texts):
    with pytest.raises(BadConfig) as caught:
        read(files(**texts))
    return caught.value.lines()


def warned(**texts):
    return [str(warning) for warning in read(files(**texts))[1].warnings]


def test_mistakes_of_all_files_are_told_at_once_file_by_file():
    assert mistakes(
        bots="\n\nx", pools='pool { name: "x" }', settings="\nrollout { soak_secs: -1 }"
    ) == [
        'bots.cfg:3:1: Message type "swarming.config.BotsCfg" has no field named "x".',
        'pools.cfg:1:1: pool #0: no realm: set realm to "project:name"',
        "settings.cfg:2:11: rollout / soak_secs: negative: -1",
    ]


@pytest.mark.spec("7.1.3.5")
def test_address_list_that_settings_do_not_have_is_warned_of():
    asks = GROUP.format('require_enrolled_secret: true ip_whitelist: "lab"')
    assert warned(bots=asks) == [
        "bots.cfg:2:50: bot_group #0 / auth #0 / ip_whitelist: "
        'no bot can satisfy it: settings.cfg has no ip_allowlist "lab"'
    ]
    listed = 'ip_allowlist { name: "lab" subnet: "10.0.0.0/8" }'
    assert warned(bots=asks, settings=listed) == []


def test_issuer_must_be_in_settings():
    asks = GROUP.format('require_oidc { issuer: "https://i" audience: "a" subject: "s" }')
    assert mistakes(bots=asks) == [
        "bots.cfg:2:35: bot_group #0 / auth #0 / require_oidc / issuer: "
        'settings.cfg has no oidc_provider with the issuer "https://i"'
    ]
    assert warned(bots=asks, settings='oidc_provider { issuer: "https://i" }') == []


@pytest.mark.parametrize(
    ("method", "field", "missing"),
    [
        ("require_luci_machine_token: true", "luci_machine_token", "machine_token_signer"),
        (
            "require_luci_machine_token_secure {}",
            "luci_machine_token_secure",
            "machine_token_signer",
        ),
        ('require_gce_vm_token { project: "p" }', "gce_vm_token", "gce_vm_tokens"),
        ('require_service_account: "a@b"', "service_account", "oidc_provider"),
        ('require_client_cert { san: "a" }', "client_cert", "client_certs"),
    ],
)
def test_method_that_nobody_can_satisfy_is_warned_of(method, field, missing):
    assert warned(bots=GROUP.format(method)) == [
        f"bots.cfg:2:20: bot_group #0 / auth #0 / require_{field}: "
        f"no bot can satisfy it: settings.cfg has no {missing}"
    ]


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ('require_gce_vm_token { project: "p" }', 'gce_vm_tokens { audience: "a" }'),
        ('require_service_account: "a@b"', 'oidc_provider { issuer: "https://i" }'),
        ('require_client_cert { san: "a" }', 'client_certs { san_header: "X-San" }'),
    ],
)
def test_method_is_not_warned_of_when_settings_have_what_it_needs(method, setting):
    assert warned(bots=GROUP.format(method), settings=setting) == []


def test_pool_that_no_file_defines_is_warned_of_and_in_force():
    other = 'pool { name: "other" realm: "p:x" }'
    assert warned(pools=other) == [
        'bots.cfg:2:47: bot_group #0 / dimensions #0 ("pool:ci"): pools.cfg has no pool "ci"'
    ]
    assert warned(pools=other.replace("other", "ci")) == []
    assert warned() == []


@pytest.mark.spec("7.1.2.10", "7.1.2.12")
def test_ignored_fields_of_a_group_are_warned_of():
    text = OPEN.replace(
        "bot_group {", 'bot_group { bot_config_script_rev: "r" rbe_migration { hybrid_mode: true }'
    )
    assert warned(bots=text) == [
        "bots.cfg:2:13: bot_group #0 / bot_config_script_rev: internal, ignored",
        "bots.cfg:2:40: bot_group #0 / rbe_migration: "
        "obsolete, ignored: pools.cfg has an rbe_migration of its own",
    ]


def test_warnings_change_no_meaning():
    pools = 'pool { name: "ci" realm: "p:x" owners: "{}" }'
    warning, quiet = (read(files(pools=pools.replace("{}", owner)))[1] for owner in ("ab", "a@b"))
    assert len(warning.warnings) == 1
    assert quiet.warnings == ()
    same = Meaning(warning.bots, warning.pools, warning.fleet)
    assert same == warning


@pytest.mark.spec("7.7.p1", "7.8.1.10", "7.1.2.12")
def test_files_of_another_fleet_are_accepted_unchanged():
    bots = """
        trusted_dimensions: ["pool", "caches"]
        bot_group {
          bot_id: "vm{1..10}-m1" bot_id_prefix: "lab-"
          auth { require_luci_machine_token: true log_if_failed: true }
          auth { require_service_account: ["bots@p.iam.gserviceaccount.com"] }
          auth { require_gce_vm_token { project: "p" } }
          owners: "a@example.com" dimensions: ["pool:a", "pool:b", "zone:x"]
          system_service_account: "bot" logs_cloud_project: "logs"
          rbe_migration { rbe_mode_percent: 100 enable_rbe_on: "x" disable_rbe_on: "y" }
        }"""
    pools = """
        pool { name: "a" owners: "a@example.com" realm: "p:pools/a"
          external_schedulers { address: "x" id: "y" dimensions: "a:b" enabled: true }
          rbe_migration { rbe_instance: "projects/p/instances/default"
            bot_mode_allocation { mode: SWARMING percent: 20 }
            bot_mode_allocation { mode: RBE percent: 80 } }
          informational_dimension_re: "label-.*" }
        default_external_services { cipd { server: "https://x"
          client_package { pkg: "a" version: "b" } } }"""
    settings = """
        google_analytics: "UA-1" reusable_task_age_secs: 604800 bot_death_timeout_secs: 600
        ui_client_id: "x" auth { admins_group: "admins" users_group: "users" }
        display_server_url_template: "https://x.example.com/task?id=%s"
        extra_child_src_csp_url: "https://a" resultdb { server: "https://b" }
        bot_deployment {
          stable { server: "https://c" pkg: "p" version: "latest" }
          canary { server: "https://c" pkg: "p" version: "canary" } canary_percent: 20 }"""
    source, meaning = read(files(bots, pools, settings))
    assert [*meaning.pools.pools] == ["a"]
    assert meaning.warnings
    assert load(source) == meaning


def test_load_keeps_in_force_what_today_would_be_refused():
    source = Source(
        GROUP.format('ip_whitelist: "gone"'),
        {},
        'pool { name: "x" }',
        "max_bot_sleep_time: -1",
    )
    with pytest.raises(BadConfig):
        read(source.files())
    meaning = load(source)
    assert meaning.pools.pool("x").realm == ""
    assert meaning.bots.groups[0].auth[0].ip_whitelist == "gone"


def test_without_any_file_the_built_in_one_counts():
    assert Meaning().bots == built_in()
