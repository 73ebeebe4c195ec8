"""bots.cfg from text to meaning; every mistake in it with its file, line and column.

A syntax error ends the reading. Everything that can be said about a text that parses is
said at once: see `bots_rules`.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from botpb import bots_pb2
from google.protobuf import text_format

from botapi.auth.bot_auth import from_message
from botapi.cfg.bots_rules import check
from botapi.cfg.mistakes import BadConfig, Mistake
from botapi.cfg.places import Path, Place, places
from botapi.domain.bot_groups import (
    ArchivePolicy,
    BotGroup,
    BotsConfig,
    expand_bot_ids,
)
from botapi.domain.dimensions import unflatten

FILE_NAME = "bots.cfg"
MAX_SOURCE_BYTES = 800 * 1024
"""Most bytes of a bots.cfg with the scripts it names: a revision is one document."""

_SHOWN_CHARS = 240
_POSITION = re.compile(r"^\d+:\d+ : ")


@dataclass(frozen=True, slots=True)
class Source:
    """A bots.cfg as it was written, with the hooks scripts that stood beside it.

    `scripts` maps file names without folder to contents.
    """

    text: str
    scripts: Mapping[str, bytes]

    def digest(self) -> str:
        """Changes when the text or a script does; see `bundle_digest`."""
        files = {FILE_NAME: self.text.encode()}
        return bundle_digest(files | {f"scripts/{n}": body for n, body in self.scripts.items()})


def read(raw: bytes, scripts: Mapping[str, bytes]) -> tuple[Source, BotsConfig]:
    """The source (with the scripts that it refers to, no others) and its meaning.

    `raw` is the content of the file. Raises BadConfig with every mistake.
    """
    text = _decoded(raw)
    message = _parsed(text)
    where = places(text)
    mistakes = check(message, scripts, where)
    if mistakes:
        raise BadConfig(mistakes)
    named = {group.bot_config_script for group in message.bot_group}
    source = Source(text, {name: scripts[name] for name in sorted(named & scripts.keys())})
    size = len(raw) + sum(len(body) for body in source.scripts.values())
    if size > MAX_SOURCE_BYTES:
        said = f"too large with its scripts: {size} > {MAX_SOURCE_BYTES} bytes"
        raise BadConfig([Mistake(FILE_NAME, Place(1, 1), "", said)])
    return source, _meaning(message, source, where)


def parse(raw: bytes | str, scripts: Mapping[str, bytes]) -> BotsConfig:
    """The meaning alone. Raises BadConfig with every mistake."""
    return read(raw.encode() if isinstance(raw, str) else raw, scripts)[1]


def load(source: Source) -> BotsConfig:
    """The meaning of a source that was accepted before, perhaps by an older release.

    Today's rules are not applied: what was in force stays in force. A script that is not
    there loses its name too, so the handshake hash stays consistent (bot-api 7.6).
    Raises BadConfig only when the text does not parse at all.
    """
    return _meaning(_parsed(source.text), source, places(source.text))


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """One digest of several files by name: unpadded base64 of SHA-256 (bot-api 7.5)."""
    digest = hashlib.sha256(b"version 1\n")
    for name, content in sorted(files.items(), key=lambda item: item[0].encode()):
        digest.update(b"%s\n%d\n%s\n" % (name.encode(), len(content), content))
    return b64encode(digest.digest()).decode("ascii").rstrip("=")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise BadConfig([Mistake(FILE_NAME, place, "", "not UTF-8 text")]) from None


def _parsed(text: str) -> bots_pb2.BotsCfg:
    try:
        return text_format.Parse(text, bots_pb2.BotsCfg())
    except text_format.ParseError as error:
        place = Place(error.GetLine() or 1, error.GetColumn() or 1)
        said = _POSITION.sub("", str(error))
        if len(said) > _SHOWN_CHARS:
            said = "..." + said[-_SHOWN_CHARS:]
        raise BadConfig([Mistake(FILE_NAME, place, "", said)]) from None


def _meaning(
    message: bots_pb2.BotsCfg,
    source: Source,
    where: Mapping[Path, Place],
) -> BotsConfig:
    groups = (
        _group(group, source.scripts, where[("bot_group", number),].line)
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
        line=line,
    )


def _all_ids(expressions: Iterable[str]) -> Iterable[str]:
    for expression in expressions:
        try:
            yield from expand_bot_ids(expression)
        except ValueError:  # accepted by an older release; it names nobody today
            continue
