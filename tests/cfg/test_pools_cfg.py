"""pools.cfg: what it means, and every mistake of bot-api 7.7 with its place."""

from contextlib import suppress
from itertools import chain, pairwise

import pytest
from botpb import pools_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.cfg.mistakes import BadConfig
from botapi.cfg.pools_cfg import load, read
from botapi.cfg.pools_rules import MAX_REGEX_CHARS, MAX_TEMPLATES
from botapi.domain.artifacts import CipdInput, CipdPackage
from botapi.domain.pools import (
    Pool,
    PoolsConfig,
    SchedulingAlgorithm,
    TaskTemplate,
    TemplateDeployment,
    TemplateEnv,
    include_cycle,
    resolve,
)

POOL = 'pool {{ name: "ci" realm: "p:ci"\n{}\n}}'


def mistakes(text):
    with pytest.raises(BadConfig) as caught:
        read(text.encode())
    return caught.value.lines()


def one_pool(body):
    """The mistakes of a file whose pool 0 is good but for the given line 2."""
    return mistakes(POOL.format(body))


def warned(text):
    return [str(warning) for warning in read(text.encode()).warnings]


@pytest.mark.spec(
    "7.7.p1",
    "7.7.1.1",
    "7.7.1.2",
    "7.7.1.4",
    "7.7.1.7",
    "7.7.1.9",
    "7.7.1.10",
    "7.7.1.11",
    "7.7.1.12",
)
def test_read_gives_every_field_its_meaning():
    text = """
        task_template { name: "t" cache { name: "c" path: "a/b" } }
        task_template_deployment {
          name: "d" prod { include: "t" } canary { env { var: "X" value: "1" } } canary_chance: 9999
        }
        pool {
          name: ["a", "b"]
          owners: "me@example.com"
          task_template_deployment: "d"
          realm: "project:pools/a"
          default_task_realm: "project:@root"
          rbe_migration {
            rbe_instance: "projects/p/instances/default" rbe_mode_percent: 100
            effective_bot_id_dimension: "dut_id"
          }
          scheduling_algorithm: SCHEDULING_ALGORITHM_LIFO
          informational_dimension_re: "^label-"
          allowed_service_account: ["x@example.com", "y@example.com"]
        }"""
    file = read(text.encode())
    (a, b) = file.config.pools.values()
    assert (a.name, b.name) == ("a", "b")
    assert a == Pool(
        name="a",
        realm="project:pools/a",
        default_task_realm="project:@root",
        owners=("me@example.com",),
        task_templates=TemplateDeployment(
            "d",
            prod=TaskTemplate(caches=(("c", "a/b"),)),
            canary=TaskTemplate(env=(TemplateEnv("X", "1"),)),
            canary_chance=9999,
        ),
        scheduling_algorithm=SchedulingAlgorithm.LIFO,
        informational_dimensions=a.informational_dimensions,
        rbe_instance="projects/p/instances/default",
        rbe_modes=(("SWARMING", 0), ("HYBRID", 0), ("RBE", 100)),
        effective_bot_id_dimension="dut_id",
        allowed_service_accounts=frozenset({"x@example.com", "y@example.com"}),
        line=6,
    )
    assert a.is_informational("label-os")
    assert not a.is_informational("os")
    assert file.warnings == ()
    assert load(text) == file.config


@pytest.mark.spec("7.7.1.4")
def test_pool_may_have_a_deployment_of_its_own():
    text = """task_template { name: "t" env { var: "A" value: "1" } }
        pool { name: "x" realm: "p:x" task_template_deployment_inline { prod { include: "t" } } }"""
    deployment = read(text.encode()).config.pools["x"].task_templates
    assert deployment == TemplateDeployment(prod=TaskTemplate(env=(TemplateEnv("A", "1"),)))


@pytest.mark.spec("7.7.1.11")
@pytest.mark.parametrize(
    ("algorithm", "meaning"), [("UNKNOWN", "fifo"), ("FIFO", "fifo"), ("LIFO", "lifo")]
)
def test_pool_is_first_in_first_out_unless_it_says_lifo(algorithm, meaning):
    said = f"scheduling_algorithm: SCHEDULING_ALGORITHM_{algorithm}"
    pool = read(POOL.format(said).encode()).config.pools["ci"]
    assert pool.scheduling_algorithm == meaning


@pytest.mark.spec("7.7.1.10")
@pytest.mark.parametrize(
    ("migration", "modes"),
    [
        ("", ()),
        ('rbe_migration { rbe_instance: "i" }', (100, 0, 0)),
        ('rbe_migration { rbe_instance: "i" rbe_mode_percent: 30 }', (70, 0, 30)),
        (
            'rbe_migration { rbe_instance: "i" rbe_mode_percent: 30'
            " bot_mode_allocation { mode: RBE percent: 80 }"
            " bot_mode_allocation { mode: HYBRID percent: 20 } }",
            (0, 20, 80),
        ),
    ],
)
def test_pool_has_a_percent_for_each_mode(migration, modes):
    pool = read(POOL.format(migration).encode()).config.pools["ci"]
    assert tuple(percent for _, percent in pool.rbe_modes) == modes
    assert tuple(name for name, _ in pool.rbe_modes) == ("SWARMING", "HYBRID", "RBE")[: len(modes)]


ALLOCATION = 'rbe_migration {{ rbe_instance: "i"\n{} }}'


@pytest.mark.spec(
    "7.7.1.1", "7.7.1.3", "7.7.1.4", "7.7.1.5", "7.7.1.9", "7.7.1.10", "7.7.1.11", "7.7.1.12"
)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            'name: ["x", "ci"]',
            '2:13: pool #0 / name #2 ("ci"): pool "ci" is already defined in pool #0',
        ),
        ('name: ""', '2:1: pool #0 / name #1 (""): bad pool name: empty value'),
        ('name: "a:b"', '2:1: pool #0 / name #1 ("a:b"): bad pool name: ":" in a pool name'),
        (
            "schedulers {}",
            "2:1: pool #0 / schedulers: "
            "schedulers is obsolete and must be unset: the realm says who may schedule",
        ),
        (
            'task_template_deployment: "d"',
            '2:1: pool #0 / task_template_deployment: unknown deployment "d"',
        ),
        (
            'task_template_deployment_inline { prod { include: "t" } }',
            "2:42: pool #0 / task_template_deployment_inline / prod / include #0: "
            'unknown template "t"',
        ),
        (
            "task_template_deployment_inline { canary_chance: 10000 }",
            "2:35: pool #0 / task_template_deployment_inline / canary_chance: not 0 to 9999: 10000",
        ),
        (
            'bot_monitoring: "m"',
            "2:1: pool #0 / bot_monitoring: bot_monitoring is obsolete and must be unset",
        ),
        (
            'default_task_realm: "x"',
            '2:1: pool #0 / default_task_realm: bad default_task_realm "x": not "project:name"',
        ),
        ("rbe_migration {}", "2:1: pool #0 / rbe_migration: no rbe_instance"),
        (
            ALLOCATION.format("rbe_mode_percent: 101"),
            "3:1: pool #0 / rbe_migration / rbe_mode_percent: not 0 to 100: 101",
        ),
        (
            ALLOCATION.format("rbe_mode_percent: -1"),
            "3:1: pool #0 / rbe_migration / rbe_mode_percent: not 0 to 100: -1",
        ),
        (
            ALLOCATION.format("bot_mode_allocation { mode: RBE percent: 99 }"),
            "3:1: pool #0 / rbe_migration / bot_mode_allocation: "
            "the percents sum to 99, not to 100",
        ),
        (
            ALLOCATION.format("bot_mode_allocation { percent: 100 }"),
            "3:1: pool #0 / rbe_migration / bot_mode_allocation #0: "
            "mode is neither SWARMING nor HYBRID nor RBE",
        ),
        (
            ALLOCATION.format(
                "bot_mode_allocation: [{mode: RBE percent: 50}, {mode: RBE percent: 50}]"
            ),
            "3:49: pool #0 / rbe_migration / bot_mode_allocation #1 / mode: "
            "mode RBE is there twice",
        ),
        (
            ALLOCATION.format("effective_bot_id_dimension: '9'"),
            "3:1: pool #0 / rbe_migration / effective_bot_id_dimension: bad dimension "
            r'"9": key does not match ^[a-zA-Z\-\_\.][0-9a-zA-Z\-\_\.]*$',
        ),
        (
            "scheduling_algorithm: 7",
            "2:1: pool #0 / scheduling_algorithm: neither FIFO nor LIFO: 7",
        ),
        (
            'informational_dimension_re: ["a", "("]',
            '2:35: pool #0 / informational_dimension_re #1 ("("): bad regex: '
            "missing ), unterminated subpattern at position 0",
        ),
        (
            'informational_dimension_re: ""',
            '2:1: pool #0 / informational_dimension_re #0 (""): bad regex: empty',
        ),
        (
            'informational_dimension_re: "[[:alpha:]]"',
            '2:1: pool #0 / informational_dimension_re #0 ("[[:alpha:]]"): bad regex: '
            "classes such as [:alpha:] are not supported",
        ),
        (
            f'informational_dimension_re: "{"a" * (MAX_REGEX_CHARS + 1)}"',
            f'2:1: pool #0 / informational_dimension_re #0 ("{"a" * (MAX_REGEX_CHARS + 1)}"): '
            "bad regex: longer than 256 characters",
        ),
        (
            'allowed_service_account: "me"',
            '2:1: pool #0 / allowed_service_account #0: service account is not an e-mail: "me"',
        ),
    ],
)
def test_mistake_in_a_pool_is_named_with_its_place(body, expected):
    assert one_pool(body) == ["pools.cfg:" + expected]


@pytest.mark.spec("7.7.p1", "7.7.1.1", "7.7.1.7")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('pool { name: "x" }', ['1:1: pool #0: no realm: set realm to "project:name"']),
        (
            'pool { name: "x"\nrealm: "X" }',
            ['2:1: pool #0 / realm: bad realm "X": not "project:name"'],
        ),
        ('pool { realm: "a:b" }', ["1:1: pool #0: no name"]),
        (
            'pool { name: "x" realm: "a:b" }\npool { name: "x" realm: "a:b" }',
            ['2:8: pool #1 / name #0 ("x"): pool "x" is already defined in pool #0'],
        ),
        (
            'task_template { }\ntask_template { name: "x" }\ntask_template { name: "x" }',
            [
                "1:1: task_template #0: no name",
                '3:17: task_template #2 / name: name "x" is also that of #1',
            ],
        ),
        (
            'task_template_deployment { name: "x" }\ntask_template_deployment { name: "x" }',
            ['2:28: task_template_deployment #1 / name: name "x" is also that of #0'],
        ),
        (
            'task_template_deployment { name: "x" canary_chance: -1 }',
            ["1:38: task_template_deployment #0 / canary_chance: not 0 to 9999: -1"],
        ),
        (
            'task_template { name: "a" include: "b" }\ntask_template { name: "b" include: "a" }',
            ['1:1: task_template #0: the template includes itself: "a" -> "b" -> "a"'],
        ),
        (
            'task_template { name: "a" include: "a" }',
            ['1:1: task_template #0: the template includes itself: "a" -> "a"'],
        ),
        (
            'task_template { name: "a" include: "b" }',
            ['1:27: task_template #0 / include #0: unknown template "b"'],
        ),
        (
            'task_template { name: "a" cache { name: "A" path: "../x" } env { var: "1" } }',
            [
                '1:27: task_template #0 / cache #0: bad cache name "A": 1 to 128 of a-z, 0-9 and _',
                '1:27: task_template #0 / cache #0: bad cache path "../x": '
                'it has empty, "." or ".." parts',
                '1:60: task_template #0 / env #0: bad variable "1": '
                "1 to 64 letters, digits and _, and no digit first",
            ],
        ),
        ("pool {", ['1:6: Expected "}".']),
        ("pool { nome: 'x' }", None),
    ],
)
def test_mistake_of_the_whole_file_is_named_with_its_place(text, expected):
    lines = mistakes(text)
    if expected is None:
        assert lines == [
            'pools.cfg:1:8: Message type "swarming.config.Pool" has no field named "nome".'
        ]
    else:
        assert lines == ["pools.cfg:" + line for line in expected]


@pytest.mark.spec("7.7.1.10")
def test_percent_of_a_mode_is_one():
    text = "bot_mode_allocation: [{mode: RBE percent: 101}, {mode: HYBRID percent: -1}]"
    assert one_pool(ALLOCATION.format(text)) == [
        "pools.cfg:3:34: pool #0 / rbe_migration / bot_mode_allocation #0 / percent: "
        "not 0 to 100: 101",
        "pools.cfg:3:63: pool #0 / rbe_migration / bot_mode_allocation #1 / percent: "
        "not 0 to 100: -1",
    ]


def test_canary_is_checked_as_prod_is():
    text = 'task_template_deployment { name: "x"\ncanary { include: "gone" } }'
    assert mistakes(text) == [
        'pools.cfg:2:10: task_template_deployment #0 / canary / include #0: unknown template "gone"'
    ]


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/.", "a\\\\b", "a" * 257])
def test_cache_path_is_relative_and_normal(path):
    text = f'task_template {{ name: "a" cache {{ name: "c" path: "{path}" }} }}'
    (line,) = mistakes(text)
    assert "bad cache path" in line


def test_templates_are_bounded():
    text = "".join(f'task_template {{ name: "{i}" }}\n' for i in range(MAX_TEMPLATES + 1))
    assert mistakes(text) == [
        "pools.cfg:1001:1: task_template #1000: more than 1000 task templates"
    ]


@pytest.mark.spec("7.7.p1", "prpc:4.2.2")
def test_default_server_and_client_of_packages_are_read():
    text = """default_external_services { cipd {
  server: "https://packages.example.com"
  client_package { pkg: "client" version: "version:1" path: "x" }
} }"""
    assert warned(text) == []
    found = load(text).default_cipd
    client = CipdPackage("client", "version:1", "x")
    assert found == CipdInput("https://packages.example.com", client)
    assert load("").default_cipd is None


def test_default_packages_that_no_task_could_use_are_mistakes():
    text = """default_external_services { cipd { server: "s" client_package { pkg: "p" } } }"""
    assert mistakes(text) == [
        'pools.cfg:1:1: default_external_services: bad server of cipd "s": '
        "not an https URL (http only to loopback)",
        "pools.cfg:1:1: default_external_services: client_package of cipd needs pkg and version",
    ]


@pytest.mark.spec("7.7.1.2", "7.7.1.6", "7.7.1.8")
def test_what_is_ignored_is_warned_of():
    text = """bot_monitoring { name: "m" }

task_template { name: "t" cipd_package { path: "a" pkg: "b" version: "c" } }
pool { name: "x" realm: "p:x" owners: "somebody"
  external_schedulers { address: "a" id: "b" }
  enforced_realm_permissions: 3
}"""
    packages = "ignored: this server fetches no packages"
    assert warned(text) == [
        "pools.cfg:1:1: bot_monitoring: obsolete, ignored",
        f"pools.cfg:3:27: task_template #0 / cipd_package: {packages}",
        'pools.cfg:4:31: pool #0 / owners #0: owner is not an e-mail: "somebody"',
        "pools.cfg:5:3: pool #0 / external_schedulers: ignored: there is one scheduler",
        "pools.cfg:6:3: pool #0 / enforced_realm_permissions: "
        "ignored: permissions are always enforced",
    ]


@pytest.mark.spec("7.7.p1")
def test_every_field_has_its_upstream_number_or_one_of_ours():
    def numbers(message):
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    assert numbers(pools_pb2.PoolsCfg) == {
        "pool": 1,
        "task_template": 3,
        "task_template_deployment": 4,
        "bot_monitoring": 5,
        "default_external_services": 6,
    }
    assert numbers(pools_pb2.Pool) == {
        "name": 1,
        "owners": 2,
        "schedulers": 3,
        "task_template_deployment": 6,
        "task_template_deployment_inline": 7,
        "bot_monitoring": 8,
        "external_schedulers": 9,
        "realm": 10,
        "enforced_realm_permissions": 11,
        "default_task_realm": 12,
        "rbe_migration": 13,
        "scheduling_algorithm": 14,
        "informational_dimension_re": 15,
        "allowed_service_account": 100,
        "grant": 101,
    }
    assert numbers(pools_pb2.TaskTemplate) == {
        "name": 1,
        "include": 2,
        "cache": 3,
        "cipd_package": 4,
        "env": 5,
    }
    assert numbers(pools_pb2.TaskTemplateDeployment) == {
        "name": 1,
        "prod": 2,
        "canary": 3,
        "canary_chance": 4,
    }


def test_load_leaves_out_what_cannot_be_used():
    text = """task_template { name: "a" include: ["a", "b", "gone"] }
        task_template { name: "b" include: "a" env { var: "X" value: "1" } }
        pool { name: "x" informational_dimension_re: ["(", "^ok$"]
          rbe_migration { rbe_instance: "i" bot_mode_allocation { mode: RBE percent: 7 } }
          task_template_deployment_inline { prod { include: "a" } } }
        pool { name: "x" realm: "second:x" }"""
    (pool,) = load(text).pools.values()
    assert [pattern.pattern for pattern in pool.informational_dimensions] == ["^ok$"]
    assert (pool.realm, pool.rbe_modes) == ("", ())
    assert pool.task_templates.prod.env == (TemplateEnv("X", "1"),)


def test_load_raises_when_the_text_does_not_parse():
    with pytest.raises(BadConfig):
        load("pool {")


@settings(deadline=None, max_examples=60)
@given(text=st.text("pol{}name:\"'re1,[]\n (", max_size=60) | st.text(max_size=30))
def test_read_raises_nothing_but_bad_config(text):
    with suppress(BadConfig):
        read(text.encode("utf-8", "surrogatepass"))


def test_without_a_file_there_are_no_pools():
    assert read(b"").config == PoolsConfig() == load("")


NAMES = st.sampled_from("abcde")


@st.composite
def template_sets(draw):
    """Templates in which each includes only later ones, so that nothing goes in circles."""
    templates = {}
    for name in "edcba":
        later = [other for other in "abcde" if other > name]
        include = draw(st.lists(st.sampled_from(later), max_size=3)) if later else []
        env = tuple(
            TemplateEnv(var, draw(st.sampled_from(["", name])), (name,), draw(st.booleans()))
            for var in draw(st.lists(st.sampled_from("XYZ"), max_size=2, unique=True))
        )
        caches = draw(st.lists(st.sampled_from(["c", "d"]), max_size=2, unique=True))
        pairs = tuple((cache, name) for cache in caches)
        templates[name] = TaskTemplate(name, tuple(include), pairs, env)
    return templates


def naive_order(name, templates, done):
    """Bot-api 7.7 read aloud: depth first, each template at most once."""
    if name in done:
        return []
    done.add(name)
    parts = [naive_order(other, templates, done) for other in templates[name].include]
    return [*chain.from_iterable(parts), name]


@pytest.mark.spec("7.7.p1")
@settings(deadline=None, max_examples=20)
@given(templates=template_sets())
def test_resolve_equals_the_naive_reference(templates):
    order = [templates[name] for name in naive_order("a", templates, set())]
    found = resolve(templates["a"], templates)
    assert found.include == ()
    assert dict(found.caches) == {name: path for part in order for name, path in part.caches}
    said = [env for part in order for env in part.env]
    for env in found.env:
        mine = [other for other in said if other.name == env.name]
        assert env.prefixes == sum((other.prefixes for other in mine), ())
        assert env.value == next((o.value for o in reversed(mine) if o.value), "")
        assert env.is_soft == mine[-1].is_soft
    assert {env.name for env in found.env} == {env.name for env in said}


@settings(deadline=None, max_examples=60)
@given(edges=st.dictionaries(NAMES, st.lists(NAMES, max_size=3).map(tuple)))
def test_include_cycle_is_a_way_back_and_there_whenever_one_exists(edges):
    templates = {name: TaskTemplate(name, include) for name, include in edges.items()}
    for name in templates:
        reached = set(edges[name])
        while more := {far for near in reached for far in edges.get(near, ())} - reached:
            reached |= more
        way = include_cycle(name, templates)
        assert bool(way) == (name in reached)
        if way:
            assert way[0] == way[-1] == name
            assert all(to in edges[of] for of, to in pairwise(way))


def test_resolve_ends_when_templates_include_each_other_and_when_they_are_many():
    templates = {str(i): TaskTemplate(str(i), (str((i + 1) % 5000),)) for i in range(5000)}
    assert resolve(templates["0"], templates) == TaskTemplate("0")
