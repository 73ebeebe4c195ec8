"""Environment to one frozen `Settings`: the only list of knobs, for server and client.

Every setting `x` is read from `SKEP_X`, or from the file named by `SKEP_X_FILE`.
The class below is the table: type, default, what is accepted, and what it is for.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

# ruff: noqa: RUF009 - the defaults below are `field`s, made by functions that know the table

PREFIX = "SKEP_"
FILE_SUFFIX = "_FILE"
FORMATS = ("table", "json", "jsonl", "csv", "id", "yaml")
MAX_HOLD_S = 50.0
"""Longest hold of a lease call that may be set: a bot reads for 60 s (bot-api 1.11)."""

T = TypeVar("T")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_SECONDS = re.compile(r"\d+(?:\.\d+)?")
_SIZE = re.compile(r"(\d+)\s*(|KiB|MiB|GiB|TiB)")
_SIZE_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}(/[A-Za-z0-9._-]+)*/?")
_FOREIGN = ("SKEP_TEST_",)  # read by the tests only


class SettingsError(ValueError):
    """One line: the variable, its value, and what would be accepted."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How one type of setting is read; `parse` raises ValueError for what it cannot read."""

    accepts: str
    parse: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class Knob:
    """One row of the table: what a setting accepts, its default as text, and its purpose."""

    half: str
    kind: Kind[Any]
    default: str
    help: str
    alias: str = ""
    secret: bool = False


def duration_s(text: str) -> float:
    """Seconds in `90`, `90s`, `1.5s`, `2h30m` or `1d`; ValueError for anything else."""
    if _SECONDS.fullmatch(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text!r} is not a duration such as 90, 90s or 2h30m")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def size_bytes(text: str) -> int:
    """Bytes in `1048576`, `1024 KiB` or `2GiB`; ValueError for anything else."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 1048576 or 2 GiB")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def _whole(low: int, high: int) -> Kind[int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(f"a whole number from {low} to {high}", parse)


def _seconds(low: float, high: float) -> Kind[float]:
    def parse(text: str) -> float:
        value = duration_s(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(f"a duration such as 90, 90s or 2h30m, from {low:g} s to {high:g} s", parse)


def _choice(*names: str) -> Kind[str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return Kind("one of " + ", ".join(names), parse)


def _parse_flag(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _parse_url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", text):
        raise ValueError(text)
    return text.rstrip("/")


def _parse_blobs(text: str) -> str:
    if text != "disk" and not _BUCKET.fullmatch(text):
        raise ValueError(text)
    return text.rstrip("/")


def _parse_store(text: str) -> str:
    if not re.fullmatch(r"sqlite|postgres(ql)?://\S+|datastore://[a-z0-9:.-]+([/?]\S*)?", text):
        raise ValueError(text)
    return text


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, (part.strip() for part in text.split(","))))
    if not all(one == "*" or re.fullmatch(r"https?://[^\s/?#]+", one) for one in origins):
        raise ValueError(text)
    return origins


def _parse_networks(text: str) -> tuple[IPNetwork, ...]:
    parts = [part.strip() for part in text.split(",")]
    return tuple(ipaddress.ip_network(part) for part in parts if part)


def _parse_optional_path(text: str) -> Path | None:
    return Path(text) if text else None


_text = Kind("any text", str)
_flag = Kind("1, true, yes, on, 0, false, no or off", _parse_flag)
_url = Kind("a URL that starts with http:// or https://", _parse_url)
_origins = Kind("origins such as https://ui.example.com, separated by commas, or *", _parse_origins)
_networks = Kind("networks such as 10.0.0.0/8, separated by commas", _parse_networks)
_folder = Kind("a path", Path)
_optional_path = Kind("a path", _parse_optional_path)
_size = Kind("a size such as 1048576 or 2 GiB", size_bytes)
_blobs = Kind("disk, or gs://bucket/prefix", _parse_blobs)
_store = Kind(
    "sqlite, postgresql://user:password@host/database, or datastore://project", _parse_store
)
_log_format = _choice("json", "logfmt", "console")


def _terminal_log_format() -> str:
    return "console" if sys.stdout.isatty() else "json"


def _server(kind: Kind[T], default: str, purpose: str) -> T:
    return _field(Knob("server", kind, default, purpose), kind.parse(default))


def _client(kind: Kind[T], default: str, purpose: str, alias: str = "", secret: str = "") -> T:
    return _field(Knob("client", kind, default, purpose, alias, bool(secret)), kind.parse(default))


def _field(knob: Knob, default: T) -> T:
    return field(default=default, repr=not knob.secret, metadata={"knob": knob})


def _derived(kind: Kind[T], described: str, purpose: str, factory: Callable[[], T]) -> T:
    knob = Knob("server", kind, described, purpose)
    return field(default_factory=factory, metadata={"knob": knob})


_BELOW_DATA_DIR = Path("config")  # known by identity: a path that somebody gives is another object


def _below_data_dir() -> Path:
    return _BELOW_DATA_DIR


@dataclass(frozen=True, slots=True)
class Settings:
    """Every knob of the server and of the client commands; `_s` is seconds.

    `config_dir` follows `data_dir` unless it is given.
    """

    data_dir: Path = _server(_folder, "./skep-data", "database, task output, keys and archives")
    store: str = _field(
        Knob(
            "server",
            _store,
            "sqlite",
            "where everything is kept: `sqlite` is a file in `data_dir`, the others are shared by "
            "many servers (docs/stores.md)",
            secret=True,
        ),
        "sqlite",
    )
    config_dir: Path = _derived(
        _folder, "<data_dir>/config", "the folder of `bots.cfg` and `scripts/`", _below_data_dir
    )
    host: str = _server(_text, "127.0.0.1", "address the server listens on")
    port: int = _server(_whole(0, 65535), "8080", "port the server listens on; 0 is any free one")
    workers: int = _server(_whole(1, 64), "1", "server processes")
    public_url: str = _server(
        _url, "", "base URL that bots and people use; empty is taken from the request"
    )
    cors_origins: tuple[str, ...] = _server(
        _origins, "", "origins whose pages may call `/prpc`; `*` is any (docs/prpc.md)"
    )
    tls_cert: Path | None = _server(
        _optional_path, "", "PEM certificate chain; empty is plain HTTP"
    )
    tls_key: Path | None = _server(_optional_path, "", "PEM key of `SKEP_TLS_CERT`")
    behind_proxy: tuple[IPNetwork, ...] = _server(
        _networks, "", "proxies whose `X-Forwarded-*` headers are believed"
    )
    cron_header: str = _server(
        _text,
        "",
        "header by which a platform marks calls of its own scheduler and takes it out of all "
        "others: opens `/internal/cron/sweep`; `X-Appengine-Cron` on App Engine, empty elsewhere",
    )
    bot_archive: Path | None = _server(
        _optional_path, "", "bot sources (a folder or a .zip); empty is the packaged bot"
    )
    session_envelope: str = _server(
        _choice("hmac", "aead"),
        "hmac",
        "session tokens of bots: `hmac` signs them as Swarming does, `aead` also hides what is in "
        "them; the same for all servers of a store",
    )
    anonymous_read: bool = _server(_flag, "0", "may anybody read the API and the pages?")
    poll_s: float = _server(_seconds(0, 3600), "120", "mean time between two polls of a bot")
    contact_s: float = _server(
        _seconds(1, 86400), "300", "a bot without a good answer for so long stops its task"
    )
    hold_min_s: float = _server(
        _seconds(0, MAX_HOLD_S), "40", "shortest time a lease call is held while there is no work"
    )
    hold_max_s: float = _server(
        _seconds(0, MAX_HOLD_S), "45", "longest time a lease call is held while there is no work"
    )
    bot_death_s: float = _server(
        _seconds(1, 604800), "600", "silence, of which the server was up, that makes a bot dead"
    )
    seen_flush_s: float = _server(
        _seconds(0, 3600), "60", "age at which a stored `last seen` is written again"
    )
    offer_timeout_s: float = _server(
        _seconds(1, 3600), "60", "time a bot has to claim the slice it was offered"
    )
    output_limit_bytes: int = _server(_size, "2 GiB", "stored output of one task")
    rate_bot: int = _server(
        _whole(0, 100_000), "200", "calls a second of one bot, twice as many at once; 0 is no limit"
    )
    rate_address: int = _server(
        _whole(0, 100_000), "2000", "calls a second from one address, twice as many at once"
    )
    rate_refused: int = _server(
        _whole(0, 100_000),
        "20",
        "calls with bad credentials a second from one address, ten times as many at once",
    )
    sweep_s: float = _server(_seconds(0, 3600), "5", "time between two sweeps")
    event_retention_days: int = _server(_whole(1, 36500), "28", "days that bot events are kept")
    task_retention_days: int = _server(_whole(1, 36500), "90", "days that finished tasks are kept")
    blobs: str = _server(
        _blobs, "disk", "where inputs and outputs of tasks are kept: below `data_dir`, or a bucket"
    )
    blobs_max: int = _server(
        _size, "100 GiB", "bytes of blobs kept on disk; more are refused; 0 is no limit"
    )
    blob_retention_days: int = _server(
        _whole(1, 36500), "7", "days that a blob is kept which no kept task refers to"
    )
    secrets_keys: Path | None = _server(
        _optional_path,
        "",
        "file with the keys that secrets are sealed with; empty is `secrets.keys` in `data_dir`",
    )
    sign_in_secret: str = _field(
        Knob("server", _text, "", "client secret at the issuer of `sign_in`", secret=True), ""
    )
    log_format: str = _derived(
        _log_format, "console on a terminal, else json", "form of a log line", _terminal_log_format
    )
    log_level: str = _server(
        _choice("debug", "info", "warning", "error"), "info", "least level that is logged"
    )
    access_log: str = _server(
        _choice("off", "quiet", "all"),
        "quiet",
        "which requests are logged; `quiet` leaves out what bots and probes ask all the time and "
        "is answered well",
    )
    metrics_from: tuple[IPNetwork, ...] = _server(
        _networks,
        "127.0.0.0/8, ::1/128",
        "networks from which `/metrics` is read without a credential (docs/observability.md)",
    )
    fault: str = _server(
        _text, "", "fault to inject for tests, such as `claim.before_commit:kill@3`"
    )
    server: str = _client(
        _url, "http://127.0.0.1:8080", "server the client commands talk to", "SWARMING_SERVER"
    )
    token: str = _client(_text, "", "API key of the client commands", secret="yes")  # noqa: S106
    context: str = _client(
        _text, "", "context of the client commands; empty is that of `skep context use`"
    )
    format: str = _client(_choice(*FORMATS), "table", "output format of the client commands")
    timeout_s: float = _client(
        _seconds(0.1, 3600), "30", "time one request may take", "SKEP_TIMEOUT"
    )
    ca_bundle: Path | None = _client(
        _optional_path, "", "PEM certificates that a server's certificate is checked with"
    )
    user: str = _client(_text, "", "user that new tasks are made for", "SWARMING_USER")
    parent_task: str = _client(
        _text,
        "",
        "task that new tasks are children of; set in the environment of every task",
        "SWARMING_TASK_ID",
    )

    @property
    def is_shared(self) -> bool:
        """Is the store one that servers on many machines may share?"""
        return self.store != "sqlite"

    def __post_init__(self) -> None:
        if self.config_dir is _BELOW_DATA_DIR:
            object.__setattr__(self, "config_dir", self.data_dir / "config")


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    return PREFIX + name.upper()


def knobs() -> Iterator[tuple[str, Knob]]:
    """The table: name and row of every setting, in its order."""
    for row in fields(Settings):
        yield row.name, _knob(row)


def load(
    environ: Mapping[str, str],
    options: Mapping[str, str | None] | None = None,
    saved: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from options of the command line, then the environment, then `saved`, then defaults.

    `options` and `saved` are by setting name, as text; None is "not given".
    An empty variable counts as not set.
    Raises SettingsError for a value that is not accepted and for a file that cannot be read.
    """
    values: dict[str, Any] = {}
    for name, knob in knobs():
        found = _find(name, knob, environ, options or {}, saved or {})
        if found is not None:
            source, text = found
            shown_as = f"--{name.replace('_', '-')}" if source == "option" else source
            values[name] = _parse(shown_as, text, knob)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def origins(
    environ: Mapping[str, str],
    options: Mapping[str, str | None] | None = None,
    saved: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Where each setting's value comes from: `default`, `context`, `option`, or the variable."""
    chain = (environ, options or {}, saved or {})
    found = {name: _find(name, knob, *chain) for name, knob in knobs()}
    return {name: "default" if hit is None else hit[0] for name, hit in found.items()}


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Variables that start with SKEP_ and mean nothing: usually typing errors."""
    known = {variable(name) for name, _ in knobs()}
    known |= {name + FILE_SUFFIX for name in known} | {knob.alias for _, knob in knobs()}
    ours = (name for name in environ if name.startswith(PREFIX))
    return sorted(name for name in ours if name not in known and not name.startswith(_FOREIGN))


def shown(settings: Settings) -> dict[str, str]:
    """Every setting as text that may be printed: secrets are masked."""
    return {name: _shown(getattr(settings, name), knob) for name, knob in knobs()}


def render_table() -> str:
    """The Markdown table of all settings, as config/README.md contains it."""
    lines = ["| variable | default | accepts | what it is for |", "|---|---|---|---|"]
    for name, knob in knobs():
        alias = f" (alias `{knob.alias}`)" if knob.alias else ""
        default = f"`{knob.default}`" if knob.default else "empty"
        lines.append(
            f"| `{variable(name)}`{alias} | {default} | {knob.kind.accepts} | {knob.help} |"
        )
    return "\n".join(lines) + "\n"


def _knob(row: Field[Any]) -> Knob:
    knob = row.metadata["knob"]
    if not isinstance(knob, Knob):
        raise TypeError(f"the setting {row.name} has no row in the table")
    return knob


def _find(
    name: str,
    knob: Knob,
    environ: Mapping[str, str],
    options: Mapping[str, str | None],
    saved: Mapping[str, str],
) -> tuple[str, str] | None:
    """Source and text of a setting, or None when nobody set it."""
    given = options.get(name)
    if given is not None:
        return "option", given
    plain = variable(name)
    pointer = plain + FILE_SUFFIX
    if environ.get(plain) and environ.get(pointer):
        raise SettingsError(f"{plain} and {pointer} are both set: keep one of them")
    if environ.get(plain):
        return plain, environ[plain]
    if environ.get(pointer):
        return pointer, _read(pointer, environ[pointer])
    if knob.alias and environ.get(knob.alias):
        return knob.alias, environ[knob.alias]
    return ("context", saved[name]) if name in saved else None


def _read(pointer: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"{pointer}={path}: {reason}: a readable file is needed") from error


def _parse(source: str, text: str, knob: Knob) -> object:
    try:
        return knob.kind.parse(text)
    except ValueError as error:
        value = "(secret)" if knob.secret else repr(text)
        raise SettingsError(f"{source}={value} is refused: give {knob.kind.accepts}") from error


def _check_together(settings: Settings) -> None:
    if settings.hold_min_s > settings.hold_max_s:
        raise SettingsError(
            f"SKEP_HOLD_MIN_S={settings.hold_min_s:g} is refused: "
            f"give at most SKEP_HOLD_MAX_S, which is {settings.hold_max_s:g}"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        lacking = "SKEP_TLS_CERT" if settings.tls_cert is None else "SKEP_TLS_KEY"
        raise SettingsError(
            f"{lacking}='' is refused: give SKEP_TLS_CERT and SKEP_TLS_KEY together"
        )


def _shown(value: object, knob: Knob) -> str:
    if knob.secret:
        return "(set)" if value else ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return "" if value is None else str(value)
