"""Matching and expansion of bot-api 7.4 and the hash of 2.4."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.domain.bot_groups import (
    UNASSIGNED,
    ArchivePolicy,
    AuthMethod,
    BotGroup,
    BotsConfig,
    Oidc,
    built_in,
    expand_bot_ids,
    handshake_config_hash,
)

IDS = st.text("ab-", min_size=1, max_size=6)
GROUPS = st.builds(
    BotGroup,
    bot_ids=st.frozensets(IDS, max_size=3),
    prefixes=st.lists(IDS, max_size=2).map(tuple),
)


def group(*ids, prefixes=(), **fields):
    return BotGroup(bot_ids=frozenset(ids), prefixes=prefixes, **fields)


def naive_group_of(groups, bot_id):
    """Bot-api 7.4 read aloud."""
    host = bot_id.split("--")[0]
    if "--" in bot_id:
        for candidate in groups:
            if bot_id in candidate.bot_ids:
                return candidate
    for candidate in groups:
        if host in candidate.bot_ids:
            return candidate
    found = [(len(p), -i) for i, g in enumerate(groups) for p in g.prefixes if host.startswith(p)]
    if found:
        return groups[-max(found)[1]]
    return next((g for g in groups if not g.bot_ids and not g.prefixes), UNASSIGNED)


@pytest.mark.spec("7.4.1.1", "7.4.1.2", "7.4.1.3", "7.4.1.4", "7.4.1.5", "7.1.1.2")
@settings(deadline=None, max_examples=30)
@given(groups=st.lists(GROUPS, max_size=4), bot_id=IDS)
def test_group_of_equals_the_naive_reference(groups, bot_id):
    assert BotsConfig.of(["pool"], groups).group_of(bot_id) is naive_group_of(groups, bot_id)


@pytest.mark.spec("7.4.1.1", "7.4.1.2", "7.4.1.3", "7.4.1.4")
def test_group_of_takes_exact_before_prefix_before_default():
    by_id, by_prefix = group("vm1"), group(prefixes=("vm", "vm1-"))
    longer, default = group(prefixes=("vm1-x",)), group()
    composite = group("vm1--gpu")
    config = BotsConfig.of(["pool"], [default, by_prefix, longer, by_id, composite])
    assert config.group_of("vm1") is by_id
    assert config.group_of("vm1--a") is by_id
    assert config.group_of("vm1--gpu") is composite
    assert config.group_of("vm10") is by_prefix
    assert config.group_of("vm1-xy") is longer
    assert config.group_of("vm1-y") is by_prefix
    assert config.group_of("other--vm1") is default


@pytest.mark.spec("7.4.1.3", "7.1.2.2")
def test_group_of_matches_prefixes_against_the_host_id_only():
    config = BotsConfig.of(["pool"], [group(prefixes=("vm1--g",))])
    assert config.group_of("vm1--gpu") is UNASSIGNED


@pytest.mark.spec("7.4.1.5")
def test_group_of_is_unassigned_and_unsatisfiable_when_no_group_fits():
    assert BotsConfig.of(["pool"], []).group_of("x") is UNASSIGNED
    assert UNASSIGNED.auth == ()
    assert UNASSIGNED.dimensions == {"pool": ("unassigned",)}


def test_built_in_demands_a_machine_token_of_everybody():
    found = built_in().group_of("anybody")
    assert found.auth == (AuthMethod(require_luci_machine_token=True),)
    assert found.dimensions == {"pool": ("unassigned",)}
    assert built_in().trusted_dimensions == {"pool"}


def test_requirements_names_the_fields_that_are_set():
    assert AuthMethod(ip_whitelist="x", log_if_failed=True).requirements() == ()
    everything = AuthMethod(
        require_luci_machine_token=True,
        require_luci_machine_token_secure=(),
        require_service_account=("a@b",),
        require_gce_vm_token="",
        require_enrolled_secret=True,
        require_oidc=Oidc(),
        require_client_cert=(),
    )
    assert everything.requirements() == (
        "require_luci_machine_token",
        "require_luci_machine_token_secure",
        "require_service_account",
        "require_gce_vm_token",
        "require_enrolled_secret",
        "require_oidc",
        "require_client_cert",
    )


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("vm", ["vm"]),
        ("vm{1..3}-m1", ["vm1-m1", "vm2-m1", "vm3-m1"]),
        ("{01..03}", ["01", "02", "03"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{008..11}x", ["8x", "9x", "10x", "11x"]),
        ("a{0,2,007,9..10}", ["a0", "a2", "a007", "a9", "a10"]),
        ("{{a}}{1}{{", ["{a}1{"]),
        ("", [""]),
    ],
)
def test_expand_bot_ids(expression, ids):
    assert list(expand_bot_ids(expression)) == ids


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("vm{3..1}", '"3..1" is an empty range'),
        ("vm{3..3}", '"3..3" is an empty range'),
        ("vm{1}{2}", "more than one {...}"),
        ("vm{", '"{" without its counterpart'),
        ("vm}", '"}" without its counterpart'),
        ("{}", '"" is neither a number nor a range a..b'),
        ("{1, 2}", '" 2" is neither a number nor a range a..b'),
        ("{-1}", '"-1" is neither a number nor a range a..b'),
        ("{1..}", '"1.." is neither a number nor a range a..b'),
        ("{a,b}", '"a" is neither a number nor a range a..b'),
        ("{٣}", '"٣" is neither a number nor a range a..b'),
        ("{2,1}", '"1" does not come after 2'),
        ("{1..3,3}", '"3" does not come after 3'),
        ("{0..100000}", "more than 100000 ids"),
        ("{1..99999999999999999999}", "more than 100000 ids"),
        ("{" + "1" * 41 + "}", f'"{"1" * 40}..." is too long'),
    ],
)
def test_expand_bot_ids_says_what_is_wrong(expression, said):
    with pytest.raises(ValueError, match=r"\W") as caught:
        expand_bot_ids(expression)
    assert str(caught.value) == said


@st.composite
def expressions(draw):
    """An expression and the ids that a naive enumeration gives it."""
    head, tail = (draw(st.text("ab{}", max_size=3)) for _ in range(2))
    bounds = draw(st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True))
    bounds.sort()
    terms, numbers = [], []
    while bounds:
        low = bounds.pop(0)
        width = draw(st.integers(1, 3))
        if bounds and draw(st.booleans()):
            high = bounds.pop(0)
            ends = f"{low:0{width}}", f"{high:0{width}}"
            terms.append("..".join(ends))
            pad = width if len(ends[0]) == len(ends[1]) else 0
            numbers += [f"{n:0{pad}}" for n in range(low, high + 1)]
        else:
            terms.append(f"{low:0{width}}")
            numbers.append(terms[-1])
    escaped = [side.replace("{", "{{").replace("}", "}}") for side in (head, tail)]
    expression = f"{escaped[0]}{{{','.join(terms)}}}{escaped[1]}"
    return expression, [f"{head}{number}{tail}" for number in numbers]


@pytest.mark.spec("7.1.2.1")
@settings(deadline=None, max_examples=30)
@given(case=expressions())
def test_expand_bot_ids_equals_naive_enumeration(case):
    expression, ids = case
    assert list(expand_bot_ids(expression)) == ids


@settings(deadline=None, max_examples=30)
@given(expression=st.text("{}.,0129a", max_size=12))
def test_expand_bot_ids_raises_nothing_but_value_error(expression):
    with suppress(ValueError):
        assert all(isinstance(bot_id, str) for bot_id in expand_bot_ids(expression))


@pytest.mark.spec("B.1.11", "B.1.12", "2.4.1.1", "2.4.1.2", "2.4.1.3")
def test_handshake_config_hash_is_that_of_the_specification():
    only_pool = handshake_config_hash(BotGroup(dimensions={"pool": ("ci",)}))
    assert only_pool.hex() == "58ca0e2f49a04935876a318899386e13ca8870e617671bd9bf242cb6b0953362"
    with_script = BotGroup(
        dimensions={"zone": ("eu",), "pool": ("ci",)},
        script_name="linux.py",
        script=b"# hooks\n",
    )
    expected = "0991057d88b16d59e55c1e23bd8c53b00b72e5805b277086bdaafc594c2419b9"
    assert handshake_config_hash(with_script).hex() == expected


@pytest.mark.spec("2.4.p1")
def test_handshake_config_hash_ignores_what_takes_effect_silently():
    plain = BotGroup(dimensions={"pool": ("ci",)})
    changed = BotGroup(
        dimensions={"pool": ("ci",)},
        auth=(AuthMethod(ip_whitelist="x"),),
        owners=("a@b",),
        system_service_account="a@b",
        logs_cloud_project="p",
        bot_archive=ArchivePolicy.KEEP,
        line=9,
    )
    assert handshake_config_hash(plain) == handshake_config_hash(changed)
