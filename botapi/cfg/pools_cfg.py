"""pools.cfg from text to meaning (bot-api 7.7); every mistake in it with its place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from botpb import pools_pb2

from botapi.cfg.text_proto import decoded, parsed
from botapi.domain.pools import Pool, PoolsConfig, SchedulingAlgorithm

FILE_NAME = "pools.cfg"
_MODES = ("SWARMING", "HYBRID", "RBE")


@dataclass(frozen=True, slots=True)
class PoolsFile:
    """The text of a pools.cfg and what it means."""

    text: str
    config: PoolsConfig


def read(raw: bytes) -> PoolsFile:
    """Check a file. Raises BadConfig with every mistake."""
    text = decoded(FILE_NAME, raw)
    return PoolsFile(text, load(text))


def load(text: str) -> PoolsConfig:
    """The meaning of a text that was accepted before. Raises BadConfig for bad syntax only."""
    message = parsed(FILE_NAME, text, pools_pb2.PoolsCfg())
    return PoolsConfig.of(pool for group in message.pool for pool in _pools(group))


def _pools(message: pools_pb2.Pool) -> Iterator[Pool]:
    is_lifo = message.scheduling_algorithm == pools_pb2.Pool.SCHEDULING_ALGORITHM_LIFO
    for name in message.name:
        yield Pool(
            name=name,
            realm=message.realm,
            default_task_realm=message.default_task_realm,
            owners=tuple(message.owners),
            scheduling_algorithm=SchedulingAlgorithm.LIFO if is_lifo else SchedulingAlgorithm.FIFO,
            informational_dimensions=tuple(map(re.compile, message.informational_dimension_re)),
            rbe_instance=message.rbe_migration.rbe_instance,
            rbe_modes=_rbe_modes(message.rbe_migration),
            effective_bot_id_dimension=message.rbe_migration.effective_bot_id_dimension,
            allowed_service_accounts=frozenset(message.allowed_service_account),
        )


def _rbe_modes(message: pools_pb2.Pool.RBEMigration) -> tuple[tuple[str, int], ...]:
    """Percent per mode (bot-api 3.7); an allocation goes before `rbe_mode_percent`."""
    if not message.rbe_instance:
        return ()
    mode = pools_pb2.Pool.RBEMigration.BotModeAllocation.BotMode
    said = {mode.Name(entry.mode): entry.percent for entry in message.bot_mode_allocation}
    if not said:
        said = {"SWARMING": 100 - message.rbe_mode_percent, "RBE": message.rbe_mode_percent}
    return tuple((name, said.get(name, 0)) for name in _MODES)
