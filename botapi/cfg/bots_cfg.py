"""bots.cfg from text to meaning; every mistake in it with its file, line and column.

A syntax error ends the reading. Everything that can be said about a text that parses is
said at once: see `bots_rules`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from botpb import bots_pb2

from botapi.auth.bot_auth import from_message
from botapi.cfg.bots_rules import check, warnings
from botapi.cfg.mistakes import BadConfig, Mistake, in_order
from botapi.cfg.places import Path, Place, places
from botapi.cfg.text_proto import ParsedFile, opened, parsed
from botapi.domain.bot_groups import (
    ArchivePolicy,
    BotGroup,
    BotsConfig,
    expand_bot_ids,
)
from botapi.domain.dimensions import unflatten

FILE_NAME = "bots.cfg"


@dataclass(frozen=True, slots=True)
class BotsFile:
    """A bots.cfg without mistakes, the scripts that it refers to, and what it means."""

    parsed: ParsedFile[bots_pb2.BotsCfg]
    scripts: Mapping[str, bytes]
    config: BotsConfig
    warnings: tuple[Mistake, ...]


def read(raw: bytes, scripts: Mapping[str, bytes]) -> BotsFile:
    """Check a file. Raises BadConfig with every mistake.

    `scripts` maps the names of the files in `scripts/` to their contents.
    """
    file = opened(FILE_NAME, raw, bots_pb2.BotsCfg())
    mistakes = file.mistakes(check(file.message, scripts))
    if mistakes:
        raise BadConfig(mistakes)
    named = {group.bot_config_script for group in file.message.bot_group}
    used = {name: scripts[name] for name in sorted(named & scripts.keys())}
    config = _meaning(file.message, used, file.where)
    return BotsFile(file, used, config, in_order(file.mistakes(warnings(file.message))))


def parse(raw: bytes | str, scripts: Mapping[str, bytes]) -> BotsConfig:
    """The meaning alone. Raises BadConfig with every mistake."""
    return read(raw.encode() if isinstance(raw, str) else raw, scripts).config


def load(text: str, scripts: Mapping[str, bytes]) -> BotsConfig:
    """The meaning of a text that was accepted before, perhaps by an older release.

    Today's rules are not applied: what was in force stays in force. A script that is not
    there loses its name too, so the handshake hash stays consistent (bot-api 7.6).
    Raises BadConfig only when the text does not parse at all.
    """
    return _meaning(parsed(FILE_NAME, text, bots_pb2.BotsCfg()), scripts, places(text))


def _meaning(
    message: bots_pb2.BotsCfg,
    scripts: Mapping[str, bytes],
    where: Mapping[Path, Place],
) -> BotsConfig:
    groups = (
        _group(group, scripts, where[("bot_group", number),].line)
        for number, group in enumerate(message.bot_group)
    )
    return BotsConfig.of(message.trusted_dimensions, groups)


def _group(group: bots_pb2.BotGroup, scripts: Mapping[str, bytes], line: int) -> BotGroup:
    script = scripts.get(group.bot_config_script)
    return BotGroup(
        bot_ids=frozenset(_all_ids(group.bot_id)),
        prefixes=tuple(group.bot_id_prefix),
        auth=tuple(from_message(auth) for auth in group.auth),
        owners=tuple(group.owners),
        dimensions={
            key: tuple(dict.fromkeys(values))
            for key, values in sorted(unflatten(group.dimensions).items())
        },
        script_name="" if script is None else group.bot_config_script,
        script=script or b"",
        system_service_account=group.system_service_account,
        logs_cloud_project=group.logs_cloud_project,
        bot_archive=ArchivePolicy.KEEP if group.bot_archive == "keep" else ArchivePolicy.SKEP,
        archive_pin=group.bot_archive_pin,
        line=line,
    )


def _all_ids(expressions: Iterable[str]) -> Iterable[str]:
    for expression in expressions:
        try:
            yield from expand_bot_ids(expression)
        except ValueError:  # accepted by an older release; it names nobody today
            continue
