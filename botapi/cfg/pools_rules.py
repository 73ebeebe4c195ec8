"""The rules of pools.cfg (bot-api 7.7): a message in, every mistake out.

Ours beyond upstream's: the accounts that tasks may act as, and a cap on templates.
"""

import re
from collections.abc import Iterator, Mapping

from botpb import pools_pb2

from botapi.cfg.access_cfg import check_pool as check_grants
from botapi.cfg.mistakes import Complaint, Spot, shown
from botapi.cfg.text_proto import ignored
from botapi.domain.dimensions import SHOWN_KEY_BYTES, key_problem, quote, value_problem
from botapi.domain.pools import TaskTemplate, TemplateEnv, include_cycle
from botapi.domain.value_rules import is_email, realm_problem, url_problem

MAX_TEMPLATES = 1_000
"""Most task templates of a pools.cfg."""
MAX_REGEX_CHARS = 256
"""Longest regex of informational dimensions."""
_PACKAGES = "ignored: this server fetches no packages"
_IGNORED = {
    "PoolsCfg.bot_monitoring": "obsolete, ignored",
    "Pool.external_schedulers": "ignored: there is one scheduler",
    "Pool.enforced_realm_permissions": "ignored: permissions are always enforced",
    "TaskTemplate.cipd_package": _PACKAGES,
}
_ALGORITHMS = frozenset(pools_pb2.Pool.SchedulingAlgorithm.values())
_MODE = pools_pb2.Pool.RBEMigration.BotModeAllocation.BotMode
_CACHE_NAME = re.compile(r"[a-z0-9_]{1,128}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_POSIX_CLASS = re.compile(r"\[:\^?[a-z]+:\]")


def warnings(message: pools_pb2.PoolsCfg) -> Iterator[Complaint]:
    """What is set and read for nothing, and owners that are no e-mail addresses."""
    yield from ignored(message, _IGNORED)
    for number, pool in enumerate(message.pool):
        for i, owner in enumerate(pool.owners):
            if not is_email(owner):
                here = Spot().at("pool", number).at("owners", i)
                yield here, f"owner is not an e-mail: {shown(owner)}"


def check(message: pools_pb2.PoolsCfg) -> Iterator[Complaint]:
    """Every mistake in a parsed pools.cfg."""
    yield from _default_packages(message)
    templates = {said.name: template_of(said) for said in message.task_template}
    yield from _templates(message, templates)
    deployments: dict[str, int] = {}
    for number, deployment in enumerate(message.task_template_deployment):
        here = Spot().at("task_template_deployment", number)
        yield from _new_name(deployment.name, number, here, deployments)
        yield from _deployment(deployment, here, templates)
    names: dict[str, int] = {}
    for number, pool in enumerate(message.pool):
        here = Spot().at("pool", number)
        yield from _names(pool, number, here, names)
        yield from _unset(pool, here)
        yield from _realms(pool, here)
        yield from _pool_templates(pool, here, templates, deployments)
        yield from _rbe_migration(pool, here)
        yield from _scheduling(pool, here)
        yield from check_grants(pool, here)
        for i, account in enumerate(pool.allowed_service_account):
            if not is_email(account):
                said = f"service account is not an e-mail: {shown(account)}"
                yield here.at("allowed_service_account", i), said


def template_of(message: pools_pb2.TaskTemplate) -> TaskTemplate:
    """The template in a message, not resolved."""
    return TaskTemplate(
        name=message.name,
        include=tuple(message.include),
        caches=tuple((entry.name, entry.path) for entry in message.cache),
        env=tuple(
            TemplateEnv(entry.var, entry.value, tuple(entry.prefix), entry.soft)
            for entry in message.env
        ),
    )


def regex_of(pattern: str) -> re.Pattern[str]:
    """The compiled regex. Raises ValueError that says what is wrong with it."""
    if not pattern:
        raise ValueError("empty")
    if len(pattern) > MAX_REGEX_CHARS:
        raise ValueError(f"longer than {MAX_REGEX_CHARS} characters")
    posix = _POSIX_CLASS.search(pattern)
    if posix is not None:
        raise ValueError(f"classes such as {posix.group()} are not supported")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        raise ValueError(str(error)) from None


def _default_packages(message: pools_pb2.PoolsCfg) -> Iterator[Complaint]:
    said, here = message.default_external_services.cipd, Spot().at("default_external_services")
    if said.server and (problem := url_problem(said.server, may_be_loopback_http=True)):
        yield here, f"bad server of cipd {shown(said.server)}: {problem}"
    client = said.client_package
    if said.HasField("client_package") and not (client.pkg and client.version):
        yield here, "client_package of cipd needs pkg and version"


def _new_name(name: str, number: int, spot: Spot, seen: dict[str, int]) -> Iterator[Complaint]:
    if not name:
        yield spot, "no name"
    elif name in seen:
        yield spot.at("name"), f"name {shown(name)} is also that of #{seen[name]}"
    seen.setdefault(name, number)


def _names(
    pool: pools_pb2.Pool, number: int, spot: Spot, seen: dict[str, int]
) -> Iterator[Complaint]:
    if not pool.name:
        yield spot, "no name"
    for i, name in enumerate(pool.name):
        here = spot.at("name", i, name)
        problem = value_problem("pool", name)
        if problem:
            yield here, f"bad pool name: {problem}"
        elif name in seen:
            yield here, f"pool {shown(name)} is already defined in pool #{seen[name]}"
        seen.setdefault(name, number)


def _unset(pool: pools_pb2.Pool, spot: Spot) -> Iterator[Complaint]:
    if pool.HasField("schedulers"):
        said = "schedulers is obsolete and must be unset: the realm says who may schedule"
        yield spot.at("schedulers"), said
    if pool.bot_monitoring:
        yield spot.at("bot_monitoring"), "bot_monitoring is obsolete and must be unset"


def _realms(pool: pools_pb2.Pool, spot: Spot) -> Iterator[Complaint]:
    if not pool.realm:
        yield spot, 'no realm: set realm to "project:name"'
    elif problem := realm_problem(pool.realm):
        yield spot.at("realm"), f"bad realm {shown(pool.realm)}: {problem}"
    if pool.default_task_realm and (problem := realm_problem(pool.default_task_realm)):
        said = f"bad default_task_realm {shown(pool.default_task_realm)}: {problem}"
        yield spot.at("default_task_realm"), said


def _rbe_migration(pool: pools_pb2.Pool, spot: Spot) -> Iterator[Complaint]:
    if not pool.HasField("rbe_migration"):
        return
    here, said = spot.at("rbe_migration"), pool.rbe_migration
    if not said.rbe_instance:
        yield here, "no rbe_instance"
    if not 0 <= said.rbe_mode_percent <= 100:
        yield here.at("rbe_mode_percent"), f"not 0 to 100: {said.rbe_mode_percent}"
    yield from _allocation(said, here)
    key = said.effective_bot_id_dimension
    problem = key_problem(key) if key else ""
    if problem:
        bad = f"bad dimension {quote(key, SHOWN_KEY_BYTES)}: {problem}"
        yield here.at("effective_bot_id_dimension"), bad


def _allocation(said: pools_pb2.Pool.RBEMigration, spot: Spot) -> Iterator[Complaint]:
    modes: set[int] = set()
    for i, entry in enumerate(said.bot_mode_allocation):
        here = spot.at("bot_mode_allocation", i)
        if entry.mode not in {_MODE.SWARMING, _MODE.HYBRID, _MODE.RBE}:
            yield here, "mode is neither SWARMING nor HYBRID nor RBE"
        elif entry.mode in modes:
            yield here.at("mode"), f"mode {_MODE.Name(entry.mode)} is there twice"
        modes.add(entry.mode)
        if not 0 <= entry.percent <= 100:
            yield here.at("percent"), f"not 0 to 100: {entry.percent}"
    total = sum(entry.percent for entry in said.bot_mode_allocation)
    if said.bot_mode_allocation and total != 100:
        yield spot.at("bot_mode_allocation"), f"the percents sum to {total}, not to 100"


def _scheduling(pool: pools_pb2.Pool, spot: Spot) -> Iterator[Complaint]:
    if pool.scheduling_algorithm not in _ALGORITHMS:
        said = f"neither FIFO nor LIFO: {pool.scheduling_algorithm}"
        yield spot.at("scheduling_algorithm"), said
    for i, pattern in enumerate(pool.informational_dimension_re):
        try:
            regex_of(pattern)
        except ValueError as error:
            yield spot.at("informational_dimension_re", i, pattern), f"bad regex: {error}"


def _pool_templates(
    pool: pools_pb2.Pool,
    spot: Spot,
    templates: Mapping[str, TaskTemplate],
    deployments: Mapping[str, int],
) -> Iterator[Complaint]:
    if pool.HasField("task_template_deployment_inline"):
        here = spot.at("task_template_deployment_inline")
        yield from _deployment(pool.task_template_deployment_inline, here, templates)
    named = pool.task_template_deployment
    if named and named not in deployments:
        yield spot.at("task_template_deployment"), f"unknown deployment {shown(named)}"


def _deployment(
    deployment: pools_pb2.TaskTemplateDeployment,
    spot: Spot,
    templates: Mapping[str, TaskTemplate],
) -> Iterator[Complaint]:
    if not 0 <= deployment.canary_chance <= 9999:
        yield spot.at("canary_chance"), f"not 0 to 9999: {deployment.canary_chance}"
    yield from _template(deployment.prod, spot.at("prod"), templates)
    yield from _template(deployment.canary, spot.at("canary"), templates)


def _templates(
    message: pools_pb2.PoolsCfg, templates: Mapping[str, TaskTemplate]
) -> Iterator[Complaint]:
    if len(message.task_template) > MAX_TEMPLATES:
        here = Spot().at("task_template", MAX_TEMPLATES)
        yield here, f"more than {MAX_TEMPLATES} task templates"
        return
    seen: dict[str, int] = {}
    told: set[str] = set()
    for number, template in enumerate(message.task_template):
        here = Spot().at("task_template", number)
        yield from _new_name(template.name, number, here, seen)
        yield from _template(template, here, templates)
        cycle = () if template.name in told else include_cycle(template.name, templates)
        if cycle:
            told |= {*cycle}
            way = " -> ".join(shown(name) for name in cycle)
            yield here, f"the template includes itself: {way}"


def _template(
    template: pools_pb2.TaskTemplate, spot: Spot, templates: Mapping[str, TaskTemplate]
) -> Iterator[Complaint]:
    for i, name in enumerate(template.include):
        if name not in templates:
            yield spot.at("include", i), f"unknown template {shown(name)}"
    for i, cache in enumerate(template.cache):
        here = spot.at("cache", i)
        if _CACHE_NAME.fullmatch(cache.name) is None:
            yield here, f"bad cache name {shown(cache.name)}: 1 to 128 of a-z, 0-9 and _"
        if problem := _path_problem(cache.path):
            yield here, f"bad cache path {shown(cache.path)}: {problem}"
    for i, env in enumerate(template.env):
        here = spot.at("env", i)
        if _ENV_NAME.fullmatch(env.var) is None:
            said = "1 to 64 letters, digits and _, and no digit first"
            yield here, f"bad variable {shown(env.var)}: {said}"


def _path_problem(path: str) -> str:
    """The rule for paths in tasks (bot-api 10.7)."""
    if not path:
        return "empty"
    if len(path) > 256:
        return "longer than 256 characters"
    if path.startswith("/") or "\\" in path:
        return 'a relative path with "/" is needed'
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return 'it has empty, "." or ".." parts'
    return ""
