"""The configuration as one thing: bots.cfg, pools.cfg, settings.cfg and the hooks scripts.

All files are checked together and put in force together, as one revision (bot-api 7.5).
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

from botapi.cfg import access_cfg, bots_cfg, pools_cfg, settings_cfg
from botapi.cfg.bots_cfg import BotsFile
from botapi.cfg.bots_rules import check_across, warnings_across
from botapi.cfg.mistakes import BadConfig, Mistake, in_order
from botapi.cfg.places import Place
from botapi.cfg.pools_cfg import PoolsFile
from botapi.cfg.settings_cfg import SettingsFile
from botapi.domain.access_rules import AccessRules
from botapi.domain.bot_groups import BotsConfig, built_in
from botapi.domain.fleet_settings import FleetSettings
from botapi.domain.pools import PoolsConfig

SCRIPTS = "scripts/"
MAX_SOURCE_BYTES = 800 * 1024
"""Most bytes of all files of a revision together: a revision is one document."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files as they were written; a file that is not there is empty.

    `scripts` maps file names without folder to contents: those that bots.cfg names.
    """

    bots: str
    scripts: Mapping[str, bytes]
    pools: str = ""
    settings: str = ""

    def files(self) -> dict[str, bytes]:
        """By the names that `read` takes; the three files always."""
        texts = {
            bots_cfg.FILE_NAME: self.bots,
            pools_cfg.FILE_NAME: self.pools,
            settings_cfg.FILE_NAME: self.settings,
        }
        scripts = {SCRIPTS + name: body for name, body in self.scripts.items()}
        return {name: text.encode() for name, text in texts.items()} | scripts

    def digest(self) -> str:
        """Changes when a file does; see `bundle_digest`."""
        return bundle_digest(self.files())


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a source says. Without any source: `built_in` bots, no pools, default settings.

    `warnings` tell what was read for nothing; they keep nothing out of force.
    """

    bots: BotsConfig = field(default_factory=built_in)
    pools: PoolsConfig = field(default_factory=PoolsConfig)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    warnings: tuple[Mistake, ...] = field(default=(), compare=False)
    access: AccessRules = field(init=False, compare=False)

    def __post_init__(self) -> None:
        of_pools = [one for pool in self.pools.pools.values() for one in pool.grantings]
        grantings = [*self.fleet.auth.grantings(), *self.fleet.grantings, *of_pools]
        object.__setattr__(self, "access", AccessRules.of(self.fleet.groups, grantings))


def read(files: Mapping[str, bytes]) -> tuple[Source, Meaning]:
    """The source (with the scripts that it refers to, no others) and its meaning.

    `files` maps `bots.cfg`, `pools.cfg`, `settings.cfg` and `scripts/<name>` to contents;
    all but the first may be absent. Raises BadConfig with the mistakes of every file.
    """
    scripts = {
        name.removeprefix(SCRIPTS): body for name, body in files.items() if name.startswith(SCRIPTS)
    }
    mistakes: list[Mistake] = []
    bots = pools = settings = None
    try:
        bots = bots_cfg.read(files.get(bots_cfg.FILE_NAME, b""), scripts)
    except BadConfig as error:
        mistakes += error.mistakes
    try:
        pools = pools_cfg.read(files.get(pools_cfg.FILE_NAME, b""))
    except BadConfig as error:
        mistakes += error.mistakes
    try:
        settings = settings_cfg.read(files.get(settings_cfg.FILE_NAME, b""))
    except BadConfig as error:
        mistakes += error.mistakes
    if bots is None or pools is None or settings is None:
        raise BadConfig(mistakes)
    warnings = _compared(bots, pools, settings)
    source = Source(bots.parsed.text, bots.scripts, pools.parsed.text, settings.parsed.text)
    size = sum(len(body) for body in source.files().values())
    if size > MAX_SOURCE_BYTES:
        said = f"too large with the other files and scripts: {size} > {MAX_SOURCE_BYTES} bytes"
        raise BadConfig([Mistake(bots_cfg.FILE_NAME, Place(1, 1), "", said)])
    return source, Meaning(bots.config, pools.config, settings.settings, warnings)


def _compared(bots: BotsFile, pools: PoolsFile, settings: SettingsFile) -> tuple[Mistake, ...]:
    """All warnings. Raises BadConfig with what only several files together show."""
    file, fleet = bots.parsed, settings.settings
    mistakes = file.mistakes(check_across(file.message, fleet))
    mistakes += pools.parsed.mistakes(
        access_cfg.check_across(pools.parsed.message, settings.parsed.message)
    )
    if mistakes:
        raise BadConfig(mistakes)
    useless = file.mistakes(warnings_across(file.message, pools.config, fleet))
    return in_order([*bots.warnings, *pools.warnings, *settings.warnings, *useless])


def load(source: Source) -> Meaning:
    """The meaning of a source that was accepted before, perhaps by an older release.

    Today's rules are not applied: what was in force stays in force. Raises BadConfig only
    when a file does not parse at all.
    """
    return Meaning(
        bots_cfg.load(source.bots, source.scripts),
        pools_cfg.load(source.pools),
        settings_cfg.load(source.settings),
    )


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """One digest of several files by name: unpadded base64 of SHA-256 (bot-api 7.5)."""
    digest = hashlib.sha256(b"version 1\n")
    for name, content in sorted(files.items(), key=lambda item: item[0].encode()):
        digest.update(b"%s\n%d\n%s\n" % (name.encode(), len(content), content))
    return b64encode(digest.digest()).decode("ascii").rstrip("=")
