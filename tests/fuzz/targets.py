"""What is fuzzed, and what must hold for every input."""

import json
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path

from werkzeug.test import EnvironBuilder, run_wsgi_app

from botapi import app as composition
from botapi import engines
from botapi.auth.botsession import BadToken, BotConfig, Session, decode, encode, encode_hidden
from botapi.auth.hmactoken import Secret
from botapi.auth.signing import BadSignature, Purpose, sign, unsign
from botapi.botsrv import BOT_PATH, WITH_SESSION, WITHOUT_SESSION
from botapi.cfg.bundle import read
from botapi.cfg.mistakes import MAX_MISTAKES, BadConfig
from botapi.concurrency import Threads
from botapi.domain.bot_groups import AuthMethod
from botapi.settings import Settings
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG, NO_LIMITS, bots_cfg
from tests.fakes.clock import FakeClock, FakeRng
from tests.fakes.sim_bot import JSON, SimBot, flask_post

CONFIG = Path(__file__).resolve().parent.parent.parent / "config"
NOW = 1_772_604_367_000


class Tokens:
    """Whatever is presented as a token: refused in one way, or one that we made."""

    words = ("swarming.Session", "==", "CqECCvwB", "skep.cursor")

    def __init__(self):
        self.secret = Secret(b"secret", (b"older",))
        config = BotConfig(bot_auth=(AuthMethod(ip_whitelist="bots"),))
        made = Session("vm1", "s/1", NOW, config, NOW, b"h" * 32)
        token = encode(made, self.secret)
        text = sign(Purpose.CURSOR, [b"key"], {"a": 1}, now_ms=NOW)
        self.made = made
        hidden = b64decode(encode_hidden(made, self.secret, bytes(12)))
        self.seeds = [token.encode(), b64decode(token), hidden, text.encode()]

    def run(self, data):
        """The bytes as they are, and in base64."""
        for text in (data.decode("latin-1"), b64encode(data).decode()):
            try:
                session = decode(text, self.secret, takes_hidden=True)
            except BadToken as error:
                said = str(error)
            else:
                said = ""
                assert session == self.made
            assert said.isprintable()
        text = data.decode("latin-1")
        try:
            value = unsign(Purpose.CURSOR, [b"key"], text, now_ms=NOW, max_age_s=60)
        except BadSignature:
            return
        assert value == {"a": 1}


class Bodies:
    """A body on every endpoint of bots: an answer in JSON or one line, never a 5xx."""

    words = (
        "<S>",
        "<T>",
        '"dimensions"',
        '"state"',
        '"version"',
        '"skep"',
        '"seq"',
        '"lease"',
        '"task_id"',
        '"output"',
        "null",
        "1e999",
        "\\ud800",
        "[[[[",
        '{"a":' * 8,
    )

    def __init__(self):
        folder = Path(tempfile.mkdtemp(prefix="skep-fuzz-bot-"))
        (folder / "zip_main.py").write_text("print('a bot')\n")
        settings = Settings(
            data_dir=folder, bot_archive=folder, hold_min_s=0.0, hold_max_s=0.0, **NO_LIMITS
        )
        clock, rng = FakeClock(), FakeRng()
        store = engines.memory_store(Threads(), clock, rng)
        parts = composition.build(settings, store, Threads(), clock, rng)
        push_config(store, bots_cfg(), parent="", author="fuzz", now_ms=clock.now_ms())
        self.app = composition.create_app(parts)
        self.paths = [BOT_PATH + route.path for route in (*WITHOUT_SESSION, *WITH_SESSION)]
        self.paths.append("/skep/v1/enroll")
        bot = SimBot(flask_post(self.app.test_client()), "vm1").start()
        self.session = bot.session
        self.seeds = [bytes([number]) + body for number, body in enumerate(self._bodies(bot))]

    def _bodies(self, bot):
        """A good body of each endpoint, in the order of `paths`."""
        run = {"task_id": "<T>", "session": "<S>"}
        good = {
            "handshake": {"dimensions": bot.dims, "state": {}, "session_id": "a/1", "version": "v"},
            "poll": {
                "session": "<S>",
                "dimensions": bot.dims,
                "state": {},
                "version": "v",
                "request_uuid": "u",
                "skep": {"v": 1, "seq": 3},
            },
            "claim": {**run, "claim_id": "c", "task_to_run_shard": 1, "task_to_run_id": 1},
            "event": {"session": "<S>", "event": "bot_log", "message": "m", "state": {"a": [1]}},
            "task_update": {
                **run,
                "output": "aGVsbG8K",
                "output_chunk_start": 0,
                "cost_usd": 0.1,
                "duration": 1.5,
                "exit_code": 0,
                "bot_overhead": 0.1,
            },
            "task_error": {
                **run,
                "message": "m",
                "client_error": {
                    "missing_cas": [{"instance": "i", "digest": "a/1"}],
                    "missing_cipd": [],
                },
            },
            "rbe/session/create": {"session": "<S>", "bot_version": "v"},
            "rbe/session/update": {
                "session": "<S>",
                "status": "OK",
                "nonblocking": True,
                "lease": {"id": "l", "state": "COMPLETED", "result": {}},
            },
            "oauth_token": {**run, "account_id": "task", "scopes": ["s"]},
            "id_token": {**run, "account_id": "task", "audience": "https://a"},
            "enroll": {"bot_id": "vm1", "token": "t", "secret": "s" * 43},
        }
        for path in self.paths:
            name = path.removeprefix(BOT_PATH + "/").rpartition("/skep/v1/")[2]
            yield json.dumps(good.get(name, {"session": "<S>"})).encode()

    def run(self, data):
        """The first byte picks the endpoint; `<S>` and `<T>` are a good session and a run id."""
        path = self.paths[data[0] % len(self.paths)] if data else self.paths[0]
        body = data[1:].replace(b"<S>", self.session.encode()).replace(b"<T>", b"76d00eba71beef11")
        builder = EnvironBuilder(
            path,
            method="POST",
            data=body,
            headers={"Content-Type": JSON},
            environ_base={"REMOTE_ADDR": "127.0.0.1"},
        )
        parts, status, headers = run_wsgi_app(self.app.wsgi_app, builder.get_environ())
        answer = b"".join(parts)
        assert int(status[:3]) < 500, (status, answer)
        if headers["Content-Type"].startswith("application/json"):
            assert isinstance(json.loads(answer), dict)
        else:
            assert answer.count(b"\n") <= 1, answer
            assert answer.decode().strip().isprintable(), answer


class Config:
    """Any three files: accepted, or refused with lines that say where."""

    words = (
        "bot_group {",
        "bot_id:",
        "{1..3}",
        "{{",
        "auth {",
        'ip_whitelist: "loopback"',
        "dimensions:",
        '"pool:a"',
        "trusted_dimensions",
        "pool {",
        "realm:",
        "rbe_migration",
        "ip_allowlist {",
        "subnet:",
        "oidc_provider {",
        "rollout {",
        "bot_deployment {",
        "release_key {",
        "\n---\n",
        "informational_dimension_re:",
    )

    def __init__(self):
        files = [
            (CONFIG / name).read_bytes() if (CONFIG / name).exists() else b""
            for name in ("bots.cfg", "pools.cfg", "settings.cfg")
        ]
        self.seeds = [
            b"\n---\n".join(files),
            LOOPBACK_CFG.encode(),
            *(b"\n---\n".join((b"", *files[1:])),),
        ]

    def run(self, data):
        """Files are told apart by a line of dashes."""
        bots, _, rest = data.partition(b"\n---\n")
        pools, _, settings = rest.partition(b"\n---\n")
        files = {"bots.cfg": bots, "pools.cfg": pools, "settings.cfg": settings}
        try:
            source, meaning = read({**files, "scripts/a.py": b"pass"})
        except BadConfig as error:
            lines = error.lines()
            assert 0 < len(lines) <= 3 * MAX_MISTAKES
            assert all(line.isprintable() and line.split(":")[0] in files for line in lines), lines
        else:
            assert source.digest()
            meaning.bots.group_of("vm1--x")


TARGETS = {"tokens": Tokens, "bodies": Bodies, "config": Config}
