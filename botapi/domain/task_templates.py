"""The task template of a pool: which one a task gets, and what it adds (bot-api 7.7)."""

from dataclasses import replace

from botapi.domain.artifacts import NamedCache
from botapi.domain.errors import refuse
from botapi.domain.new_task import Form, NewTask, TemplateChoice
from botapi.domain.pools import TaskTemplate, TemplateDeployment, TemplateEnv
from botapi.domain.slice_rules import overlaps
from botapi.domain.task import Slice

CHANCES = 10_000
"""A canary chance is so many parts of it."""
PROD = "prod"
CANARY = "canary"
SKIPPED = "skip"
NONE = "none"


def chosen(
    deployment: TemplateDeployment | None, choice: TemplateChoice, roll: float
) -> tuple[str, TaskTemplate | None]:
    """The name of what was chosen, and the template to apply if any.

    `roll` is a random number in [0, 10000); AUTO takes the canary below its chance.
    """
    if choice is TemplateChoice.SKIP:
        return SKIPPED, None
    if deployment is None:
        return NONE, None
    wants_canary = choice is TemplateChoice.CANARY_PREFER or (
        choice is TemplateChoice.AUTO and roll < deployment.canary_chance
    )
    if wants_canary and deployment.canary is not None:
        return CANARY, deployment.canary
    return PROD, deployment.prod


def apply_template(new: NewTask, template: TaskTemplate, form: Form) -> NewTask:
    """The task with what the template adds to every slice.

    A soft variable gives way to a slice that sets it. Raises Refusal INVALID_ARGUMENT for a
    slice that says otherwise what is not soft, and for a cache that is in the way.
    """
    slices = tuple(
        _applied(form.place(index), slice_, template) for index, slice_ in enumerate(new.slices)
    )
    return replace(new, slices=slices)


def _applied(place: str, slice_: Slice, template: TaskTemplate) -> Slice:
    env, prefixes = dict(slice_.env), dict(slice_.env_prefixes)
    for said in template.env:
        has_own = said.name in slice_.env or said.name in slice_.env_prefixes
        if said.is_soft and has_own:
            continue
        if said.value:
            _check_env(place, slice_, said)
            env[said.name] = said.value
        if said.prefixes:
            prefixes[said.name] = said.prefixes + tuple(prefixes.get(said.name, ()))
    caches = [NamedCache(name, path) for name, path in template.caches]
    added = [cache for cache in caches if cache not in slice_.caches]
    for cache in added:
        _check_cache(place, slice_, cache)
    return replace(slice_, env=env, env_prefixes=prefixes, caches=(*slice_.caches, *added))


def _check_env(place: str, slice_: Slice, said: TemplateEnv) -> None:
    if slice_.env.get(said.name, said.value) != said.value:
        problem = "is set by the pool's task template; leave it out, or skip the template"
        raise refuse(f"{place}/env/{said.name}", problem)


def _check_cache(place: str, slice_: Slice, cache: NamedCache) -> None:
    paths = {other.name: other.path for other in slice_.caches}
    if slice_.cipd_input is not None:
        paths.update(
            (f"{package.package_name} (package)", package.path)
            for package in slice_.cipd_input.packages
            if package.path and package.path != "."
        )
    for name, path in paths.items():
        if name == cache.name or overlaps(path, cache.path):
            problem = f'"{name}" at "{path}" is in the way of "{cache.name}" at "{cache.path}"'
            raise refuse(f"{place}/caches", f"{problem}, which the pool's task template adds")
