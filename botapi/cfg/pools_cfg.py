"""pools.cfg from text to meaning (bot-api 7.7); every mistake in it with its place."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from botpb import pools_pb2

from botapi.cfg.access_cfg import grantings_of
from botapi.cfg.mistakes import BadConfig, Mistake, in_order
from botapi.cfg.places import Path, Place, places
from botapi.cfg.pools_rules import check, regex_of, template_of, warnings
from botapi.cfg.text_proto import ParsedFile, opened, parsed
from botapi.domain.artifacts import CipdInput, CipdPackage
from botapi.domain.pools import (
    Pool,
    PoolsConfig,
    SchedulingAlgorithm,
    TaskTemplate,
    TemplateDeployment,
    resolve,
)

FILE_NAME = "pools.cfg"
_MODES = ("SWARMING", "HYBRID", "RBE")


@dataclass(frozen=True, slots=True)
class PoolsFile:
    """A pools.cfg without mistakes and what it means."""

    parsed: ParsedFile[pools_pb2.PoolsCfg]
    config: PoolsConfig
    warnings: tuple[Mistake, ...]


def read(raw: bytes) -> PoolsFile:
    """Check a file. Raises BadConfig with every mistake."""
    file = opened(FILE_NAME, raw, pools_pb2.PoolsCfg())
    mistakes = file.mistakes(check(file.message))
    if mistakes:
        raise BadConfig(mistakes)
    config = _meaning(file.message, file.where)
    return PoolsFile(file, config, in_order(file.mistakes(warnings(file.message))))


def load(text: str) -> PoolsConfig:
    """The meaning of a text that was accepted before, perhaps by an older release.

    Today's rules are not applied, and what cannot be used is left out. Raises BadConfig
    only when the text does not parse at all.
    """
    return _meaning(parsed(FILE_NAME, text, pools_pb2.PoolsCfg()), places(text))


def _meaning(message: pools_pb2.PoolsCfg, where: Mapping[Path, Place]) -> PoolsConfig:
    templates = {said.name: template_of(said) for said in message.task_template}
    deployments = {
        said.name: _deployment(said, templates) for said in message.task_template_deployment
    }
    return PoolsConfig.of(
        (
            pool
            for number, said in enumerate(message.pool)
            for pool in _pools(said, where[("pool", number),].line, templates, deployments)
        ),
        _default_packages(message.default_external_services.cipd),
    )


def _default_packages(message: pools_pb2.ExternalServices.CIPD) -> CipdInput | None:
    said = message.client_package
    client = CipdPackage(said.pkg, said.version, said.path) if said.pkg else None
    return CipdInput(message.server, client) if message.server or client else None


def _pools(
    message: pools_pb2.Pool,
    line: int,
    templates: Mapping[str, TaskTemplate],
    deployments: Mapping[str, TemplateDeployment],
) -> Iterator[Pool]:
    is_lifo = message.scheduling_algorithm == pools_pb2.Pool.SCHEDULING_ALGORITHM_LIFO
    deployment = deployments.get(message.task_template_deployment)
    if message.HasField("task_template_deployment_inline"):
        deployment = _deployment(message.task_template_deployment_inline, templates)
    for name in message.name:
        yield Pool(
            name=name,
            realm=message.realm,
            default_task_realm=message.default_task_realm,
            owners=tuple(message.owners),
            task_templates=deployment,
            scheduling_algorithm=SchedulingAlgorithm.LIFO if is_lifo else SchedulingAlgorithm.FIFO,
            informational_dimensions=tuple(_regexes(message.informational_dimension_re)),
            rbe_instance=message.rbe_migration.rbe_instance,
            rbe_modes=_rbe_modes(message.rbe_migration),
            effective_bot_id_dimension=message.rbe_migration.effective_bot_id_dimension,
            allowed_service_accounts=frozenset(message.allowed_service_account),
            grantings=grantings_of(message.grant, (name,)),
            line=line,
        )


def _deployment(
    message: pools_pb2.TaskTemplateDeployment, templates: Mapping[str, TaskTemplate]
) -> TemplateDeployment:
    canary = template_of(message.canary) if message.HasField("canary") else None
    return TemplateDeployment(
        name=message.name,
        prod=resolve(template_of(message.prod), templates),
        canary=None if canary is None else resolve(canary, templates),
        canary_chance=message.canary_chance,
    )


def _regexes(patterns: Iterable[str]) -> Iterator[re.Pattern[str]]:
    for pattern in patterns:
        try:
            yield regex_of(pattern)
        except ValueError:  # accepted by an older release; it fits nothing today
            continue


def _rbe_modes(message: pools_pb2.Pool.RBEMigration) -> tuple[tuple[str, int], ...]:
    """Percent per mode (bot-api 3.7); an allocation goes before `rbe_mode_percent`."""
    if not message.rbe_instance:
        return ()
    modes = pools_pb2.Pool.RBEMigration.BotModeAllocation
    if not message.bot_mode_allocation:
        percents = [100 - message.rbe_mode_percent, 0, message.rbe_mode_percent]
    else:
        said = {entry.mode: entry.percent for entry in message.bot_mode_allocation}
        percents = [said.get(mode, 0) for mode in (modes.SWARMING, modes.HYBRID, modes.RBE)]
    is_whole = sum(percents) == 100 and min(percents) >= 0
    return tuple(zip(_MODES, percents, strict=True)) if is_whole else ()
