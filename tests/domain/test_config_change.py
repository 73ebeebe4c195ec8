"""What a new configuration does to each bot, to the fleet, and to what waits for bots."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.bot import Bot
from botapi.domain.bot_groups import (
    ArchivePolicy,
    AuthMethod,
    BotGroup,
    BotsConfig,
    Oidc,
)
from botapi.domain.channel import bucket
from botapi.domain.config_change import Aspect, ConfigChange, Rules, changes
from botapi.domain.fleet_settings import Deployment, FleetSettings, GceVmTokens, OidcProvider
from botapi.domain.matching import fits, queue_of

SECRET = AuthMethod(require_enrolled_secret=True)
LOCAL = AuthMethod(ip_whitelist="loopback")
CI = {"pool": ("ci",)}
FLEET = FleetSettings()


def group(**more):
    return BotGroup(**{"auth": (SECRET,), "dimensions": CI, **more})


def rules(*groups, trusted=("pool",), fleet=FLEET):
    return Rules(BotsConfig.of(trusted, groups), fleet)


def make_bot(bot_id="vm1", *dims, **more):
    dims = dims or ("pool:ci", "os:Linux")
    return Bot(bot_id, tuple(sorted({*dims, f"id:{bot_id}"})), 1, **more)


def compare(before, after, *bots, queues=(), enrolled=True):
    return changes(before, after, bots or (make_bot(),), queues, lambda host: enrolled)


def only(before, after, bot=None, **more):
    """The one bot that changes."""
    (changed,) = compare(before, after, bot or make_bot(), **more).bots
    return changed


def test_nothing_changes_when_groups_only_move():
    vm = group(prefixes=("vm",), line=1)
    other = group(prefixes=("x",), line=9)
    assert compare(rules(vm, other), rules(other, replace(vm, line=20))) == ConfigChange(live=1)


def test_other_bots_do_not_change_when_their_group_gets_another_member():
    before = rules(group(bot_ids=frozenset({"vm1"})), group(prefixes=("a",)))
    after = rules(group(bot_ids=frozenset({"vm1", "vm2"})), group(prefixes=("a", "b")))
    assert compare(before, after, make_bot("vm1"), make_bot("a1")).bots == ()


def test_group_changes_by_the_way_a_bot_comes_into_it():
    before = rules(group(prefixes=("vm",), line=3), group(line=7))
    after = rules(group(bot_ids=frozenset({"vm1"}), line=3), group(line=8))
    found = only(before, after)
    assert found.aspects == (Aspect.GROUP,)
    assert found.group_before == "bot_id_prefix vm (bots.cfg:3)"
    assert found.group_after == "bot_id vm1 (bots.cfg:3)"
    assert (found.restarts, found.dropped, found.added, found.removed) == (False, "", (), ())


@pytest.mark.parametrize(
    ("bot_id", "groups", "words"),
    [
        ("vm1--c", [group(bot_ids=frozenset({"vm1--c"}))], "bot_id vm1--c"),
        ("vm1--c", [group(bot_ids=frozenset({"vm1"}))], "bot_id vm1"),
        ("vm1--c", [group(prefixes=("v",)), group(prefixes=("vm",))], "bot_id_prefix vm"),
        ("vm1", [group(line=5)], "default group (bots.cfg:5)"),
        ("vm1", [group(prefixes=("x",))], "no group"),
    ],
)
def test_group_is_named_by_the_rule_that_chose_it(bot_id, groups, words):
    before = rules(group(prefixes=("vm1",)))
    assert only(before, rules(*groups), make_bot(bot_id)).group_after == words


def test_assigned_dimensions_replace_what_is_stored():
    before, after = rules(group()), rules(group(dimensions={**CI, "os": ("Mac", "Mac-15")}))
    found = only(before, after)
    assert found.aspects == (Aspect.DIMENSIONS,)
    assert (found.added, found.removed) == (("os:Mac", "os:Mac-15"), ("os:Linux",))
    assert found.restarts is True


def test_dimension_that_is_assigned_no_more_is_gone_until_the_bot_reports():
    before = rules(group(dimensions={**CI, "rack": ("7",)}))
    found = only(before, rules(group()), make_bot("vm1", "pool:ci", "rack:7", "os:Linux"))
    assert (found.added, found.removed, found.restarts) == ((), ("rack:7",), True)


def test_assigning_what_a_bot_reports_anyway_restarts_it_and_changes_no_dimension():
    found = only(rules(group()), rules(group(dimensions={**CI, "os": ("Linux",)})))
    assert (found.aspects, found.restarts) == ((Aspect.DIMENSIONS,), True)
    assert (found.added, found.removed) == ((), ())


def test_key_that_becomes_trusted_is_taken_from_bots_that_report_it():
    found = only(rules(group()), rules(group(), trusted=("pool", "os")))
    assert (found.aspects, found.removed) == ((Aspect.DIMENSIONS,), ("os:Linux",))
    assert found.restarts is False
    changed = compare(rules(group()), rules(group(), trusted=("pool", "gpu")))
    assert changed.bots == ()


@pytest.mark.parametrize(
    ("more", "aspect", "restarts"),
    [
        ({"script_name": "s.py", "script": b"#"}, Aspect.SCRIPT, True),
        ({"bot_archive": ArchivePolicy.KEEP}, Aspect.ARCHIVE, False),
        ({"archive_pin": "r1"}, Aspect.ARCHIVE, False),
        ({"system_service_account": "a@b.c"}, Aspect.ACCOUNT, False),
        ({"logs_cloud_project": "p"}, Aspect.ACCOUNT, False),
        ({"owners": ("a@b.c",)}, Aspect.OWNERS, False),
        ({"auth": (SECRET, LOCAL)}, Aspect.AUTH, False),
    ],
)
def test_every_other_change_of_a_group_is_told(more, aspect, restarts):
    found = only(rules(group()), rules(group(**more)))
    assert (found.aspects, found.restarts, found.dropped) == ((aspect,), restarts, "")


GCE = AuthMethod(require_gce_vm_token="p1")
CA7 = AuthMethod(require_luci_machine_token_secure=(7,))
ACCOUNTS = AuthMethod(require_service_account=("a@x", "b@x"))
OIDC = AuthMethod(require_oidc=Oidc("https://i", "us", ("s",)))
PROVIDERS = {"https://i": OidcProvider("https://i")}
CHECKS = FleetSettings(
    machine_token_keys={"1": "pem"}, oidc_providers=PROVIDERS, client_cert_header="X-Cert"
)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((SECRET,), (), "no auth method is configured for this bot"),
        ((SECRET,), (GCE,), "require_gce_vm_token: settings.cfg does not say how to check it"),
        ((SECRET,), (ACCOUNTS,), "require_service_account: nobody knows whether the bot can"),
        ((SECRET,), (OIDC, SECRET), ""),
        ((OIDC,), (SECRET,), ""),
        ((ACCOUNTS,), (replace(ACCOUNTS, require_service_account=("b@x",)),), "require_service"),
        ((ACCOUNTS,), (replace(ACCOUNTS, require_service_account=("c@x", "b@x", "a@x")),), ""),
        ((CA7,), (AuthMethod(require_luci_machine_token_secure=()),), ""),
        ((CA7,), (AuthMethod(require_luci_machine_token_secure=(8,)),), "require_luci"),
        ((CA7,), (AuthMethod(require_luci_machine_token=True),), "require_luci_machine_token: no"),
        ((OIDC,), (replace(OIDC, log_if_failed=True),), ""),
        ((OIDC,), (AuthMethod(require_oidc=Oidc("https://i", "them", ("s",))),), "require_oidc"),
        (
            (AuthMethod(require_client_cert=("a",)),),
            (AuthMethod(require_client_cert=("a", "b")),),
            "",
        ),
        ((SECRET,), (replace(SECRET, ip_whitelist="loopback"),), ""),
        ((SECRET,), (replace(SECRET, ip_whitelist="office"),), 'there is no address list "office"'),
    ],
)
def test_bot_is_dropped_when_it_can_satisfy_no_method_any_more(before, after, reason):
    old, new = (rules(group(auth=auth), fleet=CHECKS) for auth in (before, after))
    found = only(old, new, make_bot(external_ip="127.0.0.1"))
    assert found.dropped.startswith(reason)
    assert bool(found.dropped) is bool(reason)


def test_account_that_stays_listed_is_let_in_and_one_that_does_not_is_dropped():
    old = rules(group(auth=(ACCOUNTS,)), fleet=CHECKS)
    new = rules(group(auth=(replace(ACCOUNTS, require_service_account=("b@x",)),)), fleet=CHECKS)
    assert only(old, new, make_bot(authenticated_as="user:b@x")).dropped == ""
    assert only(old, new, make_bot(authenticated_as="user:a@x")).dropped


def test_machine_of_another_project_is_dropped():
    checks = replace(CHECKS, gce_vm_tokens=GceVmTokens(("us",), PROVIDERS["https://i"]))
    two = (GCE, AuthMethod(require_gce_vm_token="p2"))
    old, new = rules(group(auth=two), fleet=checks), rules(group(auth=two[1:]), fleet=checks)
    assert only(old, new).dropped == ""
    old, new = rules(group(auth=two[:1]), fleet=checks), rules(group(auth=two[1:]), fleet=checks)
    assert only(old, new, make_bot(authenticated_as="bot:vm1@gce.p1")).dropped
    assert only(old, new, make_bot(authenticated_as="bot:vm1@gce.p2")).dropped == ""


def test_channel_that_gets_another_release_is_told_of_its_bots_only():
    """Bots below 50 of 100 run the canary."""
    fleet = [make_bot(f"b{n}") for n in range(20)]
    canaries = {bot.bot_id for bot in fleet if bucket(bot.bot_id) < 50}
    assert 0 < len(canaries) < 20
    before, after = (FleetSettings(deployment=Deployment("s", c, 50)) for c in ("c1", "c2"))
    found = compare(rules(group(), fleet=before), rules(group(), fleet=after), *fleet).bots
    assert {bot.bot_id for bot in found} == canaries
    assert {bot.aspects for bot in found} == {(Aspect.ARCHIVE,)}
    for more in ({"archive_pin": "r"}, {"bot_archive": ArchivePolicy.KEEP}):
        same = group(**more)
        assert compare(rules(same, fleet=before), rules(same, fleet=after), *fleet).bots == ()
    none = compare(rules(group()), rules(group(), fleet=FleetSettings(deployment=Deployment("s"))))
    assert [bot.aspects for bot in none.bots] == [(Aspect.ARCHIVE,)]


def test_bot_is_dropped_when_its_host_never_enrolled():
    bot = make_bot("vm1--c", external_ip="127.0.0.1")
    old, new = rules(group(auth=(LOCAL,))), rules(group(auth=(SECRET,)))
    assert only(old, new, bot, enrolled=False).dropped == "vm1 is not enrolled"
    assert only(old, new, bot, enrolled=True).dropped == ""


def test_bot_is_dropped_when_its_address_leaves_the_list():
    """bots.cfg is the same: settings.cfg has the lists."""
    office = AuthMethod(ip_whitelist="office")
    before = FleetSettings(ip_lists={"office": (ip_network("10.0.0.0/8"),)})
    after = FleetSettings(ip_lists={"office": (ip_network("10.1.0.0/16"),)})
    old, new = (rules(group(auth=(office,)), fleet=fleet) for fleet in (before, after))
    stays = make_bot("a", external_ip="::ffff:10.1.2.3")
    goes = make_bot("b", external_ip="::ffff:10.2.2.3")
    found = compare(old, new, stays, goes)
    assert [bot.aspects for bot in found.bots] == [(Aspect.AUTH,), (Aspect.AUTH,)]
    assert found.bots[0].dropped == ""
    assert found.bots[1].dropped == '::ffff:10.2.2.3 is not in the address list "office"'
    assert found.dropped == 1


def test_bot_that_is_refused_already_is_not_dropped():
    old, new = rules(group(auth=(LOCAL,))), rules(group(auth=(SECRET,)))
    assert only(old, new, make_bot(external_ip="10.0.0.1"), enrolled=False).dropped == ""


def test_dead_bots_are_listed_and_not_counted():
    old, new = rules(group()), rules(group(auth=(GCE,), dimensions={"pool": ("x",)}))
    found = compare(old, new, make_bot("a"), make_bot("b", dead=True))
    assert [(bot.bot_id, bot.is_live, bool(bot.dropped)) for bot in found.bots] == [
        ("a", True, True),
        ("b", False, True),
    ]
    assert (found.live, found.dropped, found.restarts) == (1, 1, 0)


def test_enrolment_is_asked_only_of_bots_whose_authentication_changes():
    old, new = rules(group()), rules(group(owners=("a@b.c",)))
    changes(old, new, [make_bot()], (), is_enrolled=None)


@pytest.mark.parametrize(
    ("dropped", "live", "percent", "refused"),
    [
        (2, 40, 5, False),
        (3, 40, 5, True),
        (1, 1, 5, True),
        (0, 0, 0, False),
        (1, 40, 0, True),
        (40, 40, 100, False),
    ],
)
def test_more_than_the_percentage_is_refused_without_the_number(dropped, live, percent, refused):
    old, new = rules(group()), rules(group(bot_ids=frozenset({"x"}), auth=()), group())
    fleet = [make_bot(f"b{n}") for n in range(live)]
    change = changes(old, new, fleet, (), lambda host: True)
    goes = only(old, new, make_bot("x"))
    change = replace(change, bots=tuple(replace(goes, bot_id=f"b{n}") for n in range(dropped)))
    assert change.exceeds(percent) is refused
    said = f"would drop {dropped} of {live} live bots"
    expected = f"{said}; to go on, give drop={dropped}" if refused else ""
    assert change.refusal(percent, None) == expected
    assert change.refusal(percent, dropped) == ""
    assert change.refusal(percent, dropped + 1) == f"{said}, not {dropped + 1}"


LINUX = queue_of({"pool": ("ci",), "os": ("Linux|Mac",)})
ANY = queue_of({"pool": ("ci",)})
NOBODYS = queue_of({"pool": ("ci",), "os": ("Plan9",)})


def test_queue_is_lost_with_its_last_bot():
    queues = (LINUX, ANY, NOBODYS)
    old, new = rules(group()), rules(group(bot_ids=frozenset({"a"}), auth=(GCE,)), group())
    linux, windows = make_bot("a"), make_bot("b", "pool:ci", "os:Windows")
    assert compare(old, new, linux, windows, queues=queues).queues == (LINUX,)
    assert compare(old, new, linux, queues=queues).queues == (LINUX, ANY)
    assert compare(old, new, linux, make_bot("c"), queues=queues).queues == ()
    assert compare(old, new, linux, make_bot("c", dead=True), queues=[ANY]).queues == (ANY,)


def test_queue_is_lost_when_its_bots_move_and_not_when_others_come():
    x = {"pool": ("x",)}
    assert compare(rules(group()), rules(group(dimensions=x)), queues=[ANY]).queues == (ANY,)
    arriving = group(dimensions=x, bot_ids=frozenset({"z"}))
    old = rules(group(), arriving)
    new = rules(group(dimensions=x), replace(arriving, dimensions=CI))
    assert compare(old, new, make_bot(), make_bot("z", "pool:x"), queues=[ANY]).queues == ()


VALUES = st.sampled_from(["a", "b", "c"])
BOTS = st.lists(
    st.builds(lambda pool, os, dead: (pool, os, dead), VALUES, VALUES, st.booleans()), max_size=6
)


@given(BOTS, VALUES, st.sets(st.integers(0, 5)), st.lists(st.tuples(VALUES, VALUES), max_size=4))
def test_lost_queues_are_those_that_matching_says(bots, target, moved, asked):
    """Against the plain definition: some live bot fits before, none after."""
    fleet = [
        make_bot(f"b{n}", f"pool:{pool}", f"os:{os}", dead=dead)
        for n, (pool, os, dead) in enumerate(bots)
    ]
    own = [
        group(bot_ids=frozenset({bot.bot_id}), dimensions={"pool": (pool,)})
        for bot, (pool, _os, _dead) in zip(fleet, bots, strict=True)
    ]
    pools = [target if n in moved else pool for n, (pool, _os, _dead) in enumerate(bots)]
    later = [
        replace(one, dimensions={"pool": (pool,)}) for one, pool in zip(own, pools, strict=True)
    ]
    queues = [queue_of({"pool": (pool,), "os": (os,)}) for pool, os in asked]
    found = changes(rules(*own), rules(*later), fleet, queues, lambda host: True)
    live = [bot for bot in fleet if not bot.dead]
    after = {
        bot.bot_id: {f"pool:{pool}", f"os:{os}", f"id:{bot.bot_id}"}
        for bot, pool, (_pool, os, _dead) in zip(fleet, pools, bots, strict=True)
    }
    assert list(found.queues) == [
        queue
        for queue in queues
        if any(fits(frozenset(bot.dimensions), queue.constraints) for bot in live)
        and not any(fits(frozenset(after[bot.bot_id]), queue.constraints) for bot in live)
    ]
