"""What each reply must look like for a bot to go on: `Violation` with the row otherwise."""

import json

from tests.strict_bot.wire import Violation

STATUSES = {"OK", "UNHEALTHY", "HOST_REBOOTING", "BOT_TERMINATING", "INITIALIZING", "MAINTENANCE"}
NUMBER = (int, float)


def need(row, where, body, key, kinds):
    """The value of a required key of one of these types; a bool is no number."""
    if not isinstance(body, dict):
        raise Violation(row, f"{where}: not an object: {body!r}")
    if key not in body:
        raise Violation(row, f"{where}: no {key}")
    value = body[key]
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise Violation(row, f"{where}: {key} is {json.dumps(value)[:60]}")
    return value


def may(row, where, body, key, kinds):
    """The value of an optional key, None when it is absent or null."""
    return None if body.get(key) is None else need(row, where, body, key, kinds)


def lists_of_strings(row, where, value):
    """`{k: [v]}`"""
    for key, values in value.items():
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise Violation(row, f"{where}: {key} is not a list of strings: {values!r}")
    return value


def handshake(body):
    """The reply of `handshake` (bot-api 1.3), as it is."""
    need("1.3.3.1", "handshake", body, "session", str)
    for row, key in (
        ("1.3.3.2", "bot_version"),
        ("1.3.3.3", "server_version"),
        ("1.3.3.5", "bot_config_name"),
        ("1.3.3.6", "bot_config_rev"),
    ):
        need(row, "handshake", body, key, str)
    script = may("1.3.3.4", "handshake", body, "bot_config", str)
    if script is not None:
        try:
            compile(script, "bot_config", "exec")
        except (SyntaxError, ValueError) as error:
            raise Violation("1.3.3.4", f"handshake: bot_config: {error}") from None
    group = need("1.3.3.7", "handshake", body, "bot_group_cfg", dict)
    dimensions = need("1.3.3.7", "handshake: bot_group_cfg", group, "dimensions", dict)
    lists_of_strings("1.3.3.7", "handshake: dimensions", dimensions)
    if "rbe" in body:
        rbe(body["rbe"])
    return body


def rbe(value):
    """The `rbe` object: `instance` and `hybrid_mode` are indexed whatever else there is."""
    if not need("1.3.p2", "rbe", value, "instance", str):
        raise Violation("1.3.p2", "rbe: instance is empty")
    if need("1.3.p2", "rbe", value, "hybrid_mode", bool):
        need("1.3.p2", "rbe", value, "sleep", NUMBER)
    return value


PAYLOADS = {
    "sleep": ("3.3.1.1", "duration", NUMBER),
    "rbe": ("3.3.1.2", "rbe", dict),
    "run": ("3.3.1.3", "manifest", dict),
    "terminate": ("3.3.1.4", "task_id", str),
    "update": ("3.3.1.5", "version", str),
    "bot_restart": ("3.3.1.6", "message", str),
    "host_reboot": ("3.3.1.7", "message", str),
    "restart": ("3.3.1.7", "message", str),
}


def poll(body):
    """The command and its payload (bot-api 3.3)."""
    cmd = need("3.3.1.8", "poll", body, "cmd", str)
    if cmd not in PAYLOADS:
        raise Violation("3.3.1.8", f"poll: unknown cmd {cmd!r}")
    row, key, kinds = PAYLOADS[cmd]
    payload = need(row, f"poll: {cmd}", body, key, kinds)
    if "rbe" in body:
        rbe(body["rbe"])
    if cmd == "run":
        manifest(payload)
    return cmd, payload


def created(body):
    """The id of a new lease session (bot-api 1.11)."""
    need("1.11.p2", "rbe/session/create", body, "session", str)
    if not need("1.11.p2", "rbe/session/create", body, "session_id", str):
        raise Violation("1.11.p2", "rbe/session/create: session_id is empty")
    return body["session_id"]


def updated(body, status, reported):
    """Status and lease, None for none, of `rbe/session/update` after reporting `reported`."""
    where = "rbe/session/update"
    need("1.11.3.1", where, body, "session", str)
    answered = need("1.11.3.2", where, body, "status", str)
    if answered not in STATUSES:
        raise Violation("1.11.3.2", f"{where}: status {answered!r}")
    if "lease" not in body:
        return answered, None
    lease = need("1.11.3.3", where, body, "lease", dict)
    if not need("1.11.3.3", f"{where}: lease", lease, "id", str):
        raise Violation("1.11.3.3", f"{where}: lease.id is empty")
    state = need("1.11.3.3", f"{where}: lease", lease, "state", str)
    if status != "OK":
        raise Violation("1.11.4.3", f"{where}: a lease for a bot that reports {status}")
    if reported and reported["state"] == "ACTIVE":
        is_same = lease["id"] == reported["id"] and state in {"ACTIVE", "CANCELLED"}
        if not is_same or "payload" in lease:
            raise Violation("1.11.4.2", f"{where}: {lease} for the ACTIVE {reported['id']}")
    else:
        if state != "PENDING":
            raise Violation("1.11.4.1", f"{where}: {state} for a bot without a lease")
        payload_of(lease)
    return answered, lease


def payload_of(lease):
    """The TaskPayload of a PENDING lease."""
    where = "rbe/session/update: payload"
    payload = need("1.11.3.3", "rbe/session/update: lease", lease, "payload", dict)
    if may("1.11.5.7", where, payload, "noop", bool):
        return payload
    task_id = need("1.11.5.2", where, payload, "task_id", str)
    if not task_id.endswith("0"):
        raise Violation("1.11.5.2", f"{where}: task_id {task_id!r} does not end in 0")
    may("1.11.5.1", where, payload, "reservation_id", str)
    may("1.11.5.3", where, payload, "slice_index", int)
    may("1.11.5.4", where, payload, "task_to_run_shard", int)
    may("1.11.5.5", where, payload, "task_to_run_id", int)
    return payload


def claimed(body):
    """The command of a claim and what belongs to it (bot-api 4.2)."""
    cmd = need("4.2.1.3", "claim", body, "cmd", str)
    if cmd == "skip":
        return cmd, need("4.2.1.1", "claim: skip", body, "reason", str)
    if cmd not in {"terminate", "run"}:
        raise Violation("4.2.1.3", f"claim: unknown cmd {cmd!r}")
    row = "4.2.1.2" if cmd == "terminate" else "4.2.1.3"
    task_id = need(row, f"claim: {cmd}", body, "task_id", str)
    if not task_id.endswith("1"):
        raise Violation(row, f"claim: {cmd}: task_id {task_id!r} does not end in 1")
    if cmd == "terminate":
        return cmd, task_id
    need(row, "claim: run", body, "session", str)
    found = manifest(need(row, "claim: run", body, "manifest", dict))
    if found["task_id"] != task_id:
        raise Violation("4.4.1.1", f"manifest: task_id {found['task_id']!r}, not {task_id!r}")
    return cmd, found


def manifest(value):
    """The manifest of `run` (bot-api 4.4), as it is."""
    where = "manifest"
    if not need("4.4.1.1", where, value, "task_id", str).endswith("1"):
        raise Violation("4.4.1.1", f"manifest: task_id {value['task_id']!r} does not end in 1")
    need("4.4.1.2", where, value, "bot_id", str)
    for row, key in (("4.4.1.3", "bot_dimensions"), ("4.4.1.4", "dimensions")):
        lists_of_strings(row, f"manifest: {key}", need(row, where, value, key, dict))
    need("4.4.1.5", where, value, "hard_timeout", NUMBER)
    need("4.4.1.6", where, value, "io_timeout", (*NUMBER, type(None)))
    need("4.4.1.7", where, value, "grace_period", NUMBER)
    _texts("4.4.1.8", value, "command")
    may("4.4.1.9", where, value, "relative_cwd", str)
    for variable, text in (may("4.4.1.10", where, value, "env", dict) or {}).items():
        if not isinstance(text, str):
            raise Violation("4.4.1.10", f"manifest: env: {variable} is {text!r}")
    prefixes = may("4.4.1.11", where, value, "env_prefixes", dict) or {}
    lists_of_strings("4.4.1.11", "manifest: env_prefixes", prefixes)
    for cache in may("4.4.1.12", where, value, "caches", list) or []:
        for key in ("name", "path", "hint"):
            need("4.4.1.12", "manifest: caches", cache, key, str)
    _inputs(value)
    _texts("4.4.1.15", value, "outputs")
    may("4.4.1.16", where, value, "secret_bytes", str)
    _accounts(value)
    may("4.4.1.21", where, value, "bot_authenticated_as", str)
    return value


def _texts(row, value, key):
    texts = may(row, "manifest", value, key, list) or []
    if not all(isinstance(text, str) for text in texts):
        raise Violation(row, f"manifest: {key} is not a list of strings: {texts!r}")


def _inputs(value):
    root = may("4.4.1.13", "manifest", value, "cas_input_root", dict)
    if root:
        need("4.4.1.13", "manifest: cas_input_root", root, "cas_instance", str)
        digest = need("4.4.1.13", "manifest: cas_input_root", root, "digest", dict)
        need("4.4.1.13", "manifest: cas_input_root.digest", digest, "hash", str)
    packages = may("4.4.1.14", "manifest", value, "cipd_input", dict)
    if packages:
        need("4.4.1.14", "manifest: cipd_input", packages, "server", str)
        client = need("4.4.1.14", "manifest: cipd_input", packages, "client_package", dict)
        need("4.4.1.14", "manifest: cipd_input.client_package", client, "package_name", str)


def _accounts(value):
    realm = may("4.4.1.18", "manifest", value, "realm", dict)
    if realm:
        need("4.4.1.18", "manifest: realm", realm, "name", str)
    for whose, account in (
        may("4.4.1.20", "manifest", value, "service_accounts", dict) or {}
    ).items():
        need("4.4.1.20", f"manifest: service_accounts.{whose}", account, "service_account", str)


def task_updated(body, *, is_final):
    """Must the command stop? `ok` and `must_stop` are always there (bot-api 5.3)."""
    row = "5.3.1.6" if is_final else "5.3.1.5"
    ok = need(row, "task_update", body, "ok", bool)
    must_stop = need(row, "task_update", body, "must_stop", bool)
    if is_final and must_stop:
        raise Violation("5.3.1.6", "task_update: must_stop for a task that has ended")
    if must_stop and not need("5.3.1.4", "task_update", body, "stop_reason", str):
        raise Violation("5.3.1.4", "task_update: an empty stop_reason; leave it out")
    if ok == ("session" not in body):
        raise Violation(row, f"task_update: ok is {ok}, and the session is wrong for it")
    return must_stop


def nothing(row, name, body):
    """The reply must be exactly `{}` (bot-api 1.6, 5.7)."""
    if body != {}:
        raise Violation(row, f"{name}: not exactly {{}}: {body!r}")


def minted(name, body):
    """What a token call gives (bot-api 1.9)."""
    account = need("1.9.2.1", name, body, "service_account", str)
    if account in {"none", "bot"}:
        if body.keys() & {"access_token", "id_token", "expiry"}:
            raise Violation("1.9.3.1", f"{name}: a token for the account {account!r}")
        return body
    need("1.9.2.2", name, body, "access_token" if name == "oauth_token" else "id_token", str)
    need("1.9.2.3", name, body, "expiry", int)
    return body
