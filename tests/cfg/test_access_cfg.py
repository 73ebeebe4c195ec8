"""Groups and grants of settings.cfg and pools.cfg: what they mean, and every mistake."""

import pytest

from botapi.cfg import bundle, first_bots_cfg
from botapi.cfg.mistakes import BadConfig
from botapi.cfg.settings_cfg import read
from botapi.domain.fleet_settings import SignIn
from botapi.domain.permissions import Caller, Grant, Permission, Role

P = Permission
SIX = ("admins", "bot_bootstrap", "privileged_users", "users", "view_all_bots", "view_all_tasks")
ALL_SIX = (
    "auth {"
    + " ".join(f'{name}_group: "{name}"' for name in SIX)
    + "}\n"
    + "\n".join(f'group {{ name: "{name}" member: "user:{name}" }}' for name in SIX)
)
ALLOWED = {
    P.PEEK: set(SIX),
    P.TASKS_GET: {"view_all_tasks", "privileged_users", "admins"},
    P.LIST_TASKS: {"view_all_tasks", "privileged_users", "admins"},
    P.LIST_BOTS: {"view_all_bots", "privileged_users", "admins"},
    P.CREATE_BOT: {"bot_bootstrap", "admins"},
    **{
        key: {"admins"}
        for key in (
            P.TASKS_CANCEL,
            P.CANCEL_TASK,
            P.DELETE_BOT,
            P.TERMINATE_BOT,
            P.CREATE_HIGH_PRIORITY_TASK,
        )
    },
    **{key: set() for key in (P.CREATE_TASK, P.TASKS_CREATE_IN_REALM, P.TASKS_ACT_AS)},
}


def access(settings="", pools=""):
    _, meaning = bundle.read(
        {
            "bots.cfg": first_bots_cfg.TEXT.encode(),
            "settings.cfg": settings.encode(),
            "pools.cfg": pools.encode(),
        }
    )
    return meaning.access


def may(rules, who, permission, pool=""):
    return Caller(who, rules.grants_of(who)).may(permission, pool)


@pytest.mark.spec(
    "7.8.1.10",
    "11.6.p1",
    "11.6.1.1",
    "11.6.1.2",
    "11.6.1.3",
    "11.6.1.4",
    "11.6.1.5",
    "11.6.1.6",
)
@pytest.mark.parametrize("permission", list(ALLOWED))
def test_groups_of_auth_have_the_server_level_grants_of_the_table(permission):
    rules = access(ALL_SIX)
    assert {name for name in SIX if may(rules, f"user:{name}", permission)} == ALLOWED[permission]
    assert not may(rules, "user:stranger", permission)


@pytest.mark.spec("7.8.1.10")
def test_groups_that_auth_does_not_name_are_the_administrators():
    rules = access('group { name: "administrators" member: "user:root" }')
    assert all(may(rules, "user:root", P(name)) for name in (P.LIST_BOTS, P.DELETE_BOT, P.PEEK))
    rules = access('auth { admins_group: "a" } group { name: "a" member: "user:root" }')
    assert may(rules, "user:root", P.LIST_BOTS)
    assert may(rules, "user:root", P.CREATE_BOT)


def test_grants_reach_members_of_included_groups_domains_and_anybody():
    rules = access(
        """group { name: "all" include: "all" include: "team" member: "anonymous:anonymous" }
        group { name: "team" member: "user:Alice@Example.com" member: "user:*@team.example" }
        grant { role: AUTHOR to: "group:team" pool: "ci" pool: "dev" }
        grant { role: VIEWER to: "group:all" to: "user:bob" }
        grant { role: OPERATOR to: "user:*@team.example" pool: "dev" }"""
    )
    team = {Grant(Role.AUTHOR, "ci"), Grant(Role.AUTHOR, "dev"), Grant(Role.VIEWER)}
    assert rules.grants_of("user:alice@example.com") == team
    assert rules.grants_of("user:ALICE@example.COM") == team
    assert rules.grants_of("user:x@team.example") == team | {Grant(Role.OPERATOR, "dev")}
    assert rules.grants_of("user:x@eam.example") == set()
    assert rules.grants_of("user:x@team.example.org") == set()
    assert rules.grants_of("anonymous:anonymous") == {Grant(Role.VIEWER)}
    assert rules.grants_of("user:bob") == {Grant(Role.VIEWER)}


def test_grants_of_pools_cfg_are_for_each_name_of_the_pool():
    rules = access(
        'group { name: "team" member: "user:eve" }',
        """pool { name: "a" name: "b" realm: "p:r" grant { role: VIEWER to: "group:team" } }
        pool { name: "c" realm: "p:r" }""",
    )
    assert rules.grants_of("user:eve") == {Grant(Role.VIEWER, "a"), Grant(Role.VIEWER, "b")}
    assert not may(rules, "user:eve", P.LIST_BOTS, "c")
    assert not may(rules, "user:eve", P.LIST_BOTS)


def test_nothing_is_granted_without_a_word():
    assert access().grants_of("user:admin") == set()


def test_sign_in_is_read():
    text = 'sign_in { issuer: "https://id.example/" client_id: "c" email_domain: "Example.com" }'
    assert read(text.encode()).settings.sign_in == SignIn(
        "https://id.example/", "c", frozenset({"example.com"})
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('grant { to: "user:a" }', "grant #0 / role: no role: one of ADMIN, OPERATOR, AUTHOR"),
        ("grant { role: ADMIN }", "grant #0: to nobody: set to"),
        ('grant { role: ADMIN to: "a" }', 'grant #0 / to #0: bad to "a": not user:'),
        ('grant { role: ADMIN to: "user:" }', 'grant #0 / to #0: bad to "user:": not user:'),
        ('grant { role: ADMIN to: "user:a b" }', "not user:<e-mail or name>"),
        ('grant { role: ADMIN to: "user:*" }', "not user:<e-mail or name>"),
        ('grant { role: ADMIN to: "group:x" }', 'grant #0 / to #0: unknown group "x"'),
        ('grant { role: ADMIN to: "group:" }', "not a group name"),
        ('grant { role: ADMIN to: "user:a" pool: " x" }', "grant #0 / pool #0: bad pool name"),
        ('group { name: "" }', 'group #0 / name: bad name "": not a group name'),
        ('group { name: "a" } group { name: "a" }', 'group #1 / name: name "a" is there twice'),
        ('group { name: "a" member: "bob" }', 'group #0 / member #0: bad member "bob"'),
        ('group { name: "a" member: "group:b" }', "bad member"),
        ('group { name: "a" include: "b" }', 'group #0 / include #0: unknown group "b"'),
        ("sign_in { }", "sign_in / issuer: bad issuer: empty"),
        ('sign_in { issuer: "https://i" }', "sign_in: no client_id"),
        ('sign_in { issuer: "http://i" client_id: "c" }', "bad issuer: not an https URL"),
        (
            'sign_in { issuer: "https://i" client_id: "c" email_domain: "*" }',
            'email_domain #0: not a domain: "*"',
        ),
    ],
)
def test_each_mistake_is_named_with_its_place(text, said):
    with pytest.raises(BadConfig) as caught:
        read(text.encode())
    assert any(said in line and line.startswith("settings.cfg:1:") for line in caught.value.lines())


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ('role: VIEWER to: "user:a" pool: "b"', "pool must be unset"),
        ('role: VIEWER to: "group:none"', 'settings.cfg has no group "none"'),
        ('to: "user:a"', "no role"),
    ],
)
def test_each_mistake_of_pools_cfg_is_named(grant, said):
    with pytest.raises(BadConfig) as caught:
        access(pools=f'pool {{ name: "a" realm: "p:r" grant {{ {grant} }} }}')
    (line,) = caught.value.lines()
    assert line.startswith("pools.cfg:1:")
    assert said in line


def test_too_many_groups_are_refused():
    text = "\n".join(f'group {{ name: "g{n}" }}' for n in range(1001))
    with pytest.raises(BadConfig, match="more than 1000 groups"):
        read(text.encode())


def test_a_group_that_auth_names_and_that_is_not_there_is_warned_of():
    (warning,) = read(b'auth { users_group: "everybody" }').warnings
    assert str(warning).endswith('auth / users_group: there is no group "everybody"')


def test_a_group_included_by_many_is_asked_once():
    names = [f"g{n}" for n in range(300)]
    groups = "\n".join(
        f'group {{ name: "{name}" '
        + " ".join(f'include: "{below}"' for below in names[:number])
        + (' member: "user:a"' if number == 0 else "")
        + " }"
        for number, name in enumerate(names)
    )
    rules = access(groups + 'grant { role: VIEWER to: "group:g299" }')
    assert rules.grants_of("user:a") == {Grant(Role.VIEWER)}
