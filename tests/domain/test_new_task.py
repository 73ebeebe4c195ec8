"""bot-api 10.7, row by row: what a new task may say, and the one line for everything else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi.domain.artifacts import (
    CasDigest,
    CasReference,
    CipdInput,
    CipdPackage,
    NamedCache,
)
from botapi.domain.errors import Code, Refusal
from botapi.domain.new_task import (
    PUBLISHED,
    Form,
    NewTask,
    check_new_task,
    check_pool,
    common_secret,
)
from botapi.domain.slice_rules import overlaps
from tests.factories import make_slice

CAS = CasReference("projects/local/instances/default", CasDigest("ab" * 32, 12))


def package(name="tool/linux", version="version:1", path="bin"):
    return CipdPackage(name, version, path)


def packages(*found, server="https://packages.example.com", **more):
    client = CipdPackage("client", "version:2", "")
    return CipdInput(server, client, tuple(found or [package()]), **more)


def caches(*pairs):
    return tuple(NamedCache(name, path) for name, path in pairs)


def row(number, values, complaint, *more):
    """Something that one row of 10.7 forbids, of a task or of its only slice."""
    marks = pytest.mark.spec(f"10.7.1.{number}", *more)
    return pytest.param(values, complaint, marks=marks, id=f"{number}-{complaint[:60]}")


def new_task(**values):
    """A good task; names of slice fields go to its only slice."""
    names = set(make_slice().__dataclass_fields__)
    slice_ = make_slice(**{key: values.pop(key) for key in names & values.keys()})
    return NewTask(**{"name": "n", "slices": (slice_,), **values})


def check(new, form):
    check_pool(new, form)
    check_new_task(new, form)


def refusal(new, form=PUBLISHED):
    with pytest.raises(Refusal) as caught:
        check(new, form)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


GOOD_ENV = {f"A_{n}": "" for n in range(64)}
PATHS = {
    "": "an empty one",
    "/a": "a leading slash",
    "a//b": "not normalised",
    "a/": "not normalised",
    "./a": "not normalised",
    "a/../b": "not normalised",
    "..": "above",
    "C:a": "a drive",
}

WRONG = [
    row(1, {"name": ""}, "/name: is missing"),
    row(1, {"name": "n" * 257}, "/name: has 257 characters, at most 256"),
    row(1, {"name": "\0"}, "/name: holds a NUL"),
    row(2, {"slices": ()}, "/slices: has 0 entries, not from 1 to 8", "13.1.28"),
    row(2, {"slices": (make_slice(),) * 9}, "/slices: has 9 entries, not from 1 to 8", "13.1.28"),
    row(2, {"slices": (make_slice(),) * 2}, "/slices/1: is the same as an earlier slice"),
    row(4, {"expiration_s": 29}, "/slices/0/expiration_s: is 29, not from 30 to 604800"),
    row(4, {"expiration_s": 604_801}, "/slices/0/expiration_s: is 604801", "13.1.29"),
    row(5, {"hard_timeout_s": 0}, "/slices/0/hard_timeout_s: is 0, not from 30 to 601140"),
    row(5, {"hard_timeout_s": 29}, "/slices/0/hard_timeout_s: is 29", "13.1.30"),
    row(5, {"hard_timeout_s": 601_141}, "/slices/0/hard_timeout_s: is 601141", "13.1.30"),
    row(6, {"io_timeout_s": 29}, "/slices/0/io_timeout_s: is 29, not 0 or from 30", "13.1.30"),
    row(6, {"io_timeout_s": -1}, "/slices/0/io_timeout_s: is -1, not 0 or from 30"),
    row(6, {"io_timeout_s": 601_141}, "/slices/0/io_timeout_s: is 601141", "13.1.30"),
    row(7, {"grace_period_s": -1}, "/slices/0/grace_period_s: is -1, not from 0 to 3600"),
    row(7, {"grace_period_s": 3601}, "/slices/0/grace_period_s: is 3601", "13.1.31"),
    row(8, {"command": ()}, "/slices/0/command: has 0 strings, not from 1 to 128"),
    row(8, {"command": ("a",) * 129}, "/slices/0/command: has 129 strings", "13.1.32"),
    row(8, {"command": ("",)}, "/slices/0/command/0: is empty"),
    row(8, {"command": ("a", "\0")}, "/slices/0/command/1: holds a NUL"),
    row(9, {"relative_cwd": "x" * 257}, "/slices/0/relative_cwd: has 257 bytes, at most 256"),
    *(row(9, {"relative_cwd": path}, "/slices/0/relative_cwd: ", "10.7.1.23") for path in PATHS
      if path),
    row(10, {"env": {**GOOD_ENV, "B": ""}}, "/slices/0/env: has 65 keys", "13.1.33"),
    row(10, {"env": {"1": ""}}, "/slices/0/env/1: is no variable name"),
    row(10, {"env": {"": ""}}, "/slices/0/env/: is no variable name"),
    row(10, {"env": {"é": ""}}, "/slices/0/env/é: is no variable name"),
    row(10, {"env": {"a" * 65: ""}}, f"/slices/0/env/{'a' * 65}: is no variable", "13.1.33"),
    row(10, {"env": {"A": "x" * 1025}}, "/slices/0/env/A: has 1025 bytes", "13.1.33"),
    row(10, {"env_prefixes": {"1": ("a",)}}, "/slices/0/env_prefixes/1: is no variable name"),
    row(10, {"env_prefixes": {"A": ()}}, "/slices/0/env_prefixes/A: has no paths"),
    row(10, {"env_prefixes": {"A": ("x" * 1025,)}}, "/slices/0/env_prefixes/A/0: has 1025 bytes"),
    row(11, {"caches": caches(*((f"c{n}", f"p{n}") for n in range(33)))},
        "/slices/0/caches: has 33 entries, at most 32", "13.1.34"),
    row(11, {"caches": caches(("A", "a"))}, "/slices/0/caches/0/name: is not 1 to 128 of a-z"),
    row(11, {"caches": caches(("", "a"))}, "/slices/0/caches/0/name: is not 1 to 128 of a-z"),
    row(11, {"caches": caches(("a" * 129, "a"))}, "/slices/0/caches/0/name: is not", "13.1.34"),
    row(11, {"caches": caches(("a", "x" * 257))}, "/slices/0/caches/0/path: has 257", "13.1.34"),
    row(11, {"caches": caches(("a", "a"), ("a", "b"))}, '/slices/0/caches/1/name: "a" is there'),
    row(11, {"caches": caches(("a", "x"), ("b", "x"))}, "/slices/0/caches/1/path: \"x\" overlaps"),
    row(11, {"caches": caches(("a", "x"), ("b", "x/y"))}, "/slices/0/caches/1/path: "),
    row(11, {"caches": caches(("a", "x/y"), ("b", "x"))}, "/slices/0/caches/1/path: "),
    row(11, {"caches": caches(("a", "x")), "cipd_input": packages(package(path="x/y"))},
        '/slices/0/cipd_input/packages/0/path: "x/y" overlaps the cache "a"'),
    row(12, {"cipd_input": packages(*(package(path=f"p{n}") for n in range(65)))},
        "/slices/0/cipd_input/packages: has 65 entries, at most 64", "13.1.35"),
    row(12, {"cipd_input": packages(package(path="x" * 257))},
        "/slices/0/cipd_input/packages/0/path: has 257 bytes", "13.1.35"),
    row(12, {"cipd_input": packages(server="https://e.example/" + "x" * 1024)},
        "/slices/0/cipd_input/server: has 1042 bytes, at most 1024", "13.1.35"),
    row(12, {"cipd_input": packages(server="http://packages.example.com")},
        "/slices/0/cipd_input/server: is not an https URL"),
    row(12, {"cipd_input": packages(server="packages")}, "/slices/0/cipd_input/server: is not"),
    row(12, {"cipd_input": packages(package(name=""))},
        "/slices/0/cipd_input/packages/0/package_name: is missing"),
    row(12, {"cipd_input": packages(package(version=""))},
        "/slices/0/cipd_input/packages/0/version: is missing"),
    row(12, {"cipd_input": packages(package(), package(version="version:3"))},
        "/slices/0/cipd_input/packages/1: is there twice at one path"),
    row(13, {"cas_input_root": replace(CAS, cas_instance="default")},
        "/slices/0/cas_input_root/cas_instance: is not projects/<project>/instances/<name>"),
    row(13, {"cas_input_root": replace(CAS, cas_instance=None)},
        "/slices/0/cas_input_root/cas_instance: "),
    row(13, {"cas_input_root": replace(CAS, digest=None)},
        "/slices/0/cas_input_root/digest/hash: is missing"),
    row(13, {"cas_input_root": replace(CAS, digest=CasDigest("", 1))},
        "/slices/0/cas_input_root/digest/hash: is missing"),
    row(13, {"cas_input_root": replace(CAS, digest=CasDigest("a", -1))},
        "/slices/0/cas_input_root/digest/size_bytes: is -1, not 0 or more"),
    row(14, {"outputs": tuple(f"o{n}" for n in range(4097))},
        "/slices/0/outputs: has 4097 entries, at most 4096", "13.1.36"),
    row(14, {"outputs": ("x" * 513,)}, "/slices/0/outputs/0: has 513 bytes", "13.1.36"),
    row(15, {"secret_bytes": b"x" * 20_481}, "/secret_bytes: has 20481 bytes, at most 20480",
        "13.1.37"),
    row(16, {"tags": tuple(f"k:{n}" for n in range(257))}, "/tags: has 257 entries", "13.1.38"),
    row(16, {"tags": ("a",)}, "/tags/0: has no key and colon; write key:value"),
    row(16, {"tags": ("a:b", ":b")}, "/tags/1: has no key and colon; write key:value"),
    row(16, {"tags": ("k" * 65 + ":v",)}, "/tags/0: its key has more than 64 bytes", "13.1.38"),
    row(16, {"tags": ("k:" + "v" * 257,)}, "/tags/0: its value has more than 256", "13.1.38"),
    *(row(16, {"tags": (tag,)}, "/tags/0: has outer blanks") for tag in (" a:b", "a:b ", "a: b",
                                                                         "a :b")),
    row(16, {"tags": ("a:\ud800",)}, "/tags/0: holds a NUL or half a surrogate pair"),
    row(16, {"tags": ("swarming.terminate:1",)}, "/tags/0: the key swarming.terminate is"),
    row(16, {"tags": ("k:" + "v" * 10_000_000,)}, "/tags/0: its value has more than 256"),
    row(17, {"priority": 0}, "/priority: is 0, not from 1 to 255", "13.1.39"),
    row(17, {"priority": 256}, "/priority: is 256, not from 1 to 255", "13.1.39"),
    row(18, {"service_account": "me"}, "/service_account: is neither none, bot nor an e-mail"),
    row(18, {"service_account": f"{'x' * 117}@example.com"},
        "/service_account: has 129 characters, at most 128", "13.1.40"),
    row(19, {"bot_ping_tolerance_s": 59}, "/bot_ping_tolerance_s: is 59, not 0 or from 60 to"),
    row(19, {"bot_ping_tolerance_s": 1201}, "/bot_ping_tolerance_s: is 1201"),
    row(20, {"pubsub_topic": "topics/t"}, "/pubsub_topic: is not projects/<project>/topics/"),
    row(20, {"pubsub_topic": "projects/p/topics/a/b"}, "/pubsub_topic: is not projects/"),
    row(20, {"pubsub_topic": "projects/p/topics/" + "t" * 1007},
        "/pubsub_topic: has 1025 bytes, at most 1024", "13.1.41"),
    row(20, {"pubsub_auth_token": "t"}, "/pubsub_auth_token: needs a pubsub_topic"),
    row(20, {"pubsub_userdata": "t"}, "/pubsub_userdata: needs a pubsub_topic"),
    row(20, {"pubsub_topic": "projects/p/topics/t", "pubsub_userdata": "u" * 1025},
        "/pubsub_userdata: has 1025 bytes, at most 1024", "13.1.41"),
    row(21, {"realm": "proj"}, '/realm: is not "project:name"'),
    row(21, {"realm": "Proj:x"}, '/realm: is not "project:name"'),
    row(22, {"parent_task_id": "xyz"}, '/parent_task_id: "xyz" is no task id'),
    *(row(23, {"outputs": (path,)}, "/slices/0/outputs/0: ") for path in PATHS),
    *(row(23, {"caches": caches(("c", path))}, "/slices/0/caches/0/path: ") for path in PATHS),
    *(row(23, {"cipd_input": packages(package(path=path))}, "/slices/0/cipd_input/packages/0/path")
      for path in PATHS),
    *(row(23, {"env_prefixes": {"A": (path,)}}, "/slices/0/env_prefixes/A/0: ") for path in PATHS),
    row(23, {"outputs": ("a\\b",)}, '/slices/0/outputs/0: "a\\b" is not a plain path'),
    row(23, {"caches": caches(("c", "a\\b"))}, "/slices/0/caches/0/path: "),
    row(23, {"cipd_input": packages(package(path="a\\b"))}, "/slices/0/cipd_input/packages/0/"),
    row(23, {"env_prefixes": {"A": ("a\\b",)}}, "/slices/0/env_prefixes/A/0: "),
]  # fmt: skip


@pytest.mark.parametrize(("values", "complaint"), WRONG)
def test_task_that_breaks_a_rule_is_refused_with_its_place(values, complaint):
    message = refusal(new_task(**values))
    assert message.startswith(complaint)
    assert "\n" not in message
    assert len(message) < 400


OURS = [
    ({"dimensions": {}}, '/slices/0/dimensions: dimensions need exactly one "pool"'),
    ({"dimensions": {"pool": ("a|b",)}}, "/slices/0/dimensions: dimensions need exactly one"),
    ({"user": " x"}, "/user: has outer blanks"),
    ({"realm": "p:" + "x" * 480}, '/realm: is not "project:name"'),
    ({"realm": "p" * 100 + ":" + "x" * 390}, "/realm: has 491 bytes, at most 480"),
    ({"request_uuid": "a b"}, "/request_uuid: is not at most 50"),
    ({"max_retries": 11}, "/max_retries: is 11, not from 0 to 10"),
    ({"max_retries": -1}, "/max_retries: is -1"),
    ({"containment_type": 4}, "/slices/0/containment/containment_type: is 4, not from 0 to 3"),
    ({"limit_processes": -1}, "/slices/0/containment/limit_processes: is -1"),
    ({"secrets": {"1": "x"}}, "/secrets/1: is no variable name"),
    ({"secrets": {"A": ""}}, "/secrets/A: is empty"),
    ({"secrets": {"A": "x"}, "env": {"A": "y"}}, "/secrets/A: is set in env of slice 0 too"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "complaint"), OURS)
def test_further_rules_are_told_the_same_way(values, complaint):
    assert refusal(new_task(**values)).startswith(complaint)


EVERYTHING = {
    "name": "n" * 256,
    "expiration_s": 604_800,
    "hard_timeout_s": 601_140,
    "io_timeout_s": 601_140,
    "grace_period_s": 3600,
    "command": ("a",) * 128,
    "relative_cwd": "a\\b/c",
    "env": {name: "x" * 1024 for name in GOOD_ENV},
    "env_prefixes": {"a" * 64: ("p/q", "r")},
    "caches": caches(*((f"{'c' * 126}{n:02}", f"p{n}/{'x' * 252}") for n in range(32))),
    "cipd_input": packages(
        package(path="."),
        *(package(path=f"q{n}") for n in range(63)),
        server="http://localhost:8080",
    ),
    "cas_input_root": CAS,
    "outputs": ("o" * 512, *(f"o/{n}" for n in range(4095))),
    "secret_bytes": b"x" * 20_480,
    "has_secret_bytes": True,
    "tags": ("k" * 64 + ":" + "v" * 256, *(f"k:{n}" for n in range(254)), "empty:"),
    "priority": 255,
    "service_account": f"{'x' * 116}@example.com",
    "bot_ping_tolerance_s": 1200,
    "pubsub_topic": "projects/p/topics/" + "t" * 1006,
    "pubsub_auth_token": "t",
    "pubsub_userdata": "u" * 1024,
    "realm": "proj:a/b",
    "parent_task_id": "76d00eba71beef11",
    "max_retries": 10,
    "containment_type": 3,
    "secrets": {"TOKEN": "npm"},
}
LEAST = {
    "expiration_s": 30,
    "hard_timeout_s": 30,
    "io_timeout_s": 30,
    "grace_period_s": 0,
    "priority": 1,
    "bot_ping_tolerance_s": 60,
    "service_account": "bot",
}


@pytest.mark.spec(
    *(f"10.7.1.{n}" for n in range(1, 24) if n != 3),
    *(f"13.1.{n}" for n in (28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41)),
)
@pytest.mark.parametrize("values", [EVERYTHING, LEAST, {"bot_ping_tolerance_s": 0}])
def test_task_at_its_limits_is_accepted(values):
    new = new_task(**values)
    assert check_pool(new) == "default"
    check_new_task(new)


def test_eight_different_slices_are_accepted():
    slices = tuple(make_slice(command=(str(n),)) for n in range(8))
    check_new_task(NewTask(name="n", slices=slices))


@pytest.mark.spec("10.1.1.1")
def test_slices_of_two_pools_are_refused_before_anything_else():
    slices = (make_slice(command=()), make_slice(dimensions={"pool": ("other",)}))
    with pytest.raises(Refusal, match="/slices/1/dimensions/pool: is not the pool of the first"):
        check_pool(NewTask(name="", slices=slices))


@pytest.mark.spec("10.5.1.2")
@pytest.mark.parametrize(
    ("version", "is_pinned"),
    [
        ("latest", False),
        ("stable", False),
        ("version:1", True),
        ("0123456789abcdef" * 4, True),
        ("0123456789" * 4, True),
        ("Yl5sHa-x" * 5 + "abcC", True),
    ],
)
def test_idempotent_task_needs_pinned_packages(version, is_pinned):
    new = new_task(idempotent=True, cipd_input=packages(package(version=version)))
    if is_pinned:
        check_new_task(new)
    else:
        assert refusal(new).startswith("/slices/0/cipd_input/packages/0/version: is not pinned")
    check_new_task(new_task(cipd_input=packages(package(version=version))))


def test_other_form_allows_short_timeouts_and_none_and_says_its_own_places():
    form = Form(is_flat=True, min_timeout_s=1, may_be_unlimited=True)
    check_new_task(new_task(hard_timeout_s=0), form)
    check_new_task(new_task(hard_timeout_s=1, io_timeout_s=1), form)
    assert refusal(new_task(hard_timeout_s=-1), form) == (
        "/hard_timeout_s: is -1, not from 0 to 601140"
    )


@pytest.mark.spec("10.7.1.15")
@pytest.mark.parametrize("asked", [[b""], [b"", b"s", b""], [b"s", b"s"]])
def test_slices_may_share_one_secret(asked):
    assert common_secret(asked) == max(asked)


@pytest.mark.spec("10.7.1.15")
def test_slices_with_different_secrets_are_refused():
    with pytest.raises(Refusal, match="/slices/2/secret_bytes: differ from those of an earlier"):
        common_secret([b"s", b"", b"t"])


paths = st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=4).map("/".join)


@given(paths, paths)
def test_paths_overlap_when_one_is_the_other_or_above_it(one, other):
    assert overlaps(one, other) == (
        f"{other}/".startswith(f"{one}/") or f"{one}/".startswith(f"{other}/")
    )
