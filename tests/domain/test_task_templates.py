"""Which task template of a pool a task gets, and what it makes of the task."""

import pytest

from botapi.domain.artifacts import CipdInput, CipdPackage, NamedCache
from botapi.domain.errors import Code, Refusal
from botapi.domain.new_task import PUBLISHED, NewTask, TemplateChoice
from botapi.domain.pools import TaskTemplate, TemplateDeployment, TemplateEnv
from botapi.domain.task_templates import apply_template, chosen
from tests.factories import make_slice

PROD, CANARY = TaskTemplate("p"), TaskTemplate("c")
BOTH = TemplateDeployment("d", PROD, CANARY, canary_chance=2500)
C = TemplateChoice


@pytest.mark.spec("7.7.1.4", "prpc:6.1.1.12")
@pytest.mark.parametrize(
    ("deployment", "choice", "roll", "expected"),
    [
        (BOTH, C.AUTO, 2499.9, ("canary", CANARY)),
        (BOTH, C.AUTO, 2500.0, ("prod", PROD)),
        (BOTH, C.CANARY_PREFER, 9999.9, ("canary", CANARY)),
        (BOTH, C.CANARY_NEVER, 0.0, ("prod", PROD)),
        (BOTH, C.SKIP, 0.0, ("skip", None)),
        (TemplateDeployment("d", PROD), C.CANARY_PREFER, 0.0, ("prod", PROD)),
        (TemplateDeployment("d", PROD, CANARY), C.AUTO, 0.0, ("prod", PROD)),
        (None, C.AUTO, 0.0, ("none", None)),
        (None, C.SKIP, 0.0, ("skip", None)),
    ],
)
def test_template_is_chosen_by_what_is_asked_and_by_chance(deployment, choice, roll, expected):
    assert chosen(deployment, choice, roll) == expected


def applied(template, **more):
    new = NewTask(name="n", slices=(make_slice(**more),))
    return apply_template(new, template, PUBLISHED).slices[0]


def env(name, value="", prefixes=(), *, is_soft=False):
    return TemplateEnv(name, value, prefixes, is_soft)


@pytest.mark.spec("7.7.1.4")
def test_template_adds_variables_prefixes_and_caches():
    template = TaskTemplate(
        "p",
        caches=(("git", "cache/git"),),
        env=(env("A", "1"), env("PATH", prefixes=("bin", "more"))),
    )
    slice_ = applied(
        template,
        env={"B": "2"},
        env_prefixes={"PATH": ("own",)},
        caches=(NamedCache("npm", "cache/npm"),),
    )
    assert slice_.env == {"A": "1", "B": "2"}
    assert slice_.env_prefixes == {"PATH": ("bin", "more", "own")}
    assert slice_.caches == (NamedCache("npm", "cache/npm"), NamedCache("git", "cache/git"))


@pytest.mark.spec("7.7.1.4")
def test_soft_variable_gives_way_to_a_task_that_sets_it():
    template = TaskTemplate("p", env=(env("A", "1", ("bin",), is_soft=True),))
    assert applied(template, env={"A": "own"}) == make_slice(env={"A": "own"})
    own = {"A": ("own",)}
    assert applied(template, env_prefixes=own) == make_slice(env_prefixes=own)
    assert applied(template) == make_slice(env={"A": "1"}, env_prefixes={"A": ("bin",)})


def test_what_the_task_says_in_the_same_words_is_no_conflict():
    template = TaskTemplate("p", caches=(("git", "cache/git"),), env=(env("A", "1"),))
    same = {"env": {"A": "1"}, "caches": (NamedCache("git", "cache/git"),)}
    assert applied(template, **same) == make_slice(**same)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"env": {"A": "2"}}, "/slices/0/env/A: is set by the pool's task template"),
        ({"caches": (NamedCache("git", "x"),)}, '/slices/0/caches: "git" at "x" is in the way'),
        ({"caches": (NamedCache("x", "cache"),)}, '/slices/0/caches: "x" at "cache" is in the way'),
        (
            {"cipd_input": CipdInput(packages=(CipdPackage("tool", "v:1", "cache/git/bin"),))},
            '/slices/0/caches: "tool (package)" at "cache/git/bin" is in the way of "git"',
        ),
    ],
)
def test_task_that_contradicts_the_template_is_refused(more, complaint):
    template = TaskTemplate("p", caches=(("git", "cache/git"),), env=(env("A", "1"),))
    with pytest.raises(Refusal) as caught:
        applied(template, **more)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message.startswith(complaint)
